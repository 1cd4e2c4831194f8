//go:build !js

package sevsnp_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"

	"chrysalis/attest/check"
	"chrysalis/attest/sevsnp"
)

// oracle is the second opinion: go-sev-guest's verify and validate, asked for as much of what the options ask for as they
// can be.
func oracle(e sevsnp.Evidence, o sevsnp.Options, at time.Time, roots []*x509.Certificate, product sevsnp.Product) (err error) {
	if len(e.Report) == 0 {
		return errors.New("no report")
	}
	report, err := abi.ReportToProto(e.Report)
	if err != nil {
		return err
	}
	chain := &pb.CertificateChain{VcekCert: e.Certificate, Extras: map[string][]byte{}}
	if report.SignerInfo>>2&7 == uint32(sevsnp.SignerVLEK) {
		chain = &pb.CertificateChain{VlekCert: e.Certificate, Extras: map[string][]byte{}}
	}
	attestation := &pb.Attestation{Report: report, CertificateChain: chain}
	trusted := trust.AMDRootCertsProduct(string(product))
	trusted.ProductCerts = &trust.ProductCerts{}
	for _, der := range e.Chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		switch {
		case slices.ContainsFunc(roots, cert.Equal):
			trusted.ProductCerts.Ark = cert
		case strings.HasPrefix(cert.Subject.CommonName, "SEV-"):
			trusted.ProductCerts.Ask, trusted.ProductCerts.Asvk = cert, cert
		}
	}
	options := &verify.Options{
		Now: at, DisableCertFetching: true, CheckRevocations: !o.InsecureSkipCRL, Getter: crlGetter(e.CRL),
		TrustedRoots: map[string][]*trust.AMDRootCerts{string(product): {trusted}},
	}
	if err := verify.SnpAttestation(attestation, options); err != nil {
		return err
	}
	return validate.SnpAttestation(attestation, validation(o, product))
}

func validation(o sevsnp.Options, product sevsnp.Product) *validate.Options {
	least := o.MinTCB[product]
	parts := kds.TCBParts{BlSpl: least.Bootloader, TeeSpl: least.TEE, SnpSpl: least.SNP, UcodeSpl: least.Microcode}
	vmpl := int(min(o.MaxVMPL, 3))
	v := &validate.Options{
		GuestPolicy: abi.SnpPolicy{
			ABIMajor: o.MinABIMajor, ABIMinor: o.MinABIMinor, SMT: o.AllowSMT, MigrateMA: o.AllowMigrationAgent, SingleSocket: !o.AllowManySockets, CXLAllowed: o.AllowCXL,
			MemAES256XTS: !o.AllowAES128, RAPLDis: !o.AllowRAPL, CipherTextHidingDRAM: !o.AllowVisibleCiphertext, PageSwapDisable: !o.AllowPageSwap,
		},
		MinimumGuestSvn: o.MinGuestSVN, MinimumBuild: o.MinFirmware.Build, MinimumVersion: uint16(o.MinFirmware.Major)<<8 | uint16(o.MinFirmware.Minor),
		MinimumTCB: parts, MinimumLaunchTCB: parts, PermitProvisionalFirmware: o.AllowProvisionalFirmware, VMPL: &vmpl,
		PlatformInfo: &abi.SnpPlatformInfo{SMTEnabled: true, TSMEEnabled: true, TIOEnabled: true,
			AliasCheckComplete: !o.AllowUncheckedAliases},
		MinimumLaunchMitigationVector: o.LaunchMitigations, MinimumCurrentMitigationVector: o.CurrentMitigations,
	}
	if !o.AllowMigrationAgent {
		v.ReportIDMA = slices.Repeat([]byte{0xff}, 32)
	}
	if !o.AnyReportData {
		v.ReportData = o.ReportData[:]
	}
	if !o.AnyHostData {
		v.HostData = o.HostData[:]
	}
	if !o.AnyIDBlock {
		v.FamilyID, v.ImageID = o.IDBlock.FamilyID[:], o.IDBlock.ImageID[:]
	}
	if len(o.Measurements) > 0 {
		v.Measurement = o.Measurements[0][:]
	}
	if len(o.Chips) > 0 {
		v.ChipID = o.Chips[0][:]
	}
	return v
}

// crlGetter answers every request with one revocation list.
type crlGetter []byte

func (g crlGetter) Get(string) ([]byte, error) {
	if g == nil {
		return nil, errors.New("no list")
	}
	return g, nil
}

// TestAgainstOracle judges every vector and every form twice. DIFFERENCES.md names exactly those on which the two differ.
func TestAgainstOracle(t *testing.T) {
	document, err := os.ReadFile("DIFFERENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(document), -1) {
		listed[match[1]] = true
	}
	for _, v := range slices.Concat(vectors, forms) {
		r := v.make()
		e := r.Evidence()
		_, ours := sevsnp.Verify(e, r.options, r.at, r.roots)
		theirs := oracle(e, r.options, r.at, r.roots, r.product)
		if differ := (ours == nil) != (theirs == nil); differ != listed[v.name] {
			t.Errorf("%s: ours: %v; go-sev-guest: %v; listed as a difference: %t", v.name, ours, theirs, listed[v.name])
		}
		delete(listed, v.name)
	}
	for name := range listed {
		t.Errorf("DIFFERENCES.md lists %q, which is no vector", name)
	}
}

// realEvidence is a report that a Milan processor signed, and AMD's certificates. The guest was launched with DEBUG.
func realEvidence(t *testing.T) sevsnp.Evidence {
	t.Helper()
	ask, rest := pem.Decode(trust.AskArkMilanVcekBytes)
	ark, _ := pem.Decode(rest)
	if ask == nil || ark == nil {
		t.Fatal("no certificates in the library's data")
	}
	return sevsnp.Evidence{Report: slices.Clone(testdata.AttestationBytes), Certificate: testdata.VcekBytes, Chain: [][]byte{ask.Bytes, ark.Bytes}}
}

// platformAlone accepts every guest, on hosts that do not harden anything.
var platformAlone = sevsnp.Options{
	InsecureSkipCRL: true, AnyChip: true, InsecureSkipTCB: true, AnyMeasurement: true, AnyHostData: true, AnyReportData: true, AnyIDBlock: true,
	AllowSMT: true, AllowManySockets: true, AllowAES128: true, AllowRAPL: true, AllowVisibleCiphertext: true, AllowPageSwap: true, AllowUncheckedAliases: true,
}

// TestReal judges a processor's own report. It would be accepted but for DEBUG, which no option accepts.
func TestReal(t *testing.T) {
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	e := realEvidence(t)
	_, err := sevsnp.Verify(e, platformAlone, at, sevsnp.AMDRoots())
	var refused *sevsnp.Refused
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, c := range refused.Checks() {
		if want := c.Name == "debug"; (c.Verdict == check.Denied) != want {
			t.Errorf("%s: got %s, want refused %t", c.Name, c.Verdict, want)
		}
	}
	if report, signed := refused.Report(); report == nil || !signed {
		t.Errorf("the report's signature is not proven")
	}
	if err := oracle(e, platformAlone, at, sevsnp.AMDRoots(), sevsnp.Milan); err == nil || !strings.Contains(err.Error(), "debug") {
		t.Errorf("go-sev-guest: got %v, want a refusal of debug", err)
	}
	if result, err := sevsnp.VerifyDropping(e, platformAlone, at, sevsnp.AMDRoots(), "debug"); err != nil || result.Product() != sevsnp.Milan {
		t.Errorf("without the check of debug: got %v, want it accepted", err)
	}
	for i, bit := range map[int]byte{0x0a: 1 << 3, 0x30: 1, 0x1a0: 1, 0x180: 1, 0x90: 1} {
		changed := realEvidence(t)
		changed.Report[i] ^= bit
		if _, err := sevsnp.Verify(changed, platformAlone, at, sevsnp.AMDRoots()); !errors.As(err, &refused) || refused.Failed.Name != "signature" {
			t.Errorf("byte %#x changed: got %v, want a refusal by signature", i, err)
		}
	}
}

// TestAMDAuthorities checks every ASK and ASVK that AMD publishes against the embedded root, which is the published one.
func TestAMDAuthorities(t *testing.T) {
	for product, bundles := range map[sevsnp.Product][2][]byte{
		sevsnp.Milan: {trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes},
		sevsnp.Genoa: {trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes},
		sevsnp.Turin: {trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes},
	} {
		for i, signer := range []sevsnp.Signer{sevsnp.SignerVCEK, sevsnp.SignerVLEK} {
			ask, rest := pem.Decode(bundles[i])
			ark, _ := pem.Decode(rest)
			if err := sevsnp.CheckAuthorities(ask.Bytes, ark.Bytes, product, signer); err != nil {
				t.Errorf("%s, %s: %v", product, signer, err)
			}
		}
	}
}
