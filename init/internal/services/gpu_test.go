package services

import (
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/init/gpuhelper"
	"chrysalis/init/status"
)

// oneGPU is the driver that the test binary has when it is started as a helper. It is gone when it shall not work.
type oneGPU struct{ ready bool }

func (g *oneGPU) State() (gpuhelper.State, error) {
	return gpuhelper.State{Confidential: true, Ready: g.ready, Devices: []gpuhelper.Device{{Kind: evidence.KindGPU, Address: "0000:41:00.0"}}}, nil
}
func (g *oneGPU) Evidence([32]byte) ([]evidence.Device, error) { return nil, os.ErrInvalid }
func (g *oneGPU) SetReady(ready bool) error {
	if g.ready = ready; !ready {
		os.Exit(3)
	}
	return nil
}

func helperMain() {
	var conns []net.Conn
	for fd := range 2 {
		f := os.NewFile(uintptr(3+fd), "socket")
		conn, err := net.FileConn(f)
		if err != nil {
			panic(err)
		}
		f.Close()
		conns = append(conns, conn)
	}
	go func() {
		for gpuhelper.Beat(conns[1]) == nil {
			time.Sleep(gpuhelper.BeatEvery)
		}
	}()
	if err := gpuhelper.Serve(conns[0], &oneGPU{}); err != nil {
		panic(err)
	}
}

// TestGPUHelper: the helper is given its two sockets and nothing else, and when it is gone the guest is.
func TestGPUHelper(t *testing.T) {
	s, g := start(t)
	requests, beats, err := s.GPUHelper()
	if err != nil {
		t.Fatal(err)
	}
	defer requests.Close()
	defer beats.Close()
	if p := g.started; !p.NoNetwork || len(p.Files) != 2 || !slices.Equal(p.Argv, []string{gpuHelper}) || !slices.Equal(p.Env, environment) {
		t.Errorf("started %+v, want two files, no network and the services' environment", p)
	}
	h := gpuhelper.New(requests)
	if err := h.SetReady(true); err != nil {
		t.Fatal(err)
	}
	if state, err := h.State(); err != nil || !state.Ready || len(state.Devices) != 1 {
		t.Errorf("got %+v and error %v, want a device at work", state, err)
	}
	lost := make(chan time.Time, 1)
	go func() {
		gpuhelper.Watch(beats)
		lost <- time.Now()
	}()
	if err := h.SetReady(false); err == nil {
		t.Error("a helper that is gone answers")
	}
	at := <-lost
	if code := <-g.ends; code != status.GPULost || time.Since(at) < lastWords/2 {
		t.Errorf("it ended with %s, %s after its beats did, want %s, and whoever watches them first", code, time.Since(at), status.GPULost)
	}
}
