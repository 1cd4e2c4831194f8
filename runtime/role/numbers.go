package role

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"chrysalis/runtime/numbers"
)

// ForwardNumbers hands the gateway's numbers on, line by line, until the pipe ends. One that comes sooner than numbers.MinInterval after the
// last is dropped: nobody fills the host's disk. A line of another form is an error, and nothing of it is handed on. to must not wait
// for its reader; its errors are its own.
func ForwardNumbers(from io.Reader, to io.Writer, now func() time.Time) error {
	lines := bufio.NewReaderSize(from, numbers.MaxLineBytes+1)
	var last time.Time
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err == io.EOF {
			return fmt.Errorf("forwarding numbers: %d bytes without an end", len(line))
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("forwarding numbers: a line of more than %d bytes", numbers.MaxLineBytes)
		}
		if err != nil {
			return fmt.Errorf("forwarding numbers: %w", err)
		}
		if _, err := numbers.Parse(string(line[:len(line)-1])); err != nil {
			return fmt.Errorf("forwarding numbers: %w", err)
		}
		if at := now(); last.IsZero() || at.Sub(last) >= numbers.MinInterval {
			last = at
			_, _ = to.Write(line)
		}
	}
}
