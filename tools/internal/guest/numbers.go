package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"chrysalis/runtime/numbers"
)

// maxNumbersBytes is how long the file of numbers becomes before a reader cuts it short: three days of lines.
const maxNumbersBytes = 8 << 20

// Numbers returns what the guest counted last, and when that came. A guest that has said nothing yet, or whose machine has no such port,
// has none. A file that has become long is emptied, where this user may.
func (g Guest) Numbers() (v numbers.Values, at time.Time, found bool, err error) {
	f, err := os.Open(g.Path(NumbersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return v, at, false, nil
	}
	if err != nil {
		return v, at, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return v, at, false, err
	}
	tail := make([]byte, min(info.Size(), 4*numbers.MaxLineBytes))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil && err != io.EOF {
		return v, at, false, err
	}
	if v, found, err = numbers.Last(tail); err != nil {
		return v, at, false, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	if found && info.Size() > maxNumbersBytes {
		_ = os.Truncate(f.Name(), 0) // QEMU appends; what comes next is at its beginning
	}
	return v, info.ModTime(), found, nil
}
