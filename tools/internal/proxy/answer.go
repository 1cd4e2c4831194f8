package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/envelope"
)

// maxRequestBytes bounds what is read of a client; each guest has a smaller limit of its own.
const maxRequestBytes = 16 << 20

// What goes in and comes back of a header. The rest of a client's tells who it is, and nothing that a guest needs.
var (
	passedIn   = []string{"Accept", "Authorization", "Content-Type", api.ClientHeader, api.MaxCoefficientHeader}
	passedBack = []string{"Content-Type", "Retry-After", "X-Request-Id", "Chrysalis-Ignored"}
)

// statusPath is where the table of guests is, and with .json behind it the same for machines.
const statusPath = "/status"

// Handler answers what is sent to address.
func (p *Proxy) Handler(address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := p.admit(r, address); err != nil {
			p.config.Log.Warn("refused", "why", err)
			fail(w, http.StatusForbidden, "forbidden", err.Error())
			return
		}
		p.allow(w, r)
		switch {
		case r.Method == http.MethodOptions:
			w.WriteHeader(http.StatusNoContent)
		case r.URL.Path == "/" && r.Method == http.MethodGet:
			p.chat(w, r)
		case r.URL.Path == "/page.json" && r.Method == http.MethodGet && p.config.PageSettings != nil:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(p.config.PageSettings) // the client may be gone
		case r.URL.Path == evidence.ServedAt && r.Method == http.MethodGet:
			p.question(w, r)
		case r.Method == http.MethodPost && r.Header.Get("Content-Type") == envelope.RequestType && r.URL.RawQuery == "":
			p.carry(w, r)
		case r.URL.Path == statusPath && r.Method == http.MethodGet:
			p.page(w)
		case r.URL.Path == statusPath+".json" && r.Method == http.MethodGet:
			w.Header().Set("Content-Type", "application/json")
			_ = json.MarshalWrite(w, p.rows()) // the client may be gone
		case r.URL.Path == api.Health && r.Method == http.MethodGet:
			p.well(w)
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			p.forward(w, r)
		default:
			fail(w, http.StatusNotFound, "no_such_path", "there is no such path here")
		}
	})
}

// well answers whether any guest is accepted now.
func (p *Proxy) well(w http.ResponseWriter) {
	for _, g := range p.guests {
		if s := g.status(); s.err == nil && s.result != nil {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"status":"ok"}`+"\n") // the client may be gone
			return
		}
	}
	fail(w, http.StatusServiceUnavailable, "no_guest", "no guest is accepted now: "+statusPath+" says why")
}

// fail answers with an error as OpenAI's clients read it.
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(failure(status, code, message), '\n')) // the client may be gone
}

func failure(status int, code, message string) []byte {
	kind := "invalid_request_error"
	if status >= 500 {
		kind = "server_error"
	}
	b, _ := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": code}}, json.Deterministic(true))
	return b
}

// forward has a guest answer. Another is asked only where the one before has not begun.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body could not be read within %d bytes", maxRequestBytes))
		return
	}
	var tried []*guest
	var last error
	for {
		g := p.pick(tried)
		if g == nil && len(tried) == 0 {
			p.lookAgain(r.Context())
			g = p.pick(tried)
		}
		if g == nil {
			p.nobody(w, last)
			return
		}
		again, err := func() (bool, error) {
			defer g.done()
			return p.ask(w, r, g, body, len(tried)+1 < len(p.guests))
		}()
		if !again {
			return
		}
		p.config.Log.Warn("asking another guest", "instead of", g.url, "why", err)
		tried, last = append(tried, g), err
	}
}

// nobody says why no guest answers.
func (p *Proxy) nobody(w http.ResponseWriter, last error) {
	message := "no guest is accepted now: see the table at " + statusPath
	if last != nil {
		message = "no guest has begun with it: " + last.Error()
	} else {
		for _, g := range p.guests {
			if s := g.status(); s.err == nil && s.result != nil {
				message = "every guest is busy"
			}
		}
	}
	fail(w, http.StatusServiceUnavailable, "no_guest", message)
}

// ask asks one guest. again says that nothing was answered and the guest has not begun, so another may be asked: for good where the
// guest could not be asked, and where it says that it is busy, if there are others.
func (p *Proxy) ask(w http.ResponseWriter, r *http.Request, g *guest, body []byte, others bool) (again bool, err error) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, g.url+r.URL.EscapedPath(), bytes.NewReader(body))
	if err != nil {
		fail(w, http.StatusBadRequest, "method", "the method is none")
		return false, nil
	}
	request.URL.RawQuery = r.URL.RawQuery
	for _, name := range passedIn {
		if values := r.Header.Values(name); len(values) > 0 {
			request.Header[name] = values
		}
	}
	payer, err := p.payer(request, g.status().result)
	if err != nil {
		fail(w, http.StatusPaymentRequired, "no_client", err.Error())
		return false, nil
	}
	response, result, err := g.sealed.Do(request)
	if r.Context().Err() != nil {
		return false, nil // the client has gone
	}
	if errors.Is(err, client.ErrUnsealed) {
		fail(w, http.StatusBadRequest, "request", err.Error())
		return false, nil
	}
	if err != nil {
		notBegun := errors.Is(err, client.ErrNotBegun)
		if errors.Is(err, attest.ErrRejected) || notBegun {
			g.settle(nil, err)
		}
		if !notBegun {
			fail(w, http.StatusBadGateway, "guest_lost", "the guest may have begun, and its answer did not come: "+err.Error())
		}
		return notBegun, err
	}
	defer response.Body.Close()
	g.settle(result, nil)
	if busy := response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable; busy {
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		g.update(func(s *state) { s.pause = time.Now().Add(time.Duration(min(max(seconds, 1), 30)) * time.Second) })
		if others {
			return true, fmt.Errorf("%s says %s", g.url, response.Status)
		}
	}
	if others && isProof(r) && response.StatusCode == http.StatusNotFound {
		return true, fmt.Errorf("%s remembers no such answer", g.url)
	}
	h := w.Header()
	for _, name := range passedBack {
		if v := response.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	identityOf(result).head(h, g.url)
	if response.StatusCode == http.StatusOK && isAnswer(r) {
		p.relay(w, r, g, response, proof.Watch(r.URL.Path, response.Body, isStream(response), body, payer, result))
		return false, nil
	}
	w.WriteHeader(response.StatusCode)
	if _, err := io.Copy(w, response.Body); err != nil {
		panic(http.ErrAbortHandler) // or what came would look whole
	}
	return false, nil
}

// isAnswer reports whether a request asks for an answer, which is charged and proven.
func isAnswer(r *http.Request) bool {
	return r.Method == http.MethodPost && slices.Contains(api.Answers(), r.URL.Path)
}

// isProof reports whether a request asks for the proof of an answer, which one guest alone remembers.
func isProof(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, api.Receipts) || strings.HasPrefix(r.URL.Path, api.Signatures)
}

func isStream(response *http.Response) bool {
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	return err == nil && kind == "text/event-stream"
}

// payer returns whom a request names as the one who pays, and names him where it does not.
func (p *Proxy) payer(request *http.Request, guest *attest.Result) (ton.Address, error) {
	switch settles := guest.Config().Service.Settles(); {
	case settles && isAnswer(request):
		return p.keyed(request)
	case settles:
		request.Header.Del("Authorization")
		return ton.Address{}, nil
	}
	// Nobody but a guest that settles on chain is shown a key.
	request.Header.Del("Authorization")
	if named := request.Header.Get(api.ClientHeader); named != "" {
		return ton.Parse(named)
	}
	payer, err := p.config.Payer(guest.Config())
	if err == nil && !payer.IsZero() && isAnswer(request) {
		request.Header.Set(api.ClientHeader, payer.String())
	}
	return payer, err
}

// keyed shows a guest that settles on chain the proxy's key, or the one that the local program has. The key names who pays.
func (p *Proxy) keyed(request *http.Request) (ton.Address, error) {
	key := p.config.Key
	if key == (api.Key{}) {
		scheme, text, _ := strings.Cut(request.Header.Get("Authorization"), " ")
		var err error
		if key, err = api.ParseKey(text); err != nil || !strings.EqualFold(scheme, "Bearer") {
			return ton.Address{}, errors.New("this guest settles on chain: start the proxy with --account, or send a client's key as Authorization: Bearer")
		}
	}
	payer := ton.Address{Account: key.Contract}
	request.Header.Set("Authorization", "Bearer "+key.String())
	request.Header.Set(api.ClientHeader, payer.String())
	if most := p.config.MaxCoefficient; most > 0 {
		// A program may ask for less than the proxy's, and not for more.
		if asked, err := strconv.ParseUint(request.Header.Get(api.MaxCoefficientHeader), 10, 32); err != nil || asked > uint64(most) {
			request.Header.Set(api.MaxCoefficientHeader, strconv.FormatUint(uint64(most), 10))
		}
	}
	return payer, nil
}

// relay passes an answer on as it comes, and keeps its proof.
func (p *Proxy) relay(w http.ResponseWriter, r *http.Request, g *guest, response *http.Response, answer *proof.Watched) {
	control := http.NewResponseController(w)
	begun := false
	for {
		event, err := answer.Next()
		if len(event) > 0 {
			if !begun {
				begun = true
				w.WriteHeader(http.StatusOK)
			}
			if _, err := w.Write(event); err != nil {
				return // the client has gone
			}
			_ = control.Flush()
		}
		switch {
		case err == nil:
			continue
		case err == io.EOF:
		case r.Context().Err() != nil:
			return // the client has gone
		default:
			p.broken(w, r.URL.Path, g, begun && isStream(response), err)
		}
		if a := answer.Answer(); a != nil {
			g.update(func(s *state) { s.answered++ })
			if err := p.keep(a, g.url); err != nil {
				p.config.Log.Error("receipt not kept", "guest", g.url, "why", err)
			}
		}
		return
	}
}

// broken ends an answer that is not whole, or not proven.
func (p *Proxy) broken(w http.ResponseWriter, path string, g *guest, streaming bool, err error) {
	code, message := "answer_cut", "the answer ended early: "+err.Error()
	if errors.Is(err, attest.ErrRejected) {
		code, message = "not_proven", "the guest has not proven this answer: "+err.Error()
		g.update(func(s *state) { s.unproven++ })
		p.config.Log.Error("answer NOT PROVEN", "guest", g.url, "why", err)
	}
	if !streaming {
		fail(w, http.StatusBadGateway, code, message)
		return
	}
	_, _ = w.Write(failureEvent(path, code, message)) // without the end mark; the client may be gone
}

// failureEvent is the last event of a stream that is not whole, as the clients of a path read it.
func failureEvent(path, code, message string) []byte {
	why := failure(http.StatusBadGateway, code, message)
	switch path {
	case api.Messages:
		return fmt.Appendf(nil, "event: error\ndata: {\"type\":\"error\",%s\n\n", why[1:])
	case api.Responses:
		b, _ := json.Marshal(map[string]any{"type": "error", "code": code, "message": message, "param": nil}, json.Deterministic(true))
		return fmt.Appendf(nil, "event: error\ndata: %s\n\n", b)
	}
	return fmt.Appendf(nil, "data: %s\n\n", why)
}
