// Package tsm asks the kernel for evidence: one request of configfs-tsm (Documentation/ABI/testing/configfs-tsm-report) for
// each piece of report data, in an entry of its own.
//
//	answer, err := tsm.Reports{Dir: "/sys/kernel/config/tsm/report", Provider: "tdx_guest"}.Ask(reportData)
//
// The kernel keeps an error of the write to itself and shows it, if at all, at the read; so an answer counts only when the
// entry's generation went up by exactly one for our write and stayed there over our reads. What the answer says is the caller's to
// judge: it has passed through the host.
package tsm

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Why there is no answer. Each is wrapped by what Ask returns; anything else is an error of the kernel's interface.
var (
	// ErrTimeout: the host's quoting service did not answer in the kernel's time, 30 seconds on TDX.
	ErrTimeout = errors.New("the host's quoting service does not answer")
	// ErrBusy: an earlier request is still the host's, and the kernel takes no other before it comes back.
	ErrBusy = errors.New("the host's quoting service still holds an earlier request")
	// ErrRefused: the host answered that it gives no evidence.
	ErrRefused = errors.New("the host's quoting service refused")
	// ErrForeign: the host answered with something else than this guest's evidence for this request.
	ErrForeign = errors.New("the host's quoting service gave something else than this guest's evidence")
	// ErrEnded: the guest's key to the firmware is wiped, after an answer that the kernel could not trust. No evidence will
	// ever come again in this boot.
	ErrEnded = errors.New("the guest's channel to the firmware is closed for good")
)

// Reports is the folder of reports in configfs.
type Reports struct {
	Dir      string
	Provider string // whose answers are taken: "tdx_guest", "sev_guest"
	// BusyFor is how long a request is made again while the host holds an earlier one; zero makes it once.
	BusyFor time.Duration
	// Files is the file system of tests; nil is the real one.
	Files Files
}

// Answer is what a request brought.
type Answer struct {
	Out []byte // the quote or report
	Aux []byte // certificates beside it, in the provider's form; nil where the provider has none
}

// Sizes that are read at most.
const (
	maxOutBytes  = 128 << 10 // the kernel's buffer of a TDX quote
	maxAuxBytes  = 64 << 10
	maxWordBytes = 64
)

// kernelLimit is how long the kernel waits for a TD's quote. One that has not come by then is an EIO, as a refusal is: its own
// ETIMEDOUT is counted for one second more than it waits.
const kernelLimit = 30 * time.Second

// busyPause is how long to wait before a request is made again.
const busyPause = 500 * time.Millisecond

// Ask has the provider sign the report data. It is safe for concurrent use: each request has its own entry.
func (r Reports) Ask(reportData [64]byte) (Answer, error) {
	until := time.Now().Add(r.BusyFor)
	for {
		answer, err := r.ask(reportData)
		if err == nil || !errors.Is(err, ErrBusy) || time.Now().After(until) {
			return answer, err
		}
		time.Sleep(busyPause)
	}
}

func (r Reports) ask(reportData [64]byte) (answer Answer, err error) {
	var name [16]byte
	if _, err := rand.Read(name[:]); err != nil {
		return answer, fmt.Errorf("asking for evidence: %v", err)
	}
	e := entry{dir: filepath.Join(r.Dir, hex.EncodeToString(name[:])), files: r.Files}
	if e.files == nil {
		e.files = system{}
	}
	if err := e.files.Mkdir(e.dir); err != nil {
		return answer, fmt.Errorf("asking for evidence: making an entry of %s: %w", r.Dir, reason(err))
	}
	defer func() {
		if gone := e.files.Rmdir(e.dir); err == nil && gone != nil {
			err = fmt.Errorf("asking for evidence: removing the entry: %v", gone)
		}
	}()
	answer, err = e.ask(r.Provider, reportData)
	if err != nil {
		return Answer{}, fmt.Errorf("asking for evidence: %w", err)
	}
	return answer, nil
}

// entry is one request's folder.
type entry struct {
	dir   string
	files Files
}

func (e entry) ask(provider string, reportData [64]byte) (answer Answer, err error) {
	got, err := e.read("provider", maxWordBytes)
	if err != nil {
		return answer, err
	}
	if word := string(bytes.TrimSuffix(got, []byte("\n"))); word != provider {
		return answer, fmt.Errorf("provider is %q, want %q", word, provider)
	}
	before, err := e.generation()
	if err != nil {
		return answer, err
	}
	if err := e.files.WriteFile(filepath.Join(e.dir, "inblob"), reportData[:]); err != nil {
		return answer, fmt.Errorf("writing report data: %w", reason(err))
	}
	if err := e.still(before + 1); err != nil {
		return answer, err
	}
	began := time.Now()
	if answer.Out, err = e.read("outblob", maxOutBytes); err != nil {
		if errors.Is(err, unix.EIO) && time.Since(began) >= kernelLimit {
			err = fmt.Errorf("%w: %w", ErrTimeout, err)
		}
		return answer, err
	}
	if answer.Aux, err = e.read("auxblob", maxAuxBytes); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return answer, err
	}
	if err := e.still(before + 1); err != nil {
		return answer, err
	}
	if len(answer.Out) == 0 {
		return answer, errors.New("the answer is empty")
	}
	return answer, nil
}

// still checks that nobody wrote to the entry but we, once.
func (e entry) still(want uint64) error {
	got, err := e.generation()
	if err == nil && got != want {
		err = fmt.Errorf("generation is %d, want %d: somebody else wrote to the request, or the kernel did not take it", got, want)
	}
	return err
}

func (e entry) generation() (uint64, error) {
	text, err := e.read("generation", maxWordBytes)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(bytes.TrimSuffix(text, []byte("\n"))), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("generation is %q, want a number", text)
	}
	return n, nil
}

func (e entry) read(name string, most int) ([]byte, error) {
	b, err := e.files.ReadFile(filepath.Join(e.dir, name), most+1)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, reason(err))
	}
	if len(b) > most {
		return nil, fmt.Errorf("reading %s: more than %d bytes", name, most)
	}
	return b, nil
}

// reason turns what the kernel's drivers say into the reasons of this package: drivers/virt/coco/tdx-guest/tdx-guest.c and
// arch/x86/coco/sev/core.c of Linux 7.2.
func reason(err error) error {
	for errno, why := range map[unix.Errno]error{
		// A signal ends the kernel's wait and leaves the request with the host.
		unix.ETIMEDOUT: ErrTimeout, unix.EINTR: ErrBusy, unix.EBUSY: ErrBusy, unix.EIO: ErrRefused, unix.ENOTTY: ErrEnded,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", why, err)
		}
	}
	return err
}

// Files is what a request does with the file system.
type Files interface {
	Mkdir(dir string) error
	Rmdir(dir string) error
	WriteFile(file string, data []byte) error
	// ReadFile returns at most the first most bytes.
	ReadFile(file string, most int) ([]byte, error)
}

// system is the real file system.
type system struct{}

func (system) Mkdir(dir string) error { return os.Mkdir(dir, 0o700) }
func (system) Rmdir(dir string) error { return os.Remove(dir) }

func (system) WriteFile(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// The kernel takes the request at close.
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (system) ReadFile(file string, most int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(most)))
}
