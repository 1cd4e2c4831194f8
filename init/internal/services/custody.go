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

// Custodian starts the custodian with its disk, gives it the secret, which nobody else gets, and forgets it. It returns the stream that its
// lender asks for loans on.
func (s *Services) Custodian(ctx context.Context, disk *os.File) (loans *os.File, err error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	defer in.Close()
	theirs, loans, err := socketPair("loans")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	send := func(pipe io.Writer, t sealing.Taken) error {
		return role.SendLoan(pipe, role.Loan{Secret: t.Secret, Boots: t.Boots, Held: t.Held})
	}
	files := role.Files{role.SecretPipe: out, role.Journal: disk, role.Loans: theirs}
	if err := s.run(ctx, role.Custodian, role.Settings{}, files, func() error { return s.hand(in, send) }); err != nil {
		return nil, errors.Join(err, loans.Close())
	}
	return loans, nil
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

// Loan is a borrowed secret, as a vault.
type Loan struct {
	stream io.ReadWriter // to the borrower

	mu    sync.Mutex // one call at a time
	taken sealing.Taken
}

// Borrower starts the borrower over its connection to whom the host calls its custodian, with a release list of the host's, and returns
// once it has the loan.
func (s *Services) Borrower(ctx context.Context, peer *os.File, list []byte, quotes func(stream *os.File)) (sealing.Vault, error) {
	if err := errors.Join(os.MkdirAll(emptyRoot, 0o755), os.WriteFile(listFile, list, 0o400)); err != nil {
		return nil, err
	}
	return s.borrower(ctx, peer, quotes)
}

func (s *Services) borrower(ctx context.Context, peer *os.File, quotes func(stream *os.File)) (sealing.Vault, error) {
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
	loan := &Loan{stream: stream}
	s.mu.Lock()
	s.loan = loan
	s.mu.Unlock()
	return loan, loan.take()
}

// take has the borrower hand the loan over, which it does once.
func (l *Loan) take() error {
	answer, got, err := role.AskLoan(l.stream, role.LoanCall{Call: role.CallLend})
	if err != nil {
		return err
	}
	if answer != role.AnswerDone {
		return fmt.Errorf("taking loan: the borrower says %s", answer)
	}
	l.taken = sealing.Taken{Secret: got.Secret, Boots: got.Boots, Held: got.Held, Loan: got.Loan}
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
func (l *Loan) CountBoot() error { return l.call(role.CallCount) }

func (l *Loan) call(c role.Call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer, _, err := role.AskLoan(l.stream, role.LoanCall{Call: c, Number: l.taken.Loan.Number})
	if err == nil && answer != role.AnswerDone {
		err = fmt.Errorf("loan %d: the custodian says %s", l.taken.Loan.Number, answer)
	}
	return err
}

// backWait bounds how long the end waits for the loan to be given back. A custodian that does not hear of it waits out the lease.
const backWait = time.Second

func (l *Loan) back() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = l.call(role.CallBack) // nothing depends on it
	}()
	select {
	case <-done:
	case <-time.After(backWait):
	}
}
