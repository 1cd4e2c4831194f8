package chaintest

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
)

// headerProof proves what a block says of itself and the hash of its state, and prunes the rest; with config, also the config of a key
// block.
func headerProof(root *cell.Cell, config bool) (*cell.Cell, error) {
	b := cell.NewMerkleProofBuilder(root)
	s := b.Root().MustBeginParse()
	info, err := s.LoadRef() // who begins to parse a cell has it in the proof
	if err != nil {
		return nil, err
	}
	_ = info
	s.SkipBitsAndRefs(0, 1)
	update, err := s.LoadRef()
	if err != nil {
		return nil, err
	}
	_ = update
	if config {
		extra, err := s.LoadRef()
		if err != nil {
			return nil, err
		}
		extra.SkipBitsAndRefs(0, 3)
		m, err := extra.LoadRef()
		if err != nil {
			return nil, err
		}
		refs := m.RefsNum()
		m.SkipBitsAndRefs(0, refs-1)
		c, err := m.LoadRefCell()
		if err != nil {
			return nil, err
		}
		for _, n := range []uint64{28, 34} {
			v, err := c.AsDict(32).LoadValueByUintKey(n)
			if err != nil {
				return nil, fmt.Errorf("config parameter %d: %w", n, err)
			}
			if err := all(v); err != nil {
				return nil, err
			}
		}
	}
	return b.CreateProof()
}

// all begins to parse everything below a slice.
func all(s *cell.Slice) error {
	for s.RefsNum() > 0 {
		below, err := s.LoadRef()
		if err != nil {
			return err
		}
		if err := all(below); err != nil {
			return err
		}
	}
	return nil
}

func bag(roots ...*cell.Cell) []byte { return cell.ToBOCWithOptions(roots, cell.BOCSerializeOptions{}) }

// MasterchainInfo answers getMasterchainInfo.
func (c *Chain) MasterchainInfo() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.blocks[c.master.seqno]
	var t tl
	t.number(crc("liteServer.masterchainInfo last:tonNode.blockIdExt state_root_hash:int256 init:tonNode.zeroStateIdExt " +
		"= liteServer.MasterchainInfo"))
	t.block(last.id)
	t.raw(last.state.Hash())
	t.number(0xffffffff)
	t.raw(make([]byte, 64))
	return t.b
}

// maxLinks bounds the links of one answer.
const maxLinks = 8

// BlockProof answers getBlockProof from a key block to a block, or, if that is zero, to the newest.
func (c *Chain) BlockProof(from, target chain.BlockID) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if target == (chain.BlockID{}) {
		target = c.blocks[c.master.seqno].id
	}
	begin := c.blocks[from.Seqno]
	if begin == nil || begin.id != from || !begin.key {
		return nil, fmt.Errorf("block %v is no key block here", from)
	}
	var links tl
	at, count := begin, 0
	for at.id != target && count < maxLinks {
		next := c.blocks[target.Seqno]
		for _, k := range c.keys {
			if k > at.id.Seqno && k < target.Seqno {
				next = c.blocks[k]
				break
			}
		}
		if next == nil || next.id.Seqno <= at.id.Seqno {
			return nil, fmt.Errorf("no way to block %v", target)
		}
		destination, err := headerProof(next.root, false)
		if err != nil {
			return nil, err
		}
		config, err := headerProof(at.root, true)
		if err != nil {
			return nil, err
		}
		links.number(crc("liteServer.blockLinkForward to_key_block:Bool from:tonNode.blockIdExt to:tonNode.blockIdExt dest_proof:bytes " +
			"config_proof:bytes signatures:liteServer.SignatureSet = liteServer.BlockLink"))
		links.bool(next.key)
		links.block(at.id)
		links.block(next.id)
		links.bytes(bag(destination))
		links.bytes(bag(config))
		links.raw(next.signatures)
		at = next
		count++
	}
	var t tl
	t.number(crc("liteServer.partialBlockProof complete:Bool from:tonNode.blockIdExt to:tonNode.blockIdExt " +
		"steps:vector liteServer.BlockLink = liteServer.PartialBlockProof"))
	t.bool(at.id == target)
	t.block(from)
	t.block(at.id)
	t.number(uint32(count))
	t.raw(links.b)
	return t.b, nil
}

// AccountState answers getAccountState.
func (c *Chain) AccountState(of chain.BlockID, a ton.Address) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.blocks[of.Seqno]
	if b == nil || b.id != of {
		return nil, fmt.Errorf("block %v is not here", of)
	}
	p := b.shards[c.sideOf(a).shard]
	master, err := headerProof(b.root, false)
	if err != nil {
		return nil, err
	}
	state, err := shardsProof(b.state, c.options.Depth, a)
	if err != nil {
		return nil, err
	}
	shard, err := headerProof(p.root, false)
	if err != nil {
		return nil, err
	}
	inState, account, err := accountProof(p.state, a)
	if err != nil {
		return nil, err
	}
	var t tl
	t.number(crc("liteServer.accountState id:tonNode.blockIdExt shardblk:tonNode.blockIdExt shard_proof:bytes proof:bytes state:bytes " +
		"= liteServer.AccountState"))
	t.block(of)
	t.block(p.id)
	t.bytes(bag(master, state))
	t.bytes(bag(shard, inState))
	if account != nil {
		t.bytes(bag(account))
	} else {
		t.bytes(nil)
	}
	return t.b, nil
}

// shardsProof proves the way from the masterchain's state to the shard of an address.
func shardsProof(state *cell.Cell, depth int, a ton.Address) (*cell.Cell, error) {
	b := cell.NewMerkleProofBuilder(state)
	s := b.Root().MustBeginParse()
	s.SkipBitsAndRefs(0, 3)
	extra, err := s.LoadRef()
	if err != nil {
		return nil, err
	}
	hashes, err := extra.LoadRefCell()
	if err != nil {
		return nil, err
	}
	v, err := hashes.AsDict(32).LoadValueByUintKey(0)
	if err != nil {
		return nil, err
	}
	tree, err := v.LoadRef()
	for i := 0; err == nil && i < depth; i++ {
		if a.Account[i/8]<<(i%8)&0x80 != 0 {
			tree.SkipBitsAndRefs(0, 1)
		}
		tree, err = tree.LoadRef()
	}
	if err != nil {
		return nil, err
	}
	return b.CreateProof()
}

// accountProof proves an account's entry, or that there is none, and prunes the account itself, which is returned beside it.
func accountProof(state *cell.Cell, a ton.Address) (proof, account *cell.Cell, err error) {
	b := cell.NewMerkleProofBuilder(state)
	s := b.Root().MustBeginParse()
	s.SkipBitsAndRefs(0, 1)
	accounts, err := s.LoadRef()
	if err != nil {
		return nil, nil, err
	}
	if accounts.RefsNum() > 0 {
		root, err := accounts.LoadRefCell()
		if err != nil {
			return nil, nil, err
		}
		// An extra stands before each value: 5 bits, coins, and a bit.
		if v, err := root.AsDict(256).LoadValue(cell.BeginCell().MustStoreSlice(a.Account[:], 256).EndCell()); err == nil {
			if account, err = v.LoadRefCell(); err != nil {
				return nil, nil, err
			}
			account = account.WithoutTrace()
		}
	}
	proof, err = b.CreateProof()
	return proof, account, err
}

// Cut and Reorder forge an answer of Transactions: with no transaction in it, and with its first two exchanged.
func Cut(answer []byte) []byte {
	return AppendString(append(bytes.Clone(answer[:4]), 0, 0, 0, 0), bag(empty))
}

// Reorder exchanges the first two transactions of an answer.
func Reorder(answer []byte) []byte {
	n := int(binary.LittleEndian.Uint32(answer[4:]))
	head, rest := answer[:8+80*n], answer[8+80*n:]
	size := int(rest[0])
	at := 1
	if size == 254 {
		size, at = int(rest[1])|int(rest[2])<<8|int(rest[3])<<16, 4
	}
	roots, err := cell.FromBOCMultiRoot(rest[at : at+size])
	if err != nil {
		panic(err)
	}
	roots[0], roots[1] = roots[1], roots[0]
	return AppendString(bytes.Clone(head), bag(roots...))
}

// Transactions answers getTransactions: from one on, the newest first, at most count.
func (c *Chain) Transactions(a ton.Address, from chain.Mark, count int) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.accounts[a.Account]
	if of == nil {
		return nil, fmt.Errorf("account %s is not here", a)
	}
	var list []*cell.Cell
	for i := len(of.history) - 1; i >= 0 && len(list) < min(count, 16); i-- {
		if len(list) > 0 || of.lts[i] == from.LT && [32]byte(of.history[i].Hash()) == from.Hash {
			list = append(list, of.history[i])
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("lt not in db: transaction %d of %s", from.LT, a)
	}
	return TransactionList(list...), nil
}

// TransactionList writes an answer to getTransactions. The blocks that it names are nobody's.
func TransactionList(list ...*cell.Cell) []byte {
	var t tl
	t.number(crc("liteServer.transactionList ids:vector tonNode.blockIdExt transactions:bytes = liteServer.TransactionList"))
	t.number(uint32(len(list)))
	for range list {
		t.block(chain.BlockID{})
	}
	t.bytes(bag(list...))
	return t.b
}
