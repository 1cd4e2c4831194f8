package igvm

import (
	"fmt"
	"slices"

	"chrysalis/measure/snp"
	"chrysalis/measure/tdvf"
)

// registersAddress is where KVM puts each register state, whatever the file says.
const registersAddress = 0xfffffffff000

// Platforms are those of the file that hardware measures.
func (f *File) Platforms() (all []Platform) {
	for _, p := range []Platform{SEVSNP, TDX} {
		if _, there := f.masks[p]; there {
			all = append(all, p)
		}
	}
	return all
}

// of returns the steps for a platform.
func (f *File) of(p Platform) ([]step, uint32, error) {
	mask, there := f.masks[p]
	if !there {
		return nil, 0, fmt.Errorf("the file has no guest for %v, it has %v", p, f.Platforms())
	}
	return slices.DeleteFunc(slices.Clone(f.steps), func(s step) bool { return s.mask&mask == 0 }), mask, nil
}

// Policy returns the SEV-SNP guest policy that the file asks for.
func (f *File) Policy() (uint64, bool) {
	for mask, policy := range f.policy {
		if mask&f.masks[SEVSNP] != 0 {
			return policy, true
		}
	}
	return 0, false
}

// Promised returns the launch digest that the file's ID block has, which its maker computed and signed.
func (f *File) Promised() (digest [48]byte, there bool) {
	for mask, digest := range f.idBlock {
		if mask&f.masks[SEVSNP] != 0 {
			return digest, true
		}
	}
	return digest, false
}

// InOrder reports whether the register states stand behind all else of SEV-SNP, where KVM puts them: then QEMU measures the file as
// this package does, and otherwise another digest.
func (f *File) InOrder() bool {
	steps, _, err := f.of(SEVSNP)
	if err != nil {
		return false
	}
	seen := false
	for _, s := range steps {
		if s.typ == typeRegisters {
			if seen = true; s.address != registersAddress {
				return false
			}
		} else if seen {
			return false
		}
	}
	return true
}

// LaunchDigest returns the launch digest of SEV-SNP, each page in the order of the file.
func (f *File) LaunchDigest() ([48]byte, error) {
	steps, _, err := f.of(SEVSNP)
	if err != nil {
		return [48]byte{}, fmt.Errorf("computing launch digest: %w", err)
	}
	if _, there := f.Policy(); !there {
		return [48]byte{}, fmt.Errorf("computing launch digest: the file has no guest policy for SEV-SNP, and no loader starts it")
	}
	var c snp.Chain
	for _, s := range steps {
		switch {
		case s.typ == typeParameterInsert:
			for i := range s.pages {
				c.Blank(snp.PageUnmeasured, s.address+i*pageBytes)
			}
		case s.typ == typeRegisters:
			c.Data(snp.PageRegisters, s.address, s.data)
		case s.flags&flagShared != 0:
		case s.kind == dataSecrets:
			c.Blank(snp.PageSecrets, s.address)
		case s.kind == dataCPUID || s.kind == dataCPUIDXF:
			c.Blank(snp.PageCPUID, s.address)
		case s.flags&flagUnmeasured != 0:
			c.Blank(snp.PageUnmeasured, s.address)
		default:
			c.Data(snp.PageNormal, s.address, content(s.data))
		}
	}
	return c.Digest(), nil
}

// MRTD returns the measurement of TDX, each page added and then extended in the order of the file. Register states are the TDX module's.
func (f *File) MRTD() ([48]byte, error) {
	steps, _, err := f.of(TDX)
	if err != nil {
		return [48]byte{}, fmt.Errorf("computing MRTD: %w", err)
	}
	m := tdvf.NewMeasurement()
	for _, s := range steps {
		switch {
		case s.typ == typeParameterInsert:
			for i := range s.pages {
				m.Add(s.address + i*pageBytes)
			}
		case s.typ == typeRegisters, s.flags&flagShared != 0:
		default:
			m.Add(s.address)
			if s.flags&flagUnmeasured == 0 {
				m.Extend(s.address, [pageBytes]byte(content(s.data)))
			}
		}
	}
	return m.MRTD(), nil
}

var zeros [pageBytes]byte

// content returns a page's bytes; one without is of zeros.
func content(data []byte) []byte {
	if data == nil {
		return zeros[:]
	}
	return data
}
