package tdvf

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// A firmware image ends with a table of entries, written backwards from the reset vector: data, length (u16, of the whole
// entry), GUID. The last entry is the table's own footer and gives the length of all of it. Source: OVMF's
// ResetVector/Ia16/ResetVectorVtf0.asm.
const (
	tableEnd   = 0x20 // bytes from the footer's end to the end of the image
	entryHead  = 18   // length and GUID
	footerGUID = "96b582de-1fb2-45f7-baea-a366c55a082d"

	maxFirmwareBytes = 64 << 20
	maxTableBytes    = 4096
)

// Entry returns the data of the entry with the GUID, or an error if the image has no table or the table no such entry.
func Entry(firmware []byte, guid string) ([]byte, error) {
	if len(firmware) > maxFirmwareBytes || len(firmware) < tableEnd+entryHead {
		return nil, fmt.Errorf("firmware has %d bytes, want %d to %d", len(firmware), tableEnd+entryHead, maxFirmwareBytes)
	}
	table := firmware[:len(firmware)-tableEnd]
	size, found, err := cutEntry(table)
	if err != nil {
		return nil, err
	}
	if found != footerGUID {
		return nil, fmt.Errorf("firmware ends with GUID %s, want that of a table, %s", found, footerGUID)
	}
	if size > maxTableBytes || size > len(table) {
		return nil, fmt.Errorf("firmware table has %d bytes, want at most %d", size, maxTableBytes)
	}
	for table = table[len(table)-size : len(table)-entryHead]; len(table) > 0; {
		size, found, err := cutEntry(table)
		if err != nil {
			return nil, err
		}
		if found == guid {
			return table[len(table)-size : len(table)-entryHead], nil
		}
		table = table[:len(table)-size]
	}
	return nil, fmt.Errorf("firmware table has no entry %s", guid)
}

// cutEntry reads length and GUID of the entry that ends where b ends.
func cutEntry(b []byte) (size int, guid string, err error) {
	if len(b) < entryHead {
		return 0, "", fmt.Errorf("firmware table has %d bytes left, want an entry of at least %d", len(b), entryHead)
	}
	head := b[len(b)-entryHead:]
	size = int(binary.LittleEndian.Uint16(head))
	if size < entryHead || size > len(b) && formatGUID(head[2:]) != footerGUID {
		return 0, "", fmt.Errorf("firmware table entry has %d bytes, want %d to %d", size, entryHead, len(b))
	}
	return size, formatGUID(head[2:]), nil
}

// formatGUID writes 16 bytes in the mixed byte order of EFI.
func formatGUID(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%s-%s", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), hex.EncodeToString(b[8:10]), hex.EncodeToString(b[10:16]))
}

// ParseGUID returns the 16 bytes of a GUID that is a constant of a program; it panics on anything else.
func ParseGUID(text string) (guid [16]byte) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != 16 {
		panic("tdvf: malformed GUID " + text)
	}
	binary.LittleEndian.PutUint32(guid[:], binary.BigEndian.Uint32(raw))
	binary.LittleEndian.PutUint16(guid[4:], binary.BigEndian.Uint16(raw[4:]))
	binary.LittleEndian.PutUint16(guid[6:], binary.BigEndian.Uint16(raw[6:]))
	copy(guid[8:], raw[8:])
	return guid
}
