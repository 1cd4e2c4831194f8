// Package custodian keeps a secret that it lends to one guest at a time, and the count of its loans. It judges nobody: that who asks may
// have the secret is the lender's verdict. What is here is that no two have it at once.
//
//	c, err := custodian.Open(disk, loan, lease, key, nil)
//	answer, loan, err := c.Answer(call)
//
// A loan has a number, one more each time, which is durable before the secret leaves. It holds for a lease after it was last renewed. The
// next is lent once this one was given back, or once its lease and a margin have run out; a number whose lease has run out is never
// renewed again. After its start a custodian waits out lease and margin before it lends anything: who borrowed before may go on until
// then, and what the journal says of them is as old as the host likes.
//
// What this package does not promise. Time is the machine's monotonic clock, on both sides: a host that can make the custodian's run fast,
// or hold up a borrower's, has two guests with the secret for as long. A host that puts back the custodian's disk has a number lent twice,
// one after the other; where the disk is all that the count rests on, nothing here finds that out within a boot.
package custodian

import (
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

	number uint64            // of the last loan
	boots  uint64            // that the borrowers have counted
	held   []register.Digest // measurements of all images that have had the secret, the first at first
	began  bool              // a checkpoint was read or written

	live    bool      // the last loan was lent in this boot, and somebody may have it
	counted bool      // its borrower has counted its boot
	since   time.Time // from when lease and margin are waited out before the next loan: zero where nothing is waited for
}

// What the journal has of a loan: an entry when it is lent, with the measurements of the two sides, when the borrower has counted its boot,
// and when it is given back. Each is the call as it came: kind, number, giver, taker.
const entryBytes = 1 + 8 + 32 + 32

// Open opens the journal and begins. kept is the secret out of its vault, with the boots that the custodian itself has counted and the
// images that have held it before the custodian's. now is the clock, nil for time.Now, whose readings are monotonic.
func Open(disk journal.Device, key [32]byte, kept role.Loan, lease time.Duration, now func() time.Time) (*Custodian, error) {
	if now == nil {
		now = time.Now
	}
	c := &Custodian{secret: kept.Secret, held: slices.Clone(kept.Held), lease: lease, now: now}
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
	if len(entry) != entryBytes {
		return fmt.Errorf("an entry has %d bytes, want %d", len(entry), entryBytes)
	}
	call := role.LoanCall{Call: role.Call(entry[0]), Number: binary.LittleEndian.Uint64(entry[1:]), Giver: register.Digest(entry[9:]),
		Taker: register.Digest(entry[41:])}
	if next := call.Call == role.CallLend; next && call.Number != c.number+1 || !next && call.Number != c.number {
		return fmt.Errorf("an entry is of loan %d after loan %d", call.Number, c.number)
	}
	return c.apply(call)
}

// Head is all that a checkpoint has: number of the last loan, boots, and the measurements of the images that have had the secret.
func (c books) Head() []byte {
	head := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, c.number), c.boots)
	for _, image := range c.held {
		head = append(head, image[:]...)
	}
	c.began = true
	return head
}

// Begin takes a checkpoint. What was read before has to come to it.
func (c books) Begin(head []byte) error {
	const image = len(register.Digest{})
	if len(head) < 16 || (len(head)-16)%image != 0 {
		return fmt.Errorf("a checkpoint has %d bytes, want 16 and measurements", len(head))
	}
	number, boots := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint64(head[8:])
	if c.began && (number != c.number || boots != c.boots) {
		return fmt.Errorf("a checkpoint has loan %d and %d boots, want %d and %d", number, boots, c.number, c.boots)
	}
	c.number, c.boots, c.began = number, boots, true
	for held := head[16:]; len(held) > 0; held = held[image:] {
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
	case role.CallLend:
		c.number = call.Number
		c.hold(call.Giver)
		c.hold(call.Taker)
	case role.CallCount:
		c.boots++
	case role.CallBack: // of an earlier boot it says nothing: the journal is as old as the host likes
	default:
		return fmt.Errorf("an entry is of call %d", call.Call)
	}
	return nil
}

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
	entry := binary.LittleEndian.AppendUint64([]byte{byte(call.Call)}, call.Number)
	_, err := c.journal.Commit(append(append(entry, call.Giver[:]...), call.Taker[:]...))
	return err
}

// Answer answers a call. An error says that the journal fails: the custodian must end, for what lies on the disk is not known any more.
func (c *Custodian) Answer(call role.LoanCall) (role.Answer, role.Loan, error) {
	if call.Call == role.CallLend {
		return c.lend(call)
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

func (c *Custodian) lend(call role.LoanCall) (role.Answer, role.Loan, error) {
	if call.Giver == (register.Digest{}) || call.Taker == (register.Digest{}) {
		return 0, role.Loan{}, fmt.Errorf("lending: giver is %s and taker %s, want measurements", call.Giver, call.Taker)
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
	c.live, c.counted, c.since = true, false, c.now()
	var lent *secret.Secret
	var err error
	c.secret.Expose(func(raw []byte) { lent, err = secret.New(raw) })
	return role.AnswerDone, role.Loan{Secret: lent, Boots: c.boots, Held: before, Loan: eventlog.Loan{Number: c.number}}, err
}
