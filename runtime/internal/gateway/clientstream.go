package gateway

import (
	"net/http"
	"sync"
	"time"
)

// coalesceFor is how long an event may wait for the next ones when they follow each other closely. The first event of a
// pause never waits.
const coalesceFor = 5 * time.Millisecond

// clientStream sends server-sent events to a client. When events come faster than coalesceFor, several share one flush, and
// so one TLS record.
type clientStream struct {
	mu       sync.Mutex
	w        http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration // how long the client may take to take what was sent
	patient  time.Time     // when its deadline was last put off
	flushed  time.Time
	timer    *time.Timer
	armed    bool
	started  bool
	closed   bool
	err      error
}

func newClientStream(w http.ResponseWriter, patience time.Duration) *clientStream {
	return &clientStream{w: w, control: http.NewResponseController(w), patience: patience}
}

// send sends an event. last says that the end of the answer follows, so that this one need not go out alone.
func (s *clientStream) send(event []byte, last bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if !s.started {
		s.started = true
		h := s.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-store")
		s.w.WriteHeader(http.StatusOK)
	}
	now := time.Now()
	if now.Sub(s.patient) > s.patience/30 {
		s.patient = now
		_ = s.control.SetWriteDeadline(now.Add(s.patience)) // every connection here has deadlines
	}
	if _, s.err = s.w.Write(event); s.err != nil {
		return s.err
	}
	wait := coalesceFor - now.Sub(s.flushed)
	if wait <= 0 && !last {
		s.flush(now)
		return s.err
	}
	if !s.armed {
		s.armed = true
		if wait <= 0 {
			wait = coalesceFor // unless the end comes first
		}
		if s.timer == nil {
			s.timer = time.AfterFunc(wait, s.expire)
		} else {
			s.timer.Reset(wait)
		}
	}
	return nil
}

func (s *clientStream) flush(now time.Time) {
	s.flushed = now
	s.err = s.control.Flush()
}

func (s *clientStream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	if !s.closed && s.err == nil {
		s.flush(time.Now())
	}
}

// close gives the writer back to its owner. What is left goes out when the handler returns, with the end of the answer.
func (s *clientStream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.closed = true
}
