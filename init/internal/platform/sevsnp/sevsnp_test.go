package sevsnp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"golang.org/x/sys/unix"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	reports "chrysalis/attest/sevsnp"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/init/internal/platform/tsm/tsmtest"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

var measured = []byte("the config")

// machine is a processor whose firmware signs reports.
type machine struct {
	snp   *attesttest.SNP
	table []byte // certificates beside the report
}

func newMachine() *machine {
	m := &machine{snp: attesttest.NewSNP(reports.Genoa, reports.SignerVCEK, time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC))}
	m.snp.Report.HostData, m.snp.Report.Measurement, m.snp.Report.VMPL = config.SHA256(measured), [48]byte{5}, 0
	return m
}

func (m *machine) report(data [64]byte) []byte {
	m.snp.Report.ReportData = data
	return m.snp.Evidence().Report
}

func (m *machine) kernel() *tsmtest.Kernel {
	return &tsmtest.Kernel{Provider: provider, Answer: func(data [64]byte) ([]byte, []byte, error) { return m.report(data), m.table, nil }}
}

func (m *machine) open(t *testing.T) (*Guest, error) {
	t.Helper()
	return open("/dev/sev-guest", t.TempDir(), tsm.Reports{Dir: "/reports", Provider: provider, Files: m.kernel()}, nil)
}

func TestQuote(t *testing.T) {
	m := newMachine()
	own := m.snp.Evidence()
	m.table = table([]entry{{abi.VcekGUID, own.Certificate}, {abi.AskGUID, own.Chain[0]}, {abi.ArkGUID, own.Chain[1]}})
	g, err := m.open(t)
	if err != nil {
		t.Fatal(err)
	}
	host := config.Endorsements{Certificates: [][]byte{[]byte("host's")}, Collateral: []byte("list")}
	if err := g.UseHost(config.Host{Endorsements: host}); err != nil {
		t.Fatal(err)
	}
	got, err := g.Quote([64]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := reports.Parse(got.Quote); err != nil || r.ReportData != [64]byte{7} || got.Platform != evidence.SEVSNP {
		t.Errorf("got %+v of %s and error %v, want a report over the data", r, got.Platform, err)
	}
	if want := [][]byte{own.Certificate, own.Chain[0], own.Chain[1]}; !slices.EqualFunc(got.Certificates, want, bytes.Equal) || string(got.Collateral) != "list" {
		t.Errorf("got %d certificates and %q, want the table's three and the host's list", len(got.Certificates), got.Collateral)
	}
	for name, table := range map[string][]byte{
		"none": nil, "one without end": []byte("garbage that is longer than one entry"), "an empty one": make([]byte, 4096),
		"half a chain": table([]entry{{abi.VcekGUID, own.Certificate}, {abi.AskGUID, own.Chain[0]}}),
	} {
		m.table = table
		if got, err := g.Quote([64]byte{7}); err != nil || len(got.Certificates) != 1 || string(got.Certificates[0]) != "host's" {
			t.Errorf("%s: got %q and error %v, want the host document's", name, got.Certificates, err)
		}
	}
	if err := g.Extend(eventlog.Record{}); err != nil || g.Registers() != eventlog.InRTMR {
		t.Errorf("extend: got error %v, want none: there is no register", err)
	}
}

// TestReadReport holds the offsets against the verifier's own parser.
func TestReadReport(t *testing.T) {
	m := newMachine()
	m.snp.Report.CommittedTCB = reports.TCBVersion{1, 2, 3, 4, 5, 6, 7, 8}
	got, err := readReport(m.report([64]byte{9}))
	if err != nil {
		t.Fatal(err)
	}
	want := report{vmpl: 0, policy: uint64(m.snp.Report.Policy), reportData: [64]byte{9}, measurement: [48]byte{5}, hostData: config.SHA256(measured),
		committedTCB: binary.LittleEndian.Uint64([]byte{1, 2, 3, 4, 5, 6, 7, 8})}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	m.snp.Report.VMPL = 3
	if got, err := readReport(m.report([64]byte{9})); err != nil || got.vmpl != 3 {
		t.Errorf("got level %d and error %v, want 3", got.vmpl, err)
	}
	if _, err := readReport(make([]byte, reportBytes-1)); err == nil {
		t.Error("a short report: got no error, want one")
	}
}

func TestOpenRefuses(t *testing.T) {
	m := newMachine()
	m.snp.Report.VMPL = 1
	if _, err := m.open(t); err == nil || !strings.Contains(err.Error(), "privilege level 1") {
		t.Errorf("a report of level 1: got error %v, want a refusal", err)
	}
	m = newMachine()
	sys := t.TempDir()
	file := filepath.Join(sys, vmplFile)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	for level, refused := range map[string]bool{"0\n": false, "2\n": true, "": true} {
		if err := os.WriteFile(file, []byte(level), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := open("/dev/sev-guest", sys, tsm.Reports{Dir: "/reports", Provider: provider, Files: m.kernel()}, nil)
		if (err != nil) != refused {
			t.Errorf("a kernel at level %q: got error %v, want a refusal: %v", level, err, refused)
		}
	}
	for want, errno := range map[error]unix.Errno{tsm.ErrEnded: unix.ENOTTY, unix.EINVAL: unix.EINVAL} {
		k := &tsmtest.Kernel{Provider: provider, Answer: func([64]byte) ([]byte, []byte, error) { return nil, nil, errno }}
		if _, err := open("/dev/sev-guest", t.TempDir(), tsm.Reports{Dir: "/reports", Provider: provider, Files: k}, nil); !errors.Is(err, want) {
			t.Errorf("firmware says %v: got error %v, want %v", errno, err, want)
		}
	}
	k := &tsmtest.Kernel{Provider: provider, Answer: func([64]byte) ([]byte, []byte, error) { return []byte("short"), nil, nil }}
	if _, err := open("/dev/sev-guest", t.TempDir(), tsm.Reports{Dir: "/reports", Provider: provider, Files: k}, nil); err == nil {
		t.Error("a short report: got no error, want one")
	}
}

func TestLaunched(t *testing.T) {
	m := newMachine()
	g, err := m.open(t)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Launched(measured); err != nil {
		t.Errorf("the config: %v", err)
	}
	if err := g.Launched([]byte("another")); err == nil || !strings.Contains(err.Error(), "HOST_DATA is") {
		t.Errorf("another config: got error %v, want a refusal with both values", err)
	}
	m.snp.Report.HostData = [32]byte{}
	if g, err = m.open(t); err != nil {
		t.Fatal(err)
	}
	if err := g.Launched(measured); err != nil {
		t.Errorf("none given at launch: got %v, want it left to the clients", err)
	}
}

// TestForeignReport: a report over other data is refused.
func TestForeignReport(t *testing.T) {
	m := newMachine()
	k := m.kernel()
	g, err := open("/dev/sev-guest", t.TempDir(), tsm.Reports{Dir: "/reports", Provider: provider, Files: k}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k.Answer = func([64]byte) ([]byte, []byte, error) { return m.report([64]byte{0xee}), nil, nil }
	if got, err := g.Quote([64]byte{7}); !errors.Is(err, tsm.ErrForeign) || got.Quote != nil {
		t.Errorf("got %d bytes and error %v, want %v", len(got.Quote), err, tsm.ErrForeign)
	}
}

func TestPresent(t *testing.T) {
	dev, sys := t.TempDir(), t.TempDir()
	if Present(dev, sys) {
		t.Error("a plain machine: got true, want false")
	}
	if err := os.WriteFile(filepath.Join(dev, deviceName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !Present(dev, sys) {
		t.Error("a device: got false, want true")
	}
	// The processor's word counts without the driver, too: such a guest must not fall back to a TPM.
	file := filepath.Join(sys, vmplFile)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("0\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if !Present(t.TempDir(), sys) {
		t.Error("the kernel's word and no driver: got false, want true")
	}
}

type entry struct {
	guid string
	data []byte
}

// table lays out a certificate table as the host's firmware would.
func table(entries []entry) []byte {
	table := &abi.CertTable{}
	for _, e := range entries {
		made := abi.CertTableEntry{RawCert: e.data}
		raw, err := hex.DecodeString(strings.ReplaceAll(e.guid, "-", ""))
		if err != nil {
			panic(err)
		}
		copy(made.GUID[:], raw)
		table.Entries = append(table.Entries, made)
	}
	return table.Marshal()
}

func TestCutCertificates(t *testing.T) {
	whole := table([]entry{{abi.VlekGUID, []byte("0vlek")}, {abi.AskGUID, []byte("0ask")}, {abi.ArkGUID, []byte("0ark")}})
	if got, err := cutCertificates(whole); err != nil || len(got) != 3 || string(got[0]) != "0vlek" || string(got[1]) != "0ask" || string(got[2]) != "0ark" {
		t.Errorf("a cloud's key: got %q and error %v, want it and what certifies it", got, err)
	}
	both := table([]entry{{abi.ArkGUID, []byte("0ark")}, {abi.AskGUID, []byte("0ask")}, {abi.VlekGUID, []byte("0vlek")}, {abi.VcekGUID, []byte("0vcek")}})
	if got, err := cutCertificates(both); err != nil || len(got) != 3 || string(got[0]) != "0vcek" {
		t.Errorf("both keys: got %q and error %v, want the chip's", got, err)
	}
	swapped := table([]entry{{"8d755da6-64e6-6445-adc5-f4b93be8accd", []byte("0vcek")}, {abi.AskGUID, []byte("0ask")}, {abi.ArkGUID, []byte("0ark")}})
	copy(swapped, []byte{0x8d, 0x75, 0xda, 0x63, 0x64, 0xe6, 0x64, 0x45})
	if got, err := cutCertificates(swapped); err != nil || len(got) != 3 || string(got[0]) != "0vcek" {
		t.Errorf("a GUID in the other order: got %q and error %v, want the chip's key", got, err)
	}
	if got, err := cutCertificates(table([]entry{{abi.VcekGUID, []byte("-----BEGIN")}, {abi.AskGUID, []byte("0ask")}, {abi.ArkGUID, []byte("0ark")}})); err != nil || got != nil {
		t.Errorf("PEM: got %q and error %v, want none", got, err)
	}
	for name, spoil := range map[string]func(b []byte){
		"an entry beyond the end": func(b []byte) { binary.LittleEndian.PutUint32(b[16:], uint32(len(b))) },
		"an overflowing entry": func(b []byte) {
			binary.LittleEndian.PutUint32(b[16:], 0xffffffff)
			binary.LittleEndian.PutUint32(b[20:], 0xffffffff)
		},
		"an entry of nothing": func(b []byte) { binary.LittleEndian.PutUint32(b[20:], 0) },
	} {
		b := slices.Clone(whole)
		spoil(b)
		if got, err := cutCertificates(b); err == nil {
			t.Errorf("%s: got %q, want a refusal", name, got)
		}
	}
	many := bytes.Repeat(whole[:entryBytes], maxTableEntries+1)
	if got, err := cutCertificates(append(many, make([]byte, entryBytes)...)); err == nil {
		t.Errorf("too many entries: got %q, want a refusal", got)
	}
}

func FuzzCutCertificates(f *testing.F) {
	f.Add(table([]entry{{abi.VcekGUID, []byte("0vcek")}, {abi.AskGUID, []byte("0ask")}, {abi.ArkGUID, []byte("0ark")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := cutCertificates(b)
		if err != nil && got != nil {
			t.Errorf("got %d certificates and error %v, want one of them", len(got), err)
		}
		if n := len(got); n != 0 && n != 3 {
			t.Errorf("got %d certificates, want none or a chain of three", n)
		}
	})
}

// TestKeyRequest holds the request and the answer against the library's.
func TestKeyRequest(t *testing.T) {
	got := keyRequest(0x0102030405060708)
	want := [keyRequestBytes]byte{0, 0, 0, 0, 0, 0, 0, 0, 1<<0 | 1<<3 | 1<<5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1}
	if got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	var response [keyResponseBytes]byte
	if _, err := readKey(response); err == nil {
		t.Error("a key of zeros: got no error, want one")
	}
	response[keyOffset], response[63] = 1, 2
	if key, err := readKey(response); err != nil || key[0] != 1 || key[31] != 2 {
		t.Errorf("got %x and error %v, want the last 32 bytes", key, err)
	}
	response[0] = 0x16
	if _, err := readKey(response); err == nil || !strings.Contains(err.Error(), "0x16") {
		t.Errorf("a status: got error %v, want one that names it", err)
	}
	if _, err := deriveKey(filepath.Join(t.TempDir(), "none"), 0); err == nil {
		t.Errorf("no device: got error %v, want one", err)
	}
	if _, err := deriveKey("/dev/null", 0); !errors.Is(err, tsm.ErrEnded) {
		t.Errorf("a device that knows no such request: got error %v, want %v", err, tsm.ErrEnded)
	}
}
