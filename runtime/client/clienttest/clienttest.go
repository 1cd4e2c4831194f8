// Package clienttest is a guest in software that answers prompts as the gateway does, for tests of clients. It runs on the
// software platform of attesttest, and a test says what goes wrong with an answer.
//
// It is for tests alone. No program links it.
package clienttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/claim"
	envelope "chrysalis/runtime/envelope/guest"
	"chrysalis/runtime/receipt"
)

// Measured is a config that charges and settles nothing on chain, after changes.
func Measured(t testing.TB, change ...func(*config.Measured)) []byte {
	t.Helper()
	m := config.Measured{
		Identity: config.Identity{Network: config.Local, RootContract: ton.Address{Account: [32]byte{1}},
			PayoutOwner: ton.Address{Account: [32]byte{2}}, Sealing: config.SealTPM, Instance: config.InstanceSealed},
		Service: config.Service{
			Engine: config.Engine{Volume: config.Volume{Root: register.Digest{1}, Blocks: 1}, Argv: []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf", "--host", "/run/engine/e.sock", "--cache-ram", "0", "--no-slots", "--no-cache-prompt"},
				Env: []string{"GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"}, MemoryBytes: 1 << 30},
			Model: config.Model{Name: "tiny", Volume: config.Volume{Root: register.Digest{2}, Blocks: 1}}, GPU: config.GPUNone,
			Limits: config.Limits{RequestBytes: 1 << 16, AnswerTokens: 128, Concurrent: 2, ContextTokens: 512},
			Price: config.Terms{Payment: config.PayCharge, Price: ton.Price{NanotonPerToken: 20, PromptWeight: ton.WeightOne,
				CachedWeight: ton.WeightOne, CompletionWeight: ton.WeightOne, ReasoningWeight: ton.WeightOne}},
			Wipe: config.WipeFreed,
		},
	}
	for _, c := range change {
		c(&m)
	}
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Free has a config charge nothing.
func Free(m *config.Measured) {
	m.Service.Price.Payment, m.Service.Price.NanotonPerToken = config.PayNothing, 0
}

// Several has a config serve "other" beside its model.
func Several(m *config.Measured) {
	sv := &m.Service
	one := config.Served{Engine: sv.Engine, Model: sv.Model, Limits: sv.Limits}
	other := one
	other.Engine.Volume.Root, other.Model = register.Digest{3}, config.Model{Name: "other", Volume: config.Volume{Root: register.Digest{4}, Blocks: 1}}
	other.Limits.AnswerTokens, other.Limits.ContextTokens = 16, 64
	sv.Engine, sv.Model, sv.Limits, sv.Models = config.Engine{}, config.Model{}, config.Limits{}, []config.Served{one, other}
}

// Hardware is a guest of the software platform: an attesttest.Guest, TDXGuest or SNPGuest.
type Hardware interface {
	Attest(nonceRoot, tlsKey [32]byte) *evidence.Evidence
	Roots() attest.Roots
	Rules() attest.Rules
	Policy() attest.Policy
	Evidence(attest.Challenge) *evidence.Evidence
}

// Guest is a guest that listens.
type Guest struct {
	Hardware
	*attesttest.Contents
	URL string
	// Spoil edits each answer before it is signed and sent; body is the request's. Nil spoils nothing.
	Spoil func(body []byte, r *Reply)
	// Around may answer what comes in an envelope in the guest's place, and reports whether it did. Nil never does.
	Around func(w http.ResponseWriter, r *http.Request) bool
	// Proof answers for the proof of an answer, by its path and query; nil knows of none.
	Proof func(target string) string
	// Keys answers who tells the guest of a key; nil: the guest takes none.
	Keys func(shown string, body []byte) (status int, answer string)
	// KeysAhead is how many nanoseconds the guest's clock is ahead where it replaces keys: with RotateKeys it has others, and has let go of its first.
	KeysAhead atomic.Int64

	mu      sync.Mutex
	prompts [][]byte
	heads   []http.Header

	signing sync.Mutex // held while an answer gets its place behind the last one
	last    *receipt.Receipt
	hash    [32]byte // of the last receipt
	counts  map[ton.Address]uint64
}

// Prompts returns the bodies of the requests that came.
func (g *Guest) Prompts() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.prompts)
}

// Heads returns the headers of the requests that were answered.
func (g *Guest) Heads() []http.Header {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.heads)
}

// Shown returns the Authorization headers of the requests that were answered.
func (g *Guest) Shown() (all []string) {
	for _, h := range g.Heads() {
		all = append(all, h.Get("Authorization"))
	}
	return all
}

// Reply is what the guest is about to answer.
type Reply struct {
	Refusal              string // if not empty, the guest declines with status 400 and this message
	Content, Reasoning   []string
	Receipt              receipt.Receipt // Response is filled in from the text unless it is set
	Charge               claim.Message   // zero where nothing is charged
	ReceiptKey, ClaimKey ed25519.PrivateKey
	// Events edits the stream's events before they are sent. Each is a line without its end.
	Events func(events []string) []string
	// Hold keeps the connection open after the last event until it is closed. Nil holds nothing.
	Hold <-chan struct{}

	hash [32]byte // of the signed receipt
}

// New starts a guest with a TPM that serves the config, and ends it with the test.
func New(t testing.TB, measured []byte) *Guest {
	t.Helper()
	g := attesttest.New(measured, time.Now())
	return On(t, g, &g.Contents)
}

// A guest's first keys are keysAge old, and RotateKeys is when they are gone. Those that follow them then are good for less than a client believes of any.
const (
	keysAge    = 10 * time.Minute
	RotateKeys = int64(53 * time.Minute)
)

// On starts a guest on any hardware, whose contents are given beside it, and ends it with the test.
func On(t testing.TB, hardware Hardware, contents *attesttest.Contents) *Guest {
	t.Helper()
	g := &Guest{Hardware: hardware, Contents: contents}
	g.KeysAhead.Store(-int64(keysAge))
	server, err := guest.NewServer(func(r evidence.Request) (*evidence.Evidence, error) {
		g.Statement.Epoch, g.Statement.NotAfter, g.Statement.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
		return g.Attest(r.NonceRoot, r.TLSKey), nil
	}, func() time.Time { return time.Now().Add(time.Duration(g.KeysAhead.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	g.KeysAhead.Store(0)
	mux := http.NewServeMux()
	mux.Handle(session.EvidencePath, server)
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"data":[]}`) })
	for _, path := range []string{api.Receipts, api.Signatures} {
		mux.HandleFunc("GET "+path+"{id}", func(w http.ResponseWriter, r *http.Request) {
			if g.Proof == nil || g.Proof(r.RequestURI) == "" {
				w.WriteHeader(http.StatusNotFound)
				io.WriteString(w, `{"error":{"code":"no_such_answer"}}`)
				return
			}
			io.WriteString(w, g.Proof(r.RequestURI))
		})
	}
	mux.HandleFunc("POST "+api.Keys, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || g.Keys == nil {
			http.Error(w, fmt.Sprintf("no keys here (%v)", err), http.StatusNotFound)
			return
		}
		status, answer := g.Keys(r.Header.Get("Authorization"), body)
		w.WriteHeader(status)
		io.WriteString(w, answer)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		if err := g.answer(w, r); err != nil {
			t.Error(err)
		}
	})
	framed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, known := mux.Handler(r)
		if refused := misframed(r); known != "" && refused != "" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":{"message":"the guest takes no such request","code":%q,"param":null}}`, refused)
			return
		}
		mux.ServeHTTP(w, r)
	})
	opener := envelope.NewOpener(func(id evidence.KeyID) (envelope.Key, bool) {
		k, ok := server.HPKE(id)
		return envelope.Key{PrivateKey: k.PrivateKey, Epoch: k.Epoch, Instance: k.Instance}, ok
	}, time.Now)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Content-Type") != envelope.RequestType:
			framed.ServeHTTP(w, r)
		case g.Around == nil || !g.Around(w, r):
			unseal(w, r, opener, framed)
		}
	})
	g.URL = "https://" + attesttest.Listen(t, handler, server.TLSConfig(), server.ConnContext)
	return g
}

// misframed says why a gateway takes no request in this form, and nothing of one that it takes (API.md): a client that passes here is not
// refused there for how it asks.
func misframed(r *http.Request) string {
	body := r.Method == http.MethodPost
	_, query, asked := strings.Cut(r.RequestURI, "?")
	types := r.Header.Values("Content-Type")
	switch {
	case r.Proto != "HTTP/1.1" && r.Proto != "HTTP/1.0":
		return "version"
	case len(r.TransferEncoding) != 0 || r.ContentLength < 0 || body && len(r.Header["Content-Length"]) == 0:
		return "framing"
	case !body && r.ContentLength != 0:
		return "takes no body"
	case asked && r.URL.Path != session.EvidencePath && r.URL.Path != api.Report && !strings.HasPrefix(r.URL.Path, api.Signatures):
		return "takes no query: " + query
	case len(r.Header.Values("Content-Encoding")) != 0:
		return "encoding"
	case len(r.Header.Values("Upgrade")) != 0:
		return "no upgrade is offered"
	case body && (len(types) != 1 || types[0] != "application/json"):
		return "content_type"
	}
	return ""
}

// payerOf returns the contract that a request names, and why a gateway of this config answers nobody who names and shows this; "" where it does.
func payerOf(m config.Measured, r *http.Request) (named ton.Address, refused string) {
	names, shown := r.Header.Values(api.ClientHeader), append(r.Header.Values("Authorization"), r.Header.Values("X-Api-Key")...)
	switch charges := m.Service.Price.Payment == config.PayCharge; {
	case m.Service.Settles() && len(shown) != 1:
		return named, "invalid_api_key"
	case !charges && len(names) != 0:
		return named, "answers are not charged here"
	case charges && !m.Service.Settles() && len(names) != 1, len(names) > 1:
		return named, "no_client"
	case len(names) == 1:
		a, err := ton.Parse(names[0])
		if err != nil || a.IsZero() {
			return named, "no TON address"
		}
		return a, ""
	}
	return named, ""
}

// unseal has what comes in an envelope answered into one.
func unseal(w http.ResponseWriter, r *http.Request, opener *envelope.Opener, next http.Handler) {
	sealed, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var id evidence.KeyID
	if _, err := hex.Decode(id[:], []byte(r.Header.Get(envelope.KeyHeader))); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	request, secret, err := opener.Open(sealed, id, r.Method, r.URL.EscapedPath())
	if errors.Is(err, envelope.ErrKey) {
		Rekey(w)
		return
	}
	if err == nil {
		err = secret.Serve(w, r, request, http.Header{}, next)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// Rekey answers that the guest does not hold an envelope's key.
func Rekey(w http.ResponseWriter) {
	w.WriteHeader(http.StatusMisdirectedRequest)
	io.WriteString(w, `{"error":{"code":"rekey"}}`)
}

// reply is a good answer to a request.
func (g *Guest) reply(body []byte, payer ton.Address) (*Reply, error) {
	m, err := config.Decode(g.Measured)
	if err != nil {
		return nil, err
	}
	_, service, err := config.Split(g.Measured)
	if err != nil {
		return nil, err
	}
	served := m.Service.Served()[0]
	if len(m.Service.Models) > 0 {
		var asked struct {
			Model string `json:"model"`
		}
		if err := json.Unmarshal(body, &asked); err != nil {
			return nil, err
		}
		var ok bool
		if served, _, ok = m.Service.Named(asked.Model); !ok {
			return nil, fmt.Errorf("no model %q", asked.Model)
		}
	}
	r := &Reply{
		Content: []string{"The capital is ", "\x1b[1mOslo."},
		Receipt: receipt.Receipt{
			Sequence: 1, Previous: [32]byte{1}, // somebody else's came before
			Instance: [16]byte{1}, Request: sha256.Sum256(body), Service: config.ServiceDigest(service),
			Model: served.Model.Volume.Root, Engine: served.Engine.Volume.Root, Client: payer,
			Usage: receipt.Usage{Prompt: 7, Completion: 5}, Price: m.Service.Price.Price, Outcome: receipt.Complete,
		},
		ReceiptKey: g.ReceiptKey, ClaimKey: g.ClaimKey,
	}
	if m.Service.Settles() {
		r.Receipt.Coefficient = m.Service.Chain.Coefficients().Min
	}
	if r.Receipt.Weighted, err = r.Receipt.Usage.Charged(r.Receipt.Price, r.Receipt.Coefficient); err != nil {
		return nil, err
	}
	if g.last != nil {
		r.Receipt.Sequence, r.Receipt.Previous = g.last.Sequence+1, g.hash
	}
	r.Receipt.Cumulative = g.counts[payer] + r.Receipt.Weighted + 8
	if m.Service.Price.Payment == config.PayCharge {
		r.Charge = claim.Message{Op: claim.ClientCharge, QueryID: 1, Tokens: r.Receipt.Cumulative, Contract: payer, Excesses: payer}
	}
	return r, nil
}

func (g *Guest) answer(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.prompts = append(g.prompts, body)
	g.mu.Unlock()
	m, err := config.Decode(g.Measured)
	if err != nil {
		return err
	}
	shown := r.Header.Get("Authorization")
	payer, refused := payerOf(m, r)
	if refused != "" {
		w.WriteHeader(http.StatusUnauthorized)
		_, err := fmt.Fprintf(w, `{"error":{"message":"who pays is not to be told","code":%q,"param":null}}`, refused)
		return err
	}
	if m.Service.Settles() {
		key, err := api.ParseKey(strings.TrimPrefix(shown, "Bearer "))
		if payer.IsZero() {
			payer.Account = key.Contract
		}
		if err != nil || payer != (ton.Address{Account: key.Contract}) {
			w.WriteHeader(http.StatusUnauthorized)
			_, err := io.WriteString(w, `{"error":{"message":"show the client's key","code":"invalid_api_key","param":null}}`)
			return err
		}
	}
	g.mu.Lock()
	g.heads = append(g.heads, r.Header.Clone())
	g.mu.Unlock()
	reply, events, err := g.sign(body, payer)
	if err != nil {
		return err
	}
	if reply.Refusal != "" {
		w.WriteHeader(http.StatusBadRequest)
		return json.MarshalWrite(w, map[string]any{"error": map[string]any{"message": reply.Refusal, "code": "test", "param": nil}})
	}
	if reply.Events != nil {
		events = reply.Events(events)
	}
	if !bytes.Contains(body, []byte(`"stream":true`)) {
		return reply.whole(w, events)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range events {
		fmt.Fprintf(w, "%s\n\n", event)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return nil // the client has gone
		}
	}
	if reply.Hold != nil {
		<-reply.Hold
	}
	return nil
}

// sign makes an answer, has it spoiled, and signs it behind the last one.
func (g *Guest) sign(body []byte, payer ton.Address) (reply *Reply, events []string, err error) {
	g.signing.Lock()
	defer g.signing.Unlock()
	if reply, err = g.reply(body, payer); err != nil {
		return nil, nil, err
	}
	if g.Spoil != nil {
		g.Spoil(body, reply)
	}
	if reply.Refusal != "" {
		return reply, nil, nil
	}
	if events, err = reply.events(); err != nil {
		return nil, nil, err
	}
	g.last, g.hash = &reply.Receipt, reply.hash
	if g.counts == nil {
		g.counts = map[ton.Address]uint64{}
	}
	g.counts[payer] += reply.Receipt.Weighted
	return reply, events, nil
}

// whole answers in one piece, with the proof out of a stream's events.
func (r *Reply) whole(w http.ResponseWriter, events []string) error {
	var proof struct {
		Chrysalis jsontext.Value `json:"chrysalis"`
	}
	if err := json.Unmarshal([]byte(strings.TrimPrefix(events[len(events)-2], "data: ")), &proof); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.MarshalWrite(w, map[string]any{
		"object": "chat.completion", "chrysalis": proof.Chrysalis, "choices": []any{map[string]any{"index": 0, "finish_reason": "stop",
			"message": map[string]any{"role": "assistant", "content": strings.Join(r.Content, ""), "reasoning_content": strings.Join(r.Reasoning, "")}}},
	})
}

// events signs the reply and returns its stream.
func (r *Reply) events() (events []string, err error) {
	chunk := func(name, text string) error {
		quoted, err := json.Marshal(text)
		events = append(events, fmt.Sprintf(`data: {"choices":[{"delta":{%q:%s}}]}`, name, quoted))
		return err
	}
	for _, piece := range r.Reasoning {
		if err := chunk("reasoning_content", piece); err != nil {
			return nil, err
		}
	}
	for _, piece := range r.Content {
		if err := chunk("content", piece); err != nil {
			return nil, err
		}
	}
	if r.Receipt.Response == [32]byte{} {
		text := receipt.NewResponseHash()
		text.Reasoning([]byte(strings.Join(r.Reasoning, "")))
		text.Content([]byte(strings.Join(r.Content, "")))
		r.Receipt.Response = text.Sum()
	}
	signed, err := receipt.Sign(r.ReceiptKey, r.Receipt)
	if err != nil {
		return nil, err
	}
	r.hash = signed.Hash()
	proof := `"receipt":"` + base64.StdEncoding.EncodeToString(signed[:]) + `"`
	if r.Charge != (claim.Message{}) {
		charge, err := claim.Sign(r.ClaimKey, r.Charge)
		if err != nil {
			return nil, err
		}
		proof += `,"charge":"` + base64.StdEncoding.EncodeToString(charge[:]) + `"`
	}
	return append(events, `data: {"choices":[],"chrysalis":{`+proof+`}}`, "data: [DONE]"), nil
}

// Forward is somebody in front of a guest who ends TLS and judges nothing. change, where there is one, sees each answer.
func Forward(t testing.TB, guest string, change func(*http.Response) error) http.Handler {
	t.Helper()
	to, err := url.Parse(guest)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, Transport: transport, FlushInterval: -1, ModifyResponse: change,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// An answer may begin before the end of the question was read here; net/http would close the question then, and with it the guest's connection.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		forward.ServeHTTP(w, r)
	})
}
