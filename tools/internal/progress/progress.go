// Package progress tells a person what a long command is doing: a bar on a terminal, one line a step elsewhere. It writes
// to the standard error of the command; the answer of a command goes elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/schollz/progressbar/v3"
)

// Reporter writes the steps of one command. The zero Reporter is silent.
type Reporter struct {
	w        io.Writer
	terminal bool
	mu       sync.Mutex
}

// New returns a reporter to w. If w is a terminal, steps with a known size draw a bar.
func New(w io.Writer) *Reporter {
	r := &Reporter{w: w}
	if f, ok := w.(*os.File); ok {
		r.terminal = term.IsTerminal(f.Fd())
	}
	return r
}

// Note writes a line about the command itself, such as a warning.
func (r *Reporter) Note(format string, args ...any) {
	if r == nil || r.w == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.w, "chrysalis: "+format+"\n", args...)
}

// Step is one named piece of work. Its methods may be called from several goroutines.
type Step struct {
	r     *Reporter
	name  string
	start time.Time
	bar   *progressbar.ProgressBar
}

// Step begins a step. total is its size in bytes, or 0 if it cannot be told.
func (r *Reporter) Step(name string, total int64) *Step {
	s := &Step{r: r, name: name, start: time.Now()}
	if r == nil || r.w == nil {
		return s
	}
	if r.terminal && total > 0 {
		s.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(r.w), progressbar.OptionSetDescription(name),
			progressbar.OptionShowBytes(true), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish())
	}
	return s
}

// Add counts work done.
func (s *Step) Add(n int64) {
	if s.bar != nil {
		// A bar that cannot be drawn must not stop the work.
		_ = s.bar.Add64(n)
	}
}

// Done ends the step with a line that gives its time; detail may be empty.
func (s *Step) Done(detail string) {
	if s.r == nil || s.r.w == nil {
		return
	}
	if s.bar != nil {
		_ = s.bar.Finish()
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	fmt.Fprintf(s.r.w, "  %-28s %7.1f s  %s\n", s.name, time.Since(s.start).Seconds(), detail)
}
