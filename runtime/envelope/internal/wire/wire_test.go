package wire

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/iotest"

	"chrysalis/attest/evidence"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// vectors are the requests of testdata/vectors.
var vectors = map[string]func() Request{"envelope": exampleRequest, "query": exampleQuery}

func testKey(t testing.TB) hpke.PrivateKey {
	t.Helper()
	key, err := kem.NewPrivateKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func exampleHeader(t testing.TB) Header {
	h := Header{Epoch: 3, NotBefore: 1795183126, NotAfter: 1795183216}
	h.Key = evidence.HPKEKeyID(sha256.Sum256(testKey(t).PublicKey().Bytes()))
	copy(h.Instance[:], bytes.Repeat([]byte{0x11}, 32))
	copy(h.ID[:], bytes.Repeat([]byte{0x22}, 16))
	return h
}

func exampleRequest() Request {
	return Request{
		Method: "POST", Path: "/v1/chat/completions",
		Header: []Field{{"authorization", "Bearer key"}, {"content-type", "application/json"}},
		Body:   []byte(`{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}],"stream":true}`),
	}
}

// exampleQuery asks with a query, and without a body.
func exampleQuery() Request {
	return Request{Method: "GET", Path: "/v1/attestation/report", Query: "nonce=" + strings.Repeat("5a", 32) + "&model=a%20b?/", Header: []Field{{"accept", "application/json"}}}
}

// exampleAnswer is written in pieces: each string is a Write, "" is a Flush.
var exampleAnswer = []string{"data: {\"a\":1}\n\n", "", "data: {\"b\":2}\n\n", "data: {\"c\":\"" + strings.Repeat("x", 300) + "\"}\n\n", "", "data: [DONE]\n\n"}

var exampleAnswerHeader = []Field{{"cache-control", "no-store"}, {"content-type", "text/event-stream"}}

func seal(t testing.TB) ([]byte, Secret) { return sealOf(t, exampleRequest()) }

func sealOf(t testing.TB, r Request) ([]byte, Secret) {
	t.Helper()
	sealed, secret, err := Seal(testKey(t).PublicKey().Bytes(), exampleHeader(t), "POST", r.Path, r)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, secret
}

// sealAnswer returns the pieces in which an answer is written to the network.
func sealAnswer(t testing.TB, secret Secret, content []string) (chunks [][]byte) {
	t.Helper()
	out := writerFunc(func(p []byte) { chunks = append(chunks, bytes.Clone(p)) })
	s, err := newSealer(out, &secret, bytes.Repeat([]byte{0x33}, nonceBytes))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(200, exampleAnswerHeader); err != nil {
		t.Fatal(err)
	}
	for _, piece := range content {
		err := s.Flush
		if piece != "" {
			err = func() error { _, err := s.Write([]byte(piece)); return err }
		}
		if err := err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.Wipe(); slices.ContainsFunc(s.plain[:cap(s.plain)], func(b byte) bool { return b != 0 }) {
		t.Error("text of the answer is left in the sealer")
	}
	return chunks
}

type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func openAnswer(secret Secret, sealed []byte) (*Opener, []byte, error) {
	o, err := NewOpener(bytes.NewReader(sealed), &secret)
	if err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(o)
	return o, content, err
}

// vector is one request and its answer, both ways: what another implementation reads.
type vector struct {
	Seed, PublicKey string
	Header          struct {
		KeyID, Instance, ID        string
		Epoch, NotBefore, NotAfter uint64
	}
	OuterMethod, OuterPath string
	Request                struct {
		Method, Path string
		Query        string `json:",omitempty"` // it is sealed alone: OuterPath has none
		Header       []Field
		Body         string
	}
	Sealed string // hexadecimal, as the others
	Answer struct {
		Status  int
		Header  []Field
		Writes  []string // "" sends what has gathered
		Content string
		Sealed  string
	}
}

func TestVectors(t *testing.T) {
	for name, request := range vectors {
		t.Run(name, func(t *testing.T) { checkVector(t, "../../testdata/vectors/"+name+".json", request()) })
	}
}

func checkVector(t *testing.T, vectorFile string, want Request) {
	if *update {
		cryptotest.SetGlobalRandom(t, 1)
		sealed, secret := sealOf(t, want)
		h, r := exampleHeader(t), want
		var v vector
		v.Seed, v.PublicKey = strings.Repeat("07", 32), hex.EncodeToString(testKey(t).PublicKey().Bytes())
		v.Header.KeyID, v.Header.Instance, v.Header.ID = hex.EncodeToString(h.Key[:]), hex.EncodeToString(h.Instance[:]), hex.EncodeToString(h.ID[:])
		v.Header.Epoch, v.Header.NotBefore, v.Header.NotAfter = h.Epoch, h.NotBefore, h.NotAfter
		v.OuterMethod, v.OuterPath = "POST", r.Path
		v.Request.Method, v.Request.Path, v.Request.Query, v.Request.Header, v.Request.Body = r.Method, r.Path, r.Query, r.Header, string(r.Body)
		v.Sealed = hex.EncodeToString(sealed)
		v.Answer.Status, v.Answer.Header, v.Answer.Writes = 200, exampleAnswerHeader, exampleAnswer
		v.Answer.Content = strings.Join(exampleAnswer, "")
		v.Answer.Sealed = hex.EncodeToString(bytes.Join(sealAnswer(t, secret, exampleAnswer), nil))
		text, err := json.MarshalIndent(v, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.FromSlash(vectorFile), append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.FromSlash(vectorFile))
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key := testKey(t)
	if seed, err := key.Bytes(); err != nil || !bytes.Equal(seed, unhex(v.Seed)) || !bytes.Equal(key.PublicKey().Bytes(), unhex(v.PublicKey)) {
		t.Errorf("the example's key is not the vector's (%v)", err)
	}
	sealed := unhex(v.Sealed)
	h, err := ParseHeader(sealed)
	if err != nil || h != exampleHeader(t) || h.Epoch != v.Header.Epoch || hex.EncodeToString(h.Key[:]) != v.Header.KeyID {
		t.Errorf("header: got %+v (%v), want %+v", h, err, exampleHeader(t))
	}
	r, secret, err := Open(key, sealed, v.OuterMethod, v.OuterPath)
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != want.Method || r.Path != want.Path || r.Query != want.Query || r.Query != v.Request.Query || v.OuterPath != want.Path || !reflect.DeepEqual(r.Header, want.Header) || !bytes.Equal(r.Body, want.Body) ||
		string(r.Body) != v.Request.Body {
		t.Errorf("request: got %+v, want %+v", r, want)
	}
	if r.Wipe(); bytes.ContainsAny(r.plain, "/:") {
		t.Error("a wiped request still has its text")
	}
	answer := unhex(v.Answer.Sealed)
	if got := bytes.Join(sealAnswer(t, secret, v.Answer.Writes), nil); !bytes.Equal(got, answer) {
		t.Errorf("sealed answer: got %x, want the vector's %x", got, answer)
	}
	o, content, err := openAnswer(secret, answer)
	if err != nil || o.Status != v.Answer.Status || !reflect.DeepEqual(o.Header, v.Answer.Header) || string(content) != v.Answer.Content {
		t.Errorf("answer: got %+v, %q (%v)", o, content, err)
	}
}

// TestEveryBitOfRequest flips each bit, of header, encapsulated key, message and tag alike.
func TestEveryBitOfRequest(t *testing.T) {
	sealed, _ := seal(t)
	key, path := testKey(t), exampleRequest().Path
	if _, _, err := Open(key, sealed, "POST", path); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(sealed) {
		bad := bytes.Clone(sealed)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, _, err := Open(key, bad, "POST", path); err == nil {
			t.Fatalf("bit %d flipped: it opens", bit)
		}
	}
	for n := range sealed {
		if _, _, err := Open(key, sealed[:n], "POST", path); err == nil {
			t.Fatalf("cut to %d bytes: it opens", n)
		}
	}
	for name, where := range map[string][2]string{
		"another method": {"PUT", path}, "another path": {"POST", "/v1/completions"}, "no path": {"POST", ""},
		"a byte moved from path to method": {"POST/", path[1:]},
	} {
		if _, _, err := Open(key, sealed, where[0], where[1]); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
	other, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(other, sealed, "POST", path); err == nil {
		t.Error("another key: it opens")
	}
}

// TestEveryBitOfAnswer flips each bit and cuts at each byte: what comes out is the answer's beginning and never its end.
func TestEveryBitOfAnswer(t *testing.T) {
	_, secret := seal(t)
	answer := bytes.Join(sealAnswer(t, secret, exampleAnswer), nil)
	want := strings.Join(exampleAnswer, "")
	for bit := range 8 * len(answer) {
		bad := bytes.Clone(answer)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, content, err := openAnswer(secret, bad); err == nil || !strings.HasPrefix(want, string(content)) {
			t.Fatalf("bit %d flipped: got %q, %v", bit, content, err)
		}
	}
	for n := range answer {
		_, content, err := openAnswer(secret, answer[:n])
		if !errors.Is(err, ErrCut) || !strings.HasPrefix(want, string(content)) {
			t.Fatalf("cut to %d bytes: got %q, %v; want ErrCut", n, content, err)
		}
	}
	// What breaks the connection cuts the answer, wherever it does.
	broken := errors.New("broken")
	for n := range answer {
		o, err := NewOpener(io.MultiReader(bytes.NewReader(answer[:n]), iotest.ErrReader(broken)), &secret)
		if err == nil {
			_, err = io.ReadAll(o)
		}
		if !errors.Is(err, ErrCut) || !errors.Is(err, broken) {
			t.Fatalf("broken after %d bytes: got %v, want ErrCut and the reason", n, err)
		}
	}
	if _, _, err := openAnswer(secret, append(answer, 0)); err == nil {
		t.Error("a byte behind the answer: got no error")
	}
}

// TestChunksHaveTheirPlace moves whole chunks.
func TestChunksHaveTheirPlace(t *testing.T) {
	_, secret := seal(t)
	c := sealAnswer(t, secret, exampleAnswer)
	if len(c) != 3 {
		t.Fatalf("%d chunks, want 3", len(c))
	}
	_, others := seal(t)
	foreign := sealAnswer(t, others, exampleAnswer)
	asFinal := func(b []byte) []byte { // a chunk's ciphertext behind the mark of the final one
		in := bytes.NewReader(b)
		if _, err := readVarint(in); err != nil {
			t.Fatal(err)
		}
		return append([]byte{0}, b[len(b)-in.Len():]...)
	}
	notFinal := append(appendVarint(nil, uint64(len(c[2])-1)), c[2][1:]...)
	want := strings.Join(exampleAnswer, "")
	for name, chunks := range map[string][][]byte{
		"one left out":                  {c[0], c[2]},
		"two exchanged":                 {c[0], c[2], c[1]},
		"one twice":                     {c[0], c[1], c[1], c[2]},
		"the first twice":               {c[0], c[0][nonceBytes:], c[1], c[2]},
		"no final one":                  {c[0], c[1]},
		"one that is made the final":    {c[0], asFinal(c[1])},
		"the final one made another":    {c[0], c[1], notFinal},
		"one of another answer":         {c[0], foreign[1], c[2]},
		"another answer":                foreign,
		"the beginning of another":      {foreign[0], c[1], c[2]},
		"the final one twice":           {c[0], c[1], c[2], c[2]},
		"a chunk shorter than a bucket": {c[0], appendVarint(nil, 100), make([]byte, 100), c[2]},
		"a chunk without end":           {c[0], appendVarint(nil, 1<<40), c[1]},
		"a length in a longer form":     {c[0], {0x80, 0, 1, 0x10}, c[1][2:], c[2]},
	} {
		if _, content, err := openAnswer(secret, bytes.Join(chunks, nil)); err == nil || !strings.HasPrefix(want, string(content)) {
			t.Errorf("%s: got %q, %v", name, content, err)
		}
	}
	if _, content, err := openAnswer(secret, bytes.Join(c, nil)); err != nil || string(content) != want {
		t.Errorf("in order: got %q, %v", content, err)
	}
}

// TestLongAnswers has content of many chunks come out as it went in.
func TestLongAnswers(t *testing.T) {
	_, secret := seal(t)
	for _, n := range []int{1, 63, 64, 250, 254, 255, 256, room - 40, room, room + 1, 3*room + 7, 1 << 18} {
		piece := strings.Repeat("0123456789abcdef", n/16+1)[:n]
		chunks := sealAnswer(t, secret, []string{piece, "", piece})
		for i, c := range chunks {
			if len(c) > nonceBytes+4+maxChunk+tagBytes {
				t.Errorf("%d bytes: chunk %d has %d", n, i, len(c))
			}
		}
		if _, content, err := openAnswer(secret, bytes.Join(chunks, nil)); err != nil || string(content) != piece+piece {
			t.Errorf("%d bytes twice: got %d, %v", n, len(content), err)
		}
	}
}

// TestPadding: what is of one bucket has one length.
func TestPadding(t *testing.T) {
	for _, tt := range []struct{ n, want int }{{0, 256}, {256, 256}, {257, 512}, {65535, 65536}, {65537, 131072}, {131073, 196608}} {
		if got := Bucket(tt.n); got != tt.want {
			t.Errorf("bucket of %d: got %d, want %d", tt.n, got, tt.want)
		}
	}
	lengths := map[int]bool{}
	for n := range 300 {
		r := exampleRequest()
		r.Body = make([]byte, 1100+n)
		sealed, _, err := Seal(testKey(t).PublicKey().Bytes(), exampleHeader(t), "POST", r.Path, r)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed) > SealedBytes(len(r.Body)) {
			t.Errorf("a body of %d bytes makes %d, want at most %d", len(r.Body), len(sealed), SealedBytes(len(r.Body)))
		}
		lengths[len(sealed)] = true
	}
	if len(lengths) != 1 {
		t.Errorf("bodies of 1100 to 1399 bytes have the lengths %v, want one", lengths)
	}
}

// TestDecodeRequestRefuses has messages inside that say a thing in a second way, or one that none may say.
func TestDecodeRequestRefuses(t *testing.T) {
	head := "\x00\x04POST\x05https\x00\x02/x"
	pad := func(s string) string { return s + strings.Repeat("\x00", 256-len(s)) }
	field := func(name, value string) string { return string(appendText(appendText(nil, name), value)) }
	fields := func(all ...string) string { return string(appendText(nil, strings.Join(all, ""))) }
	if r, err := decodeRequest([]byte(pad(head + fields(field("a", "1")) + "\x02{}\x00"))); err != nil || string(r.Body) != "{}" {
		t.Fatalf("as it should be: got %+v, %v", r, err)
	}
	for _, tt := range []struct{ name, plain, want string }{
		{"empty", "", "framing indicator"},
		{"a response", pad("\x01" + head[1:]), "framing indicator 1"},
		{"another scheme", pad("\x00\x04POST\x04http\x00\x02/x\x00\x00\x00"), "scheme of 4"},
		{"an authority", pad("\x00\x04POST\x05https\x01h\x02/x\x00\x00\x00"), "authority of 1"},
		{"no method", pad("\x00\x00\x05https\x00\x02/x\x00\x00\x00"), "method of 0"},
		{"a small method", pad("\x00\x04post\x05https\x00\x02/x\x00\x00\x00"), "method of 4"},
		{"no path", pad("\x00\x04POST\x05https\x00\x00\x00\x00\x00"), "path and query of 0"},
		{"a path with a space", pad("\x00\x04POST\x05https\x00\x03/ x\x00\x00\x00"), "path and query of 3"},
		{"a query without anything", pad("\x00\x04POST\x05https\x00\x03/x?\x00\x00\x00"), "a query without anything"},
		{"a fragment", pad("\x00\x04POST\x05https\x00\x04/x#y\x00\x00\x00"), "path and query of 4"},
		{"a query beyond the bound", "\x00\x04POST\x05https\x00\x44\x01/x?" + strings.Repeat("y", 1022) + "\x00\x00\x00", "1025 bytes, want at most 1024"},
		{"a length in a longer form", pad("\x00\x40\x04POST\x05https\x00\x02/x\x00\x00\x00"), "shortest form"},
		{"a text beyond the end", pad("\x00\x04POST\x05https\x00\x41\x00"), "unexpected EOF"},
		{"a field of a connection", pad(head + fields(field("transfer-encoding", "chunked")) + "\x00\x00"), "name of field 0"},
		{"a length beside the body", pad(head + fields(field("content-length", "2")) + "\x02{}\x00"), "name of field 0"},
		{"a name in capitals", pad(head + fields(field("A", "1")) + "\x00\x00"), "name of field 0"},
		{"a name with a colon", pad(head + fields(field(":path", "1")) + "\x00\x00"), "name of field 0"},
		{"another order", pad(head + fields(field("b", "1"), field("a", "1")) + "\x00\x00"), "name of field 1"},
		{"a line break in a value", pad(head + fields(field("a", "1\r\nb: 2")) + "\x00\x00"), "value of field 0"},
		{"a space before a value", pad(head + fields(field("a", " 1")) + "\x00\x00"), "value of field 0"},
		{"half a field", pad(head + "\x02\x01a" + "\x00\x00"), "reading header"},
		{"a field without name", pad(head + "\x02\x00\x00" + "\x00\x00"), "reading header"},
		{"too many fields", head + fields(slices.Repeat([]string{field("a", "")}, MaxFields+1)...), "more than 64 fields"},
		{"a body beyond the end", pad(head + "\x00\x7f\xff"), "body of 16383 bytes"},
		{"a trailer", pad(head + "\x00\x00\x01"), "a trailer"},
		{"no trailer's length", head + "\x00\x00", "a trailer"},
		{"a byte in the padding", pad(head + "\x00\x00\x00\x00\x01"), "of the padding is not zero"},
		{"no padding", head + "\x00\x00\x00", "padded to 19 bytes, want 256"},
		{"more padding", pad(head+"\x00\x00\x00") + strings.Repeat("\x00", 256), "padded to 512 bytes, want 256"},
	} {
		if _, err := decodeRequest([]byte(tt.plain)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	for name, change := range map[string]func(*Request){
		"a field of a connection": func(r *Request) { r.Header = []Field{{"host", "x"}} },
		"too much header":         func(r *Request) { r.Header = []Field{{"a", strings.Repeat("x", MaxFieldBytes)}} },
		"no method":               func(r *Request) { r.Method = "" },
		"a relative path":         func(r *Request) { r.Path = "v1" },
		"a query in the path":     func(r *Request) { r.Path = "/v1?a" },
		"a fragment":              func(r *Request) { r.Query = "a#b" },
		"a query with a space":    func(r *Request) { r.Query = "a b" },
		"a query that is long":    func(r *Request) { r.Query = strings.Repeat("x", maxTargetBytes) },
	} {
		r := exampleRequest()
		change(&r)
		if _, _, err := Seal(testKey(t).PublicKey().Bytes(), exampleHeader(t), "POST", "/v1", r); err == nil {
			t.Errorf("sealing %s: got no error", name)
		}
	}
}

// sealRaw seals plaintexts of chunks as they are, the last as the final one.
func sealRaw(t testing.TB, secret Secret, chunks ...[]byte) []byte {
	nonce := bytes.Repeat([]byte{0x33}, nonceBytes)
	key, err := secret.chunkKey(nonce)
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Clone(nonce)
	for i, c := range chunks {
		final := i == len(chunks)-1
		number, associated := key.next(final)
		sealed := key.aead.Seal(nil, number[:], c, associated)
		length := uint64(len(sealed))
		if final {
			length = 0
		}
		b = append(appendVarint(b, length), sealed...)
	}
	return b
}

// TestAnswersRefused has a guest that holds the key say what none says.
func TestAnswersRefused(t *testing.T) {
	_, secret := seal(t)
	pad := func(s string) []byte { return append([]byte(s), make([]byte, 256-len(s))...) }
	text := func(s string) []byte { return pad(string(appendText(nil, s))) }
	const head = "\x03\x40\xc8\x00" // 200, no fields
	if o, content, err := openAnswer(secret, sealRaw(t, secret, text(head+"\x02hi\x00\x00"))); err != nil || o.Status != 200 || string(content) != "hi" {
		t.Fatalf("as it should be: got %+v, %q, %v", o, content, err)
	}
	for _, tt := range []struct {
		name, want string
		chunks     [][]byte
	}{
		{"a request", "framing indicator 0", [][]byte{text("\x00" + head[1:] + "\x00\x00")}},
		{"an informational status", "status 100", [][]byte{text("\x03\x40\x64\x00\x00\x00")}},
		{"a status that is none", "status 600", [][]byte{text("\x03\x42\x58\x00\x00\x00")}},
		{"a field of a connection", "name of field 0", [][]byte{text("\x03\x40\xc8\x04host\x01x\x00\x00\x00")}},
		{"a trailer", "a trailer", [][]byte{text(head + "\x00\x01a\x01b\x00")}},
		{"a byte behind its end", "nothing behind it", [][]byte{text(head + "\x00\x00\x00")}},
		{"an end within content", "ends within the final chunk", [][]byte{text(head + "\x05hi")}},
		{"an end within the header", "ends within the final chunk", [][]byte{text("\x03\x40\xc8\x01a")}},
		{"an end before content", "ends within the final chunk", [][]byte{text(head)}},
		{"no text in a chunk", "without text", [][]byte{text(head), text(""), text("\x00\x00")}},
		{"a text longer than its chunk", "no length", [][]byte{pad("\x41\x00" + head)}},
		{"a text's length in a longer form", "no length", [][]byte{pad("\x40\x05" + head + "\x00\x00")}},
		{"a byte in the padding", "padding", [][]byte{append(text(head + "\x00\x00")[:255], 1)}},
		{"more padding", "padded to 512", [][]byte{append(text(head+"\x00\x00"), make([]byte, 256)...)}},
		{"a chunk shorter than a bucket", "at least 256", [][]byte{appendText(nil, head+"\x00\x00")}},
	} {
		if _, content, err := openAnswer(secret, sealRaw(t, secret, tt.chunks...)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q, %v, want an error with %q", tt.name, content, err, tt.want)
		}
	}
	var out bytes.Buffer
	s, err := NewSealer(&out, &secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"a status that is none": s.Begin(99, nil), "a field of a connection": s.Begin(200, []Field{{"te", "x"}}), "no status": s.Close(),
	} {
		if err == nil {
			t.Errorf("sealing an answer with %s: got no error", name)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	r := exampleRequest()
	plain, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := decodeRequest(bytes.Clone(plain)); err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(plain[:40])
	asks := exampleQuery()
	if plain, err = asks.encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		r, err := decodeRequest(bytes.Clone(plain))
		if err != nil {
			return
		}
		if again, err := r.encode(); err != nil || !bytes.Equal(again, plain) {
			t.Errorf("decoded and encoded: got %x (%v), want %x", again, err, plain)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	sealed, _ := seal(f)
	if _, err := ParseHeader(sealed); err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		h, err := ParseHeader(sealed)
		if err == nil && !bytes.Equal(h.encode(), sealed[:HeaderBytes]) {
			t.Errorf("parsed and encoded: got %x, want %x", h.encode(), sealed[:HeaderBytes])
		}
	})
}

// FuzzAnswer has the guest's plaintext in two chunks, as it stands.
func FuzzAnswer(f *testing.F) {
	_, secret := seal(f)
	f.Add([]byte("\x0a\x03\x40\xc8\x00\x02hi\x00\x00"), uint16(256))
	f.Add([]byte("\x04\x03\x40\xc8\x00"), uint16(256))
	f.Fuzz(func(t *testing.T, plain []byte, at uint16) {
		padded := append(bytes.Clone(plain), make([]byte, 512)...)
		n := min(int(at), len(padded))
		for _, chunks := range [][][]byte{{padded[:n], padded[n:]}, {padded[:256]}} {
			sealed := sealRaw(t, secret, chunks...)
			o, content, err := openAnswer(secret, sealed)
			if err == nil && (o.Status < 200 || o.Status > 599 || len(content) > len(padded)) {
				t.Errorf("status %d and %d bytes of content", o.Status, len(content))
			}
		}
	})
}

func BenchmarkSealAndOpen(b *testing.B) {
	key := testKey(b)
	public, h, r := key.PublicKey().Bytes(), exampleHeader(b), exampleRequest()
	for b.Loop() {
		sealed, _, err := Seal(public, h, "POST", r.Path, r)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := Open(key, sealed, "POST", r.Path); err != nil {
			b.Fatal(err)
		}
	}
}
