// Package localchain is a chain of one's own for tests and the demonstration: blocks, proofs and signatures of a chain in memory behind two
// liteservers that speak ADNL, a root contract to take codes from, and wallets whose keys everybody knows. Nothing on it has a value.
//
// The common path: New, Config for who reads the chain, and a Wallet that sends what a request of TON Connect asks for.
//
// What this package does not promise: that wallets here are wallet v5. Their messages and refusals are; the code is this project's own.
package localchain

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/fetch"
	"chrysalis/runtime/chain/fetch/fetchtest"
	"chrysalis/runtime/claim"
	"chrysalis/tools/internal/onchain"
)

// GlobalID is the number of the chain's network.
const GlobalID = chaintest.GlobalID

// Options shape a chain.
type Options struct {
	// Delay is how long contracts that close take, in seconds: the delays in the template's params.
	Delay uint32
	// Wallets get Funds each, by their names.
	Wallets []string
	Funds   ton.Coins
	Time    uint32 // of the first block; 0: now
}

// World is a chain with what is on it.
type World struct {
	Chain *chaintest.Chain
	// Template is the address of a root contract: one's own root takes its codes and terms.
	Template    ton.Address
	liteservers []*fetchtest.Liteserver
}

// TemplateParams are the terms of the template.
func TemplateParams(delay uint32) claim.Params {
	return claim.Params{StructVersion: 3, Version: 1, UniqueID: 17, Price: ton.Price{NanotonPerToken: 20, PromptWeight: ton.WeightOne,
		CachedWeight: ton.WeightOne / 10, CompletionWeight: ton.WeightOne * 5, ReasoningWeight: ton.WeightOne * 5}, WorkerFee: 18, ProxyDelay: delay,
		ClientDelay: delay, MinProxyStake: ton.Coin, MinClientStake: ton.Coin, ProxyCode: chaintest.Code("proxy"),
		WorkerCode: chaintest.Code("worker"), ClientCode: chaintest.Code("client")}
}

// nobody sends what was there at the beginning.
var nobody = ton.Address{Account: [32]byte{0xff}}

// New makes a chain and two liteservers on this machine.
func New(o Options) (w *World, err error) {
	if o.Time == 0 {
		o.Time = uint32(time.Now().Unix())
	}
	w = &World{}
	if w.Chain, err = chaintest.New(chaintest.Options{Simplex: true, Time: o.Time, KeyEvery: 64}); err != nil {
		return nil, err
	}
	root, err := claim.NewRoot(nobody, TemplateParams(o.Delay))
	if err != nil {
		return nil, err
	}
	init, err := claim.StateInit(chaintest.Code("root"), root)
	if err != nil {
		return nil, err
	}
	w.Template = ton.Address{Account: init.Hash()}
	first := []chaintest.Message{{From: nobody, To: w.Template, Value: ton.Coin, Init: init}}
	for _, name := range o.Wallets {
		wallet, err := NewWallet(name)
		if err != nil {
			return nil, err
		}
		first = append(first, chaintest.Message{From: nobody, To: wallet.Address, Value: uint64(o.Funds)})
	}
	if _, err := w.Chain.Step(first...); err != nil {
		return nil, err
	}
	for seed := range byte(2) {
		s, err := fetchtest.Listen(w.Chain, seed+1)
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
		w.liteservers = append(w.liteservers, s)
	}
	return w, nil
}

// Close stops the liteservers.
func (w *World) Close() (err error) {
	for _, s := range w.liteservers {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Config is the chain's global configuration file. Its init_block is the chain's first.
func (w *World) Config() ([]byte, error) {
	var servers []fetch.Server
	for _, s := range w.liteservers {
		servers = append(servers, s.Server)
	}
	return onchain.WriteConfig(w.Chain.Network, servers)
}

// Run makes a block at each interval, with the time of this machine, until ctx ends.
func (w *World) Run(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if behind := now.Unix() - int64(w.Chain.Now()); behind > 1 {
				w.Chain.Advance(uint32(behind) - 1)
			}
			if _, err := w.Chain.Step(); err != nil {
				return err
			}
		}
	}
}

// Wallet is one of the chain's. Its key follows from its name, so that it is nobody's secret.
type Wallet struct {
	Address ton.Address
	key     ed25519.PrivateKey
	init    *cell.Cell
}

// id is the number of a wallet v5: its network, workchain and subwallet 0 (wallet v5's specification, wallet_id).
func id() uint32 {
	network := int32(GlobalID)
	return 1<<31 ^ uint32(network)
}

// NewWallet returns the wallet of a name.
func NewWallet(name string) (*Wallet, error) {
	seed := sha256.Sum256([]byte("a wallet of a local chain: " + name))
	w := &Wallet{key: ed25519.NewKeyFromSeed(seed[:])}
	data, err := new(cell.Builder).Bool(true).Uint(0, 32).Uint(uint64(id()), 32).Bytes(w.key.Public().(ed25519.PublicKey)).Bool(false).Cell()
	if err != nil {
		return nil, err
	}
	w.init, err = new(cell.Builder).Uint(0b00110, 5).Ref(chaintest.Code("wallet")).Ref(data).Cell()
	if err != nil {
		return nil, err
	}
	w.Address = ton.Address{Account: w.init.Hash()}
	return w, nil
}

// sequence reads how many messages a wallet has sent, and whether it is deployed.
func sequence(a chain.Account) (n uint32, deployed bool, err error) {
	if a.Status != chain.Active || a.Data == nil {
		return 0, false, nil
	}
	r := a.Data.Read()
	r.Skip(1)
	n = uint32(r.Uint(32))
	return n, true, r.Err()
}

// message is a message from inside, as a wallet sends it (block.tlb: MessageRelaxed).
type message struct {
	to         ton.Address
	value      uint64
	init, body *cell.Cell
}

func (m message) cell() (*cell.Cell, error) {
	b := new(cell.Builder).Uint(0b0110, 4).Uint(0, 2).Address(m.to).Coins(m.value).Uint(0, 1+4+4+64+32)
	if b.Bool(m.init != nil); m.init != nil {
		b.Bool(true).Ref(m.init)
	}
	if b.Bool(m.body != nil); m.body != nil {
		b.Ref(m.body)
	}
	return b.Cell()
}
