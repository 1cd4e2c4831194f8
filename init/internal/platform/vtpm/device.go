package vtpm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

const (
	// deviceName is the TPM behind the kernel's resource manager, which keeps the handles of its users apart.
	deviceName = "tpmrm0"
	bootLog    = "kernel/security/tpm0/binary_bios_measurements"

	maxBootLogBytes = 256 << 10
)

// Present reports whether a TPM is there.
func Present(dev string) bool {
	_, err := os.Stat(filepath.Join(dev, deviceName))
	return !errors.Is(err, fs.ErrNotExist)
}

// Open opens the machine's TPM.
func Open(dev, sys string) (*TPM, error) {
	file := filepath.Join(dev, deviceName)
	t, err := linuxtpm.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %v", file, err)
	}
	return New(t, filepath.Join(sys, bootLog)), nil
}

// New returns a TPM that speaks over t, whose firmware's log is a file.
func New(t transport.TPM, bootLog string) *TPM { return &TPM{t: &oneByOne{t: t}, bootLog: bootLog} }

// BootLog returns the firmware's log.
func (t *TPM) BootLog() ([]byte, error) {
	f, err := os.Open(t.bootLog)
	if err != nil {
		return nil, fmt.Errorf("reading boot log: %v", err)
	}
	defer f.Close()
	log, err := io.ReadAll(io.LimitReader(f, maxBootLogBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading boot log: %v", err)
	}
	if len(log) > maxBootLogBytes {
		return nil, fmt.Errorf("reading boot log: more than %d bytes", maxBootLogBytes)
	}
	return log, nil
}

// oneByOne sends one command at a time: the device wants an answer to be read before the next command. What needs several
// commands may have another's in between.
type oneByOne struct {
	mu sync.Mutex
	t  transport.TPM
}

func (d *oneByOne) Send(command []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.t.Send(command)
}
