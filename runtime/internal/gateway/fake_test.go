package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/engines"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

const testClient = "0:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4"

// fakeKeeper counts in memory. Hooks make it fail.
type fakeKeeper struct {
	mu       sync.Mutex
	answers  []receipt.Answer
	vouched  int
	places   int
	onTake   error
	payer    Payer // who asked last
	keys     []fakeKey
	onRecord error
	before   func()        // Record does anything
	recorded chan struct{} // closed records may be awaited by tests
}

func (k *fakeKeeper) Reserve(_ context.Context, by Payer) (Place, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.payer = by
	if k.onTake != nil {
		return nil, k.onTake
	}
	k.places++
	return &fakePlace{k: k}, nil
}

func (k *fakeKeeper) SetKey(_ context.Context, contract ton.Address, shown, hash [32]byte, name [16]byte, most uint64) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = append(k.keys, fakeKey{contract, shown, hash, name, most})
	return 5, k.onTake
}

type fakeKey struct {
	contract    ton.Address
	shown, hash [32]byte
	name        [16]byte
	most        uint64
}

// signer is the keeper's key, which the statement names.
var signer = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

// Vouch signs for what was recorded.
func (k *fakeKeeper) Vouch(_ context.Context, id receipt.AnswerID, body [32]byte) (receipt.TextSignature, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.answers {
		if a.ID == id && k.onRecord == nil {
			k.vouched++
			return receipt.SignText(signer, a.Request, body)
		}
	}
	return receipt.TextSignature{}, errTest
}

type fakePlace struct {
	k    *fakeKeeper
	used bool
}

func (p *fakePlace) Record(_ context.Context, a receipt.Answer) (receipt.Proof, error) {
	if p.k.before != nil {
		p.k.before()
	}
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	p.used = true
	p.k.places--
	if p.k.onRecord != nil {
		return receipt.Proof{}, p.k.onRecord
	}
	p.k.answers = append(p.k.answers, a)
	p.k.recorded <- struct{}{}
	signed, err := receipt.Sign(signer, receipt.Receipt{Request: a.Request, Response: a.Response, Client: a.Client, Usage: a.Usage, Outcome: a.Outcome})
	return receipt.Proof{Receipt: signed, Charge: &claim.Body{2}}, err
}

func (p *fakePlace) Release() {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	if !p.used {
		p.used = true
		p.k.places--
	}
}

func (k *fakeKeeper) state() (answers []receipt.Answer, places int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]receipt.Answer(nil), k.answers...), k.places
}

// await returns the only answer that was recorded.
func (k *fakeKeeper) await(t *testing.T) receipt.Answer {
	t.Helper()
	select {
	case <-k.recorded:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was recorded")
	}
	answers, _ := k.state()
	if len(answers) != 1 {
		t.Fatalf("%d answers were recorded, want 1", len(answers))
	}
	return answers[0]
}

// fakeQuoter makes evidence that holds nothing but what it was asked for.
type fakeQuoter struct {
	mu    sync.Mutex
	asked []evidence.Request
	err   error
}

func (q *fakeQuoter) quote(r evidence.Request) (*evidence.Evidence, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = append(q.asked, r)
	if q.err != nil {
		return nil, q.err
	}
	s := evidence.Statement{ReceiptKey: pubkey.Of(signer), NonceRoot: r.NonceRoot, TLSKey: r.TLSKey, Epoch: r.Epoch, NotAfter: r.NotAfter}
	return &evidence.Evidence{Platform: evidence.VTPM, Statement: s}, nil
}

// llama is the dialect of the tests' engine where they name no other.
var llama, _ = engines.Find(engines.Default)

// fakeEngine answers on a Unix socket as llama-server does. script writes the answer's stream.
type fakeEngine struct {
	path   string
	asks   atomic.Int32 // whether it is well
	sick   atomic.Bool
	mu     sync.Mutex
	bodies []string
	paths  []string
	kinds  []string // content types
	script func(w *engineWriter)
	counts func(path, body string) (int, string) // nil is an engine that can't count
}

type engineWriter struct {
	w    http.ResponseWriter
	conn func() // cuts the connection
	gone <-chan struct{}
}

func (w *engineWriter) event(format string, args ...any) {
	fmt.Fprintf(w.w, "data: "+format+"\n\n", args...)
	w.w.(http.Flusher).Flush()
}

func (w *engineWriter) text(s string) {
	quoted, _ := json.Marshal(s)
	w.event(`{"choices":[{"finish_reason":null,"index":0,"delta":{"content":%s}}],"id":"engine","model":"/model/x","timings":{"prompt_ms":1.4}}`, quoted)
}

// goesOn is text where the engine goes on with one.
func (w *engineWriter) goesOn(s string) {
	quoted, _ := json.Marshal(s)
	w.event(`{"choices":[{"text":%s,"index":0,"logprobs":null,"finish_reason":null}],"id":"engine","model":"/model/x","object":"text_completion"}`, quoted)
}

func (w *engineWriter) begin(prompt int) {
	w.event(`{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":%d,"cache":0}}`, prompt)
}

func (w *engineWriter) end(prompt, completion int) {
	w.event(`{"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}`)
	w.event(`{"choices":[],"usage":{"completion_tokens":%d,"prompt_tokens":%d,"prompt_tokens_details":{"cached_tokens":0}},"timings":{"cache_n":0}}`, completion, prompt)
	w.event("[DONE]")
}

func startEngine(t testing.TB) *fakeEngine {
	t.Helper()
	e := &fakeEngine{path: filepath.Join(t.TempDir(), "e.sock")}
	l, err := net.Listen("unix", e.path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == llama.Health {
			if e.asks.Add(1); e.sick.Load() {
				w.WriteHeader(http.StatusServiceUnavailable) // the model is being loaded
			}
			return
		}
		e.mu.Lock()
		e.bodies, e.paths = append(e.bodies, string(body)), append(e.paths, r.URL.Path)
		e.kinds = append(e.kinds, r.Header.Get("Content-Type"))
		script, counts := e.script, e.counts
		e.mu.Unlock()
		if r.URL.Path == llama.CountChat || r.URL.Path == llama.CountText || r.URL.Path == "/v1/tokenize" {
			status, text := http.StatusNotFound, `{"error":{"code":404}}`
			if counts != nil {
				status, text = counts(r.URL.Path, string(body))
			}
			w.WriteHeader(status)
			io.WriteString(w, text)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		script(&engineWriter{w: w, gone: r.Context().Done(), conn: func() { panic(http.ErrAbortHandler) }})
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	e.script = func(w *engineWriter) {
		w.begin(14)
		for _, s := range []string{"The", " answer", " is \"42\"", "\n."} {
			w.text(s)
		}
		w.end(14, 5)
	}
	return e
}

func (e *fakeEngine) set(script func(w *engineWriter)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.script = script
}

func (e *fakeEngine) lastBody() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bodies[len(e.bodies)-1]
}

func (e *fakeEngine) asked() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.bodies...)
}

// bench is a gateway with its fakes.
type bench struct {
	url     string
	address string
	http    *http.Client
	keeper  *fakeKeeper
	quoter  *fakeQuoter
	engine  *fakeEngine
	log     *lockedBuffer
	gateway *Gateway
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

// tinyOn is the model "tiny", of a guest of one, on an engine.
func tinyOn(e *fakeEngine) Model {
	return Model{Engine: llama, Name: "tiny", Volume: config.Volume{Root: register.Digest{2}, Blocks: 9}, RequestBytes: 4096, AnswerTokens: 100, ContextTokens: 8192, Concurrent: 8,
		DialEngine: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.path)
		}}
}

// tiny is a guest's one model for parsers, on an engine that has means for everything.
func tiny(answerTokens uint32) served {
	engine := llama
	engine.Speech = "/inference"
	return served{newModel(0, Model{Name: "tiny", Engine: engine, RequestBytes: 16 << 20, AnswerTokens: answerTokens, ContextTokens: 100, Concurrent: 1}, config.WipeFreed, nil)}
}

func startBench(t testing.TB, change func(*Config), tweaks ...func(*Gateway)) *bench {
	t.Helper()
	b := &bench{keeper: &fakeKeeper{recorded: make(chan struct{}, 10_000)}, quoter: &fakeQuoter{}, engine: startEngine(t), log: &lockedBuffer{}}
	config := Config{
		Models:  []Model{tinyOn(b.engine)},
		Charges: true, Keeper: b.keeper, Quote: b.quoter.quote,
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&config)
	}
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	b.gateway = g
	for _, tweak := range tweaks {
		tweak(g)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	b.url = "https://" + b.address
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, l) }()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 100}
	b.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serving ended: %v", err)
		}
	})
	return b
}

// dial opens a TLS connection, for requests that net/http would not send.
func (b *bench) dial(t testing.TB) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", b.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) request(t testing.TB, ctx context.Context, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Chrysalis-Client", testClient)
	return r
}

// post asks for a chat and returns status and whole body.
func (b *bench) post(t testing.TB, body string) (int, string) {
	t.Helper()
	return b.do(t, b.request(t, t.Context(), body))
}

func (b *bench) do(t testing.TB, r *http.Request) (int, string) {
	t.Helper()
	response, err := b.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// answerEvents are the data of a stream's events.
func answerEvents(t testing.TB, body string) []string {
	t.Helper()
	var list []string
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				t.Fatalf("line %q is no event", line)
			}
			list = append(list, data)
		}
	}
	return list
}

func ask(extra string) string {
	return `{"model":"tiny","messages":[{"role":"user","content":"canary-prompt?"}]` + extra + `}`
}

var errTest = errors.New("test")
