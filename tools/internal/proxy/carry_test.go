package proxy

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"chrysalis/attest/ratls"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/client/exchange"
	"chrysalis/runtime/envelope"
)

// carried is a page's client over the proxy.
type carried struct {
	t     *testing.T
	r     *running
	guest *exchange.Guest
}

func newCarried(t *testing.T, r *running, config ratls.Config) *carried {
	t.Helper()
	client, err := exchange.New(exchange.Config{Policy: config.Policy, Roots: config.Roots, Payer: payer})
	if err != nil {
		t.Fatal(err)
	}
	q := client.Ask()
	response, raw := do(t, r.request(t, http.MethodGet, q.Target, ""))
	guest, err := q.Judge([]byte(raw))
	if err != nil {
		t.Fatalf("evidence through the proxy: %d, %v", response.StatusCode, err)
	}
	return &carried{t, r, guest}
}

// ask sends an envelope, in which key's name it says, and opens what comes back.
func (c *carried) ask(body, key string, change func(*http.Request)) (status int, passed string, err error) {
	c.t.Helper()
	call, err := c.guest.Seal(exchange.Request{Method: http.MethodPost, Path: api.ChatCompletions, Body: []byte(body),
		Header: []envelope.Field{{Name: "content-type", Value: "application/json"}}})
	if err != nil {
		c.t.Fatal(err)
	}
	request := c.r.request(c.t, http.MethodPost, call.Path, "")
	request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(call.Sealed)), int64(len(call.Sealed))
	request.Header.Set("Content-Type", envelope.RequestType)
	request.Header.Set(envelope.KeyHeader, key)
	if change != nil {
		change(request)
	}
	response, text := do(c.t, request)
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != envelope.ResponseType {
		return response.StatusCode, "", exchange.Clear(response.StatusCode, []byte(text))
	}
	first, err := call.Take([]byte(text))
	if err != nil {
		return response.StatusCode, string(first), err
	}
	rest, err := call.End()
	if err == nil && call.Answer() == nil {
		c.t.Error("an answer that is whole has no proof")
	}
	return response.StatusCode, string(first) + string(rest), err
}

// TestCarried: what a page verifies and seals by itself is carried, to the guest that showed the key, and read by nobody here.
func TestCarried(t *testing.T) {
	first, second := newGuest(t), newGuest(t)
	r := start(t, func(c *Config) { c.Page, c.PageSettings = []byte("<!doctype html>page"), []byte(`{"policy":"x"}`) }, first, second)
	config := ratls.Config{Policy: r.config.Attest.Policy, Roots: r.config.Attest.Roots}
	for i, g := range []*clienttest.Guest{first, second} {
		other := r.guests[1-i]
		other.update(func(s *state) { s.inFlight += 100 }) // so that this one is picked
		c := newCarried(t, r, config)
		other.update(func(s *state) { s.inFlight -= 100 })
		r.guests[i].update(func(s *state) { s.inFlight += 100 }) // and is asked all the same
		for _, body := range []string{streamed, inOne} {
			if status, passed, err := c.ask(body, c.guest.KeyID(), nil); err != nil || !strings.Contains(passed, "Oslo") {
				t.Errorf("guest %d: got %d %q, %v", i, status, passed, err)
			}
		}
		r.guests[i].update(func(s *state) { s.inFlight -= 100 })
		if n := len(g.Prompts()); n != 2 {
			t.Errorf("guest %d got %d prompts, want 2", i, n)
		}
		if status, _, err := c.ask(streamed, "0011223344556677", nil); status != 421 || err == nil || !strings.Contains(err.Error(), "does not hold the key") {
			t.Errorf("a key that nobody has shown: got %d, %v", status, err)
		}
		if status, _, _ := c.ask(streamed, c.guest.KeyID(), func(r *http.Request) { r.Header.Set("Origin", "https://page.example") }); status != 403 {
			t.Errorf("another site's page: got %d, want 403", status)
		}
	}
	for path, want := range map[string]string{"/": "<!doctype html>page", "/page.json": `{"policy":"x"}`} {
		response, text := do(t, r.request(t, http.MethodGet, path, ""))
		if response.StatusCode != 200 || text != want {
			t.Errorf("%s: got %d %q", path, response.StatusCode, text)
		}
		if path == "/" && response.Header.Get("Content-Security-Policy") != "frame-ancestors 'none'" {
			t.Error("the page may be put into a frame")
		}
	}
	for i := range maxCarried + 1 {
		r.carried.put(strings.Repeat("x", i), r.guests[0])
	}
	if n := len(r.carried.of); n > maxCarried {
		t.Errorf("%d keys are remembered, want at most %d", n, maxCarried)
	}
	for _, g := range r.guests {
		if n := g.status().inFlight; n != 0 {
			t.Errorf("%d answers are on their way, want none", n)
		}
	}
}
