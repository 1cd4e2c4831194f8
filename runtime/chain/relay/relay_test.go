package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
)

var questions = []Question{
	{Kind: BlockProof, Server: 1, Block: chain.BlockID{Workchain: -1, Shard: 1 << 63, Seqno: 7, RootHash: [32]byte{1}, FileHash: [32]byte{2}}},
	{Kind: AccountState, Block: chain.BlockID{Workchain: -1, Shard: 1 << 63, Seqno: 9}, Account: ton.Address{Account: [32]byte{3}}},
	{Kind: Transactions, Server: 15, Account: ton.Address{Workchain: -1, Account: [32]byte{3}}, From: chain.Mark{LT: 11, Hash: [32]byte{4}}},
	{Kind: Params},
	{Kind: BlockProof},
}

func streams(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	ours, theirs = net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// TestAsk: what is asked arrives, many at a time, and each gets its own answer.
func TestAsk(t *testing.T) {
	ours, theirs := streams(t)
	var served sync.WaitGroup
	served.Go(func() {
		err := Serve(t.Context(), theirs, func(_ context.Context, q Question) ([]byte, error) {
			switch {
			case q.Server == 9:
				return nil, ErrNoServer
			case q.Server == 8:
				return []byte("half"), errors.New("gone")
			case q.Server == 7:
				return make([]byte, most[q.Kind]+1), nil
			}
			b := q.encode(0)
			return b[:], nil
		})
		if err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	c := NewClient(ours)
	var all sync.WaitGroup
	for range 20 {
		for _, q := range questions {
			all.Go(func() {
				want := q.encode(0)
				if got, err := c.Ask(t.Context(), q); err != nil || !bytes.Equal(got, want[:]) {
					t.Errorf("%+v: got %x (%v), want %x", q, got, err, want)
				}
			})
		}
		for server, want := range map[uint8]error{9: ErrNoServer, 8: ErrNone, 7: ErrNone} {
			all.Go(func() {
				if got, err := c.Ask(t.Context(), Question{Kind: Params, Server: server}); !errors.Is(err, want) || got != nil {
					t.Errorf("server %d: got %x (%v), want %v", server, got, err, want)
				}
			})
		}
	}
	all.Wait()
	ours.Close()
	served.Wait()
	if _, err := c.Ask(t.Context(), questions[0]); !errors.Is(err, ErrEnded) {
		t.Errorf("after the end: got %v, want %v", err, ErrEnded)
	}
}

// TestAnswersRefused: an answer that has no business to come is the last.
func TestAnswersRefused(t *testing.T) {
	frame := func(number uint32, what status, length uint32, b string) []byte {
		out := append(binary.LittleEndian.AppendUint32(nil, number), byte(what))
		return append(binary.LittleEndian.AppendUint32(out, length), b...)
	}
	for name, say := range map[string][]byte{
		"to another question":     frame(2, statusAnswer, 1, "x"),
		"of no status":            frame(1, 3, 0, ""),
		"none, with bytes":        frame(1, statusNone, 1, "x"),
		"longer than its kind":    frame(1, statusAnswer, uint32(most[Params])+1, strings.Repeat("x", most[Params]+1)),
		"longer than there is":    frame(1, statusAnswer, 1<<32-1, ""),
		"that ends in the middle": frame(1, statusAnswer, 9, "x"),
	} {
		ours, theirs := streams(t)
		go func() {
			var in [questionBytes]byte
			theirs.Read(in[:])
			theirs.Write(say)
			theirs.Close()
		}()
		c := NewClient(ours)
		if got, err := c.Ask(t.Context(), Question{Kind: Params}); !errors.Is(err, ErrEnded) {
			t.Errorf("%s: got %q (%v), want %v", name, got, err, ErrEnded)
		}
		if _, err := c.Ask(t.Context(), Question{Kind: Params}); !errors.Is(err, ErrEnded) {
			t.Errorf("%s, asked again: got %v, want %v", name, err, ErrEnded)
		}
	}
}

// TestSilence: who asks waits as long as it likes, and no more than sixteen questions are open.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := streams(t)
		var mu sync.Mutex
		asked, go1 := 0, make(chan struct{})
		go Serve(t.Context(), theirs, func(ctx context.Context, _ Question) ([]byte, error) {
			mu.Lock()
			asked++
			mu.Unlock()
			<-go1
			return []byte("late"), nil
		})
		c := NewClient(ours)
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := c.Ask(ctx, Question{Kind: Params}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("silence: got %v", err)
				}
			})
		}
		all.Wait()
		mu.Lock()
		if asked != maxOpen {
			t.Errorf("%d questions were open, want %d", asked, maxOpen)
		}
		mu.Unlock()
		close(go1)
		synctest.Wait()
		if got, err := c.Ask(t.Context(), Question{Kind: Params}); string(got) != "late" || err != nil {
			t.Errorf("when places are free again: got %q (%v)", got, err)
		}
		ours.Close()
		synctest.Wait()
	})
}

// TestQuestionsRefused: a question that is none ends the stream.
func TestQuestionsRefused(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"kind 0":               func(b []byte) { b[4] = 0 },
		"kind 6":               func(b []byte) { b[4] = 6 },
		"bytes behind a block": func(b []byte) { b[6+80] = 1 },
	} {
		b := questions[0].encode(1)
		change(b[:])
		if _, q, err := decode(b); err == nil {
			t.Errorf("%s: got %+v, want an error", name, q)
		}
		ours, theirs := streams(t)
		go ours.Write(b[:])
		err := Serve(t.Context(), theirs, func(context.Context, Question) ([]byte, error) {
			t.Errorf("%s: it is asked", name)
			return nil, nil
		})
		if err == nil || !strings.Contains(err.Error(), "question") {
			t.Errorf("%s: serving ends with %v", name, err)
		}
	}
}

// FuzzQuestion: what is read is what would be written.
func FuzzQuestion(f *testing.F) {
	for _, q := range questions {
		b := q.encode(5)
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) != questionBytes {
			return
		}
		if number, q, err := decode([questionBytes]byte(data)); err == nil && q.encode(number) != [questionBytes]byte(data) {
			t.Fatalf("got %+v of %x", q, data)
		}
	})
}

// FuzzAnswers: whatever the other side says, a question is answered or ended.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 2, 0, 0, 0, 'o', 'k'})
	f.Add([]byte{1, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := NewClient(&scripted{says: bytes.NewReader(data)})
		got, err := c.Ask(t.Context(), Question{Kind: Params})
		if err == nil && (len(data) < headBytes+len(got) || !bytes.Equal(data[headBytes:headBytes+len(got)], got)) {
			t.Fatalf("got %x of %x", got, data)
		}
	})
}

// scripted says what it has to once it was asked.
type scripted struct {
	once  sync.Once
	asked chan struct{}
	says  *bytes.Reader
}

func (s *scripted) begun() chan struct{} {
	s.once.Do(func() { s.asked = make(chan struct{}) })
	return s.asked
}

func (s *scripted) Write(b []byte) (int, error) { close(s.begun()); return len(b), nil }
func (s *scripted) Read(b []byte) (int, error)  { <-s.begun(); return s.says.Read(b) }
