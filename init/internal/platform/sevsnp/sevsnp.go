// Package sevsnp is an SEV-SNP guest as a platform: the processor's firmware measured its launch, signs reports, and derives keys
// that no other launch gets. There is no register that a guest can extend: the runtime log is bound by its head in the statement.
//
// Memory and registers are kept from the host by the processor. What the firmware answers comes by way of the host, encrypted,
// and the host can keep it back. What it must not do is answer wrongly: then the kernel gives the channel up for the rest of
// this boot, and the guest ends.
package sevsnp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

const (
	deviceName = "sev-guest"
	// vmplFile says under which privilege level the kernel runs; it is there in SEV-SNP guests alone:
	// Documentation/ABI/testing/sysfs-devices-system-cpu.
	vmplFile = "devices/system/cpu/sev/vmpl"
	requests = "kernel/config/tsm/report"
	provider = "sev_guest"
)

// Guest is the SEV-SNP guest that this machine is. It is safe for concurrent use.
type Guest struct {
	device  string
	reports tsm.Reports
	derive  deriver
	launch  report // as it was at Open

	mu       sync.Mutex
	endorsed config.Endorsements
}

// Present reports whether the processor runs this machine as an SEV-SNP guest.
func Present(dev, sys string) bool {
	for _, file := range []string{filepath.Join(dev, deviceName), filepath.Join(sys, vmplFile)} {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Open opens the guest's channel to the firmware, and asks for a report: the guest must run at the highest privilege level, with
// nothing below it that could read its memory.
func Open(dev, sys string) (*Guest, error) {
	return open(filepath.Join(dev, deviceName), sys, tsm.Reports{Dir: filepath.Join(sys, requests), Provider: provider}, deriveKey)
}

func open(device, sys string, from tsm.Reports, derive deriver) (*Guest, error) {
	level, err := os.ReadFile(filepath.Join(sys, vmplFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading privilege level: %v", err)
	}
	if word := strings.TrimSpace(string(level)); err == nil && word != "0" {
		return nil, fmt.Errorf("the kernel runs at privilege level %.20q, want 0", word)
	}
	g := &Guest{device: device, reports: from, derive: derive}
	answer, err := g.reports.Ask([64]byte{})
	if err != nil {
		return nil, err
	}
	if g.launch, err = readReport(answer.Out); err != nil {
		return nil, err
	}
	if g.launch.vmpl != 0 {
		return nil, fmt.Errorf("the report is of privilege level %d, want 0", g.launch.vmpl)
	}
	return g, nil
}

// Registers are those of a machine without a TPM; here they exist in the log alone.
func (g *Guest) Registers() eventlog.Registers { return eventlog.InRTMR }

// Extend does nothing: no register of this platform can be extended.
func (g *Guest) Extend(eventlog.Record) error { return nil }

// BootLog returns none: firmware has no register that it could keep one for.
func (g *Guest) BootLog() ([]byte, error) { return nil, nil }

// Launched compares the config with HOST_DATA, which the host gave at launch. Zeros say that it gave none: whether that will do is
// for the clients to judge, who see it in every report.
func (g *Guest) Launched(measured []byte) error {
	if got, want := g.launch.hostData, config.SHA256(measured); got != want && got != ([32]byte{}) {
		return fmt.Errorf("HOST_DATA is %x, want %x, the SHA-256 of the config on the disk", got, want)
	}
	return nil
}

// UseHost takes the certificates and the revocation list that the host has for this machine. Neither is believed.
func (g *Guest) UseHost(h config.Host) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endorsed = h.Endorsements
	return nil
}

// Quote has the firmware sign reportData. Certificates are those that the host's machine keeps beside the report, or else those
// of the host document.
func (g *Guest) Quote(reportData [64]byte) (evidence.Evidence, error) {
	answer, err := g.reports.Ask(reportData)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quoting: %w", err)
	}
	got, err := readReport(answer.Out)
	if err != nil {
		return evidence.Evidence{}, fmt.Errorf("quoting: %w", err)
	}
	if got.reportData != reportData {
		return evidence.Evidence{}, fmt.Errorf("quoting: %w: its data is %x, want %x", tsm.ErrForeign, got.reportData, reportData)
	}
	g.mu.Lock()
	endorsed := g.endorsed
	g.mu.Unlock()
	certificates, err := cutCertificates(answer.Aux)
	if err != nil || len(certificates) == 0 {
		// The table is the host's word. One that can't be read is worth as much as none.
		certificates = endorsed.Certificates
	}
	return evidence.Evidence{
		Platform: evidence.SEVSNP, Quote: slices.Clone(answer.Out), Certificates: certificates, Collateral: endorsed.Collateral,
	}, nil
}

// report is what init reads of an ATTESTATION_REPORT: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860), revision
// 1.58, table 23. The kernel got it over a channel that only the firmware can speak on, so its signature is not looked at.
type report struct {
	vmpl         uint32
	policy       uint64
	reportData   [64]byte
	measurement  [48]byte
	hostData     [32]byte
	committedTCB uint64
}

const (
	reportBytes = 0x4a0

	policyOffset       = 0x08
	vmplOffset         = 0x30
	reportDataOffset   = 0x50
	measurementOffset  = 0x90
	hostDataOffset     = 0xc0
	committedTCBOffset = 0x1e0
)

func readReport(raw []byte) (r report, err error) {
	if len(raw) != reportBytes {
		return r, fmt.Errorf("reading report: %d bytes, want %d", len(raw), reportBytes)
	}
	le := binary.LittleEndian
	r.policy, r.vmpl, r.committedTCB = le.Uint64(raw[policyOffset:]), le.Uint32(raw[vmplOffset:]), le.Uint64(raw[committedTCBOffset:])
	copy(r.reportData[:], raw[reportDataOffset:])
	copy(r.measurement[:], raw[measurementOffset:])
	copy(r.hostData[:], raw[hostDataOffset:])
	return r, nil
}

// The certificates of a table, in the order in which they lead to a root, by the GUIDs that name them there: SEV-ES Guest-
// Hypervisor Communication Block Standardization (AMD 56421), revision 2.03, section 4.1.8.1. A chip's key or a cloud's key, then
// the key that certifies it, then the root, which a client holds against its own.
var chains = [][]string{
	{"63da758d-e664-4564-adc5-f4b93be8accd", "4ab7b379-bbac-4fe4-a02f-05aef327c782", "c0b406a4-a803-4952-9743-3fb6014cd0ae"}, // VCEK, ASK, ARK
	{"a8074bc2-a25a-483e-aae6-39c045a0b8a1", "4ab7b379-bbac-4fe4-a02f-05aef327c782", "c0b406a4-a803-4952-9743-3fb6014cd0ae"}, // VLEK, ASVK, ARK
}

// entryBytes is an entry of the table: GUID, offset and length.
const entryBytes = 24

// maxTableEntries bounds the table.
const maxTableEntries = 32

// cutCertificates returns the chain of certificates in a table; none when it holds no whole one.
func cutCertificates(table []byte) ([][]byte, error) {
	found := map[string][]byte{}
	for i := 0; ; i++ {
		at := i * entryBytes
		if len(table) < at+entryBytes {
			if len(table) == 0 {
				return nil, nil
			}
			return nil, fmt.Errorf("reading certificate table: no end after %d entries in %d bytes", i, len(table))
		}
		e := table[at : at+entryBytes]
		if bytes.Equal(e, make([]byte, entryBytes)) {
			break
		}
		if i == maxTableEntries {
			return nil, fmt.Errorf("reading certificate table: more than %d entries", maxTableEntries)
		}
		offset, length := binary.LittleEndian.Uint32(e[16:]), binary.LittleEndian.Uint32(e[20:])
		if length == 0 || uint64(offset)+uint64(length) > uint64(len(table)) {
			return nil, fmt.Errorf("reading certificate table: entry %d has %d bytes at %d of %d", i, length, offset, len(table))
		}
		for _, name := range guids(e) {
			found[name] = table[offset : offset+length]
		}
	}
	for _, chain := range chains {
		var certificates [][]byte
		for _, name := range chain {
			// DER, of which every certificate is a sequence; clients read nothing else.
			if c := found[name]; len(c) > 0 && c[0] == 0x30 {
				certificates = append(certificates, c)
			}
		}
		if len(certificates) == len(chain) {
			return certificates, nil
		}
	}
	return nil, nil
}

// guids are the text forms that the bytes of a GUID can have: hosts write its first three groups in either order.
func guids(b []byte) (forms []string) {
	for _, order := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
		forms = append(forms, fmt.Sprintf("%08x-%04x-%04x-%x-%x", order.Uint32(b), order.Uint16(b[4:]), order.Uint16(b[6:]), b[8:10], b[10:16]))
	}
	return forms
}
