package keeper

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"chrysalis/measure/ton"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
)

// exported reads a proof from the host's side.
func exported(t *testing.T, host *bufio.Reader) receipt.Proof {
	t.Helper()
	line, err := host.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	p, err := receipt.ParseLine(strings.TrimSuffix(line, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// of returns a record of one of two clients.
func of(n, client int) receipt.Answer {
	r := testRecord(n)
	r.Client = ton.Address{Account: [32]byte{0xc1, byte(client)}}
	return r
}

// TestExport: what is durable leaves at once; a host that takes nothing holds nobody up, and then gets the newest of each contract; the
// next boot writes the newest of each again.
func TestExport(t *testing.T) {
	dev := journal.Disk{File: diskFile(t, 1<<20)}
	k, err := Open(dev, journalKey, 0, testTerms())
	if err != nil {
		t.Fatal(err)
	}
	client, stop := run(t, k)
	out, in := io.Pipe() // nothing is taken before it is read
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- k.Export(ctx, in) }()
	host := bufio.NewReader(out)
	record(t, client, of(1, 1))
	first := exported(t, host)
	verify(t, first, of(1, 1))
	var newest [3]receipt.Proof
	for n := 2; n <= 31; n++ {
		newest[n%2+1] = record(t, client, of(n, n%2+1))
	}
	// A few may be on their way from before; they end with the newest of each.
	got, lines := map[ton.Address]receipt.Proof{}, 0
	isNewest := func(c int) bool {
		p := got[of(0, c).Client]
		return p.Receipt != nil && *p.Receipt == *newest[c].Receipt && *p.Charge == *newest[c].Charge
	}
	for ; !isNewest(1) || !isNewest(2); lines++ {
		p := exported(t, host)
		r, err := receipt.Parse(p.Receipt[:])
		if err != nil {
			t.Fatal(err)
		}
		got[r.Client] = p
	}
	if lines > 4 {
		t.Errorf("the host got %d lines of 30 answers, want those of before it read and the newest of two contracts", lines)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the end: got %v, want %v", err, context.Canceled)
	}
	stop()
	k, err = Open(dev, journalKey, 1, testTerms())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = run(t, k)
	go k.Export(t.Context(), in)
	for range 2 {
		p := exported(t, host)
		r, err := receipt.Parse(p.Receipt[:])
		if err != nil {
			t.Fatal(err)
		}
		if *p.Receipt != *got[r.Client].Receipt {
			t.Error("the next boot exports another proof than the newest")
		}
		delete(got, r.Client)
	}
	if len(got) != 0 {
		t.Errorf("the next boot left %d contracts out", len(got))
	}
	out.CloseWithError(io.ErrClosedPipe)
}

// TestExportEnds: a side that is gone ends the exports with an error, and nobody's answer.
func TestExportEnds(t *testing.T) {
	k, err := Open(journal.Disk{File: diskFile(t, 1<<20)}, journalKey, 0, testTerms())
	if err != nil {
		t.Fatal(err)
	}
	client, _ := run(t, k)
	out, in := io.Pipe()
	out.Close()
	record(t, client, of(1, 1))
	if err := k.Export(t.Context(), in); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
	}
	verify(t, record(t, client, of(2, 2)), of(2, 2))
}

// TestExportWithoutCharges: nothing leaves where nobody pays.
func TestExportWithoutCharges(t *testing.T) {
	l := newLedger(testTerms())
	l.durable(ton.Address{}, receipt.Proof{Receipt: new(receipt.Signed)}, 1)
	if p, err := l.export(nil); p.Receipt != nil || err != nil {
		t.Errorf("a receipt without a charge: got it for the host, error %v", err)
	}
}

// TestExportLater: a host that comes late gets the newest proof of each contract out of the journal, also of those that no memory is kept for,
// those that it has got are not written again when the journal no more has them, and what the ring has come round to is released.
func TestExportLater(t *testing.T) {
	dev := lossyOf(512 << 10)
	newest := map[ton.Address]receipt.Signed{}
	drain := func(l *ledger, j *journal.Journal) map[ton.Address]receipt.Signed {
		t.Helper()
		got := map[ton.Address]receipt.Signed{}
		for {
			p, err := l.export(j)
			if err != nil {
				t.Fatal(err)
			}
			if p.Receipt == nil {
				return got
			}
			r, err := receipt.Parse(p.Receipt[:])
			if err != nil {
				t.Fatal(err)
			}
			if _, twice := got[r.Client]; twice {
				t.Errorf("contract %x came twice", r.Client.Account[:3])
			}
			got[r.Client] = *p.Receipt
		}
	}
	n := 0
	answers := func(k *Keeper, count, contracts int) {
		t.Helper()
		for range count {
			n++
			r := testRecord(n)
			r.Client = testAddress(n % contracts)
			replies := make(chan reply, 1)
			if err := k.answer([]call{{op: opRecord, record: r, reply: replies}}); err != nil {
				t.Fatal(err)
			}
			newest[r.Client] = *(<-replies).proof.Receipt
		}
	}
	open := func(boots uint64) *Keeper {
		t.Helper()
		k, err := Open(dev, journalKey, boots, testTerms())
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := open(0)
	answers(k, 300, 100)
	clear(k.ledger.exports.recent) // as if there had been too many
	if got := drain(k.ledger, k.journal); len(got) != 100 || !maps.Equal(got, newest) {
		t.Fatalf("a host that comes late gets %d proofs, want the newest of 100 contracts", len(got))
	}
	if got := drain(k.ledger, k.journal); len(got) != 0 {
		t.Errorf("the host gets %d proofs again", len(got))
	}
	answers(k, 100, 100) // the host has not got these
	answers(k, 320, 2)   // but they are before the last two checkpoints soon
	k = open(1)
	got := drain(k.ledger, k.journal)
	if !maps.Equal(got, newest) {
		t.Errorf("after a restart the host gets %d proofs, want the newest of 100 contracts", len(got))
	}
	answers(k, 600, 2) // the ring comes round: what the host has is forgotten
	k = open(2)
	if got := drain(k.ledger, k.journal); len(got) != 2 {
		t.Errorf("after the next restart the host gets %d proofs, want those of two contracts", len(got))
	}
	answers(k, 100, 100)
	drain(k.ledger, k.journal)
	answers(k, 320, 2) // the journal has the others still, and the host has them
	k = open(3)
	if got := drain(k.ledger, k.journal); len(got) != 2 {
		t.Errorf("after another restart the host gets %d proofs, want those of two contracts", len(got))
	}
	answers(k, 4, 2)
	one, other := &k.ledger.contracts[k.ledger.at(testAddress(0))], k.ledger.contracts[k.ledger.at(testAddress(1))]
	older := one.newest
	answers(k, 2, 2)
	newer := one.newest
	for name, at := range map[string]journal.Place{"its older proof": older, "another's": other.newest} {
		one.newest = at
		if p, err := one.read(k.journal); !errors.Is(err, journal.ErrReleased) {
			t.Errorf("%s in the place of a contract's newest: got %v and error %v, want it released", name, p.Receipt != nil, err)
		}
	}
	count := one.count
	one.newest, one.count = other.newest, other.count
	if _, err := one.read(k.journal); !errors.Is(err, journal.ErrReleased) {
		t.Errorf("another's proof of the same count: error %v, want it released", err)
	}
	one.newest, one.count = newer, count
	if p, err := one.read(k.journal); err != nil || *p.Receipt != newest[testAddress(0)] {
		t.Errorf("the newest itself: error %v", err)
	}
	answers(k, 200, 100)
	answers(k, 700, 2)
	clear(k.ledger.exports.recent)
	if got := drain(k.ledger, k.journal); len(got) != 2 || got[testAddress(0)] != newest[testAddress(0)] {
		t.Errorf("after the ring has come round the host gets %d proofs, want those of two contracts", len(got))
	}
	if len(k.ledger.contracts) != 100 {
		t.Errorf("%d contracts are counted, want 100", len(k.ledger.contracts))
	}
}

func testAddress(n int) ton.Address { return ton.Address{Account: [32]byte{0xcc, byte(n)}} }
