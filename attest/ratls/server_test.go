package ratls

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
)

// realServer returns a Server whose quotes a software guest makes, its address, and the count of its quotes.
func realServer(t *testing.T, m *machine) (*Server, string, *atomic.Int32) {
	t.Helper()
	quotes := new(atomic.Int32)
	server, err := NewServer(func(r attest.Request) (*attest.Evidence, error) {
		quotes.Add(1)
		m.Statement.Epoch, m.Statement.NotAfter = r.Epoch, r.NotAfter
		return m.Attest(r.NonceRoot, r.TLSKey), nil
	}, m.now)
	if err != nil {
		t.Fatal(err)
	}
	return server, attesttest.Listen(t, server, server.TLSConfig(), server.ConnContext), quotes
}

// TestServerBatch has many clients answered by few quotes, each with evidence of its own connection.
func TestServerBatch(t *testing.T) {
	m := newMachine(t)
	_, address, quotes := realServer(t, m)
	const clients = 20
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			conn, err := Dial(t.Context(), "tcp", address, m.config())
			if err != nil {
				t.Error(err)
				return
			}
			if state := conn.ConnectionState(); state.CurveID != tls.X25519MLKEM768 {
				t.Errorf("key exchange: got %s, want %s", state.CurveID, tls.X25519MLKEM768)
			}
			conn.Close()
		})
	}
	wait.Wait()
	if got := quotes.Load(); got > 3 {
		t.Errorf("quotes for %d clients at a time: got %d, want at most 3", clients, got)
	}
}

// TestServerRotation keeps a connection's evidence on the key of its own handshake.
func TestServerRotation(t *testing.T) {
	m := newMachine(t)
	server, address, _ := realServer(t, m)
	first, err := Dial(t.Context(), "tcp", address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	m.clock.Store(int64(keyLife + time.Second))
	second, err := Dial(t.Context(), "tcp", address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if a, b := first.Result(), second.Result(); a.Epoch() != 1 || b.Epoch() != 2 || a.TLSKey() == b.TLSKey() {
		t.Errorf("epochs: got %d and %d, want 1 and 2 with other keys", a.Epoch(), b.Epoch())
	}
	body, err := fetch(t.Context(), first.Conn, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	again, err := attest.DecodeEvidence(body)
	if err != nil {
		t.Fatal(err)
	}
	if again.Statement.TLSKey != first.Result().TLSKey() {
		t.Error("evidence over the old connection names the new key")
	}
	if keys, err := server.current(); err != nil || keys.epoch != 2 {
		t.Errorf("current epoch: got %d (%v), want 2", keys.epoch, err)
	}
}

func TestServerRefuses(t *testing.T) {
	m := newMachine(t)
	server, address, _ := realServer(t, m)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	base := "https://" + address + EvidencePath
	good := hex.EncodeToString(bytes.Repeat([]byte{0xab}, 32))
	for _, tt := range []struct {
		name, query string
		status      int
	}{
		{"good", "nonce=" + good, 200},
		{"none", "", 400},
		{"short", "nonce=00", 400},
		{"upper case", "nonce=" + strings.ToUpper(good), 400},
		{"no digits", "nonce=" + strings.Repeat("x", 64), 400},
		{"zeros", "nonce=" + strings.Repeat("0", 64), 400},
		{"two", "nonce=" + good + "&nonce=" + good, 400},
		{"escaped", "nonce=%61" + good[:62], 400},
	} {
		response, err := client.Get(base + "?" + tt.query)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d", tt.name, response.StatusCode, tt.status)
		}
	}
	response, err := client.PostForm(base+"?nonce="+good, url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", response.StatusCode)
	}
	// Without TLS there is nothing to bind to.
	plain := httptest.NewRecorder()
	server.ServeHTTP(plain, httptest.NewRequest(http.MethodGet, EvidencePath+"?nonce="+good, nil))
	if plain.Code != http.StatusBadRequest {
		t.Errorf("without TLS: status %d, want 400", plain.Code)
	}
}

func TestServerWithoutQuotes(t *testing.T) {
	server, err := NewServer(func(attest.Request) (*attest.Evidence, error) { return nil, errors.New("the log is broken") }, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Dial(t.Context(), "tcp", attesttest.Listen(t, server, server.TLSConfig(), server.ConnContext), Config{})
	if !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v, want ErrUnavailable with 503 and without the reason", err)
	}
}
