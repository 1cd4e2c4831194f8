package qemu

import (
	"encoding/binary"
	"fmt"
	"strings"

	"chrysalis/measure"
)

// fw_cfg: docs/specs/fw_cfg of QEMU. A transfer is described by 16 bytes of the machine's memory.
const (
	fwBootMenu  = 0x0e  // selector of the setting that has no name
	fwDirectory = 0x19  // selector of the list of files
	fwDMA       = 0x514 // address of a transfer, high half first; the low half starts it

	dmaSelect, dmaRead, dmaError = 1 << 3, 1 << 1, 1 << 0

	// Memory below 640 KiB is the machine's own and nobody's here.
	transferAt = 0x1000
	directory  = 0x10000
	contentAt  = 0x100000

	fwEntryBytes = 64
	maxFiles     = 1024

	// MaxFileBytes bounds a file.
	MaxFileBytes = measure.MaxACPIFileBytes
)

// File is a file's entry in the list.
type File struct {
	selector uint16
	Size     uint32
}

// transfer reads bytes of an item from its start.
func (p *Port) transfer(selector uint16, size, at uint32) ([]byte, error) {
	access := binary.BigEndian.AppendUint32(nil, uint32(selector)<<16|dmaSelect|dmaRead)
	access = binary.BigEndian.AppendUint32(access, size)
	access = binary.BigEndian.AppendUint64(access, uint64(at))
	if _, err := p.do("write %#x %#x 0x%x", transferAt, len(access), access); err != nil {
		return nil, err
	}
	var low [4]byte
	binary.BigEndian.PutUint32(low[:], transferAt)
	if err := p.Out32(fwDMA+4, binary.LittleEndian.Uint32(low[:])); err != nil {
		return nil, err
	}
	state, err := p.memory(transferAt, 4)
	if err != nil {
		return nil, err
	}
	if control := binary.BigEndian.Uint32(state); control != 0 {
		return nil, fmt.Errorf("fw_cfg transfer of item %#x ends with %#x, want 0 (error is %d)", selector, control, dmaError)
	}
	return p.memory(at, size)
}

// BootMenu returns the setting of the boot menu, which has no name among the files.
func (p *Port) BootMenu() ([]byte, error) { return p.transfer(fwBootMenu, 2, contentAt) }

// Files returns the files by name.
func (p *Port) Files() (map[string]File, error) {
	head, err := p.transfer(fwDirectory, 4, directory)
	if err != nil {
		return nil, err
	}
	count := binary.BigEndian.Uint32(head)
	if count == 0 || count > maxFiles {
		return nil, fmt.Errorf("fw_cfg has %d files, want 1 to %d", count, maxFiles)
	}
	all, err := p.transfer(fwDirectory, 4+count*fwEntryBytes, directory)
	if err != nil {
		return nil, err
	}
	return parseDirectory(all)
}

// parseDirectory reads the list of files: their number, then size, selector, two bytes unused and name of each.
func parseDirectory(b []byte) (map[string]File, error) {
	if len(b) < 4 || len(b) > 4+maxFiles*fwEntryBytes {
		return nil, fmt.Errorf("fw_cfg directory has %d bytes, want 4 to %d", len(b), 4+maxFiles*fwEntryBytes)
	}
	count := binary.BigEndian.Uint32(b)
	if uint64(len(b)-4) != uint64(count)*fwEntryBytes {
		return nil, fmt.Errorf("fw_cfg directory of %d files has %d bytes, want %d", count, len(b), 4+uint64(count)*fwEntryBytes)
	}
	files := make(map[string]File, count)
	for b = b[4:]; len(b) > 0; b = b[fwEntryBytes:] {
		name, rest, ok := strings.Cut(string(b[8:fwEntryBytes]), "\x00")
		if !ok || name == "" || strings.Trim(rest, "\x00") != "" {
			return nil, fmt.Errorf("fw_cfg file name is %q, want one with zeros after it", b[8:fwEntryBytes])
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("fw_cfg file %s stands twice", name)
		}
		files[name] = File{binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint32(b)}
	}
	return files, nil
}

// ReadFile returns a file's bytes.
func (p *Port) ReadFile(f File) ([]byte, error) {
	if f.Size == 0 || f.Size > MaxFileBytes {
		return nil, fmt.Errorf("%d bytes, want 1 to %d", f.Size, MaxFileBytes)
	}
	return p.transfer(f.selector, f.Size, contentAt)
}
