package gpuhelper

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// BeatEvery is how often a helper says that every device is there and well, Patience how long it is waited for: with what init does then,
// a guest that has lost a GPU stops serving within a second.
const (
	BeatEvery = 200 * time.Millisecond
	Patience  = 700 * time.Millisecond
)

// beat is all that is said on the stream of beats.
const beat = 1

// Beat says that every device is there and well.
func Beat(w io.Writer) error {
	_, err := w.Write([]byte{beat})
	return err
}

// looks are how often Watch looks for a beat before its patience is at its end. A guest whose host let it stand still has missed one look, not
// all of them: its helper stood still, too.
const looks = 7

// Watch reads beats until one does not come in time, and says why. It returns no nil.
func Watch(r net.Conn) error {
	var b [64]byte
	for missed := 0; ; {
		if err := r.SetReadDeadline(time.Now().Add(Patience / looks)); err != nil {
			return fmt.Errorf("waiting for beats: %w", err)
		}
		n, err := r.Read(b[:])
		for _, said := range b[:n] {
			if said != beat {
				return fmt.Errorf("waiting for beats: the helper says %d, want %d: a device is lost", said, beat)
			}
		}
		if n > 0 {
			missed = 0
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			missed++
		}
		if err != nil && (missed == looks || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return fmt.Errorf("waiting for beats: %w", err)
		}
	}
}
