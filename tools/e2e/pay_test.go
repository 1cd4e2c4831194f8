package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPay runs the demonstration of payments as make demo PAY=1 does, over a booted guest and a chain of its own, and looks at what it printed:
// the charge moves no coin, the payout brings what the charge took, the client gets the rest back, and the stake comes back to whoever is paid.
func TestPay(t *testing.T) {
	needsGuests(t)
	dir := t.TempDir()
	chain := filepath.Join(dir, "localchain")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", chain, "chrysalis/tools/localchain").CombinedOutput(); err != nil {
		t.Fatalf("building the chain: %v: %s", err, out)
	}
	// Its folders are its own; what was built is where it is.
	if err := os.Mkdir(filepath.Join(dir, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(built)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from, err := filepath.Abs(filepath.Join(built, e.Name()))
		if err == nil && e.Name() != "chain" && !strings.HasPrefix(e.Name(), "guest") {
			err = os.Symlink(from, filepath.Join(dir, "build", e.Name()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("pay.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", script, "build/bin/chrysalis", chain)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	said := string(out)
	if err != nil || !strings.HasSuffix(said, "demo: ok\n") {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Log(said)
	// The price is 0.005 coins for a token.
	const coin = 1_000_000_000
	charged := int64(tokensOfOslo * coin / 200)
	balances := balancesIn(t, said)
	const begun, carried, paid, left, ended = 0, 1, 2, 3, 4
	if len(balances) != ended+1 {
		t.Fatalf("got %d lists of balances, want %d:\n%s", len(balances), ended+1, said)
	}
	for _, tt := range []struct {
		what, who   string
		from, to    int
		least, most int64
	}{
		{"the charge", "payout", begun, carried, 0, 100_000_000}, // what setting the contracts up leaves over
		{"the payout", "payout", carried, paid, charged - 2, charged},
		{"the client's end", "payout", paid, left, 0, 0},
		{"the stake", "payout", left, ended, 10 * coin, 11 * coin},
		{"the client, in all", "client", begun, ended, -charged - coin/2, -charged},
		{"the provider, in all", "provider", begun, ended, -11 * coin, -10 * coin},
	} {
		if got := balances[tt.to][tt.who] - balances[tt.from][tt.who]; got < tt.least || got > tt.most {
			t.Errorf("%s: %s has %d nanotons more, want %d to %d", tt.what, tt.who, got, tt.least, tt.most)
		}
	}
	for _, want := range []string{oslo, fmt.Sprintf("client-charge of %d tokens in all", tokensOfOslo), "clients      0 open"} {
		if !strings.Contains(said, want) {
			t.Errorf("want %q in it", want)
		}
	}
}

// balancesIn are the lists of balances that were printed, each with nanotons by name.
func balancesIn(t *testing.T, said string) (lists []map[string]int64) {
	t.Helper()
	for line := range strings.Lines(said) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "nanotons" {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if f[0] == "provider" {
			lists = append(lists, map[string]int64{})
		}
		if len(lists) > 0 {
			lists[len(lists)-1][f[0]] = n
		}
	}
	return lists
}
