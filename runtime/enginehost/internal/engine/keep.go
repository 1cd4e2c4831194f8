package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"chrysalis/runtime/role"
)

// process is one of the engine's, from its start to its end.
type process struct {
	at     int             // its place
	up     <-chan struct{} // closed once it answers
	ended  chan error      // yields once it is gone
	kill   context.CancelFunc
	cameUp bool
}

// errStays says that a process which was to end may still be there, with what it has in memory.
var errStays = errors.New("a process of the engine stays")

// start starts a process in a place.
func start(ctx context.Context, at int, once func(ctx context.Context, at int, up func()) error) *process {
	ctx, kill := context.WithCancel(ctx)
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- once(ctx, at, func() { close(up) }) }()
	return &process{at: at, up: up, ended: ended, kill: kill}
}

// end ends a process, if there is one, and returns once it is gone.
func (p *process) end() error {
	if p == nil {
		return nil
	}
	p.kill()
	if err := <-p.ended; errors.Is(err, errStays) {
		return err
	}
	return nil
}

// keep runs once again and again, in one place or in two, with a pause that grows while the engine does not come up. It owns both processes: whoever
// else wants something of them asks over Wipes.
func (s Settings) keep(ctx context.Context, once func(ctx context.Context, at int, up func()) error) (err error) {
	var serving, next *process
	defer func() { err = errors.Join(err, serving.end(), next.end()) }()
	var asked []Wiping // to be told when a process serves
	var pause <-chan time.Time
	backoff, failed, ready, down := firstBackoff, 0, false, true
	later := func() {
		pause = time.After(backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	for {
		if serving == nil && next != nil && next.cameUp {
			if err := s.lead(next.at); err != nil {
				return err
			}
			serving, next = next, nil
			if !ready {
				ready = true
				s.Report(role.Ready)
			}
			if down {
				down = false
				s.Report(role.EngineUp)
			}
			for _, a := range asked {
				close(a)
			}
			asked = nil
		}
		if next == nil && pause == nil && (serving == nil || s.Spare) {
			at := 0
			if serving != nil {
				at = (serving.at + 1) % places
			}
			next = start(ctx, at, once)
		}
		var servingEnded, nextEnded <-chan error
		var nextUp <-chan struct{}
		if serving != nil {
			servingEnded = serving.ended
		}
		if next != nil {
			nextEnded = next.ended
			if !next.cameUp {
				nextUp = next.up
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause:
			pause = nil
		case <-nextUp:
			next.cameUp = true
			backoff, failed = firstBackoff, 0
		case err := <-servingEnded:
			serving.kill()
			serving = nil
			if errors.Is(err, errStays) {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
			down = true
			s.Report(role.EngineDown)
			if next == nil {
				later()
			}
		case err := <-nextEnded:
			if !next.cameUp && isClosed(next.up) { // both at once
				next.cameUp = true
				next.ended <- err
				continue
			}
			if !next.cameUp {
				failed++
			}
			next.kill()
			next = nil
			if errors.Is(err, errStays) {
				return err
			}
			if ctx.Err() != nil {
				return nil
			}
			if failed == maxFailedStart {
				return fmt.Errorf("starting the engine: %d times in a row: %w", failed, err)
			}
			later()
		case a := <-s.Wipes:
			asked = append(asked, a)
			old := serving
			serving = nil
			if err := old.end(); err != nil {
				return err
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// name is the container's of a place.
func (s Settings) name(at int) string { return s.Name + "-" + strconv.Itoa(at) }

// place is the folder of a place's socket.
func (s Settings) place(at int) string { return filepath.Join(s.SocketDir, strconv.Itoa(at)) }

// makePlace makes that folder, which the engine may write and the gateway enter.
func (s Settings) makePlace(at int) error {
	dir := s.place(at)
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return err
	}
	return os.Chown(dir, role.EngineUser, role.GatewayUser)
}

// lead has the engine's socket lead to a place, in one step. Its path is relative: the gateway sees the folder elsewhere.
func (s Settings) lead(at int) error {
	link := filepath.Join(s.SocketDir, "next")
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Join(strconv.Itoa(at), SocketName), link); err != nil {
		return err
	}
	return os.Rename(link, filepath.Join(s.SocketDir, SocketName))
}
