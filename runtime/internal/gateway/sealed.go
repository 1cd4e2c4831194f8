package gateway

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	envelope "chrysalis/runtime/envelope/guest"
)

// newOpener opens envelopes with the keys that attested holds.
func newOpener(attested *guest.Server) *envelope.Opener {
	return envelope.NewOpener(func(id evidence.KeyID) (envelope.Key, bool) {
		k, ok := attested.HPKE(id)
		return envelope.Key{PrivateKey: k.PrivateKey, Epoch: k.Epoch, Instance: k.Instance}, ok
	}, nil)
}

// What is answered in the clear to an envelope that was not opened.
var (
	errRekey = &refusal{status: http.StatusMisdirectedRequest, code: "rekey",
		message: "the guest does not hold the envelope's key and has read nothing: verify it anew, and seal anew"}
	errEnvelope = &refusal{status: http.StatusBadRequest, code: "envelope", message: "this is no envelope for this guest, path and key, or it was changed"}
	errWindow   = &refusal{status: http.StatusBadRequest, code: "envelope_window", message: "the envelope is not good at the guest's time"}
	errReplayed = &refusal{status: http.StatusConflict, code: "envelope_replayed", message: "the envelope was opened before"}
)

func isSealed(r *http.Request) bool { return r.Header.Get("Content-Type") == envelope.RequestType }

// unseal opens what comes in an envelope, and has next answer it as it answers everything else: into an envelope.
func (g *Gateway) unseal(w http.ResponseWriter, r *http.Request, next http.Handler) error {
	path, _, query := strings.Cut(r.RequestURI, "?")
	if err := checkFraming(r, route{method: http.MethodPost, body: true, sealed: true}, query); err != nil {
		return err
	}
	// A guest that does not hold the key reads nothing, so that a client may send it elsewhere.
	named := r.Header.Values(envelope.KeyHeader)
	var id evidence.KeyID
	if len(named) != 1 || hex.EncodedLen(len(id)) != len(named[0]) || strings.ToLower(named[0]) != named[0] {
		return errEnvelope
	}
	if _, err := hex.Decode(id[:], []byte(named[0])); err != nil {
		return errEnvelope
	}
	if _, held := g.attested.HPKE(id); !held {
		return errRekey
	}
	memory := g.bodies.of(r)
	defer memory.give()
	sealed, err := readBody(r, envelope.SealedBytes(int(g.config.RequestBytes)), memory)
	if err != nil {
		return err
	}
	request, secret, err := g.envelopes.Open(sealed, id, r.Method, path)
	switch {
	case errors.Is(err, envelope.ErrKey):
		return errRekey
	case errors.Is(err, envelope.ErrWindow):
		return errWindow
	case errors.Is(err, envelope.ErrReplayed):
		return errReplayed
	case errors.Is(err, envelope.ErrFull):
		return errBusy
	case err != nil:
		return errEnvelope
	}
	defer request.Wipe()
	out := &sealedWriter{ResponseWriter: w, header: http.Header{}}
	out.header.Set(requestIDHeader, w.Header().Get(requestIDHeader)) // a request has one
	if out.answer, err = secret.Seal(w); err != nil {
		return errEnvelope
	}
	defer out.answer.Wipe()
	next.ServeHTTP(out, inner(r, request))
	// A handler that gives up on its answer panics, and the answer stays without its end.
	out.close()
	return nil
}

// inner is the request that was in the envelope around it: nothing of its header comes from outside.
func inner(outer *http.Request, request *envelope.Request) *http.Request {
	r := &http.Request{
		Method: request.Method, URL: &url.URL{Path: request.Path}, RequestURI: request.Path, Proto: outer.Proto, ProtoMajor: outer.ProtoMajor,
		ProtoMinor: outer.ProtoMinor, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(request.Body)), ContentLength: int64(len(request.Body)),
		Host: outer.Host, RemoteAddr: outer.RemoteAddr, TLS: outer.TLS,
	}
	r.Header.Set("Content-Length", strconv.Itoa(len(request.Body)))
	for _, f := range request.Header {
		r.Header.Add(f.Name, f.Value)
	}
	return r.WithContext(outer.Context())
}

// sealedWriter seals what a handler answers. Deadlines are those of the writer around it.
type sealedWriter struct {
	http.ResponseWriter
	header http.Header
	answer *envelope.Answer
	begun  bool
	err    error
}

func (w *sealedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *sealedWriter) Header() http.Header { return w.header }

func (w *sealedWriter) WriteHeader(status int) {
	if w.begun {
		return
	}
	w.begun = true
	var fields []envelope.Field
	for name, values := range w.header {
		if name == "Connection" || name == "Content-Length" { // of the connection, and said by the final chunk
			continue
		}
		for _, v := range values {
			fields = append(fields, envelope.Field{Name: strings.ToLower(name), Value: v})
		}
	}
	slices.SortStableFunc(fields, func(a, b envelope.Field) int { return strings.Compare(a.Name, b.Name) })
	h := w.ResponseWriter.Header()
	h.Set("Content-Type", envelope.ResponseType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx passes on at once what it would gather
	w.ResponseWriter.WriteHeader(http.StatusOK)
	w.err = w.answer.Begin(status, fields)
}

func (w *sealedWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.answer.Write(p)
	w.err = err
	return n, err
}

// FlushError is http.ResponseController's.
func (w *sealedWriter) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if w.err == nil {
		w.err = w.answer.Flush()
	}
	if w.err == nil {
		w.err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	return w.err
}

func (w *sealedWriter) close() {
	w.WriteHeader(http.StatusOK)
	if w.err == nil {
		w.err = w.answer.Close()
	}
	if w.err != nil {
		panic(http.ErrAbortHandler) // net/http would end the answer as if it were whole
	}
}
