package guest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/attest/ratls/session"
)

// machine is a software guest that answers challenges.
type machine struct {
	*attesttest.Guest
	server  *Server
	quotes  atomic.Int32
	address string
	clock   atomic.Int64 // nanoseconds that the guest and its client are ahead of the test's clock
}

func (m *machine) now() time.Time { return time.Now().Add(time.Duration(m.clock.Load())) }

func newMachine(t *testing.T) *machine {
	t.Helper()
	measured, err := os.ReadFile(filepath.Join("..", "..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Guest: attesttest.New(measured, time.Now())}
	m.server, err = NewServer(m.quote, m.now)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(session.EvidencePath, m.server)
	m.address = attesttest.Listen(t, mux, m.server.TLSConfig(), m.server.ConnContext)
	return m
}

// quote makes the evidence for a request, as init does.
func (m *machine) quote(r evidence.Request) (*evidence.Evidence, error) {
	m.quotes.Add(1)
	m.Statement.Epoch, m.Statement.NotAfter, m.Statement.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
	return m.Attest(r.NonceRoot, r.TLSKey), nil
}

// certificate returns the certificate for new connections.
func (m *machine) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	keys, err := m.server.current()
	if err != nil {
		t.Fatal(err)
	}
	return keys.certificate
}

func (m *machine) config() ratls.Config {
	return ratls.Config{Policy: m.Policy(), Roots: m.Roots(), Now: m.now}
}

// TestServerBatch has many clients answered by few quotes, each with evidence of its own connection.
func TestServerBatch(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	const clients = 20
	var wait sync.WaitGroup
	for range clients {
		wait.Go(func() {
			conn, err := ratls.Dial(t.Context(), "tcp", m.address, m.config())
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
	if got := m.quotes.Load(); got > 4 {
		t.Errorf("quotes for %d clients at a time: got %d, want at most 4", clients, got)
	}
}

// TestAnswersShareEvidence: all that one quote answers is encoded once, and only the path is each client's own.
func TestAnswersShareEvidence(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	keys, err := m.server.current()
	if err != nil {
		t.Fatal(err)
	}
	before := m.quotes.Load()
	const clients = 100
	answers := make([]answer, clients)
	leaf := func(i int) [32]byte { return evidence.Leaf([32]byte{1, byte(i)}, [32]byte{2}) }
	var wait sync.WaitGroup
	for i := range clients {
		wait.Go(func() {
			var err error
			if answers[i], err = m.server.answer(t.Context(), keys, leaf(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	encoded := map[*byte]bool{}
	for i, a := range answers {
		encoded[&a.rest[0]] = true
		e, err := evidence.Decode(slices.Concat(a.head, a.rest))
		if err != nil {
			t.Fatal(err)
		}
		if root, err := e.Path.Root(leaf(i)); err != nil || root != e.Statement.NonceRoot {
			t.Errorf("client %d: its leaf leads to %x (%v), want %x", i, root, err, e.Statement.NonceRoot)
		}
	}
	if quotes := int(m.quotes.Load() - before); len(encoded) != quotes || quotes > 3 {
		t.Errorf("%d clients: %d quotes were encoded %d times, want each once and at most 3", clients, quotes, len(encoded))
	}
}

// TestServerRotation keeps a connection's evidence on the key of its own handshake.
func TestServerRotation(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first, err := ratls.Dial(t.Context(), "tcp", m.address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	m.clock.Store(int64(keyLife + time.Second))
	second, err := ratls.Dial(t.Context(), "tcp", m.address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if a, b := first.Result(), second.Result(); a.Epoch() != 1 || b.Epoch() != 2 || a.TLSKey() == b.TLSKey() {
		t.Errorf("epochs: got %d and %d, want 1 and 2 with other keys", a.Epoch(), b.Epoch())
	}
	body, err := fetch(first.Conn, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	again, err := evidence.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if again.Statement.TLSKey != first.Result().TLSKey() {
		t.Error("evidence over the old connection names the new key")
	}
	if keys, err := m.server.current(); err != nil || keys.epoch != 2 {
		t.Errorf("current epoch: got %d (%v), want 2", keys.epoch, err)
	}
}

// TestHPKERotation: an HPKE key is made with its key set, opens for two minutes beside the next one, and is then let go.
func TestHPKERotation(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	keys, err := m.server.current()
	if err != nil {
		t.Fatal(err)
	}
	first := keys.id()
	for _, tt := range []struct {
		age        time.Duration
		epoch      uint64 // of the current key
		held, kept bool   // whether the first key opens, and whether it is there at all
	}{
		{0, 1, true, true},
		{keyLife - time.Minute, 1, true, true},
		{keyLife + time.Second, 2, true, true},
		{keyLife + keyOverlap - time.Second, 2, true, true},
		{keyLife + keyOverlap + 2*time.Second, 2, false, false},
	} {
		m.clock.Store(int64(tt.age))
		held, ok := m.server.HPKE(first)
		if ok != tt.held || ok && held.Epoch != 1 || m.server.keys.epoch != tt.epoch {
			t.Errorf("after %s: the first key is held: %t, want %t; epoch %d, want %d", tt.age, ok, tt.held, m.server.keys.epoch, tt.epoch)
		}
		if there := m.server.keys.id() == first || m.server.old != nil && m.server.old.id() == first; there != tt.kept {
			t.Errorf("after %s: the first key is in memory: %t, want %t", tt.age, there, tt.kept)
		}
		if id := m.server.keys.id(); m.Statement.HPKEKey != [32]byte{} && evidence.HPKEKeyID(m.Statement.HPKEKey) != id {
			t.Errorf("after %s: the key %x was attested, want %x", tt.age, evidence.HPKEKeyID(m.Statement.HPKEKey), id)
		}
	}
}

// fetch asks once more for evidence over a connection.
func fetch(conn net.Conn, nonce [32]byte) ([]byte, error) {
	if _, err := fmt.Fprintf(conn, "GET %s?nonce=%x HTTP/1.1\r\nHost: guest\r\n\r\n", session.EvidencePath, nonce); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return io.ReadAll(response.Body)
}

func TestServerRefuses(t *testing.T) {
	t.Parallel() // most of it waits for the guest\'s next quote
	m := newMachine(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	base := "https://" + m.address + session.EvidencePath
	good := hex.EncodeToString(bytes.Repeat([]byte{0xab}, 32))
	for _, tt := range []struct {
		name, query string
		status      int
	}{
		{"good", "nonce=" + good, 200},
		{"none", "", 400},
		{"short", "nonce=00", 400},
		{"detached", "detached=" + good, 200},
		{"detached and short", "detached=00", 400},
		{"detached in upper case", "detached=" + strings.ToUpper(good), 400},
		{"both", "nonce=" + good + "&detached=" + good, 400},
		{"another parameter", "nonces=" + good, 400},
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
	m.server.ServeHTTP(plain, httptest.NewRequest(http.MethodGet, session.EvidencePath+"?nonce="+good, nil))
	if plain.Code != http.StatusBadRequest {
		t.Errorf("without TLS: status %d, want 400", plain.Code)
	}
}

// TestServerWithoutQuotes has init refuse: at the start there is no server, later no evidence and no new key.
func TestServerWithoutQuotes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	broken := errors.New("the log is broken")
	refuse := atomic.Bool{}
	ask := func(r evidence.Request) (*evidence.Evidence, error) {
		if refuse.Load() {
			return nil, broken
		}
		return m.quote(r)
	}
	refuse.Store(true)
	if server, err := NewServer(ask, m.now); server != nil || !errors.Is(err, broken) {
		t.Errorf("at the start: got %v, want the reason", err)
	}
	refuse.Store(false)
	server, err := NewServer(ask, m.now)
	if err != nil {
		t.Fatal(err)
	}
	refuse.Store(true)
	address := attesttest.Listen(t, server, server.TLSConfig(), server.ConnContext)
	_, err = ratls.Dial(t.Context(), "tcp", address, m.config())
	if !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v, want ErrUnavailable with 503 and without the reason", err)
	}
	m.clock.Store(int64(keyLife + time.Second))
	if _, err = ratls.Dial(t.Context(), "tcp", address, m.config()); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("at a rotation: got %v, want ErrUnavailable", err)
	}
	refuse.Store(false)
	if conn, err := ratls.Dial(t.Context(), "tcp", address, m.config()); err != nil || conn.Result().Epoch() != 2 {
		t.Errorf("when quotes are made again: got %v, want epoch 2", err)
	}
}

// TestCertificate has guests refused by the evidence in their certificates alone: none of them is asked anything.
func TestCertificate(t *testing.T) {
	t.Parallel() // most of it waits for the guest\'s next quote
	m, other := newMachine(t), newMachine(t)
	asked := false
	listening := func(change func(*tls.Certificate)) string {
		certificate := m.certificate(t)
		change(&certificate)
		handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true })
		return attesttest.Listen(t, handler, &tls.Config{Certificates: []tls.Certificate{certificate}}, nil)
	}
	// with makes a certificate for a key of its own that carries evidence for another.
	with := func(extensions ...pkix.Extension) func(*tls.Certificate) {
		return func(c *tls.Certificate) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), ExtraExtensions: extensions}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			*c = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		}
	}
	genuine, err := evidence.EpochExtension(m.Attest([32]byte{}, m.server.keys.hash))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, says string
		roots      attest.Roots
		change     func(*tls.Certificate)
	}{
		{"no evidence", "carries none", m.Roots(), with()},
		{"the guest's evidence around another key", "tls-key", m.Roots(), with(genuine)},
		{"no evidence but its name", "no OCTET STRING", m.Roots(), with(pkix.Extension{Id: genuine.Id, Value: []byte{1}})},
		{"cut short", "reading epoch evidence", m.Roots(), with(pkix.Extension{Id: genuine.Id, Value: genuine.Value[:len(genuine.Value)-1]})},
		{"a guest under another root", "certificate: got", other.Roots(), func(*tls.Certificate) {}},
	} {
		_, err := ratls.Dial(t.Context(), "tcp", listening(tt.change), ratls.Config{Policy: m.Policy(), Roots: tt.roots, Now: m.now})
		if !errors.Is(err, attest.ErrRejected) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want ErrRejected that says %q", tt.name, err, tt.says)
		}
	}
	if asked {
		t.Error("a guest that was refused by its certificate was asked something")
	}
}
