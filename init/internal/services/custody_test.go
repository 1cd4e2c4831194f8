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
		if refusal := map[uint64]role.Answer{6: role.AnswerNotHeld, 7: role.AnswerHeld}[c.Number]; c.Call == role.CallMoved && refusal != 0 {
			return refusal, role.Loan{}, nil
		}
		if c.Call == role.CallLend || c.Call == role.CallMove {
			return role.AnswerDone, role.Loan{Secret: s, Boots: 3, Held: []register.Digest{{1}}, Loan: eventlog.Loan{Number: 5, Lender: register.Digest{2}}}, nil
		}
		return role.AnswerDone, role.Loan{}, nil
	})
	time.Sleep(time.Hour)
}

// custodianMain is a custodian whose secret came under the number that it was told, until that is settled.
func custodianMain() {
	files, err := role.Custodian.Inherit()
	if err != nil {
		panic(err)
	}
	kept, err := role.ReceiveKept(files[role.SecretPipe])
	if err != nil {
		panic(err)
	}
	role.Say(files[role.Status], role.Ready)
	fmt.Fprintf(files[role.Journal], "came %d after %d, %d held it, %d boots\n", kept.Came.Number, kept.Came.Boots, len(kept.Held), kept.Boots)
	open := kept.Came.Number != 0
	_ = role.ServeLoans(files[role.Loans], func(c role.LoanCall) (role.Answer, role.Loan, error) {
		fmt.Fprintf(files[role.Journal], "%d %d\n", c.Call, c.Number)
		if c.Call == role.CallCame && open {
			return role.AnswerHeld, role.Loan{Loan: eventlog.Loan{Number: kept.Came.Number}, Proof: kept.Secret.Moved(kept.Came.Number)}, nil
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
	vault, err := s.borrow(g.ctx, theirs, func(stream *os.File) { stream.Close() })
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
		if vault, err := s.borrow(g.ctx, theirs, func(stream *os.File) { stream.Close() }); err == nil {
			t.Errorf("%s: got %v, want an error", word, vault)
		}
		if code := <-g.ends; code != want {
			t.Errorf("%s: the guest's end: got %s, want %s", word, code, want)
		}
	}
}

// TestSuccessor starts a custodian that takes its secret over, as init does: the secret comes by a move and counts no boot; the custodian is
// told how it came; the giver is told that it is kept, and only then the custodian that it is the only one.
func TestSuccessor(t *testing.T) {
	for name, tt := range map[string]struct {
		number        uint64 // under which the secret came; the giver knows of no 6, and does not answer about 7
		connected     bool
		said, settled string
	}{
		"settled":             {5, true, "5 0\n6 5\n", "7 0\n8 5\n"},
		"the giver refuses":   {6, true, "5 0\n6 6\n", "7 0\n"},
		"the giver is silent": {7, true, "5 0\n6 7\n", "7 0\n"},
		"nobody is connected": {5, false, "5 0\n", "7 0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := start(t)
			theirs, said := peer(t, "ready\n")
			giver, err := s.succeed(g.ctx, theirs, func(stream *os.File) { stream.Close() }, true)
			if err != nil {
				t.Fatal(err)
			}
			taken, err := giver.Secret()
			if want := (role.Coming{Number: 5, Boots: 3}); err != nil || taken.Came != want || taken.Boots != 0 || taken.Loan != (eventlog.Loan{}) || len(taken.Held) != 1 {
				t.Fatalf("got %+v and error %v, want it to come as %+v, after no boot here, and no loan", taken, err, want)
			}
			taken.Came.Number = tt.number
			s.Hold(taken)
			disk, err := os.Create(t.TempDir() + "/journal")
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			loans, told, err := s.Custodian(g.ctx, disk)
			if err != nil || told.Call != role.CallMoved || told.Number != tt.number || told.Proof == ([32]byte{}) {
				t.Fatalf("got %+v and error %v, want that move %d is to be told, with its proof", told, err, tt.number)
			}
			defer loans.Close()
			if !tt.connected {
				giver = nil
			}
			err = Settle(giver, loans, told)
			if settled := strings.Contains(tt.settled, "8 5"); settled != (err == nil) || !settled && !errors.Is(err, ErrUnsettled) {
				t.Errorf("settling: got %v, want it settled: %t", err, settled)
			}
			if silent := tt.number == 7; silent != errors.Is(err, ErrSilent) {
				t.Errorf("settling: got %v, want it to be silence: %t", err, silent)
			}
			journal, err := os.ReadFile(disk.Name())
			if want := fmt.Sprintf("came %d after 3, 1 held it, 0 boots\n%s", tt.number, tt.settled); err != nil || string(journal) != want {
				t.Errorf("the custodian was told %q (error %v), want %q", journal, err, want)
			}
			got := make([]byte, len(tt.said))
			if _, err := io.ReadFull(said, got); err != nil || string(got) != tt.said {
				t.Errorf("the borrower was asked %q (error %v), want %q", got, err, tt.said)
			}
		})
	}
}

// TestSuccessorAsksNothing: a custodian that has its secret already takes none, and one whose secret came from nobody has nothing to settle.
func TestSuccessorAsksNothing(t *testing.T) {
	s, g := start(t)
	theirs, _ := peer(t, "ready\n")
	giver, err := s.succeed(g.ctx, theirs, func(stream *os.File) { stream.Close() }, false)
	if err != nil {
		t.Fatal(err)
	}
	if taken, err := giver.Secret(); !errors.Is(err, secret.ErrSealed) || taken.Secret != nil {
		t.Errorf("got a secret: %t, error %v, want %v", taken.Secret != nil, err, secret.ErrSealed)
	}
	s.Hold(sealing.Taken{Secret: testSecret(t)})
	disk, err := os.Create(t.TempDir() + "/journal")
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	loans, told, err := s.Custodian(g.ctx, disk)
	if err != nil || told.Number != 0 {
		t.Fatalf("got %+v and error %v, want nothing to be told", told, err)
	}
	loans.Close()
}
