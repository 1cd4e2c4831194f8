package chaintest_test

import (
	"crypto/ed25519"
	"strings"
	"testing"

	tonaddress "github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/ton/wallet"
	tonutils "github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain/chaintest"
)

// TestWalletAgrees holds the wallet of this folder against wallet v5's own code, which tonutils-go has: both take and refuse the same messages,
// sent by the same key over the same data, and do the same with those that they take.
func TestWalletAgrees(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	genuine := must(wallet.GetStateInit(key.Public().(ed25519.PublicKey), wallet.ConfigV5R1Final{NetworkGlobalID: chaintest.GlobalID}, 0))
	own := &tlb.StateInit{Code: chaintest.Tonutils(chaintest.Code("wallet")), Data: genuine.Data}
	id := wallet.V5R1ID{NetworkGlobalID: chaintest.GlobalID}.Serialized()
	to := tonaddress.NewAddress(0, 0, append([]byte{0xee}, make([]byte, 31)...))
	type request struct {
		op, id, seqno uint32
		until         int64 // from now
		mode          uint8
		key           ed25519.PrivateKey
		further       bool
	}
	good := request{op: 0x7369676e, id: id, until: 60, mode: 3, key: key}
	for name, change := range map[string]func(*request){
		"good":              func(*request) {},
		"another operation": func(r *request) { r.op++ },
		"another wallet":    func(r *request) { r.id++ },
		"a count ahead":     func(r *request) { r.seqno = 1 },
		"too late":          func(r *request) { r.until = -1 },
		"another key":       func(r *request) { r.key = ed25519.NewKeyFromSeed(append([]byte{1}, make([]byte, 31)...)) },
		"errors count":      func(r *request) { r.mode = 1 },
		"further actions":   func(r *request) { r.further = true },
	} {
		r := good
		change(&r)
		var took []bool
		var left []uint64
		for _, init := range []*tlb.StateInit{genuine, own} {
			c := newChain(t, chaintest.Options{})
			code := must(tlb.ToCell(init))
			at := ton.Address{Account: [32]byte(code.Hash())}
			step(t, c, chaintest.Message{From: ton.Address{Account: [32]byte{0xfe}}, To: at, Value: 2e9})
			actions := must(wallet.PackV5OutActions([]*wallet.Message{{Mode: r.mode, InternalMessage: &tlb.InternalMessage{IHRDisabled: true, DstAddr: to,
				Amount: tlb.FromNanoTONU(1e9), Body: tonutils.BeginCell().EndCell()}}})).EndCell()
			s := actions.MustBeginParse()
			list := s.MustLoadMaybeRef().MustToCell()
			unsigned := tonutils.BeginCell().MustStoreUInt(uint64(r.op), 32).MustStoreUInt(uint64(r.id), 32).
				MustStoreUInt(uint64(int64(c.Now())+1+r.until), 32).MustStoreUInt(uint64(r.seqno), 32).MustStoreMaybeRef(list).MustStoreBoolBit(r.further)
			body := tonutils.BeginCell().MustStoreBuilder(unsigned).MustStoreSlice(ed25519.Sign(r.key, unsigned.EndCell().Hash()), 512).EndCell()
			outcomes, err := c.Step(chaintest.Message{To: at, Init: chaintest.House(code), Body: chaintest.House(body)})
			if err != nil && !strings.Contains(err.Error(), "not accepted") {
				t.Fatalf("%s: %v", name, err)
			}
			took = append(took, err == nil && !outcomes[0].Aborted)
			left = append(left, c.Balance(ton.Address{Account: [32]byte(to.Data())}))
		}
		if took[0] != took[1] || left[0] != left[1] || left[0] > 0 != (name == "good") {
			t.Errorf("%s: wallet v5 takes it: %t, and pays %d; the one of these tests: %t, %d", name, took[0], left[0], took[1], left[1])
		}
	}
}
