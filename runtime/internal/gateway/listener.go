package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// listener takes connections, with a bounded count of them at a time, and half as many of one address. When all places are taken, the
// connection that has waited longest between two requests, or before its first, gives way.
type listener struct {
	net.Listener
	tls        *tls.Config
	max        int
	perAddress int
	collector  collector

	mu      sync.Mutex
	open    map[*connection]struct{}
	of      map[netip.Prefix]int
	changed chan struct{} // buffered: a place may have become free
	closed  chan struct{}
	once    sync.Once
}

func newListener(l net.Listener, c *tls.Config, most int) *listener {
	return &listener{Listener: l, tls: c, max: most, perAddress: most / 2, open: map[*connection]struct{}{}, of: map[netip.Prefix]int{},
		changed: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &connection{Conn: tls.Server(raw, l.tls), listener: l, address: addressOf(raw), ctx: context.Background()}
		c.idle.Store(time.Now().UnixNano())
		for {
			placed, crowded := l.place(c)
			if placed {
				return c, nil
			}
			if crowded {
				raw.Close()
				break
			}
			select {
			case <-l.changed:
			case <-time.After(50 * time.Millisecond): // one that was busy may be idle now
			case <-l.closed:
				raw.Close()
				return nil, net.ErrClosed
			}
		}
	}
}

// place gives a connection its place, and where there is none takes it from one that waits. Crowded is an address all of whose
// connections are busy.
func (l *listener) place(c *connection) (placed, crowded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	crowded = l.of[c.address] >= l.perAddress
	if crowded || len(l.open) >= l.max {
		of := &c.address
		if !crowded {
			of = nil
		}
		out := l.idlest(of)
		if out == nil {
			return false, crowded
		}
		l.forget(out)
		_ = out.NetConn().Close() // who reads from it finds out
	}
	l.open[c] = struct{}{}
	l.of[c.address]++
	return true, false
}

// forget takes a connection from the lists. l is locked.
func (l *listener) forget(c *connection) {
	if _, ok := l.open[c]; !ok {
		return
	}
	delete(l.open, c)
	if l.of[c.address]--; l.of[c.address] == 0 {
		delete(l.of, c.address)
	}
}

// idlest returns the connection that has waited longest, of an address or of all, nil when none waits. l is locked.
func (l *listener) idlest(of *netip.Prefix) (idlest *connection) {
	since := int64(0)
	for c := range l.open {
		if at := c.idle.Load(); at != 0 && (of == nil || c.address == *of) && (idlest == nil || at < since) {
			idlest, since = c, at
		}
	}
	return idlest
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) left(c *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(c)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// addressOf names whom a connection comes from: an IPv4 address, or the /64 of an IPv6 address, of which one host has all.
func addressOf(c interface{ RemoteAddr() net.Addr }) netip.Prefix {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Prefix{}
	}
	address := a.Addr().Unmap().WithZone("")
	if address.Is4() {
		return netip.PrefixFrom(address, 32)
	}
	p, _ := address.Prefix(64)
	return p
}

// connection is one client's. net/http reads plain text from it.
type connection struct {
	*tls.Conn
	listener *listener
	address  netip.Prefix
	ctx      context.Context // for the handshake
	idle     atomic.Int64    // since when nothing of a request is here, in Unix nanoseconds; 0 while one is
	answered atomic.Int64    // requests whose handler has returned
	texts    atomic.Bool     // what is written now is a client's alone

	// The rest belongs to the one who reads: net/http reads with one goroutine at a time.
	shaken  bool
	framing framing
	failed  error
}

type connectionKey struct{}

// connContext is for http.Server.ConnContext.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*connection); ok {
		ctx = context.WithValue(ctx, connectionKey{}, c)
		c.ctx = ctx
	}
	return ctx
}

// addressOfRequest names whom a request comes from.
func addressOfRequest(r *http.Request) netip.Prefix {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		return c.address
	}
	return netip.Prefix{}
}

func (c *connection) Read(p []byte) (int, error) {
	if !c.shaken {
		// http.Server does this itself for a *tls.Conn alone. Its deadline for a header holds here too.
		if err := c.HandshakeContext(c.ctx); err != nil {
			return 0, err
		}
		c.shaken = true
	}
	if c.failed != nil {
		return 0, c.refuse()
	}
	// net/http looks for a client that leaves by reading one byte beside the handler. That may begin so late that the handler has returned, and
	// its answer not been written yet.
	beside := len(p) == 1
	if !beside && int64(c.framing.begun) == c.answered.Load() && c.framing.header > 0 {
		// The next request is waited for: nothing that was read is wanted any more, and p is the buffer that it was in.
		wipeInput(c.Conn)
		clear(p)
		c.texts.Store(false)
		c.listener.collector.passed()
	}
	n, err := c.Conn.Read(p)
	good, bad := c.framing.take(p[:n])
	if int64(c.framing.begun) > c.answered.Load() {
		c.idle.Store(0)
	}
	if bad != nil {
		clear(p[good:n])
		if c.failed = bad; good == 0 {
			return 0, c.refuse()
		}
		return good, nil
	}
	return n, err
}

// Write overwrites what it has written of an answer with text, once it is encrypted: it comes from buffers of net/http that are not
// read again, and of this package.
func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.texts.Load() {
		clear(p[:n])
	}
	return n, err
}

// refuse answers a request that is not passed on, unless an earlier one is being answered, and ends the connection.
func (c *connection) refuse() error {
	if errors.Is(c.failed, errFraming) && c.answered.Load() == int64(c.framing.header) {
		c.failed = io.EOF
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Conn.Write(errFramed.raw())
		_ = c.Conn.CloseWrite()
		_, _ = io.CopyN(io.Discard, c.Conn, maxHeaderBytes) // closing on unread bytes would take the answer back
	}
	return io.EOF
}

// begin says that a request's handler has begun.
func (c *connection) begin() { c.idle.Store(0) }

// done says that a request's handler has returned.
func (c *connection) done() {
	c.answered.Add(1)
	c.idle.Store(time.Now().UnixNano())
}

func (c *connection) Close() error {
	defer c.listener.collector.passed()
	defer c.listener.left(c)
	return c.Conn.Close()
}
