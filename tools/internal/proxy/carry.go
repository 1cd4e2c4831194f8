package proxy

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync"

	"chrysalis/attest/evidence"
	"chrysalis/runtime/envelope"
)

// A page that this proxy serves verifies and seals by itself. What it asks and sends is carried as it is, and nothing of it is opened.

// packedPage is the page under gzip. The file is empty in the sources: make page and make cross put the one that they make in its place.
//
//go:embed page.html.gz
var packedPage []byte

// Page returns the page that is inside this program, nil where none is.
var Page = sync.OnceValue(func() []byte {
	z, err := gzip.NewReader(bytes.NewReader(packedPage))
	if err != nil {
		return nil
	}
	html, err := io.ReadAll(z)
	if err != nil {
		return nil
	}
	return html
})

// chat serves the page.
func (p *Proxy) chat(w http.ResponseWriter, r *http.Request) {
	if p.config.Page == nil {
		http.Redirect(w, r, statusPath, http.StatusSeeOther)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "frame-ancestors 'none'") // beside the page's own
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(p.config.Page) // the client may be gone
}

// carriers remembers whose keys were shown to pages.
type carriers struct {
	mu sync.Mutex
	of map[string]*guest // by the key's id
}

// maxCarried bounds how many keys are remembered. Who comes with one that was forgotten verifies anew.
const maxCarried = 256

func (c *carriers) put(id string, g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxCarried {
		c.of = map[string]*guest{}
	}
	c.of[id] = g
}

func (c *carriers) get(id string) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[id]
}

// question carries a page's question for evidence to a guest, and its answer back.
func (p *Proxy) question(w http.ResponseWriter, r *http.Request) {
	g := p.pick(nil)
	if g == nil {
		p.nobody(w, nil)
		return
	}
	defer g.done()
	response, err := g.sealed.Carry(r.Context(), http.MethodGet, r.URL.RequestURI(), nil, nil)
	if err != nil {
		fail(w, http.StatusBadGateway, "guest_lost", "the guest did not answer")
		return
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, evidence.MaxBytes+1))
	if err != nil {
		fail(w, http.StatusBadGateway, "guest_lost", "the guest's answer did not come")
		return
	}
	if e, err := evidence.Decode(raw); err == nil && len(e.HPKE) > 0 {
		id := evidence.HPKEKeyID(sha256.Sum256(e.HPKE))
		p.carried.put(hex.EncodeToString(id[:]), g)
	}
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(raw) // the client may be gone
}

// carry carries an envelope to the guest whose key it names, and the answer back as it comes.
func (p *Proxy) carry(w http.ResponseWriter, r *http.Request) {
	g := p.carried.get(r.Header.Get(envelope.KeyHeader))
	if g == nil {
		fail(w, http.StatusMisdirectedRequest, "rekey", "no guest here has shown that key")
		return
	}
	sealed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body could not be read within %d bytes", maxRequestBytes))
		return
	}
	g.update(func(s *state) { s.inFlight++ })
	defer g.done()
	response, err := g.sealed.Carry(r.Context(), http.MethodPost, r.URL.Path, http.Header{"Content-Type": {envelope.RequestType},
		envelope.KeyHeader: {r.Header.Get(envelope.KeyHeader)}}, bytes.NewReader(sealed))
	if err != nil {
		fail(w, http.StatusBadGateway, "guest_lost", "the guest did not answer")
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.WriteHeader(response.StatusCode)
	control := http.NewResponseController(w)
	buffer := make([]byte, 16<<10)
	for {
		n, err := response.Body.Read(buffer)
		if _, gone := w.Write(buffer[:n]); gone != nil {
			return
		}
		_ = control.Flush()
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // or what came would look whole to who carries it on
		}
	}
}
