package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// becomeEngine is the environment variable by which this test's program becomes an engine in a network of its own.
const becomeEngine = "CHRYSALIS_TEST_ENGINE"

// TestBecomeEngine is no test: it listens in the network that it was started in, and says what it gets.
func TestBecomeEngine(t *testing.T) {
	address := os.Getenv(becomeEngine)
	if address == "" {
		t.Skip("the engine of TestRelay")
	}
	lo, err := unix.NewIfreq("lo") // which runc brings up in a container
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{}, 1)
	fmt.Println("listening")
	t.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			io.Copy(w, r.Body)
		case "/forever":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			ended <- struct{}{}
		case "/ended":
			<-ended
		}
	})))
}

// startEngine starts one, and returns its process.
func startEngine(t *testing.T, address string) *os.Process {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestBecomeEngine$")
	c.Env = append(os.Environ(), becomeEngine+"="+address)
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); errors.Is(err, os.ErrPermission) {
		t.Skip("making a network needs root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	line := make([]byte, len("listening"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "listening" {
		t.Fatalf("the engine said %q (%v)", line, err)
	}
	return c.Process
}

// TestRelay: whoever has the socket reaches an engine that listens in a network of its own, which nobody else does, and a connection that ends on one side
// ends on the other.
func TestRelay(t *testing.T) {
	const address = "127.0.0.1:30000"
	process := startEngine(t, address)
	socket := filepath.Join(t.TempDir(), SocketName)
	r, err := startRelay(socket, uint32(process.Pid), address)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			r.close()
		}
	}()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket is %v (%v), want it open to all who get there", info.Mode(), err)
	}
	if c, err := net.DialTimeout("tcp4", address, time.Second); err == nil {
		c.Close()
		t.Errorf("%s is reached from outside of its network", address)
	}
	dial := func() net.Conn {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	sent := make([]byte, 3<<20)
	rand.Read(sent)
	for range 3 {
		response, err := client.Post("http://engine/echo", "application/octet-stream", bytes.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came back of %d (%v)", len(got), len(sent), err)
		}
	}
	leaves := dial()
	io.WriteString(leaves, "GET /forever HTTP/1.1\r\nHost: engine\r\n\r\n")
	if _, err := leaves.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	leaves.Close()
	response, err := client.Get("http://engine/ended") // is answered once the engine knows
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("the engine was not told that its client left: %v", err)
	}
	response.Body.Close()
	// The engine's end, and the relay's, are the client's.
	stays := dial()
	io.WriteString(stays, "GET /forever HTTP/1.1\r\nHost: engine\r\n\r\n")
	if _, err := stays.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	process.Kill()
	stays.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, stays); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the engine is gone, and its client sees %v", err)
	}
	late := dial()
	late.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := late.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("nobody listens, and a client gets %d bytes and %v, want an end", n, err)
	}
	r.close()
	closed = true
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("the socket is open after the end")
	}
	if _, err := startRelay(socket, 1<<30, address); err == nil || !strings.Contains(err.Error(), "entering the engine's network") {
		t.Errorf("no such process: got %v", err)
	}
}
