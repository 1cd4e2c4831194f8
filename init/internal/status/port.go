// Package status writes what the host may know of a boot: lines of a closed vocabulary, on a virtio serial port.
//
// The port is one-way. Nothing is read from it, and a host that does not read it can't hold the guest up: a line that
// can't be written at once is dropped. No text from outside the program ever reaches a line.
package status

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PortName is the name that QEMU gives to the port.
const PortName = "org.chrysalis.status"

// Port is the status port. The nil Port drops every line, for a machine that has none.
type Port struct{ fd int }

// Paths is where the port is looked for; tests point it at a folder of their own.
type Paths struct{ Sys, Dev string }

// Open opens the port named PortName. A machine without one is no error: the guest then runs unseen.
func Open(p Paths) (*Port, error) {
	names, err := filepath.Glob(filepath.Join(p.Sys, "class/virtio-ports/*/name"))
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(name)) != PortName {
			continue
		}
		dev := filepath.Join(p.Dev, filepath.Base(filepath.Dir(file)))
		fd, err := unix.Open(dev, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("opening status port %s: %v", dev, err)
		}
		return &Port{fd}, nil
	}
	return nil, nil
}

// Close closes the port.
func (p *Port) Close() {
	if p != nil {
		unix.Close(p.fd)
	}
}

// Step says that a boot step is done, and when: uptime is that of the guest.
func (p *Port) Step(name string, uptime time.Duration) {
	p.line(fmt.Sprintf("step %s %d", name, uptime.Milliseconds()))
}

// Serving says that the guest answers requests.
func (p *Port) Serving(uptime time.Duration) {
	p.line(fmt.Sprintf("serving %d", uptime.Milliseconds()))
}

// Event says that something named happened.
func (p *Port) Event(name string) { p.line("event " + name) }

// End says why the guest powers off.
func (p *Port) End(code string) { p.line("end " + code) }

func (p *Port) line(s string) {
	if p == nil {
		return
	}
	// The write is dropped on purpose when the host does not take it.
	_, _ = unix.Write(p.fd, []byte(s+"\n"))
}

// Uptime returns the time since the kernel started.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
