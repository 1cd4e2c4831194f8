// Package port writes what the host may know of a boot: the lines of chrysalis/init/status, on a virtio serial port.
//
// The port is one-way. Nothing is read from it, and a host that does not read it can't hold the guest up: a line that
// can't be written at once is dropped. No text from outside the program ever reaches a line.
package port

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/init/status"
	"chrysalis/runtime/numbers"
)

// Port is the status port. The nil Port drops every line, for a machine that has none.
type Port struct{ fd int }

// Paths is where the port is looked for; tests point it at a folder of their own.
type Paths struct{ Sys, Dev string }

// Open opens the port named status.PortName. A machine without one is no error: the guest then runs unseen.
func Open(p Paths) (*Port, error) {
	dev, err := p.find(status.PortName)
	if dev == "" || err != nil {
		return nil, err
	}
	fd, err := unix.Open(dev, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening status port %s: %v", dev, err)
	}
	return &Port{fd}, nil
}

// Proofs opens the port on which signed proofs leave. A write to it waits for the host. A machine without one drops them.
func Proofs(p Paths) (io.Writer, error) {
	dev, err := p.find(status.ProofsPortName)
	if err != nil {
		return nil, err
	}
	if dev == "" {
		return io.Discard, nil
	}
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening proofs' port %s: %v", dev, err)
	}
	return f, nil
}

// Numbers opens the port on which the guest's numbers leave. A write that the host does not take at once is dropped. A machine without
// one drops them all.
func Numbers(p Paths) (io.Writer, error) {
	dev, err := p.find(numbers.PortName)
	if dev == "" || err != nil {
		return io.Discard, err
	}
	fd, err := unix.Open(dev, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening numbers' port %s: %v", dev, err)
	}
	return dropping(fd), nil
}

// dropping is a descriptor whose writes never wait.
type dropping int

func (d dropping) Write(b []byte) (int, error) {
	_, _ = unix.Write(int(d), b)
	return len(b), nil
}

// find returns the device of the port of that name, or "".
func (p Paths) find(port string) (dev string, err error) {
	names, err := filepath.Glob(filepath.Join(p.Sys, "class/virtio-ports/*/name"))
	if err != nil {
		return "", err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(name)) != port {
			continue
		}
		return filepath.Join(p.Dev, filepath.Base(filepath.Dir(file))), nil
	}
	return "", nil
}

// Close closes the port.
func (p *Port) Close() {
	if p != nil {
		unix.Close(p.fd)
	}
}

// Begun says that a stage of the boot has begun.
func (p *Port) Begun(s status.Stage) { p.line(status.Line{Stage: s, Uptime: uptime()}) }

// Done says that a step is done.
func (p *Port) Done(s status.Step) { p.line(status.Line{Step: s, Uptime: uptime()}) }

// Serving says that the guest answers requests.
func (p *Port) Serving() { p.line(status.Line{Serving: true, Uptime: uptime()}) }

// Event says that something happened.
func (p *Port) Event(e status.Event) { p.line(status.Line{Event: e}) }

// End says why the guest powers off.
func (p *Port) End(c status.Code) { p.line(status.Line{Code: c}) }

func (p *Port) line(l status.Line) {
	if p == nil {
		return
	}
	// The write is dropped on purpose when the host does not take it.
	_, _ = unix.Write(p.fd, []byte(l.String()+"\n"))
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
