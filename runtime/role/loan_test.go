package role

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

// asked makes a call that is answered so, and returns the bytes of both directions.
func asked(t *testing.T, c LoanCall, a Answer, l Loan) (call, answer []byte) {
	t.Helper()
	ours, theirs := net.Pipe()
	var out, in bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- ServeLoans(struct {
			io.Reader
			io.Writer
		}{io.TeeReader(theirs, &out), io.MultiWriter(theirs, &in)}, func(got LoanCall) (Answer, Loan, error) {
			if got != c {
				t.Errorf("got the call %+v, want %+v", got, c)
			}
			return a, l, nil
		})
	}()
	got, lent, err := AskLoan(ours, c)
	if err != nil || got != a || (lent.Secret != nil) != (l.Secret != nil) || lent.Number != l.Number {
		t.Errorf("got %v, loan %d, error %v, want %v, loan %d", got, lent.Number, err, a, l.Number)
	}
	ours.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return out.Bytes(), in.Bytes()
}

func testLoan(t *testing.T) Loan {
	return Loan{Secret: testSecret(t), Boots: 3, Held: []register.Digest{{1}, {2}}, Loan: eventlog.Loan{Number: 4, Lender: register.Digest{5}}}
}

func TestLoanMessage(t *testing.T) {
	want := testLoan(t)
	message := EncodeLoan(want)
	got, err := DecodeLoan(message)
	if err != nil || !got.Secret.Equal(want.Secret) {
		t.Fatalf("got error %v, want none, and the secret", err)
	}
	got.Secret, want.Secret = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, tt := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"nothing", nil, "0 bytes, want at least 80"},
		{"a secret's message", message[:40], "40 bytes, want at least 80"},
		{"a byte less", message[:len(message)-1], "63 bytes"},
		{"one that held it twice", append(bytes.Clone(message), message[len(message)-32:]...), "each once"},
		{"zeros", make([]byte, 80), "every byte is zero"},
		{"more than a message", make([]byte, MaxLoanBytes+1), "2049 bytes"},
	} {
		if got, err := DecodeLoan(tt.message); got.Secret != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

func testKept(t *testing.T) Kept {
	return Kept{Secret: testSecret(t), Boots: 3, Held: []register.Digest{{1}, {2}}, Came: Coming{Number: 4, Boots: 5}}
}

func TestKeptMessage(t *testing.T) {
	want := testKept(t)
	var pipe bytes.Buffer
	if err := SendKept(&pipe, want); err != nil {
		t.Fatal(err)
	}
	message := bytes.Clone(pipe.Bytes())
	got, err := ReceiveKept(iotest.OneByteReader(&pipe))
	if err != nil || !got.Secret.Equal(want.Secret) {
		t.Fatalf("got error %v, want none, and the secret", err)
	}
	got.Secret, want.Secret = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	fromNobody := bytes.Clone(message)
	clear(fromNobody[secret.Size+8 : secret.Size+16])
	for _, tt := range []struct {
		name string
		pipe io.Reader
		want string
	}{
		{"nothing", bytes.NewReader(nil), "0 bytes, want at least 56"},
		{"a secret's message", bytes.NewReader(message[:40]), "40 bytes, want at least 56"},
		{"a byte less", bytes.NewReader(message[:len(message)-1]), "63 bytes"},
		{"one that held it twice", bytes.NewReader(append(bytes.Clone(message), message[len(message)-32:]...)), "each once"},
		{"zeros", bytes.NewReader(make([]byte, 56)), "every byte is zero"},
		{"boots before it came from nobody", bytes.NewReader(fromNobody), "5 boots"},
		{"more than a message", bytes.NewReader(make([]byte, maxKeptBytes+1)), "more than"},
		{"a pipe that breaks", io.MultiReader(bytes.NewReader(message), iotest.ErrReader(errors.New("broken"))), "broken"},
	} {
		if got, err := ReceiveKept(tt.pipe); got.Secret != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

// TestLoanStream: each call gets its answer, a loan only where one was lent, and who lent it wipes its copy.
func TestLoanStream(t *testing.T) {
	lend := LoanCall{Call: CallLend, Giver: register.Digest{1}, Taker: register.Digest{2}}
	lent := testLoan(t)
	if _, answer := asked(t, lend, AnswerDone, lent); !bytes.Contains(answer, bytes.Repeat([]byte{7}, secret.Size)) {
		t.Error("the answer has no secret")
	}
	wiped := true
	lent.Secret.Expose(func(raw []byte) { wiped = bytes.Equal(raw, make([]byte, secret.Size)) })
	if !wiped {
		t.Error("the secret was not wiped after it was lent")
	}
	for _, a := range []Answer{AnswerHeld, AnswerFull} {
		asked(t, lend, a, Loan{})
	}
	asked(t, LoanCall{Call: CallLend}, AnswerHeld, Loan{})
	for _, c := range []Call{CallRenew, CallCount, CallBack, CallSettle} {
		asked(t, LoanCall{Call: c, Number: 9}, AnswerNotHeld, Loan{})
	}
	asked(t, LoanCall{Call: CallMove, Giver: register.Digest{1}, Taker: register.Digest{2}}, AnswerDone, testLoan(t))
	asked(t, LoanCall{Call: CallMove}, AnswerGone, Loan{})
	asked(t, LoanCall{Call: CallMoved, Number: 9, Proof: [32]byte{1}}, AnswerDone, Loan{})
	asked(t, LoanCall{Call: CallCame}, AnswerDone, Loan{})
	if _, answer := asked(t, LoanCall{Call: CallCame}, AnswerHeld, Loan{Loan: eventlog.Loan{Number: 9}, Proof: [32]byte{7}}); len(answer) != 3+40 || answer[11] != 7 {
		t.Errorf("got the answer %x, want number and proof in it", answer)
	}
}

func TestLoanStreamRefuses(t *testing.T) {
	for name, c := range map[string]LoanCall{
		"no call": {Number: 1}, "an unknown call": {Call: endOfCalls, Number: 1}, "a numbered lend": {Call: CallLend, Number: 1},
		"a lend from nobody": {Call: CallLend, Taker: register.Digest{1}}, "a lend to nobody": {Call: CallLend, Giver: register.Digest{1}},
		"a renewal of no loan": {Call: CallRenew}, "a renewal that names somebody": {Call: CallRenew, Number: 1, Giver: register.Digest{1}, Taker: register.Digest{1}},
		"a numbered move": {Call: CallMove, Number: 1}, "a move to nobody": {Call: CallMove, Giver: register.Digest{1}},
		"a move that is done, without its proof": {Call: CallMoved, Number: 1}, "one of no number": {Call: CallMoved, Proof: [32]byte{1}},
		"one that names a taker": {Call: CallMoved, Number: 1, Proof: [32]byte{1}, Taker: register.Digest{1}},
		"a numbered question":    {Call: CallCame, Number: 1}, "a settlement of nothing": {Call: CallSettle},
	} {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- ServeLoans(theirs, func(LoanCall) (Answer, Loan, error) { return AnswerDone, Loan{}, nil })
			theirs.Close()
		}()
		if _, _, err := AskLoan(ours, c); err == nil {
			t.Errorf("%s: got an answer, want none", name)
		}
		if err := <-done; err == nil {
			t.Errorf("%s: it was served, want an error", name)
		}
	}
	for name, tt := range map[string]struct {
		c      LoanCall
		answer []byte
	}{
		"no answer":               {LoanCall{Call: CallRenew, Number: 1}, []byte{0, 0, 0}},
		"an unknown answer":       {LoanCall{Call: CallRenew, Number: 1}, []byte{byte(endOfAnswers), 0, 0}},
		"a loan for a renewal":    {LoanCall{Call: CallRenew, Number: 1}, append([]byte{1, 80, 0}, make([]byte, 80)...)},
		"a lend without a loan":   {LoanCall{Call: CallLend}, []byte{1, 0, 0}},
		"a loan that is too long": {LoanCall{Call: CallLend}, []byte{1, 0xff, 0xff}},
		"a move without a secret": {LoanCall{Call: CallMove}, []byte{1, 0, 0}},
		"a coming cut short":      {LoanCall{Call: CallCame}, append([]byte{2, 39, 0}, make([]byte, 39)...)},
		"a coming that is done":   {LoanCall{Call: CallCame}, append([]byte{1, 40, 0}, make([]byte, 40)...)},
		"a loan cut short":        {LoanCall{Call: CallLend}, []byte{1, 80, 0, 1}},
	} {
		stream := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(tt.answer), io.Discard}
		if a, l, err := AskLoan(stream, tt.c); err == nil || l.Secret != nil {
			t.Errorf("%s: got %v, a secret: %t, want an error", name, a, l.Secret != nil)
		}
	}
}
