package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// refusal is an answer that is none, in the shape that clients of OpenAI's API read. Its message may name a field, cut to a
// bound, and never carries a value that the client sent.
type refusal struct {
	status  int
	kind    string // default by status
	code    string
	param   string
	message string
	allow   string // the method that is served, of a refusal for the method

	retryAfter int // seconds; 1 where it is left out
	waiting    int // requests that wait for a place
}

func (r *refusal) Error() string { return r.message }

func refuse(param, format string, args ...any) *refusal {
	return &refusal{status: http.StatusBadRequest, param: param, message: fmt.Sprintf(format, args...)}
}

var (
	errBusy = &refusal{status: http.StatusTooManyRequests, code: "busy", message: "every place is taken: try again later"}
	errFull = &refusal{status: http.StatusInsufficientStorage, code: "journal_full",
		message: "the guest's journal has no room for another payment contract: nothing can be recorded of this one, so nothing is computed"}
	errKey = &refusal{status: http.StatusUnauthorized, code: "invalid_api_key",
		message: "show the client's key: Authorization: Bearer ck-…, once; its contract must be one under this guest's proxy, and its secret that contract's"}
	errFunds = &refusal{status: http.StatusPaymentRequired, code: "insufficient_funds",
		message: "what the contract may still spend or its key's cap, does not cover this request with what is not settled yet: top it up, or ask for fewer tokens"}
	errChain = &refusal{status: http.StatusServiceUnavailable, code: "chain_unknown",
		message: "the guest has not proven the chain lately, or its contracts are closing: nobody is served meanwhile"}
	errEngine       = &refusal{status: http.StatusBadGateway, code: "engine_lost", message: "the engine ended before the answer did"}
	errNoSpeech     = &refusal{status: http.StatusNotFound, code: "no_transcriptions", message: "the model here reads text and hears nothing"}
	errNoText       = &refusal{status: http.StatusNotFound, code: "no_text", message: "the model here hears audio and answers no text: ask at /v1/audio/transcriptions"}
	errNoEmbeddings = &refusal{status: http.StatusNotFound, code: "no_embeddings", message: "the engine of this guest makes no embeddings"}
	errStart        = &refusal{status: http.StatusServiceUnavailable, code: "engine_down", message: "the engine is not up: try again later"}
	errWiping       = &refusal{status: http.StatusServiceUnavailable, code: "engine_wiped", message: "the engine ends and another is started, so that nothing of a request stays: try again later"}
	errKeeper       = &refusal{status: http.StatusServiceUnavailable, code: "not_recorded", message: "the answer could not be recorded"}
)

// errFramed refuses what net/http never sees.
var errFramed = &refusal{status: http.StatusBadRequest, code: "framing",
	message: "lines end in CR LF, none is folded, and one Content-Length has no zeros before it"}

// queueHeader tells, beside Retry-After, how many requests wait for a place.
const queueHeader = "Chrysalis-Queue"

// requestIDHeader carries what a request is called in an answer and in an error.
const requestIDHeader = "X-Request-Id"

func newRequestID() string {
	var id [12]byte
	rand.Read(id[:])
	return "req-" + hex.EncodeToString(id[:])
}

// raw returns the whole of an HTTP answer, for a connection that ends with it.
func (r *refusal) raw() []byte {
	id := newRequestID()
	body := r.body(id)
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s: %s\r\nConnection: close\r\n\r\n",
		r.status, http.StatusText(r.status), len(body), requestIDHeader, id)
	return append([]byte(head), body...)
}

// body returns the JSON of an answer that is an error.
func (r *refusal) body(id string) []byte {
	return append(append([]byte(`{"error":`), r.object(id)...), "}\n"...)
}

// object returns the error's JSON, without a newline.
func (r *refusal) object(id string) []byte {
	kind := r.kind
	if kind == "" {
		kind = "invalid_request_error"
		if r.status >= 500 {
			kind = "server_error"
		}
	}
	b := append([]byte(nil), `{"message":`...)
	b = quote(b, r.message)
	b = quote(append(b, `,"type":`...), kind)
	b = append(b, `,"param":`...)
	if r.param == "" {
		b = append(b, "null"...)
	} else {
		b = quote(b, r.param)
	}
	b = append(b, `,"code":`...)
	if r.code == "" {
		b = append(b, "null"...)
	} else {
		b = quote(b, r.code)
	}
	return append(quote(append(b, `,"request_id":`...), id), '}')
}

func (r *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	body := r.body(h.Get(requestIDHeader))
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.allow != "" {
		h.Set("Allow", r.allow)
	}
	if r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(max(r.retryAfter, 1)))
		h.Set(queueHeader, strconv.Itoa(r.waiting))
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(defaultWaits.client))
	w.WriteHeader(r.status)
	_, _ = w.Write(body) // the client may be gone
}
