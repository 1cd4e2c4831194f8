package status

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Line is one line of the port. Exactly one of Stage, Step, Serving, Event and Code is set.
type Line struct {
	Stage   Stage // the program has begun
	Step    Step  // the step is done
	Serving bool  // the guest answers requests
	Event   Event
	Code    Code // the guest ends, and this is why
	// Uptime is the guest's own, in whole milliseconds, and zero in the lines of an Event or a Code.
	Uptime time.Duration
}

const (
	// maxLineBytes bounds a line without its end.
	maxLineBytes = 64
	// maxUptime is the longest uptime that a line can state: 292 years of nanoseconds are what a time.Duration holds.
	maxUptime = 1<<63 - 1 - (1<<63-1)%time.Millisecond
	// maxBytes bounds what is read of a port: a guest whose engine goes up and down for years stays below it.
	maxBytes = 1 << 20
)

// String returns the line as it stands on the port, without its end.
func (l Line) String() string {
	switch {
	case l.Stage != 0:
		return fmt.Sprintf("step %s %d", l.Stage, l.Uptime.Milliseconds())
	case l.Step != 0:
		return fmt.Sprintf("step %s %d", l.Step, l.Uptime.Milliseconds())
	case l.Serving:
		return fmt.Sprintf("serving %d", l.Uptime.Milliseconds())
	case l.Event != 0:
		return "event " + l.Event.String()
	}
	return "end " + l.Code.String()
}

// Parse parses a line without its end. A line that init can't have written is an error.
func Parse(text string) (Line, error) {
	if len(text) > maxLineBytes {
		return Line{}, fmt.Errorf("parsing status line: %d bytes, want at most %d", len(text), maxLineBytes)
	}
	line, err := parse(strings.Split(text, " "))
	if err != nil {
		return Line{}, fmt.Errorf("parsing status line %q: %v", text, err)
	}
	return line, nil
}

func parse(words []string) (line Line, err error) {
	want := 2
	if words[0] == "step" {
		want = 3
	}
	if len(words) != want {
		return Line{}, fmt.Errorf("%d words, want %d", len(words), want)
	}
	switch words[0] {
	case "step":
		line.Stage = Stage(index(len(stages), func(i int) bool { return stages[i] == words[1] }))
		line.Step = Step(index(len(steps), func(i int) bool { return steps[i].name == words[1] && !Step(i).silent() }))
		if line.Stage == 0 && line.Step == 0 {
			return Line{}, fmt.Errorf("there is no step %q", words[1])
		}
		line.Uptime, err = parseUptime(words[2])
	case "serving":
		line.Serving = true
		line.Uptime, err = parseUptime(words[1])
	case "event":
		line.Event = Event(index(len(events), func(i int) bool { return events[i] == words[1] }))
		if line.Event == 0 {
			return Line{}, fmt.Errorf("there is no event %q", words[1])
		}
	case "end":
		line.Code = ParseCode(words[1])
		if line.Code == 0 {
			return Line{}, fmt.Errorf("there is no code %q", words[1])
		}
	default:
		return Line{}, fmt.Errorf("there is no line %q", words[0])
	}
	return line, err
}

// silent reports whether the step comes before there is a port.
func (s Step) silent() bool { return s == Mounts || s == Status }

// ParseCode returns the code of that name, or zero.
func ParseCode(name string) Code {
	if c := index(len(codes), func(i int) bool { return codes[i].name == name }); c != 0 {
		return Code(c)
	}
	step, failed := strings.CutSuffix(name, failedSuffix)
	if s := index(len(steps), func(i int) bool { return steps[i].name == step }); s != 0 && failed {
		return Step(s).Failed()
	}
	return 0
}

// index returns the first number from 1 to n-1 that is meant, or 0.
func index(n int, meant func(int) bool) int {
	for i := 1; i < n; i++ {
		if meant(i) {
			return i
		}
	}
	return 0
}

func parseUptime(text string) (time.Duration, error) {
	ms, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(ms, 10) != text || ms > uint64(maxUptime/time.Millisecond) {
		return 0, fmt.Errorf("uptime is %q, want milliseconds", text)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// ParseAll parses what a port has written so far. A last line without an end is still being written, and left out.
func ParseAll(text []byte) ([]Line, error) {
	if len(text) > maxBytes {
		return nil, fmt.Errorf("parsing status: %d bytes, want at most %d", len(text), maxBytes)
	}
	var lines []Line
	for part := range strings.Lines(string(text)) {
		part, whole := strings.CutSuffix(part, "\n")
		if !whole {
			break
		}
		line, err := Parse(part)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(lines)+1, err)
		}
		lines = append(lines, line)
	}
	return lines, nil
}
