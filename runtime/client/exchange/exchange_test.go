package exchange_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/client/exchange"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/receipt"
)

var payer = ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}

// carrier is a browser: it sends what it is told to, and follows nothing.
type carrier struct {
	t    testing.TB
	base string
	http *http.Client
}

func newCarrier(t testing.TB, base string) *carrier {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return &carrier{t, base, &http.Client{Transport: transport}}
}

func (c *carrier) get(target string) []byte {
	c.t.Helper()
	response, err := c.http.Get(c.base + target)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		c.t.Fatalf("GET %s: %d, %v", target, response.StatusCode, err)
	}
	return b
}

func (c *carrier) post(call *exchange.Call, key string) (status int, body []byte) {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), envelope.Method, c.base+call.Path, bytes.NewReader(call.Sealed))
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Content-Type", envelope.RequestType)
	request.Header.Set(envelope.KeyHeader, key)
	response, err := c.http.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, body
}

func clientOf(t testing.TB, g *clienttest.Guest, change ...func(*exchange.Config)) *exchange.Client {
	t.Helper()
	c := exchange.Config{Policy: g.Policy(), Roots: g.Roots(), Payer: payer}
	for _, f := range change {
		f(&c)
	}
	client, err := exchange.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func meet(t testing.TB, c *exchange.Client, by *carrier) *exchange.Guest {
	t.Helper()
	q := c.Ask()
	guest, err := q.Judge(by.get(q.Target))
	if err != nil {
		t.Fatal(err)
	}
	return guest
}

const streamed = `{"model":"tiny","messages":[{"role":"user","content":"Norway?"}],"stream":true}`

var whole = strings.Replace(streamed, `,"stream":true`, "", 1)

func request(body string) exchange.Request {
	return exchange.Request{Method: "POST", Path: api.ChatCompletions, Body: []byte(body), Header: []envelope.Field{
		{Name: "Content-Type", Value: "application/json"}, {Name: "X-Who", Value: "me"}, {Name: "Cookie", Value: "me"}, {Name: "Authorization", Value: "Bearer k "}}}
}

// feed gives a call what came in pieces of n bytes.
func feed(call *exchange.Call, body []byte, n int) (passed string, err error) {
	for piece := range slices.Chunk(body, n) {
		data, err := call.Take(piece)
		if passed += string(data); err != nil {
			return passed, err
		}
	}
	data, err := call.End()
	return passed + string(data), err
}

// TestExchange asks a guest on each platform, streamed and in one piece, in pieces of any size.
func TestExchange(t *testing.T) {
	raw, now := clienttest.Measured(t), time.Now()
	tpm, td, snp := attesttest.New(raw, now), attesttest.NewTDXGuest(raw, now), attesttest.NewSNPGuest(raw, sevsnp.Genoa, now)
	for _, tt := range []struct {
		platform evidence.Platform
		on       clienttest.Hardware
		contents *attesttest.Contents
	}{{evidence.VTPM, tpm, &tpm.Contents}, {evidence.TDX, td, &td.Contents}, {evidence.SEVSNP, snp, &snp.Contents}} {
		g := clienttest.On(t, tt.on, tt.contents)
		by := newCarrier(t, g.URL)
		client := clientOf(t, g)
		guest := meet(t, client, by)
		if guest.Result().Platform() != tt.platform || !guest.Fresh() {
			t.Errorf("%s: got %s, fresh: %t", tt.platform, guest.Result().Platform(), guest.Fresh())
		}
		for _, body := range []string{streamed, whole} {
			for _, n := range []int{1, 7, 1 << 20} {
				call, err := guest.Seal(request(body))
				if err != nil {
					t.Fatal(err)
				}
				status, answer := by.post(call, guest.KeyID())
				passed, err := feed(call, answer, n)
				if err != nil || status != 200 || call.Head().Status != 200 || !strings.Contains(passed, "Oslo") || call.Answer() == nil ||
					call.Answer().Content != "The capital is \x1b[1mOslo." || strings.Contains(passed, "[DONE]") != (body == streamed) || len(call.StepsBack()) != 0 {
					t.Errorf("%s, in pieces of %d: %q, %v, steps back %q", tt.platform, n, passed, err, call.StepsBack())
				}
				if call.Answer() != nil && (call.Answer().Receipt.Client != payer || call.Answer().Charge == nil) {
					t.Errorf("%s: charged to %s", tt.platform, call.Answer().Receipt.Client)
				}
				call.Close()
			}
		}
		for _, h := range g.Heads() {
			if names := slices.Sorted(maps.Keys(h)); !slices.Equal(names, []string{"Chrysalis-Client", "Content-Length", "Content-Type"}) {
				t.Errorf("%s: the guest got the headers %q", tt.platform, names)
			}
		}
		for _, p := range g.Prompts() {
			if string(p) != streamed && string(p) != whole {
				t.Errorf("%s: the guest got %s", tt.platform, p)
			}
		}
	}
}

// TestNoGuestWithoutVerdict: nothing seals that is not of an accepted guest, and a question is good for one answer.
func TestNoGuestWithoutVerdict(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	by := newCarrier(t, g.URL)
	client := clientOf(t, g)
	good := func() (*exchange.Question, []byte) { q := client.Ask(); return q, by.get(q.Target) }
	for _, tt := range []struct {
		name string
		of   func() (*exchange.Question, []byte)
	}{
		{"another question's answer", func() (*exchange.Question, []byte) { _, e := good(); return client.Ask(), e }},
		{"an answer given twice", func() (*exchange.Question, []byte) {
			q, e := good()
			if _, err := q.Judge(e); err != nil {
				t.Fatal(err)
			}
			return q, e
		}},
		{"a byte more", func() (*exchange.Question, []byte) { q, e := good(); return q, append(e, 0) }},
		{"a byte less", func() (*exchange.Question, []byte) { q, e := good(); return q, e[:len(e)-1] }},
		{"nothing", func() (*exchange.Question, []byte) { return client.Ask(), nil }},
		{"evidence that is bound to a connection", func() (*exchange.Question, []byte) {
			q := client.Ask()
			return q, by.get(strings.Replace(q.Target, evidence.DetachedParameter, evidence.NonceParameter, 1))
		}},
		{"another HPKE key", func() (*exchange.Question, []byte) {
			q, raw := good()
			e, err := evidence.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			e.HPKE[7]++
			raw, err = e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return q, raw
		}},
		{"no HPKE key", func() (*exchange.Question, []byte) {
			q, raw := good()
			e, err := evidence.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			e.HPKE = nil
			raw, err = e.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return q, raw
		}},
	} {
		q, raw := tt.of()
		if guest, err := q.Judge(raw); guest != nil || !errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: got %v, %v, want a rejection and no guest", tt.name, guest, err)
		}
	}
	empty, err := exchange.New(exchange.Config{})
	if err != nil {
		t.Fatal(err)
	}
	q := empty.Ask()
	if guest, err := q.Judge(by.get(q.Target)); guest != nil || !errors.Is(err, check.ErrRejected) {
		t.Errorf("the zero policy: got %v, %v", guest, err)
	}
}

// TestEveryByteOfEvidence flips each byte in turn: no guest comes of any, but of words in the firmware's log, which is for people and is
// believed in nothing (what the log leads to is in the registers).
func TestEveryByteOfEvidence(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	by, client := newCarrier(t, g.URL), clientOf(t, g)
	q := client.Ask()
	raw := by.get(q.Target)
	again := *q
	if _, err := again.Judge(raw); err != nil {
		t.Fatal(err)
	}
	e, err := evidence.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	log := bytes.Index(raw, e.BootLog)
	var accepted []int
	for i := range raw {
		raw[i] ^= 0x10
		again = *q
		if _, err := again.Judge(raw); err == nil && (i < log || i >= log+len(e.BootLog)) {
			accepted = append(accepted, i)
		}
		raw[i] ^= 0x10
	}
	if len(accepted) > 0 {
		t.Errorf("%d bytes of %d are changed, and the guest accepted: %d to %d", len(accepted), len(raw), accepted[0], accepted[len(accepted)-1])
	}
}

// chunks cuts a sealed answer where its chunks begin.
func chunks(t *testing.T, body []byte) (nonce []byte, all [][]byte) {
	t.Helper()
	nonce, rest := body[:32], body[32:]
	for len(rest) > 0 {
		size, n := 1, int(rest[0]&0x3f)
		if rest[0]>>6 == 1 {
			size, n = 2, n<<8|int(rest[1])
		} else if rest[0]>>6 != 0 {
			t.Fatal("a chunk's length has more than two bytes")
		}
		if n == 0 {
			return nonce, append(all, rest)
		}
		all, rest = append(all, rest[:size+n]), rest[size+n:]
	}
	t.Fatal("no final chunk")
	return nil, nil
}

// TestChunks: of an answer whose chunks are not those that were sealed, in their order and to the last, nothing reads as whole.
func TestChunks(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	by := newCarrier(t, g.URL)
	guest := meet(t, clientOf(t, g), by)
	for _, tt := range []struct {
		name  string
		class error
		of    func(all [][]byte) [][]byte
	}{
		{"as they came", nil, func(all [][]byte) [][]byte { return all }},
		{"swapped", check.ErrRejected, func(all [][]byte) [][]byte { all[0], all[1] = all[1], all[0]; return all }},
		{"doubled", check.ErrRejected, func(all [][]byte) [][]byte { return slices.Insert(all, 1, all[0]) }},
		{"one dropped", check.ErrRejected, func(all [][]byte) [][]byte { return slices.Delete(all, 1, 2) }},
		{"the last missing", check.ErrUnavailable, func(all [][]byte) [][]byte { return all[:len(all)-1] }},
		{"the first alone", check.ErrUnavailable, func(all [][]byte) [][]byte { return all[:1] }},
		{"none", check.ErrUnavailable, func(all [][]byte) [][]byte { return nil }},
		{"the last cut", check.ErrUnavailable, func(all [][]byte) [][]byte {
			all[len(all)-1] = all[len(all)-1][:40]
			return all
		}},
		{"a byte behind the last", check.ErrUnavailable, func(all [][]byte) [][]byte { return append(all, []byte{0}) }},
		{"a bit changed", check.ErrRejected, func(all [][]byte) [][]byte { all[0][9] ^= 1; return all }},
	} {
		for _, n := range []int{1, 100, 1 << 20} {
			call, err := guest.Seal(request(streamed))
			if err != nil {
				t.Fatal(err)
			}
			_, body := by.post(call, guest.KeyID())
			nonce, all := chunks(t, body)
			if len(all) < 3 {
				t.Fatalf("%d chunks, want at least 3", len(all))
			}
			passed, err := feed(call, slices.Concat(append([][]byte{nonce}, tt.of(all)...)...), n)
			// The end mark of the guest's stream lies in a chunk before the last: what is passed on then is proven by the receipt.
			if !errors.Is(err, tt.class) || strings.Contains(passed, "[DONE]") != (call.Answer() != nil) || errors.Is(tt.class, check.ErrRejected) && call.Answer() != nil {
				t.Errorf("%s, in pieces of %d: passed %d bytes, %v, want %v", tt.name, n, len(passed), err, tt.class)
			}
		}
	}
	first, err := guest.Seal(request(streamed))
	if err != nil {
		t.Fatal(err)
	}
	second, err := guest.Seal(request(streamed))
	if err != nil {
		t.Fatal(err)
	}
	_, body := by.post(first, guest.KeyID())
	if passed, err := feed(second, body, 100); !errors.Is(err, check.ErrRejected) || passed != "" {
		t.Errorf("another request's answer: passed %q, %v", passed, err)
	}
	// What was opened once is not opened again, whoever sends it, and computes nothing.
	prompts := len(g.Prompts())
	if status, _ := by.post(first, guest.KeyID()); status == 200 || len(g.Prompts()) != prompts {
		t.Errorf("an envelope sent twice: got %d, and %d prompts more", status, len(g.Prompts())-prompts)
	}
}

// TestClear: what stands around no envelope is nobody's word, whatever it says.
func TestClear(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		rekey  bool
	}{
		{200, `{"choices":[{"message":{"content":"Bergen"}}]}`, false}, {500, "oops", false}, {302, "", false},
		{421, `{"error":{"code":"rekey"}}`, true}, {421, "", false}, {200, `{"error":{"code":"rekey"}}`, false},
	} {
		err := exchange.Clear(tt.status, []byte(tt.body))
		if !errors.Is(err, check.ErrUnavailable) || errors.Is(err, exchange.ErrRekey) != tt.rekey || strings.Contains(err.Error(), "Bergen") {
			t.Errorf("%d %s: got %v", tt.status, tt.body, err)
		}
	}
}

// TestSealRefuses: a request that no guest takes, or that nobody pays for.
func TestSealRefuses(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	by := newCarrier(t, g.URL)
	late := time.Now()
	guest := meet(t, clientOf(t, g, func(c *exchange.Config) { c.Payer = ton.Address{}; c.Now = func() time.Time { return late } }), by)
	pay := func(values ...string) (r exchange.Request) {
		r = request(streamed)
		for _, v := range values {
			r.Header = append(r.Header, envelope.Field{Name: "chrysalis-client", Value: v})
		}
		return r
	}
	for _, tt := range []struct {
		name string
		r    exchange.Request
		want string
	}{
		{"nobody pays", request(streamed), "no payment contract"},
		{"two pay", pay(payer.String(), payer.String()), "want one each"},
		{"no address", pay("me"), "Chrysalis-Client"},
		{"a query", exchange.Request{Method: "GET", Path: "/v1/models?a"}, "without a query"},
		{"a query with a space", exchange.Request{Method: "GET", Path: "/v1/models", Query: "a b"}, "path and query of"},
		{"no path", exchange.Request{Method: "GET", Path: "models"}, "path and query of"},
	} {
		if call, err := guest.Seal(tt.r); call != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := guest.Seal(pay(payer.String())); err != nil {
		t.Errorf("a request that names who pays: %v", err)
	}
	if _, err := guest.Seal(exchange.Request{Method: "GET", Path: api.Models}); err != nil {
		t.Errorf("models: %v", err)
	}
	late = guest.Result().NotAfter().Add(-time.Minute)
	if guest.Fresh() {
		t.Error("a minute before its end the key is called fresh")
	}
	late = late.Add(2 * time.Minute)
	if call, err := guest.Seal(pay(payer.String())); call != nil || err == nil || !strings.Contains(err.Error(), "good until") {
		t.Errorf("after the key's end: got %v", err)
	}
}

// TestStepsBack: a guest that comes behind what it has signed is told on, also by a client that remembers an earlier one, and answers that
// cross each other are not.
func TestStepsBack(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	by := newCarrier(t, g.URL)
	client := clientOf(t, g)
	guest := meet(t, client, by)
	var edit func(*receipt.Receipt)
	g.Spoil = func(_ []byte, r *clienttest.Reply) {
		edit(&r.Receipt)
		r.Charge.Tokens = r.Receipt.Cumulative
	}
	seal := func() *exchange.Call {
		t.Helper()
		call, err := guest.Seal(request(streamed))
		if err != nil {
			t.Fatal(err)
		}
		return call
	}
	said := func(call *exchange.Call, sequence, cumulative uint64) string {
		t.Helper()
		edit = func(r *receipt.Receipt) { r.Sequence, r.Cumulative = sequence, cumulative }
		_, body := by.post(call, guest.KeyID())
		if _, err := feed(call, body, 1<<20); err != nil {
			t.Fatal(err)
		}
		return strings.Join(call.StepsBack(), "; ")
	}
	if got := said(seal(), 10, 100); got != "" {
		t.Errorf("the first: %s", got)
	}
	crossing := seal()
	if got := said(seal(), 12, 124); got != "" {
		t.Errorf("the second: %s", got)
	}
	if got := said(crossing, 11, 112); got != "" {
		t.Errorf("one that was sealed before the second came: %s", got)
	}
	if got := said(seal(), 12, 136); !strings.Contains(got, "number 12") || strings.Contains(got, "counted") {
		t.Errorf("a number that was there: %q", got)
	}
	if got := said(seal(), 13, 136); !strings.Contains(got, "counted 136") || strings.Contains(got, "number") {
		t.Errorf("tokens that were not counted: %q", got)
	}
	kept, err := json.Marshal(client.Seen())
	if err != nil {
		t.Fatal(err)
	}
	var seen []exchange.Seen
	if err := json.Unmarshal(kept, &seen); err != nil {
		t.Fatal(err)
	}
	guest = meet(t, clientOf(t, g, func(c *exchange.Config) { c.Seen = seen }), by)
	if got := said(seal(), 5, 200); !strings.Contains(got, "number 13") {
		t.Errorf("a client that remembers: %q", got)
	}
}

// TestKeys: a key goes to a guest that settles on chain and names who pays; to another guest no key goes, whatever a program sends.
func TestKeys(t *testing.T) {
	raw := clienttest.Measured(t)
	m, err := config.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	m.Service.Chain = config.Chain{Params: register.Digest{4}, MaxAgeSeconds: 60, Anchor: config.Anchor{GlobalID: -217, Seqno: 3,
		RootHash: register.Digest{5}, FileHash: register.Digest{6}}}
	settled, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	key := api.Key{Contract: [32]byte{3}, Secret: [32]byte{4}}
	of := ton.Address{Account: key.Contract}
	for _, tt := range []struct {
		name          string
		raw           []byte
		header        []envelope.Field
		payer, refuse string
		shown         string
	}{
		{"a key", settled, []envelope.Field{{Name: "Authorization", Value: "bearer " + key.String()}}, of.String(), "", "Bearer " + key.String()},
		{"a key and its contract", settled, []envelope.Field{{Name: "authorization", Value: "Bearer " + key.String()}, {Name: "chrysalis-client", Value: of.String()}}, of.String(), "", "Bearer " + key.String()},
		{"a key and another contract", settled, []envelope.Field{{Name: "authorization", Value: "Bearer " + key.String()}, {Name: "chrysalis-client", Value: payer.String()}}, "", "the key is of", ""},
		{"no key", settled, nil, "", "there is no key", ""},
		{"what is none", settled, []envelope.Field{{Name: "authorization", Value: "Bearer sk-1"}}, "", "the key is none", ""},
		{"two keys", settled, []envelope.Field{{Name: "authorization", Value: "Bearer " + key.String()}, {Name: "authorization", Value: "Bearer " + key.String()}}, "", "want one each", ""},
		{"a guest that settles nothing", raw, []envelope.Field{{Name: "authorization", Value: "Bearer " + key.String()}}, payer.String(), "", ""},
	} {
		g := clienttest.New(t, tt.raw)
		by := newCarrier(t, g.URL)
		guest := meet(t, clientOf(t, g), by)
		call, err := guest.Seal(exchange.Request{Method: "POST", Path: api.ChatCompletions, Body: []byte(streamed),
			Header: append(tt.header, envelope.Field{Name: "Content-Type", Value: "application/json"})})
		if tt.refuse != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refuse) || strings.Contains(err.Error(), key.String()) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.refuse)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		status, body := by.post(call, guest.KeyID())
		if _, err := feed(call, body, 1<<20); err != nil || status != 200 || call.Answer().Receipt.Client.String() != tt.payer {
			t.Errorf("%s: got %d, %v, want it charged to %s", tt.name, status, err, tt.payer)
		}
		if got := strings.Join(g.Shown(), "|"); got != tt.shown {
			t.Errorf("%s: the guest was shown %q, want %q", tt.name, got, tt.shown)
		}
	}
}

// TestLists: a release list counts when enough signers stand for it, while it is fresh, and not when a newer one was seen.
func TestLists(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	by := newCarrier(t, g.URL)
	signers := make([]ed25519.PrivateKey, 3)
	rules := g.Rules()
	rules.ReleaseList = attest.ListRules{Threshold: 2, MaxAge: "168h"}
	for i := range signers {
		signers[i] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
		rules.ReleaseList.Signers = append(rules.ReleaseList.Signers, pubkey.Of(signers[i]))
	}
	values := rules.Releases
	rules.Releases = nil
	policy, err := rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	list := func(issued time.Time, by ...ed25519.PrivateKey) []byte {
		t.Helper()
		document := release.NewDocument(issued, 30*24*time.Hour)
		for _, v := range values {
			document.Releases = append(document.Releases, release.Listed{Manifest: register.Digest{7}, Values: v, Rebuilds: []release.Envelope{}})
		}
		signed, err := release.EncodeList(document)
		for _, key := range by {
			if err == nil {
				signed, err = release.SignList(signed, key)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for _, tt := range []struct {
		name, want string
		list       []byte
		after      time.Time
	}{
		{"two of three", "", list(now.Add(-time.Hour), signers[0], signers[2]), time.Time{}},
		{"the list that was seen", "", list(now.Add(-time.Hour), signers[0], signers[2]), now.Add(-time.Hour)},
		{"one of three", "want at least 2", list(now.Add(-time.Hour), signers[1]), time.Time{}},
		{"a list before the one that was seen", "was seen before", list(now.Add(-2*time.Hour), signers[0], signers[1]), now.Add(-time.Hour)},
		{"an old list", "release-list-fresh", list(now.Add(-169*time.Hour), signers[0], signers[1]), time.Time{}},
		{"no list", "release-list", nil, time.Time{}},
	} {
		with, issued, err := policy, time.Time{}, error(nil)
		if tt.list != nil {
			with, issued, err = exchange.WithReleases(policy, tt.list, tt.after)
		}
		if err == nil {
			q := clientOf(t, g, func(c *exchange.Config) { c.Policy = with }).Ask()
			_, err = q.Judge(by.get(q.Target))
		}
		if tt.want == "" && (err != nil || !issued.Equal(now.Add(-time.Hour))) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, issued %s, want %q", tt.name, err, issued, tt.want)
		}
	}
}
