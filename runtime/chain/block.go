package chain

import (
	"fmt"

	"chrysalis/runtime/cell"
)

// header is what a block says of itself.
type header struct {
	keyBlock    bool
	seqno       uint32
	workchain   int32
	shard       uint64
	time        uint32
	validators  uint32 // short hash of the set that made it
	catchain    uint32
	prevKey     uint32 // number of the key block before
	extra       *cell.Cell
	stateUpdate *cell.Cell
}

// shardIdent takes a shard's prefix, and returns it with the bit that ends it.
func shardIdent(r *cell.Reader) (workchain int32, shard uint64) {
	r.Tag(2, 0, "shard")
	bits := int(r.Uint(6))
	workchain = int32(r.Uint(32))
	prefix := r.Uint(64)
	if bits > 60 || prefix<<bits != 0 {
		r.Fail("shard's prefix is %016x of %d bits", prefix, bits)
		return 0, 0
	}
	return workchain, prefix | 1<<(63-bits)
}

// openBlock reads the header of the block of which a root is a Merkle proof (block.tlb: Block, BlockInfo).
func openBlock(root *cell.Cell, want [32]byte, globalID int32) (header, error) {
	var h header
	block, err := cell.Unwrap(root, want)
	if err != nil {
		return h, err
	}
	r := block.Read()
	r.Tag(32, 0x11ef55aa, "block")
	if got := int32(r.Uint(32)); r.Err() == nil && got != globalID {
		r.Fail("block is of network %d, want %d", got, globalID)
	}
	info := r.Open()
	r.Ref() // value flow
	h.stateUpdate, h.extra = r.Ref(), r.Ref()
	if err := r.End(); err != nil {
		return h, fmt.Errorf("block: %w", err)
	}
	info.Tag(32, 0x9bc7a987, "block's header")
	info.Skip(32) // version
	notMaster := info.Bool()
	info.Skip(5) // after a merge, before and after a split, wants of both
	h.keyBlock = info.Bool()
	vertical := info.Bool()
	flags := info.Uint(8)
	if info.Err() == nil && (flags > 1 || vertical) {
		info.Fail("header has flags %#x and a vertical step: %t, want at most 0x1 and none", flags, vertical)
	}
	h.seqno = uint32(info.Uint(32))
	info.Skip(32) // vertical number, which counts hard forks
	h.workchain, h.shard = shardIdent(info)
	h.time = uint32(info.Uint(32))
	info.Skip(64 + 64) // logical times
	h.validators, h.catchain = uint32(info.Uint(32)), uint32(info.Uint(32))
	info.Skip(32) // least masterchain block referred to
	h.prevKey = uint32(info.Uint(32))
	if err := info.Err(); err != nil {
		return h, fmt.Errorf("block's header: %w", err)
	}
	if notMaster != (h.workchain != Masterchain) {
		return h, fmt.Errorf("block's header: workchain is %d, and it says of not being the masterchain's: %t", h.workchain, notMaster)
	}
	return h, nil
}

// is refuses a header that is not of the block that id names.
func (h header) is(id BlockID) error {
	if got := (BlockID{h.workchain, h.shard, h.seqno, id.RootHash, id.FileHash}); got != id {
		return fmt.Errorf("header is of block %v, want %v", got, id)
	}
	return nil
}

// openState reads the state after the block of which roots[0] is a proof; roots[1] is one of the state. It returns the accounts and, in the
// masterchain, the state's extra.
func openState(roots []*cell.Cell, id BlockID, globalID int32) (accounts, extra *cell.Cell, err error) {
	if len(roots) != 2 {
		return nil, nil, fmt.Errorf("proof has %d roots, want 2: of the block and of its state", len(roots))
	}
	h, err := openBlock(roots[0], id.RootHash, globalID)
	if err == nil {
		err = h.is(id)
	}
	if err != nil {
		return nil, nil, err
	}
	hash, err := cell.NewHash(h.stateUpdate)
	if err != nil {
		return nil, nil, fmt.Errorf("block's update of the state: %w", err)
	}
	state, err := cell.Unwrap(roots[1], hash)
	if err != nil {
		return nil, nil, fmt.Errorf("state: %w", err)
	}
	r := state.Read()
	r.Tag(32, 0x9023afe2, "state")
	if got := int32(r.Uint(32)); r.Err() == nil && got != globalID {
		r.Fail("state is of network %d, want %d", got, globalID)
	}
	workchain, shard := shardIdent(r)
	seqno := uint32(r.Uint(32))
	r.Skip(32 + 32 + 64 + 32) // vertical number, time, logical time, least masterchain block
	r.Ref()                   // queue of messages
	r.Skip(1)                 // before a split
	accounts = r.Ref()
	r.Ref() // statistics
	extra = r.MaybeRef()
	if err := r.End(); err != nil {
		return nil, nil, fmt.Errorf("state: %w", err)
	}
	if got := (BlockID{workchain, shard, seqno, id.RootHash, id.FileHash}); got != id {
		return nil, nil, fmt.Errorf("state is of block %v, want %v", got, id)
	}
	return accounts, extra, nil
}

// skipCurrencies takes a CurrencyCollection and returns its coins; other currencies are passed.
func skipCurrencies(r *cell.Reader) uint64 {
	coins := r.Coins()
	r.MaybeRef()
	return coins
}
