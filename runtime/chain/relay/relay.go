// Package relay is how who has the keys asks who has the network: questions about the chain go one way over a stream, and what liteservers
// answered comes back as it came. RELAY.md beside this file is the specification.
//
// The common path: Serve on the side of the network, with a function that asks one liteserver; on the side of the keys NewClient, and Ask
// for one liteserver after the other, until package chain proves an answer.
//
// What this package does not promise: that an answer is true, or that there is one. Questions are bounded to a few at a time, answers to
// what each kind may have.
package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
)

// Kind says what is asked.
type Kind uint8

// The kinds.
const (
	BlockProof   Kind = 1 // the way from Block, a key block, to the newest
	AccountState Kind = 2 // Account as of Block
	Transactions Kind = 3 // of Account, sixteen at most, from From on back
	Params       Kind = 4 // the root's params as the host handed them over; of no liteserver
	Ending       Kind = 5 // whether the host asks for the end of the guest's contracts: a byte if it does; of no liteserver
)

// most is how many bytes an answer of each kind may have.
var most = map[Kind]int{BlockProof: 2 << 20, AccountState: 1 << 20, Transactions: 8 << 20, Params: 64 << 10, Ending: 1}

// Question asks one liteserver.
type Question struct {
	Kind    Kind
	Server  uint8 // which one, from 0 on
	Block   chain.BlockID
	Account ton.Address
	From    chain.Mark
}

// The errors of an answer that is none.
var (
	ErrNone     = errors.New("the liteserver gave no answer")
	ErrNoServer = errors.New("there is no such liteserver")
	ErrEnded    = errors.New("who asks liteservers is gone, or says what it has no business to")
)

// Sizes in bytes. The layout is RELAY.md's.
const (
	questionBytes = 4 + 1 + 1 + bodyBytes
	bodyBytes     = 80 + 33 // of the longest, a block and an account
	headBytes     = 4 + 1 + 4
	maxOpen       = 16 // questions at a time
)

type status uint8

const (
	statusAnswer   status = 0
	statusNone     status = 1
	statusNoServer status = 2
)

func appendAddress(b []byte, a ton.Address) []byte {
	return append(append(b, byte(a.Workchain)), a.Account[:]...)
}

func (q Question) encode(number uint32) [questionBytes]byte {
	var out [questionBytes]byte
	b := append(binary.LittleEndian.AppendUint32(out[:0], number), byte(q.Kind), q.Server)
	switch q.Kind {
	case BlockProof:
		b = q.Block.Append(b)
	case AccountState:
		b = appendAddress(q.Block.Append(b), q.Account)
	case Transactions:
		b = appendAddress(b, q.Account)
		b = append(binary.LittleEndian.AppendUint64(b, q.From.LT), q.From.Hash[:]...)
	}
	_ = b
	return out
}

// decode refuses kinds that there are not, and bytes where a kind has none: there is one encoding of each question.
func decode(in [questionBytes]byte) (number uint32, q Question, err error) {
	number = binary.LittleEndian.Uint32(in[:])
	q.Kind, q.Server = Kind(in[4]), in[5]
	b := in[6:]
	block := func() {
		q.Block.Workchain, q.Block.Shard = int32(binary.LittleEndian.Uint32(b)), binary.LittleEndian.Uint64(b[4:])
		q.Block.Seqno, q.Block.RootHash, q.Block.FileHash = binary.LittleEndian.Uint32(b[12:]), [32]byte(b[16:]), [32]byte(b[48:])
		b = b[80:]
	}
	account := func() {
		q.Account = ton.Address{Workchain: int8(b[0]), Account: [32]byte(b[1:])}
		b = b[33:]
	}
	switch q.Kind {
	case BlockProof:
		block()
	case AccountState:
		block()
		account()
	case Transactions:
		account()
		q.From = chain.Mark{LT: binary.LittleEndian.Uint64(b), Hash: [32]byte(b[8:])}
	case Params, Ending:
	default:
		return 0, Question{}, fmt.Errorf("question is of kind %d, want 1 to 5", q.Kind)
	}
	if q.encode(number) != in {
		return 0, Question{}, fmt.Errorf("question of kind %d has more than its kind", q.Kind)
	}
	return number, q, nil
}

// Serve answers questions of a stream until it ends. ask is called by up to sixteen at a time; its errors are ErrNoServer, or no answer.
func Serve(ctx context.Context, stream io.ReadWriter, ask func(context.Context, Question) ([]byte, error)) error {
	ctx, stop := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer stop()
	var writing sync.Mutex
	places := make(chan struct{}, maxOpen)
	for {
		var in [questionBytes]byte
		if _, err := io.ReadFull(stream, in[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading question: %w", err)
		}
		number, q, err := decode(in)
		if err != nil {
			return err
		}
		places <- struct{}{}
		open.Go(func() {
			defer func() { <-places }()
			answer, err := ask(ctx, q)
			what := statusAnswer
			switch {
			case errors.Is(err, ErrNoServer):
				what, answer = statusNoServer, nil
			case err != nil || len(answer) > most[q.Kind]:
				what, answer = statusNone, nil
			}
			out := append(binary.LittleEndian.AppendUint32(make([]byte, 0, headBytes+len(answer)), number), byte(what))
			out = append(binary.LittleEndian.AppendUint32(out, uint32(len(answer))), answer...)
			writing.Lock()
			defer writing.Unlock()
			_, _ = stream.Write(out) // a reader that is gone ends the loop above, too
		})
	}
}

// Client asks over a stream. Its methods may be called by many at a time.
type Client struct {
	stream io.ReadWriter
	places chan struct{}

	mu    sync.Mutex
	last  uint32
	open  map[uint32]pending
	ended bool
}

type pending struct {
	kind   Kind
	answer chan said
}

type said struct {
	answer []byte
	err    error
}

// NewClient returns a client on a stream, which it reads until that ends.
func NewClient(stream io.ReadWriter) *Client {
	c := &Client{stream: stream, places: make(chan struct{}, maxOpen), open: map[uint32]pending{}}
	go c.read()
	return c
}

// Ask returns what a liteserver answered, which nobody has judged. Its errors are ErrNone, ErrNoServer, ErrEnded and the context's.
func (c *Client) Ask(ctx context.Context, q Question) (untrusted []byte, err error) {
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p := pending{q.Kind, make(chan said, 1)}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		<-c.places
		return nil, ErrEnded
	}
	c.last++
	number := c.last
	c.open[number] = p
	out := q.encode(number)
	_, err = c.stream.Write(out[:])
	c.mu.Unlock()
	if err != nil {
		c.end()
	}
	select {
	case s := <-p.answer:
		return s.answer, s.err
	case <-ctx.Done(): // its place is free once the answer has come
		return nil, ctx.Err()
	}
}

// read hands out answers. One that nobody asked for, or that has more than its kind may have, is the last.
func (c *Client) read() {
	defer c.end()
	for {
		var head [headBytes]byte
		if _, err := io.ReadFull(c.stream, head[:]); err != nil {
			return
		}
		number, what, n := binary.LittleEndian.Uint32(head[:]), status(head[4]), binary.LittleEndian.Uint32(head[5:])
		c.mu.Lock()
		p, asked := c.open[number]
		delete(c.open, number)
		c.mu.Unlock()
		if !asked {
			return
		}
		s := said{}
		switch {
		case what == statusAnswer && uint64(n) <= uint64(most[p.kind]):
			s.answer = make([]byte, n)
			if _, err := io.ReadFull(c.stream, s.answer); err != nil {
				s = said{err: ErrEnded}
			}
		case what == statusNone && n == 0:
			s.err = ErrNone
		case what == statusNoServer && n == 0:
			s.err = ErrNoServer
		default:
			s.err = ErrEnded
		}
		p.answer <- s
		<-c.places
		if s.err == ErrEnded {
			return
		}
	}
}

// end answers all that are waiting, and everybody who asks from now on.
func (c *Client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for number, p := range c.open {
		delete(c.open, number)
		p.answer <- said{err: ErrEnded}
		<-c.places
	}
}
