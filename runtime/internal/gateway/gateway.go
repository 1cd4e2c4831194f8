// Package gateway is the part of the guest that the network reaches. It answers OpenAI's chat API over TLS 1.3 whose key
// was made in this process, hands out the evidence for that key, rebuilds every request from an allow-list before the
// engine sees it, counts tokens while they stream, and lets no answer end before the keeper has recorded it.
//
// The common path: New with a Config, then Serve on a listener.
//
// Text that has passed is overwritten within a second of its answer or refusal (wiping.go), where the process runs with
// GODEBUG=clobberfree=1,asyncpreemptoff=1, as init starts it.
//
// What this package does not promise: unless charges are settled on chain, a client is not asked to prove that a payment contract is its own;
// and what the engine keeps of a prompt is the engine's.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	envelope "chrysalis/runtime/envelope/guest"
	"chrysalis/runtime/numbers"
	"chrysalis/runtime/receipt"
)

// Keeper gives out places in the journal, and signs. Reserve's errors are ErrFull, ErrKey, ErrFunds, ErrChain or anything else.
type Keeper interface {
	Reserve(ctx context.Context, by Payer) (Place, error)
	// SetKey makes a key of a contract's own, whose hash is shown, with a cap of weighted tokens, or revokes it with none. It returns what was used of it.
	SetKey(ctx context.Context, contract ton.Address, shown, hash [32]byte, name [16]byte, most uint64) (used uint64, err error)
	// Vouch signs the hash of a recorded answer's body, beside that of its request's.
	Vouch(ctx context.Context, id receipt.AnswerID, body [32]byte) (receipt.TextSignature, error)
}

// Payer is who pays for an answer. Without a contract, nobody does.
type Payer struct {
	Contract ton.Address
	// Secret is the hash of what was shown for it, where charges are settled on chain.
	Secret [32]byte
	// Most is what the answer may take, and Coefficient what its tokens are multiplied by, in the same case.
	Most        receipt.Usage
	Coefficient uint32
}

// Place is room for one answer. Record returns once it is durable; Release does nothing after it.
type Place interface {
	Record(ctx context.Context, a receipt.Answer) (receipt.Proof, error)
	Release()
}

// ErrFull is in the chain of Reserve's error when the client's payment contract is new and the journal has no room for another.
var ErrFull = errors.New("the journal has no room for another contract")

// The errors of Reserve where charges are settled on chain.
var (
	ErrKey   = errors.New("no client's contract has that secret")
	ErrFunds = errors.New("the client's deposit does not cover the request")
	ErrChain = errors.New("the chain is not proven")
)

// Config says what the gateway serves. Every field must be set.
type Config struct {
	Models      []Model // one or more, in the config's order, each of another name
	Charges     bool    // a request must name the client's payment contract, or must not
	Settles     bool    // with Charges: and show its secret, as a key, which names the contract too
	Coefficient config.Band
	Keeper      Keeper
	// Quote asks the owner of the hardware for evidence; one goroutine calls it at a time.
	Quote func(evidence.Request) (*evidence.Evidence, error)
	Wipe  config.Wipe // when an engine's process ends
	Log   *slog.Logger
}

// Gateway serves clients.
type Gateway struct {
	config    Config
	served    served
	bodies    *budget
	attested  *guest.Server // owns the TLS and HPKE keys
	envelopes *envelope.Opener
	proofs    proofs
	health    health
	counted   counts
	waits     waits
	// connections is maxConnections. Tests make it small.
	connections int
}

// waits bound how long each thing may take. Tests make them short.
type waits struct {
	request time.Duration // for a whole request to arrive
	queue   time.Duration // for a place to compute in
	count   time.Duration // for the engine to count a prompt's tokens
	engine  time.Duration // for each piece of the engine's answer, the first among them
	record  time.Duration // for the keeper
	client  time.Duration // for a client to take what was sent
}

var defaultWaits = waits{
	request: 30 * time.Second, queue: 30 * time.Second, count: 10 * time.Second, engine: 10 * time.Minute, record: 30 * time.Second, client: 30 * time.Second,
}

// Bounds that no config changes.
const (
	maxConnections = 12_000 // half of them of one address
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 20 // of all requests at a time, half of it of one address
)

// New makes the TLS keys and returns a gateway that serves nothing yet.
func New(c Config) (*Gateway, error) {
	attested, err := guest.NewServer(c.Quote, nil)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		config: c, waits: defaultWaits, bodies: newBudget(maxBodyBytes), attested: attested, envelopes: newOpener(attested), connections: maxConnections,
	}
	for at, m := range c.Models {
		g.served = append(g.served, newModel(at, m, c.Wipe, c.Log))
	}
	return g, nil
}

// Serve serves until ctx ends; answers that are on their way then get a grace of ten seconds.
func (g *Gateway) Serve(ctx context.Context, l net.Listener) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server := g.server()
	shut := make(chan struct{})
	background.Go(func() {
		defer close(shut)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(newListener(l, g.attested.TLSConfig(), g.connections))
	if errors.Is(err, http.ErrServerClosed) {
		<-shut
		return nil
	}
	return fmt.Errorf("serving: %w", err)
}

func (g *Gateway) server() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one framing
	return &http.Server{
		Handler:           g.handler(),
		Protocols:         &protocols,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       g.waits.request,
		WriteTimeout:      g.waits.request, // put off while an answer is computed
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return connContext(g.attested.ConnContext(ctx, c), c)
		},
		// What net/http would log of a connection is the network's text, not ours.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
}

// route is one thing that can be asked for.
type route struct {
	method string
	serve  func(w http.ResponseWriter, r *http.Request) error
	body   bool
	query  bool
	sealed bool // the body is an envelope
	form   bool // the body is a form
}

func (g *Gateway) handler() http.Handler {
	routes := map[string]route{
		api.Models:           {method: http.MethodGet, serve: g.models},
		api.Health:           {method: http.MethodGet, serve: g.well},
		session.EvidencePath: {method: http.MethodGet, serve: g.evidence, query: true},
		api.Report:           {method: http.MethodGet, serve: g.report, query: true},
		api.Receipts:         {method: http.MethodGet, serve: g.receipt}, // and the id of an answer
		api.Signatures:       {method: http.MethodGet, serve: g.signature, query: true},
	}
	if g.config.Settles {
		routes[api.Keys] = route{method: http.MethodPost, serve: g.key, body: true}
	}
	for path, d := range dialects {
		routes[path] = route{method: http.MethodPost, serve: g.asked(d), body: true, form: d.form}
	}
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.answer(w, r, func() error {
			// By what was sent: a path that is coded, or stands behind a host, has other readings.
			path, _, query := strings.Cut(r.RequestURI, "?")
			route, ok := routes[path]
			if !ok {
				route, ok = routes[path[:strings.LastIndexByte(path, '/')+1]]
			}
			if !ok {
				return &refusal{status: http.StatusNotFound, code: "no_such_path", message: "there is no such path here"}
			}
			if isPreflight(r) {
				return preflight(w, r, path, query)
			}
			if err := checkFraming(r, route, query); err != nil {
				return err
			}
			return route.serve(w, r)
		})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			c.begin()
			defer c.done()
		}
		defer g.recover(w)
		if !isSealed(r) {
			if path, _, _ := strings.Cut(r.RequestURI, "?"); path == session.EvidencePath {
				toPages(w)
			}
			plain.ServeHTTP(w, r)
			return
		}
		toPages(w)
		g.answer(w, r, func() error { return g.unseal(w, r, plain) })
	})
}

// answer has a request served, and writes the refusal that this may end with.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, serve func() error) {
	if w.Header().Get(requestIDHeader) == "" { // what was in an envelope has its own
		w.Header().Set(requestIDHeader, newRequestID())
	}
	body := &bodyRead{ReadCloser: r.Body, left: r.ContentLength}
	r.Body = body
	asked, sealed := asks(r), isSealed(r)
	if asked && !sealed { // what is in an envelope is counted when it is out of it
		g.counted[numbers.Asked].Add(1)
	}
	err := serve()
	if err == nil {
		return
	}
	var refused *refusal
	if !errors.As(err, &refused) {
		refused = errKeeper
	}
	if asked {
		if sealed {
			g.counted[numbers.Asked].Add(1) // it never came out
		}
		g.counted.refused(refused)
	}
	if body.left != 0 {
		w.Header().Set("Connection", "close") // what is left of the body is not read
	}
	refused.write(w)
}

// asks reports whether a request is one for an answer, by its path.
func asks(r *http.Request) bool { return dialects[r.URL.Path] != nil && !isPreflight(r) }

// bodyRead knows how much of a body was not read; less than nothing is a body whose length nobody told.
type bodyRead struct {
	io.ReadCloser
	left int64
}

func (b *bodyRead) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}

// checkFraming refuses what two readers could take for two different requests, and what nobody asked for.
func checkFraming(r *http.Request, route route, query bool) error {
	switch {
	case r.Proto != "HTTP/1.1" && r.Proto != "HTTP/1.0":
		return &refusal{status: http.StatusHTTPVersionNotSupported, code: "version", message: "use HTTP/1.1"}
	case r.Method != route.method:
		return &refusal{status: http.StatusMethodNotAllowed, code: "method", message: "use " + route.method, allow: route.method}
	case len(r.TransferEncoding) != 0 || r.ContentLength < 0 || route.body && len(r.Header["Content-Length"]) == 0:
		return &refusal{status: http.StatusLengthRequired, code: "framing", message: "send the body with a Content-Length"}
	case !route.body && r.ContentLength != 0:
		return refuse("", "this path takes no body")
	case query && !route.query:
		return refuse("", "this path takes no query")
	case len(r.Header.Values("Content-Encoding")) != 0:
		return &refusal{status: http.StatusUnsupportedMediaType, code: "encoding", message: "send the body as it is"}
	case len(r.Header.Values("Upgrade")) != 0:
		return refuse("", "no upgrade is offered")
	}
	if t := r.Header.Values("Content-Type"); route.body && (len(t) != 1 || !route.sealed && !(route.form && isForm(t[0]) || !route.form && isJSON(t[0]))) {
		want := "send application/json"
		if route.form {
			want = "send multipart/form-data"
		}
		return &refusal{status: http.StatusUnsupportedMediaType, code: "content_type", message: want}
	}
	return nil
}

func isForm(t string) bool {
	kind, _, err := mime.ParseMediaType(t)
	return err == nil && kind == "multipart/form-data"
}

func isJSON(t string) bool {
	switch strings.ToLower(strings.ReplaceAll(t, " ", "")) {
	case "application/json", "application/json;charset=utf-8":
		return true
	}
	return false
}

// recover ends a request whose handler has a bug, and says where it was, not with what.
func (g *Gateway) recover(w http.ResponseWriter) {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler {
			panic(v)
		}
		at := "unknown"
		if _, file, line, ok := runtime.Caller(3); ok {
			at = file + ":" + strconv.Itoa(line)
		}
		g.config.Log.Error("handler panicked", "at", at)
		panic(http.ErrAbortHandler)
	}
}

// evidence answers a challenge with evidence that is bound to this connection and no other.
func (g *Gateway) evidence(w http.ResponseWriter, r *http.Request) error {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		state := c.ConnectionState() // which http.Server tells of a *tls.Conn alone
		r.TLS = &state
	}
	g.counted[numbers.Challenges].Add(1)
	g.attested.ServeHTTP(w, r)
	return nil
}

// models lists the models, with what each can do.
func (g *Gateway) models(w http.ResponseWriter, _ *http.Request) error {
	b := []byte(`{"object":"list","data":[`)
	for _, m := range g.served {
		b = quote(append(comma(b), `{"id":`...), m.Name)
		b = fmt.Appendf(b, `,"object":"model","created":0,"owned_by":"chrysalis","volume":{"root":"%s","blocks":%d},"engine":%q,"context_tokens":%d,"answer_tokens":%d,"request_bytes":%d,"paths":[`,
			m.Volume.Root, m.Volume.Blocks, m.Engine.Name, m.ContextTokens, m.AnswerTokens, m.RequestBytes)
		for _, path := range slices.Sorted(slices.Values(m.paths())) {
			b = quote(comma(b), path)
		}
		b = append(b, "]}"...)
	}
	writeJSON(w, append(b, "]}\n"...))
	return nil
}

// payer returns who is to pay for the request, by what it names and shows.
func (g *Gateway) payer(r *http.Request) (Payer, error) {
	if !g.config.Settles {
		client, err := g.client(r)
		return Payer{Contract: client}, err
	}
	key, err := g.shown(r)
	return Payer{Contract: ton.Address{Account: key.Contract}, Secret: key.SecretHash()}, err
}

// shown returns the key that a request shows.
func (g *Gateway) shown(r *http.Request) (api.Key, error) {
	shown, bearer := r.Header.Values("X-Api-Key"), r.Header.Values("Authorization")
	for _, v := range bearer {
		scheme, text, _ := strings.Cut(v, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return api.Key{}, errKey
		}
		shown = append(shown, text)
	}
	if len(shown) != 1 {
		return api.Key{}, errKey
	}
	key, err := api.ParseKey(shown[0])
	if err != nil {
		return api.Key{}, errKey
	}
	if named := r.Header.Values(api.ClientHeader); len(named) > 0 {
		if a, err := g.client(r); err != nil {
			return api.Key{}, err
		} else if a != (ton.Address{Account: key.Contract}) {
			return api.Key{}, refuse(api.ClientHeader, api.ClientHeader+" is another contract than the key's")
		}
	}
	return key, nil
}

// client returns the payment contract that the request names.
func (g *Gateway) client(r *http.Request) (ton.Address, error) {
	named := r.Header.Values(api.ClientHeader)
	switch {
	case !g.config.Charges && len(named) == 0:
		return ton.Address{}, nil
	case !g.config.Charges:
		return ton.Address{}, refuse(api.ClientHeader, "answers are not charged here: leave out the header "+api.ClientHeader)
	case len(named) != 1:
		return ton.Address{}, &refusal{status: http.StatusPaymentRequired, code: "no_client", param: api.ClientHeader,
			message: "name the payment contract in one header " + api.ClientHeader}
	}
	a, err := ton.Parse(named[0])
	if err != nil || a.IsZero() {
		return ton.Address{}, refuse(api.ClientHeader, api.ClientHeader+" is no TON address")
	}
	return a, nil
}

// bodyStep is what of a body is taken at first: a client that promises more must send it before it gets more.
const bodyStep = 4 << 10

// readBody reads a whole body of at most so many bytes. Memory is taken as the bytes arrive.
func readBody(r *http.Request, most int, memory *bodyShare) (body []byte, err error) {
	if r.ContentLength > int64(most) {
		return nil, tooLarge(r.ContentLength, most)
	}
	size := int(r.ContentLength)
	for len(body) < size {
		if len(body) == cap(body) {
			next := min(max(bodyStep, 2*cap(body)), size)
			if !memory.take(int64(next - cap(body))) {
				clear(body)
				return nil, errBusy
			}
			grown := append(make([]byte, 0, next), body...)
			clear(body)
			body = grown
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err != nil && len(body) < size {
			clear(body)
			return nil, refuse("", "the body ended early: %d bytes of %d", len(body), size)
		}
	}
	return body, nil
}

// budget bounds the bytes of all bodies together, and those of one address.
type budget struct {
	mu    sync.Mutex
	left  int64
	share int64 // of one address
	taken map[netip.Prefix]int64
}

func newBudget(bytes int64) *budget {
	return &budget{left: bytes, share: bytes / 2, taken: map[netip.Prefix]int64{}}
}

// bodyShare is what one request has of a budget.
type bodyShare struct {
	of      *budget
	address netip.Prefix
	bytes   int64
}

// of returns a request's share, with nothing in it yet.
func (b *budget) of(r *http.Request) *bodyShare {
	return &bodyShare{of: b, address: addressOfRequest(r)}
}

func (s *bodyShare) take(n int64) bool {
	b := s.of
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.left || b.taken[s.address]+n > b.share {
		return false
	}
	b.left -= n
	b.taken[s.address] += n
	s.bytes += n
	return true
}

// give returns all that was taken.
func (s *bodyShare) give() {
	b := s.of
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += s.bytes
	if b.taken[s.address] -= s.bytes; b.taken[s.address] == 0 {
		delete(b.taken, s.address)
	}
	s.bytes = 0
}
