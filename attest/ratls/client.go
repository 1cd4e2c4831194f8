package ratls

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/session"
)

// Config says whom a client talks to. The zero Config talks to nobody.
type Config struct {
	Policy attest.Policy // what the guest must be
	// PolicyFor gives the policy for evidence that was shown, in the place of Policy, where what is accepted can't be said before; nil:
	// Policy counts. What it gets is untrusted, and what it returns must not be wider for it.
	PolicyFor func(*evidence.Evidence) (attest.Policy, error)
	Roots     attest.Roots // whose hardware it must be; a Transport remembers facts of its own where Roots has none
	// Now is the clock against which evidence is judged. Default time.Now.
	Now func() time.Time
	// Timeout bounds a connection's set-up: dial, handshake, evidence and verification. Default 30 s: a guest makes one
	// quote a second.
	Timeout time.Duration
	// Reach bounds the part of that which waits for anybody at all, dial and handshake: where packets are dropped, or a machine hangs,
	// nothing ever comes. Default 5 s.
	Reach time.Duration
	// Dial makes the connection below TLS. Default net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Certificate is shown to a guest that asks for one, and may be nil: guests that serve ask for none.
	Certificate *tls.Certificate
	// Seen gets each evidence before it is judged, that of the certificate first, and may be nil. What it gets is untrusted: it
	// is for explaining a refusal.
	Seen func(*evidence.Evidence)
	// Complete fetches the collateral that evidence lacks, and may be nil: what is then not stapled can't be judged. It is
	// called once a connection, within Timeout. collateral.Fetcher has one.
	Complete func(context.Context, *evidence.Evidence) error
	// Again replaces the collateral of evidence that was refused for what its collateral says, and reports whether it did; it may be
	// nil. It is called at most once a connection, within Timeout. collateral.Fetcher has one.
	Again func(context.Context, *evidence.Evidence) (bool, error)
	// MaxConns bounds a Transport's connections to one host, and with them how often it asks for evidence. Default 8.
	MaxConns int
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Reach == 0 {
		c.Reach = 5 * time.Second
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.MaxConns == 0 {
		c.MaxConns = 8
	}
	return c
}

// policy returns the policy that judges the evidence.
func (c Config) policy(e *evidence.Evidence) (attest.Policy, error) {
	if c.PolicyFor == nil {
		return c.Policy, nil
	}
	p, err := c.PolicyFor(e)
	if err != nil {
		return attest.Policy{}, fmt.Errorf("choosing policy: %w: %w", attest.ErrRejected, err)
	}
	return p, nil
}

// ErrExpired is returned by writes to a connection whose key set's time is over. Nothing has been written then.
var ErrExpired = errors.New("the guest's key set has expired")

// Conn is a connection to a guest that was verified over it.
type Conn struct {
	*tls.Conn
	result *attest.Result
	now    func() time.Time
}

// Result returns what was verified.
func (c *Conn) Result() *attest.Result { return c.result }

// Write refuses to send more once the key set's time is over.
func (c *Conn) Write(p []byte) (int, error) {
	if c.now().After(c.result.NotAfter()) {
		return 0, ErrExpired
	}
	return c.Conn.Write(p)
}

// Dial connects to a guest and verifies it over the connection. The error is, or wraps, attest.ErrRejected when the guest
// is not what the policy accepts, and attest.ErrUnavailable when that could not be found out.
func Dial(ctx context.Context, network, address string, config Config) (*Conn, error) {
	config = config.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	reach, reached := context.WithTimeoutCause(ctx, config.Reach, silence{address, config.Reach})
	defer reached()
	raw, err := config.Dial(reach, network, address)
	if err != nil {
		return nil, fmt.Errorf("dialling guest: %w: %w", attest.ErrUnavailable, silenced(reach, err))
	}
	conn, err := attested(ctx, reach, raw, config)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// silence says that nobody was there.
type silence struct {
	address string
	waited  time.Duration
}

func (s silence) Error() string {
	return fmt.Sprintf("nothing came from %s in %s: the address is wrong, something drops packets on the way, or the machine hangs", s.address, s.waited)
}

// silenced returns what ended a wait for anybody, in its own words where it was time alone.
func silenced(reach context.Context, err error) error {
	if nobody, ok := context.Cause(reach).(silence); ok {
		return nobody
	}
	return err
}

// attested makes a connection one to a verified guest. Whoever is there speaks while reach lasts; the rest has the time of ctx.
func attested(ctx, reach context.Context, raw net.Conn, config Config) (*Conn, error) {
	var own []tls.Certificate
	if config.Certificate != nil {
		own = []tls.Certificate{*config.Certificate}
	}
	conn := tls.Client(raw, &tls.Config{
		Certificates: own,
		MinVersion:   tls.VersionTLS13, CurvePreferences: session.KeyExchanges(), NextProtos: []string{"http/1.1"},
		// The certificate is judged by the evidence in it, before the handshake ends: its key must be the statement's.
		InsecureSkipVerify: true,
		VerifyConnection:   config.judgeCertificate,
	})
	if err := conn.HandshakeContext(reach); errors.Is(err, attest.ErrRejected) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("dialling guest: %w: %w", attest.ErrUnavailable, silenced(reach, err))
	}
	state := conn.ConnectionState()
	challenge := attest.Challenge{TLSKey: session.KeyHash(state.PeerCertificates[0])}
	rand.Read(challenge.Nonce[:])
	var err error
	if challenge.Exporter, err = session.Exporter(&state); err != nil {
		return nil, fmt.Errorf("dialling guest: %w: %w", attest.ErrRejected, err)
	}
	body, err := fetch(ctx, conn, challenge.Nonce)
	if err != nil {
		return nil, fmt.Errorf("fetching evidence: %w: %w", attest.ErrUnavailable, err)
	}
	result, err := config.judge(ctx, body, func(e *evidence.Evidence) (*attest.Result, error) {
		policy, err := config.policy(e)
		if err != nil {
			return nil, err
		}
		return attest.Verify(e, challenge, policy, config.Now(), config.Roots)
	})
	if err != nil {
		return nil, err
	}
	return &Conn{conn, result, config.Now}, nil
}

// judge decodes evidence, completes it, and has verify judge it, with newer collateral once more if that may help.
func (c Config) judge(ctx context.Context, body []byte, verify func(*evidence.Evidence) (*attest.Result, error)) (*attest.Result, error) {
	e, err := evidence.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("fetching evidence: %w: %w", attest.ErrRejected, err)
	}
	if c.Seen != nil {
		c.Seen(e)
	}
	if c.Complete != nil {
		err := c.Complete(ctx, e)
		if errors.Is(err, attest.ErrUnavailable) {
			return nil, fmt.Errorf("fetching collateral: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("fetching collateral: %w: %w", attest.ErrUnavailable, err)
		}
	}
	result, err := verify(e)
	if c.Again != nil && attest.OfCollateral(err) {
		// An error of the service changes nothing: the refusal stands.
		if newer, fetched := c.Again(ctx, e); newer && fetched == nil {
			result, err = verify(e)
		}
	}
	return result, err
}

// judgeCertificate refuses a guest by the epoch evidence in its certificate, so that one of the wrong kind hears nothing from
// this client, not even a nonce. What can't be judged from that alone, for want of collateral, is left to the evidence that
// is fetched next, which decides in any case.
func (c Config) judgeCertificate(state tls.ConnectionState) error {
	certificate := state.PeerCertificates[0]
	e, err := evidence.FromCertificate(certificate)
	if err != nil {
		return fmt.Errorf("dialling guest: %w: %w", attest.ErrRejected, err)
	}
	if c.Seen != nil {
		c.Seen(e)
	}
	policy, err := c.policy(e)
	if err != nil {
		return err
	}
	_, err = attest.VerifyEpoch(e, session.KeyHash(certificate), policy, c.Now(), c.Roots)
	if errors.Is(err, attest.ErrUnavailable) {
		return nil
	}
	return err
}

// fetch asks for evidence over the connection, as the first thing that is said on it.
func fetch(ctx context.Context, conn *tls.Conn, nonce [32]byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s?%s=%s HTTP/1.1\r\nHost: guest\r\n\r\n", session.EvidencePath,
		session.Nonce, hex.EncodeToString(nonce[:])); err != nil {
		return nil, err
	}
	// The header is bounded by the same limit as the body.
	r := bufio.NewReader(io.LimitReader(conn, evidence.MaxBytes+8<<10))
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.ContentLength < 0 || response.Close {
		return nil, fmt.Errorf("body of %d bytes (close: %t), want a length and an open connection", response.ContentLength, response.Close)
	}
	body, err := readEvidence(response)
	if err != nil {
		return nil, err
	}
	if r.Buffered() != 0 {
		return nil, fmt.Errorf("%d bytes after the answer, want none", r.Buffered())
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return body, conn.SetDeadline(time.Time{})
}

// readEvidence reads the body of an answer to a challenge.
func readEvidence(response *http.Response) ([]byte, error) {
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status is %q, want 200", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, evidence.MaxBytes+1))
	if err == nil && len(body) > evidence.MaxBytes {
		err = fmt.Errorf("body of more than %d bytes", evidence.MaxBytes)
	}
	return body, err
}

// Transport is an http.RoundTripper that sends requests to verified guests alone. Each of its connections is verified
// once, before its first request, and no longer used when its key set's time is over.
type Transport struct {
	config Config
	http   *http.Transport
}

// NewTransport returns a transport for https URLs.
func NewTransport(config Config) *Transport {
	t := &Transport{config: config.withDefaults()}
	if t.config.Roots.Facts == nil {
		t.config.Roots.Facts = new(attest.Facts)
	}
	t.http = &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, fmt.Errorf("dialling guest: %w: an http URL, want https", attest.ErrRejected)
		},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return Dial(ctx, network, address, t.config)
		},
		MaxConnsPerHost: t.config.MaxConns, MaxIdleConnsPerHost: t.config.MaxConns, IdleConnTimeout: 90 * time.Second,
		DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	return t
}

// RoundTrip sends a request to a verified guest.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, _, err := t.Do(request)
	return response, err
}

// Do is RoundTrip that also returns what was verified of the guest that answered.
func (t *Transport) Do(request *http.Request) (*http.Response, *attest.Result, error) {
	var mu sync.Mutex
	var result *attest.Result
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if conn, ok := info.Conn.(*Conn); ok {
			mu.Lock()
			defer mu.Unlock()
			result = conn.Result()
		}
	}}
	response, err := t.http.RoundTrip(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return nil, nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return response, result, nil
}

// CloseIdleConnections closes the connections that carry no request.
func (t *Transport) CloseIdleConnections() { t.http.CloseIdleConnections() }
