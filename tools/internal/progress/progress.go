// Package progress tells a person what a long command is doing: each step by its name when it begins, of a known number of steps by its
// number, and its time when it is done; in between on a terminal a bar or its seconds, elsewhere a line now and then. It writes to the standard error of the command; the answer of a command goes elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
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
	begun    int   // steps so far
	expected int   // steps in all; zero: not known
	open     *Step // whose line has begun and not ended
}

// New returns a reporter to w. If w is a terminal, steps with a known size draw a bar.
func New(w io.Writer) *Reporter {
	r := &Reporter{w: w, still: [2]time.Duration{5 * time.Second, 30 * time.Second}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(f.Fd()) {
		r.terminal, r.still = true, [2]time.Duration{time.Second, time.Second}
	}
	return r
}

// Expect says how many steps will begin. If there are more, as where a lock has to be resolved anew, the number grows.
func (r *Reporter) Expect(steps int) {
	if r != nil {
		r.expected = steps
	}
}

// endLine ends a line that a step has begun.
func (r *Reporter) endLine() {
	if r.open != nil {
		fmt.Fprintln(r.w)
		r.open = nil
	}
}

// Note writes a line about the command itself, such as a warning.
func (r *Reporter) Note(format string, args ...any) {
	if r == nil || r.w == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endLine()
	fmt.Fprintf(r.w, "chrysalis: "+format+"\n", args...)
}

// Step is one named piece of work. Its methods may be called from several goroutines.
type Step struct {
	r     *Reporter
	name  string // as its lines begin
	start time.Time
	bar   *progressbar.ProgressBar
	timer *time.Timer // of what tells that it goes on, where there is no bar
	ended bool        // under the reporter's lock
}

// Step begins a step. total is its size in bytes, or 0 if it cannot be told.
func (r *Reporter) Step(name string, total int64) *Step {
	s := &Step{r: r, name: fmt.Sprintf("  %-28s", name), start: time.Now()}
	if r == nil || r.w == nil {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun++; r.expected > 0 {
		r.expected = max(r.expected, r.begun)
		s.name = fmt.Sprintf("  %2d of %d%s", r.begun, r.expected, s.name)
	}
	if r.terminal && total > 0 {
		s.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(r.w), progressbar.OptionSetDescription(strings.TrimRight(s.name, " ")),
			progressbar.OptionShowBytes(true), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish())
		return s
	}
	r.endLine()
	if r.terminal {
		fmt.Fprint(r.w, clearLine)
	} else {
		r.open = s
	}
	fmt.Fprint(r.w, s.name)
	if r.still[0] > 0 {
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
	took := fmt.Sprintf(" %7.0f s", time.Since(s.start).Seconds())
	if s.r.terminal {
		fmt.Fprint(s.r.w, clearLine, s.name, took)
	} else {
		s.write(took + "  so far\n")
	}
	s.timer.Reset(s.r.still[1])
}

// write ends the line that the step has begun, or writes a whole one. The caller holds the reporter's lock.
func (s *Step) write(rest string) {
	if s.r.open == s {
		s.r.open = nil
	} else {
		s.r.endLine()
		fmt.Fprint(s.r.w, s.name)
	}
	fmt.Fprint(s.r.w, rest)
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
	}
	if s.r.terminal && s.bar == nil {
		fmt.Fprint(s.r.w, clearLine)
	}
	s.write(fmt.Sprintf(" %7.1f s  %s\n", time.Since(s.start).Seconds(), detail))
}
