package services

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWaitForSocket: who comes late is waited for, and who does not come is named.
func TestWaitForSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	soon, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := waitForSocket(soon, path); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for "+path) {
		t.Errorf("nobody listens: got %v, want %v with the socket's path", err, context.DeadlineExceeded)
	}
	ended := make(chan error, 1)
	go func() { ended <- waitForSocket(t.Context(), path) }()
	time.Sleep(100 * time.Millisecond)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := <-ended; err != nil {
		t.Errorf("somebody listens: %v", err)
	}
}
