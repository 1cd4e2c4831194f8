package proxy

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"chrysalis/attest"
	"chrysalis/runtime/client"
)

// guest is one of those that answer, or would.
type guest struct {
	url    string
	sealed *client.Sealed
	log    *slog.Logger

	mu    sync.Mutex // guards the fields below
	state state
}

// state is how a guest stands. Without result and error it was not looked at yet.
type state struct {
	result   *attest.Result
	err      error     // why it is not asked now
	pause    time.Time // until when it has said that it is busy
	looked   time.Time // when it was looked at out of turn
	inFlight int
	answered uint64
	unproven uint64 // answers that were refused for their proof
}

func (g *guest) status() state {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

func (g *guest) update(f func(*state)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.state)
}

// verify looks at a guest: it costs nothing while its key holds.
func (g *guest) verify(ctx context.Context) {
	result, err := g.sealed.Verify(ctx)
	if ctx.Err() != nil {
		return
	}
	g.settle(result, err)
}

// settle takes in what became of a verification, and says loudly what changes.
func (g *guest) settle(result *attest.Result, err error) {
	var before state
	g.update(func(s *state) {
		before = *s
		if s.err = err; err == nil {
			s.result = result
		}
	})
	switch {
	case errors.Is(err, attest.ErrRejected) && before.err == nil:
		g.log.Error("guest REJECTED: nothing is sent to it", "guest", g.url, "why", err)
	case err != nil && before.err == nil:
		g.log.Warn("guest not reached", "guest", g.url, "why", err)
	case err == nil && result != before.result:
		g.log.Info("guest accepted", append([]any{"guest", g.url}, identityOf(result).attributes()...)...)
	case err == nil && before.err != nil:
		g.log.Info("guest is back", "guest", g.url)
	}
}

// pick returns the guest with the fewest answers on their way, of those that are accepted and neither busy nor tried, and counts one
// more: the caller calls done. It is nil where there is none. Those that are not accepted are no choice whatever else there is.
func (p *Proxy) pick(tried []*guest) *guest {
	var best *guest
	var least state
	now := time.Now()
	for _, g := range p.guests {
		s := g.status()
		if s.err != nil || s.result == nil || now.Before(s.pause) || slices.Contains(tried, g) {
			continue
		}
		if best == nil || s.inFlight < least.inFlight || s.inFlight == least.inFlight && s.answered < least.answered {
			best, least = g, s
		}
	}
	if best != nil {
		best.update(func(s *state) { s.inFlight++ })
	}
	return best
}

// lookAgain looks at those guests that were not reached, when nobody else can be asked. One that is refused waits for its turn.
func (p *Proxy) lookAgain(ctx context.Context) {
	for _, g := range p.guests {
		due := false
		g.update(func(s *state) {
			if due = s.err != nil && !errors.Is(s.err, attest.ErrRejected) && time.Since(s.looked) > time.Second; due {
				s.looked = time.Now()
			}
		})
		if due {
			g.verify(ctx)
		}
	}
}

func (g *guest) done() { g.update(func(s *state) { s.inFlight-- }) }
