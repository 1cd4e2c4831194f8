package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"chrysalis/runtime/internal/journal"
)

// Serve answers connections of l until ctx ends, and waits for them. Who may connect is decided by the socket's mode.
func (k *Keeper) Serve(ctx context.Context, l net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting: %v", err)
		}
		conns.Go(func() {
			defer context.AfterFunc(ctx, func() { c.Close() })()
			k.serve(c)
		})
	}
}

// serve answers one connection, one call at a time. A connection holds at most one place and gives it back by its end.
func (k *Keeper) serve(c net.Conn) {
	defer c.Close()
	place := false
	defer func() {
		if place {
			k.ask(call{op: opRelease})
		}
	}()
	for {
		var in [requestSize]byte
		if _, err := io.ReadFull(c, in[:]); err != nil {
			return
		}
		op, record, err := decodeRequest(in)
		if err != nil || op == opReserve && place || op == opRelease && !place {
			return
		}
		r := k.ask(call{op: op, record: record, place: place})
		place = op == opReserve && r.status == statusOK
		out := encodeResponse(r)
		if _, err := c.Write(out[:]); err != nil {
			return
		}
	}
}

// Client asks a keeper over its socket. It keeps connections for later answers.
type Client struct {
	path string
	mu   sync.Mutex
	idle []net.Conn
}

// NewClient returns a client of the keeper that listens at path. No connection is made yet.
func NewClient(path string) *Client { return &Client{path: path} }

// The answers of a keeper that are no proof.
var (
	ErrFull    = journal.ErrFull
	ErrRefused = errRefused
	// ErrUnknown says that the keeper went away or its disk failed: the record may be there or not.
	ErrUnknown = errors.New("it is not known whether the answer was recorded")
)

// Place is room for one answer in the journal.
type Place struct {
	client *Client
	conn   net.Conn
}

// Reserve takes a place, before the work is done that will have to be recorded. ErrFull says that there is none.
func (c *Client) Reserve(ctx context.Context) (*Place, error) {
	for {
		conn, fresh, err := c.connection(ctx)
		if err != nil {
			return nil, err
		}
		r, err := exchange(ctx, conn, opReserve, Record{})
		if err == nil && r.status == statusOK {
			return &Place{c, conn}, nil
		}
		conn.Close()
		if err != nil && !fresh && ctx.Err() == nil {
			continue // the connection had waited for longer than the keeper lived
		}
		if err == nil {
			err = r.status.err()
		}
		return nil, fmt.Errorf("taking a place in the journal: %w", err)
	}
}

// Record records the answer and returns its proof once it is durable. When the keeper goes away in between, it asks
// again with the same id until ctx ends: an answer is counted once.
func (p *Place) Record(ctx context.Context, record Record) (Proof, error) {
	conn := p.conn
	p.conn = nil
	for {
		r, err := exchange(ctx, conn, opRecord, record)
		if err == nil {
			if r.status != statusOK || r.proof.Receipt == nil {
				conn.Close()
				return Proof{}, fmt.Errorf("recording answer: %w", r.status.err())
			}
			p.client.keep(conn)
			return r.proof, nil
		}
		conn.Close()
		for {
			select {
			case <-ctx.Done():
				return Proof{}, fmt.Errorf("recording answer: %w: %v", ErrUnknown, err)
			case <-time.After(20 * time.Millisecond):
			}
			var dialed error
			if conn, dialed = p.client.dial(ctx); dialed == nil {
				break
			}
		}
	}
}

// Release gives a place back that Record has not used. It is safe to call in any case.
func (p *Place) Release() {
	if p.conn == nil {
		return
	}
	conn := p.conn
	p.conn = nil
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if r, err := exchange(ctx, conn, opRelease, Record{}); err != nil || r.status != statusOK {
		conn.Close() // the keeper takes the place back by itself
		return
	}
	p.client.keep(conn)
}

func (s status) err() error {
	switch s {
	case statusFull:
		return ErrFull
	case statusRefused:
		return ErrRefused
	}
	return ErrUnknown
}

func (c *Client) connection(ctx context.Context) (conn net.Conn, fresh bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		conn = c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return conn, false, nil
	}
	c.mu.Unlock()
	conn, err = c.dial(ctx)
	return conn, true, err
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, fmt.Errorf("connecting to the keeper: %w", err)
	}
	return conn, nil
}

func (c *Client) keep(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, conn)
}

// exchange makes one call. Only ctx's deadline ends it early: a call takes no longer than a write to the disk. After an
// error the connection is of no use.
func exchange(ctx context.Context, conn net.Conn, op operation, record Record) (reply, error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return reply{}, err
	}
	out := encodeRequest(op, record)
	if _, err := conn.Write(out[:]); err != nil {
		return reply{}, err
	}
	var in [responseSize]byte
	if _, err := io.ReadFull(conn, in[:]); err != nil {
		return reply{}, err
	}
	return decodeResponse(in)
}
