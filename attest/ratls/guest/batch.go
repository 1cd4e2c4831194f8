package guest

import (
	"context"
	"errors"
	"slices"
	"time"

	"chrysalis/attest/evidence"
)

const (
	// quoteInterval is the least time between two quotes: a TPM takes its time, and every challenge that arrives meanwhile
	// is answered by the next one.
	quoteInterval = time.Second
	maxBatch      = 4096
)

var errBusy = errors.New("too many challenges wait")

// askAlone asks for one quote at a time.
func (s *Server) askAlone(r evidence.Request) (*evidence.Evidence, error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	e, err := s.ask(r)
	if err == nil {
		s.made.Store(s.now().Unix())
	}
	return e, err
}

// Instants returns when the time of the newest key set is over, and when evidence was last made. It waits for nobody.
func (s *Server) Instants() (ends, made time.Time) {
	return time.Unix(s.ends.Load(), 0), time.Unix(s.made.Load(), 0)
}

// batch is the challenges that one quote will answer. The handler of the first asks; the others wait for it.
type batch struct {
	leaves  [][32]byte
	done    chan struct{} // closed when encoded, paths and err are set
	encoded []byte        // evidence without a path
	paths   []evidence.Path
	err     error
}

// answer is one client's evidence, in two pieces of which the second, nearly all of it, is everybody's.
type answer struct{ head, rest []byte }

// answer waits for the quote that answers the leaf.
func (s *Server) answer(ctx context.Context, keys *keySet, leaf [32]byte) (answer, error) {
	s.mu.Lock()
	b := s.batches[keys]
	first := b == nil
	if first {
		b = &batch{done: make(chan struct{})}
		s.batches[keys] = b
	}
	if len(b.leaves) == maxBatch {
		s.mu.Unlock()
		return answer{}, errBusy
	}
	index := len(b.leaves)
	b.leaves = append(b.leaves, leaf)
	wait := time.Until(s.next)
	s.mu.Unlock()
	if first {
		// Not ctx: the others wait for this quote even when the first client has gone.
		time.Sleep(wait)
		s.fill(keys, b)
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
	if b.err != nil {
		return answer{}, b.err
	}
	head, rest, err := evidence.WithPath(b.encoded, b.paths[index])
	return answer{head, rest}, err
}

// Detached returns evidence for a nonce that binds no connection, as ServeHTTP answers a detached challenge.
func (s *Server) Detached(ctx context.Context, nonce [32]byte) ([]byte, error) {
	keys, err := s.current()
	if err != nil {
		return nil, err
	}
	a, err := s.answer(ctx, keys, evidence.DetachedLeaf(nonce))
	if err != nil {
		return nil, err
	}
	return slices.Concat(a.head, a.rest), nil
}

// fill closes the batch to newcomers and asks for its quote.
func (s *Server) fill(keys *keySet, b *batch) {
	s.mu.Lock()
	delete(s.batches, keys)
	s.next = time.Now().Add(quoteInterval)
	s.mu.Unlock()
	defer close(b.done)
	var root [32]byte
	if root, b.paths, b.err = evidence.Batch(b.leaves); b.err != nil {
		return
	}
	e, err := s.askAlone(keys.request(root))
	if err != nil {
		b.err = err
		return
	}
	e.HPKE = keys.hpke.PublicKey().Bytes()
	b.encoded, b.err = e.Encode()
}
