// Package client asks a guest and believes nothing that the guest has not proven.
//
// The common path: Dial verifies a guest, Ask sends it a prompt and passes the text on as it comes, and the Answer that Ask
// returns has a receipt, and where answers are charged a charge, that the attested keys signed over this request and this
// text at the attested price.
//
//	guest, err := client.Dial(ctx, "https://10.0.0.7:8443", ratls.Config{Policy: policy, Roots: roots})
//	defer guest.Close()
//	answer, err := guest.Ask(ctx, client.Request{Messages: []client.Message{{Role: "user", Content: prompt}}, Payer: contract}, nil)
//
// What can go wrong has four classes. An error that wraps check.ErrRejected says that the guest is not what the policy
// accepts, or that what it sent is not proven. *Declined is a guest's own refusal. *Cut is an answer that ended early, with
// what is proven of its beginning. An error that wraps check.ErrUnavailable, as a Cut may, says that it could not be found out.
// What the caller has done wrong, an URL or a Request that no guest takes, has no class. No error quotes a prompt.
//
// What this package does not promise: that an answer is a good one, or that the count in a charge began where the caller
// thinks. Whoever pays keeps the last receipt: the next one's Cumulative is that one's and the answer's Weighted, as long as
// nobody else asks in the name of the same contract.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/proof"
)

// Bounds of what is read of a guest.
const (
	maxEventBytes  = 256 << 10
	maxAnswerBytes = 64 << 20
	maxErrorBytes  = 8 << 10
)

// Guest is a guest that was verified. It may be used by several goroutines.
type Guest struct {
	base      string
	transport *ratls.Transport
	result    *attest.Result
}

// Dial verifies the guest at an https URL (scheme, host and port alone). Each connection that is made later is verified
// anew, before anything is sent on it.
func Dial(ctx context.Context, guestURL string, c ratls.Config) (*Guest, error) {
	u, err := url.Parse(guestURL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" ||
		*u != (url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}) {
		return nil, fmt.Errorf("dialling guest: URL %q, want https://HOST[:PORT]", guestURL)
	}
	g := &Guest{base: "https://" + u.Host, transport: ratls.NewTransport(c)}
	if err := g.meet(ctx); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// meet asks for the models, which any guest answers: what counts is the connection, which carries the next request.
func (g *Guest) meet(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+api.Models, nil)
	if err != nil {
		return err
	}
	response, result, err := g.transport.Do(request)
	if err != nil {
		return classed("dialling guest", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return declined(response)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxEventBytes)); err != nil {
		return classed("dialling guest", err)
	}
	g.result = result
	return nil
}

// Result returns what was verified of the guest when it was dialled.
func (g *Guest) Result() *attest.Result { return g.result }

// Close closes the connections that carry no request.
func (g *Guest) Close() { g.transport.CloseIdleConnections() }

// What package proof makes of an answer.
type (
	Untrusted = proof.Untrusted
	Call      = proof.Call
	Answer    = proof.Answer
	Piece     = proof.Piece
	Cut       = proof.Cut
	Watched   = proof.Watched
)

// Judge is proof.Judge.
func Judge(u Untrusted, guest *attest.Result) (*Answer, error) { return proof.Judge(u, guest) }

// Ask sends a request, calls each for every piece of the answer as it comes (each may be nil), and returns the answer once
// receipt and charge are verified. An error of each ends the answer and is in the chain of what Ask returns. A guest that
// has another config than the one that Dial has met is refused: the request was made for that one.
func (g *Guest) Ask(ctx context.Context, r Request, each func(Piece) error) (*Answer, error) {
	payer, err := r.payer(g.result.Config())
	if err != nil {
		return nil, err
	}
	body, err := r.body(g.result.Config())
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, g.base+api.ChatCompletions, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if !payer.IsZero() {
		request.Header.Set(api.ClientHeader, payer.String())
	}
	if r.Key != (api.Key{}) {
		request.Header.Set("Authorization", "Bearer "+r.Key.String())
	}
	if r.MaxCoefficient > 0 {
		request.Header.Set(api.MaxCoefficientHeader, strconv.FormatUint(uint64(r.MaxCoefficient), 10))
	}
	response, result, err := g.transport.Do(request)
	if err != nil {
		return nil, classed("asking guest", err)
	}
	defer response.Body.Close()
	if !bytes.Equal(result.ConfigBytes(), g.result.ConfigBytes()) {
		return nil, fmt.Errorf("asking guest: %w: it now has the config %s, want %s", check.ErrRejected,
			config.SHA256(result.ConfigBytes()), config.SHA256(g.result.ConfigBytes()))
	}
	if response.StatusCode != http.StatusOK {
		return nil, declined(response)
	}
	answer, err := proof.Read(response.Body, Untrusted{Request: body, Payer: payer}, result, each)
	if err == nil && r.MaxCoefficient > 0 && answer.Receipt.Coefficient > r.MaxCoefficient {
		return nil, fmt.Errorf("verifying receipt: %w: its coefficient is %d, want at most %d", check.ErrRejected, answer.Receipt.Coefficient, r.MaxCoefficient)
	}
	return answer, err
}

// Declined is the refusal of a guest, which has computed nothing and charges nothing.
type Declined struct {
	Status  int    // of HTTP
	Code    string // of API.md, such as "busy"; may be ""
	Param   string // the field that is meant; may be ""
	Message string // the guest's words: untrusted text
}

func (d *Declined) Error() string {
	if d.Message == "" {
		return fmt.Sprintf("the guest answered %d %s", d.Status, http.StatusText(d.Status))
	}
	return fmt.Sprintf("the guest says %q (%d %s)", d.Message, d.Status, http.StatusText(d.Status))
}

func declined(response *http.Response) error {
	d := &Declined{Status: response.StatusCode}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBytes))
	if err != nil {
		return classed("reading the guest's refusal", err)
	}
	var document struct {
		Error struct {
			Message string `json:"message"`
			Code    string `json:"code"`
			Param   string `json:"param"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &document) == nil {
		d.Message, d.Code, d.Param = document.Error.Message, document.Error.Code, document.Error.Param
	}
	return d
}

// classed gives an error the class that it lacks: what is not refused could not be found out.
func classed(doing string, err error) error {
	if errors.Is(err, check.ErrRejected) || errors.Is(err, check.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%s: %w: %w", doing, check.ErrUnavailable, err)
}
