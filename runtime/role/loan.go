package role

import (
	"encoding/binary"
	"fmt"
	"io"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

// Loan is a secret on its way to who borrows it, or out of its vault to the custodian.
type Loan struct {
	Secret *secret.Secret
	Boots  uint64            // that the borrowers' journals have counted
	Held   []register.Digest // measurements of the images that have held the secret before the one that gets it
	eventlog.Loan
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

// SendLoan writes a loan to a pipe. The caller wipes the secret, and closes the pipe: its end is part of the message.
func SendLoan(pipe io.Writer, l Loan) error {
	message := EncodeLoan(l)
	defer clear(message)
	if _, err := pipe.Write(message); err != nil {
		return fmt.Errorf("sending loan: %w", err)
	}
	return nil
}

// ReceiveLoan reads a loan to the pipe's end.
func ReceiveLoan(pipe io.Reader) (Loan, error) {
	message := make([]byte, MaxLoanBytes+1)
	defer clear(message)
	n, err := io.ReadFull(pipe, message)
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
	case nil:
		return Loan{}, fmt.Errorf("receiving loan: more than %d bytes", MaxLoanBytes)
	default:
		return Loan{}, fmt.Errorf("receiving loan: %w", err)
	}
	return DecodeLoan(message[:n])
}

// Call is what is asked on a stream of loans: what the lender asks of the custodian for a borrower, and init of its borrower.
type Call uint8

// The calls.
const (
	CallLend  Call = iota + 1 // lends the secret to the taker
	CallRenew                 // begins the lease of the loan anew
	CallCount                 // the borrower's journal has counted a boot under the loan
	CallBack                  // the loan is given back

	endOfCalls
)

// LoanCall is one call. What does not belong to it is zero.
type LoanCall struct {
	Call   Call
	Number uint64 // of the loan, but for a lend
	// Giver and Taker are the measurements of the two sides of a lend; init, which knows neither, names none to its borrower.
	Giver, Taker register.Digest
}

const loanCallBytes = 1 + 8 + 32 + 32

// Answer says what became of a call.
type Answer uint8

// The answers.
const (
	AnswerDone    Answer = iota + 1
	AnswerHeld           // another may have the loan still
	AnswerNotHeld        // the loan is not this number any more, or its lease has run out
	AnswerFull           // so many images have held the secret that it stays

	endOfAnswers
)

func (a Answer) String() string {
	return [...]string{"none", "done", "held", "not held", "full"}[min(a, endOfAnswers)%endOfAnswers]
}

// AskLoan makes a call on a stream of loans. The loan is that of a lend that was done.
func AskLoan(stream io.ReadWriter, c LoanCall) (a Answer, l Loan, err error) {
	b := binary.LittleEndian.AppendUint64([]byte{byte(c.Call)}, c.Number)
	if _, err := stream.Write(append(append(b, c.Giver[:]...), c.Taker[:]...)); err != nil {
		return 0, Loan{}, fmt.Errorf("asking for loan: %w", err)
	}
	var head [3]byte
	if _, err := io.ReadFull(stream, head[:]); err != nil {
		return 0, Loan{}, fmt.Errorf("asking for loan: reading answer: %w", err)
	}
	size := int(binary.LittleEndian.Uint16(head[1:]))
	a = Answer(head[0])
	if lent := a == AnswerDone && c.Call == CallLend; a == 0 || a >= endOfAnswers || lent != (size > 0) || size > MaxLoanBytes {
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
		c := LoanCall{Call: Call(b[0]), Number: binary.LittleEndian.Uint64(b[1:]), Giver: register.Digest(b[9:]), Taker: register.Digest(b[41:])}
		none := register.Digest{}
		lend, parties := c.Call == CallLend, c.Giver != none
		if c.Call == 0 || c.Call >= endOfCalls || lend != (c.Number == 0) || parties != (c.Taker != none) || parties && !lend {
			return fmt.Errorf("reading call for a loan: call %d of number %d, giver %s and taker %s", c.Call, c.Number, c.Giver, c.Taker)
		}
		a, l, err := answer(c)
		if err != nil {
			return err
		}
		var message []byte
		if l.Secret != nil {
			message = EncodeLoan(l)
			l.Secret.Wipe()
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
