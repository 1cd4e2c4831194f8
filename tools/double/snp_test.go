package main

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/sevsnp"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/snp"
	"chrysalis/tools/internal/guest"
)

var snpTime = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func testSNP(t *testing.T) *snpGuest {
	t.Helper()
	g, err := newSNP(snpTime, [48]byte{0xd1}, [32]byte{0xda}, 1<<8|55|1<<17|sevsnp.PolicySingleSocket|sevsnp.PolicyAES256|sevsnp.PolicyNoRAPL|
		sevsnp.PolicyCiphertextHidden|sevsnp.PolicyNoPageSwap, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// sealed makes a message as Linux does: struct snp_guest_msg of drivers/virt/coco/sev-guest.
func sealed(t *testing.T, g *snpGuest, sequence uint64, kind byte, payload []byte) []byte {
	t.Helper()
	page := make([]byte, pageBytes)
	binary.LittleEndian.PutUint64(page[messageSequence:], sequence)
	page[0x30], page[0x31], page[0x34], page[0x35] = messageAES, 1, kind, 1
	binary.LittleEndian.PutUint16(page[0x32:], messageHead)
	binary.LittleEndian.PutUint16(page[0x36:], uint16(len(payload)))
	aead, err := g.aead()
	if err != nil {
		t.Fatal(err)
	}
	box := aead.Seal(nil, nonce(sequence), payload, page[messageFrom:messageHead])
	copy(page[messageHead:], box[:len(payload)])
	copy(page, box[len(payload):])
	return page
}

// opened opens the firmware's answer.
func opened(t *testing.T, g *snpGuest, page []byte, sequence uint64, kind byte) []byte {
	t.Helper()
	if got := binary.LittleEndian.Uint64(page[messageSequence:]); got != sequence || page[0x34] != kind {
		t.Fatalf("got message %d of type %d, want %d of %d", got, page[0x34], sequence, kind)
	}
	size := int(binary.LittleEndian.Uint16(page[0x36:]))
	aead, err := g.aead()
	if err != nil {
		t.Fatal(err)
	}
	payload, err := aead.Open(nil, nonce(sequence), append(bytes.Clone(page[messageHead:messageHead+size]), page[:16]...), page[messageFrom:messageHead])
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// TestSNPReport has the verifier of clients judge a report that came by messages.
func TestSNPReport(t *testing.T) {
	g := testSNP(t)
	request := make([]byte, 96)
	request[0] = 7
	page, err := g.respond(opMessage, sealed(t, g, 1, reportRequest, request))
	if err != nil {
		t.Fatal(err)
	}
	payload := opened(t, g, page, 2, reportResponse)
	report := payload[32 : 32+binary.LittleEndian.Uint32(payload[4:])]
	e := g.processor.Evidence()
	e.Report = report
	options := g.processor.Options(sevsnp.Milan)
	options.Measurements, options.HostData, options.ReportData = [][48]byte{{0xd1}}, [32]byte{0xda}, [64]byte{7}
	if _, err := sevsnp.Verify(e, options, snpTime, []*x509.Certificate{g.processor.Root()}); err != nil {
		t.Errorf("the report: %v", err)
	}
	options.Measurements = [][48]byte{{0xd2}}
	if _, err := sevsnp.Verify(e, options, snpTime, []*x509.Certificate{g.processor.Root()}); err == nil {
		t.Error("another launch's report: got it accepted")
	}
}

// TestSNPKeys: a key follows from what the request mixes and from the chip, and no patch level above the committed one has any.
func TestSNPKeys(t *testing.T) {
	g := testSNP(t)
	sequence := uint64(1)
	key := func(tcb uint64) (status uint32, key [32]byte) {
		t.Helper()
		request := make([]byte, 32)
		request[8] = 1<<0 | 1<<3 | 1<<5
		binary.LittleEndian.PutUint64(request[24:], tcb)
		page, err := g.respond(opMessage, sealed(t, g, sequence, keyRequest, request))
		if err != nil {
			t.Fatal(err)
		}
		payload := opened(t, g, page, sequence+1, keyResponse)
		sequence += 2
		return binary.LittleEndian.Uint32(payload), [32]byte(payload[32:])
	}
	committed := binary.LittleEndian.Uint64(g.processor.Report.CommittedTCB[:])
	status, first := key(committed)
	if again, same := key(committed); status != 0 || again != 0 || same != first || first == ([32]byte{}) {
		t.Errorf("twice at one level: got status %d and %d, keys %x and %x, want one key", status, again, first, same)
	}
	if status, other := key(committed - 1); status != 0 || other == first {
		t.Errorf("at a lower level: got status %d and the same key: %v", status, other == first)
	}
	if status, none := key(committed + 1); status == 0 || none != ([32]byte{}) {
		t.Errorf("at a higher level: got status %d and key %x, want none", status, none)
	}
	file := filepath.Join(t.TempDir(), "chip")
	if err := g.ofChip(file); err != nil {
		t.Fatal(err)
	}
	_, fused := key(committed)
	other := testSNP(t)
	if err := other.ofChip(file); err != nil {
		t.Fatal(err)
	}
	g, sequence = other, 1
	if _, same := key(committed); same != fused || fused == first {
		t.Errorf("the chip's next start: got key %x, want %x and another than before it had fuses", same, fused)
	}
	if err := os.WriteFile(file, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.ofChip(file); err == nil {
		t.Error("fuses that are none: got no error, want one")
	}
}

// TestSNPMessages: what is not this guest's next message is refused, and a host can spoil an answer or keep it back.
func TestSNPMessages(t *testing.T) {
	good := func(g *snpGuest) []byte { return sealed(t, g, 1, reportRequest, make([]byte, 96)) }
	for name, page := range map[string]func(*snpGuest) []byte{
		"repeated":                func(g *snpGuest) []byte { _, _ = g.respond(opMessage, good(g)); return good(g) },
		"ahead":                   func(g *snpGuest) []byte { return sealed(t, g, 3, reportRequest, make([]byte, 96)) },
		"another guest's":         func(*snpGuest) []byte { return good(testSNP(t)) },
		"changed":                 func(g *snpGuest) []byte { p := good(g); p[messageHead]++; return p },
		"of another head":         func(g *snpGuest) []byte { p := good(g); p[0x32]++; return p },
		"of another algorithm":    func(g *snpGuest) []byte { p := good(g); p[0x30]++; return p },
		"of another key":          func(g *snpGuest) []byte { p := good(g); p[0x3c]++; return p },
		"longer than a page":      func(g *snpGuest) []byte { p := good(g); p[0x37] = 0xff; return p },
		"of a type that is none":  func(g *snpGuest) []byte { return sealed(t, g, 1, 99, make([]byte, 96)) },
		"a request that is short": func(g *snpGuest) []byte { return sealed(t, g, 1, reportRequest, make([]byte, 8)) },
	} {
		g := testSNP(t)
		if out, err := g.respond(opMessage, page(g)); err == nil {
			t.Errorf("%s: got %d bytes, want a refusal", name, len(out))
		}
	}
	g := testSNP(t)
	g.way = func() (string, error) { return wayRefuse, nil }
	if out, err := g.respond(opMessage, good(g)); err != nil || len(out) != 8 || binary.LittleEndian.Uint64(out) == 0 {
		t.Errorf("a host that refuses: got %x and error %v, want a status", out, err)
	}
	g.way = func() (string, error) { return wayThrottle, nil }
	if out, err := g.respond(opMessage, good(g)); err != nil || len(out) != 8 || binary.LittleEndian.Uint64(out) != 2<<32 || g.sequence != 0 {
		t.Errorf("a hypervisor that throttles: got %x and error %v, want that it is busy, and no message taken", out, err)
	}
	g.way = func() (string, error) { return wayOther, nil }
	if table, err := g.respond(opCertificates, nil); err != nil || bytes.Contains(table, g.processor.Evidence().Certificate) {
		t.Errorf("certificates of another chip: got %d bytes and error %v, want them without this chip's", len(table), err)
	}
	g.way = func() (string, error) { return "garbage", nil }
	out, err := g.respond(opMessage, good(g))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := g.aead()
	if err != nil {
		t.Fatal(err)
	}
	size := int(binary.LittleEndian.Uint16(out[0x36:]))
	if _, err := aead.Open(nil, nonce(2), append(bytes.Clone(out[messageHead:messageHead+size]), out[:16]...), out[messageFrom:messageHead]); err == nil {
		t.Error("a host that spoils answers: the guest's key opens it")
	}
	if _, err := g.respond(99, nil); err == nil {
		t.Error("another operation: got no error, want one")
	}
}

// TestSNPLaunch: the pages of a launch stand where the release's firmware wants them, hashes of the kernel among them.
func TestSNPLaunch(t *testing.T) {
	firmware, err := os.ReadFile("../../measure/snp/testdata/ovmf_AmdSev_suffix.bin")
	if err != nil {
		t.Fatal(err)
	}
	g := testSNP(t)
	if err := g.load(firmware, snp.Kernel{Kernel: []byte("kernel"), Initrd: []byte("initrd"), Cmdline: "quiet"}); err != nil {
		t.Fatal(err)
	}
	sections, err := snp.Sections(firmware)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[uint64]snp.Kind{}
	for _, s := range sections {
		kinds[uint64(s.Address)] = s.Kind
	}
	seen := map[snp.Kind][]byte{}
	b := g.launched()
	for len(b) > 0 {
		address, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])
		seen[kinds[address]], b = b[12:12+n], b[12+n:]
	}
	if secrets := seen[snp.KindSecrets]; len(secrets) != pageBytes || !bytes.Equal(secrets[0x20:0x40], g.key[:]) {
		t.Errorf("the page of secrets has %d bytes, want one page with the guest's key", len(secrets))
	}
	if len(seen[snp.KindCPUID]) != pageBytes || len(seen[snp.KindKernelHashes]) != pageBytes || len(seen) != 3 {
		t.Errorf("got pages of %d kinds, want secrets, CPUID and hashes", len(seen))
	}
	if got, err := g.respond(opLaunch, nil); err != nil || !bytes.Equal(got, g.launched()) {
		t.Errorf("asked by the plugin: got %d bytes and error %v", len(got), err)
	}
	table, err := g.respond(opCertificates, nil)
	if err != nil || strings.Count(string(table), string(g.processor.Evidence().Certificate)) != 1 {
		t.Errorf("certificates: got %d bytes and error %v, want the chip's among them", len(table), err)
	}
}

// TestKeptSNPRoot: two processors under one root that was kept are vouched for by one certificate, byte for byte.
func TestKeptSNPRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := runRoot([]string{"-platform", "sev-snp", "-o", file}); err != nil {
		t.Fatal(err)
	}
	var roots [2][]byte
	for i := range roots {
		under, err := readRoot(file, measure.SEVSNP)
		if err != nil {
			t.Fatal(err)
		}
		g, err := newSNP(time.Now(), [48]byte{0xd1}, [32]byte{0xda}, guest.StrictSNPPolicy, under)
		if err != nil {
			t.Fatal(err)
		}
		p := g.processor
		roots[i] = p.Root().Raw
		if _, err := sevsnp.Verify(p.Evidence(), p.Options(sevsnp.Milan), time.Now(), []*x509.Certificate{under.certificate}); err != nil {
			t.Errorf("processor %d: %v", i, err)
		}
	}
	if !bytes.Equal(roots[0], roots[1]) {
		t.Error("two processors under one file have two roots")
	}
	if got, err := readRoot(file, measure.TDX); err == nil {
		t.Errorf("a root of SEV-SNP for TDX: got %v, want an error", got)
	}
	if err := runRoot([]string{"-platform", "sgx", "-o", file}); err == nil {
		t.Error("a root of SGX was made, want an error")
	}
}

// TestSoftwareTCB: what the demo asks of the software processor is what it has.
func TestSoftwareTCB(t *testing.T) {
	tcb, err := newProcessor(snpTime).Report.ReportedTCB.Parts(sevsnp.Milan)
	want := guest.SoftwareTCB
	if got := (config.PatchLevels{Product: "Milan", FMC: tcb.FMC, Bootloader: tcb.Bootloader, TEE: tcb.TEE, SNP: tcb.SNP, Microcode: tcb.Microcode}); err != nil || got != want {
		t.Errorf("got %+v (error %v), want %+v", got, err, want)
	}
}
