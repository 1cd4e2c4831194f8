// Package progress tells a person what a long command is doing: on a terminal a bar, or the step with its seconds; elsewhere a line when a
// step is done, and one now and then while it is not. It writes to the standard error of the command; the answer of a command goes elsewhere.
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
	still    [2]time.Duration // after which time a step that goes on is told, and how often then; zero: never
	mu       sync.Mutex
}

// New returns a reporter to w. If w is a terminal, steps with a known size draw a bar.
func New(w io.Writer) *Reporter {
	r := &Reporter{w: w, still: [2]time.Duration{5 * time.Second, 30 * time.Second}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(f.Fd()) {
		r.terminal, r.still = true, [2]time.Duration{time.Second, time.Second}
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
	timer *time.Timer // of what tells that it goes on, where there is no bar
	ended bool        // under the reporter's lock
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
	} else if r.still[0] > 0 {
		s.timer = time.AfterFunc(r.still[0], s.goesOn)
	}
	return s
}

// clearLine returns to the beginning of a terminal's line and empties it.
const clearLine = "\r\x1b[K"

// goesOn says that the step is not done, and says so again. A step that fails is ended by its command's end.
func (s *Step) goesOn() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.ended {
		return
	}
	format := "  %-28s %7.0f s  so far\n"
	if s.r.terminal {
		format = clearLine + "  %-28s %7.0f s"
	}
	fmt.Fprintf(s.r.w, format, s.name, time.Since(s.start).Seconds())
	s.timer.Reset(s.r.still[1])
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
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
		if s.r.terminal {
			fmt.Fprint(s.r.w, clearLine)
		}
	}
	fmt.Fprintf(s.r.w, "  %-28s %7.1f s  %s\n", s.name, time.Since(s.start).Seconds(), detail)
}
