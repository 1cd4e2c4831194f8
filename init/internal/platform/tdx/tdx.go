// Package tdx is a trust domain as a guest's platform: the TDX module measures it, RTMR3 takes the runtime log, and the host's
// quoting enclave signs.
//
// Memory and registers are kept from the host by the processor. The quote comes by way of the host, which can keep it back,
// and nothing more: another's or an older one is recognised here, and by every client. There is nothing that a TD can seal to.
package tdx

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

const (
	deviceName = "tdx_guest" // of the kernel's driver, which needs the processor's word that this is a TD
	cpuFlag    = "tdx_guest" // in /proc/cpuinfo
	// measurements are the TD's registers: Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest.
	measurements = "devices/virtual/misc/tdx_guest/measurements"
	reports      = "kernel/config/tsm/report"
	bootLog      = "firmware/acpi/tables/data/CCEL"
	provider     = "tdx_guest"

	registerBytes   = 48
	configID        = "mrconfigid"
	maxBootLogBytes = 256 << 10
)

// busyFor is how long a quote waits for the host to give an earlier request back.
const busyFor = 45 * time.Second

// TD is the trust domain that this guest is. It is safe for concurrent use.
type TD struct {
	dev, sys  string
	registers registers
	reports   tsm.Reports

	mu       sync.Mutex
	rtmr     [registerBytes]byte // RTMR3 as our extends leave it
	public   bool                // it is full
	service  uint32              // vsock port of the host's quoting service; 0: none
	stapled  []byte
	dial     dialer
	describe describer
}

// Present reports whether the processor runs this guest as a TD. It is the processor's word: the host can't take it back.
func Present(dev, proc string) bool {
	if _, err := os.Stat(filepath.Join(dev, deviceName)); !errors.Is(err, fs.ErrNotExist) {
		return true
	}
	text, err := os.ReadFile(filepath.Join(proc, "cpuinfo"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return slices.Contains(strings.Fields(flags), cpuFlag)
		}
	}
	return false
}

// Open opens the TD. RTMR3 must be untouched: who extended it before init would have measured something that no log tells of.
func Open(dev, sys string) (*TD, error) {
	t := &TD{
		dev: dev, sys: sys, registers: sysfs{filepath.Join(sys, measurements)}, dial: dialVsock, describe: report0,
		reports: tsm.Reports{Dir: filepath.Join(sys, reports), Provider: provider, BusyFor: busyFor},
	}
	return t, t.untouched()
}

func (t *TD) untouched() error {
	got, err := t.registers.read(register.RTMR(3))
	if err == nil && got != t.rtmr {
		err = fmt.Errorf("RTMR3 is %x, want zeros: something extended it before process 1", got)
	}
	return err
}

// Registers are RTMR3 alone.
func (t *TD) Registers() eventlog.Registers { return eventlog.InRTMR }

// Extend extends RTMR3 with the record's digest, but under the public identity. The register is read back, and must be what the extend makes of the value before.
func (t *TD) Extend(r eventlog.Record) error {
	if r.Register != eventlog.RTMR3 {
		return fmt.Errorf("extending register %d, want RTMR3", r.Register)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.public {
		return nil
	}
	return t.extend(r.SHA384())
}

// extend extends RTMR3. The caller holds mu.
func (t *TD) extend(digest [registerBytes]byte) error {
	if err := t.registers.extend(register.RTMR(3), digest); err != nil {
		return fmt.Errorf("extending RTMR3: %v", err)
	}
	t.rtmr = eventlog.Extend384(t.rtmr, digest)
	got, err := t.registers.read(register.RTMR(3))
	if err != nil {
		return fmt.Errorf("extending RTMR3: %v", err)
	}
	if got != t.rtmr {
		return fmt.Errorf("extending RTMR3: it is %x, want %x", got, t.rtmr)
	}
	return nil
}

// TakePublicIdentity extends RTMR3 by what a guest of COCOON's reference extends it by. The register is full with that: the runtime log then
// stands in the log alone, and its head in each statement.
func (t *TD) TakePublicIdentity() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, line := range cocoon.Lines(cocoon.NoTree()) {
		if err := t.extend(sha512.Sum384([]byte(line))); err != nil {
			return err
		}
	}
	t.public = true
	return nil
}

// BootLog returns the firmware's log, without what fills the rest of its area.
func (t *TD) BootLog() ([]byte, error) {
	f, err := os.Open(filepath.Join(t.sys, bootLog))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the registers are judged by value: the log is for people
	}
	if err != nil {
		return nil, fmt.Errorf("reading boot log: %v", err)
	}
	defer f.Close()
	area, err := io.ReadAll(io.LimitReader(f, maxBootLogBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading boot log: %v", err)
	}
	if len(area) > maxBootLogBytes {
		return nil, fmt.Errorf("reading boot log: more than %d bytes", maxBootLogBytes)
	}
	log, err := eventlog.CutCCEL(area)
	if err != nil {
		// A host's table that holds no log must not keep a guest from serving; clients are told what it is worth.
		return bytes.TrimRight(area, "\xff"), nil
	}
	return log, nil
}

// Launched compares the config with MRCONFIGID, which the host gave at launch. Zeros say that it gave none: whether that will
// do is for the clients to judge, who see it in every quote.
func (t *TD) Launched(measured []byte) error {
	got, err := t.registers.read(configID)
	if err != nil {
		return err
	}
	if want := config.MRConfigID(measured); got != want && got != ([registerBytes]byte{}) {
		return fmt.Errorf("MRCONFIGID is %x, want %x, as the config on the disk makes it", got, want)
	}
	return nil
}

// UseHost takes what the host says of quotes: a service to ask for them, and collateral that goes with them. Neither is believed.
func (t *TD) UseHost(h config.Host) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.service, t.stapled = h.QuotingPort, h.Endorsements.Collateral
	return nil
}

// Quote has the quoting enclave sign the TD's report over reportData: by the kernel, or straight from the host's service where it
// named one. The quote must be of this TD as it is now.
func (t *TD) Quote(reportData [64]byte) (evidence.Evidence, error) {
	t.mu.Lock()
	service, stapled := t.service, t.stapled
	t.mu.Unlock()
	quote, err := t.quote(service, reportData)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quoting: %w", err)
	}
	return evidence.Evidence{Platform: evidence.TDX, Quote: quote, Collateral: stapled}, nil
}

func (t *TD) quote(service uint32, reportData [64]byte) ([]byte, error) {
	if service != 0 {
		report, err := t.describe(filepath.Join(t.dev, deviceName), reportData)
		if err != nil {
			return nil, err
		}
		quote, err := askService(t.dial, service, report)
		if err != nil {
			return nil, err
		}
		return quote, sameTD(quote, reportOf(report))
	}
	want := body{reportData: reportData}
	for i, r := range registersOfBody {
		var err error
		if want.registers[i], err = t.registers.read(r.name); err != nil {
			return nil, err
		}
	}
	answer, err := t.reports.Ask(reportData)
	if err != nil {
		return nil, err
	}
	return answer.Out, sameTD(answer.Out, want)
}
