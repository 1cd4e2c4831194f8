package dialect

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"chrysalis/attest/sevsnp"
)

// Extended is a report of SEV-SNP with the table of certificates that the host hands out with it, as the guests of Google's and
// Amazon's clouds get it: AMD 56421, Guest-Hypervisor Communication Block Standardization, SNP extended guest request.
type Extended struct {
	Report      []byte
	Certificate []byte   // VCEK or VLEK, DER; nil where the table has none
	Chain       [][]byte // ASK or ASVK, and ARK, DER
}

const (
	tableEntryBytes = 24 // GUID, offset, length
	maxTableEntries = 32
)

// What the entries hold, by their GUIDs.
var (
	guidVCEK = guid("63da758de6644564adc5f4b93be8accd")
	guidVLEK = guid("a8074bc2a25a483eaae639c045a0b8a1")
	guidASK  = guid("4ab7b379bbac4fe4a02f05aef327c782")
	guidARK  = guid("c0b406a4a803495297433fb6014cd0ae")
)

func guid(text string) (id [16]byte) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		panic("guid " + text) // our own constant
	}
	return [16]byte(b)
}

// IsExtended reports whether bytes are longer than a report.
func IsExtended(b []byte) bool { return len(b) > sevsnp.ReportSize+tableEntryBytes }

// ParseExtended reads a report and the table behind it. Entries that are not known are passed over; each known one may stand once, and
// must lie within the table.
func ParseExtended(b []byte) (*Extended, error) {
	if err := bounded("extended report", b); err != nil {
		return nil, err
	}
	if !IsExtended(b) {
		return nil, fmt.Errorf("parsing extended report: %d bytes, want a report of %d and a table of certificates", len(b), sevsnp.ReportSize)
	}
	e := &Extended{Report: b[:sevsnp.ReportSize:sevsnp.ReportSize]}
	if err := e.table(b[sevsnp.ReportSize:]); err != nil {
		return nil, fmt.Errorf("parsing extended report: table of certificates: %w", err)
	}
	return e, nil
}

func (e *Extended) table(b []byte) error {
	found := map[[16]byte][]byte{}
	for n := 0; ; n++ {
		if n == maxTableEntries || len(b) < (n+1)*tableEntryBytes {
			return fmt.Errorf("no end after %d entries", n)
		}
		entry := b[n*tableEntryBytes:]
		id, offset, size := [16]byte(entry), binary.LittleEndian.Uint32(entry[16:]), binary.LittleEndian.Uint32(entry[20:])
		if id == ([16]byte{}) && offset == 0 && size == 0 {
			break
		}
		if uint64(offset)+uint64(size) > uint64(len(b)) {
			return fmt.Errorf("entry %d lies at %d to %d, want it within %d bytes", n, offset, uint64(offset)+uint64(size), len(b))
		}
		if _, twice := found[id]; twice {
			return fmt.Errorf("%x is there twice", id)
		}
		found[id] = b[offset : offset+size : offset+size]
	}
	if found[guidVCEK] != nil && found[guidVLEK] != nil {
		return errors.New("a VCEK and a VLEK, want one of them")
	}
	e.Certificate = found[guidVCEK]
	if e.Certificate == nil {
		e.Certificate = found[guidVLEK]
	}
	for _, id := range [][16]byte{guidASK, guidARK} {
		if der := found[id]; der != nil {
			e.Chain = append(e.Chain, der)
		}
	}
	return nil
}
