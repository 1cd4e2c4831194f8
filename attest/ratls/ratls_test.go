package ratls

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// machine is a software guest that answers challenges and echoes.
type machine struct {
	*attesttest.Guest
	server  *guest.Server
	quotes  atomic.Int32
	busy    atomic.Value // context.Context that ends before evidence is made; none makes it at once
	address string
	clock   atomic.Int64 // nanoseconds that the guest and its client are ahead of the test's clock
}

func (m *machine) now() time.Time { return time.Now().Add(time.Duration(m.clock.Load())) }

func newMachine(t *testing.T) *machine { return newMachineWith(t, nil) }

// newMachineWith returns a machine with GPUs, nil being none.
func newMachineWith(t *testing.T, board *attesttest.Board) *machine {
	t.Helper()
	measured, err := os.ReadFile(filepath.Join("..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Guest: attesttest.New(measured, time.Now())}
	if board != nil {
		m.Holds(board)
	}
	m.server, err = guest.NewServer(m.quote, m.now)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(session.EvidencePath, m.server)
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	m.address = attesttest.Listen(t, mux, m.server.TLSConfig(), m.server.ConnContext)
	return m
}

// quote makes the evidence for a request, as init does.
func (m *machine) quote(r evidence.Request) (*evidence.Evidence, error) {
	if busy, ok := m.busy.Load().(interface{ Done() <-chan struct{} }); ok {
		<-busy.Done()
	}
	m.quotes.Add(1)
	m.Statement.Epoch, m.Statement.NotAfter, m.Statement.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
	return m.Attest(r.NonceRoot, r.TLSKey), nil
}

// certificate returns the certificate for new connections, private key included: a test may leak it.
func (m *machine) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	certificate, err := m.server.TLSConfig().GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return *certificate
}

func (m *machine) url(path string) string { return "https://" + m.address + path }

func (m *machine) config() Config { return Config{Policy: m.Policy(), Roots: m.Roots(), Now: m.now} }

// TestGPUs: a client verifies a whole board with the guest, whose certificate carries the board's evidence in a handshake.
func TestGPUs(t *testing.T) {
	m := newMachineWith(t, attesttest.NewPPCIeBoard(evidence.MaxGPUs, evidence.MaxSwitches, time.Now()))
	conn, err := Dial(t.Context(), "tcp", m.address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n := len(conn.Result().GPUs()); n != evidence.MaxGPUs+evidence.MaxSwitches {
		t.Errorf("got %d devices, want the board's", n)
	}
	carried, err := evidence.FromCertificate(conn.ConnectionState().PeerCertificates[0])
	if err != nil || len(carried.GPUs.Devices) != evidence.MaxGPUs+evidence.MaxSwitches || carried.GPUs.RIMs != nil || carried.GPUs.OCSP != nil {
		t.Errorf("the certificate carries %d devices and error %v, want the board's and nothing stapled", len(carried.GPUs.Devices), err)
	}
	config := m.config()
	rules := m.Rules()
	rules.GPU.MinDriver = "999.1"
	if config.Policy, err = rules.Policy(); err != nil {
		t.Fatal(err)
	}
	before := m.quotes.Load()
	if _, err := Dial(t.Context(), "tcp", m.address, config); !errors.Is(err, attest.ErrRejected) || !strings.Contains(err.Error(), "driver-minimum") {
		t.Errorf("with a driver that is too old: got %v, want a refusal", err)
	}
	if m.quotes.Load() != before {
		t.Error("a guest that its certificate shows to be refused was asked for evidence all the same")
	}
}

// TestSilence: where nobody is, or nobody speaks, a client waits for Reach alone, and says so; a guest that has spoken may take longer.
func TestSilence(t *testing.T) {
	m := newMachine(t)
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody ever answers on them
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"packets are dropped": func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
		"nobody speaks":       nil,
	} {
		config := m.config()
		config.Reach, config.Timeout, config.Dial = 50*time.Millisecond, time.Hour, dial
		_, err := Dial(t.Context(), "tcp", mute.Addr().String(), config)
		if want := "nothing came from " + mute.Addr().String() + " in 50ms"; !errors.Is(err, attest.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one of class unavailable with %q", name, err, want)
		}
	}
	config := m.config()
	config.Reach = 3 * time.Second
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		m.busy.Store(ctx) // until nobody would be waited for any more
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	conn, err := Dial(t.Context(), "tcp", m.address, config)
	if err != nil {
		t.Fatalf("a guest that takes longer for its evidence: %v", err)
	}
	conn.Close()
}

func TestTransport(t *testing.T) {
	t.Parallel() // most of it waits for the guest\'s next quote
	m := newMachine(t)
	transport := NewTransport(m.config())
	defer transport.CloseIdleConnections()
	for range 3 {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.url("/echo"), strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		response, result, err := transport.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || string(body) != "hello" || result == nil || result.TLSKey() != session.KeyHash(m.certificate(t).Leaf) {
			t.Errorf("got %q, %v, %v, want hello and a result", body, result, err)
		}
	}
	if got := m.quotes.Load(); got != 2 {
		t.Errorf("quotes for a certificate and three requests on one connection: got %d, want 2", got)
	}
	if _, err := (&http.Client{Transport: transport}).Get("http://" + m.address); !errors.Is(err, attest.ErrRejected) {
		t.Errorf("an http URL: got %v, want ErrRejected", err)
	}
}

func TestDialUsesPostQuantumTLS13(t *testing.T) {
	t.Parallel() // most of it waits for the guest\'s next quote
	m := newMachine(t)
	conn, err := Dial(t.Context(), "tcp", m.address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state := conn.ConnectionState()
	if state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("got version %#x with %s, want TLS 1.3 with %s", state.Version, state.CurveID, tls.X25519MLKEM768)
	}
}

// TestNoOtherKeyExchange has a peer that knows classical key exchanges alone refused on either side.
func TestNoOtherKeyExchange(t *testing.T) {
	t.Parallel() // most of it waits for the guest\'s next quote
	m := newMachine(t)
	if conn, err := tls.Dial("tcp", m.address, &tls.Config{InsecureSkipVerify: true,
		CurvePreferences: []tls.CurveID{tls.X25519}}); err == nil {
		conn.Close()
		t.Error("a client with X25519 alone: connected")
	}
	old := m.server.TLSConfig()
	old.CurvePreferences = []tls.CurveID{tls.X25519}
	address := attesttest.Listen(t, m.server, old, m.server.ConnContext)
	if _, err := Dial(t.Context(), "tcp", address, m.config()); !errors.Is(err, attest.ErrUnavailable) {
		t.Errorf("a guest with X25519 alone: got %v, want ErrUnavailable", err)
	}
}

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	other := newMachine(t)
	rules := m.Rules()
	rules.MinSecurityVersion = 9
	strict, err := rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	oldTLS := m.server.TLSConfig()
	oldTLS.MinVersion, oldTLS.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	tls12 := attesttest.Listen(t, m.server, oldTLS, m.server.ConnContext)
	answering := func(body string) string {
		web := attesttest.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }),
			m.server.TLSConfig(), nil)
		return web
	}
	endless := attesttest.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		m.server.TLSConfig(), nil)
	for _, tt := range []struct {
		name, address string
		config        Config
		want          error
		says          string
	}{
		{"zero config", m.address, Config{}, attest.ErrRejected, "zero policy"},
		{"no roots", m.address, Config{Policy: m.Policy()}, attest.ErrRejected, "no root is trusted"},
		{"another machine's root", m.address, Config{Policy: m.Policy(), Roots: other.Roots()}, attest.ErrRejected, "certificate"},
		{"a policy that wants more", m.address, Config{Policy: strict, Roots: m.Roots()}, attest.ErrRejected, "security-version"},
		{"TLS 1.2", tls12, m.config(), attest.ErrUnavailable, "version"},
		{"no evidence at all", answering("none"), m.config(), attest.ErrRejected, "decoding evidence"},
		{"evidence without end", answering(strings.Repeat("x", evidence.MaxBytes+1)), m.config(), attest.ErrUnavailable, "want a length"},
		{"no quote now", attesttest.Listen(t, http.NotFoundHandler(), m.server.TLSConfig(), nil), m.config(), attest.ErrUnavailable, "404"},
		{"silence", endless, Config{Policy: m.Policy(), Roots: m.Roots(), Timeout: time.Second}, attest.ErrUnavailable, "fetching evidence"},
		{"nobody there", "127.0.0.1:1", m.config(), attest.ErrUnavailable, "dialling guest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := Dial(t.Context(), "tcp", tt.address, tt.config)
			if conn != nil || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, %v, want %v that says %q", conn, err, tt.want, tt.says)
			}
		})
	}
}

// TestRelayWithLeakedKey is the attack of CVE-2026-33697's kind: a machine in the middle holds the guest's TLS key, ends
// the client's TLS with it, and relays the genuine guest's evidence for the client's own nonce.
func TestRelayWithLeakedKey(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	leaked := m.certificate(t)
	middle := attesttest.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := tls.Dial("tcp", m.address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		nonce, err := hex.DecodeString(strings.TrimPrefix(r.URL.RawQuery, "nonce="))
		if err != nil {
			t.Error(err)
			return
		}
		body, err := fetch(r.Context(), conn, [32]byte(nonce))
		if err != nil {
			t.Error(err)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	}), &tls.Config{Certificates: []tls.Certificate{leaked}}, nil)
	_, err := Dial(t.Context(), "tcp", middle, m.config())
	var rejected *attest.Refused
	if !errors.As(err, &rejected) || rejected.Failed.Name != "challenge" {
		t.Errorf("got %v, want the challenge check to refuse", err)
	}
	if _, err := Dial(t.Context(), "tcp", m.address, m.config()); err != nil {
		t.Errorf("the guest itself: got %v, want nil", err)
	}
}

// TestReplay has a guest's own earlier answer given to a new challenge over the guest's own key.
func TestReplay(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	var old []byte
	recorder := attesttest.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if old == nil {
			answer := httptest.NewRecorder()
			m.server.ServeHTTP(answer, r)
			old = answer.Body.Bytes()
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(old)))
		w.Write(old)
	}), m.server.TLSConfig(), m.server.ConnContext)
	address := recorder
	if _, err := Dial(t.Context(), "tcp", address, m.config()); err != nil {
		t.Fatalf("the first time: %v", err)
	}
	var rejected *attest.Refused
	if _, err := Dial(t.Context(), "tcp", address, m.config()); !errors.As(err, &rejected) || rejected.Failed.Name != "challenge" {
		t.Errorf("the second time: got %v, want the challenge check to refuse", err)
	}
}

// TestRotation lets the key's time pass: old connections end, requests go on over a new one, verified again.
func TestRotation(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	transport := NewTransport(m.config())
	defer transport.CloseIdleConnections()
	post := func() uint64 {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.url("/echo"), bytes.NewReader([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		response, result, err := transport.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		return result.Epoch()
	}
	if got := post(); got != 1 {
		t.Fatalf("epoch: got %d, want 1", got)
	}
	// In the overlap the connection goes on, and a new one has the new key.
	m.clock.Store(int64(time.Hour + time.Minute))
	if got := post(); got != 1 {
		t.Errorf("epoch in the overlap: got %d, want 1", got)
	}
	conn, err := Dial(t.Context(), "tcp", m.address, m.config())
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.Result().Epoch(); got != 2 {
		t.Errorf("epoch of a new connection: got %d, want 2", got)
	}
	conn.Close()
	m.clock.Store(int64(time.Hour + 2*time.Minute + time.Minute))
	quotes := m.quotes.Load()
	if got := post(); got != 2 {
		t.Errorf("epoch after the overlap: got %d, want 2", got)
	}
	if got := m.quotes.Load() - quotes; got != 1 {
		t.Errorf("quotes for it: got %d, want 1", got)
	}
	m.clock.Store(int64(3 * time.Hour))
	if _, err := transport.http.RoundTrip(httptest.NewRequest(http.MethodPost, m.url("/echo"),
		io.NopCloser(strings.NewReader("once")))); err != nil && !errors.Is(err, ErrExpired) {
		t.Errorf("a body that can't be sent twice: got %v, want nil or ErrExpired", err)
	}
}

// TestConfidentialGuests talks to guests on TDX and SEV-SNP, with collateral stapled, brought by the client, or nowhere.
func TestConfidentialGuests(t *testing.T) {
	t.Parallel()
	measured, err := os.ReadFile(filepath.Join("..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		t.Fatal(err)
	}
	td, snp := attesttest.NewTDXGuest(measured, time.Now()), attesttest.NewSNPGuest(measured, sevsnp.Milan, time.Now())
	for _, tt := range []struct {
		name     string
		contents *attesttest.Contents
		attest   func(nonceRoot, tlsKey [32]byte) *evidence.Evidence
		config   Config
		ended    func() []byte // collateral that ends half an hour from now
	}{
		{"tdx", &td.Contents, td.Attest, Config{Policy: td.Policy(), Roots: td.Roots()}, func() []byte {
			c, err := tdx.ParseCollateral(td.Attest([32]byte{}, [32]byte{}).Collateral)
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(c.TCBInfo, []byte(`"nextUpdate":`))
			next, err := json.Marshal(map[string]time.Time{"nextUpdate": time.Now().Add(30 * time.Minute).UTC().Truncate(time.Second)})
			if err != nil || at < 0 {
				t.Fatalf("no nextUpdate in %s: %v", c.TCBInfo, err)
			}
			copy(c.TCBInfo[at:], next[1:len(next)-1])
			td.Machine.Resign(c)
			encoded, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return encoded
		}},
		{"sev-snp", &snp.Contents, snp.Attest, Config{Policy: snp.Policy(), Roots: snp.Roots()}, func() []byte {
			processor, list := *snp.Processor, *snp.Processor.CRL
			list.NextUpdate = time.Now().Add(30 * time.Minute)
			processor.CRL = &list
			return processor.Evidence().CRL
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			staple := true
			var kept, stapled []byte
			server, err := guest.NewServer(func(r evidence.Request) (*evidence.Evidence, error) {
				tt.contents.Statement.Epoch, tt.contents.Statement.NotAfter, tt.contents.Statement.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
				e := tt.attest(r.NonceRoot, r.TLSKey)
				if kept = e.Collateral; !staple {
					e.Collateral = stapled
				}
				return e, nil
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			address := attesttest.Listen(t, server, server.TLSConfig(), server.ConnContext)
			dial := func(complete func(context.Context, *evidence.Evidence) error) error {
				config := tt.config
				config.Complete = complete
				conn, err := Dial(t.Context(), "tcp", address, config)
				if err == nil {
					conn.Close()
				}
				return err
			}
			if err := dial(nil); err != nil {
				t.Errorf("stapled: %v", err)
			}
			staple = false
			if err := dial(nil); !errors.Is(err, attest.ErrUnavailable) {
				t.Errorf("no collateral: got %v, want ErrUnavailable", err)
			}
			if err := dial(func(_ context.Context, e *evidence.Evidence) error { e.Collateral = kept; return nil }); err != nil {
				t.Errorf("brought by the client: %v", err)
			}
			if err := dial(func(context.Context, *evidence.Evidence) error { return errors.New("no network") }); !errors.Is(err,
				attest.ErrUnavailable) {
				t.Errorf("collateral that can't be had: got %v, want ErrUnavailable", err)
			}
			// Collateral that has ended, stapled or out of a cache, is replaced once.
			config := tt.config
			asked := 0
			config.Now = func() time.Time { return time.Now().Add(50 * time.Minute) }
			ended := tt.ended()
			stapled = ended
			config.Complete = func(_ context.Context, e *evidence.Evidence) error { e.Collateral = ended; return nil }
			for _, again := range []struct {
				name   string
				again  func(context.Context, *evidence.Evidence) (bool, error)
				accept bool
			}{
				{"none", nil, false},
				{"newer", func(_ context.Context, e *evidence.Evidence) (bool, error) {
					asked++
					e.Collateral = kept
					return true, nil
				}, true},
				{"the same", func(context.Context, *evidence.Evidence) (bool, error) { asked++; return true, nil }, false},
				{"nothing in a cache", func(context.Context, *evidence.Evidence) (bool, error) { asked++; return false, nil }, false},
				{"no network", func(context.Context, *evidence.Evidence) (bool, error) {
					asked++
					return false, errors.New("no network")
				}, false},
			} {
				asked = 0
				config.Again = again.again
				conn, err := Dial(t.Context(), "tcp", address, config)
				if err == nil {
					conn.Close()
				}
				if (err == nil) != again.accept || err != nil && !errors.Is(err, attest.ErrRejected) || asked > 1 || again.again != nil && asked == 0 {
					t.Errorf("asked again, %s: got %v after %d times, want accepted: %t, once", again.name, err, asked, again.accept)
				}
			}
			// A server that staples such collateral from its first quote on.
			second, err := guest.NewServer(func(r evidence.Request) (*evidence.Evidence, error) {
				tt.contents.Statement.Epoch, tt.contents.Statement.NotAfter, tt.contents.Statement.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
				e := tt.attest(r.NonceRoot, r.TLSKey)
				e.Collateral = ended
				return e, nil
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			address = attesttest.Listen(t, second, second.TLSConfig(), second.ConnContext)
			config.Complete, config.Again = func(_ context.Context, e *evidence.Evidence) error { e.Collateral = kept; return nil }, nil
			if conn, err := Dial(t.Context(), "tcp", address, config); err != nil {
				t.Errorf("a staple that has ended, and a service: got %v, want it replaced", err)
			} else {
				conn.Close()
			}
			config.Complete = nil
			if _, err := Dial(t.Context(), "tcp", address, config); !errors.Is(err, attest.ErrRejected) {
				t.Errorf("a staple that has ended, offline: got %v, want a refusal", err)
			}
		})
	}
}
