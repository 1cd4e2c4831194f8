package guest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// loopback is where this machine alone reaches a guest.
const loopback = "127.0.0.1"

// listen is the address of this machine on which the guest's port is.
func (s Spec) listen() string { return cmp.Or(s.Listen, loopback) }

// Address is where this machine reaches the guest.
func (s Spec) Address() string {
	host := s.listen()
	if net.ParseIP(host).IsUnspecified() {
		host = loopback // which is one of all addresses
	}
	return net.JoinHostPort(host, strconv.Itoa(s.Port))
}

// Open reports whether other machines can reach the guest, as far as this one lets them.
func (s Spec) Open() bool { return !net.ParseIP(s.listen()).IsLoopback() }

// FreePort returns a port of the loopback interface that is free now, and that no system gives to connections of its own accord: a guest
// that stops for a moment finds it free again. Linux gives out ports from 32768 on, others from 49152 on.
func FreePort() (port int, err error) {
	const first, end = 20000, 32000
	for range 100 {
		port = first + rand.IntN(end-first)
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort(loopback, strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("looking for a free port: %w", err)
}

// portIsFree says who has the port, where somebody has, and what else keeps a guest from it.
func (s Spec) portIsFree() error {
	address := net.JoinHostPort(s.listen(), strconv.Itoa(s.Port))
	l, err := net.Listen("tcp4", address)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listening on %s: %s is no address of this machine (ip address shows those that are)", address, s.listen())
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listening on %s: ports below 1024 are root's: choose another with --port", address)
	case !errors.Is(err, syscall.EADDRINUSE):
		return err
	}
	who := "another program"
	if pid := listener("/proc", s.Port); pid != 0 {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		who = fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(name)), pid)
	}
	return fmt.Errorf("port %d is taken by %s: choose another with --port", s.Port, who)
}

// listener returns the process that listens on a TCP port, or 0 where nobody does whom this user may see. One of IPv6 can have IPv4's too.
func listener(proc string, port int) int {
	sockets, _ := os.ReadFile(filepath.Join(proc, "net/tcp"))
	sockets6, _ := os.ReadFile(filepath.Join(proc, "net/tcp6"))
	inode := ""
	for line := range strings.Lines(string(sockets) + string(sockets6)) {
		// Number, local address, remote one, state, …, inode: Linux, Documentation/networking/proc_net_tcp.rst. 0A listens.
		field := strings.Fields(line)
		if len(field) >= 10 && field[3] == "0A" && strings.HasSuffix(field[1], fmt.Sprintf(":%04X", port)) {
			inode = field[9]
		}
	}
	if inode == "" {
		return 0
	}
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*")) // the pattern is a good one
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && target == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(file))))
			return pid
		}
	}
	return 0
}
