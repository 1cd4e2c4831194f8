package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/attest/ratls/session"
	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/receipt"
)

// sealedBench is a gateway on a software guest, and a client that has verified it over somebody else's connection.
type sealedBench struct {
	*bench
	key *envelope.Key
}

// measuredVector is the config of the software guests.
func measuredVector() []byte {
	measured, err := os.ReadFile(filepath.Join("..", "..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		panic(err)
	}
	return measured
}

// quoteOf has a software guest vouch for a gateway's keys.
func quoteOf(software *attesttest.Guest) func(evidence.Request) (*evidence.Evidence, error) {
	return func(r evidence.Request) (*evidence.Evidence, error) {
		s := &software.Statement
		s.Epoch, s.NotAfter, s.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
		return software.Attest(r.NonceRoot, r.TLSKey), nil
	}
}

func startSealed(t testing.TB, change func(*Config), tweaks ...func(*Gateway)) *sealedBench {
	t.Helper()
	software := attesttest.New(measuredVector(), time.Now())
	b := startBench(t, func(c *Config) {
		c.Quote = quoteOf(software)
		if change != nil {
			change(c)
		}
	}, tweaks...)
	result, err := ratls.Detached(t.Context(), b.http.Transport, b.url, ratls.Config{Policy: software.Policy(), Roots: software.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	key, err := envelope.KeyOf(result)
	if err != nil {
		t.Fatal(err)
	}
	return &sealedBench{b, key}
}

// sealed is one envelope on its way.
type sealed struct {
	request *http.Request
	body    []byte
	answer  *envelope.Answer
}

func (b *sealedBench) seal(t testing.TB, body string) *sealed {
	t.Helper()
	return b.sealAs(t, envelope.Request{Method: "POST", Path: "/v1/chat/completions", Body: []byte(body), Header: []envelope.Field{
		{Name: "chrysalis-client", Value: testClient}, {Name: "content-type", Value: "application/json"}}})
}

func (b *sealedBench) sealAs(t testing.TB, r envelope.Request) *sealed {
	t.Helper()
	body, answer, err := b.key.Seal(r, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b.around(t, r.Path, body, answer)
}

func (b *sealedBench) around(t testing.TB, path string, body []byte, answer *envelope.Answer) *sealed {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), envelope.Method, b.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", envelope.RequestType)
	request.Header.Set(envelope.KeyHeader, b.key.ID())
	return &sealed{request, body, answer}
}

// send sends the envelope and returns what came back around its answer.
func (b *sealedBench) send(t testing.TB, s *sealed) *http.Response {
	t.Helper()
	response, err := b.http.Do(s.request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// exchange sends an envelope and opens its answer.
func (b *sealedBench) exchange(t testing.TB, s *sealed) (*envelope.Response, string, error) {
	t.Helper()
	response := b.send(t, s)
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != envelope.ResponseType {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("got status %d and %s", response.StatusCode, text)
	}
	for name := range response.Header {
		if name == "Retry-After" || name == "Chrysalis-Ignored" || name == "Allow" {
			t.Errorf("header %s of the answer stands in the clear", name)
		}
	}
	opened, err := s.answer.Open(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(opened)
	return opened, string(text), err
}

// TestSealed: what is asked in an envelope goes the way of everything else, its receipt included.
func TestSealed(t *testing.T) {
	b := startSealed(t, nil)
	body := ask(`,"stream":true,"user":"x"`)
	opened, text, err := b.exchange(t, b.seal(t, body))
	if err != nil || opened.Status != 200 {
		t.Fatalf("got %d, %q, %v", opened.Status, text, err)
	}
	var content string
	events := answerEvents(t, text)
	for _, e := range events[:len(events)-2] {
		for _, c := range parseReply(t, e).Choices {
			content += c.Delta.Content
		}
	}
	if content != wholeText || events[len(events)-1] != "[DONE]" || parseReply(t, events[len(events)-2]).Chrysalis == nil {
		t.Errorf("got %q out of %q", content, events)
	}
	if want := []envelope.Field{{Name: "cache-control", Value: "no-store"}, {Name: "chrysalis-ignored", Value: "user"},
		{Name: "content-type", Value: "text/event-stream"}, {Name: "x-request-id", Value: opened.Header[3].Value}}; !equalFields(opened.Header, want) {
		t.Errorf("header inside: got %v, want %v", opened.Header, want)
	}
	recorded := b.keeper.await(t)
	if recorded.Request != sha256.Sum256([]byte(body)) || recorded.Usage != (receipt.Usage{Prompt: 14, Completion: 5}) {
		t.Errorf("recorded: %+v", recorded)
	}
	_, text, err = b.exchange(t, b.seal(t, ask("")))
	if r := parseReply(t, text); err != nil || r.Choices[0].Message.Content != wholeText || r.Chrysalis == nil {
		t.Errorf("in one piece: got %s (%v)", text, err)
	}
	opened, text, err = b.exchange(t, b.sealAs(t, envelope.Request{Method: "GET", Path: "/v1/models"}))
	if err != nil || opened.Status != 200 || !strings.Contains(text, `"tiny"`) {
		t.Errorf("models: got %d %s (%v)", opened.Status, text, err)
	}
}

func equalFields(got, want []envelope.Field) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] {
			return false
		}
	}
	return true
}

// TestSealedRefusals: a refusal of what was opened is sealed, and the outer header gives the inner request nothing.
func TestSealedRefusals(t *testing.T) {
	b := startSealed(t, nil)
	for _, tt := range []struct {
		name, code string
		status     int
		request    envelope.Request
	}{
		{"a field that is refused", "", 400, envelope.Request{Method: "POST", Path: "/v1/chat/completions", Body: []byte(ask(`,"id_slot":1`)),
			Header: []envelope.Field{{Name: "chrysalis-client", Value: testClient}, {Name: "content-type", Value: "application/json"}}}},
		{"no client inside", "no_client", 402, envelope.Request{Method: "POST", Path: "/v1/chat/completions", Body: []byte(ask("")),
			Header: []envelope.Field{{Name: "content-type", Value: "application/json"}}}},
		{"no type inside", "content_type", 415, envelope.Request{Method: "POST", Path: "/v1/chat/completions", Body: []byte(ask(""))}},
		{"another method inside", "method", 405, envelope.Request{Method: "GET", Path: "/v1/chat/completions"}},
		{"a body where there is none", "", 400, envelope.Request{Method: "GET", Path: "/v1/models", Body: []byte("x")}},
		{"an envelope in an envelope", "content_type", 415, envelope.Request{Method: "POST", Path: "/v1/chat/completions", Body: []byte("x"),
			Header: []envelope.Field{{Name: "content-type", Value: envelope.RequestType}}}},
		{"no such path", "no_such_path", 404, envelope.Request{Method: "GET", Path: "/v1/nothing"}},
		{"a query where there is none", "", 400, envelope.Request{Method: "GET", Path: "/v1/models", Query: "a=b"}},
		{"a report without a nonce", "", 400, envelope.Request{Method: "GET", Path: api.Report, Query: "model=tiny"}},
		{"a body beyond the bound", "too_large", 413, envelope.Request{Method: "POST", Path: "/v1/chat/completions",
			Body:   []byte(ask(`,"user":"` + strings.Repeat("x", 4096) + `"`)),
			Header: []envelope.Field{{Name: "chrysalis-client", Value: testClient}, {Name: "content-type", Value: "application/json"}}}},
	} {
		s := b.sealAs(t, tt.request)
		s.request.Header.Set("Chrysalis-Client", testClient)
		opened, text, err := b.exchange(t, s)
		if err != nil || opened.Status != tt.status || tt.code != "" && !strings.Contains(text, `"`+tt.code+`"`) {
			t.Errorf("%s: got %d %s (%v), want %d with %q inside", tt.name, opened.Status, text, err, tt.status, tt.code)
		}
	}
	if asked := b.engine.asked(); len(asked) != 0 {
		t.Errorf("the engine was asked %q", asked)
	}
}

// TestEnvelopesRefused: each of these is answered in the clear, and nothing of it reaches the engine.
func TestEnvelopesRefused(t *testing.T) {
	b := startSealed(t, nil)
	change := func(f func(*sealed)) *sealed {
		s := b.seal(t, ask(""))
		f(s)
		return s
	}
	body := func(f func([]byte) []byte) *sealed {
		s := b.seal(t, ask(""))
		return b.around(t, "/v1/chat/completions", f(bytes.Clone(s.body)), s.answer)
	}
	evidence := b.sealAs(t, envelope.Request{Method: "GET", Path: session.EvidencePath, Query: "nonce=" + strings.Repeat("5a", 32)})
	late, answer, err := b.key.Seal(envelope.Request{Method: "GET", Path: "/v1/models"}, time.Now().Add(-2*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, code string
		status     int
		sealed     *sealed
	}{
		{"another key's id", "rekey", 421, change(func(s *sealed) { s.request.Header.Set(envelope.KeyHeader, "0011223344556677") })},
		{"an id that is none", "envelope", 400, change(func(s *sealed) { s.request.Header.Set(envelope.KeyHeader, "x"+b.key.ID()[1:]) })},
		{"an id in capitals", "envelope", 400, change(func(s *sealed) { s.request.Header.Set(envelope.KeyHeader, "ABCDEF0123456789") })},
		{"no id", "envelope", 400, change(func(s *sealed) { s.request.Header.Del(envelope.KeyHeader) })},
		{"two ids", "envelope", 400, change(func(s *sealed) { s.request.Header.Add(envelope.KeyHeader, b.key.ID()) })},
		{"another path", "envelope", 400, change(func(s *sealed) { s.request.URL.Path = "/v1/models" })},
		{"another method", "method", 405, change(func(s *sealed) { s.request.Method = "PUT" })},
		{"a query", "", 400, change(func(s *sealed) { s.request.URL.RawQuery = "x=1" })},
		{"no length", "framing", 411, change(func(s *sealed) { s.request.ContentLength = -1 })},
		{"coded", "encoding", 415, change(func(s *sealed) { s.request.Header.Set("Content-Encoding", "gzip") })},
		{"the type of something else", "content_type", 415, change(func(s *sealed) { s.request.Header.Set("Content-Type", "application/octet-stream") })},
		{"a changed byte", "envelope", 400, body(func(b []byte) []byte { b[len(b)-1]++; return b })},
		{"another key in the header", "envelope", 400, body(func(b []byte) []byte { b[14]++; return b })},
		{"another epoch", "envelope", 400, body(func(b []byte) []byte { b[29]++; return b })},
		{"another instance", "envelope", 400, body(func(b []byte) []byte { b[30]++; return b })},
		{"cut", "envelope", 400, body(func(b []byte) []byte { return b[:len(b)-1] })},
		{"empty", "envelope", 400, body(func([]byte) []byte { return nil })},
		{"too large", "too_large", 413, body(func([]byte) []byte { return make([]byte, 128<<10) })},
		{"evidence", "", 400, evidence},
		{"old", "envelope_window", 400, b.around(t, "/v1/models", late, answer)},
	} {
		response := b.send(t, tt.sealed)
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != tt.status || tt.code != "" && !strings.Contains(string(text), `"`+tt.code+`"`) {
			t.Errorf("%s: got %d %s (%v), want %d with %q", tt.name, response.StatusCode, text, err, tt.status, tt.code)
		}
	}
	s := b.seal(t, ask(""))
	if _, _, err := b.exchange(t, s); err != nil {
		t.Fatal(err)
	}
	again := b.send(t, b.around(t, "/v1/chat/completions", s.body, s.answer))
	if text, _ := io.ReadAll(again.Body); again.StatusCode != 409 || !strings.Contains(string(text), "envelope_replayed") {
		t.Errorf("sent again: got %d %s, want 409", again.StatusCode, text)
	}
	if asked := b.engine.asked(); len(asked) != 1 {
		t.Errorf("the engine was asked %d times, want once", len(asked))
	}
}

// TestSealedCut: an answer that the guest breaks off, for whatever reason, is never whole.
func TestSealedCut(t *testing.T) {
	b := startSealed(t, nil, func(g *Gateway) { g.waits.engine = 200 * time.Millisecond })
	b.engine.set(func(w *engineWriter) {
		w.begin(14)
		w.text("Os")
		w.conn()
	})
	// The engine died: the answer is whole, and says so.
	_, text, err := b.exchange(t, b.seal(t, ask(`,"stream":true`)))
	if err != nil || !strings.Contains(text, "engine_lost") || strings.Contains(text, "[DONE]") {
		t.Errorf("engine lost: got %q, %v", text, err)
	}
	s := b.seal(t, ask(""))
	s.request.URL.Host = attesttest.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = b.gateway.unseal(w, r, http.HandlerFunc(giveUp)) }), b.gateway.attested.TLSConfig(), b.gateway.attested.ConnContext)
	response := b.send(t, s)
	opened, err := s.answer.Open(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(opened); !errors.Is(err, envelope.ErrCut) || string(text) != "half" {
		t.Errorf("a handler that gave up: got %q, %v; want half and ErrCut", text, err)
	}
}

// giveUp answers half.
func giveUp(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "half")
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// TestSealedLeave: a client that leaves a sealed answer ends it at the engine, and what was computed is recorded.
func TestSealedLeave(t *testing.T) {
	b := startSealed(t, nil)
	gone := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		w.begin(14)
		for {
			select {
			case <-w.gone:
				close(gone)
				return
			case <-time.After(5 * time.Millisecond):
				w.text(" word")
			}
		}
	})
	s := b.seal(t, ask(`,"stream":true`))
	ctx, cancel := context.WithCancel(t.Context())
	s.request = s.request.WithContext(ctx)
	response := b.send(t, s)
	opened, err := s.answer.Open(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(opened, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("the engine goes on")
	}
	if r := b.keeper.await(t); r.Outcome != receipt.Cut || r.Usage.Completion == 0 {
		t.Errorf("recorded: %+v, want a cut answer", r)
	}
}

// TestSealedStreams: each event arrives when it is said, not when the answer ends.
func TestSealedStreams(t *testing.T) {
	b := startSealed(t, nil)
	said := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		w.begin(14)
		w.text("first")
		<-said
		w.end(14, 2)
	})
	s := b.seal(t, ask(`,"stream":true`))
	response := b.send(t, s)
	opened, err := s.answer.Open(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	read := ""
	for !strings.Contains(read, "first") {
		piece := make([]byte, 512)
		n, err := opened.Read(piece)
		if read += string(piece[:n]); err != nil {
			t.Fatalf("got %q, %v", read, err)
		}
	}
	close(said)
	if rest, err := io.ReadAll(opened); err != nil || !strings.Contains(string(rest), "[DONE]") {
		t.Errorf("the rest: got %q, %v", rest, err)
	}
}

// TestSealedCanary: nothing of a sealed prompt is in what travels or in a log.
func TestSealedCanary(t *testing.T) {
	b := startSealed(t, nil)
	s := b.seal(t, ask(""))
	response := b.send(t, s)
	wire, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"request": string(s.body), "answer": string(wire), "log": b.log.String()} {
		for _, canary := range []string{"canary-prompt", "answer is", testClient, "tiny"} {
			if strings.Contains(text, canary) {
				t.Errorf("the %s has %q in it", name, canary)
			}
		}
	}
}

// TestSealedByMany: many clients at once, each with its own answer.
func TestSealedByMany(t *testing.T) {
	b := startSealed(t, nil)
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for range 3 {
				word := rand.Text()
				s := b.seal(t, ask(`,"user":"`+word+`"`))
				response, err := b.http.Do(s.request)
				if err != nil {
					t.Error(err)
					return
				}
				opened, err := s.answer.Open(response.Body)
				if err != nil {
					t.Error(err)
					return
				}
				if text, err := io.ReadAll(opened); err != nil || !strings.Contains(string(text), `answer is`) {
					t.Errorf("got %s, %v", text, err)
				}
				response.Body.Close()
			}
		})
	}
	wait.Wait()
}
