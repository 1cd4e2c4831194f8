// Package earned reads what guests have handed to their host: for each answer a receipt and the charge that goes with it, and messages that go
// with none, as lines of a file that outlives the guests. A charge counts all that its contract was ever charged for, so the newest of each stands for all.
//
//	log, err := earned.Read(file)
//	log.Entries[0].Prove(signers)
package earned

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

// Entry is the newest charge of one contract by one instance of a guest.
type Entry struct {
	Contract ton.Address
	Instance [16]byte
	Sequence uint64 // of the receipt
	Tokens   uint64 // weighted, since the contract began, that are charged
	Nanoton  uint64 // what they cost at the receipt's price
	Proof    receipt.Proof
	// Proved says that receipt and charge are signed by the keys of a guest that this host knows, and Signers which. Until Prove it is false.
	Proved  bool
	Signers Signers
}

// Signers are the keys of a guest.
type Signers struct{ Receipt, Claim pubkey.Ed25519 }

// maxContracts bounds what Read holds.
const maxContracts = 1 << 20

// Claim is a signed message that goes with no receipt: a payout, a refund, a close, or a charge of what an earlier one left.
type Claim struct {
	Message claim.Message
	Body    []byte
	// Proved says that it is signed by the claim key of a guest that this host knows, and Key by which. Until Prove it is false.
	Proved bool
	Key    pubkey.Ed25519
}

// Log is what guests have handed out: of each contract and instance the newest charge with its receipt, and of each kind of message and
// contract the newest claim.
type Log struct {
	Entries []Entry // in the order of contract and instance
	Claims  []Claim // in the order of contract and kind
	Damaged int     // lines that are neither, such as one that a power cut left unfinished
}

// Read reads lines of proofs and claims. Lines that are neither are counted and passed over.
func Read(r io.Reader) (log Log, err error) {
	type entryKey struct {
		contract ton.Address
		instance [16]byte
	}
	type claimKey struct {
		contract ton.Address
		op       claim.Op
	}
	entries, claims := map[entryKey]Entry{}, map[claimKey]Claim{}
	lines := bufio.NewReader(r)
	for {
		line, err := lastOfLine(lines)
		if err == io.EOF {
			break
		}
		if err != nil {
			return Log{}, fmt.Errorf("reading proofs: %w", err)
		}
		if c, err := claimOf(line); err == nil {
			k := claimKey{c.Message.Contract, c.Message.Op}
			if old, known := claims[k]; !known || old.Message.Tokens < c.Message.Tokens {
				claims[k] = c
			}
		} else if e, err := entryOf(line); err == nil {
			k := entryKey{e.Contract, e.Instance}
			if old, known := entries[k]; !known || old.Sequence < e.Sequence {
				entries[k] = e
			}
		} else {
			log.Damaged++
		}
		if len(entries) > maxContracts || len(claims) > maxContracts {
			return Log{}, fmt.Errorf("reading proofs: more than %d contracts", maxContracts)
		}
	}
	for _, e := range entries {
		log.Entries = append(log.Entries, e)
	}
	slices.SortFunc(log.Entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Contract.String(), b.Contract.String()), slices.Compare(a.Instance[:], b.Instance[:]))
	})
	for _, c := range claims {
		log.Claims = append(log.Claims, c)
	}
	slices.SortFunc(log.Claims, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Message.Contract.String(), b.Message.Contract.String()), cmp.Compare(a.Message.Op, b.Message.Op))
	})
	return log, nil
}

// claimLines are how long lines with a claim are: one with a count, and one that closes.
var claimLines = [2]int{len(claim.Line(make([]byte, claim.BodySize))), len(claim.Line(make([]byte, claim.CloseSize)))}

// claimOf reads a claim off the end of a line: what a power cut left of another may stand before it.
func claimOf(line string) (c Claim, err error) {
	for _, n := range claimLines {
		if len(line) < n {
			continue
		}
		if c.Body, err = claim.ParseLine(line[len(line)-n:]); err != nil {
			continue
		}
		u, err := claim.Parse(c.Body)
		if err != nil {
			return Claim{}, err
		}
		c.Message = u.Message
		return c, nil
	}
	return Claim{}, errors.New("reading claim: a line holds none")
}

// Prove looks for the guest that signed the claim, and returns an error that wraps check.ErrRejected when none of them did.
func (c *Claim) Prove(signers []Signers) error {
	for _, s := range signers {
		if _, err := claim.Verify(c.Body, claim.Policy{Key: s.Claim, Contract: c.Message.Contract}); err == nil {
			c.Proved, c.Key = true, s.Claim
			return nil
		}
	}
	return fmt.Errorf("%w: %s to %s: signed by none of the %d guests that are known here", check.ErrRejected, c.Message.Op, c.Message.Contract,
		len(signers))
}

// lastOfLine returns as much of the end of the next line as a proof has. What a power cut left of a proof stands before the next one, on
// one line with it. io.EOF is the end, also in the middle of a line, which is then no proof.
func lastOfLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		line = line[max(0, len(line)-receipt.LineBytes-1):]
		if err == nil {
			return string(line[:len(line)-1]), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}

// entryOf reads a line. Receipt and charge must be about one contract, and the charge within the receipt's count.
func entryOf(line string) (Entry, error) {
	p, err := receipt.ParseLine(line)
	if err != nil {
		return Entry{}, err
	}
	r, err := receipt.Parse(p.Receipt[:])
	if err != nil {
		return Entry{}, err
	}
	c, err := claim.Parse(p.Charge[:])
	if err != nil {
		return Entry{}, err
	}
	// A guest that settles on chain charges no more than the contract has.
	m := c.Message
	if m.Op != claim.ClientCharge || m.Contract != r.Client || m.Tokens > r.Cumulative {
		return Entry{}, fmt.Errorf("reading proof: a %s of %d to %s, want a %s of at most %d to %s as in the receipt", m.Op, m.Tokens, m.Contract,
			claim.ClientCharge, r.Cumulative, r.Client)
	}
	high, low := bits.Mul64(m.Tokens, r.Price.NanotonPerToken)
	if high != 0 {
		return Entry{}, fmt.Errorf("reading proof: %d tokens at %d nanoton pass 64 bits", m.Tokens, r.Price.NanotonPerToken)
	}
	return Entry{Contract: r.Client, Instance: r.Instance, Sequence: r.Sequence, Tokens: m.Tokens, Nanoton: low, Proof: p}, nil
}

// Prove looks for the guest that signed the entry, and returns an error that wraps check.ErrRejected when none of them did.
func (e *Entry) Prove(signers []Signers) error {
	for _, s := range signers {
		if _, err := receipt.Verify(e.Proof.Receipt[:], s.Receipt); err != nil {
			continue
		}
		if _, err := claim.Verify(e.Proof.Charge[:], claim.Policy{Key: s.Claim, Contract: e.Contract}); err != nil {
			continue
		}
		e.Proved, e.Signers = true, s
		return nil
	}
	return fmt.Errorf("%w: %s of instance %x: signed by none of the %d guests that are known here", check.ErrRejected, e.Contract, e.Instance,
		len(signers))
}

// Write writes a log as Read reads it.
func Write(w io.Writer, log Log) error {
	for _, e := range log.Entries {
		line, err := e.Proof.Line()
		if err == nil {
			_, err = io.WriteString(w, line+"\n")
		}
		if err != nil {
			return fmt.Errorf("writing proofs: %w", err)
		}
	}
	for _, c := range log.Claims {
		if _, err := io.WriteString(w, claim.Line(c.Body)+"\n"); err != nil {
			return fmt.Errorf("writing proofs: %w", err)
		}
	}
	return nil
}

// Sum adds up what the entries cost, and fails where 64 bits do not hold it.
func Sum(entries []Entry) (nanoton uint64, err error) {
	for _, e := range entries {
		sum, carry := bits.Add64(nanoton, e.Nanoton, 0)
		if carry != 0 {
			return 0, errors.New("adding up: the sum passes 64 bits")
		}
		nanoton = sum
	}
	return nanoton, nil
}

// signerPrefix opens a guest's keys as a line.
const signerPrefix = "signers "

// String returns the keys as a line of a file: the word signers, receipt key and claim key.
func (s Signers) String() string { return signerPrefix + s.Receipt.String() + " " + s.Claim.String() }

// ParseSigners reads lines of keys.
func ParseSigners(r io.Reader) (all []Signers, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		var first, second string
		if _, err := fmt.Sscanf(lines.Text(), signerPrefix+"%64s %64s", &first, &second); err != nil {
			return nil, fmt.Errorf("reading signers: line %d is %.80q, want %q and two keys", n, lines.Text(), signerPrefix)
		}
		s := Signers{}
		for _, key := range []struct {
			text string
			into *pubkey.Ed25519
		}{{first, &s.Receipt}, {second, &s.Claim}} {
			if *key.into, err = pubkey.Parse(key.text); err != nil {
				return nil, fmt.Errorf("reading signers: line %d: %w", n, err)
			}
		}
		if s.String() != lines.Text() {
			return nil, fmt.Errorf("reading signers: line %d is %.200q, want %q", n, lines.Text(), s)
		}
		all = append(all, s)
	}
	return all, lines.Err()
}
