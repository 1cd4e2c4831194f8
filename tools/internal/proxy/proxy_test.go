package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/tools/internal/receipts"
)

var payer = ton.Address{Account: [32]byte{0xc1}}

func newGuest(t *testing.T) *clienttest.Guest {
	t.Helper()
	measured, err := os.ReadFile("../../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	return clienttest.New(t, measured)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a proxy that listens.
type running struct {
	*Proxy
	url, address string
	log          *lockedBuffer
	receipts     string
}

// start runs a proxy whose policy is that of the first guest.
func start(t *testing.T, change func(*Config), guests ...*clienttest.Guest) *running {
	t.Helper()
	roots := guests[0].Roots()
	for _, g := range guests[1:] {
		roots.VTPM.AddCert(g.Hardware.(*attesttest.Guest).Root)
	}
	c := Config{
		Attest: ratls.Config{Policy: guests[0].Policy(), Roots: roots},
		Payer:  func(config.Measured) (ton.Address, error) { return payer, nil },
	}
	for _, g := range guests {
		c.Guests = append(c.Guests, g.URL)
	}
	if change != nil {
		change(&c)
	}
	return startAt(t, c)
}

// startAt runs a proxy.
func startAt(t *testing.T, c Config) *running {
	t.Helper()
	r := &running{log: &lockedBuffer{}, receipts: filepath.Join(t.TempDir(), "receipts")}
	c.Receipts, c.Log = r.receipts, slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Proxy, err = New(c); err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = l.Addr().String()
	r.url = "http://" + r.address
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

const (
	streamed = `{"model":"tiny","messages":[{"role":"user","content":"canary"}],"stream":true}`
	inOne    = `{"model":"tiny","messages":[{"role":"user","content":"canary"}]}`
)

func (r *running) request(t *testing.T, method, path, body string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer anything")
	return request
}

func do(t *testing.T, request *http.Request) (*http.Response, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func (r *running) post(t *testing.T, body string) (*http.Response, string) {
	t.Helper()
	return do(t, r.request(t, http.MethodPost, "/v1/chat/completions", body))
}

// TestAnswers: a plain client gets the guest's answer, learns whose it is, and the proof is kept without a word of what was said.
func TestAnswers(t *testing.T) {
	g := newGuest(t)
	r := start(t, nil, g)
	for _, body := range []string{streamed, inOne} {
		response, text := r.post(t, body)
		if response.StatusCode != 200 || !strings.Contains(text, "Oslo") || strings.Contains(text, "[DONE]") != (body == streamed) {
			t.Errorf("%s: got %d %s", body, response.StatusCode, text)
		}
		h := response.Header
		if h.Get("Chrysalis-Guest") != g.URL || h.Get("Chrysalis-Release") != "software" || h.Get("Chrysalis-Platform") != "vtpm" ||
			len(h.Get("Chrysalis-Machine")) != 64 || len(h.Get("Chrysalis-Config")) != 64 {
			t.Errorf("headers: %v", h)
		}
	}
	if got := g.Prompts(); len(got) != 2 || string(got[0]) != streamed {
		t.Errorf("the guest got %q", got)
	}
	files, err := filepath.Glob(filepath.Join(r.receipts, "*", "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("kept %q (%v), want two proofs", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var k receipts.Kept
	if err := json.Unmarshal(text, &k); err != nil || k.Contract != payer.String() || len(k.Receipt) < 440 || k.Charge == "" || k.Guest != g.URL {
		t.Errorf("kept: %s (%v)", text, err)
	}
	for _, canary := range []string{"canary", "Oslo", "anything"} {
		if strings.Contains(string(text), canary) || strings.Contains(r.log.String(), canary) {
			t.Errorf("%q was written down", canary)
		}
	}
	if response, text := do(t, r.request(t, http.MethodGet, "/v1/models", "")); response.StatusCode != 200 || !strings.Contains(text, "data") {
		t.Errorf("models: got %d %s", response.StatusCode, text)
	}
	g.Spoil = func(_ []byte, reply *clienttest.Reply) { reply.Refusal = "no such field" }
	if response, text := r.post(t, streamed); response.StatusCode != 400 || !strings.Contains(text, "no such field") {
		t.Errorf("a guest's refusal: got %d %s", response.StatusCode, text)
	}
}

// TestHealth: the proxy is well while a guest is accepted.
func TestHealth(t *testing.T) {
	g := newGuest(t)
	r := start(t, nil, g)
	for _, tt := range []struct {
		err    error
		status int
		says   string
	}{{nil, 200, `{"status":"ok"}`}, {attest.ErrRejected, 503, "/status says why"}} {
		r.guests[0].update(func(s *state) { s.err = tt.err })
		if response, text := do(t, r.request(t, http.MethodGet, "/health", "")); response.StatusCode != tt.status || !strings.Contains(text, tt.says) {
			t.Errorf("%v: got %d %s, want %d and %q", tt.err, response.StatusCode, text, tt.status, tt.says)
		}
	}
}

// TestNotProven: an answer whose proof does not hold has no end, and in one piece does not come at all.
func TestNotProven(t *testing.T) {
	g := newGuest(t)
	r := start(t, nil, g)
	g.Spoil = func(_ []byte, reply *clienttest.Reply) { reply.Receipt.Response = [32]byte{1} }
	if _, text := r.post(t, streamed); strings.Contains(text, "[DONE]") || !strings.Contains(text, `"not_proven"`) {
		t.Errorf("streamed: got %s", text)
	}
	if response, text := r.post(t, inOne); response.StatusCode != 502 || strings.Contains(text, "Oslo") || !strings.Contains(text, `"not_proven"`) {
		t.Errorf("in one piece: got %d %s", response.StatusCode, text)
	}
	if s := r.guests[0].status(); s.unproven != 2 || s.answered != 0 || !strings.Contains(r.log.String(), "NOT PROVEN") {
		t.Errorf("%d unproven and %d answered, log: %s", s.unproven, s.answered, r.log.String())
	}
	g.Spoil = func(_ []byte, reply *clienttest.Reply) {
		reply.Events = func(e []string) []string { return e[:1] }
	}
	if _, text := r.post(t, streamed); strings.Contains(text, "[DONE]") || !strings.Contains(text, `"answer_cut"`) {
		t.Errorf("cut: got %s", text)
	}
}

// TestRejectedGuest: a guest that is not what the policy accepts gets nothing, is named loudly, and with nobody else nothing starts.
func TestRejectedGuest(t *testing.T) {
	good, bad := newGuest(t), newGuest(t)
	bad.Hardware.(*attesttest.Guest).Boot[9].Hashed = []byte("another command line")
	r := start(t, nil, good, bad)
	for range 6 {
		if response, _ := r.post(t, inOne); response.StatusCode != 200 || response.Header.Get("Chrysalis-Guest") != good.URL {
			t.Errorf("got %d by %q, want the accepted guest", response.StatusCode, response.Header.Get("Chrysalis-Guest"))
		}
	}
	if len(bad.Prompts()) != 0 || !strings.Contains(r.log.String(), "REJECTED") {
		t.Errorf("the rejected guest got %q; log: %s", bad.Prompts(), r.log.String())
	}
	_, page := do(t, r.request(t, http.MethodGet, "/", ""))
	if !strings.Contains(page, "rejected") || !strings.Contains(page, bad.URL) || !strings.Contains(page, "verifying evidence: boot-log-data") {
		t.Errorf("page: %s", page)
	}
	alone, err := New(Config{Guests: []string{bad.URL}, Attest: ratls.Config{Policy: good.Policy(), Roots: bad.Roots()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Verify(t.Context()); !errors.Is(err, attest.ErrRejected) {
		t.Errorf("no guest is accepted: got %v", err)
	}
}

// TestElsewhere: what one guest has not begun with another is asked, and what it may have begun with nobody.
func TestElsewhere(t *testing.T) {
	for _, tt := range []struct {
		name   string
		around func(w http.ResponseWriter, r *http.Request) bool
		status int // of ten requests' first that does not get an answer; 200: all get one
		asked  int // of the second guest, at least
	}{
		{"it says that it is busy", func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true }, 200, 10},
		{"it lost its key for good", func(w http.ResponseWriter, _ *http.Request) bool { clienttest.Rekey(w); return true }, 200, 10},
		{"it breaks off", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, 502, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, second := newGuest(t), newGuest(t)
			r := start(t, nil, first, second)
			first.Around = tt.around
			worst := 200
			for range 10 {
				response, _ := r.post(t, inOne)
				worst = max(worst, response.StatusCode)
			}
			if n := len(second.Prompts()); worst != tt.status || n < tt.asked {
				t.Errorf("worst status %d and %d prompts to the other guest, want %d and at least %d", worst, n, tt.status, tt.asked)
			}
			if len(first.Prompts()) != 0 {
				t.Error("the first guest got a prompt")
			}
		})
	}
}

// TestProofElsewhere: the proof of an answer is asked of each guest until one has it.
func TestProofElsewhere(t *testing.T) {
	guests := []*clienttest.Guest{newGuest(t), newGuest(t), newGuest(t)}
	r := start(t, nil, guests...)
	guests[1].Proof = func(path string) string {
		if path == "/v1/receipts/chatcmpl-1" {
			return "the receipt"
		}
		return ""
	}
	for range 5 {
		if response, text := do(t, r.request(t, http.MethodGet, "/v1/receipts/chatcmpl-1", "")); response.StatusCode != 200 || text != "the receipt" ||
			response.Header.Get("Chrysalis-Guest") != guests[1].URL {
			t.Errorf("got %d %s of %s", response.StatusCode, text, response.Header.Get("Chrysalis-Guest"))
		}
		if response, text := do(t, r.request(t, http.MethodGet, "/v1/receipts/chatcmpl-2", "")); response.StatusCode != 404 || !strings.Contains(text, "no_such_answer") {
			t.Errorf("an answer that nobody has given: got %d %s", response.StatusCode, text)
		}
	}
}

// TestQueries: a query goes to the guest in the envelope, and a path as it was written.
func TestQueries(t *testing.T) {
	g := newGuest(t)
	r := start(t, nil, g)
	var around []string
	g.Around = func(_ http.ResponseWriter, r *http.Request) bool { around = append(around, r.RequestURI); return false }
	g.Proof = func(target string) string { return target }
	for _, tt := range []struct {
		target string
		status int
		want   string
	}{
		{"/v1/signature/x?model=a%20b&n=1", 200, "/v1/signature/x?model=a%20b&n=1"},
		{"/v1/receipts/x", 200, "/v1/receipts/x"},
		{"/v1/receipts/x?", 200, "/v1/receipts/x"},
		{"/v1/signature%2Fx?a", 404, ""},
		{"/v1/models%3Fa", 404, ""},
		{"/v1/signature/x?" + strings.Repeat("y", 1024), 400, "no envelope takes it"},
		{"/v2/models?a", 404, "no_such_path"},
	} {
		if response, text := do(t, r.request(t, http.MethodGet, tt.target, "")); response.StatusCode != tt.status || tt.want != "" && !strings.Contains(text, tt.want) {
			t.Errorf("%.60s: got %d %s, want %d %s", tt.target, response.StatusCode, text, tt.status, tt.want)
		}
	}
	if want := "[/v1/signature/x /v1/receipts/x /v1/receipts/x /v1/signature%2Fx /v1/models%3Fa]"; fmt.Sprint(around) != want {
		t.Errorf("around the envelopes: %q, want %s", around, want)
	}
}

// TestBalance: a guest that is busy with an answer gets the next question last.
func TestBalance(t *testing.T) {
	first, second := newGuest(t), newGuest(t)
	r := start(t, nil, first, second)
	hold := make(chan struct{})
	first.Spoil = func(_ []byte, reply *clienttest.Reply) { reply.Hold = hold }
	var held *http.Response
	for range 2 { // one of them reaches the first guest
		response, err := http.DefaultClient.Do(r.request(t, http.MethodPost, "/v1/chat/completions", streamed))
		if err != nil {
			t.Fatal(err)
		}
		if response.Header.Get("Chrysalis-Guest") == first.URL {
			held = response
			break
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	if held == nil {
		t.Fatal("the first guest was not asked")
	}
	for range 5 {
		if response, _ := r.post(t, inOne); response.Header.Get("Chrysalis-Guest") != second.URL {
			t.Errorf("asked %s, want the guest that is free", response.Header.Get("Chrysalis-Guest"))
		}
	}
	close(hold)
	io.Copy(io.Discard, held.Body)
	held.Body.Close()
}

// TestCancel: a client that leaves ends its answer at the guest. Events come when they are said.
func TestCancel(t *testing.T) {
	g := newGuest(t)
	r := start(t, nil, g)
	hold := make(chan struct{})
	defer close(hold)
	g.Spoil = func(_ []byte, reply *clienttest.Reply) {
		reply.Hold = hold // to the test's end: only its client can end the answer before
		reply.Events = func(e []string) []string { return e[:1] }
	}
	ctx, cancel := context.WithCancel(t.Context())
	response, err := http.DefaultClient.Do(r.request(t, http.MethodPost, "/v1/chat/completions", streamed).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || !strings.Contains(line, "The capital is") {
		t.Errorf("first event: %q, %v", line, err)
	}
	if n := r.guests[0].status().inFlight; n != 1 {
		t.Errorf("%d answers under way, want 1", n)
	}
	cancel()
	for deadline := time.Now().Add(10 * time.Second); r.guests[0].status().inFlight != 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the answer goes on without its client")
		}
	}
	if s := r.guests[0].status(); s.unproven != 0 || s.err != nil || strings.Contains(r.log.String(), "ERROR") {
		t.Errorf("the guest is blamed for a client that left: %d unproven, %v, %s", s.unproven, s.err, r.log.String())
	}
}

// TestLocalOnly: a page that was not named, and a name that was made to mean this machine, get nothing.
func TestLocalOnly(t *testing.T) {
	g := newGuest(t)
	r := start(t, func(c *Config) { c.Origins = []string{"http://localhost:3000"} }, g)
	_, port, _ := net.SplitHostPort(r.address)
	for _, tt := range []struct {
		name, host, origin, site string
		status                   int
	}{
		{"a program", "", "", "", 200},
		{"by another name of this machine", "localhost:" + port, "", "", 200},
		{"by IPv6", "[::1]:" + port, "", "", 200},
		{"a rebound name", "evil.example:" + port, "", "", 403},
		{"a rebound name with its own origin", "evil.example:" + port, "http://evil.example:" + port, "same-origin", 403},
		{"a name that begins like this machine's", "localhost.evil.example:" + port, "", "", 403},
		{"another port", "localhost:1", "", "", 403},
		{"no port", "localhost", "", "", 403},
		{"every address of this machine", "0.0.0.0:" + port, "", "", 403},
		{"another address of its loopback", "127.9.9.9:" + port, "", "", 200},
		{"an address in one number", "2130706433:" + port, "", "", 403},
		{"an address with places left out", "127.1:" + port, "", "", 403},
		{"an address in IPv6 that means this machine's", "[::ffff:127.0.0.1]:" + port, "", "", 200},
		{"a name with the root's dot", "localhost.:" + port, "", "", 403},
		{"a name that resolves to this machine", "localtest.me:" + port, "", "", 403},
		{"a user before the name", "evil.example@localhost:" + port, "", "", 403},
		{"two ports", "localhost:" + port + ":" + port, "", "", 403},
		{"a page that was named", "", "http://localhost:3000", "same-site", 200},
		{"a page on another port", "", "http://localhost:3001", "same-site", 403},
		{"a page of another site", "", "https://evil.example", "cross-site", 403},
		{"a page without origin", "", "null", "cross-site", 403},
		{"another site's picture", "", "", "cross-site", 403},
		{"the table's own page", "", "http://" + r.address, "same-origin", 200},
	} {
		request := r.request(t, http.MethodPost, "/v1/chat/completions", inOne)
		request.Host = tt.host
		for name, value := range map[string]string{"Origin": tt.origin, "Sec-Fetch-Site": tt.site} {
			if value != "" {
				request.Header.Set(name, value)
			}
		}
		before := len(g.Prompts())
		response, text := do(t, request)
		if response.StatusCode != tt.status || (len(g.Prompts()) > before) != (tt.status == 200) {
			t.Errorf("%s: got %d %s, want %d", tt.name, response.StatusCode, text, tt.status)
		}
		if allowed := response.Header.Get("Access-Control-Allow-Origin"); (allowed != "") != (tt.origin == "http://localhost:3000") {
			t.Errorf("%s: may be read by %q", tt.name, allowed)
		}
	}
	twice := r.request(t, http.MethodPost, "/v1/chat/completions", inOne)
	twice.Header["Origin"] = []string{"http://localhost:3000", "https://evil.example"}
	if response, text := do(t, twice); response.StatusCode != 403 || !strings.Contains(text, "2 origins") {
		t.Errorf("a page of two origins: got %d %s", response.StatusCode, text)
	}
	preflight := r.request(t, http.MethodOptions, "/v1/chat/completions", "")
	preflight.Header.Set("Origin", "http://localhost:3000")
	preflight.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
	if response, _ := do(t, preflight); response.StatusCode != 204 || response.Header.Get("Access-Control-Allow-Headers") != "authorization,content-type" {
		t.Errorf("preflight: got %d %v", response.StatusCode, response.Header)
	}
	for _, origin := range []string{"", "localhost:3000", "https://evil.example", "http://localhost:3000/", "http://localhost.evil.example", "null", "*", "http://u@localhost"} {
		if _, err := New(Config{Guests: []string{g.URL}, Origins: []string{origin}}); err == nil {
			t.Errorf("origin %q: got no error", origin)
		}
	}
}

// TestProtocols: HTTP/2 without TLS beside HTTP/1.1, and what is not there.
func TestProtocols(t *testing.T) {
	r := start(t, nil, newGuest(t))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r.request(t, http.MethodPost, "/v1/chat/completions", streamed))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || response.ProtoMajor != 2 || !strings.Contains(string(text), "[DONE]") {
		t.Errorf("HTTP/2: got %s %s (%v)", response.Proto, text, err)
	}
	for path, status := range map[string]int{"/": 200, "/status": 200, "/page.json": 404, "/status.json": 200, "/nothing": 404, "/v1/": 404, "/v2/models": 404} {
		if response, text := do(t, r.request(t, http.MethodGet, path, "")); response.StatusCode != status {
			t.Errorf("%s: got %d %s, want %d", path, response.StatusCode, text, status)
		}
	}
	if response, _ := r.post(t, strings.Repeat("x", maxRequestBytes+1)); response.StatusCode != 413 {
		t.Errorf("a body without end: got %d, want 413", response.StatusCode)
	}
}
