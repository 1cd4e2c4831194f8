package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/measure/ton"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/receipt"
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
	place, held := false, hold{}
	defer func() {
		if place {
			k.ask(call{op: opRelease, held: held})
		}
	}()
	for {
		var in [requestSize]byte
		if _, err := io.ReadFull(c, in[:]); err != nil {
			return
		}
		op, record, err := decodeRequest(in)
		if err != nil || op == opReserve && place {
			return
		}
		var r reply
		if op == opKey {
			r = k.askKey(record)
		} else {
			r = k.ask(call{op: op, record: record, place: place, held: held})
			place, held = r.place, r.held
		}
		out := encodeResponse(r)
		if _, err := c.Write(out[:]); err != nil {
			return
		}
	}
}

// askKey has a key made or revoked.
func (k *Keeper) askKey(r receipt.Answer) reply {
	c := clientKey{named: named{r.Client, [16]byte(r.ID)}, hash: r.Response, cap: uint64(r.Usage.Prompt) | uint64(r.Usage.Cached)<<32}
	used, err := k.key(r.Request, c)
	return reply{status: statusOf(err), used: used}
}

// Client asks a keeper over its socket. It keeps connections for later answers.
type Client struct {
	path string
	own  bool // places are for one client's answer each
	mu   sync.Mutex
	idle []net.Conn // each holds a place, so that the next answer need not ask for one
}

// NewClient returns a client of the keeper that listens at path. No connection is made yet. settles says that charges are settled on chain.
func NewClient(path string, settles bool) *Client { return &Client{path: path, own: settles} }

// Payer is who pays for an answer. Without a contract, nobody does.
type Payer struct {
	Contract ton.Address
	// Where charges are settled on chain, the hash of the secret that was shown, and the tokens that the answer may take.
	Secret [32]byte
	Most   receipt.Usage
	// Coefficient is what weighted tokens are to be multiplied by.
	Coefficient uint32
}

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

// Reserve takes a place for an answer to a client, before the work is done that will have to be recorded. ErrFull says that the client's
// contract is new and the journal has no room for another; ErrKey, ErrFunds and ErrChain that the chain does not cover it.
func (c *Client) Reserve(ctx context.Context, by Payer) (*Place, error) {
	if conn := c.waiting(); conn != nil {
		return &Place{c, conn}, nil
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	r, err := exchange(ctx, conn, opReserve, receipt.Answer{Client: by.Contract, Request: by.Secret, Usage: by.Most, Coefficient: by.Coefficient})
	if err == nil && r.status != statusOK {
		err = r.status.err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("taking a place in the journal: %w", err)
	}
	return &Place{c, conn}, nil
}

// Record records the answer and returns its proof once it is durable. When the keeper goes away in between, it asks
// again with the same id until ctx ends: an answer is counted once.
func (p *Place) Record(ctx context.Context, record receipt.Answer) (receipt.Proof, error) {
	conn := p.conn
	p.conn = nil
	for {
		r, err := exchange(ctx, conn, opRecord, record)
		if err == nil {
			if r.status != statusOK || r.proof.Receipt == nil {
				conn.Close()
				return receipt.Proof{}, fmt.Errorf("recording answer: %w", r.status.err())
			}
			if r.place {
				p.client.keep(conn)
			} else {
				conn.Close()
			}
			return r.proof, nil
		}
		conn.Close()
		for {
			select {
			case <-ctx.Done():
				return receipt.Proof{}, fmt.Errorf("recording answer: %w: %v", ErrUnknown, err)
			case <-time.After(20 * time.Millisecond):
			}
			var dialed error
			if conn, dialed = p.client.dial(ctx); dialed == nil {
				break
			}
		}
	}
}

// Vouch has the hash of a recorded answer's body signed, beside that of its request's. ErrRefused says that the keeper remembers no such
// answer, or none that is whole.
func (c *Client) Vouch(ctx context.Context, id receipt.AnswerID, body [32]byte) (receipt.TextSignature, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return receipt.TextSignature{}, err
	}
	defer conn.Close()
	r, err := exchange(ctx, conn, opVouch, receipt.Answer{ID: id, Response: body})
	if err == nil && (r.status != statusOK || r.text == receipt.TextSignature{}) {
		err = r.status.err()
	}
	if err != nil {
		return receipt.TextSignature{}, fmt.Errorf("signing text of answer: %w", err)
	}
	return r.text, nil
}

// SetKey makes a key of a contract's, by its name and the hash of its secret, with a cap of weighted tokens, or revokes it with a cap of 0. shown is
// the hash of the contract's own secret. It returns what the key has used.
func (c *Client) SetKey(ctx context.Context, contract ton.Address, shown, hash [32]byte, name [16]byte, most uint64) (used uint64, err error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	r, err := exchange(ctx, conn, opKey, receipt.Answer{ID: receipt.AnswerID(name), Client: contract, Request: shown, Response: hash,
		Usage: receipt.Usage{Prompt: uint32(most), Cached: uint32(most >> 32)}})
	if err == nil && r.status != statusOK {
		err = r.status.err()
	}
	if err != nil {
		return 0, fmt.Errorf("setting key: %w", err)
	}
	return r.used, nil
}

// Count returns how full the journal is.
func (c *Client) Count(ctx context.Context) (Counts, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return Counts{}, err
	}
	defer conn.Close()
	r, err := exchange(ctx, conn, opCount, receipt.Answer{})
	if err == nil && r.counts == (Counts{}) {
		err = r.status.err()
	}
	if err != nil {
		return Counts{}, fmt.Errorf("counting: %w", err)
	}
	return r.counts, nil
}

// Release gives a place that Record has not used to whoever comes next. It is safe to call in any case.
func (p *Place) Release() {
	if p.conn != nil && p.client.own {
		p.conn.Close()
		p.conn = nil
	}
	if p.conn != nil {
		p.client.keep(p.conn)
		p.conn = nil
	}
}

func (s status) err() error {
	switch s {
	case statusFull:
		return ErrFull
	case statusRefused:
		return ErrRefused
	case statusKey:
		return ErrKey
	case statusFunds:
		return ErrFunds
	case statusChain:
		return ErrChain
	}
	return ErrUnknown
}

// waiting returns a connection that holds a place, or nil.
func (c *Client) waiting() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := len(c.idle); n > 0; n = len(c.idle) {
		conn := c.idle[n-1]
		c.idle = c.idle[:n-1]
		if alive(conn) {
			return conn
		}
		conn.Close() // the keeper has gone
	}
	return nil
}

// alive reports whether the other side of an idle connection still holds it, without waiting.
func alive(conn net.Conn) bool {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		open = err == unix.EAGAIN // nothing is expected, so anything else is an end
		return true
	})
	return err == nil && open
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
	if conn.SetDeadline(time.Time{}) != nil {
		conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

// exchange makes one call. Only ctx's deadline ends it early: a call takes no longer than a write to the disk. After an
// error the connection is of no use.
func exchange(ctx context.Context, conn net.Conn, op operation, record receipt.Answer) (reply, error) {
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
