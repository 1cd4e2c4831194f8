package claim

import (
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
)

// Params are the terms that a root contract sets and that every contract under it carries in its data, and so in its address.
type Params struct {
	StructVersion           uint8 // of the cell's layout: 3 or 4
	Version                 uint32
	UniqueID                uint32
	Test                    bool // a network of COCOON's own testing; not TON's testnet
	Price                   ton.Price
	WorkerFee               uint64 // nanotons of each token's price that are the worker's
	ProxyDelay, ClientDelay uint32 // seconds from the begin of a close to its end
	MinProxyStake           uint64 // nanotons
	MinClientStake          uint64 // nanotons
	ProxyCode, WorkerCode   *cell.Cell
	ClientCode              *cell.Cell
}

// Versions of the params cell that are understood; 4 has the fields of 3.
const (
	paramsV3 = 3
	paramsV4 = 4
)

// ParseParams reads a params cell, strictly.
func ParseParams(c *cell.Cell) (Params, error) {
	var p Params
	r := c.Read()
	p.StructVersion = uint8(r.Uint(8))
	if r.Err() == nil && p.StructVersion != paramsV3 && p.StructVersion != paramsV4 {
		r.Fail("version of the layout is %d, want %d or %d", p.StructVersion, paramsV3, paramsV4)
	}
	p.Version, p.UniqueID, p.Test = uint32(r.Uint(32)), uint32(r.Uint(32)), r.Bool()
	p.Price.NanotonPerToken, p.WorkerFee = r.Coins(), r.Coins()
	for _, w := range []*uint32{&p.Price.PromptWeight, &p.Price.CachedWeight, &p.Price.CompletionWeight, &p.Price.ReasoningWeight,
		&p.ProxyDelay, &p.ClientDelay} {
		*w = uint32(r.Uint(32))
	}
	p.MinProxyStake, p.MinClientStake = r.Coins(), r.Coins()
	p.ProxyCode, p.WorkerCode, p.ClientCode = r.MaybeRef(), r.MaybeRef(), r.MaybeRef()
	if err := r.End(); err != nil {
		return Params{}, fmt.Errorf("params: %w", err)
	}
	if p.WorkerFee > p.Price.NanotonPerToken {
		return Params{}, fmt.Errorf("params: worker's fee is %d nanotons of a price of %d", p.WorkerFee, p.Price.NanotonPerToken)
	}
	return p, nil
}

// Cell builds the params cell as a root holds it: with all codes that p has.
func (p Params) Cell() (*cell.Cell, error) {
	b := new(cell.Builder).Uint(uint64(p.StructVersion), 8).Uint(uint64(p.Version), 32).Uint(uint64(p.UniqueID), 32).Bool(p.Test).
		Coins(p.Price.NanotonPerToken).Coins(p.WorkerFee)
	for _, w := range []uint32{p.Price.PromptWeight, p.Price.CachedWeight, p.Price.CompletionWeight, p.Price.ReasoningWeight, p.ProxyDelay,
		p.ClientDelay} {
		b.Uint(uint64(w), 32)
	}
	return b.Coins(p.MinProxyStake).Coins(p.MinClientStake).MaybeRef(p.ProxyCode).MaybeRef(p.WorkerCode).MaybeRef(p.ClientCode).Cell()
}

// ofProxy are the params as a proxy holds them: without its own code. bare are those of clients and workers: without any.
func (p Params) ofProxy() Params { p.ProxyCode = nil; return p }
func (p Params) bare() Params    { p.ProxyCode, p.WorkerCode, p.ClientCode = nil, nil, nil; return p }

// State says how far a contract's end is.
type State uint8

// The states. A worker knows no Closing.
const (
	Normal  State = 0
	Closing State = 1
	Closed  State = 2
)

func (s State) String() string {
	switch s {
	case Normal:
		return "normal"
	case Closing:
		return "closing"
	case Closed:
		return "closed"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

func readState(r *cell.Reader) State {
	s := State(r.Uint(2))
	if s > Closed {
		r.Fail("state is %d, want 0, 1 or 2", uint8(s))
	}
	return s
}

// Root is the data of a root contract. Lists are COCOON's of hashes and proxies; they are kept as they are.
type Root struct {
	Owner   ton.Address
	Version uint32
	Lists   *cell.Cell
	Params  Params
	Keys    *cell.Cell // of a key manager, from params version 4 on; nil before
}

// ParseRoot reads a root's data, strictly but for its lists.
func ParseRoot(c *cell.Cell) (Root, error) {
	var d Root
	r := c.Read()
	d.Owner, d.Version, d.Lists = r.Address(), uint32(r.Uint(32)), r.Ref()
	params := r.Ref()
	if _, refs := r.Rest(); refs == 1 {
		d.Keys = r.Ref()
	}
	if err := r.End(); err != nil {
		return Root{}, fmt.Errorf("root's data: %w", err)
	}
	p, err := ParseParams(params)
	if err != nil {
		return Root{}, fmt.Errorf("root's data: %w", err)
	}
	d.Params = p
	if want := p.StructVersion >= paramsV4; want != (d.Keys != nil) {
		return Root{}, fmt.Errorf("root's data: keys are there: %t, want %t with params version %d", !want, want, p.StructVersion)
	}
	for _, code := range []*cell.Cell{p.ProxyCode, p.WorkerCode, p.ClientCode} {
		if code == nil {
			return Root{}, errors.New("root's data: a contract's code is missing")
		}
	}
	return d, nil
}

// NewRoot returns the data of a root with empty lists, as it is deployed.
func NewRoot(owner ton.Address, p Params) (Root, error) {
	lists, err := new(cell.Builder).Uint(0, 1+1+32+1+1).Cell()
	return Root{Owner: owner, Lists: lists, Params: p}, err
}

// Cell builds the data.
func (d Root) Cell() (*cell.Cell, error) {
	params, err := d.Params.Cell()
	if err != nil {
		return nil, err
	}
	b := new(cell.Builder).Address(d.Owner).Uint(uint64(d.Version), 32).Ref(d.Lists).Ref(params)
	if d.Keys != nil {
		b.Ref(d.Keys)
	}
	return b.Cell()
}

// Proxy is the data of a proxy contract, which holds all coins: its stake and what all its clients have paid in.
type Proxy struct {
	Owner   ton.Address
	Key     [32]byte // that signs every message of CLAIM.md
	Root    ton.Address
	State   State
	Balance uint64 // nanotons that 7610e6eb pays to the owner
	Stake   uint64 // nanotons
	Unlock  uint32 // Unix time; 0 unless closing
	Params  Params // without the proxy's own code
}

// ParseProxy reads a proxy's data, strictly.
func ParseProxy(c *cell.Cell) (Proxy, error) {
	var d Proxy
	r := c.Read()
	d.Owner, d.Key, d.Root, d.State = r.Address(), r.Hash(), r.Address(), readState(r)
	d.Balance, d.Stake, d.Unlock = r.Coins(), r.Coins(), uint32(r.Uint(32))
	err := withParams(r, &d.Params, func(p Params) bool { return p.ProxyCode == nil && p.WorkerCode != nil && p.ClientCode != nil })
	if err != nil {
		return Proxy{}, fmt.Errorf("proxy's data: %w", err)
	}
	return d, nil
}

// withParams takes the last reference as params and ends the cell.
func withParams(r *cell.Reader, p *Params, codes func(Params) bool) error {
	c := r.Ref()
	if err := r.End(); err != nil {
		return err
	}
	var err error
	if *p, err = ParseParams(c); err != nil {
		return err
	}
	if !codes(*p) {
		return errors.New("params have other codes than this contract's")
	}
	return nil
}

// Cell builds the data.
func (d Proxy) Cell() (*cell.Cell, error) {
	params, err := d.Params.ofProxy().Cell()
	if err != nil {
		return nil, err
	}
	return new(cell.Builder).Address(d.Owner).Bytes(d.Key[:]).Address(d.Root).Uint(uint64(d.State), 2).Coins(d.Balance).Coins(d.Stake).
		Uint(uint64(d.Unlock), 32).Ref(params).Cell()
}

// Client is the data of a client's contract under a proxy.
type Client struct {
	State      State
	Balance    uint64 // nanotons that the client may still spend or get back; the coins themselves lie with the proxy
	Stake      uint64 // nanotons that a withdrawal must leave
	Tokens     uint64 // charged so far
	Unlock     uint32 // Unix time; 0 unless closing
	SecretHash [32]byte
	Owner      ton.Address
	Proxy      ton.Address
	Key        [32]byte
	Params     Params // without codes
}

// ParseClient reads a client's data, strictly.
func ParseClient(c *cell.Cell) (Client, error) {
	var d Client
	r := c.Read()
	d.State, d.Balance, d.Stake = readState(r), r.Coins(), r.Coins()
	d.Tokens, d.Unlock, d.SecretHash = r.Uint(64), uint32(r.Uint(32)), r.Hash()
	fixed := r.Open()
	d.Owner, d.Proxy, d.Key = fixed.Address(), fixed.Address(), fixed.Hash()
	err := fixed.End()
	if err == nil {
		err = withParams(r, &d.Params, noCodes)
	}
	if err != nil {
		return Client{}, fmt.Errorf("client's data: %w", err)
	}
	return d, nil
}

func noCodes(p Params) bool { return p.ProxyCode == nil && p.WorkerCode == nil && p.ClientCode == nil }

// Cell builds the data.
func (d Client) Cell() (*cell.Cell, error) {
	params, err := d.Params.bare().Cell()
	if err != nil {
		return nil, err
	}
	fixed, err := new(cell.Builder).Address(d.Owner).Address(d.Proxy).Bytes(d.Key[:]).Cell()
	if err != nil {
		return nil, err
	}
	return new(cell.Builder).Uint(uint64(d.State), 2).Coins(d.Balance).Coins(d.Stake).Uint(d.Tokens, 64).Uint(uint64(d.Unlock), 32).
		Bytes(d.SecretHash[:]).Ref(fixed).Ref(params).Cell()
}

// Worker is the data of a worker's contract under a proxy.
type Worker struct {
	Owner  ton.Address
	Proxy  ton.Address
	Key    [32]byte
	State  State
	Tokens uint64 // paid so far, whether the coins were there or not
	Params Params // without codes
}

// ParseWorker reads a worker's data, strictly.
func ParseWorker(c *cell.Cell) (Worker, error) {
	var d Worker
	r := c.Read()
	d.Owner, d.Proxy, d.Key, d.State, d.Tokens = r.Address(), r.Address(), r.Hash(), readState(r), r.Uint(64)
	if d.State == Closing {
		r.Fail("state is closing, which a worker has not")
	}
	if err := withParams(r, &d.Params, noCodes); err != nil {
		return Worker{}, fmt.Errorf("worker's data: %w", err)
	}
	return d, nil
}

// Cell builds the data.
func (d Worker) Cell() (*cell.Cell, error) {
	params, err := d.Params.bare().Cell()
	if err != nil {
		return nil, err
	}
	return new(cell.Builder).Address(d.Owner).Address(d.Proxy).Bytes(d.Key[:]).Uint(uint64(d.State), 2).Uint(d.Tokens, 64).Ref(params).Cell()
}

// NewProxy returns the data with which the proxy of a key is deployed under a root.
func (p Params) NewProxy(owner ton.Address, key [32]byte, root ton.Address) Proxy {
	return Proxy{Owner: owner, Key: key, Root: root, Params: p.ofProxy()}
}

// NewClient returns the data with which a client's contract is deployed.
func (p Params) NewClient(owner, proxy ton.Address, key [32]byte) Client {
	return Client{Stake: p.MinClientStake, Owner: owner, Proxy: proxy, Key: key, Params: p.bare()}
}

// NewWorker returns the data with which a worker's contract is deployed.
func (p Params) NewWorker(owner, proxy ton.Address, key [32]byte) Worker {
	return Worker{Owner: owner, Proxy: proxy, Key: key, Params: p.bare()}
}

// Data is what a contract is deployed with.
type Data interface {
	Cell() (*cell.Cell, error)
}

// StateInit builds what deploys a contract.
func StateInit(code *cell.Cell, d Data) (*cell.Cell, error) {
	data, err := d.Cell()
	if err != nil {
		return nil, err
	}
	return new(cell.Builder).Uint(0b00110, 5).Ref(code).Ref(data).Cell() // code and data, and nothing else
}

// Address returns the address of the contract that code and d deploy, in the base chain.
func Address(code *cell.Cell, d Data) (ton.Address, error) {
	init, err := StateInit(code, d)
	if err != nil {
		return ton.Address{}, fmt.Errorf("address of contract: %w", err)
	}
	return ton.Address{Account: init.Hash()}, nil
}
