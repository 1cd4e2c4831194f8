package sevsnp

import (
	"fmt"
	"strings"
)

// Product is a line of processors with its own root, key hierarchy and TCB layout.
type Product string

// The products that have roots.
const (
	Milan Product = "Milan"
	Genoa Product = "Genoa" // Bergamo and Siena too
	Turin Product = "Turin"
)

// Products lists them.
func Products() []Product { return []Product{Milan, Genoa, Turin} }

// productOf returns the product of a processor, or "".
func productOf(id CPUID) Product {
	// AMD 57230, Versioned Chip Endorsement Key Certificate and KDS Interface Specification, names the lines; the models are
	// those of AMD's processor programming references.
	switch m := id.Model; {
	case id.Family == 0x19 && m <= 0x0f:
		return Milan
	case id.Family == 0x19 && (m >= 0x10 && m <= 0x1f || m >= 0xa0 && m <= 0xaf):
		return Genoa
	case id.Family == 0x1a && m <= 0x1f:
		return Turin
	}
	return ""
}

// productNamed returns the product of a certificate's productName, or "". A VCEK's name ends in a stepping ("Milan-B0")
// on most chips, on newer ones it does not; a VLEK's never does.
func productNamed(name string) Product {
	line, stepping, cut := strings.Cut(name, "-")
	if cut && (len(stepping) != 2 || stepping[0] < 'A' || stepping[0] > 'Z' || stepping[1] < '0' || stepping[1] > '9') {
		return ""
	}
	switch p := Product(line); p {
	case Milan, Genoa, Turin:
		return p
	case "Siena":
		return Genoa
	}
	return ""
}

// TCBVersion is a TCB_VERSION as it lies in a report. What its bytes mean depends on the product.
type TCBVersion [8]byte

// TCB is the security patch level of each part of the platform.
type TCB struct {
	FMC        uint8 `json:"fmc"` // Turin alone has it
	Bootloader uint8 `json:"bootloader"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"microcode"`
}

func (t TCB) String() string {
	return fmt.Sprintf("fmc %d, bootloader %d, tee %d, snp %d, microcode %d", t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// Parts takes a version apart: table 3 of AMD 56860, and table 4 for Turin. A reserved byte must be zero.
func (v TCBVersion) Parts(p Product) (TCB, error) {
	var t TCB
	switch p {
	case Milan, Genoa:
		t = TCB{Bootloader: v[0], TEE: v[1], SNP: v[6], Microcode: v[7]}
	case Turin:
		t = TCB{FMC: v[0], Bootloader: v[1], TEE: v[2], SNP: v[3], Microcode: v[7]}
	default:
		return TCB{}, fmt.Errorf("TCB of %q, want that of %s, %s or %s", p, Milan, Genoa, Turin)
	}
	if t.Version(p) != v {
		return t, fmt.Errorf("reserved bytes are not zero in %x", v)
	}
	return t, nil
}

// Version puts a version together.
func (t TCB) Version(p Product) TCBVersion {
	if p == Turin {
		return TCBVersion{t.FMC, t.Bootloader, t.TEE, t.SNP, 7: t.Microcode}
	}
	return TCBVersion{0: t.Bootloader, 1: t.TEE, 6: t.SNP, 7: t.Microcode}
}

// AtMost reports whether no part of t is above the same part of u.
func (t TCB) AtMost(u TCB) bool {
	return t.FMC <= u.FMC && t.Bootloader <= u.Bootloader && t.TEE <= u.TEE && t.SNP <= u.SNP && t.Microcode <= u.Microcode
}

// min returns the lower of each part.
func (t TCB) min(u TCB) TCB {
	return TCB{min(t.FMC, u.FMC), min(t.Bootloader, u.Bootloader), min(t.TEE, u.TEE), min(t.SNP, u.SNP), min(t.Microcode, u.Microcode)}
}
