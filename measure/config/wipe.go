package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Wipe says what becomes of a prompt in the engine's memory. Each is written in one way.
type Wipe string

// The ways, beside WipeIdle's.
const (
	// WipeFreed has the engine's allocator overwrite memory as it is freed; the engine's environment must ask for it. It does so with the others too.
	WipeFreed Wipe = "freed-memory"
	// WipeClient has an engine's process compute for one client, and end before another's request reaches an engine.
	WipeClient Wipe = "per-client"
	// WipeRequest has an engine's process compute one request, and end when that is over.
	WipeRequest Wipe = "per-request"
)

// Bounds of WipeIdle.
const (
	minIdle = time.Second
	maxIdle = time.Hour
)

const idle = "idle "

// WipeIdle has the engine's process end once it has computed nothing for so long, in whole seconds from 1 to 3600, where it has computed anything.
func WipeIdle(d time.Duration) Wipe {
	return Wipe(idle + strconv.FormatInt(int64(d/time.Second), 10) + "s")
}

// Idle returns how long an engine may be idle, and reports whether that is the way.
func (w Wipe) Idle() (d time.Duration, ok bool) {
	text, ok := strings.CutPrefix(string(w), idle)
	if !ok {
		return 0, false
	}
	seconds, err := strconv.ParseUint(strings.TrimSuffix(text, "s"), 10, 16)
	d = time.Duration(seconds) * time.Second
	return d, err == nil && d >= minIdle && d <= maxIdle && WipeIdle(d) == w
}

// Restarts reports whether engines are ended to be wiped, so that one waits behind the one that computes.
func (w Wipe) Restarts() bool { return w != WipeFreed && w != "" }

// Meets reports whether who asks for least gets no less: the same, or a process that ends no later, whoever asks when.
func (w Wipe) Meets(least Wipe) bool {
	if w == least {
		return true
	}
	of, isIdle := w.Idle()
	within, wantsIdle := least.Idle()
	switch {
	case least == WipeFreed:
		return w == WipeRequest || w == WipeClient || isIdle
	case least == WipeClient, wantsIdle && !isIdle:
		return w == WipeRequest
	}
	return isIdle && wantsIdle && of <= within
}

// validateWipe holds the way against what the service has.
func (s Service) validateWipe() error {
	_, isIdle := s.Wipe.Idle()
	if !isIdle && !slices.Contains([]Wipe{WipeFreed, WipeClient, WipeRequest}, s.Wipe) {
		return fmt.Errorf("wipe is %.40q, want %q, %q with whole seconds from %d to %d, %q or %q", s.Wipe, WipeFreed, WipeIdle(30*time.Second),
			minIdle/time.Second, maxIdle/time.Second, WipeClient, WipeRequest)
	}
	if s.Wipe == WipeClient && s.Price.Payment != PayCharge {
		return fmt.Errorf("wipe is %q and payment %q: clients are told apart by their payment contracts, want payment %q", s.Wipe, s.Price.Payment, PayCharge)
	}
	for at, m := range s.Served() {
		if s.Wipe == WipeRequest && m.Limits.Concurrent != 1 {
			return fmt.Errorf("%swipe is %q and limits.concurrent %d: an engine computes one request, want 1", s.of(at), s.Wipe, m.Limits.Concurrent)
		}
		dialect, _ := m.Engine.dialect() // validated
		for _, wipes := range dialect.Wipes {
			if !slices.Contains(m.Engine.Env, wipes) {
				return fmt.Errorf("%swipe is %q, but engine.env lacks %q", s.of(at), s.Wipe, wipes)
			}
		}
	}
	return nil
}
