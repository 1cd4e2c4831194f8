package gateway

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
)

// turns let requests reach the engine, and have its process ended between those whose texts it may not have together, or when it is idle, as the
// config's wipe says. Whatever a request has the engine do is done in a turn, the counting of its tokens too.
type turns struct {
	wipe config.Wipe
	// ask has another process take over from the one that serves. The channel is closed once that one is gone and the other serves.
	ask func() (<-chan struct{}, error)
	log *slog.Logger

	mu      sync.Mutex
	users   int
	texts   bool        // the process has had some
	of      ton.Address // whose
	wiping  bool
	idle    *time.Timer
	waiting []*turn // in their order
}

// turn is one that waits.
type turn struct {
	client ton.Address
	begun  chan struct{}
}

func newTurns(wipe config.Wipe, ask func() (<-chan struct{}, error), log *slog.Logger) *turns {
	return &turns{wipe: wipe, ask: ask, log: log}
}

// alone reports whether a process computes for one request or one client, so that all that a request wants of it has to be in one turn.
func (t *turns) alone() bool { return t.wipe == config.WipeRequest || t.wipe == config.WipeClient }

// enter waits for a turn, for at most so long.
func (t *turns) enter(ctx context.Context, client ton.Address, patience time.Duration) (leave func(), err error) {
	if !t.wipe.Restarts() {
		return func() {}, nil
	}
	me := &turn{client, make(chan struct{})}
	t.mu.Lock()
	t.waiting = append(t.waiting, me)
	t.next()
	t.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-me.begun:
		return t.leave, nil
	case <-ctx.Done():
	case <-timeout.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.Index(t.waiting, me)
	if at < 0 { // it came in the same moment
		return t.leave, nil
	}
	t.waiting = slices.Delete(t.waiting, at, at+1)
	t.next() // who waited behind it may go on
	return nil, errWiping
}

// next begins the turns that can begin, or the wipe that the first of them waits for. t is locked.
func (t *turns) next() {
	for len(t.waiting) > 0 && !t.wiping {
		first := t.waiting[0]
		foreign := t.wipe == config.WipeRequest || t.wipe == config.WipeClient && first.client != t.of
		if t.texts && foreign {
			if t.users == 0 {
				t.begin()
			}
			return
		}
		if t.idle != nil {
			t.idle.Stop()
		}
		t.waiting = t.waiting[1:]
		t.users, t.texts, t.of = t.users+1, true, first.client
		close(first.begun)
	}
}

// leave ends a turn.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users--
	if t.users > 0 {
		return
	}
	if t.wipe == config.WipeRequest {
		t.begin() // and not only when the next one comes
		return
	}
	t.next()
	if after, ok := t.wipe.Idle(); ok && t.users == 0 {
		t.idle = time.AfterFunc(after, t.rested)
	}
}

// rested begins a wipe after a while in which nothing was computed. The timer may have run out just before it was stopped.
func (t *turns) rested() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 && t.texts && !t.wiping {
		t.begin()
	}
}

// begin begins a wipe. One that fails is never over: engine-host is gone, and the guest ends. t is locked.
func (t *turns) begin() {
	t.wiping = true
	done, err := t.ask()
	if err != nil {
		t.log.Error("engine not wiped", "error", err)
		return
	}
	go func() {
		<-done
		t.mu.Lock()
		defer t.mu.Unlock()
		t.wiping, t.texts = false, false
		t.next()
	}()
}
