package ratls

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/session"
)

// outside speaks TLS without believing it.
func outside(t *testing.T) *http.Transport {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// TestDetached verifies a guest through somebody who ends TLS.
func TestDetached(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	transport := outside(t)
	balancer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), r.Method, m.url(r.URL.RequestURI()), nil)
		if err != nil {
			t.Error(err)
			return
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		w.WriteHeader(response.StatusCode)
		io.Copy(w, response.Body)
	}))
	defer balancer.Close()
	result, err := Detached(t.Context(), transport, balancer.URL, m.config())
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(result.HPKEKey()) != m.Statement.HPKEKey || result.Epoch() != 1 {
		t.Errorf("HPKE key %.8x… of epoch %d, want the statement's", result.HPKEKey(), result.Epoch())
	}
	if result.TLSKey() != ([32]byte{}) || !strings.Contains(strings.Join(result.Weaknesses(), "; "), "no connection is bound") {
		t.Errorf("TLS key %x, weaknesses %q: want none, and that no connection is bound", result.TLSKey(), result.Weaknesses())
	}
	held, ok := m.server.HPKE(evidence.HPKEKeyID(sha256.Sum256(result.HPKEKey())))
	if !ok || !bytes.Equal(held.PublicKey().Bytes(), result.HPKEKey()) || held.Instance != result.SecretHash() || !held.NotAfter.After(m.now()) {
		t.Errorf("the guest's own key of that id: %t, %+v", ok, held)
	}
	if _, ok := m.server.HPKE(evidence.KeyID{1}); ok {
		t.Error("a key id that nobody has made: the guest holds it")
	}
}

// TestDetachedRefuses answers each kind of challenge with evidence of the other kind, and with what is no evidence.
func TestDetachedRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	answer := func(change func(*evidence.Evidence), leaf func(nonce [32]byte) [32]byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			nonce, _, err := nonceOf(r)
			if err != nil {
				t.Error(err)
			}
			root, paths, err := evidence.Batch([][32]byte{leaf(nonce)})
			if err != nil {
				t.Error(err)
			}
			held := []byte("a key")
			m.Statement.HPKEKey = sha256.Sum256(held)
			e := m.Attest(root, [32]byte{})
			e.Path, e.HPKE = paths[0], held
			change(e)
			b, err := e.Encode()
			if err != nil {
				t.Error(err)
			}
			w.Write(b)
		}
	}
	keep := func(*evidence.Evidence) {}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   error
		check  string
	}{
		{"as it should be", answer(keep, evidence.DetachedLeaf), nil, ""},
		{"the leaf of a connection without an exporter", answer(keep, func(n [32]byte) [32]byte { return evidence.Leaf(n, [32]byte{}) }),
			attest.ErrRejected, "challenge"},
		{"another nonce", answer(keep, func(n [32]byte) [32]byte { n[0]++; return evidence.DetachedLeaf(n) }), attest.ErrRejected, "challenge"},
		{"a path too short", answer(func(e *evidence.Evidence) { e.Path = evidence.Path{Leaves: 2, Siblings: [][32]byte{{}}} }, evidence.DetachedLeaf),
			attest.ErrRejected, "challenge"},
		{"no HPKE key", answer(func(e *evidence.Evidence) { e.HPKE = nil }, evidence.DetachedLeaf), attest.ErrRejected, "hpke-key"},
		{"another HPKE key", answer(func(e *evidence.Evidence) { e.HPKE[0]++ }, evidence.DetachedLeaf), attest.ErrRejected, "hpke-key"},
		{"no evidence", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, attest.ErrRejected, ""},
		{"without end", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, evidence.MaxBytes+1)) }, attest.ErrUnavailable, ""},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, attest.ErrUnavailable, ""},
	} {
		server := httptest.NewServer(tt.answer)
		_, err := Detached(t.Context(), http.DefaultTransport, server.URL, m.config())
		server.Close()
		var refused *attest.Refused
		if !errors.Is(err, tt.want) || tt.check != "" && (!errors.As(err, &refused) || refused.Failed.Name != tt.check) {
			t.Errorf("%s: got %v, want %v by the check %q", tt.name, err, tt.want, tt.check)
		}
	}
}

// TestDetachedIsNoConnections: a guest's detached answer is refused by a client that knows its connection.
func TestDetachedIsNoConnections(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	relay := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonce, digits, err := nonceOf(r)
		if err != nil || nonce == ([32]byte{}) {
			t.Error(err)
		}
		r.URL.RawQuery = session.DetachedNonce + "=" + digits
		m.server.ServeHTTP(w, r)
	})
	address := attesttest.Listen(t, relay, m.server.TLSConfig(), m.server.ConnContext)
	var refused *attest.Refused
	if _, err := Dial(t.Context(), "tcp", address, m.config()); !errors.As(err, &refused) || refused.Failed.Name != "challenge" {
		t.Errorf("got %v, want a refusal by the check challenge", err)
	}
}

// nonceOf returns the nonce of a challenge, and its digits.
func nonceOf(r *http.Request) (nonce [32]byte, digits string, err error) {
	_, digits, _ = strings.Cut(r.URL.RawQuery, "=")
	_, err = hex.Decode(nonce[:], []byte(digits))
	return nonce, digits, err
}
