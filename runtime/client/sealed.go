package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/runtime/client/exchange"
	"chrysalis/runtime/envelope"
)

// ErrUnsealed is in the chain of an error about a request that no envelope takes: nothing was sent, and nobody will take it.
var ErrUnsealed = errors.New("no envelope takes it")

// ErrNotBegun is in the chain of an error when the guest has not begun with the request: it may be sent elsewhere.
var ErrNotBegun = errors.New("the guest has not begun with it")

// Sealed is an http.RoundTripper that seals each request to a guest that it has verified, and opens the answer. It goes through anybody
// who ends TLS: whose certificate that shows does not matter, since nothing is said before the guest is verified, and nothing in the
// clear but path and key id after that. It verifies anew when the guest's key is replaced.
//
// Of a request's URL the path alone counts. An answer's body that ends with io.EOF is whole.
type Sealed struct {
	base    string
	config  ratls.Config
	outside *http.Transport

	verifying sync.Mutex // held while the guest is verified: the others wait for that
	key       atomic.Pointer[sealKey]
}

// sealKey is what was verified, and the key that came of it.
type sealKey struct {
	*envelope.Key
	result *attest.Result
}

// renewBefore is how long before its end a key is replaced. Guests make a new one two minutes before.
const renewBefore = 90 * time.Second

// NewSealed returns a transport for the guest behind a URL (scheme, host and port alone). It verifies nothing yet. config.Dial and
// MaxConns are not used.
func NewSealed(guestURL string, config ratls.Config) (*Sealed, error) {
	u, err := url.Parse(guestURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Path != "" && u.Path != "/" ||
		*u != (url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}) {
		return nil, fmt.Errorf("sealing to guest: URL %q, want https://HOST[:PORT]", guestURL)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Roots.Facts == nil {
		config.Roots.Facts = new(attest.Facts)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	reach := cmp.Or(config.Reach, 5*time.Second)
	return &Sealed{base: u.Scheme + "://" + u.Host, config: config, outside: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: reach}).DialContext, Protocols: &protocols, DisableCompression: true, MaxIdleConnsPerHost: 32, IdleConnTimeout: 90 * time.Second,
		TLSHandshakeTimeout: reach, MaxResponseHeaderBytes: 64 << 10,
		// What TLS says of its other end is not what the guest says, and is not believed.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true},
	}}, nil
}

// Close closes the connections that carry no request.
func (s *Sealed) Close() { s.outside.CloseIdleConnections() }

// Result returns what was verified last, or nil.
func (s *Sealed) Result() *attest.Result {
	if k := s.key.Load(); k != nil {
		return k.result
	}
	return nil
}

// Verify returns what the guest is, verified anew if its key's time is over soon.
func (s *Sealed) Verify(ctx context.Context) (*attest.Result, error) {
	k, err := s.current(ctx, nil)
	if err != nil {
		return nil, err
	}
	return k.result, nil
}

// current returns a key other than stale that holds for a while.
func (s *Sealed) current(ctx context.Context, stale *sealKey) (*sealKey, error) {
	holds := func(k *sealKey) bool {
		return k != nil && k != stale && s.config.Now().Before(k.NotAfter().Add(-renewBefore))
	}
	if k := s.key.Load(); holds(k) {
		return k, nil
	}
	s.verifying.Lock()
	defer s.verifying.Unlock()
	if k := s.key.Load(); holds(k) {
		return k, nil
	}
	result, err := ratls.Detached(ctx, s.outside, s.base, s.config)
	if err != nil {
		return nil, err
	}
	key, err := envelope.KeyOf(result)
	if err != nil {
		return nil, err
	}
	k := &sealKey{key, result}
	s.key.Store(k)
	return k, nil
}

// Carry sends bytes as they are to where the guest is, for somebody who verifies and seals by himself, and returns what comes back. Nothing
// is verified here, and no redirect followed. The target is a path, and a query where one belongs to it.
func (s *Sealed) Carry(ctx context.Context, method, target string, header http.Header, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.base+target, body)
	if err != nil {
		return nil, fmt.Errorf("asking guest: %v", err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := s.outside.RoundTrip(request)
	if err != nil {
		return nil, classed("asking guest", err)
	}
	return response, nil
}

// RoundTrip sends a request to the verified guest.
func (s *Sealed) RoundTrip(request *http.Request) (*http.Response, error) {
	response, _, err := s.Do(request)
	return response, err
}

// maxRekeys bounds how often in a row a guest may say that it does not hold a key that it has just shown.
const maxRekeys = 2

// Do is RoundTrip that also returns what was verified of the guest that answered.
func (s *Sealed) Do(request *http.Request) (*http.Response, *attest.Result, error) {
	var body []byte
	if request.Body != nil {
		var err error
		body, err = io.ReadAll(io.LimitReader(request.Body, maxAnswerBytes))
		request.Body.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("reading request: %w", err)
		}
	}
	inner := envelope.Request{Method: request.Method, Path: request.URL.EscapedPath(), Query: request.URL.RawQuery, Header: fieldsOf(request.Header), Body: body}
	if err := inner.Check(); err != nil {
		return nil, nil, fmt.Errorf("sealing request: %w: %w", ErrUnsealed, err)
	}
	var stale *sealKey
	for range maxRekeys + 1 {
		key, err := s.current(request.Context(), stale)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrNotBegun, err)
		}
		response, err := s.send(request.Context(), key, inner)
		if !errors.Is(err, errRekey) {
			return response, key.result, err
		}
		stale = key
	}
	return nil, nil, fmt.Errorf("asking guest: %w: %w, %d times in a row", check.ErrUnavailable, errRekey, maxRekeys+1)
}

// errRekey says that the guest does not hold the key. Anybody between can say so: all that comes of it is that the guest is verified anew.
var errRekey = fmt.Errorf("%w: %w", ErrNotBegun, exchange.ErrRekey)

// send sends one envelope.
func (s *Sealed) send(ctx context.Context, key *sealKey, inner envelope.Request) (*http.Response, error) {
	sealed, answer, err := key.Seal(inner, s.config.Now())
	if err != nil {
		return nil, err
	}
	connected := false // as net/http has it, before the first byte of a request
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }})
	request, err := http.NewRequestWithContext(ctx, envelope.Method, s.base+inner.Path, bytes.NewReader(sealed))
	if err != nil {
		return nil, fmt.Errorf("asking guest: %v", err)
	}
	request.Header.Set("Content-Type", envelope.RequestType)
	request.Header.Set(envelope.KeyHeader, key.ID())
	response, err := s.outside.RoundTrip(request)
	if err != nil && !connected {
		return nil, fmt.Errorf("asking guest: %w: %w: %w", check.ErrUnavailable, ErrNotBegun, err)
	}
	if err != nil {
		return nil, classed("asking guest", err)
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != envelope.ResponseType {
		defer response.Body.Close()
		return nil, inTheClear(response)
	}
	opened, err := answer.Open(response.Body)
	if err != nil {
		response.Body.Close()
		return nil, classOfAnswer(err)
	}
	r := &http.Response{
		Status: fmt.Sprintf("%d %s", opened.Status, http.StatusText(opened.Status)), StatusCode: opened.Status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: &openedBody{opened, response.Body}, ContentLength: -1, Request: request,
	}
	for _, f := range opened.Header {
		r.Header.Add(f.Name, f.Value)
	}
	return r, nil
}

// inTheClear makes an error of what was answered around no envelope, which is nobody's word.
func inTheClear(response *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxErrorBytes))
	err := exchange.Clear(response.StatusCode, body)
	switch {
	case errors.Is(err, exchange.ErrRekey):
		return errRekey
	case response.StatusCode == http.StatusTooManyRequests, response.StatusCode == http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %w", err, ErrNotBegun)
	}
	return err
}

// openedBody is the content of an opened answer.
type openedBody struct {
	opened *envelope.Response
	around io.Closer
}

func (b *openedBody) Read(p []byte) (int, error) {
	n, err := b.opened.Read(p)
	if err != nil && err != io.EOF {
		err = classOfAnswer(err)
	}
	return n, err
}

func (b *openedBody) Close() error { return b.around.Close() }

// classOfAnswer tells an answer that was cut from one that is not the guest's.
func classOfAnswer(err error) error {
	if errors.Is(err, envelope.ErrCut) {
		return fmt.Errorf("%w: %w", check.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", check.ErrRejected, err)
}

// connectionFields are those of a connection, which do not go into an envelope.
var connectionFields = []string{"Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func fieldsOf(header http.Header) (fields []envelope.Field) {
	for name, values := range header {
		if slices.Contains(connectionFields, http.CanonicalHeaderKey(name)) {
			continue
		}
		for _, v := range values {
			fields = append(fields, envelope.Field{Name: strings.ToLower(name), Value: strings.Trim(v, " \t")})
		}
	}
	slices.SortStableFunc(fields, func(a, b envelope.Field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}
