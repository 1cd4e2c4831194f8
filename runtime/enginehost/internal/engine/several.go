package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"chrysalis/runtime/role"
)

// RunAll runs the engines of a guest until ctx ends. The end of one is the end of all, since the guest has promised each: its error says whose it
// was. report gets what Settings.Report would, of all engines as one: Ready and EngineUp once all answer, EngineDown when one of them is gone.
func RunAll(ctx context.Context, all []Settings, report func(role.Word)) error {
	return runAll(ctx, all, report, Run)
}

func runAll(ctx context.Context, all []Settings, report func(role.Word), run func(context.Context, Settings) error) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	heard := &heard{report: report, up: make([]bool, len(all)), came: make([]bool, len(all))}
	ended := make([]error, len(all))
	var running sync.WaitGroup
	for at, s := range all {
		s.Report = func(w role.Word) { heard.of(at, w) }
		running.Go(func() {
			defer end()
			if err := run(ctx, s); err != nil {
				ended[at] = fmt.Errorf("%s: %w", s.Name, err)
			}
		})
	}
	running.Wait()
	return errors.Join(ended...)
}

// heard is what each of several engines has said.
type heard struct {
	mu       sync.Mutex
	report   func(role.Word)
	up, came []bool // answers now; has answered
}

// of takes a word of one engine's, and reports what it changes of all.
func (h *heard) of(at int, w role.Word) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch w {
	case role.Ready:
		if h.came[at] = true; all(h.came) {
			h.report(role.Ready)
		}
	case role.EngineUp:
		if h.up[at] = true; all(h.up) {
			h.report(role.EngineUp)
		}
	case role.EngineDown:
		before := all(h.up)
		if h.up[at] = false; before {
			h.report(role.EngineDown)
		}
	default:
		h.report(w)
	}
}

func all(of []bool) bool {
	for _, is := range of {
		if !is {
			return false
		}
	}
	return true
}
