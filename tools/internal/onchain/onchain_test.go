package onchain

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/fetch/fetchtest"
)

var someone = ton.Address{Account: [32]byte{1}}

// newOptions starts a chain of some blocks behind two liteservers.
func newOptions(t *testing.T, blocks int, begin uint32) (*chaintest.Chain, Options) {
	t.Helper()
	c, err := chaintest.New(chaintest.Options{Simplex: true, KeyEvery: 2, Time: begin})
	if err != nil {
		t.Fatal(err)
	}
	for range blocks {
		if _, err := c.Step(chaintest.Message{From: ton.Address{Account: [32]byte{2}}, To: someone, Value: 1e9}); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Network: c.Network, Wait: 5 * time.Second, MaxAge: time.Minute}
	for seed := range byte(2) {
		s, err := fetchtest.Listen(c, seed+1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		o.Servers = append(o.Servers, s.Server)
	}
	return c, o
}

func now() uint32 { return uint32(time.Now().Unix()) }

func TestReader(t *testing.T) {
	c, o := newOptions(t, 20, now()-30)
	stages := 0
	o.At = func(chain.Head) { stages++ }
	r, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Head().Last != c.Last() || r.Proved() != 2 || stages == 0 {
		t.Errorf("head is %v by %d servers after %d stages, want %v by 2 after some", r.Head().Last, r.Proved(), stages, c.Last())
	}
	a, err := r.Account(t.Context(), someone)
	if err != nil || a.Balance != c.Balance(someone) {
		t.Errorf("account has %d (%v), want %d", a.Balance, err, c.Balance(someone))
	}
	told := 0
	if err := r.Walk(t.Context(), a, chain.Mark{}, func(chain.Transaction) error { told++; return nil }); err != nil || told != 20 {
		t.Errorf("walk tells %d transactions (%v), want 20", told, err)
	}
	enough := errors.New("enough")
	if err := r.Walk(t.Context(), a, chain.Mark{}, func(chain.Transaction) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a walk that is stopped: got %v", err)
	}
	if _, err := r.Contracts(t.Context(), someone, [32]byte{1}, someone); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "want active") {
		t.Errorf("contracts under what is no root: got %v", err)
	}
	if err := r.Post(t.Context(), []byte("nonsense")); err == nil {
		t.Error("nonsense is posted")
	}
}

// TestOld: a newest block that is too old is a rejection; a server that lies or says nothing is none.
func TestOld(t *testing.T) {
	_, o := newOptions(t, 3, 1_700_000_000)
	if _, err := Open(t.Context(), o); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "old") {
		t.Errorf("an old chain: got %v", err)
	}
	o.Servers = o.Servers[:1]
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrServers) {
		t.Errorf("one server: got %v", err)
	}
	_, other := newOptions(t, 3, now()-30)
	_, o = newOptions(t, 3, now()-30)
	o.Network.GlobalID++
	if _, err := Open(t.Context(), o); err == nil || errors.Is(err, check.ErrRejected) {
		t.Errorf("another network: got %v, want that nothing could be proven", err)
	}
	other.Servers[0].Key[0] ^= 1
	if r, err := Open(t.Context(), other); err != nil || r.Proved() != 1 {
		t.Errorf("one server of two has another key: got %v", err)
	}
}

// TestKept: how far a chain was followed is kept, is the beginning next time, and is no other chain's.
func TestKept(t *testing.T) {
	c, o := newOptions(t, 20, now()-30)
	o.Kept = filepath.Join(t.TempDir(), "state", "chain.json")
	if _, err := Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(o.Kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kept as %v (%v)", info, err)
	}
	stages := 0
	o.At = func(chain.Head) { stages++ }
	if r, err := Open(t.Context(), o); err != nil || r.Head().Last != c.Last() || stages != 0 {
		t.Errorf("from what was kept: %d stages (%v), want none", stages, err)
	}
	if _, other := newOptions(t, 3, now()-31); true {
		other.Kept = o.Kept
		if h, err := loadHead(o.Kept, other.Network); err != nil || h != other.Network.Anchor {
			t.Errorf("another chain begins at %v (%v), want its anchor", h.Last, err)
		}
	}
	kept, err := os.ReadFile(o.Kept)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"nothing": "", "another form": "[]", "a longer head": strings.Replace(string(kept), `"head": "`, `"head": "AAAA`, 1)} {
		if err := os.WriteFile(o.Kept, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("kept is %s: got %v, want an error that names the file", name, err)
		}
	}
}

// FuzzReadConfig: what is read of a configuration file is written again.
func FuzzReadConfig(f *testing.F) {
	c, err := chaintest.New(chaintest.Options{})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := WriteConfig(c.Network, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"liteservers":[{"ip":-1062731776,"port":19949,"id":{"@type":"pub.ed25519","key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, servers, err := ReadConfig(raw, true, -217)
		if err != nil {
			return
		}
		again, err := WriteConfig(n, servers)
		if err != nil {
			t.Fatal(err)
		}
		n2, servers2, err := ReadConfig(again, true, -217)
		if err != nil || n2 != n || len(servers2) != len(servers) {
			t.Fatalf("written again: %v", err)
		}
	})
}
