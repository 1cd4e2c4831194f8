package claim

import (
	"bytes"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	second "github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
)

// testCode is a cell that stands for a contract's code.
func testCode(t testing.TB, v uint64) *cell.Cell {
	t.Helper()
	c, err := new(cell.Builder).Uint(v, 32).Cell()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func secondCode(v uint64) *second.Cell { return second.BeginCell().MustStoreUInt(v, 32).EndCell() }

func testParams(t testing.TB) Params {
	return Params{StructVersion: paramsV3, Version: 7, UniqueID: 17, Test: true,
		Price:     ton.Price{NanotonPerToken: 20, PromptWeight: 10_000, CachedWeight: 1_000, CompletionWeight: 30_000, ReasoningWeight: 30_001},
		WorkerFee: 19, ProxyDelay: 86_400, ClientDelay: 3600, MinProxyStake: 1_000_000_000, MinClientStake: 2_000_000_000,
		ProxyCode: testCode(t, 1), WorkerCode: testCode(t, 2), ClientCode: testCode(t, 3)}
}

// secondParams builds the same cell with tonutils-go, field by field as the table in CLAIM.md has them.
func secondParams(p Params, proxy, others bool) *second.Cell {
	b := second.BeginCell().MustStoreUInt(uint64(p.StructVersion), 8).MustStoreUInt(uint64(p.Version), 32).
		MustStoreUInt(uint64(p.UniqueID), 32).
		MustStoreBoolBit(p.Test).MustStoreBigCoins(new(big.Int).SetUint64(p.Price.NanotonPerToken)).
		MustStoreBigCoins(new(big.Int).SetUint64(p.WorkerFee)).
		MustStoreUInt(uint64(p.Price.PromptWeight), 32).MustStoreUInt(uint64(p.Price.CachedWeight), 32).
		MustStoreUInt(uint64(p.Price.CompletionWeight), 32).MustStoreUInt(uint64(p.Price.ReasoningWeight), 32).
		MustStoreUInt(uint64(p.ProxyDelay), 32).MustStoreUInt(uint64(p.ClientDelay), 32).
		MustStoreBigCoins(new(big.Int).SetUint64(p.MinProxyStake)).MustStoreBigCoins(new(big.Int).SetUint64(p.MinClientStake))
	code := func(there bool, v uint64) *second.Cell {
		if !there {
			return nil
		}
		return secondCode(v)
	}
	return b.MustStoreMaybeRef(code(proxy, 1)).MustStoreMaybeRef(code(others, 2)).MustStoreMaybeRef(code(others, 3)).EndCell()
}

func addr(a ton.Address) *address.Address {
	return address.NewAddress(0, byte(a.Workchain), a.Account[:])
}

// secondAddress is the address by tonutils-go's StateInit.
func secondAddress(t testing.TB, code, data *second.Cell) ton.Address {
	t.Helper()
	c, err := tlb.ToCell(tlb.StateInit{Code: code, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return ton.Address{Account: [32]byte(c.Hash())}
}

// TestContractsSameAsTonutils: parameters, data and addresses are those of a second implementation, under both versions.
func TestContractsSameAsTonutils(t *testing.T) {
	owner, root := testAddress(0, 0x11), testAddress(0, 0x22)
	key := [32]byte(testPolicy().Key)
	for _, version := range []uint8{paramsV3, paramsV4} {
		p := testParams(t)
		p.StructVersion = version
		check := func(name string, code *cell.Cell, secondCode *second.Cell, d Data, want *second.Cell) ton.Address {
			t.Helper()
			got, err := d.Cell()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if h := got.Hash(); !bytes.Equal(h[:], want.Hash()) {
				t.Errorf("%s: data's hash is %x, want %x", name, h, want.Hash())
			}
			a, err := Address(code, d)
			if err != nil || a != secondAddress(t, secondCode, want) {
				t.Errorf("%s: address is %s (%v), want %s", name, a, err, secondAddress(t, secondCode, want))
			}
			return a
		}
		lists := second.BeginCell().MustStoreUInt(0, 36).EndCell()
		r, err := NewRoot(owner, p)
		if err != nil {
			t.Fatal(err)
		}
		rootCell := second.BeginCell().MustStoreAddr(addr(owner)).MustStoreUInt(0, 32).MustStoreRef(lists).MustStoreRef(secondParams(p, true,
			true))
		if version == paramsV4 {
			r.Keys = testCode(t, 9)
			rootCell.MustStoreRef(secondCode(9))
		}
		check("root", p.ClientCode, secondCode(3), r, rootCell.EndCell())
		proxy := check("proxy", p.ProxyCode, secondCode(1), p.NewProxy(owner, key, root),
			second.BeginCell().MustStoreAddr(addr(owner)).MustStoreSlice(key[:], 256).MustStoreAddr(addr(root)).MustStoreUInt(0, 2).
				MustStoreCoins(0).MustStoreCoins(0).MustStoreUInt(0, 32).MustStoreRef(secondParams(p, false, true)).EndCell())
		check("client", p.ClientCode, secondCode(3), p.NewClient(owner, proxy, key),
			second.BeginCell().MustStoreUInt(0, 2).MustStoreCoins(0).MustStoreCoins(p.MinClientStake).MustStoreUInt(0, 64).MustStoreUInt(0, 32).
				MustStoreSlice(make([]byte, 32), 256).
				MustStoreRef(second.BeginCell().MustStoreAddr(addr(owner)).MustStoreAddr(addr(proxy)).MustStoreSlice(key[:], 256).EndCell()).
				MustStoreRef(secondParams(p, false, false)).EndCell())
		check("worker", p.WorkerCode, secondCode(2), p.NewWorker(owner, proxy, key),
			second.BeginCell().MustStoreAddr(addr(owner)).MustStoreAddr(addr(proxy)).MustStoreSlice(key[:], 256).MustStoreUInt(0, 2).
				MustStoreUInt(0, 64).MustStoreRef(secondParams(p, false, false)).EndCell())
	}
}

// guardHash is the hash of the guard's code: it is part of the address of every proxy that a guest signs for.
const guardHash = "f2b4725b191224776e28ee2c4863a33dcba76dfe4fb3ac3131f6291803a9c353"

func TestGuard(t *testing.T) {
	if got := fmt.Sprintf("%x", GuardCode().Hash()); got != guardHash {
		t.Errorf("the guard's code is %s, want %s", got, guardHash)
	}
	a, err := Guard{Owner: testAddress(0, 1)}.Address()
	if err != nil {
		t.Fatal(err)
	}
	data := second.BeginCell().MustStoreAddr(addr(testAddress(0, 1))).EndCell()
	code, err := second.FromBOC(guardBag)
	if err != nil || a != secondAddress(t, code, data) {
		t.Errorf("the guard's address is %s (%v), want %s", a, err, secondAddress(t, code, data))
	}
	if b, _ := (Guard{Owner: testAddress(0, 2)}).Address(); b == a {
		t.Error("two owners have one guard")
	}
}

// contracts are one of each, with every field set.
func contracts(t testing.TB) map[string]Data {
	p := testParams(t)
	r, err := NewRoot(testAddress(-1, 1), p)
	if err != nil {
		t.Fatal(err)
	}
	r.Version = 4
	proxy := p.NewProxy(testAddress(0, 2), [32]byte{5}, testAddress(0, 3))
	proxy.State, proxy.Balance, proxy.Stake, proxy.Unlock = Closing, 1<<40, 1<<62, 1_700_000_000
	client := p.NewClient(testAddress(0, 4), testAddress(0, 5), [32]byte{6})
	client.State, client.Balance, client.Tokens, client.Unlock, client.SecretHash = Closed, 77, 1<<64-1, 5, [32]byte{7}
	worker := p.NewWorker(testAddress(0, 6), testAddress(0, 7), [32]byte{8})
	worker.State, worker.Tokens = Closed, 12
	return map[string]Data{"root": r, "proxy": proxy, "client": client, "worker": worker}
}

// reparse reads a cell as each kind of contract and returns what was understood.
func reparse(c *cell.Cell) map[string]Data {
	got := map[string]Data{}
	if d, err := ParseRoot(c); err == nil {
		got["root"] = d
	}
	if d, err := ParseProxy(c); err == nil {
		got["proxy"] = d
	}
	if d, err := ParseClient(c); err == nil {
		got["client"] = d
	}
	if d, err := ParseWorker(c); err == nil {
		got["worker"] = d
	}
	return got
}

// TestDataReadBack: each contract's data is read as that contract's and as no other's, and built again to the same cell.
func TestDataReadBack(t *testing.T) {
	for name, d := range contracts(t) {
		c, err := d.Cell()
		if err != nil {
			t.Fatal(err)
		}
		got := reparse(c)
		if len(got) != 1 || got[name] == nil {
			t.Errorf("%s is read as %v", name, got)
			continue
		}
		again, err := got[name].Cell()
		if err != nil || again.Hash() != c.Hash() {
			t.Errorf("%s, built again, is another cell (%v)", name, err)
		}
	}
	want := contracts(t)["client"].(Client)
	c, err := want.Cell()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseClient(c); err != nil || got != want {
		t.Errorf("client: got %+v (%v), want %+v", got, err, want)
	}
}

func TestDataRefuses(t *testing.T) {
	params := func(change func(*Params)) func(t *testing.T) *cell.Cell {
		return func(t *testing.T) *cell.Cell {
			p := testParams(t)
			change(&p)
			c, err := p.Cell()
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	parse := func(c *cell.Cell) error { _, err := ParseParams(c); return err }
	built := func(d Data) func(*testing.T) *cell.Cell {
		return func(t *testing.T) *cell.Cell {
			c, err := d.Cell()
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	all := contracts(t)
	root, client, worker := all["root"].(Root), all["client"].(Client), all["worker"].(Worker)
	noCode, keys, noKeys := root, root, root
	noCode.Params.WorkerCode = nil
	keys.Keys = testCode(t, 1)
	noKeys.Params.StructVersion = paramsV4
	client.State, worker.State = 3, Closing
	wrongCodes := func(t *testing.T) *cell.Cell {
		p := testParams(t)
		c, err := p.Cell() // with the proxy's own code
		if err != nil {
			t.Fatal(err)
		}
		b := new(cell.Builder).Address(testAddress(0, 1)).Bytes(make([]byte, 32)).Address(testAddress(0, 2)).Uint(0, 2).Coins(0).Coins(0).
			Uint(0, 32)
		c, err = b.Ref(c).Cell()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, tt := range []struct {
		name, want string
		cell       func(*testing.T) *cell.Cell
		parse      func(*cell.Cell) error
	}{
		{"params of version 2", "version of the layout is 2", params(func(p *Params) { p.StructVersion = 2 }), parse},
		{"params of version 5", "version of the layout is 5", params(func(p *Params) { p.StructVersion = 5 }), parse},
		{"a fee above the price", "worker's fee is 21 nanotons of a price of 20", params(func(p *Params) { p.WorkerFee = 21 }), parse},
		{"a cell too short", "bits are left", func(t *testing.T) *cell.Cell { return testCode(t, 0x03000000) }, parse},
		{"a root without a code", "code is missing", built(noCode), func(c *cell.Cell) error { _, err := ParseRoot(c); return err }},
		{"a root of version 3 with keys", "keys are there: true", built(keys), func(c *cell.Cell) error { _, err := ParseRoot(c); return err }},
		{"a root of version 4 without", "keys are there: false", built(noKeys), func(c *cell.Cell) error { _, err := ParseRoot(c); return err }},
		{"a state that is none", "state is 3", built(client), func(c *cell.Cell) error { _, err := ParseClient(c); return err }},
		{"a worker that is closing", "which a worker has not", built(worker), func(c *cell.Cell) error { _, err := ParseWorker(c); return err }},
		{"a proxy with its own code in it", "other codes", wrongCodes, func(c *cell.Cell) error { _, err := ParseProxy(c); return err }},
	} {
		if err := tt.parse(tt.cell(t)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error that says %q", tt.name, err, tt.want)
		}
	}
}

// FuzzData reads any tree of cells as each contract's data: what is understood is built again to the same cell.
func FuzzData(f *testing.F) {
	seeds := 0
	for _, d := range contracts(f) {
		c, err := d.Cell()
		if err != nil {
			f.Fatal(err)
		}
		bag, err := cell.Encode(c)
		if err != nil {
			f.Fatal(err)
		}
		bag[4] &^= 0x40 // without check sum, so that mutations get past it
		f.Add(bag[:len(bag)-4])
		seeds++
	}
	if seeds != 4 {
		f.Fatalf("%d seeds, want 4", seeds)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := cell.ParseOne(data)
		if err != nil {
			return
		}
		for name, d := range reparse(c) {
			again, err := d.Cell()
			if err != nil || again.Hash() != c.Hash() {
				t.Fatalf("%s built again: %v, another cell", name, err)
			}
		}
	})
}
