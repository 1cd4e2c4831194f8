// Package custodian keeps a secret that it lends to one guest at a time, and the count of its loans. It judges nobody: that who asks may
// have the secret is the lender's verdict. What is here is that no two have it at once.
//
//	c, err := custodian.Open(disk, key, kept, lease, nil)
//	answer, loan, err := c.Answer(call)
//
// A loan has a number, one more each time, which is durable before the secret leaves. It holds for a lease after it was last renewed. The
// next is lent once this one was given back, or once its lease and a margin have run out; a number whose lease has run out is never
// renewed again. After its start a custodian waits out lease and margin before it lends anything: who borrowed before may go on until
// then, and what the journal says of them is as old as the host likes.
//
// The secret goes to another custodian under a number too, and stays here until that one says that it has it, with a proof. From then on, which
// is durable before it is acknowledged, it is gone: nothing is lent here any more. The other one lends nothing before it has heard so. Who
// lends is decided by one write of this journal, whatever is cut on either side.
//
// What this package does not promise. Time is the machine's monotonic clock, on both sides: a host that can make the custodian's run fast,
// or hold up a borrower's, has two guests with the secret for as long. A host that puts back the custodian's disk has a number lent twice,
// one after the other; where the disk is all that the count rests on, nothing here finds that out within a boot.
package custodian

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// Margin is what is waited beyond a lease: an eighth of it, for clocks that differ.
func Margin(lease time.Duration) time.Duration { return lease / 8 }

// Custodian holds the secret. It belongs to one goroutine.
type Custodian struct {
	journal *journal.Journal
	secret  *secret.Secret
	lease   time.Duration
	now     func() time.Time

	came uint64 // number under which the secret came; 0: it was made here
	state
	held  []register.Digest // measurements of all images that have had the secret, the first at first
	began bool              // a checkpoint was read or written

	live    bool      // the last loan was lent in this boot, and somebody may have it
	counted bool      // its borrower has counted its boot
	since   time.Time // from when lease and margin are waited out before the next loan: zero where nothing is waited for
}

// state is what is durable, beside who has held the secret.
type state struct {
	number uint64   // of the last loan or move
	boots  uint64   // that the borrowers have counted
	open   bool     // the secret came under the present number, and whoever gave it has it still
	moving bool     // the last number is that of a move
	gone   [32]byte // the proof with which the secret went to another custodian: zeros while it is here
}

// What the journal has: an entry when the secret is lent or given away, with the measurements of the two sides, when the borrower has counted its
// boot, when a loan is given back, when the taker of the secret has it, and when the giver has it no more. Each is the call, as it came.

// Open opens the journal and begins. kept is the secret out of its vault. now is the clock, nil for time.Now, whose readings are monotonic.
func Open(disk journal.Device, key [32]byte, kept role.Kept, lease time.Duration, now func() time.Time) (*Custodian, error) {
	if now == nil {
		now = time.Now
	}
	c := &Custodian{secret: kept.Secret, held: slices.Clone(kept.Held), lease: lease, now: now, came: kept.Came.Number,
		state: state{number: kept.Came.Number, boots: kept.Came.Boots, open: kept.Came.Number != 0}}
	var err error
	if c.journal, err = journal.Open(disk, key, kept.Boots, books{c}); err != nil {
		return nil, err
	}
	c.since = now()
	return c, nil
}

// books are the custodian as its journal's owner.
type books struct{ *Custodian }

// Entry applies an entry of an earlier boot.
func (c books) Entry(entry []byte, _ journal.Place) error {
	call, err := role.DecodeCall(entry)
	if err != nil {
		return err
	}
	want := c.number
	if call.Call == role.CallLend || call.Call == role.CallMove {
		want++
	}
	if call.Number != want || c.open != (call.Call == role.CallSettle) || c.Gone() {
		return fmt.Errorf("an entry is of call %d of number %d after number %d", call.Call, call.Number, c.number)
	}
	return c.apply(call)
}

// What a checkpoint has: number of the last loan or move, boots, number under which the secret came, what is true, the proof with which the
// secret went, and the measurements of the images that have had it.
const (
	headBytes = 8 + 8 + 8 + 1 + 32

	headOpen   = 1
	headMoving = 2
)

// Head returns it.
func (c books) Head() []byte {
	head := make([]byte, 0, headBytes+len(c.held)*len(register.Digest{}))
	for _, number := range []uint64{c.number, c.boots, c.came} {
		head = binary.LittleEndian.AppendUint64(head, number)
	}
	var truths byte
	if c.open {
		truths |= headOpen
	}
	if c.moving {
		truths |= headMoving
	}
	head = append(append(head, truths), c.gone[:]...)
	for _, image := range c.held {
		head = append(head, image[:]...)
	}
	c.began = true
	return head
}

// Begin takes a checkpoint. What was read before has to come to it. One of another custodian of the same secret is refused, which had it
// under another number.
func (c books) Begin(head []byte) error {
	const image = len(register.Digest{})
	if len(head) < headBytes || (len(head)-headBytes)%image != 0 {
		return fmt.Errorf("a checkpoint has %d bytes, want %d and measurements", len(head), headBytes)
	}
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(head[8*at:]) }
	if came := number(2); came != c.came {
		return fmt.Errorf("a checkpoint is of a custodian whose secret came under number %d, want %d", came, c.came)
	}
	got := state{number: number(0), boots: number(1), open: head[24]&headOpen != 0, moving: head[24]&headMoving != 0, gone: [32]byte(head[25:])}
	if head[24]&^(headOpen|headMoving) != 0 || c.began && got != c.state {
		return fmt.Errorf("a checkpoint has number %d, %d boots and truths %d, want what the entries before it say: number %d and %d boots", got.number,
			got.boots, head[24], c.number, c.boots)
	}
	if c.state, c.began = got, true; c.Gone() {
		c.secret.Wipe()
	}
	for held := head[headBytes:]; len(held) > 0; held = held[image:] {
		c.hold(register.Digest(held))
	}
	return nil
}

// Part refuses every part, for Next has none.
func (c books) Part(part []byte) error { return fmt.Errorf("a part of %d bytes, want none", len(part)) }

func (c books) Next(int) []byte { return nil }

func (c books) End() error { return nil }

// apply changes the state.
func (c *Custodian) apply(call role.LoanCall) error {
	switch call.Call {
	case role.CallLend, role.CallMove:
		c.number, c.moving = call.Number, call.Call == role.CallMove
		c.hold(call.Giver)
		c.hold(call.Taker)
	case role.CallCount:
		c.boots++
	case role.CallBack: // of an earlier boot it says nothing: the journal is as old as the host likes
	case role.CallMoved:
		c.gone = call.Proof
		c.secret.Wipe()
	case role.CallSettle:
		c.open = false
	default:
		return fmt.Errorf("an entry is of call %d", call.Call)
	}
	return nil
}

// Gone reports whether the secret is another custodian's.
func (c *Custodian) Gone() bool { return c.gone != [32]byte{} }

func (c *Custodian) hold(image register.Digest) {
	if !slices.Contains(c.held, image) {
		c.held = append(c.held, image)
	}
}

// commit makes a call's effect, which a checkpoint that is written with it has, and makes it durable. After an error nothing counts any more.
func (c *Custodian) commit(call role.LoanCall) error {
	if err := c.apply(call); err != nil {
		return err
	}
	_, err := c.journal.Commit(call.Encode())
	return err
}

// Answer answers a call. An error says that the journal fails: the custodian must end, for what lies on the disk is not known any more.
func (c *Custodian) Answer(call role.LoanCall) (role.Answer, role.Loan, error) {
	switch {
	case call.Call == role.CallCame:
		if c.open {
			return role.AnswerHeld, role.Loan{Loan: eventlog.Loan{Number: c.number}, Proof: c.secret.Moved(c.number)}, nil
		}
		return role.AnswerDone, role.Loan{}, nil
	case c.Gone():
		// Whoever took it may not have heard the answer.
		if call.Call == role.CallMoved && call.Number == c.number && subtle.ConstantTimeCompare(call.Proof[:], c.gone[:]) == 1 {
			return role.AnswerDone, role.Loan{}, nil
		}
		return role.AnswerGone, role.Loan{}, nil
	case c.open && (call.Call != role.CallSettle || call.Number != c.number), !c.open && call.Call == role.CallSettle:
		return role.AnswerNotHeld, role.Loan{}, nil
	case call.Call == role.CallLend, call.Call == role.CallMove:
		return c.give(call)
	case call.Call == role.CallMoved:
		if proof := c.secret.Moved(c.number); !c.moving || call.Number != c.number || subtle.ConstantTimeCompare(call.Proof[:], proof[:]) != 1 {
			return role.AnswerNotHeld, role.Loan{}, nil
		}
		return c.durable(call)
	case call.Call == role.CallSettle:
		c.since = c.now() // who borrowed from the giver before it knew may go on until then
		return c.durable(call)
	}
	now := c.now()
	// A number whose lease has run out, or that was lent before the start, stays dead.
	if c.live = c.live && now.Sub(c.since) <= c.lease; !c.live || call.Number != c.number {
		return role.AnswerNotHeld, role.Loan{}, nil
	}
	if call.Call == role.CallRenew {
		c.since = now
	}
	if call.Call == role.CallRenew || call.Call == role.CallCount && c.counted {
		return role.AnswerDone, role.Loan{}, nil
	}
	if err := c.commit(call); err != nil {
		return 0, role.Loan{}, err
	}
	if c.counted = true; call.Call == role.CallBack {
		c.live, c.since = false, time.Time{}
	}
	return role.AnswerDone, role.Loan{}, nil
}

// durable commits a call that changes nothing but what is durable.
func (c *Custodian) durable(call role.LoanCall) (role.Answer, role.Loan, error) {
	if err := c.commit(call); err != nil {
		return 0, role.Loan{}, err
	}
	return role.AnswerDone, role.Loan{}, nil
}

// give lends the secret, or has it leave for another custodian: nobody gets it after that but as after a loan, until that one has it.
func (c *Custodian) give(call role.LoanCall) (role.Answer, role.Loan, error) {
	if call.Giver == (register.Digest{}) || call.Taker == (register.Digest{}) {
		return 0, role.Loan{}, fmt.Errorf("giving the secret: giver is %s and taker %s, want measurements", call.Giver, call.Taker)
	}
	if !c.since.IsZero() && c.now().Sub(c.since) <= c.lease+Margin(c.lease) {
		return role.AnswerHeld, role.Loan{}, nil
	}
	before := slices.DeleteFunc(slices.Clone(c.held), func(image register.Digest) bool { return image == call.Taker })
	if call.Giver != call.Taker && !slices.Contains(before, call.Giver) {
		before = append(before, call.Giver)
	}
	if len(before) > eventlog.MaxHeld {
		return role.AnswerFull, role.Loan{}, nil
	}
	call.Number = c.number + 1
	if err := c.commit(call); err != nil {
		return 0, role.Loan{}, err
	}
	c.live, c.counted, c.since = call.Call == role.CallLend, false, c.now()
	var given *secret.Secret
	var err error
	c.secret.Expose(func(raw []byte) { given, err = secret.New(raw) })
	return role.AnswerDone, role.Loan{Secret: given, Boots: c.boots, Held: before, Loan: eventlog.Loan{Number: c.number}}, err
}
