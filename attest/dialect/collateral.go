package dialect

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/tdx"
)

// MaxFiles bounds how many files make up a collection of collateral, maxSets how many sets come out of it.
const (
	MaxFiles = 256
	maxSets  = 1024
)

// The headers in which Intel's service hands out the chains: PCS API 4. A PCCS of an older API calls the first one otherwise.
const (
	headerTCBInfo    = "Tcb-Info-Issuer-Chain"
	headerTCBInfoOld = "Sgx-Tcb-Info-Issuer-Chain"
	headerIdentity   = "Sgx-Enclave-Identity-Issuer-Chain"
	headerPCKCRL     = "Sgx-Pck-Crl-Issuer-Chain"
)

// pieces are the documents out of which sets are made.
type pieces struct {
	infos, identities []signed
	lists             []list // of the PCK's CAs
	root              [][]byte
	pckChain          []byte
}

type signed struct {
	document, chain []byte
	signature       [64]byte
}

type list struct{ der, chain []byte }

// Collateral reads files that together hold collateral, each one of: a set in this project's JSON or dcap-qvl's, which is the same and
// may carry the PCK's chain; Intel's platform_collaterals; an answer of Intel's service or of a PCCS with its headers, as curl -i
// writes it; the root's revocation list in DER, PEM or hexadecimal; the PCK's chain in PEM. It returns a set for each of the
// machines that they speak of. Pick chooses.
func Collateral(files ...[]byte) (sets []*tdx.Collateral, err error) {
	if len(files) == 0 || len(files) > MaxFiles {
		return nil, fmt.Errorf("parsing collateral: %d files, want 1 to %d", len(files), MaxFiles)
	}
	var p pieces
	for i, file := range files {
		if err := bounded("collateral", file); err != nil {
			return nil, err
		}
		whole, err := p.read(file)
		if err != nil {
			if len(files) > 1 {
				return nil, fmt.Errorf("parsing collateral: file %d: %w", i, err)
			}
			return nil, err
		}
		if whole != nil {
			sets = append(sets, whole)
		}
	}
	made, err := p.sets()
	if err != nil {
		return nil, fmt.Errorf("parsing collateral: %w", err)
	}
	if sets = append(sets, made...); len(sets) == 0 {
		return nil, errors.New("parsing collateral: no set of collateral in it")
	}
	for _, set := range sets {
		if set.PCKChain == nil {
			set.PCKChain = p.pckChain
		}
	}
	return sets, nil
}

// read takes one file apart, or returns the set that it is.
func (p *pieces) read(file []byte) (*tdx.Collateral, error) {
	trimmed := bytes.TrimLeft(file, " \t\r\n")
	switch {
	case bytes.HasPrefix(trimmed, []byte("HTTP/")):
		return nil, p.answer(trimmed)
	case bytes.HasPrefix(trimmed, []byte("{")):
		var members map[string]jsontext.Value
		if err := json.Unmarshal(trimmed, &members); err != nil {
			return nil, fmt.Errorf("parsing collateral: %w", err)
		}
		if inner, ok := members["collaterals"]; ok {
			return nil, p.platform(inner)
		}
		if _, bare := members["tcbInfo"]; bare {
			return nil, errors.New("an answer of Intel's service without its headers, want them in the file as curl -i writes them: they carry the chain")
		}
		if _, bare := members["enclaveIdentity"]; bare {
			return nil, errors.New("an answer of Intel's service without its headers, want them in the file as curl -i writes them: they carry the chain")
		}
		return tdx.ParseCollateral(file)
	case bytes.HasPrefix(trimmed, []byte("-----BEGIN CERTIFICATE-----")):
		if p.pckChain != nil {
			return nil, errors.New("a second chain of certificates, want that of the PCK alone")
		}
		p.pckChain = file
		return nil, nil
	}
	p.root = append(p.root, List(file))
	return nil, nil
}

// answer reads a status line, headers and body. Only the headers with a chain are looked at, and each may stand once.
func (p *pieces) answer(file []byte) error {
	head, body, ok := bytes.Cut(file, []byte("\r\n\r\n"))
	if !ok {
		if head, body, ok = bytes.Cut(file, []byte("\n\n")); !ok {
			return errors.New("no end of the headers")
		}
	}
	lines := strings.Split(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n")
	if fields := strings.Fields(lines[0]); len(fields) < 2 || fields[1] != "200" {
		return fmt.Errorf("the service answered %.60q, want 200", lines[0])
	}
	chains := map[string][]byte{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		for _, known := range []string{headerTCBInfo, headerTCBInfoOld, headerIdentity, headerPCKCRL} {
			if !strings.EqualFold(name, known) {
				continue
			}
			chain, err := url.PathUnescape(strings.TrimSpace(value))
			if _, twice := chains[known]; twice || err != nil {
				return fmt.Errorf("header %s is there twice, or no chain in PEM: %v", known, err)
			}
			chains[known] = []byte(chain)
		}
	}
	if len(chains) > 1 {
		return fmt.Errorf("chains of %d kinds in one answer, want one", len(chains))
	}
	for name, chain := range chains {
		switch name {
		case headerPCKCRL:
			p.lists = append(p.lists, list{List(body), chain})
			return nil
		case headerIdentity:
			return p.document(body, "enclaveIdentity", chain, &p.identities)
		default:
			return p.document(body, "tcbInfo", chain, &p.infos)
		}
	}
	p.root = append(p.root, List(body))
	return nil
}

// document reads a signed document with its signature beside it. An identity of another enclave, and TCB info for SGX, stand
// beside those for TDs in what others write, and are left out.
func (p *pieces) document(body []byte, member string, chain []byte, into *[]signed) error {
	var parts map[string]jsontext.Value
	if err := json.Unmarshal(body, &parts); err != nil {
		return err
	}
	if len(parts) != 2 || len(parts[member]) == 0 {
		return fmt.Errorf("document has %d members, want %s and signature", len(parts), member)
	}
	var text string
	if err := json.Unmarshal(parts["signature"], &text); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 64 {
		return fmt.Errorf("signature has %d bytes, want 64: %v", len(raw), err)
	}
	var kind struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(parts[member], &kind); err != nil {
		return fmt.Errorf("%s: %w", member, err)
	}
	if kind.ID == "TDX" || kind.ID == "TD_QE" {
		*into = append(*into, signed{parts[member], chain, [64]byte(raw)})
	}
	return nil
}

// platform reads what Intel's PcsClientTool writes as platform_collaterals. The tool writes the documents anew; Intel signs them
// without white space, which they are given back.
func (p *pieces) platform(collaterals jsontext.Value) error {
	var all struct {
		TCBInfos  []map[string]jsontext.Value `json:"tcbinfos"`
		Lists     map[string]string           `json:"pckcacrl"`
		TDQE      jsontext.Value              `json:"tdqeidentity"`
		TDQEEarly jsontext.Value              `json:"tdqeidentity_early"`
		Chains    struct {
			PCK      map[string]string `json:"SGX-PCK-Certificate-Issuer-Chain"`
			TCBInfo  string            `json:"TCB-Info-Issuer-Chain"`
			Older    string            `json:"SGX-TCB-Info-Issuer-Chain"`
			Identity string            `json:"SGX-Enclave-Identity-Issuer-Chain"`
		} `json:"certificates"`
		Root string `json:"rootcacrl"`
	}
	if err := json.Unmarshal(collaterals, &all); err != nil {
		return fmt.Errorf("platform_collaterals: %w", err)
	}
	unescaped := func(text string) []byte {
		chain, err := url.PathUnescape(text)
		if err != nil {
			return []byte(text)
		}
		return []byte(chain)
	}
	infoChain := all.Chains.TCBInfo
	if infoChain == "" {
		infoChain = all.Chains.Older
	}
	for _, entry := range all.TCBInfos {
		for _, name := range []string{"tdx_tcbinfo", "tdx_tcbinfo_early"} {
			if err := p.written(entry[name], "tcbInfo", unescaped(infoChain), &p.infos); err != nil {
				return fmt.Errorf("platform_collaterals: %s: %w", name, err)
			}
		}
	}
	for _, identity := range []jsontext.Value{all.TDQE, all.TDQEEarly} {
		if err := p.written(identity, "enclaveIdentity", unescaped(all.Chains.Identity), &p.identities); err != nil {
			return fmt.Errorf("platform_collaterals: tdqeidentity: %w", err)
		}
	}
	for _, ca := range []struct{ list, chain string }{{"platformCrl", "PLATFORM"}, {"processorCrl", "PROCESSOR"}} {
		if text := all.Lists[ca.list]; text != "" {
			p.lists = append(p.lists, list{List([]byte(text)), unescaped(all.Chains.PCK[ca.chain])})
		}
	}
	if all.Root != "" {
		p.root = append(p.root, List([]byte(all.Root)))
	}
	return nil
}

// written reads a document that was written anew, or as a string, or not at all.
func (p *pieces) written(value jsontext.Value, member string, chain []byte, into *[]signed) error {
	if len(value) == 0 || value.Kind() == 'n' {
		return nil
	}
	if value.Kind() == '"' {
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return err
		}
		if text == "" {
			return nil
		}
		// As a string it has its exact bytes.
		return p.document([]byte(text), member, chain, into)
	}
	value = slices.Clone(value)
	if err := value.Compact(); err != nil {
		return err
	}
	return p.document(value, member, chain, into)
}

// sets makes a set of each TCB info with each identity and each list of a CA.
func (p *pieces) sets() (sets []*tdx.Collateral, err error) {
	if len(p.infos)+len(p.identities)+len(p.lists) == 0 {
		if len(p.root) > 0 {
			return nil, errors.New("neither JSON, an answer with its headers, nor anything beside a revocation list")
		}
		return nil, nil
	}
	if len(p.infos) == 0 || len(p.identities) == 0 || len(p.lists) == 0 || len(p.root) == 0 {
		return nil, fmt.Errorf("%d TCB infos for TDX, %d identities of the quoting enclave for TDs, %d revocation lists of a PCK's CA and %d of the root, "+
			"want one or more of each", len(p.infos), len(p.identities), len(p.lists), len(p.root))
	}
	if n := len(p.infos) * len(p.identities) * len(p.lists) * len(p.root); n > maxSets {
		return nil, fmt.Errorf("%d sets, want at most %d", n, maxSets)
	}
	for _, info := range p.infos {
		for _, identity := range p.identities {
			for _, crl := range p.lists {
				for _, root := range p.root {
					sets = append(sets, &tdx.Collateral{
						TCBInfo: info.document, TCBInfoSignature: info.signature, TCBInfoIssuerChain: info.chain,
						QEIdentity: identity.document, QEIdentitySignature: identity.signature, QEIdentityIssuerChain: identity.chain,
						PCKCRL: crl.der, PCKCRLIssuerChain: crl.chain, RootCACRL: root,
					})
				}
			}
		}
	}
	return sets, nil
}
