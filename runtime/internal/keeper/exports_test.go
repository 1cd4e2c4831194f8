package keeper

import (
	"bufio"
	"context"
	"errors"
	"io"
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
	e := newExports()
	e.add(ton.Address{}, receipt.Proof{Receipt: new(receipt.Signed)})
	if _, ok := e.take(); ok {
		t.Error("a receipt without a charge waits for the host")
	}
}
