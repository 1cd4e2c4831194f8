package localchain

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/onchain"
)

// Constants of wallet v5.
const (
	opSigned = 0x7369676e
	opSend   = 0x0ec3c86d
	sendMode = 1 + 2 // fees apart, and errors are passed over: a message from outside must
)

// body signs messages, which a wallet sends in their order.
func (w *Wallet) body(messages []carry.Message, seqno uint32, until time.Time) (*cell.Cell, error) {
	list, err := new(cell.Builder).Cell()
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		sent, err := message{m.To, uint64(m.Value), m.Init, m.Body}.cell()
		if err != nil {
			return nil, err
		}
		if list, err = new(cell.Builder).Ref(list).Uint(opSend, 32).Uint(sendMode, 8).Ref(sent).Cell(); err != nil {
			return nil, err
		}
	}
	unsigned := func() *cell.Builder {
		return new(cell.Builder).Uint(opSigned, 32).Uint(uint64(id()), 32).Uint(uint64(until.Unix()), 32).Uint(uint64(seqno), 32).
			MaybeRef(list).Bool(false)
	}
	c, err := unsigned().Cell()
	if err != nil {
		return nil, err
	}
	hash := c.Hash()
	return unsigned().Bytes(ed25519.Sign(w.key, hash[:])).Cell()
}

// external wraps a body as a message from outside (block.tlb: ext_in_msg_info).
func (w *Wallet) external(body *cell.Cell, deploy bool) ([]byte, error) {
	b := new(cell.Builder).Uint(0b10, 2).Uint(0, 2).Address(w.Address).Coins(0)
	if b.Bool(deploy); deploy {
		b.Bool(true).Ref(w.init)
	}
	c, err := b.Bool(true).Ref(body).Cell()
	if err != nil {
		return nil, err
	}
	return cell.Encode(c)
}

// Send does what a request of TON Connect asks for: the wallet's own messages, on this network, in time. It reads the wallet's count by
// proof and hands the signed message to the liteservers.
func (w *Wallet) Send(ctx context.Context, o onchain.Options, request []byte) ([]carry.Message, error) {
	messages, from, global, until, err := carry.ParseConnect(request)
	switch {
	case err != nil:
		return nil, err
	case from != w.Address:
		return nil, fmt.Errorf("request is for wallet %s, and this is %s", from, w.Address)
	case global != GlobalID:
		return nil, fmt.Errorf("request is for network %d, and this wallet is of %d", global, GlobalID)
	}
	r, err := onchain.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	account, err := r.Account(ctx, w.Address)
	if err != nil {
		return nil, err
	}
	seqno, deployed, err := sequence(account)
	if err != nil {
		return nil, err
	}
	body, err := w.body(messages, seqno, until)
	if err != nil {
		return nil, err
	}
	bag, err := w.external(body, !deployed)
	if err != nil {
		return nil, err
	}
	return messages, r.Post(ctx, bag)
}

// Balance reads what an account has, by proof.
func Balance(ctx context.Context, o onchain.Options, a ton.Address) (ton.Coins, error) {
	r, err := onchain.Open(ctx, o)
	if err != nil {
		return 0, err
	}
	account, err := r.Account(ctx, a)
	return ton.Coins(account.Balance), err
}
