package lending

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
)

// Lender answers borrowers, and clients that want to know what it is. It holds no secret but one that passes.
type Lender struct {
	side     *Side
	attested *guest.Server

	asking sync.Mutex // one call on the stream to the custodian
	ask    func(role.LoanCall) (role.Answer, role.Loan, error)

	judging sync.Mutex // one borrower at a time: a stranger can't have the verifier do much at once
}

// NewLender returns a lender. ask makes a call of the custodian.
func NewLender(side *Side, attested *guest.Server, ask func(role.LoanCall) (role.Answer, role.Loan, error)) *Lender {
	return &Lender{side: side, attested: attested, ask: ask}
}

// borrower is the state of a connection.
type borrower struct {
	mu    sync.Mutex // one request at a time
	nonce [nonceBytes]byte
	loan  uint64 // 0: none
}

type borrowerKey struct{}

const (
	// handshakeLimit bounds a handshake, in which the borrower has its verifier at work, and the head of a request.
	handshakeLimit = time.Minute
	// requestLimit bounds a request with its answer: longer than a host's quoting service can keep init.
	requestLimit = 4 * time.Minute
)

// Server returns the HTTP server of a lender, for a listener of TLSConfig's. A connection that is idle for much longer than a
// lease is nobody's.
func (l *Lender) Server() *http.Server {
	mux := http.NewServeMux()
	mux.Handle(session.EvidencePath, l.attested)
	for path, serve := range map[string]func(*borrower, http.ResponseWriter, *http.Request){
		pathChallenge: l.challenge, pathLoan: l.gives(role.CallLend), pathMove: l.gives(role.CallMove), pathMoved: l.moved,
		pathRenew: l.passed(role.CallRenew), pathCount: l.passed(role.CallCount), pathBack: l.passed(role.CallBack),
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			b, ok := r.Context().Value(borrowerKey{}).(*borrower)
			if !ok {
				refuse(w, http.StatusBadRequest, errors.New("the connection has no state"))
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			serve(b, w, r)
		})
	}
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: handshakeLimit, ReadTimeout: requestLimit, MaxHeaderBytes: 8 << 10,
		IdleTimeout: max(handshakeLimit, 2*l.side.config.Identity.Custody.Lease()),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(l.attested.ConnContext(ctx, c), borrowerKey{}, new(borrower))
		},
	}
}

// TLSConfig returns the configuration of the lender's listener: a guest's, and a borrower shows a certificate of its own, whose key its
// evidence has to name.
func (l *Lender) TLSConfig() *tls.Config {
	c := l.attested.TLSConfig()
	c.ClientAuth = tls.RequestClientCert
	return c
}

// challenge makes a nonce, which is good for one loan on this connection.
func (l *Lender) challenge(b *borrower, w http.ResponseWriter, _ *http.Request) {
	rand.Read(b.nonce[:])
	reply(w, b.nonce[:])
}

// gives judges the evidence in the body and passes on what the custodian says to a lend or a move.
func (l *Lender) gives(call role.Call) func(*borrower, http.ResponseWriter, *http.Request) {
	return func(b *borrower, w http.ResponseWriter, r *http.Request) { l.give(call, b, w, r) }
}

func (l *Lender) give(call role.Call, b *borrower, w http.ResponseWriter, r *http.Request) {
	nonce := b.nonce
	b.nonce = [nonceBytes]byte{}
	if nonce == ([nonceBytes]byte{}) || b.loan != 0 {
		refuse(w, http.StatusBadRequest, errors.New("want a challenge first, and one loan on a connection"))
		return
	}
	if len(r.TLS.PeerCertificates) == 0 {
		refuse(w, http.StatusForbidden, errors.New("the borrower shows no certificate"))
		return
	}
	challenge := attest.Challenge{Nonce: nonce, TLSKey: session.KeyHash(r.TLS.PeerCertificates[0])}
	var err error
	if challenge.Exporter, err = session.Exporter(r.TLS); err != nil {
		refuse(w, http.StatusForbidden, err)
		return
	}
	list, e, err := readAsking(http.MaxBytesReader(w, r.Body, 4+maxListBytes+evidence.MaxBytes))
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	giver, taker, err := l.judge(e, challenge, list, call == role.CallMove)
	if err != nil {
		refuse(w, http.StatusForbidden, err)
		return
	}
	answer, loan, err := l.call(role.LoanCall{Call: call, Giver: giver, Taker: taker})
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, errors.New("the custodian does not answer"))
	case answer == role.AnswerGone:
		refuse(w, http.StatusGone, errMoved)
	case answer == role.AnswerHeld:
		refuse(w, http.StatusConflict, errors.New("another guest may have the loan"))
	case answer != role.AnswerDone:
		refuse(w, http.StatusForbidden, fmt.Errorf("the custodian says %s", answer))
	default:
		b.loan = loan.Number
		message := role.EncodeLoan(loan)
		loan.Secret.Wipe()
		reply(w, message)
		clear(message)
	}
}

func (l *Lender) judge(e *evidence.Evidence, challenge attest.Challenge, list []byte, custodian bool) (giver, taker register.Digest, err error) {
	l.judging.Lock()
	defer l.judging.Unlock()
	return l.side.Taker(e, challenge, list, custodian)
}

var errMoved = errors.New("the secret is another custodian's")

// moved passes on that the secret is sealed elsewhere. Who says so need not be judged again: the proof can be had from the secret alone.
func (l *Lender) moved(_ *borrower, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, movedBytes))
	if err == nil && len(body) != movedBytes {
		err = fmt.Errorf("%d bytes, want %d", len(body), movedBytes)
	}
	call := role.LoanCall{Call: role.CallMoved}
	if err == nil {
		call.Number, call.Proof = binary.LittleEndian.Uint64(body), [32]byte(body[8:])
		if call.Number == 0 || call.Proof == [32]byte{} {
			err = errors.New("number or proof is zero")
		}
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("reading a move: %w", err))
		return
	}
	answer, _, err := l.call(call)
	switch {
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, errors.New("the custodian does not answer"))
	case answer == role.AnswerGone:
		refuse(w, http.StatusGone, errMoved)
	case answer != role.AnswerDone:
		refuse(w, http.StatusForbidden, fmt.Errorf("move %d: the custodian says %s", call.Number, answer))
	default:
		reply(w, nil)
	}
}

// passed passes a call on for the connection's own loan, and for no other: whoever names a number names nothing here.
func (l *Lender) passed(call role.Call) func(*borrower, http.ResponseWriter, *http.Request) {
	return func(b *borrower, w http.ResponseWriter, _ *http.Request) {
		if b.loan == 0 {
			refuse(w, http.StatusForbidden, errors.New("the connection has no loan"))
			return
		}
		answer, _, err := l.call(role.LoanCall{Call: call, Number: b.loan})
		if err != nil || answer != role.AnswerDone {
			refuse(w, http.StatusForbidden, fmt.Errorf("loan %d: the custodian says %s", b.loan, answer))
			return
		}
		reply(w, nil)
	}
}

func (l *Lender) call(c role.LoanCall) (role.Answer, role.Loan, error) {
	l.asking.Lock()
	defer l.asking.Unlock()
	return l.ask(c)
}

// readAsking reads the body of a loan's request: length of the list (u32, little endian), list, encoded evidence.
func readAsking(body io.Reader) (list []byte, e *evidence.Evidence, err error) {
	all, err := io.ReadAll(body)
	if err != nil {
		return nil, nil, fmt.Errorf("reading borrower's evidence: %w", err)
	}
	if len(all) < 4 {
		return nil, nil, fmt.Errorf("reading borrower's evidence: %d bytes, want a length of 4", len(all))
	}
	n := int64(binary.LittleEndian.Uint32(all))
	if all = all[4:]; n > maxListBytes || n > int64(len(all)) {
		return nil, nil, fmt.Errorf("reading borrower's evidence: the list has %d bytes, want at most %d of %d", n, maxListBytes, len(all))
	}
	if e, err = evidence.Decode(all[n:]); err != nil {
		return nil, nil, fmt.Errorf("reading borrower's evidence: %w", err)
	}
	return all[:n], e, nil
}

// writeAsking is what readAsking reads.
func writeAsking(list []byte, e *evidence.Evidence) ([]byte, error) {
	encoded, err := e.Encode()
	if err != nil {
		return nil, err
	}
	return append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(list))), list...), encoded...), nil
}

func reply(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a borrower that has gone needs no answer
}

func refuse(w http.ResponseWriter, code int, err error) {
	http.Error(w, fmt.Sprintf("%.*s", maxTextBytes, err), code)
}
