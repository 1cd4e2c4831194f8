// Package fetchtest is a liteserver in front of a chain of package chaintest, over real ADNL, for tests and demonstrations.
package fetchtest

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/xssnick/tonutils-go/liteclient"
	"github.com/xssnick/tonutils-go/tl"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/fetch"
)

// Liteserver answers for a chain.
type Liteserver struct {
	Server fetch.Server
	server *liteclient.Server
	// Change, where it is set before the first question, makes another answer out of a good one. Nil is silence.
	Change func(answer []byte) []byte
	// Wait is how long each answer takes.
	Wait time.Duration
}

// Listen starts a liteserver on this machine. seed makes its key.
func Listen(c *chaintest.Chain, seed byte) (*Liteserver, error) {
	raw := make([]byte, ed25519.SeedSize)
	raw[0] = seed
	key := ed25519.NewKeyFromSeed(raw)
	// The library takes an address and keeps the listener to itself, so a free port is found first.
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := probe.Addr().String()
	if err := probe.Close(); err != nil {
		return nil, err
	}
	s := &Liteserver{Server: fetch.Server{Address: netip.MustParseAddrPort(address), Key: [32]byte(key.Public().(ed25519.PublicKey))}}
	s.server = liteclient.NewServer([]ed25519.PrivateKey{key})
	s.server.SetQueryHandler(func(_ context.Context, to *liteclient.ServerClient, id []byte, q tl.Serializable) {
		go s.answer(c, to, id, q)
	})
	failed := make(chan error, 1)
	go func() { failed <- s.server.Listen(address) }()
	for {
		select {
		case err := <-failed:
			return nil, fmt.Errorf("listening at %s: %w", address, err)
		case <-time.After(10 * time.Millisecond):
		}
		if conn, err := net.Dial("tcp", address); err == nil {
			return s, conn.Close()
		}
	}
}

// Close stops the liteserver.
func (s *Liteserver) Close() error { return s.server.Close() }

func (s *Liteserver) answer(c *chaintest.Chain, to *liteclient.ServerClient, id []byte, q tl.Serializable) {
	time.Sleep(s.Wait)
	answer, err := reply(c, q)
	if err != nil {
		message := append([]byte{0x8b, 2, 0, 0, byte(len(err.Error()))}, err.Error()...)
		for len(message)%4 != 0 {
			message = append(message, 0)
		}
		to.Answer(id, fetch.Refusal{Raw: fetch.Raw{Body: message}})
		return
	}
	if s.Change != nil {
		if answer = s.Change(answer); answer == nil {
			return
		}
	}
	body := fetch.Raw{Body: answer[4:]}
	switch q.(type) {
	case fetch.GetBlockProof:
		to.Answer(id, fetch.PartialBlockProof{Raw: body})
	case fetch.GetAccountState:
		to.Answer(id, fetch.AccountStateAnswer{Raw: body})
	case fetch.GetTransactions:
		to.Answer(id, fetch.TransactionList{Raw: body})
	case fetch.SendMessage:
		to.Answer(id, fetch.SendStatus{Raw: body})
	}
}

func reply(c *chaintest.Chain, q tl.Serializable) ([]byte, error) {
	le := binary.LittleEndian
	block := func(b []byte) chain.BlockID {
		return chain.BlockID{Workchain: int32(le.Uint32(b)), Shard: le.Uint64(b[4:]), Seqno: le.Uint32(b[12:]), RootHash: [32]byte(b[16:]),
			FileHash: [32]byte(b[48:])}
	}
	account := func(b []byte) ton.Address {
		return ton.Address{Workchain: int8(le.Uint32(b)), Account: [32]byte(b[4:])}
	}
	switch q := q.(type) {
	case fetch.GetBlockProof:
		return c.BlockProof(block(q.Body[4:]), chain.BlockID{})
	case fetch.GetAccountState:
		return c.AccountState(block(q.Body), account(q.Body[80:]))
	case fetch.GetTransactions:
		return c.Transactions(account(q.Body[4:]), chain.Mark{LT: le.Uint64(q.Body[40:]), Hash: [32]byte(q.Body[48:])}, int(le.Uint32(q.Body)))
	case fetch.SendMessage:
		if _, err := c.Post(q.Bag); err != nil {
			return nil, err
		}
		return []byte{0, 0, 0, 0, 1, 0, 0, 0}, nil // who sends it writes the constructor's number
	}
	return nil, fmt.Errorf("no answer to a %T", q)
}
