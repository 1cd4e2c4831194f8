package gateway

import (
	"net/http"
	"strings"
	"testing"

	"chrysalis/runtime/envelope"
)

// TestPages: a page of any origin may ask for evidence and send envelopes, and may read those answers, refusals among them; it reads nothing
// else, and is told so before it sends.
func TestPages(t *testing.T) {
	b := startSealed(t, nil)
	const nonce = "?detached=0101010101010101010101010101010101010101010101010101010101010101"
	ask := func(method, path string, header map[string]string, body string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://page.example")
		for name, value := range header {
			r.Header.Set(name, value)
		}
		response, err := b.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response, response.Header.Get("Access-Control-Allow-Origin")
	}
	for _, tt := range []struct {
		name, method, path string
		header             map[string]string
		body               string
		status             int
		read               bool // by the page
	}{
		{"evidence", "GET", "/v1/evidence" + nonce, nil, "", 200, true},
		{"evidence for no nonce", "GET", "/v1/evidence", nil, "", 400, true},
		{"what is no envelope", "POST", "/v1/chat/completions", map[string]string{"Content-Type": envelope.RequestType}, "no", 400, true},
		{"a request in the clear", "POST", "/v1/chat/completions", map[string]string{"Content-Type": "application/json"}, `{}`, 402, false},
		{"a simple request", "POST", "/v1/chat/completions", map[string]string{"Content-Type": "text/plain"}, `{}`, 415, false},
		{"models in the clear", "GET", "/v1/models", nil, "", 200, false},
		{"a report", "GET", "/v1/attestation/report?nonce=" + nonce[len("?detached="):], nil, "", 200, false},
	} {
		if response, allowed := ask(tt.method, tt.path, tt.header, tt.body); response.StatusCode != tt.status || (allowed == "*") != tt.read || allowed != "" && !tt.read {
			t.Errorf("%s: got %d, read by %q, want %d and read: %t", tt.name, response.StatusCode, allowed, tt.status, tt.read)
		}
	}
	for _, tt := range []struct {
		name, path, asked string
		status            int
	}{
		{"an envelope for a chat", "/v1/chat/completions", "POST", 204},
		{"an envelope for the models", "/v1/models", "POST", 204},
		{"an envelope for a receipt", "/v1/receipts/chatcmpl-1", "POST", 204},
		{"evidence", "/v1/evidence" + nonce, "GET", 204},
		{"models in the clear", "/v1/models", "GET", 405},
		{"another method", "/v1/chat/completions", "DELETE", 405},
		{"a query", "/v1/chat/completions?a=b", "POST", 400},
		{"no path", "/v2", "POST", 404},
	} {
		response, allowed := ask("OPTIONS", tt.path, map[string]string{"Access-Control-Request-Method": tt.asked,
			"Access-Control-Request-Headers": "content-type,chrysalis-key", "Access-Control-Request-Private-Network": "true"}, "")
		h := response.Header
		if response.StatusCode != tt.status || (tt.status == 204) != (allowed == "*" && h.Get("Access-Control-Allow-Methods") == tt.asked &&
			strings.Contains(h.Get("Access-Control-Allow-Headers"), envelope.KeyHeader) && h.Get("Access-Control-Allow-Private-Network") == "true") {
			t.Errorf("before %s: got %d with %v, want %d", tt.name, response.StatusCode, h, tt.status)
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("before %s: credentials are allowed", tt.name)
		}
	}
	if response, _ := ask("OPTIONS", "/v1/models", nil, ""); response.StatusCode != 405 {
		t.Errorf("OPTIONS of nobody's page: got %d, want 405", response.StatusCode)
	}
}
