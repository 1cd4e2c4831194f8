package claim

import (
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tlb"
	"github.com/xssnick/tonutils-go/tvm"
	"github.com/xssnick/tonutils-go/tvm/cell"
	"github.com/xssnick/tonutils-go/tvm/tuple"
	"github.com/xssnick/tonutils-go/tvm/vm"

	"chrysalis/measure/ton"
)

// contractCode is a small contract of our own: it takes a key, its own address and a message's body from the stack,
// makes the checks that COCOON's contracts make, with their exit codes in small, and leaves the token count.
const contractCode = "" +
	"d31f" + "d33f" + "fa40" + // LDU 32, LDU 64, LDMSGADDR: operation, query id, excesses
	"8308" + "d718" + "d4" + "d1" + // PUSHPOW2 9, LDSLICEX, LDREF, ENDS: signature, payload
	"20" + "f900" + "22" + "28" + "f910" + "f287" + // HASHCU, CHKSIGNU with the key, THROWIFNOT 7
	"d0" + "d31f" + "d33f" + "d33f" + "fa40" + "d1" + // CTOS: operation, query id, tokens, contract, ENDS
	"28" + "c705" + "f28f" + // own address: SDEQ, THROWIFNOT 15
	"21" + "26" + "ba" + "f285" + // query ids: EQUAL, THROWIFNOT 5
	"22" + "27" + "ba" + "f285" // operations: EQUAL, THROWIFNOT 5

// runContract lets a TON virtual machine judge a body, and returns its exit code and the tokens it read.
func runContract(t testing.TB, body []byte, key []byte, contract ton.Address) (exit int64, tokens uint64) {
	t.Helper()
	raw, err := hex.DecodeString(contractCode)
	if err != nil {
		t.Fatal(err)
	}
	version, err := tlb.ToCell(&tlb.GlobalVersion{Version: uint32(vm.MaxSupportedGlobalVersion)})
	if err != nil {
		t.Fatal(err)
	}
	params := cell.NewDict(32)
	if err := params.SetIntKey(big.NewInt(int64(tlb.ConfigParamGlobalVersion)), cell.BeginCell().MustStoreRef(version).EndCell()); err != nil {
		t.Fatal(err)
	}
	root, err := cell.FromBOC(body)
	if err != nil {
		t.Fatal(err)
	}
	stack := vm.NewStack()
	for _, push := range []error{
		stack.PushInt(new(big.Int).SetBytes(key)),
		stack.PushSlice(cell.BeginCell().MustStoreAddr(address.NewAddress(0, byte(contract.Workchain), contract.Account[:])).EndCell().MustBeginParse()),
		stack.PushSlice(root.MustBeginParse()),
	} {
		if push != nil {
			t.Fatal(push)
		}
	}
	code := cell.BeginCell().MustStoreSlice(raw, uint(8*len(raw))).EndCell()
	result, err := tvm.NewTVM().Execute(code, cell.BeginCell().EndCell(), tuple.Tuple{}, vm.NewGas(), stack,
		tvm.ExecutionConfig{Config: tvm.MustPrepareBlockchainConfig(params.AsCell())})
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitCode != 0 && result.ExitCode != 1 {
		return result.ExitCode, 0
	}
	got, err := result.Stack.PopInt()
	if err != nil {
		t.Fatal(err)
	}
	return 0, got.Uint64()
}

// TestContractAgrees has a TON virtual machine and Verify judge the same bodies.
func TestContractAgrees(t *testing.T) {
	key, contract := testPolicy().Key, testPolicy().Contract
	for _, op := range countOps {
		m := testMessage(op)
		b := mustSign(t, m)
		exit, tokens := runContract(t, b[:], key[:], contract)
		if exit != 0 || tokens != m.Tokens {
			t.Errorf("%s: contract ends with %d and %d tokens, want 0 and %d", op, exit, tokens, m.Tokens)
		}
	}
	want := map[string]int64{"tokens": 7, "signature": 7, "another key": 7, "another contract": 15, "query id outside": 5, "operation outside": 5}
	seen := 0
	for _, v := range refused(t) {
		code, ok := want[v.Name]
		if !ok {
			continue
		}
		seen++
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		if exit, _ := runContract(t, body, key[:], contract); exit != code {
			t.Errorf("%s: contract ends with %d, want %d", v.Name, exit, code)
		}
		if _, err := Verify(body, testPolicy()); err == nil {
			t.Errorf("%s: Verify accepts what the contract refuses", v.Name)
		}
	}
	if seen != len(want) {
		t.Errorf("%d of the vectors ran, want %d", seen, len(want))
	}
}
