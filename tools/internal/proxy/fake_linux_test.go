package proxy

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
)

// TestFakeIsAsStrict: the guest in software, which clients are tested with, takes no request that a gateway refuses for its form or for who pays.
func TestFakeIsAsStrict(t *testing.T) {
	s := startService(t)
	fake := clienttest.New(t, clienttest.Measured(t))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}} // whoever answers: nothing is believed
	const question = `{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}],"stream":true}`
	payer := "0:" + strings.Repeat("11", 32)
	for _, tt := range []struct {
		name, method, target, body string
		change                     func(*http.Request)
		good                       bool
	}{
		{"a question", http.MethodPost, api.ChatCompletions, question, func(*http.Request) {}, true},
		{"models", http.MethodGet, api.Models, "", func(r *http.Request) { r.Header = http.Header{} }, true},
		{"no content type", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Del("Content-Type") }, false},
		{"another content type", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, false},
		{"two content types", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Add("Content-Type", "application/json") }, false},
		{"a body in chunks", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.ContentLength = -1 }, false},
		{"a coded body", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, false},
		{"a query", http.MethodPost, api.ChatCompletions + "?x=1", question, func(*http.Request) {}, false},
		{"an empty query", http.MethodPost, api.ChatCompletions + "?", question, func(*http.Request) {}, false},
		{"an upgrade", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, false},
		{"another method", http.MethodPut, api.ChatCompletions, question, func(*http.Request) {}, false},
		{"a question of nobody", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Del(api.ClientHeader) }, false},
		{"a question of two", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Add(api.ClientHeader, payer) }, false},
		{"a question of somebody unreadable", http.MethodPost, api.ChatCompletions, question, func(r *http.Request) { r.Header.Set(api.ClientHeader, "0:11") }, false},
		{"models with a query", http.MethodGet, api.Models + "?x=1", "", func(*http.Request) {}, false},
		{"models with a body", http.MethodGet, api.Models, "{}", func(*http.Request) {}, false},
		{"no such path", http.MethodGet, "/v1/files", "", func(*http.Request) {}, false},
	} {
		for who, url := range map[string]string{"a gateway": s.url, "the guest in software": fake.URL} {
			var body io.Reader = http.NoBody
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			request, err := http.NewRequestWithContext(t.Context(), tt.method, url+tt.target, body)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set(api.ClientHeader, payer)
			tt.change(request)
			response, err := client.Do(request)
			if err != nil {
				t.Fatalf("%s: %s: %v", tt.name, who, err)
			}
			said, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if good := response.StatusCode == http.StatusOK; good != tt.good {
				t.Errorf("%s: %s answers %s, %.200s; want it taken: %t", tt.name, who, response.Status, said, tt.good)
			}
		}
	}
}
