// Package chaintest is a chain in memory, for tests and demonstrations: blocks of the masterchain and of the base chain's shards with
// states, Merkle proofs and validators' signatures of both kinds, over the virtual machine of tonutils-go. It answers as a liteserver
// does, in the bytes that package chain judges.
//
// It makes one block of each chain for every Step, and settles all messages in the block that they began in. What a test wants to forge,
// it forges by changing the answers or by the options of a Chain.
package chaintest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"sync"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
	"github.com/xssnick/tonutils-go/tvm/vm"

	"chrysalis/measure/ton"
	house "chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
)

// GlobalID is the number of every Chain's network.
const GlobalID = -217

// Options shape a Chain.
type Options struct {
	Validators int    // default 4
	Main       int    // of them, who sign the masterchain; default all
	Shuffle    bool   // their order changes from round to round
	Simplex    bool   // they sign votes on candidates
	KeyEvery   uint32 // each so-manieth block of the masterchain is a key block, with a new set of validators; default 4
	Depth      int    // the base chain has 2^Depth shards
	Time       uint32 // of the first block; default 1,700,000,000
	Fault      Fault  // what is wrong with the signatures of every block
}

// Fault is a way in which signatures may be wrong.
type Fault string

// The faults.
const (
	TwoThirds      Fault = "two thirds"      // of the weight sign at most
	Stranger       Fault = "stranger"        // one more, who is no validator, signs too
	Twice          Fault = "twice"           // two thirds sign, one of them twice
	Broken         Fault = "broken"          // one bit of one signature is wrong
	OtherCandidate Fault = "other candidate" // simplex: the votes are for another block
	OtherSet       Fault = "other set"       // the header names other validators
	OtherRound     Fault = "other round"     // the signatures name another round than the header
	OldKind        Fault = "old kind"        // simplex: the validators sign as they did before it
	StaleSet       Fault = "stale set"       // validators of the era before sign
	OtherKey       Fault = "other key"       // the header names another key block before
)

// Chain is a chain. Its methods may be called by many at a time.
type Chain struct {
	Network chain.Network // with the first block as its anchor

	mu      sync.Mutex
	options Options
	now     uint32
	lt      uint64
	config  *cell.Cell // the dictionary of parameters as of the newest key block
	set     []ed25519.PrivateKey
	era     byte // of validators
	stale   struct {
		config *cell.Cell
		set    []ed25519.PrivateKey
	} // of the era before
	accounts map[[32]byte]*account
	shards   []*side
	master   *side
	blocks   map[uint32]*block // of the masterchain, by number
	keys     []uint32          // numbers of the key blocks, in order
}

// side is one shard's or the masterchain's row of blocks.
type side struct {
	workchain int32
	shard     uint64
	prefix    int // bits
	seqno     uint32
	accounts  *tlb.ShardAccountsAugDict
	state     *cell.Cell
	last      tlb.ExtBlkRef
}

// block is one of the masterchain's, with all that lay under it.
type block struct {
	id         chain.BlockID
	root       *cell.Cell
	state      *cell.Cell
	key        bool
	keyBefore  uint32
	signatures []byte // a TL signature set, boxed
	shards     map[uint64]part
	time       uint32
}

type part struct {
	id          chain.BlockID
	root, state *cell.Cell
}

type account struct {
	prepared *tvm.PreparedAccount
	stat     *cell.Cell
	history  []*cell.Cell // transactions, the oldest first
	lts      []uint64
}

// New returns a chain of one block, a key block.
func New(o Options) (*Chain, error) {
	if o.Validators == 0 {
		o.Validators = 4
	}
	if o.Main == 0 {
		o.Main = o.Validators
	}
	if o.KeyEvery == 0 {
		o.KeyEvery = 4
	}
	if o.Time == 0 {
		o.Time = 1_700_000_000
	}
	c := &Chain{options: o, now: o.Time, lt: 1_000_000, accounts: map[[32]byte]*account{}, blocks: map[uint32]*block{}}
	for i := range 1 << o.Depth {
		dict, err := tlb.NewShardAccountsAugDict()
		if err != nil {
			return nil, err
		}
		c.shards = append(c.shards, &side{workchain: 0, shard: (uint64(2*i) + 1) << (63 - o.Depth), prefix: o.Depth, accounts: dict,
			state: empty})
	}
	dict, err := tlb.NewShardAccountsAugDict()
	if err != nil {
		return nil, err
	}
	c.master = &side{workchain: -1, shard: 1 << 63, accounts: dict, state: empty}
	if err := c.elect(); err != nil {
		return nil, err
	}
	if err := c.seal(); err != nil {
		return nil, err
	}
	first := c.blocks[1]
	c.Network = chain.Network{Name: "local", GlobalID: GlobalID, Anchor: chain.Head{Key: first.id, Last: first.id, Time: first.time}}
	return c, nil
}

// machine is built once: its tables take longer than a thousand transactions.
var machine = sync.OnceValue(tvm.NewTVM)

var empty = cell.BeginCell().EndCell()

// elect makes a new set of validators and the config that names them.
func (c *Chain) elect() error {
	c.era++
	c.set = nil
	list := cell.NewDict(16)
	total := uint64(0)
	for i := range c.options.Validators {
		seed := sha256.Sum256([]byte{c.era, byte(i), byte(i >> 8)})
		key := ed25519.NewKeyFromSeed(seed[:])
		c.set = append(c.set, key)
		weight := uint64(100 + i)
		total += weight
		v := cell.BeginCell().MustStoreUInt(0x73, 8).MustStoreUInt(0x8e81278a, 32).MustStoreSlice(key.Public().(ed25519.PublicKey), 256).
			MustStoreUInt(weight, 64).MustStoreSlice(adnl(c.era, i), 256).EndCell()
		if err := list.SetIntKey(big.NewInt(int64(i)), v); err != nil {
			return err
		}
	}
	shuffle := uint64(0)
	if c.options.Shuffle {
		shuffle = 1
	}
	gas := func() *cell.Cell {
		return cell.BeginCell().MustStoreUInt(0xd1, 8).MustStoreUInt(100, 64).MustStoreUInt(40_000, 64).MustStoreUInt(0xde, 8).
			MustStoreUInt(26_214_400, 64).MustStoreUInt(1_000_000, 64).MustStoreUInt(1_000_000, 64).MustStoreUInt(10_000, 64).
			MustStoreUInt(10_000_000, 64).MustStoreUInt(100_000_000, 64).MustStoreUInt(1_000_000_000, 64).EndCell()
	}
	forward := func() *cell.Cell {
		return cell.BeginCell().MustStoreUInt(0xea, 8).MustStoreUInt(400_000, 64).MustStoreUInt(26_214_400, 64).MustStoreUInt(2_621_440_000, 64).
			MustStoreUInt(98_304, 32).MustStoreUInt(21_845, 16).MustStoreUInt(21_845, 16).EndCell()
	}
	storage := cell.NewDict(32)
	price := cell.BeginCell().MustStoreUInt(0xcc, 8).MustStoreUInt(0, 32).MustStoreUInt(1, 64).MustStoreUInt(500, 64).MustStoreUInt(1000, 64).
		MustStoreUInt(500_000, 64).EndCell()
	if err := storage.SetIntKey(big.NewInt(0), price); err != nil {
		return err
	}
	config := cell.NewDict(32)
	for n, param := range map[int64]*cell.Cell{
		8:  cell.BeginCell().MustStoreUInt(0xc4, 8).MustStoreUInt(uint64(vm.MaxSupportedGlobalVersion), 32).MustStoreUInt(0x1ee, 64).EndCell(),
		18: storage.AsCell(),
		20: gas(), 21: gas(), 24: forward(), 25: forward(),
		28: cell.BeginCell().MustStoreUInt(0xc2, 8).MustStoreUInt(0, 7).MustStoreUInt(shuffle, 1).MustStoreUInt(250, 32).MustStoreUInt(250, 32).
			MustStoreUInt(1000, 32).MustStoreUInt(7, 32).EndCell(),
		34: cell.BeginCell().MustStoreUInt(0x12, 8).MustStoreUInt(uint64(c.now), 32).MustStoreUInt(uint64(c.now)+65536, 32).
			MustStoreUInt(uint64(c.options.Validators), 16).MustStoreUInt(uint64(c.options.Main), 16).MustStoreUInt(total, 64).
			MustStoreDict(list).EndCell(),
	} {
		if err := config.SetIntKey(big.NewInt(n), cell.BeginCell().MustStoreRef(param).EndCell()); err != nil {
			return err
		}
	}
	c.config = config.AsCell()
	return nil
}

func adnl(era byte, i int) []byte {
	h := sha256.Sum256([]byte{'a', era, byte(i)})
	return h[:]
}

// Message is one that is delivered as if a contract at From had sent it, or, with From zero, from outside the chain.
type Message struct {
	From, To ton.Address
	Value    uint64
	Bounce   bool
	Init     *house.Cell
	Body     *house.Cell
}

// Outcome is what one transaction did.
type Outcome struct {
	At      ton.Address
	Exit    int64 // of the computation
	Aborted bool
	Fees    uint64 // all that the account paid
}

// Advance lets time pass without a block.
func (c *Chain) Advance(seconds uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += seconds
}

// Now returns the time of the newest block.
func (c *Chain) Now() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Last returns the newest block of the masterchain.
func (c *Chain) Last() chain.BlockID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocks[c.master.seqno].id
}

// Tonutils turns a cell of ours into one of tonutils-go's, and House does the reverse.
func Tonutils(c *house.Cell) *cell.Cell {
	if c == nil {
		return nil
	}
	bag, err := house.Encode(c)
	if err != nil {
		panic(err)
	}
	t, err := cell.FromBOC(bag)
	if err != nil {
		panic(err)
	}
	return t
}

// House turns a cell of tonutils-go's into one of ours.
func House(c *cell.Cell) *house.Cell {
	h, err := house.ParseOne(c.ToBOC())
	if err != nil {
		panic(err)
	}
	return h
}

func friendly(a ton.Address) *address.Address {
	return address.NewAddress(0, byte(a.Workchain), a.Account[:])
}

// Step delivers messages, and all that follow from them, and makes the next blocks.
func (c *Chain) Step(messages ...Message) ([]Outcome, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	var queue []*cell.Cell
	for _, m := range messages {
		msg, err := c.encode(m)
		if err != nil {
			return nil, err
		}
		queue = append(queue, msg)
	}
	prepared, err := tvm.PrepareBlockchainConfig(c.config)
	if err != nil {
		return nil, err
	}
	block, err := prepared.NewBlockContext(tvm.BlockOptions{Now: c.now, BlockLT: int64(c.lt), RandSeed: make([]byte, 32), GlobalID: GlobalID})
	if err != nil {
		return nil, err
	}
	var outcomes []Outcome
	for len(queue) > 0 {
		o, out, err := c.execute(block, queue[0])
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, o)
		queue = append(queue[1:], out...)
		if len(outcomes) > 1000 {
			return nil, fmt.Errorf("more than %d transactions in a block", 1000)
		}
	}
	return outcomes, c.seal()
}

// Post delivers a message from outside the chain, as it comes in a bag of cells, in a step of its own. One that no contract accepts is an
// error, and changes nothing.
func (c *Chain) Post(bag []byte) ([]Outcome, error) {
	raw, err := cell.FromBOC(bag)
	if err != nil {
		return nil, err
	}
	var in tlb.ExternalMessage
	if err := tlb.Parse(&in, raw); err != nil {
		return nil, err
	}
	m := Message{To: ton.Address{Workchain: int8(in.DstAddr.Workchain()), Account: [32]byte(in.DstAddr.Data())}}
	if in.StateInit != nil {
		init, err := tlb.ToCell(in.StateInit)
		if err != nil {
			return nil, err
		}
		m.Init = House(init)
	}
	if in.Body != nil {
		m.Body = House(in.Body)
	}
	return c.Step(m)
}

func (c *Chain) encode(m Message) (*cell.Cell, error) {
	var init *tlb.StateInit
	if m.Init != nil {
		init = new(tlb.StateInit)
		if err := tlb.Parse(init, Tonutils(m.Init)); err != nil {
			return nil, err
		}
	}
	body := Tonutils(m.Body)
	if body == nil {
		body = empty
	}
	if m.From.IsZero() {
		return tlb.ToCell(&tlb.ExternalMessage{DstAddr: friendly(m.To), StateInit: init, Body: body})
	}
	c.lt++
	return tlb.ToCell(&tlb.InternalMessage{IHRDisabled: true, Bounce: m.Bounce, SrcAddr: friendly(m.From), DstAddr: friendly(m.To),
		Amount: tlb.FromNanoTONU(m.Value), CreatedLT: c.lt, CreatedAt: c.now, StateInit: init, Body: body})
}

func (c *Chain) execute(block *tvm.BlockContext, msg *cell.Cell) (o Outcome, out []*cell.Cell, err error) {
	m, err := tvm.PrepareMessage(msg)
	if err != nil {
		return o, nil, err
	}
	var to *address.Address
	switch in := m.Message().Msg.(type) {
	case *tlb.InternalMessage:
		to = in.DstAddr
	case *tlb.ExternalMessage:
		to = in.DstAddr
	default:
		return o, nil, fmt.Errorf("message is a %T", in)
	}
	o.At = ton.Address{Workchain: int8(to.Workchain()), Account: [32]byte(to.Data())}
	a := c.accounts[o.At.Account]
	if a == nil {
		none := &tlb.ShardAccount{Account: cell.BeginCell().MustStoreUInt(0, 1).EndCell(), LastTransHash: make([]byte, 32)}
		if a = new(account); true {
			if a.prepared, err = tvm.PrepareAccount(none, to); err != nil {
				return o, nil, err
			}
		}
	}
	c.lt += 10
	r, err := machine().EmulateTransaction(block, a.prepared, m, tvm.TransactionOptions{LogicalTime: int64(c.lt), AccountStorageStat: a.stat})
	if err != nil {
		return o, nil, fmt.Errorf("executing at %s: %w", o.At, err)
	}
	if r.TransactionCell == nil {
		return o, nil, fmt.Errorf("executing at %s: the message was not accepted (exit %d)", o.At, r.ExitCode)
	}
	tx, err := r.ParseTransaction()
	if err != nil {
		return o, nil, err
	}
	c.lt = max(c.lt, r.EndLT)
	c.accounts[o.At.Account] = a
	a.prepared, a.stat = r.NextAccount, r.AccountStorageStat
	a.history, a.lts = append(a.history, r.TransactionCell), append(a.lts, tx.LT)
	o.Exit, o.Fees = r.ExitCode, tx.TotalFees.Coins.Nano().Uint64()
	if d, ok := tx.Description.(tlb.TransactionDescriptionOrdinary); ok {
		o.Aborted = d.Aborted
	}
	side := c.sideOf(o.At)
	key := cell.BeginCell().MustStoreSlice(o.At.Account[:], 256).EndCell()
	if err := side.accounts.Set(key, a.prepared.ShardAccountCell()); err != nil {
		return o, nil, err
	}
	for _, sent := range r.OutMessages {
		if sent.Msg.MsgType == tlb.MsgTypeInternal {
			out = append(out, sent.Cell)
		}
	}
	return o, out, nil
}

func (c *Chain) sideOf(a ton.Address) *side {
	return c.shards[int(binary.BigEndian.Uint64(a.Account[:8])>>(63-c.options.Depth)>>1)]
}

// Balance returns what an account has.
func (c *Chain) Balance(a ton.Address) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if of := c.accounts[a.Account]; of != nil && of.prepared.State() != nil && of.prepared.State().IsValid {
		return of.prepared.State().Balance.Nano().Uint64()
	}
	return 0
}

// seal makes the blocks that end a step.
func (c *Chain) seal() error {
	b := &block{shards: map[uint64]part{}, time: c.now, keyBefore: 0}
	if n := len(c.keys); n > 0 {
		b.keyBefore = c.keys[n-1]
	}
	c.lt += 100
	for _, s := range c.shards {
		p, err := c.sealSide(s, nil, nil, false, b.keyBefore, nil)
		if err != nil {
			return err
		}
		b.shards[s.shard] = p
	}
	b.key = (c.master.seqno)%c.options.KeyEvery == 0
	signers := c.set
	before := c.config
	if b.key && c.master.seqno > 0 {
		c.stale.config, c.stale.set = c.config, c.set
		if err := c.elect(); err != nil {
			return err
		}
	}
	tree := c.shardTree(b, 0, 0)
	hashes := cell.NewDict(32)
	if err := hashes.SetIntKey(big.NewInt(0), cell.BeginCell().MustStoreRef(tree).EndCell()); err != nil {
		return err
	}
	if c.options.Fault == StaleSet && c.era > 1 {
		before, signers = c.stale.config, c.stale.set
	}
	order, err := signersOf(before, signers, c.options, c.master.seqno+1)
	if err != nil {
		return err
	}
	p, err := c.sealSide(c.master, hashes, c.config, b.key, b.keyBefore, order)
	if err != nil {
		return err
	}
	b.id, b.root, b.state = p.id, p.root, p.state
	b.signatures = sign(p.id, order, c.options, c.master.seqno)
	c.blocks[p.id.Seqno] = b
	if b.key {
		c.keys = append(c.keys, p.id.Seqno)
	}
	return nil
}

// shardTree builds the binary tree of shards under a prefix.
func (c *Chain) shardTree(b *block, depth int, prefix uint64) *cell.Cell {
	if depth < c.options.Depth {
		left := c.shardTree(b, depth+1, prefix)
		right := c.shardTree(b, depth+1, prefix|1<<(63-depth))
		return cell.BeginCell().MustStoreUInt(1, 1).MustStoreRef(left).MustStoreRef(right).EndCell()
	}
	id := b.shards[prefix|1<<(63-depth)].id
	currencies := cell.BeginCell().MustStoreUInt(0, 10).EndCell()
	return cell.BeginCell().MustStoreUInt(0, 1).MustStoreUInt(0xa, 4).MustStoreUInt(uint64(id.Seqno), 32).
		MustStoreUInt(uint64(c.master.seqno), 32).
		MustStoreUInt(c.lt, 64).MustStoreUInt(c.lt+1, 64).MustStoreSlice(id.RootHash[:], 256).MustStoreSlice(id.FileHash[:], 256).
		MustStoreUInt(0, 5+3).MustStoreUInt(1, 32).MustStoreUInt(id.Shard, 64).MustStoreUInt(uint64(c.master.seqno), 32).
		MustStoreUInt(uint64(c.now), 32).MustStoreUInt(0, 1).MustStoreRef(currencies).EndCell()
}

func ref(e tlb.ExtBlkRef) *cell.Cell {
	if e.RootHash == nil {
		e.RootHash, e.FileHash = make([]byte, 32), make([]byte, 32)
	}
	return cell.BeginCell().MustStoreUInt(e.EndLt, 64).MustStoreUInt(uint64(e.SeqNo), 32).MustStoreSlice(e.RootHash, 256).
		MustStoreSlice(e.FileHash, 256).EndCell()
}

// sealSide makes one chain's next state and block. The masterchain has hashes of shards, a config and signers.
func (c *Chain) sealSide(s *side, hashes *cell.Dictionary, config *cell.Cell, key bool, keyBefore uint32, order []signer) (part, error) {
	s.seqno++
	accounts, err := s.accounts.ToCell()
	if err != nil {
		return part{}, err
	}
	ident := cell.BeginCell().MustStoreUInt(0, 2).MustStoreUInt(uint64(s.prefix), 6).MustStoreInt(int64(s.workchain), 32).
		MustStoreUInt(s.shard&^(1<<(63-s.prefix)), 64)
	nothing := cell.BeginCell().MustStoreUInt(0, 10) // two empty collections of currencies
	state := cell.BeginCell().MustStoreUInt(0x9023afe2, 32).MustStoreInt(GlobalID, 32).MustStoreBuilder(ident).
		MustStoreUInt(uint64(s.seqno), 32).
		MustStoreUInt(0, 32).MustStoreUInt(uint64(c.now), 32).MustStoreUInt(c.lt, 64).MustStoreUInt(0, 32).MustStoreRef(empty).
		MustStoreUInt(0, 1).
		MustStoreRef(accounts).MustStoreRef(empty)
	if hashes != nil {
		address := make([]byte, 32)
		extra := cell.BeginCell().MustStoreUInt(0xcc26, 16).MustStoreDict(hashes).MustStoreSlice(address, 256).MustStoreRef(config).
			MustStoreRef(empty).MustStoreUInt(0, 5).EndCell()
		state.MustStoreUInt(1, 1).MustStoreRef(extra)
	} else {
		state.MustStoreUInt(0, 1)
	}
	after := state.EndCell()
	update, err := cell.CreateMerkleUpdate(s.state, after)
	if err != nil {
		return part{}, err
	}
	if c.options.Fault == OtherKey {
		keyBefore++
	}
	flag := func(b bool) uint64 {
		if b {
			return 1
		}
		return 0
	}
	setHash, round := uint32(0), uint32(1)
	if order != nil {
		round = s.seqno
		setHash = shortHash(order, round)
		if c.options.Fault == OtherSet {
			setHash ^= 1
		}
	}
	info := cell.BeginCell().MustStoreUInt(0x9bc7a987, 32).MustStoreUInt(0, 32).MustStoreUInt(flag(hashes == nil), 1).MustStoreUInt(0, 5).
		MustStoreUInt(flag(key), 1).MustStoreUInt(0, 1).MustStoreUInt(0, 8).MustStoreUInt(uint64(s.seqno), 32).MustStoreUInt(0, 32).
		MustStoreBuilder(ident).MustStoreUInt(uint64(c.now), 32).MustStoreUInt(c.lt, 64).MustStoreUInt(c.lt+1, 64).
		MustStoreUInt(uint64(setHash), 32).
		MustStoreUInt(uint64(round), 32).MustStoreUInt(0, 32).MustStoreUInt(uint64(keyBefore), 32)
	if hashes == nil {
		info.MustStoreRef(ref(c.master.last))
	}
	info.MustStoreRef(ref(s.last))
	extra := cell.BeginCell().MustStoreUInt(0x4a33f6fd, 32).MustStoreRef(empty).MustStoreRef(empty).MustStoreRef(empty).
		MustStoreSlice(make([]byte, 64), 512)
	if hashes != nil {
		m := cell.BeginCell().MustStoreUInt(0xcca5, 16).MustStoreUInt(flag(key), 1).MustStoreDict(hashes).MustStoreUInt(0, 1).
			MustStoreBuilder(nothing).
			MustStoreRef(cell.BeginCell().MustStoreUInt(0, 3).EndCell())
		if key {
			m.MustStoreSlice(make([]byte, 32), 256).MustStoreRef(config)
		}
		extra.MustStoreUInt(1, 1).MustStoreRef(m.EndCell())
	} else {
		extra.MustStoreUInt(0, 1)
	}
	root := cell.BeginCell().MustStoreUInt(0x11ef55aa, 32).MustStoreInt(GlobalID, 32).MustStoreRef(info.EndCell()).MustStoreRef(empty).
		MustStoreRef(update).MustStoreRef(extra.EndCell()).EndCell()
	file := sha256.Sum256(root.ToBOC())
	id := chain.BlockID{Workchain: s.workchain, Shard: s.shard, Seqno: s.seqno, RootHash: [32]byte(root.Hash()), FileHash: file}
	s.state, s.last = after, tlb.ExtBlkRef{EndLt: c.lt + 1, SeqNo: s.seqno, RootHash: bytes.Clone(id.RootHash[:]),
		FileHash: bytes.Clone(file[:])}
	return part{id, root, after}, nil
}
