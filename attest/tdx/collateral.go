package tdx

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/fault"
)

// Collateral is what Intel's provisioning certification service says of a machine, as it came: unverified.
type Collateral struct {
	PCKCRL, RootCACRL []byte // DER

	PCKCRLIssuerChain, TCBInfoIssuerChain, QEIdentityIssuerChain []byte // PEM: signer, root

	TCBInfo, QEIdentity                   []byte // JSON, the exact bytes that are signed
	TCBInfoSignature, QEIdentitySignature [64]byte

	// PCKChain is the chain of a quote that carries none: PCK, its CA, root, in PEM; nil for other quotes, which have their own.
	PCKChain []byte
}

// Sizes: the largest CRL of the service is a few hundred KiB.
const (
	MaxCollateralBytes = 8 << 20
	maxCRLBytes        = 2 << 20
	maxDocumentBytes   = 512 << 10
	maxLevels          = 256
	maxAdvisories      = 256
)

// dates are the validity of a signed document and its place in the sequence of Intel's evaluations.
type dates struct {
	issued, next time.Time
	evaluation   uint32
}

func (d dates) dated() dates { return d }

// tcbInfo is TCB info of version 3 for TDX.
type tcbInfo struct {
	dates
	fmspc      [6]byte
	pceID      [2]byte
	tdxModule  moduleIdentity
	identities []moduleIdentity
	levels     []tcbLevel
}

// moduleIdentity says who signs a TDX module and with which attributes it runs.
type moduleIdentity struct {
	id               string
	signer           [48]byte
	attributes, mask [8]byte
	levels           []isvLevel
}

type tcbLevel struct {
	sgx, tdx           [16]byte
	sgxNames, tdxNames [16]string // what each component is, in Intel's words; often ""
	pceSVN             uint16
	status             Status
	known
}

type isvLevel struct {
	isvSVN uint16
	status Status
	known
}

// known is what is known of a level: all up to its date, and what it is open to.
type known struct {
	date       time.Time
	advisories []string
}

// module returns the identity of modules of a version: "TDX_" and the version in two hexadecimal digits.
func (t *tcbInfo) module(version byte) *moduleIdentity {
	id := fmt.Sprintf("TDX_%02X", version)
	for i := range t.identities {
		if strings.EqualFold(t.identities[i].id, id) {
			return &t.identities[i]
		}
	}
	return nil
}

// qeIdentity is the identity of the quoting enclave for TDs, version 2.
type qeIdentity struct {
	dates
	miscSelect, miscSelectMask [4]byte
	attributes, attributesMask [16]byte
	signer                     [32]byte
	prodID                     uint16
	levels                     []isvLevel
}

// The documents in JSON: Intel PCS API 4, "Get TDX TCB Info" and "Get TDX QE Identity". Their version says what they mean;
// members that Intel adds within a version are signed by it and change nothing that is judged here, so they are passed over.
type (
	tcbInfoJSON struct {
		ID                  string       `json:"id"`
		Version             int          `json:"version"`
		IssueDate           string       `json:"issueDate"`
		NextUpdate          string       `json:"nextUpdate"`
		FMSPC               string       `json:"fmspc"`
		PCEID               string       `json:"pceId"`
		TCBType             int          `json:"tcbType"`
		Evaluation          uint32       `json:"tcbEvaluationDataNumber"`
		TDXModule           *moduleJSON  `json:"tdxModule"`
		TDXModuleIdentities []moduleJSON `json:"tdxModuleIdentities"`
		TCBLevels           []levelJSON  `json:"tcbLevels"`
	}
	moduleJSON struct {
		ID             string      `json:"id"`
		MRSIGNER       string      `json:"mrsigner"`
		Attributes     string      `json:"attributes"`
		AttributesMask string      `json:"attributesMask"`
		TCBLevels      []levelJSON `json:"tcbLevels"`
	}
	levelJSON struct {
		TCB struct {
			SGX    components `json:"sgxtcbcomponents"`
			PCESVN *uint16    `json:"pcesvn"`
			TDX    components `json:"tdxtcbcomponents"`
			ISVSVN *uint16    `json:"isvsvn"`
		} `json:"tcb"`
		Status     string   `json:"tcbStatus"`
		Date       string   `json:"tcbDate"`
		Advisories []string `json:"advisoryIDs"`
	}
	qeIdentityJSON struct {
		ID             string      `json:"id"`
		Version        int         `json:"version"`
		IssueDate      string      `json:"issueDate"`
		NextUpdate     string      `json:"nextUpdate"`
		Evaluation     uint32      `json:"tcbEvaluationDataNumber"`
		MiscSelect     string      `json:"miscselect"`
		MiscSelectMask string      `json:"miscselectMask"`
		Attributes     string      `json:"attributes"`
		AttributesMask string      `json:"attributesMask"`
		MRSIGNER       string      `json:"mrsigner"`
		ISVProdID      *uint16     `json:"isvprodid"`
		TCBLevels      []levelJSON `json:"tcbLevels"`
	}
)

func parseTCBInfo(b []byte) (*tcbInfo, error) {
	var doc tcbInfoJSON
	if err := parseDocument(b, &doc); err != nil {
		return nil, err
	}
	if doc.ID != "TDX" || doc.Version != 3 || doc.TCBType != 0 {
		return nil, fmt.Errorf("it is %q of version %d and type %d, want %q of 3 and 0", doc.ID, doc.Version, doc.TCBType, "TDX")
	}
	if doc.TDXModule == nil {
		return nil, errors.New("no tdxModule")
	}
	info := new(tcbInfo)
	var err error
	if info.dates, err = parseDates(doc.IssueDate, doc.NextUpdate, doc.Evaluation); err != nil {
		return nil, err
	}
	if err := hexInto(info.fmspc[:], doc.FMSPC); err != nil {
		return nil, fmt.Errorf("fmspc: %w", err)
	}
	if err := hexInto(info.pceID[:], doc.PCEID); err != nil {
		return nil, fmt.Errorf("pceId: %w", err)
	}
	if info.tdxModule, err = parseModule(*doc.TDXModule); err != nil {
		return nil, fmt.Errorf("tdxModule: %w", err)
	}
	if len(doc.TDXModuleIdentities) > maxLevels || len(doc.TCBLevels) > maxLevels || len(doc.TCBLevels) == 0 {
		return nil, fmt.Errorf("%d modules and %d levels, want at most %d", len(doc.TDXModuleIdentities), len(doc.TCBLevels), maxLevels)
	}
	for _, m := range doc.TDXModuleIdentities {
		module, err := parseModule(m)
		if err != nil {
			return nil, fmt.Errorf("module %q: %w", m.ID, err)
		}
		for _, other := range info.identities {
			if strings.EqualFold(other.id, m.ID) {
				return nil, fmt.Errorf("module %q is there twice", m.ID)
			}
		}
		info.identities = append(info.identities, module)
	}
	for i, l := range doc.TCBLevels {
		level := tcbLevel{}
		if level.status, err = knownStatus(l.Status, UpToDate, SWHardeningNeeded, ConfigurationNeeded,
			ConfigurationAndSWHardeningNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked); err != nil {
			return nil, fmt.Errorf("level %d: %w", i, err)
		}
		if l.TCB.PCESVN == nil {
			return nil, fmt.Errorf("level %d: no pcesvn", i)
		}
		level.pceSVN = *l.TCB.PCESVN
		if level.known, err = l.known(); err != nil {
			return nil, fmt.Errorf("level %d: %w", i, err)
		}
		if level.sgx, level.sgxNames, err = l.TCB.SGX.parsed(); err != nil {
			return nil, fmt.Errorf("level %d: sgxtcbcomponents: %w", i, err)
		}
		if level.tdx, level.tdxNames, err = l.TCB.TDX.parsed(); err != nil {
			return nil, fmt.Errorf("level %d: tdxtcbcomponents: %w", i, err)
		}
		for j, above := range info.levels {
			// The first level that a machine reaches is its own, so one below that asks for as much would never be anybody's.
			if level.reaches(above) {
				return nil, fmt.Errorf("level %d asks for all that level %d asks for, want levels in descending order", i, j)
			}
		}
		info.levels = append(info.levels, level)
	}
	return info, nil
}

// reaches reports whether every machine of the level is one of the other's.
func (l tcbLevel) reaches(other tcbLevel) bool {
	return covers(l.sgx[:], other.sgx[:]) && l.pceSVN >= other.pceSVN && covers(l.tdx[:], other.tdx[:])
}

func parseQEIdentity(b []byte) (*qeIdentity, error) {
	var doc qeIdentityJSON
	if err := parseDocument(b, &doc); err != nil {
		return nil, err
	}
	if doc.ID != "TD_QE" || doc.Version != 2 {
		return nil, fmt.Errorf("it is %q of version %d, want %q of 2", doc.ID, doc.Version, "TD_QE")
	}
	if doc.ISVProdID == nil {
		return nil, errors.New("no isvprodid")
	}
	id := &qeIdentity{prodID: *doc.ISVProdID}
	var err error
	if id.dates, err = parseDates(doc.IssueDate, doc.NextUpdate, doc.Evaluation); err != nil {
		return nil, err
	}
	for _, field := range []struct {
		name, text string
		into       []byte
	}{
		{"miscselect", doc.MiscSelect, id.miscSelect[:]}, {"miscselectMask", doc.MiscSelectMask, id.miscSelectMask[:]},
		{"attributes", doc.Attributes, id.attributes[:]}, {"attributesMask", doc.AttributesMask, id.attributesMask[:]},
		{"mrsigner", doc.MRSIGNER, id.signer[:]},
	} {
		if err := hexInto(field.into, field.text); err != nil {
			return nil, fmt.Errorf("%s: %w", field.name, err)
		}
	}
	if len(doc.TCBLevels) == 0 {
		return nil, errors.New("no levels")
	}
	id.levels, err = parseISVLevels(doc.TCBLevels)
	return id, err
}

func parseDocument(b []byte, into any) error {
	if len(b) > maxDocumentBytes {
		return fmt.Errorf("%d bytes, want at most %d", len(b), maxDocumentBytes)
	}
	return fault.JSON(json.Unmarshal(b, into))
}

func parseDates(issued, next string, evaluation uint32) (d dates, err error) {
	d.evaluation = evaluation
	if d.issued, err = time.Parse(time.RFC3339, issued); err != nil {
		return d, fmt.Errorf("issueDate: %w", err)
	}
	if d.next, err = time.Parse(time.RFC3339, next); err != nil {
		return d, fmt.Errorf("nextUpdate: %w", err)
	}
	return d, nil
}

func parseModule(doc moduleJSON) (m moduleIdentity, err error) {
	m.id = doc.ID
	if err := hexInto(m.signer[:], doc.MRSIGNER); err != nil {
		return m, fmt.Errorf("mrsigner: %w", err)
	}
	if err := hexInto(m.attributes[:], doc.Attributes); err != nil {
		return m, fmt.Errorf("attributes: %w", err)
	}
	if err := hexInto(m.mask[:], doc.AttributesMask); err != nil {
		return m, fmt.Errorf("attributesMask: %w", err)
	}
	m.levels, err = parseISVLevels(doc.TCBLevels)
	return m, err
}

// parseISVLevels reads the levels of a module or an enclave, which know three statuses.
func parseISVLevels(docs []levelJSON) (levels []isvLevel, err error) {
	if len(docs) > maxLevels {
		return nil, fmt.Errorf("%d levels, want at most %d", len(docs), maxLevels)
	}
	for i, doc := range docs {
		if doc.TCB.ISVSVN == nil {
			return nil, fmt.Errorf("level %d: no isvsvn", i)
		}
		status, err := knownStatus(doc.Status, UpToDate, OutOfDate, Revoked)
		if err != nil {
			return nil, fmt.Errorf("level %d: %w", i, err)
		}
		known, err := doc.known()
		if err != nil {
			return nil, fmt.Errorf("level %d: %w", i, err)
		}
		if i > 0 && *doc.TCB.ISVSVN >= levels[i-1].isvSVN {
			return nil, fmt.Errorf("level %d has isvsvn %d after %d, want levels in descending order", i, *doc.TCB.ISVSVN, levels[i-1].isvSVN)
		}
		levels = append(levels, isvLevel{*doc.TCB.ISVSVN, status, known})
	}
	return levels, nil
}

// known reads what is known of a level. Both are for people, and absent in older documents.
func (l levelJSON) known() (k known, err error) {
	if l.Date != "" {
		if k.date, err = time.Parse(time.RFC3339, l.Date); err != nil {
			return k, fmt.Errorf("tcbDate: %w", err)
		}
	}
	if len(l.Advisories) > maxAdvisories {
		return k, fmt.Errorf("%d advisories, want at most %d", len(l.Advisories), maxAdvisories)
	}
	k.advisories = l.Advisories
	return k, nil
}
