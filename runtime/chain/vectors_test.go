package chain

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"chrysalis/measure/ton"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// vector is one chain's answers with what they prove.
type vector struct {
	Name    string      `json:"name"`
	Network Network     `json:"network"`
	Head    Head        `json:"head"`
	Account ton.Address `json:"account"`
	Balance uint64      `json:"balance"`
	Last    Mark        `json:"last"`
	// Answers, in hexadecimal: getBlockProof from the anchor, getAccountState of Account and of Absent, getTransactions from Last on.
	Proof        string      `json:"block_proof"`
	State        string      `json:"account_state"`
	Absent       ton.Address `json:"absent"`
	Absence      string      `json:"absence"`
	Transactions string      `json:"transactions"`
}

const vectorFile = "testdata/vectors/answers.json"

func readVectors(t testing.TB) (list []vector) {
	t.Helper()
	raw, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 {
		t.Fatalf("%d vectors, want 2", len(list))
	}
	return list
}

func bin(text string) []byte { return must(hex.DecodeString(text)) }

// TestVectors judges the recorded answers of two chains (chaintest makes the file).
func TestVectors(t *testing.T) {
	for _, v := range readVectors(t) {
		h, complete, err := Advance(v.Network, v.Network.Anchor, bin(v.Proof))
		if err != nil || !complete || h != v.Head {
			t.Errorf("%s: got %v (%v), want %v", v.Name, h, err, v.Head)
		}
		a, err := Prove(v.Network, h, v.Account, bin(v.State))
		if err != nil || a.Balance != v.Balance || a.Last != v.Last {
			t.Errorf("%s: got %+v (%v)", v.Name, a, err)
		}
		if none, err := Prove(v.Network, h, v.Absent, bin(v.Absence)); err != nil || none.Status != Absent {
			t.Errorf("%s: got %+v (%v), want absence", v.Name, none, err)
		}
		trail := must(NewTrail(a, Mark{}))
		count := 0
		for range 2 {
			if err := trail.Take(bin(v.Transactions), func(Transaction) error { count++; return nil }); err != nil {
				t.Error(err)
			}
		}
		if count != 5 {
			t.Errorf("%s: %d transactions, want 5", v.Name, count)
		}
	}
}

// FuzzAnswers gives any bytes to each judge of answers. What is accepted says what the chain says, and nothing else.
func FuzzAnswers(f *testing.F) {
	worlds := readVectors(f)
	seeds := 0
	for _, v := range worlds {
		for _, seed := range []string{v.Proof, v.State, v.Absence, v.Transactions} {
			f.Add(bin(seed))
			seeds++
		}
	}
	if seeds != 8 {
		f.Fatalf("%d seeds, want 8", seeds)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range worlds {
			if h, _, err := Advance(v.Network, v.Network.Anchor, data); err == nil && h != v.Head && h.Last.Seqno >= v.Head.Last.Seqno {
				t.Fatalf("a block that nobody made: %v", h)
			}
			if a, err := Prove(v.Network, v.Head, v.Account, data); err == nil && (a.Balance != v.Balance || a.Last != v.Last) {
				t.Fatalf("an account that is not there: %+v", a)
			}
			trail := must(NewTrail(Account{Address: v.Account, Last: v.Last}, Mark{}))
			for range 2 {
				_ = trail.Take(data, func(tx Transaction) error {
					if tx.In == nil || tx.In.Value != 1e9 {
						t.Fatalf("a transaction that nobody made: %+v", tx)
					}
					return nil
				})
			}
		}
	})
}
