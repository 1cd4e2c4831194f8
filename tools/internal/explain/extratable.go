package explain

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/evidence"
	"chrysalis/measure/register"
)

// The script that loads ACPI tables: entries of fixed size, each a command with its operands. Source: QEMU,
// hw/acpi/bios-linker-loader.c.
const (
	scriptEntry = 128
	scriptName  = 56

	addPointer  = 2 // file to change, file pointed to, offset, size
	addChecksum = 3 // file, offset of the sum, start, length

	pointerOffset  = 4 + 2*scriptName
	checksumOffset = 4 + scriptName

	rsdpFile   = "etc/acpi/rsdp"
	tablesFile = "etc/acpi/tables"
	rsdpRoot   = 16 // offset of the root table's address in the RSDP: ACPI 6.5, section 5.2.5.3

	maxExtraTables = 8
	maxExtraBytes  = 128 << 10 // of all of them: QEMU's own tables have less
	minTableBytes  = 36        // a table's header
	rootPointer    = 4         // bytes of one in the RSDT
)

// extraTables reports whether the guest's tables are the expected machine's and more, and else whether they are longer. QEMU
// puts tables of its user's before the root table: nobody can guess their contents, but where the root table then stands is in
// the RSDP, and how many it points to in the loading script, and both were measured.
func (x *explanation) extraTables(ctx context.Context) (says string, exact bool) {
	shape := *x.Shape
	if x.machineName() == register.RTMR(0) {
		shape = shape.TDX()
	}
	tables, err := x.Machines.Tables(ctx, shape)
	rsdp := tables.Files[rsdpFile]
	if err != nil || len(rsdp) < rsdpRoot+4 || x.measured(rsdp) {
		return "", false
	}
	root := binary.LittleEndian.Uint32(rsdp[rsdpRoot:])
	moved := slices.Clone(rsdp)
	for bytes := uint32(minTableBytes); bytes <= maxExtraBytes; bytes++ {
		binary.LittleEndian.PutUint32(moved[rsdpRoot:], root+bytes)
		if !x.measured(moved) {
			continue
		}
		for count := 1; count <= maxExtraTables; count++ {
			if script, ok := withTables(tables.Loader, root, bytes, count); ok && x.measured(script) {
				return fmt.Sprintf("the guest's tables are the expected machine's and %s more, of %d bytes in all, that the host has added",
					number(count, "ACPI table"), bytes), true
			}
		}
		return fmt.Sprintf(" (they are %d bytes longer)", bytes), false
	}
	return "", false
}

// measured reports whether the guest's log holds the digest of data where the machine's events are.
func (x *explanation) measured(data []byte) bool {
	var digest string
	if sum := sha256.Sum256(data); x.Evidence.Platform == evidence.VTPM {
		digest = hex.EncodeToString(sum[:])
	} else {
		sum := sha512.Sum384(data)
		digest = hex.EncodeToString(sum[:])
	}
	return slices.ContainsFunc(x.guest.events[x.machineName()], func(e event) bool { return e.digest == digest })
}

// withTables returns the script after count tables of so many bytes were put before the root table, which stands at root.
func withTables(script []byte, root, bytes uint32, count int) ([]byte, bool) {
	var out, last []byte
	le := binary.LittleEndian
	insert := func() {
		for i := range count {
			entry := slices.Clone(last)
			le.PutUint32(entry[pointerOffset:], le.Uint32(last[pointerOffset:])+uint32(i+1)*rootPointer)
			out = append(out, entry...)
		}
		last = nil
	}
	found := false
	for e := range slices.Chunk(slices.Clone(script), scriptEntry) {
		command := le.Uint32(e)
		file := strings.TrimRight(string(e[4:4+scriptName]), "\x00")
		ofRoot := command == addPointer && file == tablesFile && le.Uint32(e[pointerOffset:]) >= root
		if last != nil && !ofRoot {
			insert()
		}
		switch {
		case ofRoot:
			le.PutUint32(e[pointerOffset:], le.Uint32(e[pointerOffset:])+bytes)
			last, found = e, true
		case command == addChecksum && file == tablesFile && le.Uint32(e[checksumOffset+4:]) == root:
			le.PutUint32(e[checksumOffset:], le.Uint32(e[checksumOffset:])+bytes)
			le.PutUint32(e[checksumOffset+4:], root+bytes)
			le.PutUint32(e[checksumOffset+8:], le.Uint32(e[checksumOffset+8:])+uint32(count)*rootPointer)
		}
		out = append(out, e...)
	}
	if !found || last != nil {
		return nil, false
	}
	// The script is padded to a size of its own.
	for len(out) > len(script) && slices.Equal(out[len(out)-scriptEntry:], make([]byte, scriptEntry)) {
		out = out[:len(out)-scriptEntry]
	}
	return out, true
}
