package client_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/envelope"
)

func sealTo(t testing.TB, g *clienttest.Guest, change ...func(*ratls.Config)) *client.Sealed {
	t.Helper()
	config := ratls.Config{Policy: g.Policy(), Roots: g.Roots()}
	for _, c := range change {
		c(&config)
	}
	s, err := client.NewSealed(g.URL, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

const sealedBody = `{"model":"tiny","messages":[],"stream":true}`

func ask(t testing.TB, s *client.Sealed, body string) (*http.Response, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://anywhere/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Chrysalis-Client", payer.String())
	request.Header.Set("Connection", "keep-alive")
	response, err := s.RoundTrip(request)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response, string(text), err
}

func TestSealedTransport(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	s := sealTo(t, g)
	if s.Result() != nil {
		t.Error("a result before anything was verified")
	}
	for range 3 {
		response, text, err := ask(t, s, sealedBody)
		if err != nil || response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" || !strings.HasSuffix(text, "data: [DONE]\n\n") {
			t.Fatalf("got %v, %q, %v", response, text, err)
		}
	}
	if p := g.Prompts(); len(p) != 3 || string(p[0]) != sealedBody {
		t.Errorf("the guest got %q", p)
	}
	if r, err := s.Verify(t.Context()); err != nil || r != s.Result() || r.HPKEKey() == nil {
		t.Errorf("verified: %v", err)
	}
	g.Spoil = func(_ []byte, r *clienttest.Reply) { r.Refusal = "no" }
	if response, text, err := ask(t, s, sealedBody); err != nil || response.StatusCode != 400 || !strings.Contains(text, `"no"`) {
		t.Errorf("a sealed refusal: got %v, %q, %v", response, text, err)
	}
}

// TestSealedQuery: a query reaches the guest, and nothing around the envelope says it; a path goes as it was written.
func TestSealedQuery(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	var around []string
	g.Around = func(_ http.ResponseWriter, r *http.Request) bool { around = append(around, r.RequestURI); return false }
	g.Proof = func(target string) string { return target }
	s := sealTo(t, g)
	for _, target := range []string{"/v1/signature/x?model=a%20b&n=1", "/v1/receipts/x"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://anywhere"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(response.Body); err != nil || string(text) != target {
			t.Errorf("the guest was asked for %q (%v), want %q", text, err, target)
		}
		response.Body.Close()
	}
	if fmt.Sprint(around) != "[/v1/signature/x /v1/receipts/x]" {
		t.Errorf("around the envelopes: %q", around)
	}
}

// TestSealedTransportRefuses: nothing is sent to a guest that is not what the policy accepts.
func TestSealedTransportRefuses(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	other := clienttest.New(t, clienttest.Measured(t, clienttest.Free))
	asked := 0
	g.Around = func(http.ResponseWriter, *http.Request) bool { asked++; return false }
	s := sealTo(t, g, func(c *ratls.Config) { c.Policy, c.Roots = other.Policy(), other.Roots() })
	if _, _, err := ask(t, s, sealedBody); !errors.Is(err, check.ErrRejected) || !errors.Is(err, client.ErrNotBegun) || asked != 0 {
		t.Errorf("another guest: got %v after %d envelopes, want it rejected and none", err, asked)
	}
	for _, url := range []string{"", "ftp://x", "https://", "https://x/path", "https://user@x", "https://x?y"} {
		if _, err := client.NewSealed(url, ratls.Config{}); err == nil {
			t.Errorf("URL %q: got no error", url)
		}
	}
	request, _ := http.NewRequest(http.MethodGet, "http://anywhere/v1/models?"+strings.Repeat("x", 1024), nil)
	if _, err := sealTo(t, g).RoundTrip(request); !errors.Is(err, client.ErrUnsealed) || asked != 0 {
		t.Errorf("a query that no envelope takes: got %v after %d envelopes, want none", err, asked)
	}
}

// TestSealedTransportRekeys: a guest that lost its key is verified anew and asked again; one that goes on losing it is not asked for ever.
func TestSealedTransportRekeys(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	var denies, seen atomic.Int32
	ids := make(chan string, 16)
	g.Around = func(w http.ResponseWriter, r *http.Request) bool {
		seen.Add(1)
		ids <- r.Header.Get(envelope.KeyHeader)
		if denies.Add(-1) < 0 {
			return false
		}
		clienttest.Rekey(w)
		return true
	}
	s := sealTo(t, g)
	denies.Store(1)
	if _, text, err := ask(t, s, sealedBody); err != nil || !strings.Contains(text, "[DONE]") || seen.Load() != 2 {
		t.Errorf("lost once: got %q, %v after %d envelopes, want 2", text, err, seen.Load())
	}
	seen.Store(0)
	denies.Store(100)
	if _, _, err := ask(t, s, sealedBody); !errors.Is(err, check.ErrUnavailable) || !errors.Is(err, client.ErrNotBegun) || seen.Load() != 3 {
		t.Errorf("lost for good: got %v after %d envelopes, want it unavailable after 3", err, seen.Load())
	}
}

// TestSealedTransportRenews: before its key's time is over the guest is verified anew, and nothing is sealed to the old key.
func TestSealedTransportRenews(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	var ahead atomic.Int64
	s := sealTo(t, g, func(c *ratls.Config) { c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } })
	first, err := s.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(30 * time.Minute))
	if again, err := s.Verify(t.Context()); err != nil || again != first {
		t.Errorf("within the key's time: verified anew (%v)", err)
	}
	ahead.Store(int64(time.Until(first.NotAfter()) - time.Minute))
	if again, err := s.Verify(t.Context()); err != nil || again == first {
		t.Errorf("at the end of the key's time: not verified anew (%v)", err)
	}
}

// TestRotationUnderLoad: a guest replaces its key and lets go of the old one while many ask, and nobody notices.
func TestRotationUnderLoad(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	s := sealTo(t, g)
	first, err := s.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var denied atomic.Int32
	g.Around = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get(envelope.KeyHeader) == fmt.Sprintf("%.8x", sha256.Sum256(first.HPKEKey())) && g.KeysAhead.Load() > 0 {
			denied.Add(1) // the guest says so itself
		}
		return false
	}
	var wait sync.WaitGroup
	var asked atomic.Int32
	for range 8 {
		wait.Go(func() {
			for range 12 {
				if _, text, err := ask(t, s, sealedBody); err != nil || !strings.HasSuffix(text, "data: [DONE]\n\n") {
					t.Errorf("got %q, %v", text, err)
				}
				if asked.Add(1) == 40 {
					g.KeysAhead.Store(clienttest.RotateKeys)
				}
			}
		})
	}
	wait.Wait()
	if now := s.Result(); now.Epoch() != first.Epoch()+1 || denied.Load() == 0 {
		t.Errorf("epoch %d after %d, and %d envelopes for the old key: want the next one, and some", now.Epoch(), first.Epoch(), denied.Load())
	}
	if n := len(g.Prompts()); n != 96 {
		t.Errorf("the guest answered %d times, want each of 96 requests once", n)
	}
}

// TestSealedTransportBreaks: what is not the guest's whole answer never reads as one, and tells whether the guest may have begun.
func TestSealedTransportBreaks(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	s := sealTo(t, g)
	if _, err := s.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		around   func(http.ResponseWriter, *http.Request) bool
		class    error
		notBegun bool
	}{
		{"in the clear", func(w http.ResponseWriter, _ *http.Request) bool { io.WriteString(w, "{}"); return true }, check.ErrUnavailable, false},
		{"an error on the way", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(502); return true }, check.ErrUnavailable, false},
		{"busy", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true }, check.ErrUnavailable, true},
		{"misdirected by a balancer", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(421); return true }, check.ErrUnavailable, false},
		{"cut before a word", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, check.ErrUnavailable, false},
		{"of the right type, and cut", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", envelope.ResponseType)
			w.Write(make([]byte, 40))
			return true
		}, check.ErrUnavailable, false},
		{"of the right type, and forged", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", envelope.ResponseType)
			w.Write(append(append(make([]byte, 32), 0x41, 0x10), make([]byte, 512)...))
			return true
		}, check.ErrRejected, false},
	} {
		g.Around = tt.around
		if _, text, err := ask(t, s, sealedBody); !errors.Is(err, tt.class) || errors.Is(err, client.ErrNotBegun) != tt.notBegun {
			t.Errorf("%s: got %q, %v; want %v, not begun: %t", tt.name, text, err, tt.class, tt.notBegun)
		}
	}
	if len(g.Prompts()) != 0 {
		t.Error("a prompt has come through")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	nobody, err := client.NewSealed("https://"+l.Addr().String(), ratls.Config{Policy: g.Policy(), Roots: g.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(t, nobody, sealedBody); !errors.Is(err, client.ErrNotBegun) || !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("nobody there: got %v", err)
	}
}

// watched asks, and returns what a watched answer lets through.
func watched(t testing.TB, g *clienttest.Guest, s *client.Sealed, body string) (string, *proof.Watched, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://anywhere/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Chrysalis-Client", payer.String())
	response, result, err := s.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	w := proof.Watch(api.ChatCompletions, response.Body, strings.Contains(body, "stream"), []byte(body), payer, result)
	var passed strings.Builder
	for {
		event, err := w.Next()
		passed.Write(event)
		if err == io.EOF {
			return passed.String(), w, nil
		}
		if err != nil {
			return passed.String(), w, err
		}
	}
}

// TestWatch: an answer passes as it came once it is proven, and an end that is not proven does not.
func TestWatch(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	s := sealTo(t, g)
	whole := strings.Replace(sealedBody, `,"stream":true`, "", 1)
	for _, body := range []string{sealedBody, whole} {
		passed, w, err := watched(t, g, s, body)
		if err != nil || w.Answer() == nil || w.Answer().Content != "The capital is \x1b[1mOslo." || !strings.Contains(passed, "Oslo") ||
			strings.Contains(passed, "[DONE]") != (body == sealedBody) {
			t.Errorf("%s: passed %q, %v", body, passed, err)
		}
	}
	for _, tt := range []struct {
		name, want string
		spoil      func(*clienttest.Reply)
	}{
		{"another key", "signature is not by key", func(r *clienttest.Reply) { r.ReceiptKey = r.ClaimKey }},
		{"another request", "request hash", func(r *clienttest.Reply) { r.Receipt.Request[0]++ }},
		{"another text", "response hash", func(r *clienttest.Reply) { r.Receipt.Response = [32]byte{1} }},
		{"another payer's charge", "verifying charge", func(r *clienttest.Reply) { r.Charge.Contract.Account[0]++ }},
	} {
		g.Spoil = func(_ []byte, r *clienttest.Reply) { tt.spoil(r) }
		passed, w, err := watched(t, g, s, sealedBody)
		if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.want) || strings.Contains(passed, "[DONE]") || w.Answer() != nil {
			t.Errorf("%s, streamed: passed %q, %v", tt.name, passed, err)
		}
		if passed, _, err := watched(t, g, s, whole); !errors.Is(err, check.ErrRejected) || passed != "" {
			t.Errorf("%s, in one piece: passed %q, %v", tt.name, passed, err)
		}
	}
	for _, tt := range []struct {
		name  string
		edit  func(events []string) []string
		class error
		cut   bool
	}{
		{"no end mark", func(e []string) []string { return e[:len(e)-1] }, check.ErrUnavailable, true},
		{"no proof", func(e []string) []string { return slices.Delete(e, len(e)-2, len(e)-1) }, check.ErrRejected, false},
		{"neither", func(e []string) []string { return e[:len(e)-2] }, check.ErrUnavailable, true},
		{"an event after its end", func(e []string) []string { return append(e, e[0]) }, check.ErrRejected, false},
		{"no event", func(e []string) []string { return append([]string{"hello"}, e...) }, check.ErrRejected, false},
		{"an event without end", func(e []string) []string { return append([]string{"data: " + strings.Repeat("x", 300<<10)}, e...) }, check.ErrRejected, false},
	} {
		g.Spoil = func(_ []byte, r *clienttest.Reply) { r.Events = tt.edit }
		passed, _, err := watched(t, g, s, sealedBody)
		var cut *client.Cut
		if !errors.Is(err, tt.class) || errors.As(err, &cut) != tt.cut {
			t.Errorf("%s: passed %q, %v; want %v, cut: %t", tt.name, passed, err, tt.class, tt.cut)
		}
	}
}
