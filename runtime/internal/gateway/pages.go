package gateway

import (
	"net/http"
	"strings"

	"chrysalis/attest/ratls/session"
	envelope "chrysalis/runtime/envelope/guest"
)

// What a page of any origin may ask of a guest, by way of somebody who ends TLS in front of it: evidence, and what comes in an envelope. A page
// that has no key of this guest's can read nothing of either that is not everybody's, and no credential of the browser's counts for
// anything here; so every origin may. What is in the clear stays out of a page's reach: Fetch, section 3.2 (CORS protocol).

// readable are the headers of an answer, beside those that pages may always read, that one in the clear has.
var readable = strings.Join([]string{requestIDHeader, "Retry-After", queueHeader}, ", ")

// toPages says that a page may read the answer.
func toPages(w http.ResponseWriter) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Expose-Headers", readable)
}

// isPreflight reports whether a browser asks if a page may ask.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 && len(r.Header["Access-Control-Request-Method"]) == 1
}

// preflight answers for a path: evidence is got, everything else comes in an envelope. A page on the open network may ask a guest that is
// not there, where the browser asks for that too.
func preflight(w http.ResponseWriter, r *http.Request, path string, query bool) error {
	if err := checkFraming(r, route{method: http.MethodOptions, query: path == session.EvidencePath}, query); err != nil {
		return err
	}
	method := http.MethodPost
	if path == session.EvidencePath {
		method = http.MethodGet
	}
	if asked := r.Header.Get("Access-Control-Request-Method"); asked != method {
		return &refusal{status: http.StatusMethodNotAllowed, code: "method", message: "pages use " + method + " here", allow: method}
	}
	toPages(w)
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", method)
	h.Set("Access-Control-Allow-Headers", "Content-Type, "+envelope.KeyHeader)
	h.Set("Access-Control-Max-Age", "86400")
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
