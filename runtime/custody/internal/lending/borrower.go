package lending

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/attest/ratls/session"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
)

// The ways in which a loan does not come about, or ends. What is neither is a refusal.
var (
	ErrHeld = errors.New("another guest has the loan, and renews it")
	ErrLost = errors.New("the loan was not renewed in time")
	// ErrSilent says that it is not known what became of a request.
	ErrSilent = errors.New("the custodian does not answer")
)

// Loan is a secret that was lent, with the connection over which it is renewed.
type Loan struct {
	role.Loan // Secret is the caller's to wipe

	asker asker
	lease time.Duration
	mu    sync.Mutex
	until time.Time // by the monotonic clock
}

// Quote has evidence made for a request.
type Quote func(evidence.Request) (*evidence.Evidence, error)

// Giver is a custodian that was judged, at the other end of one connection.
type Giver struct {
	asker
	side    *Side
	list    []byte
	lease   time.Duration
	machine register.Digest
	answer  func(nonce [nonceBytes]byte) (*evidence.Evidence, error)
}

// Reach judges whoever is at the other end of conn, which it closes if it refuses. list is a release list of the host's, for two that are
// not of one image. quote makes evidence of this guest, which has no secret yet.
func Reach(ctx context.Context, conn net.Conn, side *Side, list []byte, quote Quote) (*Giver, error) {
	own, hash, err := newKey()
	if err != nil {
		return nil, err
	}
	lender, err := ratls.Dial(ctx, "tcp", "custodian", ratls.Config{
		PolicyFor: func(e *evidence.Evidence) (attest.Policy, error) { return side.Giver(e, list) },
		Roots:     side.roots, Now: side.now, Certificate: own, Timeout: dialLimit, Reach: dialLimit,
		Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("judging lender: %w", err)
	}
	state := lender.ConnectionState()
	exporter, err := session.Exporter(&state)
	if err != nil {
		return nil, errors.Join(err, lender.Close())
	}
	// The connection goes on for as long as the loan: who holds its keys was proved when it began, and no request names anything else. So it
	// is used below ratls.Conn, which ends with the lender's key set.
	return &Giver{
		asker: newAsker(lender.Conn), side: side, list: list, lease: side.config.Identity.Custody.Lease(),
		machine: register.Digest(sha256.Sum256(lender.Result().Machine())),
		answer: func(nonce [nonceBytes]byte) (*evidence.Evidence, error) {
			return answer(nonce, exporter, hash, side.now(), quote)
		},
	}, nil
}

// Borrow takes the loan of whoever is at the other end of conn, as Reach judges him. While another guest may have the loan it is asked
// again, until it is certain that one renews: ErrHeld.
func Borrow(ctx context.Context, conn net.Conn, side *Side, list []byte, quote Quote) (*Loan, error) {
	g, err := Reach(ctx, conn, side, list, quote)
	if err != nil {
		return nil, err
	}
	loan, asked, err := g.take(ctx, pathLoan)
	if err != nil {
		return nil, err
	}
	loan.Lender = g.machine
	return &Loan{Loan: loan, asker: g.asker, lease: g.lease, until: asked.Add(g.lease)}, nil
}

// Move takes the secret over, under a number. It is not this custodian's before the giver has heard so: see Moved. It waits as Borrow does.
func (g *Giver) Move(ctx context.Context) (role.Loan, error) {
	loan, _, err := g.take(ctx, pathMove)
	loan.Lender = g.machine
	return loan, err
}

// Moved tells the giver that the secret which it gave under that number is sealed here. No error says that it has it no more; ErrSilent that it
// may have heard.
func (g *Giver) Moved(ctx context.Context, number uint64, proof [32]byte) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, err := g.ask(ctx, pathMoved, append(binary.LittleEndian.AppendUint64(nil, number), proof[:]...), 0)
	return err
}

// take asks for the secret until it is given, refused, or certain to be another's. asked is when it was asked for.
func (g *Giver) take(ctx context.Context, path string) (loan role.Loan, asked time.Time, err error) {
	for began := time.Now(); ; {
		loan, asked, err = g.takeOnce(ctx, path)
		if err == nil {
			return loan, asked, nil
		}
		// Who had it and went without a word has lost it by then; who still has it renews.
		if !errors.Is(err, ErrHeld) || time.Since(began) > g.lease+g.lease/4 {
			g.client.CloseIdleConnections()
			return role.Loan{}, asked, err
		}
		select {
		case <-ctx.Done():
			g.client.CloseIdleConnections()
			return role.Loan{}, asked, err
		case <-time.After(g.lease / 16):
		}
	}
}

const (
	dialLimit = 2 * time.Minute
	// callLimit bounds a call other than a renewal, which has as long as the loan.
	callLimit = time.Minute
)

// newKey makes the key with which a borrower ends its connection.
func newKey() (*tls.Certificate, [32]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("making TLS key: %w", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "chrysalis borrower"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("making TLS certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("making TLS certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, session.KeyHash(leaf), nil
}

// answer has evidence made for a challenge.
func answer(nonce, exporter, key [32]byte, now time.Time, quote Quote) (*evidence.Evidence, error) {
	root, paths, err := evidence.Batch([][32]byte{evidence.Leaf(nonce, exporter)})
	if err != nil {
		return nil, err
	}
	e, err := quote(evidence.Request{NonceRoot: root, TLSKey: key, NotAfter: uint64(now.Add(askingLife).Unix())})
	if err != nil {
		return nil, err
	}
	e.Path = paths[0]
	return e, nil
}

func (g *Giver) takeOnce(ctx context.Context, path string) (loan role.Loan, asked time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	nonce, err := g.ask(ctx, pathChallenge, nil, nonceBytes)
	if err != nil {
		return loan, asked, err
	}
	if len(nonce) != nonceBytes {
		return loan, asked, fmt.Errorf("asking for a challenge: %d bytes, want %d", len(nonce), nonceBytes)
	}
	e, err := g.answer([nonceBytes]byte(nonce))
	if err != nil {
		return loan, asked, err
	}
	body, err := writeAsking(g.list, e)
	if err != nil {
		return loan, asked, err
	}
	asked = time.Now()
	message, err := g.ask(ctx, path, body, role.MaxLoanBytes)
	if err != nil {
		return loan, asked, err
	}
	defer clear(message)
	if loan, err = role.DecodeLoan(message); err != nil {
		return loan, asked, err
	}
	if loan.Number == 0 {
		loan.Secret.Wipe()
		return role.Loan{}, asked, errors.New("taking loan: it has no number")
	}
	return loan, asked, nil
}

// Keep renews the loan well before its lease runs out, until ctx ends or the lease has: then it is ErrLost, and the guest must end. The
// lease is counted from before each request, so it ends here no later than at the custodian's.
func (l *Loan) Keep(ctx context.Context) error {
	for {
		l.mu.Lock()
		until := l.until
		l.mu.Unlock()
		renewing, cancel := context.WithDeadline(ctx, until)
		asked := time.Now()
		_, err := l.asker.ask(renewing, pathRenew, nil, 0)
		late := renewing.Err() != nil || !time.Now().Before(until)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("%w: %w", ErrLost, err)
		case late:
			return ErrLost
		}
		l.mu.Lock()
		l.until = asked.Add(l.lease)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(l.lease / 4):
		}
	}
}

// Call passes on that a boot was counted, or that the loan is given back.
func (l *Loan) Call(ctx context.Context, c role.Call) (role.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	path := map[role.Call]string{role.CallCount: pathCount, role.CallBack: pathBack}[c]
	if path == "" {
		return 0, fmt.Errorf("call %d is none of a borrower's", c)
	}
	if _, err := l.asker.ask(ctx, path, nil, 0); err != nil {
		return role.AnswerNotHeld, nil
	}
	return role.AnswerDone, nil
}

// asker makes requests over one connection, and over no other.
type asker struct{ client *http.Client }

func newAsker(conn net.Conn) asker {
	once := make(chan net.Conn, 1)
	once <- conn
	return asker{&http.Client{Transport: &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case conn := <-once:
				return conn, nil
			default:
				return nil, errors.New("the connection to the custodian is gone")
			}
		},
		MaxConnsPerHost: 1, DisableCompression: true, MaxResponseHeaderBytes: 8 << 10,
	}}}
}

func (a asker) ask(ctx context.Context, path string, body []byte, most int) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://custodian"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSilent, err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusConflict {
		_, err := io.Copy(io.Discard, io.LimitReader(response.Body, 2*maxTextBytes))
		return nil, errors.Join(ErrHeld, err)
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxTextBytes))
		return nil, fmt.Errorf("asking custodian: %s: %.*q", response.Status, maxTextBytes, text)
	}
	answer := make([]byte, most+1) // whole, so that no copy of a secret is left where a smaller one was
	n, err := io.ReadFull(response.Body, answer)
	switch {
	case err == nil:
		err = fmt.Errorf("asking custodian: an answer of more than %d bytes", most)
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && response.ContentLength == int64(n):
		return answer[:n], nil
	default:
		err = fmt.Errorf("%w: %w", ErrSilent, err)
	}
	clear(answer)
	return nil, err
}
