package sevsnp

import (
	"encoding/hex"
	"fmt"

	"chrysalis/attest/pki"
)

// turinChipBytes is how much of the chip id names a Turin processor to AMD's service; the rest is zero.
const turinChipBytes = 8

// Product returns the processor line that a report names. Reports before version 3 name none. It is the report's own,
// unverified word.
func (r *Report) Product() (Product, error) {
	if p := productOf(r.CPUID); r.Version >= 3 && p != "" {
		return p, nil
	}
	if r.Version >= cpuidVersion {
		return "", fmt.Errorf("processor is of family %#x, model %#x, %s", r.CPUID.Family, r.CPUID.Model, newest)
	}
	return "", fmt.Errorf("report of version %d does not name its processor line", r.Version)
}

// VCEKQuery returns what names the endorsement key's certificate to AMD's service: chip id and patch levels, as path and
// query. Source: AMD 57230, section 4.1.
func (r *Report) VCEKQuery(p Product) (string, error) {
	if r.Signer != SignerVCEK {
		return "", fmt.Errorf("report is signed by a %s, whose certificate comes from the cloud that runs it", r.Signer)
	}
	if r.ChipID == ([64]byte{}) {
		return "", fmt.Errorf("report's chip id is masked, so it can't name its certificate")
	}
	tcb, err := r.ReportedTCB.Parts(p)
	if err != nil {
		return "", err
	}
	levels := fmt.Sprintf("blSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", tcb.Bootloader, tcb.TEE, tcb.SNP, tcb.Microcode)
	if p == Turin {
		return fmt.Sprintf("%s?fmcSPL=%02d&%s", hex.EncodeToString(r.ChipID[:turinChipBytes]), tcb.FMC, levels), nil
	}
	return hex.EncodeToString(r.ChipID[:]) + "?" + levels, nil
}

// EndorsedBy reports whether a certificate says that it is of the key that signed the report: of its chip, unless the report hides it, at
// its patch level. Nothing is verified.
func (r *Report) EndorsedBy(certificate []byte, p Product) bool {
	cert, err := pki.Parse(certificate, maxCertificateBytes)
	if err != nil {
		return false
	}
	e, err := parseEndorsement(cert)
	if err != nil || e.product != p || e.signer() != r.Signer {
		return false
	}
	tcb, err := r.ReportedTCB.Parts(p)
	return err == nil && tcb == e.tcb && (e.signer() == SignerVLEK || r.ChipID == [64]byte{} || r.ChipID == e.chipID())
}
