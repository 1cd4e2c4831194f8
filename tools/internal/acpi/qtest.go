package acpi

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"chrysalis/measure"
)

// port is QEMU's test port: a line is a command, the answer begins with OK. QEMU's docs/devel/testing/qtest, and the comment
// at the head of its system/qtest.c.
type port struct {
	conn net.Conn
	in   *bufio.Reader
}

func newPort(conn net.Conn) *port { return &port{conn, bufio.NewReaderSize(conn, 1<<16)} }

// maxLine bounds an answer: the longest is a file of maxFileBytes in base 64.
const maxLine = maxFileBytes*4/3 + 64

// do sends a command and returns what stands after OK.
func (p *port) do(format string, args ...any) (string, error) {
	command := fmt.Sprintf(format, args...)
	if _, err := p.conn.Write([]byte(command + "\n")); err != nil {
		return "", fmt.Errorf("test port: %w", err)
	}
	for {
		line, err := p.line()
		if err != nil {
			return "", fmt.Errorf("test port: %.40s: %w", command, err)
		}
		if strings.HasPrefix(line, "IRQ ") {
			continue
		}
		word, answer, _ := strings.Cut(line, " ")
		if word != "OK" {
			return "", fmt.Errorf("test port: %.40s: answer is %.80q, want OK", command, line)
		}
		return answer, nil
	}
}

func (p *port) line() (string, error) {
	var line strings.Builder
	for {
		part, err := p.in.ReadSlice('\n')
		line.Write(part)
		if line.Len() > maxLine {
			return "", fmt.Errorf("answer is longer than %d bytes", maxLine)
		}
		if err == nil {
			return strings.TrimRight(line.String(), "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}

func (p *port) out32(at uint16, v uint32) error {
	_, err := p.do("outl %#x %#x", at, v)
	return err
}

func (p *port) in32(at uint16) (uint32, error) {
	answer, err := p.do("inl %#x", at)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(answer, 0, 32)
	return uint32(v), err
}

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
	maxFileBytes = measure.MaxACPIFileBytes
)

// fwFile is a file's entry in the list.
type fwFile struct {
	selector uint16
	size     uint32
}

// transfer reads bytes of an item from its start.
func (p *port) transfer(selector uint16, size, at uint32) ([]byte, error) {
	access := binary.BigEndian.AppendUint32(nil, uint32(selector)<<16|dmaSelect|dmaRead)
	access = binary.BigEndian.AppendUint32(access, size)
	access = binary.BigEndian.AppendUint64(access, uint64(at))
	if _, err := p.do("write %#x %#x 0x%x", transferAt, len(access), access); err != nil {
		return nil, err
	}
	var low [4]byte
	binary.BigEndian.PutUint32(low[:], transferAt)
	if err := p.out32(fwDMA+4, binary.LittleEndian.Uint32(low[:])); err != nil {
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

// memory reads the machine's memory.
func (p *port) memory(at, size uint32) ([]byte, error) {
	answer, err := p.do("b64read %#x %#x", at, size)
	if err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(answer)
	if err != nil {
		return nil, err
	}
	if len(data) != int(size) {
		return nil, fmt.Errorf("%d bytes of memory, want %d", len(data), size)
	}
	return data, nil
}

// directory returns the files by name.
func (p *port) directory() (map[string]fwFile, error) {
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
func parseDirectory(b []byte) (map[string]fwFile, error) {
	if len(b) < 4 || len(b) > 4+maxFiles*fwEntryBytes {
		return nil, fmt.Errorf("fw_cfg directory has %d bytes, want 4 to %d", len(b), 4+maxFiles*fwEntryBytes)
	}
	count := binary.BigEndian.Uint32(b)
	if uint64(len(b)-4) != uint64(count)*fwEntryBytes {
		return nil, fmt.Errorf("fw_cfg directory of %d files has %d bytes, want %d", count, len(b), 4+uint64(count)*fwEntryBytes)
	}
	files := make(map[string]fwFile, count)
	for b = b[4:]; len(b) > 0; b = b[fwEntryBytes:] {
		name, rest, ok := strings.Cut(string(b[8:fwEntryBytes]), "\x00")
		if !ok || name == "" || strings.Trim(rest, "\x00") != "" {
			return nil, fmt.Errorf("fw_cfg file name is %q, want one with zeros after it", b[8:fwEntryBytes])
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("fw_cfg file %s stands twice", name)
		}
		files[name] = fwFile{binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint32(b)}
	}
	return files, nil
}

func (p *port) readFile(f fwFile) ([]byte, error) {
	if f.size == 0 || f.size > maxFileBytes {
		return nil, fmt.Errorf("%d bytes, want 1 to %d", f.size, maxFileBytes)
	}
	return p.transfer(f.selector, f.size, contentAt)
}
