package keeper

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
)

// lossy is a disk in memory that keeps written sectors apart until they are synced, and fails at one step.
type lossy struct {
	durable []byte
	pending map[int64][]byte
	step    int                          // writes and syncs so far
	fail    map[int]func(d *lossy) error // by step
}

const sector = 512

func newLossy() *lossy { return lossyOf(1 << 20) }

func lossyOf(bytes int) *lossy {
	return &lossy{durable: make([]byte, bytes), pending: map[int64][]byte{}}
}

func (d *lossy) Size() (int64, error) { return int64(len(d.durable)), nil }

func (d *lossy) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, d.durable[off:])
	for i := off / sector * sector; i < off+int64(n); i += sector {
		if s := d.pending[i]; s != nil {
			copy(p[max(0, i-off):n], s[max(0, off-i):])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *lossy) tick() error {
	d.step++
	if fail := d.fail[d.step]; fail != nil {
		return fail(d)
	}
	return nil
}

func (d *lossy) WriteAt(p []byte, off int64) (int, error) {
	if err := d.tick(); err != nil {
		return 0, err
	}
	for i := 0; i < len(p); i += sector {
		d.pending[off+int64(i)] = append([]byte(nil), p[i:i+sector]...)
	}
	return len(p), nil
}

func (d *lossy) Sync() error {
	if err := d.tick(); err != nil {
		return err
	}
	d.keep(func() bool { return true })
	return nil
}

// keep makes the pending sectors durable that choose picks, and forgets the others.
func (d *lossy) keep(choose func() bool) {
	for at, s := range d.pending {
		if choose() {
			copy(d.durable[at:], s)
		}
	}
	clear(d.pending)
}

var errDisk = errors.New("input/output error")

// TestFaults fails one write or flush after another, in each way that it can fail. What a client was given stays; what it
// was not given may be there or not, and asking again with the same id counts it once in either case.
func TestFaults(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	ways := map[string]func(d *lossy) error{
		"failed, nothing kept": func(d *lossy) error { clear(d.pending); return errDisk },
		"failed, but all kept": func(d *lossy) error { d.keep(func() bool { return true }); return errDisk },
		"failed, a part kept":  func(d *lossy) error { d.keep(func() bool { return random.IntN(2) == 0 }); return errDisk },
	}
	const records = 4
	for name, way := range ways {
		for step := 7; step <= 6+2*records; step++ { // anchors and boot record take the first six
			d := newLossy()
			d.fail = map[int]func(*lossy) error{step: way}
			client, stop := start(t, d, 0, testTerms())
			want := map[receipt.AnswerID]receipt.Answer{}
			given := map[receipt.AnswerID]receipt.Proof{}
			failed := 0
			for n := 1; n <= records; n++ {
				r := testRecord(n)
				want[r.ID] = r
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				place, err := client.Reserve(ctx, Payer{Contract: r.Client})
				if err == nil {
					var proof receipt.Proof
					if proof, err = place.Record(ctx, r); err == nil {
						given[r.ID] = proof
					}
				}
				cancel()
				if err != nil {
					failed++
					if !errors.Is(err, ErrUnknown) {
						t.Fatalf("%s at step %d: record %d: got error %v, want %v", name, step, n, err, ErrUnknown)
					}
				}
			}
			stop()
			if failed == 0 {
				t.Fatalf("%s at step %d: every record went well", name, step)
			}
			clear(d.pending) // the power goes, too
			d.fail = nil
			client, stop = start(t, d, 1, testTerms())
			for n := 1; n <= records; n++ { // whoever is not sure asks again
				r := testRecord(n)
				proof := record(t, client, r)
				verify(t, proof, r)
				if before, ok := given[r.ID]; ok && *before.Receipt != *proof.Receipt {
					t.Errorf("%s at step %d: record %d has another receipt than was given out", name, step, n)
				}
			}
			stop()
			audit(t, d, 2, want)
		}
	}
}

// TestPowerCut cuts the power before each write and flush while several clients record.
func TestPowerCut(t *testing.T) {
	for step := 1; step <= 16; step++ {
		for seed := range uint64(4) {
			random := rand.New(rand.NewPCG(seed, uint64(step)))
			d := newLossy()
			gone := func(*lossy) error { return errDisk }
			d.fail = map[int]func(*lossy) error{}
			for s := step; s < 100; s++ {
				d.fail[s] = gone
			}
			want := map[receipt.AnswerID]receipt.Answer{}
			k, err := Open(d, journalKey, 0, testTerms())
			for n := 1; err == nil && n <= 6; n++ {
				replies := make(chan reply, 1)
				r := testRecord(n)
				if err = k.answer([]call{{op: opRecord, record: r, reply: replies}}); err == nil {
					if answer := <-replies; answer.status == statusOK {
						verify(t, answer.proof, r)
						want[r.ID] = r
					}
				}
			}
			d.keep(func() bool { return random.IntN(3) > 0 })
			d.fail = nil
			found := map[receipt.AnswerID]receipt.Answer{}
			_, err = journal.Open(d, journalKey, 0, auditor{newLedger(testTerms()), func(e []byte) error {
				found[receipt.AnswerID(e)] = testRecord(int(e[1]))
				return nil
			}})
			if err != nil {
				t.Fatalf("cut at step %d, choice %d: %v", step, seed, err)
			}
			if len(found) < len(want) || len(found) > len(want)+1 {
				t.Fatalf("cut at step %d, choice %d: %d records, %d were given out", step, seed, len(found), len(want))
			}
			audit(t, d, 1, found)
		}
	}
}

var _ journal.Device = (*lossy)(nil)
