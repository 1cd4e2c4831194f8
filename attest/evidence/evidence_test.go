package evidence_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
)

func vectorFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// guest is a software guest of any platform.
type guest interface {
	Attest(nonceRoot, tlsKey [32]byte) *evidence.Evidence
}

// guests returns one of each platform.
func guests(t testing.TB) []guest {
	t.Helper()
	measured, err := os.ReadFile(filepath.Join("..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	return []guest{attesttest.New(measured, now), attesttest.NewTDXGuest(measured, now), attesttest.NewSNPGuest(measured, "Genoa", now)}
}

// exampleStatement has another byte in each field.
func exampleStatement() evidence.Statement {
	fill := func(b byte) (f [32]byte) {
		for i := range f {
			f[i] = b
		}
		return f
	}
	return evidence.Statement{
		NonceRoot: fill(1), TLSKey: fill(2), HPKEKey: fill(3), ReceiptKey: fill(4), ClaimKey: fill(5), Epoch: 6, NotAfter: 7,
		SecretHash: fill(8), ConfigHash: fill(9), LogHead: fill(10), GPUDigest: fill(11),
	}
}

func exampleEvidence() *evidence.Evidence {
	return &evidence.Evidence{
		Platform: evidence.VTPM, Statement: exampleStatement(), Path: evidence.Path{Index: 2, Leaves: 3, Siblings: [][32]byte{{12}}},
		Config: []byte("config"), RuntimeLog: []byte("runtime log"), BootLog: []byte("boot log"), Quote: []byte("quote"), Signature: []byte("signature"),
		Certificates: [][]byte{[]byte("key"), []byte("maker")},
	}
}

func exampleGPUs() evidence.GPUs {
	return evidence.GPUs{
		Devices: []evidence.Device{
			{Kind: evidence.KindGPU, Report: []byte("report 0"), Chain: []byte("chain 0")},
			{Kind: evidence.KindGPU, Report: []byte("report 1"), Chain: []byte("chain 1")},
			{Kind: evidence.KindSwitch, Report: []byte("report of the switch"), Chain: []byte("chain of the switch")},
		},
		RIMs: [][]byte{[]byte("driver"), []byte("firmware")}, OCSP: [][]byte{[]byte("answer")}, Authorities: [][]byte{[]byte("authority")},
	}
}

// TestGPUVector: the digest and the nonce of the example, and what counts towards each.
func TestGPUVector(t *testing.T) {
	want := strings.Fields(string(vectorFile(t, "gpu.hex")))
	digest, nonce := exampleGPUs().Digest(), evidence.GPUNonce(exampleStatement())
	if got := []string{hex.EncodeToString(digest[:]), hex.EncodeToString(nonce[:])}; !slices.Equal(got, want) {
		t.Errorf("digest and nonce: got %q, want the vector's %q", got, want)
	}
	if (evidence.GPUs{RIMs: exampleGPUs().RIMs}).Digest() != [32]byte{} {
		t.Error("the digest of no devices is not zeros")
	}
	stapled := exampleGPUs()
	stapled.RIMs, stapled.OCSP, stapled.Authorities = nil, nil, nil
	if stapled.Digest() != digest {
		t.Error("what is stapled counts towards the digest")
	}
	for name, change := range map[string]func(*evidence.GPUs){
		"a report":  func(g *evidence.GPUs) { g.Devices[0].Report = []byte("another") },
		"a chain":   func(g *evidence.GPUs) { g.Devices[2].Chain = []byte("another") },
		"a kind":    func(g *evidence.GPUs) { g.Devices[1].Kind = evidence.KindSwitch },
		"a device":  func(g *evidence.GPUs) { g.Devices = g.Devices[1:] },
		"the order": func(g *evidence.GPUs) { g.Devices[0], g.Devices[1] = g.Devices[1], g.Devices[0] },
		"where a report ends": func(g *evidence.GPUs) {
			g.Devices[0].Report, g.Devices[0].Chain = []byte("report 0c"), []byte("hain 0")
		},
	} {
		g := exampleGPUs()
		change(&g)
		if g.Digest() == digest {
			t.Errorf("%s does not count towards the digest", name)
		}
	}
	// Every byte of the statement counts towards the nonce, but for the digest of what is signed over it.
	for i := range exampleStatement().Encode() {
		encoded := exampleStatement().Encode()
		encoded[i]++
		s, err := evidence.DecodeStatement(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if counts := evidence.GPUNonce(s) != nonce; counts != (i < evidence.StatementSize-32) {
			t.Errorf("byte %d of the statement counts towards the nonce: %t", i, counts)
		}
	}
}

// TestBoardFits: the largest board's evidence fits, as large as NVIDIA's library gives it, beside everything else of a guest.
func TestBoardFits(t *testing.T) {
	e := guests(t)[1].Attest([32]byte{1}, [32]byte{2})
	for i := range evidence.MaxGPUs + evidence.MaxSwitches {
		kind := evidence.KindGPU
		if i >= evidence.MaxGPUs {
			kind = evidence.KindSwitch
		}
		// nvml.h: NVML_CC_GPU_ATTESTATION_REPORT_SIZE and NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE.
		e.GPUs.Devices = append(e.GPUs.Devices, evidence.Device{Kind: kind, Report: make([]byte, 8192), Chain: make([]byte, 5120)})
	}
	for range 3 {
		e.GPUs.RIMs = append(e.GPUs.RIMs, make([]byte, 64<<10))
	}
	for range 3 * (evidence.MaxGPUs + evidence.MaxSwitches) {
		e.GPUs.OCSP = append(e.GPUs.OCSP, make([]byte, 4<<10))
	}
	encoded, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	extension, err := evidence.EpochExtension(e)
	if err != nil {
		t.Fatal(err)
	}
	// crypto/tls takes 256 KiB of certificates.
	if n := len(extension.Value); n > 224<<10 {
		t.Errorf("a certificate carries %d bytes, want at most 224 KiB", n)
	}
	t.Logf("%d bytes, of which a certificate carries %d", len(encoded), len(extension.Value))
}

func TestEvidenceVector(t *testing.T) {
	withKey := exampleEvidence()
	for i := range evidence.HPKEBytes {
		withKey.HPKE = append(withKey.HPKE, byte(i%251))
	}
	withGPUs := exampleEvidence()
	withGPUs.GPUs = exampleGPUs()
	bound := exampleEvidence()
	bound.Platform, bound.Binding = evidence.TDX, evidence.Bind(exampleKey(), exampleStatement())
	for file, example := range map[string]*evidence.Evidence{"evidence.bin": exampleEvidence(), "evidence-hpke.bin": withKey,
		"evidence-gpus.bin": withGPUs, "evidence-bound.bin": bound} {
		want := vectorFile(t, file)
		got, err := example.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: encoded example: got %x, want the vector's %x", file, got, want)
		}
		e, err := evidence.Decode(want)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(e, example) {
			t.Errorf("%s: decoded vector: got %+v, want %+v", file, e, example)
		}
	}
}

// TestLeafVectors: the two kinds of leaf, and that what one kind hashes the other never does.
func TestLeafVectors(t *testing.T) {
	want := strings.Fields(string(vectorFile(t, "leaves.hex")))
	s := exampleStatement()
	bound, detached := evidence.Leaf(s.NonceRoot, s.TLSKey), evidence.DetachedLeaf(s.NonceRoot)
	if got := []string{hex.EncodeToString(bound[:]), hex.EncodeToString(detached[:])}; !slices.Equal(got, want) {
		t.Errorf("leaves: got %q, want the vector's %q", got, want)
	}
	if evidence.Leaf(s.NonceRoot, [32]byte{}) == detached {
		t.Error("the leaf of no exporter is the detached one")
	}
}

func TestStatementVector(t *testing.T) {
	want := vectorFile(t, "statement.bin")
	if got := exampleStatement().Encode(); !bytes.Equal(got, want) || len(got) != evidence.StatementSize {
		t.Errorf("encoded statement: got %x, want the vector's %x", got, want)
	}
	s, err := evidence.DecodeStatement(want)
	if err != nil || s != exampleStatement() {
		t.Errorf("decoded vector: got %+v, %v, want %+v", s, err, exampleStatement())
	}
	for _, n := range []int{0, evidence.StatementSize - 1, evidence.StatementSize + 1} {
		if _, err := evidence.DecodeStatement(make([]byte, n)); err == nil {
			t.Errorf("%d bytes: got no error, want a refusal", n)
		}
	}
}

func TestReportDataVector(t *testing.T) {
	lines := strings.Fields(string(vectorFile(t, "report-data.hex")))
	epoch := exampleStatement()
	epoch.NonceRoot = [32]byte{}
	for i, s := range []evidence.Statement{exampleStatement(), epoch} {
		got := evidence.ReportData(s)
		if hex.EncodeToString(got[:]) != lines[i] {
			t.Errorf("report data %d: got %x, want %s", i, got, lines[i])
		}
	}
	// Every byte of the statement counts.
	want := evidence.ReportData(exampleStatement())
	for i, b := range exampleStatement().Encode() {
		encoded := exampleStatement().Encode()
		encoded[i] = b + 1
		s, err := evidence.DecodeStatement(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if evidence.ReportData(s) == want {
			t.Errorf("byte %d of the statement does not count", i)
		}
	}
}

// exampleKey is the key between quote and statement of the example.
func exampleKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{13}, ed25519.SeedSize))
}

// TestBinding: what the key signs is a statement and its mode, and report data the hash of the key alone.
func TestBinding(t *testing.T) {
	s := exampleStatement()
	b := evidence.Bind(exampleKey(), s)
	data := evidence.ReportData(s)
	if !ed25519.Verify(b.Key[:], append([]byte("chrysalis statement under a key v1\x00"), data[:]...), b.Signature[:]) {
		t.Error("the signature is not over label and report data")
	}
	if got := (&evidence.Evidence{Statement: s, Binding: b}).ReportData(); got != sha512.Sum512(b.Key[:]) {
		t.Errorf("report data is %x, want the hash of the key", got)
	}
	if got := (&evidence.Evidence{Statement: s}).ReportData(); got != data {
		t.Errorf("report data without a key is %x, want the statement's %x", got, data)
	}
	for i := range s.Encode() {
		encoded := s.Encode()
		encoded[i]++
		other, err := evidence.DecodeStatement(encoded)
		if err != nil {
			t.Fatal(err)
		}
		if b.Binds(other) {
			t.Fatalf("byte %d of the statement is not signed", i)
		}
	}
	other := b
	other.Key[0]++
	if !b.Binds(s) || other.Binds(s) || (evidence.Binding{}).Binds(s) {
		t.Error("want the key's own signature to bind, and no other's and none's")
	}
}

func TestDecodeEvidenceRefuses(t *testing.T) {
	good := vectorFile(t, "evidence.bin")
	const sections = 9 + evidence.StatementSize
	section := func(number byte, body string) string {
		return string(binary.LittleEndian.AppendUint32([]byte{number}, uint32(len(body)))) + body
	}
	item := func(body string) string { return section(0, body)[1:] }
	head := string(good[:sections])
	for _, tt := range []struct{ name, evidence, want string }{
		{"empty", "", "no CHRYEVD1 header"},
		{"another version", "CHRYEVD2" + string(good[8:]), "no CHRYEVD1 header"},
		{"unknown platform", head[:8] + "\x09" + head[9:], "platform 9 is unknown"},
		{"cut short", string(good[:len(good)-1]), "at most the"},
		{"cut in a section's head", head + "\x02\x00", "want a section's number and length"},
		{"trailing byte", string(good) + "x", "want a section's number and length"},
		{"long HPKE key", head + section(9, strings.Repeat("x", evidence.HPKEBytes+1)), "has 1217 bytes"},
		{"unknown section", head + section(200, "x"), "section 200"},
		{"section zero", head + section(0, "x"), "section 0"},
		{"section twice", head + section(2, "x") + section(2, "x"), "section 2 after section 2"},
		{"other order", head + section(3, "x") + section(2, "x"), "section 2 after section 3"},
		{"empty section", head + section(2, ""), "has 0 bytes"},
		{"long section", head + section(6, strings.Repeat("x", 4<<10+1)), "has 4097 bytes"},
		{"too long", strings.Repeat("x", evidence.MaxBytes+1), "want at most"},
		{"path without siblings", head + section(1, "\x00\x00\x00\x00\x02\x00\x00\x00"), "does not fit its tree"},
		{"path beside its tree", head + section(1, "\x01\x00\x00\x00\x01\x00\x00\x00"), "does not fit its tree"},
		{"half a path", head + section(1, "\x00\x00\x00\x00"), "want 8"},
		{"empty certificate", head + section(7, "\x00\x00\x00\x00"), "item of 0 bytes"},
		{"half a certificate", head + section(7, "\x09\x00\x00\x00x"), "item of 9 bytes"},
		{"half a length", head + section(7, "\x09"), "want a length of 4"},
		{"a device of no kind", head + section(10, "\x03"+item("r")+item("c")), "device 0 is of kind 3"},
		{"a device of kind zero", head + section(10, "\x00"+item("r")+item("c")), "device 0 is of kind 0"},
		{"a GPU after a switch", head + section(10, "\x02"+item("r")+item("c")+"\x01"+item("r")+item("c")), "device 1 is of kind 1 after kind 2"},
		{"an empty report", head + section(10, "\x01"+item("")+item("c")), "report of device 0: item of 0 bytes"},
		{"a device without a chain", head + section(10, "\x01"+item("r")), "chain of device 0: 0 bytes left"},
		{"nine GPUs", head + section(10, strings.Repeat("\x01"+item("r")+item("c"), 9)), "9 GPUs and 0 switches"},
		{"five switches", head + section(10, strings.Repeat("\x02"+item("r")+item("c"), 5)), "0 GPUs and 5 switches"},
		{"long devices", head + section(10, "\x01"+item(strings.Repeat("r", 160<<10))), "section 10 has"},
		{"long reference values", head + section(11, strings.Repeat("x", 256<<10+1)), "section 11 has"},
		{"long answers", head + section(12, strings.Repeat("x", 192<<10+1)), "section 12 has"},
		{"long authorities", head + section(13, strings.Repeat("x", 24<<10+1)), "section 13 has"},
		{"half a binding", head + section(14, strings.Repeat("x", 95)), "section 14: 95 bytes, want 96"},
		{"a long binding", head + section(14, strings.Repeat("x", 97)), "section 14 has 97 bytes"},
		{"a binding without a key", head + section(14, strings.Repeat("\x00", 32)+strings.Repeat("x", 64)), "the key is zeros"},
		{"an empty document", head + section(11, item("")), "item of 0 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := evidence.Decode([]byte(tt.evidence)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	bad := exampleEvidence()
	bad.Quote = make([]byte, 16<<10+1)
	if _, err := bad.Encode(); err == nil {
		t.Error("encoding what can't be decoded: got no error, want a refusal")
	}
}

// TestWithPath: what is put together is the one encoding, and shares the larger part.
func TestWithPath(t *testing.T) {
	whole := exampleEvidence()
	want, err := whole.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := whole.Path
	whole.Path = evidence.Path{}
	bare, err := whole.Encode()
	if err != nil {
		t.Fatal(err)
	}
	head, rest, err := evidence.WithPath(bare, path)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Concat(head, rest); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if &rest[len(rest)-1] != &bare[len(bare)-1] {
		t.Error("the common part was copied")
	}
	large := *whole
	large.Collateral = make([]byte, 512<<10)
	large.BootLog = make([]byte, 256<<10)
	large.Config, large.RuntimeLog, large.Certificates = make([]byte, 96<<10), make([]byte, 64<<10), nil
	large.Quote, large.Signature = make([]byte, 16<<10), make([]byte, 4<<10)
	encoded, err := large.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		encoded []byte
		path    evidence.Path
		want    string
	}{
		{"a path already", want, path, "has one already"},
		{"no evidence", bare[:100], path, "no CHRYEVD1 header"},
		{"another format", append([]byte{0}, bare...), path, "no CHRYEVD1 header"},
		{"no path", bare, evidence.Path{}, "want 8 and a multiple of 32"},
		{"a path beside its tree", bare, evidence.Path{Index: 1, Leaves: 1}, "does not fit its tree"},
		{"beyond the bound", slices.Concat(encoded, make([]byte, evidence.MaxBytes-len(encoded))), path, "want at most"},
	} {
		if _, _, err := evidence.WithPath(tt.encoded, tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestBatchPaths(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 100} {
		leaves := make([][32]byte, n)
		for i := range leaves {
			leaves[i] = evidence.Leaf([32]byte{byte(i), byte(n)}, [32]byte{byte(rng.Uint32())})
		}
		root, paths, err := evidence.Batch(leaves)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range paths {
			if got, err := p.Root(leaves[i]); err != nil || got != root {
				t.Errorf("leaf %d of %d: got %x (%v), want %x", i, n, got, err, root)
			}
			// A path is good for its own leaf, place and tree alone.
			if got, err := p.Root(evidence.Leaf([32]byte{0xff}, [32]byte{})); err == nil && got == root {
				t.Errorf("leaf %d of %d: a foreign leaf reaches the root", i, n)
			}
			if n > 1 {
				other := p
				other.Index = uint32((i + 1) % n)
				if got, err := other.Root(leaves[i]); err == nil && got == root {
					t.Errorf("leaf %d of %d: it reaches the root from another place", i, n)
				}
			}
			longer := p
			longer.Siblings = append(longer.Siblings[:len(longer.Siblings):len(longer.Siblings)], [32]byte{})
			if _, err := longer.Root(leaves[i]); err == nil {
				t.Errorf("leaf %d of %d: a longer path: got no error", i, n)
			}
		}
	}
	for _, n := range []int{0, 1<<16 + 1} {
		if _, _, err := evidence.Batch(make([][32]byte, n)); err == nil {
			t.Errorf("%d leaves: got no error, want a refusal", n)
		}
	}
}

// TestNodeIsNoLeaf: an inner node's input can't be passed off as a leaf's, or a nonce could be made that nobody asked.
func TestNodeIsNoLeaf(t *testing.T) {
	a, b := [32]byte{1}, [32]byte{2}
	root, _, err := evidence.Batch([][32]byte{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if evidence.Leaf(a, b) == root {
		t.Error("the leaf of (a, b) is the node over a and b")
	}
}

func FuzzDecodeEvidence(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "vectors", "*.bin"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range seeds {
		seed, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	genuine, err := guests(f)[0].Attest([32]byte{1}, [32]byte{2}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(genuine)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := evidence.Decode(b)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("decoded and encoded: got %x (%v), want %x", again, err, b)
		}
	})
}
