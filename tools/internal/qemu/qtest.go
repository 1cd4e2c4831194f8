package qemu

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Port is QEMU's test port: a line is a command, the answer begins with OK. QEMU's docs/devel/testing/qtest, and the comment
// at the head of its system/qtest.c.
type Port struct {
	conn net.Conn
	in   *bufio.Reader
}

// NewPort talks over a connection to the socket of Tested.
func NewPort(conn net.Conn) *Port { return &Port{conn, bufio.NewReaderSize(conn, 1<<16)} }

// maxLine bounds an answer: the longest is a file of MaxFileBytes in base 64.
const maxLine = MaxFileBytes*4/3 + 64

// do sends a command and returns what stands after OK.
func (p *Port) do(format string, args ...any) (string, error) {
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

func (p *Port) line() (string, error) {
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

// Out32 writes to an I/O port of the machine.
func (p *Port) Out32(at uint16, v uint32) error {
	_, err := p.do("outl %#x %#x", at, v)
	return err
}

// In32 reads an I/O port of the machine.
func (p *Port) In32(at uint16) (uint32, error) {
	answer, err := p.do("inl %#x", at)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(answer, 0, 32)
	return uint32(v), err
}

// memory reads the machine's memory.
func (p *Port) memory(at, size uint32) ([]byte, error) {
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

// Close ends the conversation; the machine stays.
func (p *Port) Close() error { return p.conn.Close() }
