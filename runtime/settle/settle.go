// Package settle has the rules by which a guest that plays COCOON's proxy signs: whom it serves, what it charges, what it pays out, what it
// grants back, and when it closes. Each is a pure function of what the chain proves (runtime/chain) and what the journal counts.
//
// The contracts do not tie payouts to charges: what these rules refuse is all that protects one client's deposit from a payout for
// another's. They are made so that an older view of the chain, a second guest with the same key, or a journal that lost its newest
// records can only make them sign less.
//
// The common path: fold a proxy's whole history into a Book, take the accounts of a View under one head, and ask.
//
// What this package does not promise: that a message lands. Whoever carries it may keep it back.
package settle

import (
	"errors"
	"fmt"
	"math/bits"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
)

// Terms are what the measured config and the guest's own key fix.
type Terms struct {
	Root   ton.Address
	Key    [32]byte    // the attested claim key
	Owner  ton.Address // who is paid: the payout owner of the measured config
	Params claim.Params
}

// Guard returns the address of the proxy's owner.
func (t Terms) Guard() (ton.Address, error) { return claim.Guard{Owner: t.Owner}.Address() }

// Proxy returns the address of the guest's proxy contract.
func (t Terms) Proxy() (ton.Address, error) {
	guard, err := t.Guard()
	if err != nil {
		return ton.Address{}, err
	}
	return claim.Address(t.Params.ProxyCode, t.Params.NewProxy(guard, t.Key, t.Root))
}

// Client returns the address of a client's contract under the guest's proxy.
func (t Terms) Client(owner ton.Address) (ton.Address, error) {
	proxy, err := t.Proxy()
	if err != nil {
		return ton.Address{}, err
	}
	return claim.Address(t.Params.ClientCode, t.Params.NewClient(owner, proxy, t.Key))
}

// Worker returns the address of the guest's worker contract, whose owner is the payout owner.
func (t Terms) Worker() (ton.Address, error) {
	proxy, err := t.Proxy()
	if err != nil {
		return ton.Address{}, err
	}
	return claim.Address(t.Params.WorkerCode, t.Params.NewWorker(t.Owner, proxy, t.Key))
}

// View is the guest's contracts as one block has them.
type View struct {
	Time   uint32     // of the block
	Last   chain.Mark // the proxy's newest transaction, up to which a Book must tell
	Native uint64     // nanotons that the proxy's account has
	Proxy  claim.Proxy
	Worker claim.Worker
}

// fees are what a payout or a refund may cost the proxy beyond the coins that it is about, in nanotons.
const fees = 50_000_000

// errDiffers says that a contract is not the one that the terms make.
var errDiffers = errors.New("contract differs")

// contract checks that an account is the one that the terms lead to: address, code, and, where the chain has it, its state.
func contract(name string, a chain.Account, want ton.Address, code *cell.Cell) error {
	switch {
	case a.Address != want:
		return fmt.Errorf("%s: %w: address is %s, want %s", name, errDiffers, a.Address, want)
	case a.Status != chain.Active || a.Code == nil || a.Data == nil:
		return fmt.Errorf("%s: %w: account is %s, want active", name, errDiffers, a.Status)
	case a.Code.Hash() != code.Hash():
		return fmt.Errorf("%s: %w: code is %x, want %x", name, errDiffers, a.Code.Hash(), code.Hash())
	}
	return nil
}

// Look reads the proxy and the worker, and refuses every other contract than those that the terms make. A worker that is not deployed yet
// has been paid nothing.
func Look(t Terms, at uint32, proxy, worker chain.Account) (View, error) {
	v := View{Time: at, Last: proxy.Last, Native: proxy.Balance}
	address, err := t.Proxy()
	if err != nil {
		return View{}, err
	}
	if err := contract("proxy", proxy, address, t.Params.ProxyCode); err != nil {
		return View{}, err
	}
	if v.Proxy, err = claim.ParseProxy(proxy.Data); err != nil {
		return View{}, err
	}
	if address, err = t.Worker(); err != nil {
		return View{}, err
	}
	if worker.Address == address && worker.Status != chain.Active {
		v.Worker = t.Params.NewWorker(t.Owner, proxy.Address, t.Key)
		return v, nil
	}
	if err := contract("worker", worker, address, t.Params.WorkerCode); err != nil {
		return View{}, err
	}
	v.Worker, err = claim.ParseWorker(worker.Data)
	return v, err
}

// Client reads a client's contract, and refuses every other contract than the one that its owner has under the terms.
func Client(t Terms, a chain.Account) (claim.Client, error) {
	if a.Data == nil {
		return claim.Client{}, fmt.Errorf("client: %w: account is %s, want active", errDiffers, a.Status)
	}
	d, err := claim.ParseClient(a.Data)
	if err != nil {
		return claim.Client{}, err
	}
	address, err := t.Client(d.Owner)
	if err != nil {
		return claim.Client{}, err
	}
	return d, contract("client", a, address, t.Params.ClientCode)
}

// cost is what tokens cost; ok says that it fits.
func cost(tokens, price uint64) (nanotons uint64, ok bool) {
	hi, lo := bits.Mul64(tokens, price)
	return lo, hi == 0
}

// Serve refuses a request of a client that could not pay for it. counted is the journal's count of the client's tokens, and worst what the
// request may come to.
func Serve(v View, price uint64, c claim.Client, counted, worst uint64) error {
	switch {
	case v.Proxy.State != claim.Normal:
		return fmt.Errorf("proxy is %s, want normal", v.Proxy.State)
	case v.Worker.State != claim.Normal:
		return fmt.Errorf("worker is %s, want normal", v.Worker.State)
	case c.State != claim.Normal:
		return fmt.Errorf("client is %s, want normal", c.State)
	case counted < c.Tokens:
		counted = c.Tokens // the journal is behind the chain: what the chain has was charged
	}
	owed := counted - c.Tokens
	if owed > claim.MaxTokens || worst > claim.MaxTokens-owed {
		return fmt.Errorf("%d tokens are unsettled, and the request may need %d", owed, worst)
	}
	if limit := min(c.Balance, v.Proxy.Stake); true {
		if n, ok := cost(owed+worst, price); !ok || n > limit {
			return fmt.Errorf("%d unsettled tokens and %d of this request cost more than the %d nanotons that stand for them", owed, worst, limit)
		}
	}
	return nil
}

// Charge returns the count to charge a client, and false where there is nothing to charge: strictly above what the chain has, and costing
// strictly less than the client's balance, so that a charge never takes less than it says. counted is the journal's count.
func Charge(price uint64, c claim.Client, counted uint64) (uint64, bool) {
	if c.State == claim.Closed || price == 0 || c.Balance == 0 || c.Tokens >= claim.MaxTokens {
		return 0, false
	}
	count := min(counted, claim.MaxTokens, c.Tokens+min((c.Balance-1)/price, claim.MaxTokens))
	return count, count > c.Tokens
}

// Payout returns the count to pay the worker, and false where there is none: at most what charges really took, and as much of it as the
// proxy has beyond its stake, its clients' balances, what it owes its owner, and fees. A payout that the proxy could not pay would be
// lost for ever.
func Payout(v View, b *Book) (uint64, bool) {
	price := v.Proxy.Params.Price.NanotonPerToken
	if b.Mark != v.Last || v.Proxy.State == claim.Closed || v.Worker.State == claim.Closed || price == 0 {
		return 0, false
	}
	reserved, ok := sum(v.Proxy.Stake, b.Deposits, v.Proxy.Balance, fees)
	if !ok || v.Native <= reserved || v.Worker.Tokens >= claim.MaxTokens {
		return 0, false
	}
	count := min(b.Took()/price, v.Worker.Tokens+min((v.Native-reserved)/price, claim.MaxTokens), claim.MaxTokens)
	return count, count > v.Worker.Tokens
}

func sum(list ...uint64) (total uint64, ok bool) {
	for _, n := range list {
		var carry uint64
		if total, carry = bits.Add64(total, n, 0); carry != 0 {
			return 0, false
		}
	}
	return total, true
}

// Grant returns the count with which a client gets the rest of its deposit back, and false where none is to be granted: only when it or the
// proxy is closing, only of a deposit that the proxy has, and charging all that the journal or the chain knows.
func Grant(v View, b *Book, address ton.Address, c claim.Client, counted uint64) (uint64, bool) {
	i, known := b.index[address]
	if c.State != claim.Closing && v.Proxy.State != claim.Closing || c.State == claim.Closed && c.Balance == 0 ||
		v.Proxy.State == claim.Closed {
		return 0, false
	}
	if b.Mark != v.Last || !known || b.clients[i].unbacked {
		return 0, false // its deposit is not with the proxy: the refund would be another's
	}
	if need, ok := sum(c.Balance, fees); !ok || v.Native < need {
		return 0, false
	}
	return min(max(counted, c.Tokens), claim.MaxTokens), true
}

// LastPayout returns the count that ends the worker, and false while a client is open or the proxy could not pay.
func LastPayout(v View, b *Book) (uint64, bool) {
	if b.Mark != v.Last || v.Proxy.State != claim.Closing || v.Worker.State == claim.Closed || b.Open != 0 {
		return 0, false
	}
	due := max(b.Took()/max(v.Proxy.Params.Price.NanotonPerToken, 1), v.Worker.Tokens)
	if due == v.Worker.Tokens {
		return due, true
	}
	count, ok := Payout(v, b)
	return count, ok && count == due
}

// Close says whether the proxy's end may begin: unsettled is how many clients the journal counts beyond what the chain has charged.
func Close(v View, unsettled int) bool { return v.Proxy.State == claim.Normal && unsettled == 0 }

// CloseComplete says whether the proxy may be emptied: its delay is over, every client that its history knows is closed at zero, and the
// worker has been paid what charges took. It hands out all that the proxy has.
func CloseComplete(v View, b *Book) bool {
	price := max(v.Proxy.Params.Price.NanotonPerToken, 1)
	return b.Mark == v.Last && v.Proxy.State == claim.Closing && v.Time >= v.Proxy.Unlock &&
		b.Open == 0 && b.Deposits == 0 && v.Worker.Tokens >= b.Took()/price
}
