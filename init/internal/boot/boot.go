// Package boot runs a boot as a list of named steps and ends it on one path.
package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/port"
	"chrysalis/init/status"
)

// Coded is an error with a code of its own; other errors get the code of the step that failed.
type Coded struct {
	Code status.Code
	Err  error
}

func (c Coded) Error() string { return c.Code.String() + ": " + c.Err.Error() }
func (c Coded) Unwrap() error { return c.Err }

// Step is one step of a boot. A failed step ends the boot.
type Step struct {
	Name status.Step
	Run  func(context.Context) error
	// When reports, once the steps before are done, whether the guest has this step; nil: every guest has it.
	When func() bool
	// Limit is how long the step may take; zero is DefaultLimit. A step that overruns it has failed, also when what it waits
	// for (a TPM, a disk) never answers.
	Limit time.Duration
}

// DefaultLimit is how long a step may take that names no other limit.
const DefaultLimit = time.Minute

// Run runs the steps in order and reports each to the host. It returns the error and code of the first that fails.
func Run(ctx context.Context, host *port.Port, steps []Step) (status.Code, error) {
	for _, s := range steps {
		if s.When != nil && !s.When() {
			continue
		}
		if err := s.run(ctx); err != nil {
			code := s.Name.Failed()
			var coded Coded
			if errors.As(err, &coded) {
				code = coded.Code
			}
			return code, fmt.Errorf("%s: %w", s.Name, err)
		}
		host.Done(s.Name)
	}
	return 0, nil
}

// run leaves a step that overruns its limit behind: its goroutine ends with the guest, which is what follows.
func (s Step) run(ctx context.Context) error {
	limit := s.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done: // it heeded the limit, and knows what it waited for
		return err
	case <-time.After(time.Second):
		return fmt.Errorf("no answer within %s: %w", limit, ctx.Err())
	}
}

// Ender is the one way out. Whoever calls End first decides the code; everybody else waits for the power to go.
type Ender struct {
	once sync.Once
	host *port.Port
	// last runs before the power goes: stop what computes and what holds keys. It gets lastLimit, because a host that could
	// hold it up would keep the keys in memory.
	last func()
}

// lastLimit bounds what happens between the decision to end and the end.
const lastLimit = 3 * time.Second

// NewEnder returns the exit path. last may be nil.
func NewEnder(host *port.Port, last func()) *Ender { return &Ender{host: host, last: last} }

// End says why, and powers off. It does not return.
func (e *Ender) End(code status.Code, why error) {
	e.once.Do(func() {
		if why != nil {
			Log("end %s: %v", code, why)
		}
		if e.last != nil {
			done := make(chan struct{})
			go func() { defer close(done); e.last() }()
			select {
			case <-done:
			case <-time.After(lastLimit):
				Log("the last steps took longer than %s", lastLimit)
			}
		}
		e.host.End(code)
		unix.Sync()
		if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
			Log("power off: %v", err)
		}
		os.Exit(1) // PID 1 gone: the kernel panics, and the machine stops all the same
	})
	select {}
}

// Log writes a line to the kernel's log. A release image has no console, so the line stays in the guest; an image with
// one is another image with other measurements.
func Log(format string, args ...any) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	line := fmt.Sprintf("init: "+format, args...)
	_, _ = f.WriteString(line[:min(len(line), 900)] + "\n")
}
