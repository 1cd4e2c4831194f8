package role

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// The stream of wipes, on which the gateway asks engine-host. The gateway alone knows when an engine is idle and whose request comes next;
// engine-host alone starts and ends engines. An answer says that the process which served when it was asked for is gone with its memory, and
// that another one serves.

// wipeSize is the size of a call and of its answer, which are specified in ROLES.md.
const wipeSize = 4 + 8

// wipe is a call and its answer.
type wipe struct {
	engine uint32 // by its place in the measured config
	number uint64 // of that engine's calls, from 1 on
}

func (w wipe) encode() []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(make([]byte, 0, wipeSize), w.engine), w.number)
}

// readWipe reads one. A stream that ends before its first byte is io.EOF.
func readWipe(r io.Reader) (wipe, error) {
	var b [wipeSize]byte
	if _, err := io.ReadFull(r, b[:]); err == io.EOF {
		return wipe{}, io.EOF
	} else if err != nil {
		return wipe{}, fmt.Errorf("reading wipe: %w", err)
	}
	return wipe{binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint64(b[4:])}, nil
}

// WipeStream asks engine-host.
type WipeStream struct {
	conn  net.Conn
	mu    sync.Mutex
	calls []wiping // of each engine
}

// wiping is an engine's last call.
type wiping struct {
	number uint64
	done   chan struct{} // nil: it was answered
}

// NewWipes returns the asking end of a stream of wipes, of so many engines.
func NewWipes(conn net.Conn, engines int) *WipeStream {
	return &WipeStream{conn: conn, calls: make([]wiping, engines)}
}

// Run reads answers until the stream ends, which is an error like any other: engine-host has gone. No call is answered after it.
func (s *WipeStream) Run() error {
	for {
		got, err := readWipe(s.conn)
		if err == io.EOF {
			return errors.New("reading wipe: the stream has ended")
		}
		if err != nil {
			return err
		}
		if err := s.answered(got); err != nil {
			return err
		}
	}
}

func (s *WipeStream) answered(got wipe) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(got.engine) >= int64(len(s.calls)) {
		return fmt.Errorf("reading wipe: engine is %d, want one of %d", got.engine, len(s.calls))
	}
	c := &s.calls[got.engine]
	if c.done == nil || got.number != c.number {
		return fmt.Errorf("reading wipe: engine %d was wiped for call %d, which does not wait", got.engine, got.number)
	}
	close(c.done)
	c.done = nil
	return nil
}

// Ask asks for an engine to be wiped. The channel is closed once it is and another one serves; an engine is asked for again after that alone.
func (s *WipeStream) Ask(engine int) (<-chan struct{}, error) {
	s.mu.Lock()
	c := &s.calls[engine]
	if c.done != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("asking for wipe: engine %d is being wiped", engine)
	}
	call, done := wipe{uint32(engine), c.number + 1}, make(chan struct{})
	c.number, c.done = call.number, done
	s.mu.Unlock() // Run may be waiting for it, and engine-host for Run
	if _, err := s.conn.Write(call.encode()); err != nil {
		return nil, fmt.Errorf("asking for wipe: %w", err)
	}
	return done, nil
}

// ServeWipes answers calls for so many engines until the stream ends. begin begins an engine's wipe, and its channel is closed once that is done.
// Whoever asks for an engine that is none, again before it was answered, or out of order, has lost count: nothing that it asks for is done.
func ServeWipes(conn io.ReadWriter, engines int, begin func(engine int) (done <-chan struct{})) error {
	var mu sync.Mutex // of what follows, and of writing
	last, waits := make([]uint64, engines), make([]bool, engines)
	take := func(w wipe) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case int64(w.engine) >= int64(engines):
			return fmt.Errorf("serving wipe: engine is %d, want one of %d", w.engine, engines)
		case waits[w.engine]:
			return fmt.Errorf("serving wipe: engine %d is being wiped", w.engine)
		case w.number != last[w.engine]+1:
			return fmt.Errorf("serving wipe: call %d of engine %d, want %d", w.number, w.engine, last[w.engine]+1)
		}
		last[w.engine], waits[w.engine] = w.number, true
		return nil
	}
	for {
		w, err := readWipe(conn)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(w); err != nil {
			return err
		}
		done := begin(int(w.engine))
		go func() { // ends with the process, where its engine never comes back
			<-done
			mu.Lock()
			defer mu.Unlock()
			waits[w.engine] = false
			_, _ = conn.Write(w.encode()) // who does not read any more is gone
		}()
	}
}
