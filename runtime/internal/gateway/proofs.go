package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"chrysalis/attest/evidence"
	"chrysalis/runtime/receipt"
)

// rememberedAnswers is how many of the newest answers' receipts can be asked for. The keeper vouches for as many.
const rememberedAnswers = 4096

// maxProofQuery bounds the query of a request for a proof.
const maxProofQuery = 1 << 10

// proven is what is remembered of an answer. None of it is text, and nothing of it says who asked but the receipt.
type proven struct {
	id      receipt.AnswerID
	receipt receipt.Signed
	body    [32]byte // SHA-256 of the answer's body as it was sent
	whole   bool     // it was sent to its end

	signing   sync.Mutex // held while the keeper is asked
	signature *receipt.TextSignature
}

// proofs are those of the newest answers, by the ids that the answers have. The zero value is ready for use.
type proofs struct {
	mu    sync.Mutex
	of    map[string]*proven
	order []string
}

func (p *proofs) keep(id string, a *proven) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[string]*proven{}
	}
	p.of[id] = a
	if p.order = append(p.order, id); len(p.order) > rememberedAnswers {
		delete(p.of, p.order[0])
		p.order = slices.Delete(p.order, 0, 1)
	}
}

var errNoAnswer = &refusal{status: http.StatusNotFound, code: "no_such_answer",
	message: fmt.Sprintf("no answer of that id is remembered: want the id of one of this guest's newest %d answers since it started", rememberedAnswers)}

// named returns the answer whose id a path ends with.
func (p *proofs) named(r *http.Request) (id string, a *proven, err error) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	id = path[strings.LastIndexByte(path, '/')+1:]
	p.mu.Lock()
	defer p.mu.Unlock()
	if a = p.of[id]; a == nil {
		return "", nil, errNoAnswer
	}
	return id, a, nil
}

// bodyHash hashes an answer's body as it is sent.
type bodyHash struct{ hash.Hash }

func newBodyHash() bodyHash { return bodyHash{sha256.New()} }

// send hashes an event and sends it.
func (a *answering) send(event []byte, last bool) error {
	a.body.Write(event)
	return a.out.send(event, last)
}

// remember keeps an answer's proof. It comes before the answer's last byte, so that whoever has that can ask. last is what is yet to be
// sent, of a whole answer.
func (a *answering) remember(p receipt.Proof, last []byte) {
	kept := &proven{id: a.record.ID, receipt: *p.Receipt}
	if last != nil {
		a.body.Write(last)
		kept.whole, kept.body = true, [32]byte(a.body.Sum(nil))
	}
	a.gateway.proofs.keep(a.name, kept)
}

// receipt answers with the receipt of an answer.
func (g *Gateway) receipt(w http.ResponseWriter, r *http.Request) error {
	id, a, err := g.proofs.named(r)
	if err != nil {
		return err
	}
	b := quote([]byte(`{"object":"chrysalis.receipt","id":`), id)
	b = append(b, `,"receipt":"`...)
	b = base64.StdEncoding.AppendEncode(b, a.receipt[:])
	writeJSON(w, append(b, "\"}\n"...))
	return nil
}

// signature answers with a signature over the hashes of a request's and an answer's bodies, in the form of others' services.
func (g *Gateway) signature(w http.ResponseWriter, r *http.Request) error {
	if _, err := g.proofQuery(r); err != nil {
		return err
	}
	_, a, err := g.proofs.named(r)
	if err != nil {
		return err
	}
	if !a.whole {
		return errNotWhole
	}
	said, err := receipt.Parse(a.receipt[:])
	if err != nil {
		return fmt.Errorf("reading own receipt: %w", err)
	}
	signature, err := g.vouch(r.Context(), a)
	if err != nil {
		return err
	}
	b := quote([]byte(`{"text":`), receipt.Text(said.Request, a.body))
	b = fmt.Appendf(b, `,"signature":"%x","signing_address":%q,"signing_algo":"ed25519"}`+"\n", signature[:], g.attested.ReceiptKey().String())
	writeJSON(w, b)
	return nil
}

// vouch has the keeper sign an answer's text once.
func (g *Gateway) vouch(ctx context.Context, a *proven) (*receipt.TextSignature, error) {
	a.signing.Lock()
	defer a.signing.Unlock()
	if a.signature != nil {
		return a.signature, nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.waits.record)
	defer cancel()
	signature, err := g.config.Keeper.Vouch(ctx, a.id, a.body)
	if err != nil {
		g.config.Log.Warn("answer not vouched for", "error", err)
		return nil, errVouch
	}
	a.signature = &signature
	return a.signature, nil
}

var errNotWhole = &refusal{status: http.StatusNotFound, code: "not_whole",
	message: "the answer was cut, and whole ones alone have a signature: ask for its receipt"}

var errVouch = &refusal{status: http.StatusServiceUnavailable, code: "not_signed", message: "the answer could not be signed now"}

// proofQuery reads a query as others' clients send it: model and signing_algo mean nothing new here, and must not be wrong.
func (g *Gateway) proofQuery(r *http.Request) (nonce string, err error) {
	_, query, _ := strings.Cut(r.RequestURI, "?")
	if len(query) > maxProofQuery {
		return "", refuse("", "the query has %d bytes, want at most %d", len(query), maxProofQuery)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", refuse("", "the query is none")
	}
	for name, given := range values {
		value := given[0]
		switch {
		case len(given) != 1:
			return "", refuse(name, "%.80q is given %d times", name, len(given))
		case name == "nonce":
			nonce = value
		case name == "model":
			if _, err := g.served.named(value); err != nil {
				return "", err
			}
		case name == "signing_algo":
			if value != "ed25519" {
				return "", refuse(name, "signing_algo: want ed25519: this guest has no other key")
			}
		default:
			return "", refuse(name, "unknown parameter %.80q: want nonce, model, signing_algo", name)
		}
	}
	return nonce, nil
}

// report answers with evidence for a nonce, beside what it says, in the members that others' clients look for.
func (g *Gateway) report(w http.ResponseWriter, r *http.Request) error {
	text, err := g.proofQuery(r)
	if err != nil {
		return err
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 32 || hex.EncodeToString(raw) != text || [32]byte(raw) == ([32]byte{}) {
		return refuse("nonce", "nonce: want 64 lower-case hexadecimal digits that are not all zero")
	}
	encoded, err := g.attested.Detached(r.Context(), [32]byte(raw))
	if err != nil {
		return errNoEvidence
	}
	e, err := evidence.Decode(encoded)
	if err != nil {
		return fmt.Errorf("reading own evidence: %w", err)
	}
	report := e.ReportData()
	b := fmt.Appendf(make([]byte, 0, 8<<10+2*len(e.Quote)+base64.StdEncoding.EncodedLen(len(encoded))),
		`{"signing_address":%q,"signing_public_key":%[1]q,"signing_algo":"ed25519","request_nonce":%q`, e.Statement.ReceiptKey.String(), text)
	if e.Platform == evidence.TDX {
		b = append(hex.AppendEncode(append(b, `,"intel_quote":"`...), e.Quote), '"')
	}
	b = fmt.Appendf(b, `,"chrysalis":{"platform":%q,"statement":"%x","report_data":"%x","evidence":"`, e.Platform, e.Statement.Encode(), report[:])
	b = append(base64.StdEncoding.AppendEncode(b, encoded), "\"}}\n"...)
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, b)
	return nil
}

var errNoEvidence = &refusal{status: http.StatusServiceUnavailable, code: "no_evidence", message: "no evidence now: try again later"}

// writeJSON answers with a document.
func writeJSON(w http.ResponseWriter, b []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client may be gone
}
