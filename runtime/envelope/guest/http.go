package guest

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Serve has a handler answer an opened request that came in outer, and seals the answer to w. The answer's header begins as header. A
// handler that gives up on its answer panics with http.ErrAbortHandler, and the answer stays without its end.
func (s *Secret) Serve(w http.ResponseWriter, outer *http.Request, request *Request, header http.Header, handler http.Handler) error {
	answer, err := s.Seal(w)
	if err != nil {
		return err
	}
	defer answer.Wipe()
	out := &sealedWriter{ResponseWriter: w, header: header, answer: answer}
	handler.ServeHTTP(out, inner(outer, request))
	out.close()
	return nil
}

// inner is the request that was in the envelope around it: nothing of its header comes from outside.
func inner(outer *http.Request, request *Request) *http.Request {
	target := &url.URL{Path: request.Path, RawQuery: request.Query}
	r := &http.Request{
		Method: request.Method, URL: target, RequestURI: request.Path, Proto: outer.Proto, ProtoMajor: outer.ProtoMajor,
		ProtoMinor: outer.ProtoMinor, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(request.Body)), ContentLength: int64(len(request.Body)),
		Host: outer.Host, RemoteAddr: outer.RemoteAddr, TLS: outer.TLS,
	}
	if request.Query != "" {
		r.RequestURI += "?" + request.Query
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
	answer *Answer
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
	var fields []Field
	for name, values := range w.header {
		if name == "Connection" || name == "Content-Length" { // of the connection, and said by the final chunk
			continue
		}
		for _, v := range values {
			fields = append(fields, Field{Name: strings.ToLower(name), Value: v})
		}
	}
	slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	h := w.ResponseWriter.Header()
	h.Set("Content-Type", ResponseType)
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
