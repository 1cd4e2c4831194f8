package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/runtime/role"
)

var errDown = errors.New("down")

// world runs keep over processes that do what a test says, on a clock of its own.
type world struct {
	t        *testing.T
	settings Settings
	wipes    chan Wiping
	done     chan error

	mu     sync.Mutex
	said   []string
	die    map[int]chan error // of the process in each place
	starts []int              // their places
	stays  bool               // none can be killed
}

// keeps starts keep. Each process comes up after a second, or ends then where fails says so of its number.
func keeps(t *testing.T, spare bool, fails func(n int) bool) *world {
	w := &world{t: t, wipes: make(chan Wiping), die: map[int]chan error{}, done: make(chan error, 1)}
	w.settings = testSettings(func(word role.Word) {
		w.locked(func() { w.said = append(w.said, word.String()) })
	})
	w.settings.SocketDir, w.settings.Spare, w.settings.Wipes = t.TempDir(), spare, w.wipes
	go func() {
		w.done <- w.settings.keep(t.Context(), func(ctx context.Context, at int, up func()) error {
			die, n := make(chan error, 1), 0
			w.locked(func() {
				if w.die[at] != nil {
					t.Errorf("two processes in place %d", at)
				}
				w.die[at] = die
				w.starts = append(w.starts, at)
				n = len(w.starts)
			})
			defer func() { w.locked(func() { w.die[at] = nil }) }()
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return ctx.Err()
			}
			if fails != nil && fails(n) {
				return errDown
			}
			up()
			select {
			case err := <-die:
				return err
			case <-ctx.Done():
				err := ctx.Err()
				w.locked(func() {
					if w.stays {
						err = fmt.Errorf("killing: %w", errStays)
					}
				})
				return err
			}
		})
	}()
	return w
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// dies ends the process in a place, if there is one.
func (w *world) dies(at int) {
	w.locked(func() {
		if w.die[at] != nil {
			w.die[at] <- errDown
		}
	})
}

// leads is the place that the engine's socket leads to, or none.
func (w *world) leads() string {
	to, _ := os.Readlink(filepath.Join(w.settings.SocketDir, SocketName))
	return to
}

// stands wants what was started and said, and where the socket leads.
func (w *world) stands(when string, starts []int, leads, said string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.said, " "); !slices.Equal(w.starts, starts) || w.leads() != leads || got != said {
		w.t.Errorf("%s: started in places %v, socket leads to %q, said %q; want %v, %q, %q", when, w.starts, w.leads(), got, starts, leads, said)
	}
}

func (w *world) wipe() Wiping {
	a := make(Wiping)
	w.wipes <- a
	synctest.Wait()
	return a
}

// in runs a test on a clock of its own, in which keep ends with the test.
func in(t *testing.T, test func(t *testing.T, start func(spare bool, fails func(int) bool) *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, func(spare bool, fails func(int) bool) *world { return keeps(t, spare, fails) })
	})
}

// TestKeepAlone: an engine without a spare is started again when it has died, and by a wipe.
func TestKeepAlone(t *testing.T) {
	in(t, func(t *testing.T, start func(bool, func(int) bool) *world) {
		w := start(false, nil)
		w.stands("at first", []int{0}, "", "")
		time.Sleep(time.Second)
		w.stands("up", []int{0}, "0/e.sock", "ready engine-up")
		time.Sleep(time.Hour)
		w.stands("an hour later", []int{0}, "0/e.sock", "ready engine-up")
		w.dies(0)
		w.stands("dead", []int{0}, "0/e.sock", "ready engine-up engine-down")
		time.Sleep(firstBackoff + time.Second)
		w.stands("up again", []int{0, 0}, "0/e.sock", "ready engine-up engine-down engine-up")
		a := w.wipe()
		w.stands("wiped", []int{0, 0, 0}, "0/e.sock", "ready engine-up engine-down engine-up")
		if isClosed(a) {
			t.Error("the wipe was answered while no process serves")
		}
		time.Sleep(time.Second)
		if synctest.Wait(); !isClosed(a) {
			t.Error("the wipe was not answered")
		}
	})
}

// TestKeepSpare: a spare waits unused behind the process that serves, and takes over at once.
func TestKeepSpare(t *testing.T) {
	in(t, func(t *testing.T, start func(bool, func(int) bool) *world) {
		w := start(true, nil)
		time.Sleep(time.Second)
		w.stands("up", []int{0, 1}, "0/e.sock", "ready engine-up")
		time.Sleep(time.Second)
		w.stands("the spare is up", []int{0, 1}, "0/e.sock", "ready engine-up")
		if a := w.wipe(); !isClosed(a) {
			t.Error("the wipe was not answered, though a spare was up")
		}
		w.stands("wiped", []int{0, 1, 0}, "1/e.sock", "ready engine-up")
		first, second := w.wipe(), w.wipe()
		w.stands("wiped before the spare is up", []int{0, 1, 0}, "1/e.sock", "ready engine-up")
		if isClosed(first) || isClosed(second) {
			t.Error("a wipe was answered before another process serves")
		}
		time.Sleep(time.Second)
		w.stands("the spare serves", []int{0, 1, 0, 1}, "0/e.sock", "ready engine-up")
		if !isClosed(first) || !isClosed(second) {
			t.Error("a wipe was not answered")
		}
		time.Sleep(time.Second)
		w.dies(0)
		w.stands("the one that serves dies", []int{0, 1, 0, 1, 0}, "1/e.sock", "ready engine-up engine-down engine-up")
		time.Sleep(time.Second)
		w.dies(0)
		w.stands("the spare dies", []int{0, 1, 0, 1, 0}, "1/e.sock", "ready engine-up engine-down engine-up")
		time.Sleep(firstBackoff)
		w.stands("another spare", []int{0, 1, 0, 1, 0, 0}, "1/e.sock", "ready engine-up engine-down engine-up")
	})
}

// TestKeepGivesUp: an engine that does not come up in so many starts, and a process that does not end, end the program, and with it the guest.
func TestKeepGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spare bool
		fails func(n int) bool
		said  string
	}{
		{"never comes up", false, func(int) bool { return true }, ""},
		{"does not come up again", false, func(n int) bool { return n > 1 }, "ready engine-up engine-down"},
		{"no spare comes up", true, func(n int) bool { return n > 1 }, "ready engine-up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in(t, func(t *testing.T, start func(bool, func(int) bool) *world) {
				w, began := start(tt.spare, tt.fails), time.Now()
				time.Sleep(1500 * time.Millisecond)
				if !tt.spare && tt.said != "" {
					w.dies(0)
				}
				err := <-w.done
				w.mu.Lock()
				defer w.mu.Unlock()
				if !errors.Is(err, errDown) || strings.Join(w.said, " ") != tt.said {
					t.Errorf("ended with %v having said %q, want %v and %q", err, w.said, errDown, tt.said)
				}
				if took := time.Since(began); took > maxFailedStart*(maxBackoff+time.Second) {
					t.Errorf("took %s", took)
				}
			})
		})
	}
	t.Run("a process stays", func(t *testing.T) {
		in(t, func(t *testing.T, start func(bool, func(int) bool) *world) {
			w := start(true, nil)
			time.Sleep(1500 * time.Millisecond)
			w.locked(func() { w.stays = true })
			if a := w.wipe(); isClosed(a) {
				t.Error("the wipe was answered, though the process stays")
			}
			if err := <-w.done; !errors.Is(err, errStays) {
				t.Errorf("ended with %v, want %v", err, errStays)
			}
		})
	})
}

// TestKeepSlow: a start that fails is tried again, and says nothing to anybody.
func TestKeepSlow(t *testing.T) {
	in(t, func(t *testing.T, start func(bool, func(int) bool) *world) {
		w := start(false, func(n int) bool { return n < 3 })
		time.Sleep(4 * time.Second)
		w.stands("up at the third start", []int{0, 0, 0}, "0/e.sock", "ready engine-up")
	})
}
