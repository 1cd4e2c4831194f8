package chain

import (
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
)

// Status says what there is at an address.
type Status uint8

// The statuses. Absent is proven absence, never a lack of proof.
const (
	Absent Status = iota
	Uninit        // coins and no code
	Active
	Frozen
)

func (s Status) String() string {
	return [...]string{"absent", "uninit", "active", "frozen"}[s]
}

// Mark is a place in an account's history: a transaction. The zero Mark is before the first.
type Mark struct {
	LT   uint64
	Hash [32]byte
}

// Account is what a block says of an account.
type Account struct {
	Address    ton.Address
	Status     Status
	Balance    uint64 // nanotons
	Last       Mark   // the newest transaction
	Code, Data *cell.Cell
}

// Prove returns an account as it was at known.Last, from a liteserver's answer to getAccountState (liteServer.accountState, boxed) of that
// block. Of a shard's account the shard's block is the one to which the masterchain's state leads from the address, whatever the
// answer says. Accounts of the base chain alone are proven.
func Prove(n Network, known Head, address ton.Address, untrusted []byte) (Account, error) {
	a, err := prove(n, known, address, untrusted)
	if err != nil {
		return Account{}, fmt.Errorf("proving account %s: %w", address, err)
	}
	return a, nil
}

func prove(n Network, known Head, address ton.Address, untrusted []byte) (Account, error) {
	if known.Last == (BlockID{}) {
		return Account{}, errors.New("no block is known")
	}
	if int32(address.Workchain) != Basechain || address.IsZero() {
		return Account{}, errors.New("it is not of the base chain")
	}
	if len(untrusted) > MaxAnswer {
		return Account{}, rejectf("answer has %d bytes, want at most %d", len(untrusted), MaxAnswer)
	}
	a := &answer{b: untrusted}
	a.tag(idAccountState, "answer")
	of, in := a.block(), a.block()
	shardProof, proof, state := a.bytes(), a.bytes(), a.bytes()
	if err := a.end("answer"); err != nil {
		return Account{}, err
	}
	if of != known.Last {
		return Account{}, rejectf("it is of block %v, want %v", of, known.Last)
	}
	account, err := accountIn(n, known.Last, in, address, shardProof, proof, state)
	if err != nil {
		return Account{}, rejectf("%w", err)
	}
	return account, nil
}

func accountIn(n Network, master, in BlockID, address ton.Address, shardProof, proof, state []byte) (Account, error) {
	roots, err := cell.Parse(shardProof)
	if err != nil {
		return Account{}, fmt.Errorf("masterchain: %w", err)
	}
	_, extra, err := openState(roots, master, n.GlobalID)
	if err != nil {
		return Account{}, fmt.Errorf("masterchain: %w", err)
	}
	shard, err := shardOf(extra, address)
	if err != nil {
		return Account{}, fmt.Errorf("shard: %w", err)
	}
	if in != shard {
		return Account{}, fmt.Errorf("answer is of the shard's block %v, want %v", in, shard)
	}
	if roots, err = cell.Parse(proof); err != nil {
		return Account{}, fmt.Errorf("shard: %w", err)
	}
	accounts, _, err := openState(roots, shard, n.GlobalID)
	if err != nil {
		return Account{}, fmt.Errorf("shard: %w", err)
	}
	return accountOf(accounts, address, state)
}

// shardOf returns the newest block of the shard that has the address, by the masterchain's state.
func shardOf(extra *cell.Cell, address ton.Address) (BlockID, error) {
	if extra == nil {
		return BlockID{}, errors.New("the masterchain's state has no extra")
	}
	r := extra.Read()
	r.Tag(16, 0xcc26, "state's extra")
	shards := r.MaybeRef()
	if err := r.Err(); err != nil {
		return BlockID{}, err
	}
	r, err := cell.Lookup(shards, make([]byte, 4), 32) // workchain 0
	if err != nil {
		return BlockID{}, fmt.Errorf("workchain 0: %w", err)
	}
	tree := r.Open()
	if err := r.End(); err != nil {
		return BlockID{}, err
	}
	b := BlockID{Workchain: Basechain}
	depth := 0
	for tree.Bool() { // a fork of the tree
		if depth == 60 {
			tree.Fail("shards are more than 60 deep")
		}
		left, right := tree.Ref(), tree.Ref()
		if err := tree.End(); err != nil {
			return BlockID{}, err
		}
		if address.Account[depth/8]<<(depth%8)&0x80 != 0 {
			b.Shard |= 1 << (63 - depth)
			left = right
		}
		tree = left.Read()
		depth++
	}
	b.Shard |= 1 << (63 - depth)
	if tag := tree.Uint(4); tree.Err() == nil && tag != 0xa && tag != 0xb {
		tree.Fail("shard begins with %#x, want 0xa or 0xb", tag)
	}
	b.Seqno = uint32(tree.Uint(32))
	tree.Skip(32 + 64 + 64) // masterchain block that has it, logical times
	b.RootHash, b.FileHash = tree.Hash(), tree.Hash()
	return b, tree.Err()
}

// accountOf reads an account of a shard's accounts. The account itself lies in a bag of its own, and may be pruned from the proof.
func accountOf(accounts *cell.Cell, address ton.Address, bag []byte) (Account, error) {
	a := Account{Address: address}
	r := accounts.Read()
	dict := r.MaybeRef()
	if err := r.Err(); err != nil {
		return a, fmt.Errorf("accounts: %w", err)
	}
	entry, err := cell.Lookup(dict, address.Account[:], 256)
	if errors.Is(err, cell.ErrAbsent) {
		if len(bag) != 0 {
			return a, errors.New("the account is proven absent, and the answer has one")
		}
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("accounts: %w", err)
	}
	entry.Skip(5) // how deep the account's own shard may be
	skipCurrencies(entry)
	shown := entry.Ref()
	a.Last.Hash = entry.Hash()
	a.Last.LT = entry.Uint(64)
	if err := entry.End(); err != nil {
		return a, fmt.Errorf("entry of accounts: %w", err)
	}
	root, err := cell.ParseOne(bag)
	if err != nil {
		return a, fmt.Errorf("account: %w", err)
	}
	if root.Hash() != shown.Hash() {
		return a, fmt.Errorf("account is %x, want %x", root.Hash(), shown.Hash())
	}
	if err := a.read(root); err != nil {
		return a, fmt.Errorf("account: %w", err)
	}
	return a, nil
}

// read reads an account's cell (block.tlb: Account).
func (a *Account) read(c *cell.Cell) error {
	r := c.Read()
	if !r.Bool() {
		return r.End() // account_none
	}
	if got := r.Address(); r.Err() == nil && got != a.Address {
		r.Fail("it is of %s, want %s", got, a.Address)
	}
	r.VarUint(3) // cells
	r.VarUint(3) // bits
	switch extra := r.Uint(3); extra {
	case 0:
	case 1:
		r.Skip(256)
	default:
		r.Fail("storage's extra is %d, want 0 or 1", extra)
	}
	r.Skip(32) // last paid
	if r.Bool() {
		r.Coins() // due
	}
	r.Skip(64) // logical time after the last transaction
	a.Balance = skipCurrencies(r)
	switch {
	case r.Bool():
		a.Status = Active
		if r.Bool() {
			r.Skip(5)
		}
		if r.Bool() {
			r.Skip(2)
		}
		a.Code, a.Data = r.MaybeRef(), r.MaybeRef()
		r.MaybeRef() // libraries
	case r.Bool():
		a.Status = Frozen
		r.Skip(256)
	default:
		a.Status = Uninit
	}
	return r.End()
}
