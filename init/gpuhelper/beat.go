package gpuhelper

import (
	"fmt"
	"io"
	"net"
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

// Watch reads beats until one does not come in time, and says why. It returns no nil.
func Watch(r net.Conn) error { return watch(r, Patience) }

func watch(r net.Conn, patience time.Duration) error {
	var b [64]byte
	for {
		if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return fmt.Errorf("waiting for beats: %w", err)
		}
		n, err := r.Read(b[:])
		for _, said := range b[:n] {
			if said != beat {
				return fmt.Errorf("waiting for beats: the helper says %d, want %d: a device is lost", said, beat)
			}
		}
		if err != nil {
			return fmt.Errorf("waiting for beats: %w", err)
		}
	}
}
