package lending

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/ratls"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
	"chrysalis/attest/release"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
)

// TestCustodianLies: a borrower takes a secret from nobody but a custodian of its own image and identity, on hardware that the identity
// names, and shows nothing of itself to anybody else.
func TestCustodianLies(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spoil      func(h *hardware, p *party) // the custodian
	}{
		{"another image", "names no key", func(_ *hardware, p *party) { p.build = 1 }},
		{"an image of the host's that runs as ours", "tdx.quote-signature", func(_ *hardware, p *party) {
			p.build = 1
			// The quote is changed to claim our registers, and nothing signs that.
			p.edit = func(e *evidence.Evidence) { e.Quote = bytes.Replace(e.Quote, rtmr2(1), rtmr2(0), 1) }
		}},
		{"another identity", "identity", func(_ *hardware, p *party) { p.config.Identity.PayoutOwner.Account[0]++ }},
		{"an identity of a shorter lease", "identity", func(_ *hardware, p *party) { p.config.Identity.Custody.LeaseSeconds-- }},
		{"a guest that serves", "a custodian: false", func(h *hardware, p *party) { p.config = example(h.custody(), false) }},
		{"a custodian without a secret", "runtime-log-order", func(_ *hardware, p *party) { p.released = false }},
		{"hardware of another root", "tdx", func(_ *hardware, p *party) { p.on = newHardware(evidence.TDX) }},
		{"another platform", "platform is vtpm, want tdx", func(_ *hardware, p *party) { p.on = newHardware(evidence.VTPM) }},
		{"a log of another story", "rtmr-3", func(_ *hardware, p *party) {
			p.edit = func(e *evidence.Evidence) {
				records, err := eventlog.ParseRuntime(e.RuntimeLog)
				if err != nil {
					panic(err)
				}
				e.RuntimeLog = nil
				for _, r := range records[:len(records)-1] {
					e.RuntimeLog = r.Append(e.RuntimeLog)
				}
			}
		}},
		{"evidence for another's key", "tls-key", func(_ *hardware, p *party) {
			p.quote = func(r evidence.Request, _ *party) evidence.Request { r.TLSKey[0]++; return r }
		}},
		{"evidence of yesterday", "challenge", func(_ *hardware, p *party) {
			p.quote = func(r evidence.Request, _ *party) evidence.Request {
				if r.NonceRoot != ([32]byte{}) {
					r.NonceRoot[0]++
				}
				return r
			}
		}},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			h := newHardware(evidence.TDX)
			p := custodianOn(h)
			tt.spoil(h, p)
			l := startLiar(t, p)
			asks := 0
			b := borrowerOn(h)
			b.quote = func(r evidence.Request, _ *party) evidence.Request { asks++; return r }
			side := borrowerOn(h).side(t)
			loan, err := Borrow(t.Context(), l.dial(), side, nil, b.evidence)
			if loan != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got loan %v and error %v, want an error with %q", loan, err, tt.want)
			}
			if asks != 0 {
				t.Errorf("the borrower has made evidence %d times for a liar, want none", asks)
			}
		})
	}
}

// rtmr2 is the register of a build on the software platform.
func rtmr2(build byte) []byte {
	value := [48]byte{0x10, 2}
	value[47] ^= build
	return value[:]
}

// startLiar starts a guest that lends, whatever it is: it judges nobody.
func startLiar(t *testing.T, p *party) *pipes {
	t.Helper()
	attested, err := guest.NewServer(p.evidence, nil)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(session.EvidencePath, attested)
	mux.HandleFunc(pathChallenge, func(w http.ResponseWriter, _ *http.Request) { reply(w, bytes.Repeat([]byte{1}, nonceBytes)) })
	mux.HandleFunc(pathLoan, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, role.EncodeLoan(role.Loan{Secret: theSecret(), Loan: eventlog.Loan{Number: 1}}))
	})
	config := attested.TLSConfig()
	config.ClientAuth = tls.RequestClientCert
	server := &http.Server{Handler: mux, ConnContext: attested.ConnContext, ErrorLog: log.New(io.Discard, "", 0)}
	n := newPipes()
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(tls.NewListener(n, config)) }()
	t.Cleanup(func() { _ = server.Close(); _ = n.Close(); <-done })
	return n
}

// TestMalformedLoan: what the right custodian answers must be a loan.
func TestMalformedLoan(t *testing.T) {
	inBubble(t, "without a number", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		l.lies = func(_ role.LoanCall, a role.Answer, loan role.Loan) (role.Answer, role.Loan) {
			loan.Number = 0
			return a, loan
		}
		if loan, err := borrow(t, l, borrowerOn(h)); err == nil || !strings.Contains(err.Error(), "no number") {
			t.Errorf("got loan %v and error %v, want one that says it has no number", loan, err)
		}
	})
}

// TestTakerLies: the secret goes to nobody but a guest of the custodian's image and identity that has none yet, on hardware that the
// identity names, over the connection that its evidence is for.
func TestTakerLies(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spoil      func(h *hardware, p *party) // the borrower
	}{
		{"another image", "names no key", func(_ *hardware, p *party) { p.build = 1 }},
		{"an image of the host's that runs as ours", "tdx.quote-signature", func(_ *hardware, p *party) {
			p.build = 1
			p.edit = func(e *evidence.Evidence) { e.Quote = bytes.Replace(e.Quote, rtmr2(1), rtmr2(0), 1) }
		}},
		{"another identity", "identity", func(_ *hardware, p *party) { p.config.Identity.RootContract.Account[0]++ }},
		{"an identity of a shorter lease", "identity", func(_ *hardware, p *party) { p.config.Identity.Custody.LeaseSeconds-- }},
		{"a guest of the other kind", "a custodian: ", func(h *hardware, p *party) { p.config.Service = otherKind(h, p) }},
		{"one that has a secret", "runtime-log-end", func(_ *hardware, p *party) { p.released = true }},
		{"one that names keys", "statement-claim-key", func(_ *hardware, p *party) { p.name = func(s *evidence.Statement) { s.ClaimKey[0]++ } }},
		{"hardware of another root", "tdx", func(_ *hardware, p *party) { p.on = newHardware(evidence.TDX) }},
		{"another platform", "platform is vtpm, want tdx", func(_ *hardware, p *party) { p.on = newHardware(evidence.VTPM) }},
		{"a GPU asked for, and none shown", "nvidia.count", func(_ *hardware, p *party) { p.config.Service.GPU = "1 hopper spt" }},
		{"a GPU that NVIDIA does not vouch for", "nvidia.gpu.0.root", func(_ *hardware, p *party) {
			p.config.Service.GPU = "1 hopper spt"
			p.edit = func(e *evidence.Evidence) {
				e.GPUs = attesttest.NewBoard(time.Now()).Answer(evidence.GPUNonce(e.Statement))
			}
		}},
		{"a GPU that nobody asked for", "nvidia", func(_ *hardware, p *party) {
			p.edit = func(e *evidence.Evidence) {
				e.GPUs = attesttest.NewBoard(time.Now()).Answer(evidence.GPUNonce(e.Statement))
			}
		}},
		{"no collateral", "tdx", func(_ *hardware, p *party) { p.edit = func(e *evidence.Evidence) { e.Collateral = nil } }},
		{"a quote of another TD", "tdx", func(_ *hardware, p *party) { p.edit = func(e *evidence.Evidence) { e.Quote[300]++ } }},
		{"a config that it was not launched with", "mr-config-id", func(_ *hardware, p *party) {
			p.edit = func(e *evidence.Evidence) { e.Config = bytes.Replace(e.Config, []byte(`"tiny"`), []byte(`"huge"`), 1) }
		}},
		{"evidence for another's key", "tls-key", func(_ *hardware, p *party) {
			p.quote = func(r evidence.Request, _ *party) evidence.Request { r.TLSKey[0]++; return r }
		}},
		{"evidence for another challenge or connection", "challenge", func(_ *hardware, p *party) {
			p.quote = func(r evidence.Request, _ *party) evidence.Request { r.NonceRoot[0]++; return r }
		}},
		{"evidence that holds for a day", "not-after", func(_ *hardware, p *party) {
			p.quote = func(r evidence.Request, _ *party) evidence.Request { r.NotAfter += 24 * 3600; return r }
		}},
	} {
		for way, w := range ways {
			inBubble(t, way+", "+tt.name, func(t *testing.T) {
				h := newHardware(evidence.TDX)
				l := newLender(t, custodianOn(h))
				lapse()
				p := w.taker(h)
				tt.spoil(h, p)
				if _, err := p.config.Encode(); err != nil || p.config.Service.Custodian && tt.want == "mr-config-id" {
					return // a custodian's service part has nothing that could be otherwise
				}
				// It judges the custodian by nothing: it is a liar.
				number, _, err := w.take(t, l, w.taker(h), p)
				if number != 0 || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got number %d and error %v, want an error with %q", number, err, tt.want)
				}
				if len(l.calls) != 0 {
					t.Errorf("the custodian was asked %v for a liar, want nothing", l.calls)
				}
			})
		}
	}
}

// otherKind is the service part of a guest that borrows, in the place of a custodian's, or the reverse.
func otherKind(h *hardware, p *party) config.Service {
	return example(h.custody(), !p.config.Service.Custodian).Service
}

// raw is a connection to a lender below the borrower's half of the protocol.
func raw(t *testing.T, l *lender, p *party, certificate *tls.Certificate) (asker, [32]byte) {
	t.Helper()
	side := p.side(t)
	conn, err := ratls.Dial(t.Context(), "tcp", "custodian", ratls.Config{
		PolicyFor: func(e *evidence.Evidence) (attest.Policy, error) { return side.Giver(e, nil) }, Roots: side.roots, Certificate: certificate,
		Dial: l.dialer(),
	})
	if err != nil {
		t.Fatal(err)
	}
	state := conn.ConnectionState()
	exporter, err := session.Exporter(&state)
	if err != nil {
		t.Fatal(err)
	}
	a := newAsker(conn.Conn)
	t.Cleanup(a.client.CloseIdleConnections)
	return a, exporter
}

// asking is the body of a loan's request, for a challenge that this connection just got.
func asking(t *testing.T, a asker, exporter, key [32]byte, p *party) []byte {
	t.Helper()
	nonce, err := a.ask(t.Context(), pathChallenge, nil, nonceBytes)
	if err != nil {
		t.Fatal(err)
	}
	e, err := answer([nonceBytes]byte(nonce), exporter, key, time.Now(), p.evidence)
	if err != nil {
		t.Fatal(err)
	}
	body, err := writeAsking(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestRelay: who stands between two sides, and has the TLS key of either, has two connections with an exporter each.
func TestRelay(t *testing.T) {
	inBubble(t, "a borrower's evidence over another connection", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		lapse()
		p := borrowerOn(h)
		key, hash, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		victim, exporter := raw(t, l, p, key)
		thief, _ := raw(t, l, p, key) // with the borrower's key even
		nonce, err := thief.ask(t.Context(), pathChallenge, nil, nonceBytes)
		if err != nil {
			t.Fatal(err)
		}
		// The thief's nonce, answered by the victim over the connection that it knows.
		e, err := answer([nonceBytes]byte(nonce), exporter, hash, time.Now(), p.evidence)
		if err != nil {
			t.Fatal(err)
		}
		body, err := writeAsking(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := thief.ask(t.Context(), pathLoan, body, role.MaxLoanBytes); err == nil || !strings.Contains(err.Error(), "challenge") {
			t.Errorf("got %d bytes and error %v, want it refused by challenge", len(got), err)
		}
		if _, err := victim.ask(t.Context(), pathLoan, asking(t, victim, exporter, hash, p), role.MaxLoanBytes); err != nil {
			t.Errorf("over its own connection: %v, want the loan", err)
		}
	})
	inBubble(t, "a custodian's evidence over another connection", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		// Between the two ends a second guest of TLS with evidence for its own certificate, as if the custodian's key were out; the answer to the
		// challenge is the custodian's, for a connection of the relay's.
		relay := custodianOn(h)
		relay.quote = func(r evidence.Request, _ *party) evidence.Request {
			if r.NonceRoot != ([32]byte{}) {
				root, _, err := evidence.Batch([][32]byte{evidence.Leaf([32]byte{1}, [32]byte{2})})
				if err != nil {
					panic(err)
				}
				r.NonceRoot = root
			}
			return r
		}
		n := startLiar(t, relay)
		if loan, err := Borrow(t.Context(), n.dial(), borrowerOn(h).side(t), nil, borrowerOn(h).evidence); err == nil || checkOf(err) != "challenge" {
			t.Errorf("got loan %v and error %v, want it refused by challenge", loan, err)
		}
	})
}

// TestReplay: a challenge is good once, a connection has one loan, and a loan is renewed over its own connection alone.
func TestReplay(t *testing.T) {
	inBubble(t, "", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		p := borrowerOn(h)
		key, hash, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		a, exporter := raw(t, l, p, key)
		refused := func(name, path string, body []byte, want string) {
			t.Helper()
			if got, err := a.ask(t.Context(), path, body, role.MaxLoanBytes); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %d bytes and error %v, want an error with %q", name, len(got), err, want)
			}
		}
		refused("a loan without a challenge", pathLoan, nil, "want a challenge first")
		refused("a renewal without a loan", pathRenew, nil, "has no loan")
		body := asking(t, a, exporter, hash, p)
		if _, err := a.ask(t.Context(), pathLoan, body, role.MaxLoanBytes); !errors.Is(err, ErrHeld) {
			t.Fatalf("at the custodian's start: got %v, want %v", err, ErrHeld)
		}
		lapse()
		refused("the same evidence again", pathLoan, body, "want a challenge first")
		asking(t, a, exporter, hash, p)
		refused("the same evidence for another challenge", pathLoan, body, "challenge")
		body = asking(t, a, exporter, hash, p)
		if _, err := a.ask(t.Context(), pathLoan, body, role.MaxLoanBytes); err != nil {
			t.Fatal(err)
		}
		refused("a second loan on the connection", pathLoan, asking(t, a, exporter, hash, p), "one loan on a connection")
		if _, err := a.ask(t.Context(), pathRenew, nil, 0); err != nil {
			t.Errorf("a renewal: %v", err)
		}
		other, _ := raw(t, l, p, key)
		if _, err := other.ask(t.Context(), pathRenew, nil, 0); err == nil {
			t.Error("a renewal over another connection with the same key: got none refused, want a refusal")
		}
		if _, err := other.ask(t.Context(), pathBack, nil, 0); err == nil {
			t.Error("somebody else gives the loan back: got none refused, want a refusal")
		}
	})
	inBubble(t, "no certificate", func(t *testing.T) {
		h := newHardware(evidence.TDX)
		l := newLender(t, custodianOn(h))
		lapse()
		a, exporter := raw(t, l, borrowerOn(h), nil)
		body := asking(t, a, exporter, [32]byte{}, borrowerOn(h))
		if _, err := a.ask(t.Context(), pathLoan, body, role.MaxLoanBytes); err == nil || !strings.Contains(err.Error(), "no certificate") {
			t.Errorf("got %v, want a refusal for want of a certificate", err)
		}
	})
}

// TestOtherImage: the secret goes up to a release that the keys in the custodian's image stand for, and the borrower takes it from the
// release before by the keys in its own; never down, never beyond what the identity allows.
func TestOtherImage(t *testing.T) {
	for _, tt := range []struct {
		name, want             string
		custodian, borrower    uint32 // security versions of the images; the borrower takes the secret, in either way
		listed                 uint32 // of the borrower's release in the list
		signers                []byte
		narrowed               config.Handover
		forgets, custodianOnly bool // the borrower gives no list; the custodian's keys alone stand in its image
	}{
		{name: "a successor", custodian: 1, borrower: 2, listed: 2, signers: []byte{1, 2}},
		{name: "no list", custodian: 1, borrower: 2, listed: 2, signers: []byte{1, 2}, forgets: true, want: "no release list"},
		{name: "the owner's own list", custodian: 1, borrower: 2, listed: 2, signers: []byte{9}, want: "signatures"},
		{name: "one of two signers", custodian: 1, borrower: 2, listed: 2, signers: []byte{1}, want: "signatures"},
		{name: "the same version", custodian: 2, borrower: 3, listed: 2, signers: []byte{1, 2}, want: "want more than the giver's, 2"},
		{name: "down", custodian: 3, borrower: 4, listed: 2, signers: []byte{1, 2}, want: "want more than the giver's, 3"},
		{name: "from a later release", custodian: 1, borrower: 1, listed: 2, signers: []byte{1, 2}, want: "want less than the taker's, 1"},
		{name: "narrowed by the identity", custodian: 1, borrower: 2, listed: 2, signers: []byte{1, 2}, narrowed: config.HandoverSame, want: "same-registers"},
	} {
		for way, w := range ways {
			inBubble(t, way+", "+tt.name, func(t *testing.T) {
				h := newHardware(evidence.TDX)
				c, b := custodianOn(h), w.taker(h)
				for _, p := range []*party{c, b} {
					p.config.Identity.Handover = tt.narrowed
					p.image = handover.Image{Signers: sorted(1, 2), Threshold: 2}
				}
				c.image.SecurityVersion, b.image.SecurityVersion, b.build = tt.custodian, tt.borrower, 1
				if !tt.forgets {
					b.list = listOf(t, tt.signers, values(c, h, 1), values(b, h, tt.listed))
				}
				l := newLender(t, c)
				lapse()
				number, held, err := w.take(t, l, b, b)
				if tt.want != "" {
					if number != 0 || err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("got number %d and error %v, want an error with %q", number, err, tt.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				own, err := handover.Measurement(h.platform, c.side(t).registers)
				if err != nil || len(held) != 1 || held[0] != own {
					t.Errorf("held by %v (error %v), want the custodian's image, %s", held, err, own)
				}
			})
		}
	}
}

func seed(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }

// sorted returns the public keys of seeds in their order.
func sorted(seeds ...byte) (keys []pubkey.Ed25519) {
	for _, s := range seeds {
		keys = append(keys, pubkey.Of(seed(s)))
	}
	if len(keys) == 2 && bytes.Compare(keys[0][:], keys[1][:]) > 0 {
		keys[0], keys[1] = keys[1], keys[0]
	}
	return keys
}

// values is the release of a build.
func values(p *party, h *hardware, version uint32) release.Release {
	b := h.td.Machine.Body
	v := release.TDXValues{MRTD: b.MRTD, RTMR0: b.RTMR[0], RTMR1: b.RTMR[1], RTMR2: register.Digest384(rtmr2(p.build))}
	return release.Release{Name: string(rune('a' + p.build)), SecurityVersion: version, TDX: []release.TDXValues{v}}
}

func listOf(t *testing.T, seeds []byte, releases ...release.Release) []byte {
	t.Helper()
	d := release.NewDocument(time.Now(), time.Hour)
	for i, r := range releases {
		d.Releases = append(d.Releases, release.Listed{Manifest: register.Digest{byte(i + 1)}, Values: r, Rebuilds: []release.Envelope{}})
	}
	list, err := release.EncodeList(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seeds {
		if list, err = release.SignList(list, seed(s)); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// TestSideRefuses: who has no custodian, or nobody that vouches for its hardware, judges nobody.
func TestSideRefuses(t *testing.T) {
	h := newHardware(evidence.VTPM)
	for name, change := range map[string]func(*config.Measured){
		"another sealing":  func(m *config.Measured) { *m = example(config.Custody{}, false) },
		"no maker of TPMs": func(m *config.Measured) { m.Identity.Custody.Roots = nil },
	} {
		p := borrowerOn(h)
		change(&p.config)
		own, err := p.evidence(evidence.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if s, err := NewSide(own, p.measured(), p.image, nil); err == nil {
			t.Errorf("%s: got %+v, want an error", name, s)
		}
	}
	p := borrowerOn(h)
	own, err := p.evidence(evidence.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := NewSide(own, custodianOn(h).measured(), p.image, nil); err == nil {
		t.Errorf("evidence of another config: got %+v, want an error", s)
	}
	td := newHardware(evidence.TDX)
	p = borrowerOn(td)
	p.config.Identity.Custody.Roots = append(p.config.Identity.Custody.Roots, td.root)
	if own, err = p.evidence(evidence.Request{}); err != nil {
		t.Fatal(err)
	}
	if s, err := NewSide(own, p.measured(), p.image, nil); err == nil {
		t.Errorf("two roots of TDX: got %+v, want an error", s)
	}
}

// TestReadAsking: the body of a loan's request has one form.
func TestReadAsking(t *testing.T) {
	e, err := borrowerOn(newHardware(evidence.TDX)).evidence(evidence.Request{TLSKey: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	good, err := writeAsking([]byte("list"), e)
	if err != nil {
		t.Fatal(err)
	}
	if list, got, err := readAsking(bytes.NewReader(good)); err != nil || string(list) != "list" || got.Statement != e.Statement {
		t.Errorf("got the list %q and error %v, want what was written", list, err)
	}
	for name, body := range map[string][]byte{
		"nothing": nil, "no evidence": good[:8], "a byte more": append(bytes.Clone(good), 0), "a byte less": good[:len(good)-1],
		"a list beyond the body": {9, 0, 0, 0, 1}, "a list that is too long": append([]byte{1, 0, 4, 0}, make([]byte, 300<<10)...),
	} {
		if _, _, err := readAsking(bytes.NewReader(body)); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

func (l *lender) dialer() func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }
}

// TestBounds: the identity says how new the machines of both sides must be, and what vouches for them.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		platform   evidence.Platform
		change     func(*config.Custody)
		later      time.Duration
	}{
		{"an evaluation that the collateral has not", "tdx.tcb-info-evaluation", evidence.TDX, func(c *config.Custody) { c.MinTCBEvaluation = 1 << 20 }, 0},
		{"collateral that is too old", "-age", evidence.TDX, func(c *config.Custody) { c.CollateralHours = 1 }, 2 * time.Hour},
		{"collateral that has expired", "tdx.", evidence.TDX, func(*config.Custody) {}, 10000 * time.Hour},
		{"Intel's root, and software's machine", "tdx.pck-chain", evidence.TDX, func(c *config.Custody) { c.Roots = nil }, 0},
		{"patch levels that the machine has not", "sev-snp.", evidence.SEVSNP, func(c *config.Custody) { c.MinTCB[0].SNP = 255 }, 0},
		{"no patch levels of its line of processors", "min_tcb is empty", evidence.SEVSNP, func(c *config.Custody) { c.MinTCB = nil }, 0},
		{"AMD's roots, and software's machine", "sev-snp.", evidence.SEVSNP, func(c *config.Custody) { c.Roots = nil }, 0},
	} {
		inBubble(t, tt.name, func(t *testing.T) {
			h := newHardware(tt.platform)
			c, b := custodianOn(h), borrowerOn(h)
			tt.change(&c.config.Identity.Custody)
			b.config.Identity = c.config.Identity
			time.Sleep(tt.later)
			l := newLender(t, c)
			if loan, err := borrow(t, l, b); loan != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("a borrower: got loan %v and error %v, want an error with %q", loan, err, tt.want)
			}
			// The custodian judges by the same: its verdict without a borrower that judges first.
			e, err := answer([32]byte{1}, [32]byte{2}, [32]byte{3}, time.Now(), b.evidence)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.side(t).Taker(e, attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: [32]byte{3}}, nil, false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the custodian: got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestAnswerBounds: an answer is whole and no longer than it may be, or nothing of it counts.
func TestAnswerBounds(t *testing.T) {
	for _, tt := range []struct {
		name, answer, want string
		silent             bool // it is not known what became of the request
	}{
		{"whole", "Content-Length: 4\r\n\r\nloan", "", false},
		{"nothing", "Content-Length: 0\r\n\r\n", "", false},
		{"a byte too many", "Content-Length: 5\r\n\r\nloans", "more than 4 bytes", false},
		{"cut short", "Content-Length: 4\r\n\r\nlo", "unexpected EOF", true},
		{"cut before it begins", "Content-Length: 4\r\n\r\n", "unexpected EOF", true},
		{"of no length, and cut", "Connection: close\r\n\r\nlo", "unexpected EOF", true},
	} {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			if _, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
				_, _ = io.WriteString(theirs, "HTTP/1.1 200 OK\r\n"+tt.answer)
			}
		}()
		got, err := newAsker(ours).ask(t.Context(), pathRenew, nil, 4)
		_, want, _ := strings.Cut(tt.answer, "\r\n\r\n")
		if tt.want == "" && (err != nil || string(got) != want) {
			t.Errorf("%s: got %q and error %v, want %q", tt.name, got, err, want)
		}
		if tt.want != "" && (err == nil || got != nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrSilent) != tt.silent) {
			t.Errorf("%s: got %q and error %v, want nothing, and an error with %q, silence: %t", tt.name, got, err, tt.want, tt.silent)
		}
		ours.Close()
	}
}
