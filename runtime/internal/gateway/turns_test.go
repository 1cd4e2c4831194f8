package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
)

// wiper is an engine-host: it counts wipes, and each takes as long as a test says.
type wiper struct {
	takes time.Duration
	asked int
	fails bool
}

func (w *wiper) ask() (<-chan struct{}, error) {
	w.asked++
	if w.fails {
		return nil, errTest
	}
	done := make(chan struct{})
	time.AfterFunc(w.takes, func() { close(done) })
	return done, nil
}

func clientNumbered(n byte) ton.Address { return ton.Address{Account: [32]byte{n}} }

// TestTurns runs requests by a table: when each comes, for whom, and how long it computes; and wants when each began, and when the engine was wiped.
func TestTurns(t *testing.T) {
	const s = time.Second
	type request struct {
		comes  time.Duration
		client byte
		takes  time.Duration
		begins time.Duration // below 0: refused then
	}
	for _, tt := range []struct {
		name     string
		wipe     config.Wipe
		takes    time.Duration // a wipe
		requests []request
		wipes    []time.Duration // when they were asked for
	}{
		{"freed: nobody waits, nothing is wiped", config.WipeFreed, s, []request{{0, 1, 5 * s, 0}, {s, 2, s, s}}, nil},
		{"idle: wiped once, a while after the last", config.WipeIdle(30 * s), s, []request{{0, 1, 5 * s, 0}, {s, 2, s, s}, {34 * s, 1, s, 34 * s}}, []time.Duration{65 * s}},
		{"idle: who comes meanwhile waits", config.WipeIdle(30 * s), 3 * s, []request{{0, 1, s, 0}, {32 * s, 2, s, 34 * s}}, []time.Duration{31 * s, 65 * s}},
		{"idle: who waits too long is refused", config.WipeIdle(30 * s), 60 * s, []request{{0, 1, s, 0}, {32 * s, 2, s, -42 * s}}, []time.Duration{31 * s}},
		{"per client: one client's requests beside each other", config.WipeClient, s, []request{{0, 1, 5 * s, 0}, {s, 1, s, s}, {20 * s, 1, s, 20 * s}}, nil},
		{"per client: another waits for the first, and those behind it for it", config.WipeClient, s,
			[]request{{0, 1, 5 * s, 0}, {s, 2, 2 * s, 6 * s}, {2 * s, 1, s, 9 * s}}, []time.Duration{5 * s, 8 * s}},
		{"per client: who gives up lets others go on", config.WipeClient, s,
			[]request{{0, 1, 20 * s, 0}, {s, 2, s, -11 * s}, {2 * s, 1, s, 11 * s}}, nil},
		{"per client: no wipe while nobody else comes", config.WipeClient, s, []request{{0, 1, s, 0}, {1000 * s, 2, s, 1001 * s}}, []time.Duration{1000 * s}},
		{"per request: wiped after each, whoever comes", config.WipeRequest, 2 * s, []request{{0, 1, 5 * s, 0}, {s, 1, s, 7 * s}}, []time.Duration{5 * s, 8 * s}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, w := time.Now(), &wiper{takes: tt.takes}
				var wipes []time.Duration
				turns := newTurns(tt.wipe, func() (<-chan struct{}, error) {
					wipes = append(wipes, time.Since(began))
					return w.ask()
				}, slog.New(slog.DiscardHandler))
				var all sync.WaitGroup
				for i, r := range tt.requests {
					all.Go(func() {
						time.Sleep(r.comes)
						leave, err := turns.enter(t.Context(), clientNumbered(r.client), 10*s)
						at := time.Since(began)
						if err != nil {
							at = -at
						}
						if at != r.begins {
							t.Errorf("request %d began at %s, want %s (below zero: refused)", i, at, r.begins)
						}
						if err == nil {
							time.Sleep(r.takes)
							leave()
						}
					})
				}
				all.Wait()
				time.Sleep(time.Hour)
				synctest.Wait()
				if !slices.Equal(wipes, tt.wipes) {
					t.Errorf("wiped at %s, want %s", wipes, tt.wipes)
				}
			})
		})
	}
}

// TestTurnIsGivenUp: a client that leaves while it waits has no turn, and an engine that could not be wiped serves nobody.
func TestTurnIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wiper{fails: true}
		turns := newTurns(config.WipeRequest, w.ask, slog.New(slog.DiscardHandler))
		leave, err := turns.enter(t.Context(), ton.Address{}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := turns.enter(gone, ton.Address{}, time.Minute); !errors.Is(err, errWiping) || len(turns.waiting) != 0 {
			t.Errorf("who left got error %v, and %d wait; want a refusal, and none", err, len(turns.waiting))
		}
		leave()
		if _, err := turns.enter(t.Context(), ton.Address{}, time.Hour); !errors.Is(err, errWiping) || w.asked != 1 {
			t.Errorf("after a wipe that failed: got error %v after %d wipes, want a refusal after 1", err, w.asked)
		}
	})
}

// TestWipedPerRequest asks a gateway whose engine computes one request: its tokens are counted in the same turn, and it is wiped after each, also
// after one that was refused, or left by its client.
func TestWipedPerRequest(t *testing.T) {
	var mu sync.Mutex
	var log []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, what)
	}
	b := startBench(t, func(c *Config) {
		c.Wipe, c.Models[0].Concurrent, c.Models[0].ContextTokens = config.WipeRequest, 1, 50
		c.Models[0].AskWipe = func() (<-chan struct{}, error) {
			note("wipe")
			done := make(chan struct{})
			time.AfterFunc(10*time.Millisecond, func() { close(done) })
			return done, nil
		}
	})
	b.engine.counts = func(_, body string) (int, string) {
		note("count")
		if strings.Contains(body, "longer") {
			return 200, `{"input_tokens":51}`
		}
		return 200, `{"input_tokens":40}`
	}
	b.engine.set(func(w *engineWriter) {
		note("compute")
		w.begin(14)
		w.text("some")
		w.end(14, 1)
	})
	for _, tt := range []struct {
		body   string
		status int
	}{{ask(""), 200}, {strings.Replace(ask(""), "canary", "longer", 1), 400}, {ask(`,"stream":true`), 200}} {
		if status, text := b.post(t, tt.body); status != tt.status {
			t.Fatalf("status %d, want %d: %s", status, tt.status, text)
		}
	}
	left := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		note("compute")
		w.begin(14)
		w.text("some")
		<-w.gone
		close(left)
	})
	ctx, cancel := context.WithCancel(t.Context())
	response, err := b.http.Do(b.request(t, ctx, ask(`,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(response.Body, make([]byte, 1)); err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(response.Status, err)
	}
	cancel()
	response.Body.Close()
	<-left
	b.engine.set(func(w *engineWriter) {
		note("compute")
		w.begin(14)
		w.end(14, 0)
	})
	if status, text := b.post(t, ask("")); status != 200 {
		t.Fatalf("after a client left: status %d: %s", status, text)
	}
	mu.Lock()
	defer mu.Unlock()
	const want = "count compute wipe count wipe count compute wipe count compute wipe count compute"
	if got := strings.Join(log, " "); got != want && got != want+" wipe" {
		t.Errorf("the engine was asked for %q, want %q", got, want)
	}
}
