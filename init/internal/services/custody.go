package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"chrysalis/init/internal/sealing"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// Custodian starts the custodian with its disk, gives it the secret, which nobody else gets, and forgets it. It returns the stream that is its
// lender's. Of a secret that came from another custodian it says under which number, and with which proof, that one is still to be told
// that it is kept here; else the number is zero.
func (s *Services) Custodian(ctx context.Context, disk *os.File) (loans *os.File, told role.LoanCall, err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, told, err
	}
	defer out.Close()
	defer in.Close()
	theirs, loans, err := socketPair("loans")
	if err != nil {
		return nil, told, err
	}
	defer theirs.Close()
	send := func(pipe io.Writer, t sealing.Taken) error {
		return role.SendKept(pipe, role.Kept{Secret: t.Secret, Boots: t.Boots, Held: t.Held, Came: t.Came})
	}
	files := role.Files{role.SecretPipe: out, role.Journal: disk, role.Loans: theirs}
	err = s.run(ctx, role.Custodian, role.Settings{}, files, func() error { return s.hand(in, send) })
	if err == nil {
		var came role.Loan
		if _, came, err = role.AskLoan(loans, role.LoanCall{Call: role.CallCame}); came.Number != 0 {
			told = role.LoanCall{Call: role.CallMoved, Number: came.Number, Proof: came.Proof}
		}
	}
	if err != nil {
		return nil, told, errors.Join(err, loans.Close())
	}
	return loans, told, nil
}

// ErrUnsettled says that whoever gave a secret did not say that it has it no more; ErrSilent beside it that no answer came: it may have heard.
var (
	ErrUnsettled = errors.New("the custodian that gave the secret has not said that it has it no more")
	ErrSilent    = errors.New("it does not answer over this connection")
)

// Settle tells whoever gave the custodian its secret that it is kept here, over a borrower's stream, and then the custodian, over its own,
// that it is the only one that has it.
func Settle(giver sealing.Vault, loans io.ReadWriter, told role.LoanCall) error {
	to, ok := giver.(*Loan)
	if !ok {
		return fmt.Errorf("%w: there is no connection to it", ErrUnsettled)
	}
	answer, err := to.ask(told)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrUnsettled, err)
	case answer == role.AnswerHeld:
		return fmt.Errorf("%w: %w", ErrUnsettled, ErrSilent)
	case answer != role.AnswerDone:
		return fmt.Errorf("%w: move %d: it says %s", ErrUnsettled, told.Number, answer)
	}
	answer, _, err = role.AskLoan(loans, role.LoanCall{Call: role.CallSettle, Number: told.Number})
	if err == nil && answer != role.AnswerDone {
		err = fmt.Errorf("settling move %d: the custodian says %s", told.Number, answer)
	}
	return err
}

// Lender starts the lender with the socket that it accepts on and its stream to the custodian. quotes serves the stream on which it asks
// for quotes, until that ends.
func (s *Services) Lender(ctx context.Context, listener, loans *os.File, quotes func(stream *os.File)) error {
	if err := os.MkdirAll(emptyRoot, 0o755); err != nil {
		return err
	}
	ours, theirs, err := socketPair("quotes")
	if err != nil {
		return err
	}
	defer theirs.Close()
	go quotes(ours)
	return s.run(ctx, role.Lender, role.Settings{role.Image: imageFile, role.Chroot: emptyRoot},
		role.Files{role.Listener: listener, role.Quotes: theirs, role.Loans: loans}, nil)
}

// Loan is a secret that another guest has, as a vault: borrowed, or to be taken over by a custodian.
type Loan struct {
	stream io.ReadWriter // to the borrower

	mu    sync.Mutex // one call at a time
	taken sealing.Taken
}

// Borrower starts the borrower over its connection to whom the host calls its custodian, with a release list of the host's, and returns
// once it has the loan.
func (s *Services) Borrower(ctx context.Context, peer *os.File, list []byte, quotes func(stream *os.File)) (sealing.Vault, error) {
	if err := prepareBorrower(list); err != nil {
		return nil, err
	}
	return s.borrow(ctx, peer, quotes)
}

func (s *Services) borrow(ctx context.Context, peer *os.File, quotes func(stream *os.File)) (sealing.Vault, error) {
	loan, err := s.borrower(ctx, peer, quotes)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.loan = loan
	s.mu.Unlock()
	return loan, loan.take(role.CallLend)
}

// Successor starts the borrower of a custodian, over its connection to the custodian before it, and takes the secret over if take says so:
// else that one is only to be told that it has gone.
func (s *Services) Successor(ctx context.Context, peer *os.File, list []byte, quotes func(stream *os.File), take bool) (sealing.Vault, error) {
	if err := prepareBorrower(list); err != nil {
		return nil, err
	}
	return s.succeed(ctx, peer, quotes, take)
}

func (s *Services) succeed(ctx context.Context, peer *os.File, quotes func(stream *os.File), take bool) (sealing.Vault, error) {
	loan, err := s.borrower(ctx, peer, quotes)
	if err != nil || !take {
		return loan, err
	}
	return loan, loan.take(role.CallMove)
}

func prepareBorrower(list []byte) error {
	return errors.Join(os.MkdirAll(emptyRoot, 0o755), os.WriteFile(listFile, list, 0o400))
}

func (s *Services) borrower(ctx context.Context, peer *os.File, quotes func(stream *os.File)) (*Loan, error) {
	ours, theirs, err := socketPair("quotes")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	stream, loans, err := socketPair("loans")
	if err != nil {
		return nil, err
	}
	defer loans.Close()
	go quotes(ours)
	err = s.run(ctx, role.Borrower, role.Settings{role.Image: imageFile, role.List: listFile, role.Chroot: emptyRoot},
		role.Files{role.Peer: peer, role.Quotes: theirs, role.Loans: loans}, nil)
	if err != nil {
		return nil, errors.Join(err, stream.Close())
	}
	return &Loan{stream: stream}, nil
}

// take has the borrower hand the secret over, which it does once: as a loan, or as one that moves, under which no boot has counted here.
func (l *Loan) take(by role.Call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer, got, err := role.AskLoan(l.stream, role.LoanCall{Call: by})
	if err != nil {
		return err
	}
	if answer != role.AnswerDone {
		return fmt.Errorf("taking secret: the borrower says %s", answer)
	}
	if l.taken = (sealing.Taken{Secret: got.Secret, Held: got.Held}); by == role.CallMove {
		l.taken.Came = role.Coming{Number: got.Number, Boots: got.Boots}
	} else {
		l.taken.Boots, l.taken.Loan = got.Boots, got.Loan
	}
	return nil
}

// Secret returns the borrowed secret, once.
func (l *Loan) Secret() (sealing.Taken, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.taken
	if taken.Secret == nil {
		return sealing.Taken{}, secret.ErrSealed
	}
	l.taken.Secret = nil
	return taken, nil
}

// CountBoot has the custodian count the boot.
func (l *Loan) CountBoot() error {
	return l.call(role.LoanCall{Call: role.CallCount, Number: l.taken.Loan.Number})
}

func (l *Loan) ask(c role.LoanCall) (role.Answer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer, _, err := role.AskLoan(l.stream, c)
	return answer, err
}

func (l *Loan) call(c role.LoanCall) error {
	answer, err := l.ask(c)
	if err == nil && answer != role.AnswerDone {
		err = fmt.Errorf("number %d: the custodian says %s", c.Number, answer)
	}
	return err
}

// backWait bounds how long the end waits for the loan to be given back. A custodian that does not hear of it waits out the lease.
const backWait = time.Second

func (l *Loan) back() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.call(role.LoanCall{Call: role.CallBack, Number: l.taken.Loan.Number}) // nothing depends on it
	}()
	select {
	case <-done:
	case <-time.After(backWait):
	}
}
