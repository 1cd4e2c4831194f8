package role

import (
	"encoding/binary"
	"fmt"
	"io"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

// Loan is a secret on its way to who borrows it, or to the custodian that takes it over.
type Loan struct {
	Secret *secret.Secret
	Boots  uint64            // that the borrowers' journals have counted
	Held   []register.Digest // measurements of the images that have held the secret before the one that gets it
	eventlog.Loan
	// Proof is the secret's own, of a custodian that has taken it over and is not the only one that has it yet. No loan's message has it.
	Proof [32]byte
}

// What a loan's message has: secret, boots, number, lender, and those who held it.
const (
	loanHeadBytes = secret.Size + 8 + 8 + 32
	// MaxLoanBytes bounds a loan's message.
	MaxLoanBytes = loanHeadBytes + eventlog.MaxHeld*32
)

// EncodeLoan returns the loan's message, which the caller wipes.
func EncodeLoan(l Loan) []byte {
	message := make([]byte, 0, loanHeadBytes+len(l.Held)*32)
	l.Secret.Expose(func(raw []byte) { message = append(message, raw...) })
	message = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(message, l.Boots), l.Number)
	return append(append(message, l.Lender[:]...), eventlog.HeldData(l.Held)...)
}

// DecodeLoan parses a loan's message.
func DecodeLoan(message []byte) (l Loan, err error) {
	if len(message) < loanHeadBytes {
		return Loan{}, fmt.Errorf("reading loan: %d bytes, want at least %d", len(message), loanHeadBytes)
	}
	l.Boots, l.Number = binary.LittleEndian.Uint64(message[secret.Size:]), binary.LittleEndian.Uint64(message[secret.Size+8:])
	l.Lender = register.Digest(message[secret.Size+16:])
	if l.Held, err = eventlog.HeldOf(message[loanHeadBytes:]); err != nil {
		return Loan{}, fmt.Errorf("reading loan: %w", err)
	}
	if l.Secret, err = secret.New(message[:secret.Size]); err != nil {
		return Loan{}, fmt.Errorf("reading loan: %w", err)
	}
	return l, nil
}

// Kept is a custodian's secret out of its vault.
type Kept struct {
	Secret *secret.Secret
	Boots  uint64            // of the custodian's own
	Held   []register.Digest // measurements of the images that have held the secret before the custodian's
	// Came is the number under which the secret came from another custodian, and the boots that the borrowers' journals had counted by then:
	// zeros of a secret that was made here.
	Came Coming
}

// Coming is how a secret came from another custodian.
type Coming struct{ Number, Boots uint64 }

// What a custodian's message has: secret, boots, number and boots of its coming, and those who held it.
const (
	keptHeadBytes = secret.Size + 8 + 8 + 8
	maxKeptBytes  = keptHeadBytes + eventlog.MaxHeld*32
)

// SendKept writes a custodian's message to a pipe. The caller wipes the secret, and closes the pipe: its end is part of the message.
func SendKept(pipe io.Writer, k Kept) error {
	message := make([]byte, 0, keptHeadBytes+len(k.Held)*32)
	k.Secret.Expose(func(raw []byte) { message = append(message, raw...) })
	for _, number := range []uint64{k.Boots, k.Came.Number, k.Came.Boots} {
		message = binary.LittleEndian.AppendUint64(message, number)
	}
	message = append(message, eventlog.HeldData(k.Held)...)
	defer clear(message)
	if _, err := pipe.Write(message); err != nil {
		return fmt.Errorf("sending custodian's secret: %w", err)
	}
	return nil
}

// ReceiveKept reads a custodian's message to the pipe's end.
func ReceiveKept(pipe io.Reader) (k Kept, err error) {
	message := make([]byte, maxKeptBytes+1)
	defer clear(message)
	n, err := io.ReadFull(pipe, message)
	switch {
	case err == nil:
		return k, fmt.Errorf("receiving custodian's secret: more than %d bytes", maxKeptBytes)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		return k, fmt.Errorf("receiving custodian's secret: %w", err)
	case n < keptHeadBytes:
		return k, fmt.Errorf("receiving custodian's secret: %d bytes, want at least %d", n, keptHeadBytes)
	}
	numbers := message[secret.Size:keptHeadBytes]
	k.Boots = binary.LittleEndian.Uint64(numbers)
	k.Came = Coming{Number: binary.LittleEndian.Uint64(numbers[8:]), Boots: binary.LittleEndian.Uint64(numbers[16:])}
	if k.Came.Number == 0 && k.Came.Boots != 0 {
		return Kept{}, fmt.Errorf("receiving custodian's secret: %d boots before it came, and it came from nobody", k.Came.Boots)
	}
	if k.Held, err = eventlog.HeldOf(message[keptHeadBytes:n]); err != nil {
		return Kept{}, fmt.Errorf("receiving custodian's secret: %w", err)
	}
	if k.Secret, err = secret.New(message[:secret.Size]); err != nil {
		return Kept{}, fmt.Errorf("receiving custodian's secret: %w", err)
	}
	return k, nil
}

// Call is what is asked on a stream of loans: what the lender asks of the custodian for a borrower, init of its borrower, and init of a
// custodian that has no lender yet.
type Call uint8

// The calls.
const (
	CallLend   Call = iota + 1 // lends the secret to the taker
	CallRenew                  // begins the lease of the loan anew
	CallCount                  // the borrower's journal has counted a boot under the loan
	CallBack                   // the loan is given back
	CallMove                   // gives the secret to the taker, a custodian: for good, once that has it
	CallMoved                  // the taker has it, with its proof: here it is gone
	CallCame                   // asks of a custodian whether the one that gave it its secret has it still
	CallSettle                 // it does not: the secret is this custodian's

	endOfCalls
)

// LoanCall is one call. What does not belong to it is zero.
type LoanCall struct {
	Call   Call
	Number uint64 // of the loan, but for a lend, a move and the question of CallCame
	// Giver and Taker are the measurements of the two sides of a lend or a move; init, which knows neither, names none to its borrower.
	Giver, Taker register.Digest
	// Proof is that whoever says CallMoved has the secret.
	Proof [32]byte
}

// gives reports whether a call that is done is answered with the secret.
func (c Call) gives() bool { return c == CallLend || c == CallMove }

// names reports whether a call is about a number that there is.
func (c Call) names() bool { return !c.gives() && c != CallCame }

// check reports what can't be a call.
func (c LoanCall) check() error {
	none := register.Digest{}
	parties := c.Giver != none
	if c.Call == 0 || c.Call >= endOfCalls || c.Call.names() != (c.Number != 0) && !c.Call.gives() || parties != (c.Taker != none) || parties && !c.Call.gives() ||
		(c.Call == CallMoved) != (c.Proof != [32]byte{}) {
		return fmt.Errorf("call %d of number %d, giver %s, taker %s, with a proof: %t", c.Call, c.Number, c.Giver, c.Taker, c.Proof != [32]byte{})
	}
	return nil
}

const loanCallBytes = 1 + 8 + 32 + 32

// Encode returns the call's bytes: a proof stands where others have the giver.
func (c LoanCall) Encode() []byte {
	first := c.Giver
	if c.Call == CallMoved {
		first = c.Proof
	}
	b := binary.LittleEndian.AppendUint64([]byte{byte(c.Call)}, c.Number)
	return append(append(b, first[:]...), c.Taker[:]...)
}

// DecodeCall parses a call. A lend or move of a number is one that was done, as a journal has it; nobody asks so.
func DecodeCall(b []byte) (LoanCall, error) {
	if len(b) != loanCallBytes {
		return LoanCall{}, fmt.Errorf("reading call for a loan: %d bytes, want %d", len(b), loanCallBytes)
	}
	c := LoanCall{Call: Call(b[0]), Number: binary.LittleEndian.Uint64(b[1:]), Giver: register.Digest(b[9:]), Taker: register.Digest(b[41:])}
	if c.Call == CallMoved {
		c.Proof, c.Giver = c.Giver, register.Digest{}
	}
	if err := c.check(); err != nil {
		return LoanCall{}, fmt.Errorf("reading call for a loan: %w", err)
	}
	return c, nil
}

// Answer says what became of a call.
type Answer uint8

// The answers.
const (
	AnswerDone    Answer = iota + 1
	AnswerHeld           // another may have the loan still
	AnswerNotHeld        // the loan is not this number any more, or its lease has run out
	AnswerFull           // so many images have held the secret that it stays
	AnswerGone           // the secret is another custodian's

	endOfAnswers
)

func (a Answer) String() string {
	return [...]string{"none", "done", "held", "not held", "full", "gone"}[min(a, endOfAnswers)%endOfAnswers]
}

// cameBytes is what an answer to CallCame has: the number under which the secret came, and its proof.
const cameBytes = 8 + 32

// fits reports whether an answer to a call can have so many bytes behind it.
func (a Answer) fits(c Call, size int) bool {
	switch {
	case a == 0 || a >= endOfAnswers:
		return false
	case a == AnswerDone && c.gives():
		return size > 0 && size <= MaxLoanBytes
	case a == AnswerHeld && c == CallCame:
		return size == cameBytes
	}
	return size == 0
}

// AskLoan makes a call on a stream of loans. The loan is that of a lend or a move that was done; to CallCame an answer of AnswerHeld comes with
// the number under which the secret came, and its proof.
func AskLoan(stream io.ReadWriter, c LoanCall) (a Answer, l Loan, err error) {
	if _, err := stream.Write(c.Encode()); err != nil {
		return 0, Loan{}, fmt.Errorf("asking for loan: %w", err)
	}
	var head [3]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		return 0, Loan{}, fmt.Errorf("asking for loan: reading answer: %w", err)
	}
	size := int(binary.LittleEndian.Uint16(head[1:]))
	a = Answer(head[0])
	if !a.fits(c.Call, size) {
		return 0, Loan{}, fmt.Errorf("asking for loan: answer %d with %d bytes to call %d", head[0], size, c.Call)
	}
	if size == 0 {
		return a, Loan{}, nil
	}
	message := make([]byte, size)
	defer clear(message)
	if _, err := io.ReadFull(stream, message); err != nil {
		return 0, Loan{}, fmt.Errorf("asking for loan: reading answer: %w", err)
	}
	if c.Call == CallCame {
		return a, Loan{Loan: eventlog.Loan{Number: binary.LittleEndian.Uint64(message)}, Proof: [32]byte(message[8:])}, nil
	}
	l, err = DecodeLoan(message)
	return a, l, err
}

// ServeLoans answers calls on a stream of loans until it ends. A loan that answer returns is wiped once it is written. An error of
// answer's ends the serving: nobody is told what is not known.
func ServeLoans(stream io.ReadWriter, answer func(LoanCall) (Answer, Loan, error)) error {
	for {
		var b [loanCallBytes]byte
		if _, err := io.ReadFull(stream, b[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading call for a loan: %w", err)
		}
		c, err := DecodeCall(b[:])
		if err == nil && c.Call.gives() && c.Number != 0 {
			err = fmt.Errorf("reading call for a loan: call %d of number %d, want none: it gets its own", c.Call, c.Number)
		}
		if err != nil {
			return err
		}
		a, l, err := answer(c)
		if err != nil {
			return err
		}
		var message []byte
		switch {
		case l.Secret != nil:
			message = EncodeLoan(l)
			l.Secret.Wipe()
		case c.Call == CallCame && a == AnswerHeld:
			message = append(binary.LittleEndian.AppendUint64(nil, l.Number), l.Proof[:]...)
		}
		out := append(binary.LittleEndian.AppendUint16([]byte{byte(a)}, uint16(len(message))), message...)
		_, err = stream.Write(out)
		clear(message)
		clear(out)
		if err != nil {
			return fmt.Errorf("answering call for a loan: %w", err)
		}
	}
}
