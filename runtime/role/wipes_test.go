package role

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// TestWipes: two engines are wiped independently of each other, each call gets its answer once, and a stream that ends says so.
func TestWipes(t *testing.T) {
	gateway, host := net.Pipe()
	began := make(chan int, 8)
	var finish [2]chan struct{}
	served := make(chan error, 1)
	finish[0], finish[1] = make(chan struct{}), make(chan struct{})
	go func() {
		served <- ServeWipes(host, 2, func(engine int) <-chan struct{} {
			began <- engine
			return finish[engine]
		})
	}()
	s := NewWipes(gateway, 2)
	ran := make(chan error, 1)
	go func() { ran <- s.Run() }()
	first, err := s.Ask(0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Ask(1)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := <-began, <-began; a != 0 || b != 1 {
		t.Errorf("wiped engines %d and %d, want 0 and 1", a, b)
	}
	if _, err := s.Ask(1); err == nil || !strings.Contains(err.Error(), "engine 1 is being wiped") {
		t.Errorf("asked for twice: got error %v", err)
	}
	close(finish[1])
	<-second
	select {
	case <-first:
		t.Error("engine 0 was answered for engine 1's wipe")
	default:
	}
	close(finish[0])
	<-first
	finish[0] = make(chan struct{}) // nobody else looks now
	again, err := s.Ask(0)
	if err != nil {
		t.Fatal(err)
	}
	<-began
	close(finish[0])
	<-again
	gateway.Close()
	if err := <-served; err != nil {
		t.Errorf("served until the stream's end: got %v, want nil", err)
	}
	if err := <-ran; err == nil {
		t.Error("the gateway's end: got nil, want an error")
	}
}

// TestWipesRefuse: either side ends at what the other could not say.
func TestWipesRefuse(t *testing.T) {
	calls := func(all ...wipe) (b []byte) {
		for _, w := range all {
			b = append(b, w.encode()...)
		}
		return b
	}
	for _, tt := range []struct {
		name, want string
		says       []byte
		begun      int
	}{
		{"an engine that is none", "engine is 2, want one of 2", calls(wipe{2, 1}), 0},
		{"an engine far out", "engine is 4294967295", calls(wipe{1<<32 - 1, 1}), 0},
		{"again before the answer", "engine 1 is being wiped", calls(wipe{0, 1}, wipe{1, 1}, wipe{1, 2}), 2},
		{"a call left out", "call 2 of engine 0, want 1", calls(wipe{0, 2}), 0},
		{"call 0", "call 0 of engine 0, want 1", calls(wipe{0, 0}), 0},
		{"half a call", "EOF", calls(wipe{0, 1})[:7], 0},
	} {
		begun := 0
		never := make(chan struct{})
		err := ServeWipes(struct {
			*bytes.Reader
			answers
		}{bytes.NewReader(tt.says), answers{}}, 2, func(int) <-chan struct{} { begun++; return never })
		if err == nil || !strings.Contains(err.Error(), tt.want) || begun != tt.begun {
			t.Errorf("%s: got error %v after %d wipes, want one with %q after %d", tt.name, err, begun, tt.want, tt.begun)
		}
	}
	for _, tt := range []struct {
		name, want string
		says       []byte
	}{
		{"an engine that is none", "engine is 2, want one of 2", calls(wipe{2, 1})},
		{"what nobody asked", "call 1, which does not wait", calls(wipe{1, 1})},
		{"another call", "call 2, which does not wait", calls(wipe{0, 2})},
		{"twice", "call 1, which does not wait", calls(wipe{0, 1}, wipe{0, 1})},
		{"half an answer", "EOF", calls(wipe{0, 1})[:11]},
		{"nothing", "ended", nil},
	} {
		gateway, host := net.Pipe()
		s := NewWipes(gateway, 2)
		go func() {
			defer host.Close()
			if _, err := readWipe(host); err == nil {
				_, _ = host.Write(tt.says)
			}
		}()
		done, err := s.Ask(0)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
		select {
		case <-done:
			if tt.name != "twice" {
				t.Errorf("%s: it was taken for the answer", tt.name)
			}
		default:
		}
		gateway.Close()
	}
}

func FuzzReadWipe(f *testing.F) {
	f.Add(wipe{0, 1}.encode())
	f.Add(wipe{1<<32 - 1, 1<<64 - 1}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := readWipe(bytes.NewReader(b))
		if err != nil {
			if len(b) >= wipeSize {
				t.Errorf("%d bytes: %v", len(b), err)
			}
			return
		}
		if got := w.encode(); !bytes.Equal(got, b[:wipeSize]) {
			t.Errorf("read and encoded: got %x, want %x", got, b[:wipeSize])
		}
	})
}
