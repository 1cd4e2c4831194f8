package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/sevsnp"
)

// writeSNPAppraisals writes reports and certificates of software processors, and a genuine report with DEBUG.
func writeSNPAppraisals(dir string) error {
	files := map[string][]byte{"snp-genuine.bin": testdata.AttestationBytes, "snp-genuine.der": testdata.VcekBytes,
		"snp-genuine.pem": trust.AskArkMilanVcekBytes}
	certificate := func(kind string, ders ...[]byte) (text []byte) {
		for _, der := range ders {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		}
		return text
	}
	add := func(name string, product sevsnp.Product, signer sevsnp.Signer, change func(*attesttest.SNP)) sevsnp.Evidence {
		s := attesttest.NewSNP(product, signer, appraisedAt)
		change(s)
		e := s.Evidence()
		files[name+".bin"], files[name+".der"], files[name+".chain"] = e.Report, e.Certificate, certificate("CERTIFICATE", e.Chain...)
		files[name+".crl"], files["snp-root.pem"] = e.CRL, certificate("CERTIFICATE", e.Chain[1])
		return e
	}
	add("snp-debug", sevsnp.Genoa, sevsnp.SignerVCEK, func(s *attesttest.SNP) { s.Report.Policy |= sevsnp.PolicyDebug })
	add("snp-vmpl", sevsnp.Genoa, sevsnp.SignerVCEK, func(s *attesttest.SNP) { s.Report.VMPL = 2 })
	add("snp-provisional", sevsnp.Genoa, sevsnp.SignerVCEK, func(s *attesttest.SNP) { s.Report.CurrentTCB[7]++ })
	add("snp-smt", sevsnp.Genoa, sevsnp.SignerVCEK, func(s *attesttest.SNP) { s.Report.Policy |= sevsnp.PolicySMT })
	add("snp-masked", sevsnp.Genoa, sevsnp.SignerVCEK, func(s *attesttest.SNP) { s.Report.ChipID = [64]byte{} })
	add("snp-block", sevsnp.Genoa, sevsnp.SignerVCEK, func(s *attesttest.SNP) { s.Report.IDKeyDigest[0], s.Report.FamilyID[0] = 2, 1 })
	vlek := add("snp-vlek", sevsnp.Genoa, sevsnp.SignerVLEK, func(*attesttest.SNP) {})
	e := add("snp-good", sevsnp.Genoa, sevsnp.SignerVCEK, func(*attesttest.SNP) {})
	files["snp-good.hex"], files["snp-good.b64"] = []byte(hex.EncodeToString(e.Report)+
		"\n"), []byte(base64.StdEncoding.EncodeToString(e.Report)+"\n")
	files["snp-good.pem"], files["snp-good.crl.pem"] = certificate("CERTIFICATE", e.Certificate), certificate("X509 CRL", e.CRL)
	files["snp-bundle.pem"] = certificate("CERTIFICATE", e.Certificate, e.Chain[0], e.Chain[1])
	files["snp-three.chain"] = certificate("CERTIFICATE", e.Chain[0], e.Chain[1], vlek.Chain[0])
	files["snp-turned.chain"], files["snp-chain.der"] = certificate("CERTIFICATE", e.Chain[1], e.Chain[0]), slices.Concat(e.Chain...)
	files["snp-long.chain"] = append(slices.Clone(files["snp-good.chain"]), "more\n"...)
	files["snp-trailing.bin"] = append(slices.Clone(e.Report), 0)
	files["snp-changed.bin"] = slices.Clone(e.Report)
	files["snp-changed.bin"][0x90] ^= 1
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
