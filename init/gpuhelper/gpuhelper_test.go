package gpuhelper

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/attest/evidence"
)

// driver is one in memory.
type driver struct {
	state   State
	nonce   [32]byte
	devices []evidence.Device
	fails   error
}

func (d *driver) State() (State, error) { return d.state, d.fails }
func (d *driver) Evidence(nonce [32]byte) ([]evidence.Device, error) {
	d.nonce = nonce
	return d.devices, d.fails
}
func (d *driver) SetReady(ready bool) error {
	if d.fails == nil {
		d.state.Ready = ready
	}
	return d.fails
}

func example() *driver {
	return &driver{
		state: State{Confidential: true, Devices: []Device{{evidence.KindGPU, "0000:41:00.0"}, {evidence.KindGPU, "0000:42:00.0"},
			{evidence.KindSwitch, "0000:05:00.0"}}},
		devices: []evidence.Device{{Kind: evidence.KindGPU, Report: []byte("report"), Chain: []byte("chain")}},
	}
}

// serve returns the asking end of a connection to a driver, and what Serve returns.
func serve(t *testing.T, d Driver) (*Helper, chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- Serve(theirs, d)
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close() })
	return New(ours), done
}

func TestRequests(t *testing.T) {
	d := example()
	h, done := serve(t, d)
	if got, err := h.State(); err != nil || !reflect.DeepEqual(got, d.state) {
		t.Errorf("state: got %+v and error %v, want %+v", got, err, d.state)
	}
	if got, err := h.Evidence([32]byte{7}); err != nil || !reflect.DeepEqual(got, d.devices) || d.nonce != [32]byte{7} {
		t.Errorf("evidence: got %+v over %x and error %v, want %+v", got, d.nonce, err, d.devices)
	}
	for _, ready := range []bool{true, false} {
		if err := h.SetReady(ready); err != nil || d.state.Ready != ready {
			t.Errorf("ready: got %t and error %v, want %t", d.state.Ready, err, ready)
		}
	}
	// What the driver refuses says nothing of the connection.
	d.fails = errors.New("fell off the bus")
	for name, ask := range map[string]func() error{
		"state": func() error { _, err := h.State(); return err }, "evidence": func() error { _, err := h.Evidence([32]byte{1}); return err },
		"ready": func() error { return h.SetReady(true) },
	} {
		if err := ask(); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v, want %v", name, err, ErrRefused)
		}
	}
	d.fails = nil
	if _, err := h.State(); err != nil {
		t.Errorf("after refusals: %v", err)
	}
	h.conn.Close()
	if err := <-done; err != nil {
		t.Errorf("at the end: got %v, want none", err)
	}
}

// TestServeRefuses ends the service over what is no request.
func TestServeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		request    []byte
	}{
		{"an unknown kind", "kind 5, want 1 to 4", append([]byte{5}, make([]byte, 32)...)},
		{"no kind", "kind 0, want 1 to 4", make([]byte, 33)},
		{"a nonce for the state", "with a nonce", append([]byte{1}, bytes.Repeat([]byte{1}, 32)...)},
		{"half a request", "unexpected EOF", []byte{1, 0}},
	} {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- Serve(theirs, example()) }()
		if _, err := ours.Write(tt.request); err != nil {
			t.Fatal(err)
		}
		ours.Close()
		if err := <-done; err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestAnswersRefused: an answer that is none breaks the connection for good, also where a good one follows.
func TestAnswersRefused(t *testing.T) {
	good := encodeState(State{Confidential: true})
	answer := func(status byte, body []byte) []byte {
		return append([]byte{status, byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16), 0}, body...)
	}
	for _, tt := range []struct {
		name, want string
		answer     []byte
	}{
		{"another status", "status 2", answer(2, nil)},
		{"a refusal with a body", "status 1 and 1 bytes", answer(1, []byte{1})},
		{"too long", "at most 159", answer(0, make([]byte, 160))},
		{"longer than memory", "at most 159", []byte{0, 0xff, 0xff, 0xff, 0xff}},
		{"cut short", "EOF", answer(0, good)[:6]},
		{"no state", "state has 0 bytes", answer(0, nil)},
		{"half a device", "state has 4 bytes", answer(0, append(bytes.Clone(good), 1))},
		{"a flag that is none", "flag 1 of the state is 2", answer(0, []byte{1, 2, 0})},
		{"a device of no kind", "device of kind 3", answer(0, append(bytes.Clone(good), "\x030000:41:00.0"...))},
		{"an address that is none", "at an address like", answer(0, append(bytes.Clone(good), "\x01../../../etc"...))},
		{"an address in digits alone", "at an address like", answer(0, append(bytes.Clone(good), "\x010000041000000"[:13]...))},
		{"a letter that is no digit", "at an address like", answer(0, append(bytes.Clone(good), "\x010000:4g:00.0"...))},
		{"an address in capitals", "at an address like", answer(0, append(bytes.Clone(good), "\x010000:4A:00.0"...))},
		{"a device twice", "by ascending address", answer(0, append(bytes.Clone(good), "\x010000:41:00.0\x010000:41:00.0"...))},
		{"a GPU after a switch", "by ascending address", answer(0, append(bytes.Clone(good), "\x020000:01:00.0\x010000:41:00.0"...))},
	} {
		ours, theirs := net.Pipe()
		go func() {
			for range 2 {
				if _, err := io.ReadFull(theirs, make([]byte, requestBytes)); err != nil {
					return
				}
				theirs.Write(tt.answer)
				if tt.name == "cut short" {
					theirs.Close()
				}
				tt.answer = answer(0, good)
			}
		}()
		h := New(ours)
		_, err := h.State()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
		if again := h.SetReady(true); again == nil || !strings.Contains(again.Error(), tt.want) {
			t.Errorf("%s: the next request gave %v, want the same", tt.name, again)
		}
		ours.Close()
	}
}

// TestLate: a helper that does not answer is given up, and for good.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		go io.Copy(io.Discard, theirs)
		h := New(ours)
		start := time.Now()
		if _, err := h.Evidence([32]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != evidenceLimit {
			t.Errorf("got %v after %s, want %v after %s", err, time.Since(start), os.ErrDeadlineExceeded, evidenceLimit)
		}
		if _, err := h.State(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != evidenceLimit {
			t.Errorf("again: got %v after %s, want the same at once", err, time.Since(start))
		}
	})
}

// TestWatch: a beat that does not come, another word, and the end of the stream are each a loss, within Patience.
func TestWatch(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		after      func(net.Conn)
		within     time.Duration
	}{
		{"silence", "i/o timeout", func(net.Conn) {}, Patience},
		{"another word", "the helper says 0", func(c net.Conn) { c.Write([]byte{0}) }, 0},
		{"another word behind a beat", "the helper says 2", func(c net.Conn) { c.Write([]byte{1, 2}) }, 0},
		{"the end", "EOF", func(c net.Conn) { c.Close() }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			defer theirs.Close()
			const beats = 50
			go func() {
				for range beats {
					time.Sleep(BeatEvery)
					Beat(theirs)
				}
				tt.after(theirs)
			}()
			start := time.Now()
			err := Watch(ours)
			if took := time.Since(start); err == nil || !strings.Contains(err.Error(), tt.want) || took != beats*BeatEvery+tt.within {
				t.Errorf("%s: got %v after %s, want an error with %q after %s", tt.name, err, took, tt.want, beats*BeatEvery+tt.within)
			}
		})
	}
}

// stalled is a connection that was not read in time once, because its reader stood still for an hour.
type stalled struct {
	net.Conn
	stood bool
}

func (s *stalled) Read(b []byte) (int, error) {
	if !s.stood {
		s.stood = true
		time.Sleep(time.Hour)
		return 0, os.ErrDeadlineExceeded
	}
	return s.Conn.Read(b)
}

// TestWatchStoodStill: a guest that stood still has lost nothing by it, and sees as soon as ever what is lost after.
func TestWatchStoodStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer theirs.Close()
		go Beat(theirs)
		start := time.Now()
		err := Watch(&stalled{Conn: ours})
		if took := time.Since(start) - time.Hour; !errors.Is(err, os.ErrDeadlineExceeded) || took != Patience {
			t.Errorf("got %v %s after it went on, want a timeout %s after the last beat", err, took, Patience)
		}
	})
}

// TestSpecification: GPU.md says what the code does.
func TestSpecification(t *testing.T) {
	text, err := os.ReadFile("GPU.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, fact := range []string{"A request is 33 bytes", "| 159 | 10 |", "160 KiB | 30 |", "Every 200 ms", "or 700 ms without"} {
		if !strings.Contains(string(text), fact) {
			t.Errorf("GPU.md lacks %q", fact)
		}
	}
	if maxState != 159 || requestBytes != 33 || evidence.MaxDeviceBytes != 160<<10 || stateLimit != 10*time.Second || evidenceLimit != 30*time.Second {
		t.Error("the numbers are others than in GPU.md")
	}
}

func FuzzState(f *testing.F) {
	for _, s := range []State{{}, example().state, {Ready: true, Development: true}} {
		f.Add(encodeState(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err == nil && !bytes.Equal(encodeState(s), b) {
			t.Errorf("decoded and encoded: got %x, want %x", encodeState(s), b)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0, 3, 0, 0, 0, 1, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := readAnswer(bytes.NewReader(b), maxState)
		if err == nil && (len(body) > maxState || !bytes.Equal(b[5:5+len(body)], body)) {
			t.Errorf("read %x out of %x", body, b)
		}
	})
}

// FuzzServe throws requests at a helper: it answers each whole one, or ends.
func FuzzServe(f *testing.F) {
	f.Add(append([]byte{2}, make([]byte, 32)...))
	f.Add(append([]byte{1}, make([]byte, 65)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		_ = Serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), &out}, example())
		for out.Len() > 0 {
			if _, err := readAnswer(&out, evidence.MaxDeviceBytes); err != nil {
				t.Fatalf("an answer that is none: %v", err)
			}
		}
	})
}
