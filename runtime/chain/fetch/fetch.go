// Package fetch asks liteservers of TON's network, over ADNL, and hands on what they said. It judges nothing and holds no key: package
// chain does the one, and another process has the other.
//
// The common path: Open a Client on the liteservers that the host named, at least two, and Ask or AskAll with a function that judges. A
// liteserver that is silent, slow, or whose answer the judge refuses is passed over for the next.
//
// What this package does not promise: that a liteserver says all it knows.
package fetch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/tl"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
)

// Server is a liteserver: where it listens and the Ed25519 key that its answers come under.
type Server struct {
	Address netip.AddrPort
	Key     [32]byte
}

// LeastServers is how many liteservers a Client must have. One alone could keep newer blocks back for ever.
const LeastServers = 2

// MaxServers is how many it may have.
const MaxServers = 16

// Client asks liteservers. Its methods may be called by many at a time.
type Client struct {
	servers []Server
	wait    time.Duration // for one answer of one server
}

// Open returns a client of the servers, each named once. It connects to none yet. wait is how long one of them may take.
func Open(servers []Server, wait time.Duration) (*Client, error) {
	if len(servers) < LeastServers || len(servers) > MaxServers {
		return nil, fmt.Errorf("opening liteservers: %d are named, want %d to %d", len(servers), LeastServers, MaxServers)
	}
	if wait <= 0 {
		return nil, fmt.Errorf("opening liteservers: an answer may take %v, want more", wait)
	}
	seen := map[[32]byte]bool{}
	for i, s := range servers {
		if !s.Address.IsValid() || s.Address.Port() == 0 {
			return nil, fmt.Errorf("opening liteservers: number %d has address %q", i, s.Address)
		}
		if seen[s.Key] {
			return nil, fmt.Errorf("opening liteservers: number %d has the key of one before", i)
		}
		seen[s.Key] = true
	}
	return &Client{servers: servers, wait: wait}, nil
}

// Query is a question.
type Query interface{ query() tl.Serializable }

// BlockProof asks for the way from a key block that is known to the newest.
type BlockProof struct{ From chain.BlockID }

// AccountState asks for an account as of a block.
type AccountState struct {
	Of      chain.BlockID
	Account ton.Address
}

// Transactions asks for an account's transactions, sixteen at most, from one on back.
type Transactions struct {
	Account ton.Address
	From    chain.Mark
}

// Message hands a message from outside the chain on to it, as a bag of cells. Sent judges the answer.
type Message struct{ Bag []byte }

// Sent refuses every answer to a Message but that the liteserver has taken it. It says nothing of what becomes of the message.
func Sent(answer []byte) error {
	if want := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, idSendStatus), 1); !bytes.Equal(answer, want) {
		return fmt.Errorf("message is answered with %.16x, want %x", answer, want)
	}
	return nil
}

func appendAccount(b []byte, a ton.Address) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(int32(a.Workchain)))
	return append(b, a.Account[:]...)
}

func (q BlockProof) query() tl.Serializable {
	return GetBlockProof{Raw{q.From.Append(make([]byte, 4))}} // mode 0: no target
}

func (q AccountState) query() tl.Serializable {
	return GetAccountState{Raw{appendAccount(q.Of.Append(nil), q.Account)}}
}

func (q Transactions) query() tl.Serializable {
	b := appendAccount([]byte{16, 0, 0, 0}, q.Account)
	b = binary.LittleEndian.AppendUint64(b, q.From.LT)
	return GetTransactions{Raw{append(b, q.From.Hash[:]...)}}
}

// Servers returns how many servers there are.
func (c *Client) Servers() int { return len(c.servers) }

// AskOne asks the server at a place, from 0 on, and returns what it answered as it came.
func (c *Client) AskOne(ctx context.Context, at int, q Query) (untrusted []byte, err error) {
	return c.one(ctx, c.servers[at], q)
}

func (q Message) query() tl.Serializable { return SendMessage(q) }

// Ask asks one server after the other until judge accepts an answer. The error names what each said.
func (c *Client) Ask(ctx context.Context, q Query, judge func(answer []byte) error) error {
	var failed []error
	for _, s := range c.servers {
		answer, err := c.one(ctx, s, q)
		if err == nil {
			err = judge(answer)
		}
		if err == nil {
			return nil
		}
		if failed = append(failed, fmt.Errorf("liteserver %s: %w", s.Address, err)); ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// AskAll asks all servers at once and has judge see each answer, one at a time. It returns how many answers judge accepted, and an error if
// that is none.
func (c *Client) AskAll(ctx context.Context, q Query, judge func(answer []byte) error) (int, error) {
	type said struct {
		from   Server
		answer []byte
		err    error
	}
	all := make(chan said, len(c.servers))
	for _, s := range c.servers {
		go func() {
			answer, err := c.one(ctx, s, q)
			all <- said{s, answer, err}
		}()
	}
	good := 0
	var failed []error
	for range c.servers {
		s := <-all
		if s.err == nil {
			s.err = judge(s.answer)
		}
		if s.err != nil {
			failed = append(failed, fmt.Errorf("liteserver %s: %w", s.from.Address, s.err))
			continue
		}
		good++
	}
	if good == 0 {
		return 0, errors.Join(failed...)
	}
	return good, nil
}

// one asks one server over a connection of its own: what one says or leaves unsaid holds no other up.
func (c *Client) one(ctx context.Context, s Server, q Query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	pool := liteclient.NewConnectionPool()
	defer pool.Stop()
	pool.SetOnDisconnect(func(string, string) {})
	if err := pool.AddConnection(ctx, s.Address.String(), base64.StdEncoding.EncodeToString(s.Key[:])); err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	var got tl.Serializable
	if err := pool.QueryLiteserver(ctx, q.query(), &got); err != nil {
		return nil, fmt.Errorf("asking: %w", err)
	}
	switch a := got.(type) {
	case Refusal:
		return nil, fmt.Errorf("it answers: %q", a.text())
	case boxed:
		return a.box(), nil
	}
	return nil, fmt.Errorf("it answers with a %T", got)
}
