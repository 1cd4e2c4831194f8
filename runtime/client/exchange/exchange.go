// Package exchange is a client without a network: it asks a guest over connections that are somebody else's, such as those of a browser's
// page. Whoever carries the bytes is believed in nothing, and decides nothing but whether they come.
//
//	client, err := exchange.New(config)
//	question := client.Ask()                  // GET question.Target of the guest
//	guest, err := question.Judge(evidence)    // the one way to something that seals
//	call, err := guest.Seal(request)          // POST call.Sealed to call.Path
//	data, err := call.Take(piece)             // of what came back, piece by piece
//	data, err := call.End()                   // the end of what came
//	answer := call.Answer()                   // what is proven
//
// Errors have the classes of package runtime/client. An answer's end is passed on once it is proven, and nothing of one in a single piece is
// before that.
package exchange

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
)

// Config says what a guest must be, and who pays. The zero Config accepts nothing.
type Config struct {
	Policy attest.Policy
	Roots  attest.Roots
	// Payer is charged where a guest charges and a request names nobody; zero: such a request is refused.
	Payer ton.Address
	// Now is the clock; nil: the machine's.
	Now func() time.Time
	// Seen is what Client.Seen returned of an earlier client, so that a step back between the two is said as well. May be nil.
	Seen []Seen
}

// WithReleases returns the policy with the releases of a signed list, and when that was issued. One that was issued before notBefore is
// older than what the caller has seen, and refused.
func WithReleases(p attest.Policy, signed []byte, notBefore time.Time) (with attest.Policy, issued time.Time, err error) {
	if with, err = p.WithReleases(signed); err != nil {
		return attest.Policy{}, time.Time{}, fmt.Errorf("%w: %v", check.ErrRejected, err)
	}
	document, _, err := release.DecodeList(signed)
	if err != nil {
		return attest.Policy{}, time.Time{}, fmt.Errorf("%w: %v", check.ErrRejected, err)
	}
	if document.Issued.Before(notBefore) {
		return attest.Policy{}, time.Time{}, fmt.Errorf("%w: taking release list: it was issued at %s, and one of %s was seen before",
			check.ErrRejected, document.Issued.Format(time.RFC3339), notBefore.UTC().Format(time.RFC3339))
	}
	return with, document.Issued, nil
}

// Client asks guests that meet one policy. It may be used by several goroutines.
type Client struct {
	config Config

	mu   sync.Mutex
	seen map[[16]byte]*Seen
}

// maxSeen bounds how many instances are remembered.
const maxSeen = 1024

// Seen is how far a guest's receipts and its counts have come.
type Seen struct {
	Instance string            `json:"instance"` // in hexadecimal
	Sequence uint64            `json:"sequence"` // of its last receipt
	Counts   map[string]uint64 `json:"counts"`   // by the contract that is charged
}

// New returns a client that has verified nothing yet.
func New(c Config) (*Client, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Roots.Facts == nil {
		c.Roots.Facts = new(attest.Facts)
	}
	client := &Client{config: c, seen: map[[16]byte]*Seen{}}
	if len(c.Seen) > maxSeen {
		return nil, fmt.Errorf("remembering guests: %d of them, want at most %d", len(c.Seen), maxSeen)
	}
	for _, s := range c.Seen {
		instance, err := hex.DecodeString(s.Instance)
		if err != nil || len(instance) != 16 {
			return nil, fmt.Errorf("remembering guests: instance %.40q, want 32 hexadecimal digits", s.Instance)
		}
		s.Counts = maps.Clone(s.Counts)
		client.seen[[16]byte(instance)] = &s
	}
	return client, nil
}

// Seen returns how far the guests have come that have answered.
func (c *Client) Seen() []Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []Seen{}
	for _, s := range c.seen {
		all = append(all, Seen{s.Instance, s.Sequence, maps.Clone(s.Counts)})
	}
	slices.SortFunc(all, func(a, b Seen) int { return strings.Compare(a.Instance, b.Instance) })
	return all
}

// Question is a challenge to a guest, good for one judgement.
type Question struct {
	// Target is what a GET asks the guest for, path and query.
	Target string

	client *Client
	nonce  [32]byte
}

// Ask returns a new question.
func (c *Client) Ask() *Question {
	q := &Question{client: c}
	rand.Read(q.nonce[:])
	q.Target = evidence.ServedAt + "?" + evidence.DetachedParameter + "=" + hex.EncodeToString(q.nonce[:])
	return q
}

// errAsked says that a question had its answer.
var errAsked = fmt.Errorf("%w: the question was answered before", check.ErrRejected)

// Judge judges what came back for the question. The error says with its class why no guest comes of it.
func (q *Question) Judge(untrusted []byte) (*Guest, error) {
	if q.nonce == ([32]byte{}) {
		return nil, errAsked
	}
	nonce := q.nonce
	q.nonce = [32]byte{}
	e, err := evidence.Decode(untrusted)
	if err != nil {
		return nil, fmt.Errorf("%w: reading evidence: %v", check.ErrRejected, err)
	}
	result, err := attest.VerifyDetached(e, nonce, q.client.config.Policy, q.client.config.Now(), q.client.config.Roots)
	if err != nil {
		return nil, err
	}
	key, err := envelope.KeyOf(result)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", check.ErrRejected, err)
	}
	return &Guest{client: q.client, key: key, result: result}, nil
}

// Guest is a guest that was accepted, until its key is replaced. Only Question.Judge makes one.
type Guest struct {
	client *Client
	key    *envelope.Key
	result *attest.Result
}

// renewBefore is how long before its end a key is replaced. Guests make a new one two minutes before.
const renewBefore = 90 * time.Second

// Result returns what was verified.
func (g *Guest) Result() *attest.Result { return g.result }

// KeyID names the key that is sealed to, as envelope.KeyHeader does.
func (g *Guest) KeyID() string { return g.key.ID() }

// Fresh reports whether the key holds for a while. One that is not fresh is to be asked anew before anything is sealed.
func (g *Guest) Fresh() bool { return g.client.config.Now().Before(g.key.NotAfter().Add(-renewBefore)) }

// Request is what is asked of a guest.
type Request struct {
	Method, Path string
	Query        string // what follows ?, sealed beside the path; "" is none
	Header       []envelope.Field
	Body         []byte
}

// passed are the headers that go to a guest. The rest of a client's tells who it is, and nothing that a guest needs. A key goes to a guest that
// settles on chain, and to nobody else.
var passed = []string{"accept", authorization, "content-type", payerHeader, strings.ToLower(api.MaxCoefficientHeader)}

const authorization = "authorization"

var payerHeader = strings.ToLower(api.ClientHeader)

// Seal seals a request. What it returns is sent once.
func (g *Guest) Seal(r Request) (*Call, error) {
	if strings.ContainsAny(r.Path, "?#") {
		return nil, fmt.Errorf("sealing request: path %.80q, want one without a query, which has its own place", r.Path)
	}
	inner := envelope.Request{Method: r.Method, Path: r.Path, Query: r.Query, Body: r.Body}
	named := map[string][]string{}
	for _, f := range r.Header {
		name, value := strings.ToLower(f.Name), strings.Trim(f.Value, " \t")
		switch {
		case name == authorization || name == payerHeader:
			named[name] = append(named[name], value)
		case slices.Contains(passed, name):
			inner.Header = append(inner.Header, envelope.Field{Name: name, Value: value})
		}
	}
	answers := r.Method == envelope.Method && slices.Contains(api.Answers(), r.Path)
	payer, key, err := g.payer(answers, named[payerHeader], named[authorization])
	if err != nil {
		return nil, fmt.Errorf("sealing request: %w", err)
	}
	if !payer.IsZero() {
		inner.Header = append(inner.Header, envelope.Field{Name: payerHeader, Value: payer.String()})
	}
	if key != (api.Key{}) {
		inner.Header = append(inner.Header, envelope.Field{Name: authorization, Value: "Bearer " + key.String()})
	}
	slices.SortStableFunc(inner.Header, func(a, b envelope.Field) int { return strings.Compare(a.Name, b.Name) })
	sealed, answer, err := g.key.Seal(inner, g.client.config.Now())
	if err != nil {
		return nil, err
	}
	c := &Call{Path: r.Path, Sealed: sealed, guest: g, opens: answer, payer: payer}
	if answers {
		c.request = slices.Clone(r.Body)
		c.proves = true
	}
	c.before = g.client.Seen()
	return c, nil
}

// payer returns who pays for a request, and the key to show.
func (g *Guest) payer(answers bool, named, keys []string) (payer ton.Address, key api.Key, err error) {
	service := g.result.Config().Service
	if len(named) > 1 || len(keys) > 1 {
		return payer, key, fmt.Errorf("%d payment contracts and %d keys, want one each", len(named), len(keys))
	}
	if len(named) == 1 {
		if payer, err = ton.Parse(named[0]); err != nil {
			return payer, key, fmt.Errorf("%s: %w", api.ClientHeader, err)
		}
	}
	if service.Settles() && len(keys) == 1 {
		scheme, text, _ := strings.Cut(keys[0], " ")
		if key, err = api.ParseKey(text); err != nil || !strings.EqualFold(scheme, "Bearer") {
			return payer, api.Key{}, errors.New("this guest settles on chain, and the key is none")
		}
		of := ton.Address{Account: key.Contract}
		if len(named) == 1 && payer != of {
			return payer, api.Key{}, fmt.Errorf("%s is %s, and the key is of %s", api.ClientHeader, payer, of)
		}
		return of, key, nil
	}
	if !answers || service.Price.Payment != config.PayCharge {
		return payer, key, nil
	}
	if service.Settles() {
		return payer, key, errors.New("this guest settles on chain, and there is no key")
	}
	if len(named) == 0 {
		payer = g.client.config.Payer
	}
	if payer.IsZero() {
		return payer, key, errors.New("this guest charges, and no payment contract is named")
	}
	return payer, key, nil
}
