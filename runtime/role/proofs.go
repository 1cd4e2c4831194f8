package role

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxProofBytes bounds a line of the proofs' pipe without its end.
const maxProofBytes = 2048

// ForwardProofs hands the keeper's proofs on, line by line, until the pipe ends: each begins with "proof " or "claim " and holds printable ASCII
// alone. A line of another form is an error, and nothing of it is handed on. A reader that takes nothing holds the keeper's exports
// up, which then stand for the newest of each contract, and nothing else.
func ForwardProofs(from io.Reader, to io.Writer) error {
	lines := bufio.NewReaderSize(from, maxProofBytes+1)
	for {
		line, err := lines.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		}
		if err == io.EOF {
			return fmt.Errorf("forwarding proofs: %d bytes without an end", len(line))
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("forwarding proofs: a line of more than %d bytes", maxProofBytes)
		}
		if err != nil {
			return fmt.Errorf("forwarding proofs: %w", err)
		}
		text := string(line[:len(line)-1])
		if !strings.HasPrefix(text, "proof ") && !strings.HasPrefix(text, "claim ") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("forwarding proofs: %.40q is no proof", text)
		}
		if _, err := to.Write(line); err != nil {
			return fmt.Errorf("forwarding proofs: %w", err)
		}
	}
}
