package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/sevsnp"
	"chrysalis/measure"
	"chrysalis/measure/snp"
)

// snpGuest is an SEV-SNP guest and the firmware of the processor below it, which speaks with the guest over encrypted messages.
type snpGuest struct {
	mu        sync.Mutex
	processor *attesttest.SNP
	key       [32]byte // VMPCK0, in the guest's page of secrets
	sequence  uint64   // of the last message
	chip      [32]byte // what derived keys follow from
	pages     []launchPage
	way       func() (string, error) // how the host behaves now
}

// launchPage is a page that QEMU's launch would put into the guest's memory.
type launchPage struct {
	address uint64
	data    []byte
}

const pageBytes = 4096

// newProcessor returns the processor that is played.
func newProcessor(now time.Time) *attesttest.SNP {
	return attesttest.NewSNP(sevsnp.Milan, sevsnp.SignerVCEK, now)
}

// newSNP returns a guest of a processor that is vouched for during a day, launched with this digest, under a root that was made now as
// well where none is given.
func newSNP(now time.Time, digest [48]byte, hostData [32]byte, policy sevsnp.Policy, under *root) (*snpGuest, error) {
	g := &snpGuest{processor: newProcessor(now)}
	if under != nil {
		g.processor.ARKMade = under.certificate.Raw
	}
	r := &g.processor.Report
	r.Measurement, r.HostData, r.Policy, r.GuestSVN, r.VMPL = digest, hostData, policy, 0, 0
	_, err1 := rand.Read(g.key[:])
	_, err2 := rand.Read(r.ReportID[:])
	return g, errors.Join(err1, err2)
}

// ofChip makes the processor the one whose fuses lie in a file: keys that a guest derives are then those of its earlier starts.
func (g *snpGuest) ofChip(file string) error {
	fuses, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		fuses = make([]byte, len(g.chip))
		if _, err := rand.Read(fuses); err != nil {
			return err
		}
		err = os.WriteFile(file, fuses, 0o600)
	}
	if err == nil && len(fuses) != len(g.chip) {
		err = fmt.Errorf("%s has %d bytes, want %d", file, len(fuses), len(g.chip))
	}
	copy(g.chip[:], fuses)
	return err
}

// launchSNP measures and lays out what QEMU puts into a guest of the shape before it starts.
func launchSNP(shape measure.Shape, firmwareFile, boot string, hostData [32]byte, policy sevsnp.Policy, under *root) (*snpGuest, error) {
	var files [4][]byte
	for i, name := range []string{firmwareFile, filepath.Join(boot, "vmlinuz"), filepath.Join(boot, "initrd"), filepath.Join(boot, "cmdline")} {
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	kernel := snp.Kernel{Kernel: files[1], Initrd: files[2], Cmdline: string(files[3])}
	launch, err := shape.SNPLaunch(files[0], &kernel)
	if err != nil {
		return nil, err
	}
	digest, err := snp.Digest(launch)
	if err != nil {
		return nil, err
	}
	g, err := newSNP(time.Now(), digest, hostData, policy, under)
	if err != nil {
		return nil, err
	}
	return g, g.load(files[0], kernel)
}

// load lays out the pages of a launch: what the firmware's metadata asks for.
func (g *snpGuest) load(firmware []byte, kernel snp.Kernel) error {
	sections, err := snp.Sections(firmware)
	if err != nil {
		return err
	}
	for _, s := range sections {
		var page []byte
		switch s.Kind {
		case snp.KindSecrets:
			page = g.secrets()
		case snp.KindCPUID:
			page = cpuidPage()
		case snp.KindKernelHashes:
			if page, err = snp.KernelHashes(firmware, s, kernel); err != nil {
				return err
			}
		default:
			continue
		}
		g.pages = append(g.pages, launchPage{uint64(s.Address), page})
	}
	return nil
}

// secrets is the page of secrets: SEV-SNP Firmware ABI (AMD 56860), revision 1.58, table 71. Version 3; VMPCK0 at 0x20.
func (g *snpGuest) secrets() []byte {
	page := make([]byte, pageBytes)
	binary.LittleEndian.PutUint32(page, 3)
	copy(page[0x20:], g.key[:])
	return page
}

// cpuidPage is the page of CPUID, table 17 of the same: a count, and functions of 48 bytes from 16 on. Nothing reads the values here, because
// the emulated CPUID raises no exception; what is there has to be well-formed.
func cpuidPage() []byte {
	page := make([]byte, pageBytes)
	functions := [][2]uint32{{0, 0xd}, {0x40000000, 0x40000000}, {0x80000000, 0x8000001f}}
	binary.LittleEndian.PutUint32(page, uint32(len(functions)))
	for i, f := range functions {
		at := 16 + 48*i
		binary.LittleEndian.PutUint32(page[at:], f[0])
		binary.LittleEndian.PutUint32(page[at+24:], f[1])
	}
	return page
}

// launched answers what the plugin asks first.
func (g *snpGuest) launched() (b []byte) {
	for _, p := range g.pages {
		b = binary.LittleEndian.AppendUint64(b, p.address)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(p.data))), p.data...)
	}
	return b
}

// A message: SEV-SNP Firmware ABI, table 100. Everything from the algorithm on is authenticated.
const (
	messageHead     = 0x60
	messageSequence = 0x20
	messageFrom     = 0x30 // where what is authenticated begins
	messageAES      = 1
	maxPayload      = pageBytes - messageHead

	keyRequest, keyResponse       = 3, 4
	reportRequest, reportResponse = 5, 6
)

// message takes a guest's message and returns the firmware's answer, in a page.
func (g *snpGuest) message(page []byte) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	le := binary.LittleEndian
	sequence, size := le.Uint64(page[messageSequence:]), le.Uint16(page[0x36:])
	if page[0x30] != messageAES || le.Uint16(page[0x32:]) != messageHead || size > maxPayload || page[0x3c] != 0 {
		return nil, fmt.Errorf("message with algorithm %d, head of %d, %d bytes and key %d", page[0x30], le.Uint16(page[0x32:]), size, page[0x3c])
	}
	if sequence != g.sequence+1 {
		return nil, fmt.Errorf("message %d, want %d", sequence, g.sequence+1)
	}
	aead, err := g.aead()
	if err != nil {
		return nil, err
	}
	sealed := append(bytes.Clone(page[messageHead:messageHead+int(size)]), page[:16]...)
	payload, err := aead.Open(nil, nonce(sequence), sealed, page[messageFrom:messageHead])
	if err != nil {
		return nil, errors.New("message that this guest's key does not open")
	}
	kind, answer, err := g.answer(page[0x34], payload)
	if err != nil {
		return nil, err
	}
	g.sequence += 2
	out := make([]byte, pageBytes)
	le.PutUint64(out[messageSequence:], g.sequence)
	out[0x30], out[0x31] = messageAES, 1
	le.PutUint16(out[0x32:], messageHead)
	out[0x34], out[0x35] = kind, 1
	le.PutUint16(out[0x36:], uint16(len(answer)))
	box := aead.Seal(nil, nonce(g.sequence), answer, out[messageFrom:messageHead])
	copy(out[messageHead:], box[:len(answer)])
	copy(out, box[len(answer):])
	return out, nil
}

func (g *snpGuest) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(g.key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func nonce(sequence uint64) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, sequence), 0, 0, 0, 0)
}

// answer answers a request by its type.
func (g *snpGuest) answer(kind byte, payload []byte) (byte, []byte, error) {
	switch {
	case kind == reportRequest && len(payload) >= 96:
		signed := *g.processor
		signed.Report.ReportData = [64]byte(payload)
		signed.Report.VMPL = binary.LittleEndian.Uint32(payload[64:])
		report := signed.Evidence().Report
		out := make([]byte, 32, 32+len(report))
		binary.LittleEndian.PutUint32(out[4:], uint32(len(report)))
		return reportResponse, append(out, report...), nil
	case kind == keyRequest && len(payload) >= 32:
		out := make([]byte, 64)
		committed, asked := g.processor.Report.CommittedTCB, payload[24:32]
		for i := range committed {
			if asked[i] > committed[i] {
				binary.LittleEndian.PutUint32(out, 0x16) // INVALID_PARAM
				return keyResponse, out, nil
			}
		}
		mac := hmac.New(sha256.New, g.chip[:])
		mac.Write(payload[:32])
		mac.Write(g.processor.Report.Measurement[:])
		copy(out[32:], mac.Sum(nil))
		return keyResponse, out, nil
	}
	return 0, nil, fmt.Errorf("message of type %d with %d bytes", kind, len(payload))
}

// certificates is the table that the host keeps beside reports: SEV-ES Guest-Hypervisor Communication Block Standardization (AMD 56421).
func (g *snpGuest) certificates() ([]byte, error) {
	way, err := g.behaviour()
	if err != nil {
		return nil, err
	}
	processor := *g.processor
	if way == wayOther {
		processor.Endorsement = maps.Clone(processor.Endorsement)
		chip := bytes.Clone(processor.Endorsement[endorsedChip])
		chip[0] ^= 1
		processor.Endorsement[endorsedChip] = chip
	}
	e := processor.Evidence()
	entries := []struct {
		guid string
		der  []byte
	}{
		{"63da758d-e664-4564-adc5-f4b93be8accd", e.Certificate},
		{"4ab7b379-bbac-4fe4-a02f-05aef327c782", e.Chain[0]},
		{"c0b406a4-a803-4952-9743-3fb6014cd0ae", e.Chain[1]},
	}
	head, body := []byte{}, []byte{}
	first := 24 * (len(entries) + 1)
	for _, c := range entries {
		raw, err := hex.DecodeString(strings.ReplaceAll(c.guid, "-", ""))
		if err != nil {
			panic(err)
		}
		head = append(head, raw...)
		head = binary.LittleEndian.AppendUint32(head, uint32(first+len(body)))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(c.der)))
		body = append(body, c.der...)
	}
	return append(append(head, make([]byte, 24)...), body...), nil
}

// endorsedChip is the extension with the chip's id: AMD 57230, table 9.
const endorsedChip = "4"

// behaviour is how the host behaves now.
func (g *snpGuest) behaviour() (string, error) {
	if g.way == nil {
		return "", nil
	}
	return g.way()
}

// passed is what the host makes of a message and of the firmware's answer to it.
func (g *snpGuest) passed(in []byte) ([]byte, error) {
	const unsupported, busy = 0x10, 2 << 32 // a status of the firmware, and of the hypervisor
	way, err := g.behaviour()
	switch {
	case err != nil:
		return nil, err
	case way == wayRefuse:
		return binary.LittleEndian.AppendUint64(nil, unsupported), nil
	case way == wayThrottle:
		return binary.LittleEndian.AppendUint64(nil, busy), nil
	}
	out, err := g.message(in)
	if err == nil && way == "garbage" {
		out[messageHead] ^= 1
	}
	return out, err
}

// respond answers the plugin.
func (g *snpGuest) respond(op uint8, in []byte) ([]byte, error) {
	switch {
	case op == opLaunch && len(in) == 0:
		return g.launched(), nil
	case op == opMessage && len(in) == pageBytes:
		return g.passed(in)
	case op == opCertificates && len(in) == 0:
		return g.certificates()
	}
	return nil, fmt.Errorf("operation %d with %d bytes", op, len(in))
}
