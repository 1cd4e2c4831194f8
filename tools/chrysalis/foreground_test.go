package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeep: a guest that ends is started again, later each time until one has served for a while, and powered off at the end.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lives := []time.Duration{time.Second, time.Second, 0, time.Hour, time.Second, time.Hour * 1000}
		var waits []time.Duration
		var stopped, boots int
		ended := errors.New("guest ended")
		s := supervised{
			boot: func(context.Context) error {
				boots++
				if boots == 3 {
					return ended
				}
				return nil
			},
			end: func(ctx context.Context) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(lives[boots-1]):
					return ended
				}
			},
			stop: func(ctx context.Context) error { stopped++; return ctx.Err() },
			say:  func(_ error, wait time.Duration) { waits = append(waits, wait) },
		}
		done := make(chan error)
		go func() { done <- s.keep(ctx) }()
		time.Sleep(3 * time.Hour)
		cancel()
		if err := <-done; err != nil || stopped != 1 || boots != len(lives) {
			t.Errorf("got error %v after %d boots and %d ends, want none after %d and one", err, boots, stopped, len(lives))
		}
		if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, time.Second, 2 * time.Second}; !slices.Equal(waits, want) {
			t.Errorf("waits are %v, want %v", waits, want)
		}
	})
}

// TestKeepEnds: a guest that never served is not tried again, and a signal while it waits ends it.
func TestKeepEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad config")
		s := supervised{boot: func(context.Context) error { return bad }, stop: func(context.Context) error { return nil }}
		if err := s.keep(t.Context()); !errors.Is(err, bad) {
			t.Errorf("a guest that never served: got error %v, want %v", err, bad)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := 0
		s = supervised{
			boot: func(context.Context) error { return nil }, end: func(context.Context) error { return bad },
			stop: func(context.Context) error { stopped++; return nil }, say: func(error, time.Duration) { cancel() },
		}
		if err := s.keep(ctx); err != nil || stopped != 1 {
			t.Errorf("a signal: got error %v and %d ends, want none and one", err, stopped)
		}
	})
}
