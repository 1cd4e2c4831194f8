package fetch_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	. "chrysalis/runtime/chain/fetch"
	"chrysalis/runtime/chain/fetch/fetchtest"
)

var someone = ton.Address{Account: [32]byte{1}}

func newChain(t *testing.T, blocks int) *chaintest.Chain {
	t.Helper()
	c, err := chaintest.New(chaintest.Options{Simplex: true})
	if err != nil {
		t.Fatal(err)
	}
	for range blocks {
		if _, err := c.Step(chaintest.Message{From: ton.Address{Account: [32]byte{2}}, To: someone, Value: 1e9}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func listen(t *testing.T, c *chaintest.Chain, seed byte) *fetchtest.Liteserver {
	t.Helper()
	s, err := fetchtest.Listen(c, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func open(t *testing.T, servers ...*fetchtest.Liteserver) *Client {
	t.Helper()
	var list []Server
	for _, s := range servers {
		list = append(list, s.Server)
	}
	c, err := Open(list, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// follow asks all servers for newer blocks and keeps the highest head that any proves.
func follow(t *testing.T, c *Client, n chain.Network) (best chain.Head, good int, err error) {
	t.Helper()
	known := n.Anchor
	good, err = c.AskAll(t.Context(), BlockProof{known.Key}, func(answer []byte) error {
		h, _, err := chain.Advance(n, known, answer)
		if err == nil && h.Last.Seqno > best.Last.Seqno {
			best = h
		}
		return err
	})
	return best, good, err
}

// TestWhole goes the whole way over the network: blocks, an account, its history.
func TestWhole(t *testing.T) {
	world := newChain(t, 20)
	c := open(t, listen(t, world, 1), listen(t, world, 2))
	head, good, err := follow(t, c, world.Network)
	if err != nil || good != 2 || head.Last != world.Last() {
		t.Fatalf("head is %v by %d servers (%v), want %v by both", head, good, err, world.Last())
	}
	var account chain.Account
	err = c.Ask(t.Context(), AccountState{head.Last, someone}, func(answer []byte) (err error) {
		account, err = chain.Prove(world.Network, head, someone, answer)
		return err
	})
	if err != nil || account.Balance != world.Balance(someone) || account.Balance == 0 {
		t.Fatalf("account: got %+v (%v)", account, err)
	}
	trail, err := chain.NewTrail(account, chain.Mark{})
	count := 0
	for err == nil {
		at, more := trail.Ask()
		if !more {
			break
		}
		err = c.Ask(t.Context(), Transactions{someone, at}, func(answer []byte) error {
			return trail.Take(answer, func(chain.Transaction) error { count++; return nil })
		})
	}
	if err != nil || count != 20 {
		t.Errorf("%d transactions (%v), want 20", count, err)
	}
}

// TestOneOfTwo: one liteserver that is silent, slow, lying, behind or not there hides nothing that the other tells.
func TestOneOfTwo(t *testing.T) {
	world := newChain(t, 10)
	for name, bad := range map[string]func(*testing.T) Server{
		"silent": func(t *testing.T) Server {
			s := listen(t, world, 9)
			s.Change = func([]byte) []byte { return nil }
			return s.Server
		},
		"slow": func(t *testing.T) Server {
			s := listen(t, world, 9)
			s.Wait = 10 * time.Second
			return s.Server
		},
		"lying": func(t *testing.T) Server {
			s := listen(t, world, 9)
			s.Change = func(b []byte) []byte { b[len(b)-9] ^= 1; return b }
			return s.Server
		},
		"of another chain": func(t *testing.T) Server { return listen(t, newChain(t, 3), 9).Server },
		"behind":           func(t *testing.T) Server { return listen(t, newChain(t, 0), 9).Server },
		"with another key": func(t *testing.T) Server {
			s := listen(t, world, 9).Server
			s.Key[0] ^= 1
			return s
		},
		"not there": func(*testing.T) Server {
			return Server{Address: netip.MustParseAddrPort("127.0.0.1:1"), Key: [32]byte{7}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := listen(t, world, 1)
			c, err := Open([]Server{bad(t), good.Server}, 2*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			head, _, err := follow(t, c, world.Network)
			if err != nil || head.Last != world.Last() {
				t.Fatalf("head is %v (%v), want %v", head.Last, err, world.Last())
			}
			// The bad one is asked first, and must leave time for the other.
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err = c.Ask(ctx, AccountState{head.Last, someone}, func(answer []byte) error {
				_, err := chain.Prove(world.Network, head, someone, answer)
				return err
			})
			if err != nil {
				t.Errorf("account: %v", err)
			}
		})
	}
}

// TestNone: what no server proves is not known, and the error tells of each.
func TestNone(t *testing.T) {
	world := newChain(t, 3)
	one, two := listen(t, world, 1), listen(t, world, 2)
	for _, s := range []*fetchtest.Liteserver{one, two} {
		s.Change = func(b []byte) []byte { b[len(b)-9] ^= 1; return b }
	}
	_, good, err := follow(t, open(t, one, two), world.Network)
	if good != 0 || !errors.Is(err, chain.ErrRejected) || strings.Count(err.Error(), "liteserver 127.0.0.1:") != 2 {
		t.Errorf("%d good answers and error %v, want none and a word on both", good, err)
	}
	honest := open(t, listen(t, world, 3), listen(t, world, 4))
	err = honest.Ask(t.Context(), Transactions{someone, chain.Mark{LT: 5}}, func([]byte) error { return nil })
	if err == nil || strings.Count(err.Error(), "lt not in db") != 2 {
		t.Errorf("a transaction that is not there: got %v, want the servers' words", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	a := Server{Address: netip.MustParseAddrPort("127.0.0.1:1"), Key: [32]byte{1}}
	b := Server{Address: netip.MustParseAddrPort("127.0.0.1:1"), Key: [32]byte{2}}
	var many []Server
	for i := range 17 {
		many = append(many, Server{Address: a.Address, Key: [32]byte{byte(i + 1)}})
	}
	for _, tt := range []struct {
		name, want string
		servers    []Server
		wait       time.Duration
	}{
		{"none", "0 are named", nil, time.Second},
		{"one", "1 are named, want 2", []Server{a}, time.Second},
		{"one twice", "has the key of one before", []Server{a, a}, time.Second},
		{"too many", "17 are named", many, time.Second},
		{"no address", "has address", []Server{a, {Key: [32]byte{3}}}, time.Second},
		{"no time", "may take 0s", []Server{a, b}, 0},
	} {
		if _, err := Open(tt.servers, tt.wait); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

// TestMessage: a liteserver's word that it took a message is one answer and no other; what no contract takes is refused.
func TestMessage(t *testing.T) {
	c := newChain(t, 2)
	s := open(t, listen(t, c, 1), listen(t, c, 2))
	for name, bag := range map[string][]byte{"nonsense": []byte("x"), "nothing": nil} {
		if err := s.Ask(t.Context(), Message{Bag: bag}, Sent); err == nil || !strings.Contains(err.Error(), "it answers") {
			t.Errorf("%s: got %v, want that no server takes it", name, err)
		}
	}
	for _, answer := range [][]byte{nil, {1}, {0xf8, 0x9d, 0x95, 0x39, 0, 0, 0, 0}, {0, 0, 0, 0, 1, 0, 0, 0}} {
		if err := Sent(answer); err == nil {
			t.Errorf("answer %x says that the message was taken", answer)
		}
	}
}
