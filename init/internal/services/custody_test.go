package services

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"chrysalis/init/internal/sealing"
	"chrysalis/init/status"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// borrowerMain is a borrower that says what it reads from its peer, and writes there what init asks of it.
func borrowerMain() {
	if _, err := role.Borrower.Parse(os.Args[3:]); err != nil {
		panic(err)
	}
	files, err := role.Borrower.Inherit()
	if err != nil {
		panic(err)
	}
	peer := files[role.Peer]
	say := make([]byte, 128) // a secret, then what it says
	n, err := peer.Read(say)
	if err != nil {
		panic(err)
	}
	files[role.Status].Write(say[secret.Size:n])
	s, err := secret.New(say[:secret.Size])
	if err != nil {
		panic(err)
	}
	_ = role.ServeLoans(files[role.Loans], func(c role.LoanCall) (role.Answer, role.Loan, error) {
		fmt.Fprintf(peer, "%d %d\n", c.Call, c.Number)
		if c.Call == role.CallLend {
			return role.AnswerDone, role.Loan{Secret: s, Boots: 3, Held: []register.Digest{{1}}, Loan: eventlog.Loan{Number: 5, Lender: register.Digest{2}}}, nil
		}
		return role.AnswerDone, role.Loan{}, nil
	})
	time.Sleep(time.Hour)
}

// peer is a connection to a borrower that says words, and what it tells of init's calls.
func peer(t *testing.T, words string) (theirs *os.File, said io.Reader) {
	t.Helper()
	a, b, err := socketPair("peer")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := net.FileConn(a)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	t.Cleanup(func() { ours.Close(); b.Close() })
	if _, err := ours.Write([]byte(strings.Repeat("7", secret.Size) + words)); err != nil {
		t.Fatal(err)
	}
	return b, ours
}

// TestBorrower starts a process as the borrower is started: the loan comes once, boots are counted at the custodian, and the guest's end
// gives the loan back once nobody has the secret any more.
func TestBorrower(t *testing.T) {
	s, g := start(t)
	theirs, said := peer(t, "ready\n")
	vault, err := s.borrower(g.ctx, theirs, func(stream *os.File) { stream.Close() })
	if err != nil {
		t.Fatal(err)
	}
	taken, err := vault.Secret()
	if err != nil || taken.Secret == nil || taken.Boots != 3 || taken.Loan.Number != 5 || taken.Loan.Lender != (register.Digest{2}) || len(taken.Held) != 1 {
		t.Errorf("got %+v and error %v, want loan 5 after 3 boots", taken, err)
	}
	if again, err := vault.Secret(); !errors.Is(err, secret.ErrSealed) || again.Secret != nil {
		t.Errorf("a second time: got %+v and error %v, want %v", again, err, secret.ErrSealed)
	}
	if err := vault.CountBoot(); err != nil {
		t.Error(err)
	}
	s.Hold(sealing.Taken{Secret: taken.Secret})
	s.Kill()
	var got string
	for !strings.Contains(got, "4 5\n") {
		b := make([]byte, 64)
		n, err := said.Read(b)
		if err != nil {
			t.Fatalf("the borrower was asked %q, and no more: %v", got, err)
		}
		got += string(b[:n])
	}
	if want := "1 0\n3 5\n4 5\n"; got != want {
		t.Errorf("the borrower was asked %q, want %q", got, want)
	}
	zeros := true
	taken.Secret.Expose(func(raw []byte) { zeros = string(raw) == strings.Repeat("\x00", secret.Size) })
	if !zeros {
		t.Error("the secret is still held when it is given back")
	}
}

// TestBorrowerGivesUp: why there is no loan is the host's to know.
func TestBorrowerGivesUp(t *testing.T) {
	for word, want := range map[role.Word]status.Code{role.LoanRefused: status.LoanRefused, role.LoanHeld: status.LoanHeld, role.LoanLost: status.LoanLost} {
		s, g := start(t)
		theirs, _ := peer(t, word.String()+"\n")
		if vault, err := s.borrower(g.ctx, theirs, func(stream *os.File) { stream.Close() }); err == nil {
			t.Errorf("%s: got %v, want an error", word, vault)
		}
		if code := <-g.ends; code != want {
			t.Errorf("%s: the guest's end: got %s, want %s", word, code, want)
		}
	}
}
