package sevsnp

import (
	"fmt"
	"strings"

	"chrysalis/attest/check"
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

// newest is said wherever evidence is of a line that has no root here: it may well be genuine, and nothing in it is wrong.
const newest = "a line of processors that this build does not know: Turin is the newest it knows"

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

// shortfalls says which patch levels are below the lowest that is accepted. A report has four: what the firmware that runs now has,
// what it can't be taken back below, what it reports, and what the guest was started on.
func (t TCBs) shortfalls(want TCB) (all []check.Shortfall) {
	const firmware, microcode = "SNP firmware (BIOS)", "microcode (BIOS)"
	for _, level := range []struct {
		part   string
		got    TCB
		update string // instead of the component, where the processor has it already
	}{
		{"processor, current level", t.Current, ""},
		{"processor, committed level", t.Committed, "the committed level: the host has to commit the firmware that runs"},
		{"processor, reported level", t.Reported, "the reported level: the host has to set it"},
		{"guest, level at launch", t.Launch, "the guest: it has to be started again"},
	} {
		for _, part := range []struct {
			name               string
			got, want, current uint8
			update             string
		}{
			{"FMC", level.got.FMC, want.FMC, t.Current.FMC, firmware},
			{"bootloader", level.got.Bootloader, want.Bootloader, t.Current.Bootloader, firmware},
			{"TEE", level.got.TEE, want.TEE, t.Current.TEE, firmware},
			{"SNP", level.got.SNP, want.SNP, t.Current.SNP, firmware},
			{"microcode", level.got.Microcode, want.Microcode, t.Current.Microcode, microcode},
		} {
			if part.got >= part.want {
				continue
			}
			update := part.update
			if level.update != "" && part.current >= part.want {
				update = level.update
			}
			all = append(all, check.Shortfall{Part: level.part, Component: part.name, Got: uint64(part.got),
				Want: uint64(part.want), Update: update})
		}
	}
	return all
}
