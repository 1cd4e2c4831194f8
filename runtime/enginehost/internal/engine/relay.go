package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// relay has the socket of an engine that takes none: it carries what comes there to where the engine listens, in the network of its container, and back.
// What it carries is text of clients. It keeps none, and overwrites what it had.
type relay struct {
	socket  *net.UnixListener
	network *network
	address string

	mu     sync.Mutex
	open   map[net.Conn]bool // nil once it is closed
	passes sync.WaitGroup
}

// relayDial bounds how long an engine takes to take a connection, which crosses no wire.
const relayDial = time.Second

// startRelay makes the socket, for whoever gets to its directory, and carries for the engine that a process is.
func startRelay(socket string, pid uint32, address string) (*relay, error) {
	n, err := enter(pid)
	if err != nil {
		return nil, fmt.Errorf("entering the engine's network: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err == nil {
		err = os.Chmod(socket, 0o666) // as an engine would make it: the directory decides who gets there
	}
	if err != nil {
		n.leave()
		return nil, fmt.Errorf("making the engine's socket: %w", err)
	}
	r := &relay{socket: l, network: n, address: address, open: map[net.Conn]bool{}}
	r.passes.Go(r.accept)
	return r, nil
}

func (r *relay) accept() {
	for {
		client, err := r.socket.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is free: who is here will leave
			time.Sleep(10 * time.Millisecond)
			continue
		}
		r.passes.Go(func() { r.pass(client) })
	}
}

// pass carries for one connection. The first end of one side ends the other: that is how an engine learns that nobody waits for its answer any more.
func (r *relay) pass(client net.Conn) {
	defer client.Close()
	engine, err := r.network.dial(r.address)
	if err != nil {
		return // the engine loads, or is gone: who asks sees the end
	}
	defer engine.Close()
	if !r.keep(client, engine) {
		return
	}
	defer r.drop(client, engine)
	var back sync.WaitGroup
	back.Go(func() {
		carry(client, engine)
		client.Close()
		engine.Close()
	})
	carry(engine, client)
	client.Close()
	engine.Close()
	back.Wait()
}

func (r *relay) keep(all ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range all {
		if r.open == nil {
			return false
		}
		r.open[c] = true
	}
	return true
}

func (r *relay) drop(all ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range all {
		delete(r.open, c)
	}
}

// close ends every connection, and returns when nothing is carried any more.
func (r *relay) close() {
	r.socket.Close()
	r.mu.Lock()
	for c := range r.open {
		c.Close()
	}
	r.open = nil
	r.mu.Unlock()
	r.passes.Wait()
	r.network.leave()
}

// carry copies until an end, by memory that it overwrites: io.Copy would have the kernel move the bytes, through pages that it hands on as they are.
func carry(to, from net.Conn) {
	b := make([]byte, 16<<10)
	defer clear(b)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// network is another process's.
type network struct{ dials chan dial }

type dial struct {
	address string
	got     chan<- dialed
}

type dialed struct {
	conn net.Conn
	err  error
}

// enter opens the network of a process. A thread is in one network, so that one goes there and never comes back.
func enter(pid uint32) (*network, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	n := &network{make(chan dial)}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with this goroutine
		err := os.NewSyscallError("setns", unix.Setns(int(file.Fd()), unix.CLONE_NEWNET))
		file.Close()
		entered <- err
		if err != nil {
			return
		}
		dialer := net.Dialer{Timeout: relayDial}
		for d := range n.dials {
			conn, err := dialer.Dial("tcp4", d.address) // one address that is one: no other goroutine opens its socket
			d.got <- dialed{conn, err}
		}
	}()
	if err := <-entered; err != nil {
		return nil, err
	}
	return n, nil
}

func (n *network) dial(address string) (net.Conn, error) {
	got := make(chan dialed)
	n.dials <- dial{address, got}
	d := <-got
	return d.conn, d.err
}

// leave ends the thread. Nobody dials any more.
func (n *network) leave() { close(n.dials) }
