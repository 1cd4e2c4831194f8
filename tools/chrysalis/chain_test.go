package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/fetch"
	"chrysalis/runtime/chain/fetch/fetchtest"
	"chrysalis/tools/internal/onchain"
)

// localChain is a chain in memory behind two liteservers, for the scripts.
type localChain struct {
	good, forged, old []byte // global configuration files
	source            []byte // with the first block of the good one as an anchor
}

func newLocalChain(t *testing.T) *localChain {
	t.Helper()
	world := func(now uint32) (*chaintest.Chain, []*fetchtest.Liteserver) {
		c, err := chaintest.New(chaintest.Options{Simplex: true, KeyEvery: 2, Time: now})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 { // more key blocks than one answer has
			if _, err := c.Step(); err != nil {
				t.Fatal(err)
			}
		}
		var servers []*fetchtest.Liteserver
		for i := range 2 {
			s, err := fetchtest.Listen(c, byte(i+1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			servers = append(servers, s)
		}
		return c, servers
	}
	now := uint32(time.Now().Unix())
	c, servers := world(now - 60)
	forged, liars := world(now - 60)
	for _, s := range liars {
		s.Change = func(b []byte) []byte { b[len(b)-9] ^= 1; return b }
	}
	aged, ancient := world(1_700_000_000)
	b64 := base64.StdEncoding.EncodeToString
	first := c.Network.Anchor.Key
	source := fmt.Sprintf("// what stands before\nvar Local = anchored(\"local\", -217, \"1999-12-31\", 1,\n\t%q, %q)\n\nvar Other = anchored(\"other\", -239, \"2024-01-01\", 34835953,\n\t%q, %q)\n",
		b64(first.RootHash[:]), b64(first.FileHash[:]), b64(first.FileHash[:]), b64(first.RootHash[:]))
	return &localChain{source: []byte(source), good: globalFile(t, c.Network, servers), forged: globalFile(t, forged.Network, liars),
		old: globalFile(t, aged.Network, ancient)}
}

// globalFile is the network's configuration file.
func globalFile(t *testing.T, n chain.Network, servers []*fetchtest.Liteserver) []byte {
	t.Helper()
	var list []fetch.Server
	for _, s := range servers {
		list = append(list, s.Server)
	}
	raw, err := onchain.WriteConfig(n, list)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (l *localChain) files(dir string) error {
	for name, raw := range map[string][]byte{"good.json": l.good, "forged.json": l.forged, "old.json": l.old, "networks.go": l.source} {
		if err := os.WriteFile(filepath.Join(dir, "chain-"+name), raw, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// TestNetworksFile: the source is as chain renew reads it, with the key block that is compiled in.
func TestNetworksFile(t *testing.T) {
	raw, err := os.ReadFile("../../" + networksFile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "networks.go")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	next := chain.Head{Key: chain.BlockID{Seqno: 7}, Time: 1_800_000_000}
	old, n, err := renewAnchor(file, chain.Mainnet, next)
	if err != nil || old != "2025-02-01" || n.Anchor.Key != next.Key || day(n.Anchored) != "2027-01-15" {
		t.Errorf("got %s, %v of %s (%v)", old, n.Anchor.Key, day(n.Anchored), err)
	}
}
