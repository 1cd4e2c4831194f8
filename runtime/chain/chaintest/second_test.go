package chaintest_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xssnick/tonutils-go/tl"
	"github.com/xssnick/tonutils-go/tlb"
	tonclient "github.com/xssnick/tonutils-go/ton"
	tonutils "github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/measure/ton"
	. "chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
)

// TestTonutilsAgrees has tonutils-go's own client read the answers of the chain of these tests and check their proofs.
func TestTonutilsAgrees(t *testing.T) {
	for name, o := range map[string]chaintest.Options{
		"catchain": {}, "shuffled": {Shuffle: true, Validators: 13, Main: 9}, "simplex": {Simplex: true}, "two shards": {Depth: 1},
	} {
		c := newChain(t, o)
		for range 9 {
			step(t, c, send(address(1), 1e9), send(address(0x81), 1e9))
		}
		var proof tonclient.PartialBlockProof
		if left, err := tl.Parse(&proof, must(c.BlockProof(c.Network.Anchor.Key, BlockID{})), true); err != nil || len(left) != 0 {
			t.Fatalf("%s: %v, and %d bytes are left", name, err, len(left))
		}
		if len(proof.Steps) == 0 {
			t.Fatalf("%s: no step", name)
		}
		for i, s := range proof.Steps {
			link, ok := s.(tonclient.BlockLinkForward)
			if !ok {
				t.Fatalf("%s: step %d is a %T", name, i, s)
			}
			config, destination := must(tonutils.FromBOC(link.ConfigProof)), must(tonutils.FromBOC(link.DestProof))
			if err := tonclient.CheckForwardBlockProof(link.From, link.To, link.ToKeyBlock, config, destination, link.SignatureSet); err != nil {
				t.Errorf("%s: step %d: %v", name, i, err)
			}
		}
		for _, a := range []ton.Address{address(1), address(0x81)} {
			var state tonclient.AccountState
			if _, err := tl.Parse(&state, must(c.AccountState(c.Last(), a)), true); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var account tlb.AccountState
			if err := tlb.Parse(&account, state.State); err != nil {
				t.Fatal(err)
			}
			if got := account.Balance.Nano().Uint64(); got != c.Balance(a) {
				t.Errorf("%s: tonutils-go reads %d, want %d", name, got, c.Balance(a))
			}
		}
	}
}

// recorded reads a file of real blocks and transactions of TON's main network, which tonutils-go's module carries for its own tests.
func recorded(t *testing.T, file string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/xssnick/tonutils-go").Output()
	if err != nil {
		t.Fatalf("finding tonutils-go's module: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), file))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestMainnetTransactions walks the history of the busiest account of a real block of the main network.
func TestMainnetTransactions(t *testing.T) {
	var fixture struct {
		Block string `json:"block_boc_base64"`
	}
	if err := json.Unmarshal(recorded(t, "tvm/testdata/tvm_replay_fat_block_66519406.json"), &fixture); err != nil {
		t.Fatal(err)
	}
	var block tlb.Block
	if err := tlb.Parse(&block, must(tonutils.FromBOC(must(base64.StdEncoding.DecodeString(fixture.Block))))); err != nil {
		t.Fatal(err)
	}
	list := must(block.ListTransactions())
	by := map[[32]byte][]*tlb.Transaction{}
	for _, tx := range list {
		by[[32]byte(tx.AccountAddr)] = append(by[[32]byte(tx.AccountAddr)], tx)
	}
	cells := transactionCells(t, &block)
	walked, aborted := 0, 0
	for account, txs := range by {
		newest, oldest := txs[len(txs)-1], txs[0]
		var bag []*tonutils.Cell
		for i := len(txs) - 1; i >= 0; i-- {
			bag = append(bag, cells[[32]byte(txs[i].Hash)])
		}
		base := Mark{LT: oldest.PrevTxLT, Hash: [32]byte(oldest.PrevTxHash)}
		if base.LT == 0 {
			base = Mark{}
		}
		trail, err := NewTrail(Account{Address: ton.Address{Account: account}, Last: Mark{LT: newest.LT, Hash: [32]byte(newest.Hash)}}, base)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for range 2 {
			err := trail.Take(chaintest.TransactionList(bag...), func(tx Transaction) error {
				want := txs[i]
				i++
				walked++
				if tx.Aborted {
					aborted++
				}
				if d, ok := want.Description.(tlb.TransactionDescriptionOrdinary); ok && d.Aborted != tx.Aborted {
					t.Errorf("transaction %d: aborted %t, want %t", tx.LT, tx.Aborted, d.Aborted)
				}
				if want.IO.In == nil || want.IO.In.MsgType != tlb.MsgTypeInternal {
					if tx.In != nil {
						t.Errorf("transaction %d: got a message, want none from inside", tx.LT)
					}
					return nil
				}
				in := want.IO.In.AsInternal()
				if tx.In == nil || tx.In.Value != in.Amount.Nano().Uint64() || tx.In.From.Account != [32]byte(in.SrcAddr.Data()) ||
					tx.In.Bounced != in.Bounced {
					t.Errorf("transaction %d: got message %+v, want %+v", tx.LT, tx.In, in)
				}
				return nil
			})
			if err != nil {
				t.Fatalf("account %x: %v", account, err)
			}
		}
	}
	if walked != len(list) || walked < 200 || aborted == 0 {
		t.Errorf("%d of %d transactions walked, %d of them aborted", walked, len(list), aborted)
	}
}

// transactionCells are the cells of a block's transactions by their hash.
func transactionCells(t *testing.T, block *tlb.Block) map[[32]byte]*tonutils.Cell {
	t.Helper()
	found := map[[32]byte]*tonutils.Cell{}
	var walk func(c *tonutils.Cell)
	seen := map[[32]byte]bool{}
	walk = func(c *tonutils.Cell) {
		if seen[[32]byte(c.Hash())] {
			return
		}
		seen[[32]byte(c.Hash())] = true
		found[[32]byte(c.Hash())] = c
		for i := range int(c.RefsNum()) {
			walk(c.MustPeekRef(i))
		}
	}
	walk(block.Extra.ShardAccountBlocks)
	return found
}
