// Package collateral fetches what a verifier needs beside a quote: Intel's TCB info, identities and revocation lists from the
// provisioning certification service, AMD's certificates and revocation lists from its key distribution service, NVIDIA's reference values
// and the answers of its responder.
//
// What comes back is bounded before it is read, and taken only when it parses and was signed under the vendor's root: what a portal or
// a broken proxy answers is asked for again, and never kept. It is kept in a folder until it says that it ends, so that a second
// verification needs no network. Whether it is recent enough, and what it says of a machine, is judged by attest/tdx,
// attest/sevsnp and attest/nvidia. It is for command lines and caches; the verifier itself never reaches it.
//
// Every error is a check.ErrUnavailable: collateral that can't be had is a verification that can't be made.
package collateral

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/attest/nvidia"
)

// Sources are the services' base URLs.
type Sources struct {
	IntelPCS   string // https://api.trustedservices.intel.com
	IntelCerts string // https://certificates.trustedservices.intel.com
	AMDKDS     string // https://kdsintf.amd.com
	NVIDIARIM  string // https://rim.attestation.nvidia.com
	NVIDIAOCSP string // https://ocsp.ndis.nvidia.com
	// PCCS is the address of a provisioning certificate caching service, which is asked in the place of both of Intel's.
	PCCS string
	// Update is which of two TCB infos and identities is asked for: UpdateEarly is that of a TCB recovery from the day on which it is
	// disclosed, UpdateStandard that of a year later. Default: the service's own, which is UpdateStandard.
	Update string
}

// The updates of Intel's service: PCS API 4, parameter update.
const (
	UpdateEarly    = "early"
	UpdateStandard = "standard"
)

// DefaultSources are the vendors' own services. Source: Intel's API documentation for the PCS, version 4; AMD document 57230; NVIDIA's
// attestation SDK (rim.h, nv_ocsp.h).
func DefaultSources() Sources {
	return Sources{IntelPCS: "https://api.trustedservices.intel.com", IntelCerts: "https://certificates.trustedservices.intel.com",
		AMDKDS: "https://kdsintf.amd.com", NVIDIARIM: "https://rim.attestation.nvidia.com", NVIDIAOCSP: "https://ocsp.ndis.nvidia.com"}
}

// Fetcher fetches. The zero value of a field is its default. It is safe for concurrent use.
type Fetcher struct {
	Sources Sources
	// Folder is a folder of files that is read in the place of all services: Intel's in the forms of package dialect, AMD's
	// certificates and revocation lists in DER or PEM. Default "": the services.
	Folder string
	Client *http.Client  // default: one with a deadline of 30 s a request
	Cache  string        // folder; "" keeps nothing
	MaxAge time.Duration // of what the cache gives; default 24 h, and never longer than a document holds
	Now    func() time.Time
	// IntelRoot and AMDRoots are under whom documents must be signed to be taken; default the vendors' own.
	IntelRoot *x509.Certificate
	AMDRoots  []*x509.Certificate
	// NVIDIARoots are under whom reference values must be signed; default NVIDIA's own.
	NVIDIARoots nvidia.Roots
	// Attempts is how often a request is made that the service puts off (429, 5xx), that breaks, or whose answer is not what was asked
	// for; default 4. AMD's service
	// allows about one request in ten seconds.
	Attempts int
	// Pause is the first wait between attempts when the service names none; it doubles. Default 2 s, at most maxPause.
	Pause time.Duration
	// Reach is how long anybody is waited for at a service's address before it is given up, without another attempt; default 5 s. It is
	// of no use with a Client.
	Reach time.Duration
	// Wait waits; tests replace it.
	Wait func(context.Context, time.Duration) error
}

const (
	maxBodyBytes   = 4 << 20
	maxHeaderBytes = 64 << 10
	maxPause       = 30 * time.Second
	requestLimit   = 30 * time.Second
)

// answer is a body and the one header that belongs to it, as they are kept.
type answer struct {
	URL     string    `json:"url"`
	Fetched time.Time `json:"fetched"`
	Chain   string    `json:"chain,omitempty"` // PEM, decoded from the header
	Body    []byte    `json:"body"`
}

// judge says until when an answer holds, or why it is none.
type judge func(answer) (until time.Time, err error)

// question is what a service is asked.
type question struct {
	address     string
	chainHeader string // that carries the issuers' chain; "" wants none
	body        []byte // of a POST; nil is a GET
	contentType string // of the body
}

// kept is the name under which the answer is kept: the address, and of a POST what was asked there.
func (q question) kept() string {
	if q.body == nil {
		return q.address
	}
	return fmt.Sprintf("%s#%x", q.address, sha256.Sum256(q.body))
}

// get returns the body at the URL and, decoded, the header that carries the issuers' chain ("" wants none).
func (f *Fetcher) get(ctx context.Context, address, chainHeader string, judged judge) (answer, error) {
	return f.ask(ctx, question{address: address, chainHeader: chainHeader}, judged)
}

func (f *Fetcher) ask(ctx context.Context, q question, judged judge) (answer, error) {
	if kept, ok := f.kept(q.kept(), judged); ok {
		return kept, nil
	}
	a, err := f.fetch(ctx, q, judged)
	if err != nil {
		return answer{}, fmt.Errorf("fetching %s: %w: %w", q.address, check.ErrUnavailable, err)
	}
	if err := f.keep(a); err != nil {
		return answer{}, fmt.Errorf("keeping %s: %w: %w", q.address, check.ErrUnavailable, err)
	}
	return a, nil
}

func (f *Fetcher) fetch(ctx context.Context, q question, judged judge) (answer, error) {
	attempts, pause := f.Attempts, f.Pause
	if attempts == 0 {
		attempts = 4
	}
	if pause == 0 {
		pause = 2 * time.Second
	}
	var last error
	for n := range attempts {
		if n > 0 {
			wait := min(pause+time.Duration(rand.Int64N(int64(pause)/4+1)), maxPause) // not all clients at once
			var put putOff
			if errors.As(last, &put) && put.after > 0 {
				wait = min(put.after, maxPause)
			}
			if err := f.wait(ctx, wait); err != nil {
				return answer{}, errors.Join(err, last)
			}
			pause *= 2
		}
		a, err := f.once(ctx, q)
		if err == nil {
			// What has ended is taken all the same: the service has nothing newer, and the verdict says so.
			if _, wrong := judged(a); wrong == nil {
				return a, nil
			} else {
				err = putOff{err: fmt.Errorf("the answer is not what was asked for: %w", wrong)}
			}
		}
		last = err
		var put putOff
		if !errors.As(err, &put) {
			return answer{}, err
		}
	}
	return answer{}, fmt.Errorf("%d attempts: %w", attempts, last)
}

// putOff is a failure after which another attempt makes sense.
type putOff struct {
	after time.Duration // what the service asks for; 0 is nothing
	err   error
}

func (p putOff) Error() string { return p.err.Error() }
func (p putOff) Unwrap() error { return p.err }

func (f *Fetcher) once(ctx context.Context, q question) (answer, error) {
	client, reach, reached := f.Client, cmp.Or(f.Reach, 5*time.Second), false
	if client == nil {
		client = &http.Client{Timeout: requestLimit, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: reach}).DialContext, TLSHandshakeTimeout: reach, MaxResponseHeaderBytes: maxHeaderBytes}}
	}
	method, body := http.MethodGet, io.Reader(nil)
	if q.body != nil {
		method, body = http.MethodPost, bytes.NewReader(q.body)
	}
	request, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { reached = true }}), method, q.address, body)
	if err != nil {
		return answer{}, err
	}
	if q.contentType != "" {
		request.Header.Set("Content-Type", q.contentType)
	}
	response, err := client.Do(request)
	if late := net.Error(nil); err != nil && !reached && ctx.Err() == nil && errors.As(err, &late) && late.Timeout() {
		return answer{}, fmt.Errorf("nothing came from the service in %s: something drops packets on the way, or it is gone: %w", reach, err)
	}
	if err != nil {
		return answer{}, putOff{err: err}
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return answer{}, putOff{time.Duration(seconds) * time.Second, fmt.Errorf("the service answers %s", response.Status)}
	case response.StatusCode != http.StatusOK:
		return answer{}, fmt.Errorf("the service answers %s", response.Status)
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, maxBodyBytes+1))
	if err != nil {
		return answer{}, putOff{err: err}
	}
	if len(content) == 0 || len(content) > maxBodyBytes {
		return answer{}, fmt.Errorf("the body has %d bytes, want 1 to %d", len(content), maxBodyBytes)
	}
	a := answer{URL: q.kept(), Fetched: f.now(), Body: content}
	if q.chainHeader != "" {
		if a.Chain, err = url.PathUnescape(response.Header.Get(q.chainHeader)); err != nil || a.Chain == "" {
			return answer{}, fmt.Errorf("header %s is %.60q, want a chain in PEM: %v", q.chainHeader, response.Header.Get(q.chainHeader), err)
		}
	}
	return a, nil
}

func (f *Fetcher) wait(ctx context.Context, d time.Duration) error {
	if f.Wait != nil {
		return f.Wait(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (f *Fetcher) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

func (f *Fetcher) file(address string) string {
	return filepath.Join(f.Cache, fmt.Sprintf("%x.json", sha256.Sum256([]byte(address))))
}

// kept returns what the cache has of a URL, when it is young enough and holds still. A file that is not as it was written is as good
// as none.
func (f *Fetcher) kept(address string, judged judge) (answer, bool) {
	if f.Cache == "" {
		return answer{}, false
	}
	data, err := os.ReadFile(f.file(address))
	if err != nil || len(data) > 2*maxBodyBytes {
		return answer{}, false
	}
	var a answer
	if err := json.Unmarshal(data, &a, json.RejectUnknownMembers(true)); err != nil || a.URL != address {
		return answer{}, false
	}
	limit := f.MaxAge
	if limit == 0 {
		limit = 24 * time.Hour
	}
	until, err := judged(a)
	age := f.now().Sub(a.Fetched)
	return a, err == nil && !f.now().After(until) && age >= 0 && age <= limit
}

// againAfter is how old an answer must be to be asked for again: whoever is refused once a second asks no service once a second.
const againAfter = time.Minute

// drop removes from the cache what it has of a URL, unless that came just now, and reports whether there was something.
func (f *Fetcher) drop(address string) bool {
	// How long it holds is of no matter here: the clock goes on meanwhile, so any moment after now does.
	kept, ok := f.kept(address, func(answer) (time.Time, error) { return f.now().Add(time.Hour), nil })
	if ok && f.now().Sub(kept.Fetched) < againAfter {
		return false
	}
	return f.Cache != "" && os.Remove(f.file(address)) == nil && ok
}

func (f *Fetcher) keep(a answer) error {
	if f.Cache == "" {
		return nil
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(f.Cache, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.file(a.URL))
}
