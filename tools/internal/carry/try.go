package carry

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
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

// Step is one transaction of a dry run.
type Step struct {
	At      ton.Address
	Exit    int64 // of the computation, or of its actions where only they failed
	Aborted bool
	// Note says that the message brought next to nothing: a contract tells another of itself so, and whether that one pays for listening is
	// its own affair.
	Note bool
}

// Effect is what messages would do.
type Effect struct {
	Steps []Step
	// Change is what each account has more or less afterwards, in nanotons: the sender's is what all costs him, but for his wallet's own
	// fee, and without the name of a fee.
	Change map[ton.Address]int64
	// After are the accounts afterwards.
	After map[ton.Address]chain.Account
}

// Failed says why messages would not do what they are for, or nil.
func (e Effect) Failed(name func(ton.Address) string) error {
	var errs []error
	for _, s := range e.Steps {
		if s.Aborted && !s.Note {
			errs = append(errs, fmt.Errorf("%s refuses the message with exit code %d", name(s.At), s.Exit))
		}
	}
	return errors.Join(errs...)
}

// Exit returns the exit code of the last transaction that was aborted, or 0.
func (e Effect) Exit() (code int64) {
	for _, s := range e.Steps {
		if s.Aborted && !s.Note {
			code = s.Exit
		}
	}
	return code
}

// maxSteps bounds a dry run.
const maxSteps = 64

// machine is built once: its tables take longer than a thousand transactions.
var machine = sync.OnceValue(tvm.NewTVM)

// prices make a config of what the base chain has charged since 2024: gas, forwarding, storage.
var prices = sync.OnceValues(func() (*tvm.PreparedBlockchainConfig, error) {
	c := cell.BeginCell
	gas := c().MustStoreUInt(0xd1, 8).MustStoreUInt(100, 64).MustStoreUInt(40_000, 64).MustStoreUInt(0xde, 8).MustStoreUInt(26_214_400, 64).
		MustStoreUInt(1_000_000, 64).MustStoreUInt(1_000_000, 64).MustStoreUInt(10_000, 64).MustStoreUInt(10_000_000, 64).
		MustStoreUInt(100_000_000, 64).MustStoreUInt(1_000_000_000, 64).EndCell()
	forward := c().MustStoreUInt(0xea, 8).MustStoreUInt(400_000, 64).MustStoreUInt(26_214_400, 64).MustStoreUInt(2_621_440_000, 64).
		MustStoreUInt(98_304, 32).MustStoreUInt(21_845, 16).MustStoreUInt(21_845, 16).EndCell()
	storage := cell.NewDict(32)
	if err := storage.SetIntKey(big.NewInt(0), c().MustStoreUInt(0xcc, 8).MustStoreUInt(0, 32).MustStoreUInt(1, 64).MustStoreUInt(500, 64).
		MustStoreUInt(1000, 64).MustStoreUInt(500_000, 64).EndCell()); err != nil {
		return nil, err
	}
	config := cell.NewDict(32)
	for n, param := range map[int64]*cell.Cell{
		8:  c().MustStoreUInt(0xc4, 8).MustStoreUInt(uint64(vm.MaxSupportedGlobalVersion), 32).MustStoreUInt(0x1ee, 64).EndCell(),
		18: storage.AsCell(), 20: gas, 21: gas, 24: forward, 25: forward,
	} {
		if err := config.SetIntKey(big.NewInt(n), c().MustStoreRef(param).EndCell()); err != nil {
			return nil, err
		}
	}
	return tvm.PrepareBlockchainConfig(config.AsCell())
})

func foreign(c *house.Cell) (*cell.Cell, error) {
	if c == nil {
		return nil, nil
	}
	bag, err := house.Encode(c)
	if err != nil {
		return nil, err
	}
	return cell.FromBOC(bag)
}

func own(c *cell.Cell) (*house.Cell, error) {
	if c == nil {
		return nil, nil
	}
	return house.ParseOne(c.ToBOC())
}

func foreignAddress(a ton.Address) *address.Address {
	return address.NewAddress(0, byte(a.Workchain), a.Account[:])
}

// trial is a dry run as it goes on.
type trial struct {
	block    *tvm.BlockContext
	accounts map[ton.Address]*tvm.PreparedAccount
	lt       uint64
	effect   Effect
}

// Try runs messages that a wallet sends at once, over accounts as a block has them, at a time. Accounts that are not given are not run:
// what is sent to them counts as theirs.
func Try(from ton.Address, messages []Message, accounts []chain.Account, now uint32) (Effect, error) {
	config, err := prices()
	if err != nil {
		return Effect{}, err
	}
	t := &trial{accounts: map[ton.Address]*tvm.PreparedAccount{}, lt: 1,
		effect: Effect{Change: map[ton.Address]int64{}, After: map[ton.Address]chain.Account{}}}
	if t.block, err = config.NewBlockContext(tvm.BlockOptions{Now: now}); err != nil {
		return Effect{}, err
	}
	for _, a := range accounts {
		t.lt = max(t.lt, a.Last.LT+1)
		if t.accounts[a.Address], err = prepare(a, now); err != nil {
			return Effect{}, fmt.Errorf("account %s: %w", a.Address, err)
		}
	}
	before := t.balances()
	// A wallet sends all at once, so what follows from the first comes after the last.
	var queue []*cell.Cell
	for i, m := range messages {
		in, err := t.encode(from, m, now)
		if err != nil {
			return Effect{}, fmt.Errorf("message %d, %s: %w", i+1, m.Name, err)
		}
		queue = append(queue, in)
		t.effect.Change[from] -= int64(m.Value)
	}
	for ; len(queue) > 0; queue = queue[1:] {
		out, err := t.deliver(queue[0])
		if err != nil {
			return Effect{}, err
		}
		if queue = append(queue, out...); len(t.effect.Steps) > maxSteps {
			return Effect{}, fmt.Errorf("more than %d transactions follow", maxSteps)
		}
	}
	for a, n := range t.balances() {
		t.effect.Change[a] += n - before[a]
	}
	for _, a := range accounts {
		if t.effect.After[a.Address], err = after(a, t.accounts[a.Address]); err != nil {
			return Effect{}, err
		}
	}
	return t.effect, nil
}

func (t *trial) balances() map[ton.Address]int64 {
	b := map[ton.Address]int64{}
	for a, p := range t.accounts {
		if s := p.State(); s != nil && s.IsValid {
			b[a] = s.Balance.Nano().Int64()
		}
	}
	return b
}

// prepare makes an account for the machine. What it would owe for storage until now is not known from its balance, and left out.
func prepare(a chain.Account, now uint32) (*tvm.PreparedAccount, error) {
	b := new(house.Builder)
	switch a.Status {
	case chain.Absent:
		b.Bool(false)
	case chain.Uninit, chain.Active:
		b.Bool(true).Address(a.Address).Uint(0, 3+3+3).Uint(uint64(now), 32).Bool(false).Uint(a.Last.LT+1, 64).Coins(a.Balance).Bool(false)
		if b.Bool(a.Status == chain.Active); a.Status == chain.Active {
			b.Bool(false).Bool(false).MaybeRef(a.Code).MaybeRef(a.Data).MaybeRef(nil)
		} else {
			b.Bool(false)
		}
	default:
		return nil, fmt.Errorf("it is %s", a.Status)
	}
	c, err := b.Cell()
	if err != nil {
		return nil, err
	}
	state, err := foreign(c)
	if err != nil {
		return nil, err
	}
	return tvm.PrepareAccount(&tlb.ShardAccount{Account: state, LastTransHash: make([]byte, 32), LastTransLT: a.Last.LT}, foreignAddress(a.Address))
}

// after is the account as it is then.
func after(a chain.Account, p *tvm.PreparedAccount) (chain.Account, error) {
	s := p.State()
	if s == nil || !s.IsValid {
		return a, nil
	}
	a.Balance = s.Balance.Nano().Uint64()
	if s.StateInit == nil {
		return a, nil
	}
	var err error
	if a.Status = chain.Active; a.Code == nil || s.StateInit.Code != nil {
		a.Code, err = own(s.StateInit.Code)
	}
	if err == nil {
		a.Data, err = own(s.StateInit.Data)
	}
	return a, err
}

// encode makes the message that a wallet sends.
func (t *trial) encode(from ton.Address, m Message, now uint32) (*cell.Cell, error) {
	t.lt++
	in := &tlb.InternalMessage{IHRDisabled: true, Bounce: true, SrcAddr: foreignAddress(from), DstAddr: foreignAddress(m.To),
		Amount: tlb.FromNanoTONU(uint64(m.Value)), CreatedLT: t.lt, CreatedAt: now}
	var err error
	if in.Body, err = foreign(m.Body); err != nil {
		return nil, err
	}
	if in.Body == nil {
		in.Body = cell.BeginCell().EndCell()
	}
	if m.Init != nil {
		init, err := foreign(m.Init)
		if err != nil {
			return nil, err
		}
		in.StateInit = new(tlb.StateInit)
		if err := tlb.Parse(in.StateInit, init); err != nil {
			return nil, err
		}
	}
	return tlb.ToCell(in)
}

// deliver runs one message, and returns those that follow.
func (t *trial) deliver(raw *cell.Cell) ([]*cell.Cell, error) {
	m, err := tvm.PrepareMessage(raw)
	if err != nil {
		return nil, err
	}
	in, ok := m.Message().Msg.(*tlb.InternalMessage)
	if !ok {
		return nil, fmt.Errorf("a contract sends a %T", m.Message().Msg)
	}
	to := ton.Address{Workchain: int8(in.DstAddr.Workchain()), Account: [32]byte(in.DstAddr.Data())}
	account := t.accounts[to]
	if account == nil {
		t.effect.Change[to] += in.Amount.Nano().Int64()
		return nil, nil
	}
	t.lt += 10
	r, err := machine().EmulateTransaction(t.block, account, m, tvm.TransactionOptions{LogicalTime: int64(t.lt)})
	if err != nil {
		return nil, err
	}
	if r.TransactionCell == nil {
		return nil, fmt.Errorf("%s takes no message (exit code %d)", to, r.ExitCode)
	}
	tx, err := r.ParseTransaction()
	if err != nil {
		return nil, err
	}
	t.lt = max(t.lt, r.EndLT)
	t.accounts[to] = r.NextAccount
	s := Step{At: to, Exit: r.ExitCode, Note: in.Amount.Nano().Uint64() <= 1}
	if d, ok := tx.Description.(tlb.TransactionDescriptionOrdinary); ok {
		if s.Aborted = d.Aborted; s.Exit == 0 && d.ActionPhase != nil {
			s.Exit = int64(d.ActionPhase.ResultCode)
		}
	}
	t.effect.Steps = append(t.effect.Steps, s)
	var out []*cell.Cell
	for _, sent := range r.OutMessages {
		if sent.Msg.MsgType == tlb.MsgTypeInternal {
			out = append(out, sent.Cell)
		}
	}
	return slices.Clip(out), nil
}
