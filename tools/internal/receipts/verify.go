package receipts

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/receipt"
)

// Appraise judges evidence for a nonce as of a time.
type Appraise func(e *evidence.Evidence, nonce [32]byte, at time.Time) (*attest.Result, error)

// Judge judges each proof of an archive with the keys of the evidence that it names, and returns what became of each. The error of one
// that is not what it says wraps check.ErrRejected, of one whose evidence is not here check.ErrUnavailable.
func (a *Archive) Judge(appraise Appraise) []error {
	type appraised struct {
		result *attest.Result
		err    error
	}
	known := map[named]appraised{}
	verdicts := make([]error, len(a.Entries))
	for i, e := range a.Entries {
		of := named{e.Evidence, e.Nonce}
		guest, ok := known[of]
		if !ok {
			guest.result, guest.err = a.appraise(e, appraise)
			known[of] = guest
		}
		if verdicts[i] = guest.err; guest.err == nil {
			verdicts[i] = e.judge(guest.result)
		}
	}
	return verdicts
}

// appraise judges the evidence that a proof names, as of the time at which the proof was kept.
func (a *Archive) appraise(e Entry, appraise Appraise) (*attest.Result, error) {
	if e.Evidence == "" {
		return nil, fmt.Errorf("%w: no evidence is kept with it, so its key is nobody's", check.ErrUnavailable)
	}
	encoded, err := a.shown(e.Evidence)
	if err != nil {
		return nil, err
	}
	shown, err := evidence.Decode(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", check.ErrRejected, err)
	}
	nonce, err := hex.DecodeString(e.Nonce)
	if err != nil || len(nonce) != 32 {
		return nil, fmt.Errorf("%w: nonce has %d digits, want 64 hexadecimal ones", check.ErrRejected, len(e.Nonce))
	}
	return appraise(shown, [32]byte(nonce), e.Time)
}

// judge judges a proof of a guest that is accepted. What the file says of the guest is compared too: a reader goes by it.
func (e Entry) judge(guest *attest.Result) error {
	for _, said := range []struct{ name, got, want string }{
		{"receipt key", e.ReceiptKey, guest.ReceiptKey().String()},
		{"claim key", e.ClaimKey, guest.ClaimKey().String()},
		{"platform", e.Platform, guest.Platform().String()},
		{"machine", e.Machine, hex.EncodeToString(guest.Machine())},
	} {
		if said.got != said.want {
			return fmt.Errorf("%w: it names the %s %.80q, want %q of its evidence", check.ErrRejected, said.name, said.got, said.want)
		}
	}
	// The evidence was judged as of one of its receipts; the others are of its time too.
	if until := guest.NotAfter(); e.Time.After(until) || e.Time.Before(until.Add(-attest.MaxKeyLife)) {
		return fmt.Errorf("%w: it was kept at %s, and its evidence is good until %s", check.ErrRejected, e.Time.Format(time.RFC3339), until.UTC().Format(time.RFC3339))
	}
	_, err := proof.JudgeProof(e.Signed[:], e.Charge, e.Payer, guest)
	return err
}

// Signed judges each proof by a key that the caller knows alone.
func (a *Archive) Signed(key pubkey.Ed25519) []error {
	verdicts := make([]error, len(a.Entries))
	for i, e := range a.Entries {
		_, verdicts[i] = receipt.Verify(e.Signed[:], key)
	}
	return verdicts
}

// Chain is what the receipts of one instance make together.
type Chain struct {
	Instance    [16]byte
	Count       int
	First, Last uint64 // sequence numbers
	Missing     uint64 // between them: other clients' receipts, or lost ones
}

// Chains lays the receipts of each instance one behind the other. The error wraps check.ErrRejected: two that stand in one place, one
// that does not follow the one before, or a client's count that falls.
func Chains(entries []Entry) (chains []Chain, err error) {
	of := map[[16]byte][]Entry{}
	for _, e := range entries {
		of[e.Receipt.Instance] = append(of[e.Receipt.Instance], e)
	}
	for instance, list := range of {
		slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Receipt.Sequence, b.Receipt.Sequence) })
		c := Chain{Instance: instance, Count: 1, First: list[0].Receipt.Sequence, Last: list[0].Receipt.Sequence}
		counts := map[ton.Address]uint64{list[0].Receipt.Client: list[0].Receipt.Cumulative}
		for i := 1; i < len(list); i++ {
			last, e := &list[i-1], &list[i]
			if e.Signed == last.Signed {
				continue // kept twice
			}
			r := e.Receipt
			switch gap := r.Sequence - last.Receipt.Sequence; gap {
			case 0:
				return nil, fmt.Errorf("%w: %s and %s are two receipts numbered %d of instance %x", check.ErrRejected, last.File, e.File, r.Sequence, instance)
			case 1:
				if err := r.Follows(&last.Signed); err != nil {
					return nil, fmt.Errorf("%s: %w", e.File, err)
				}
			default:
				c.Missing += gap - 1
			}
			if before := counts[r.Client]; r.Cumulative < before || r.Cumulative-before < r.Weighted {
				return nil, fmt.Errorf("%w: %s counts to %d with %d of its own, after %d", check.ErrRejected, e.File, r.Cumulative, r.Weighted, before)
			}
			counts[r.Client] = r.Cumulative
			c.Count, c.Last = c.Count+1, r.Sequence
		}
		chains = append(chains, c)
	}
	slices.SortFunc(chains, func(a, b Chain) int { return slices.Compare(a.Instance[:], b.Instance[:]) })
	return chains, nil
}
