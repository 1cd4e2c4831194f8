package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
	"chrysalis/tools/internal/guest"
)

// TestSettleFlags: a guest that settles on chain gets liteservers as it reaches them, and the root's params as the chain has them; what its
// config does not name is refused.
func TestSettleFlags(t *testing.T) {
	p := newPayWorld(t)
	raw, err := p.world.Config()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "chain.json")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	apply := func(f settleFlags, change func(*config.Measured), before guest.Spec) (guest.Spec, error) {
		f.source.flag, f.source.maxAge, f.source.wait = "ton-config", time.Minute*10, 10*time.Second
		spec := p.spec
		if change != nil {
			change(&spec.Config)
		}
		err := f.apply(cmd, &spec, before)
		return spec, err
	}
	given := settleFlags{source: chainFlags{file: file}}
	code := func(err error) int {
		var exit exitError
		errors.As(err, &exit)
		return exit.code
	}
	if _, err := apply(given, nil, guest.Spec{}); code(err) != exitRejected || !strings.Contains(err.Error(), "is absent") {
		t.Errorf("before the root is there: got %v", err)
	}
	p.deploy(t, 10*ton.Coin)
	spec, err := apply(given, nil, guest.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Chain.Check(); err != nil || len(spec.Chain.Liteservers) != 2 || spec.Chain.Close {
		t.Errorf("the guest gets %+v (%v)", spec.Chain.Liteservers, err)
	}
	for i, s := range spec.Chain.Liteservers {
		if s.Address.Addr().String() != "10.0.2.2" || s.Address.Port() != p.options.Servers[i].Address.Port() || s.Key != p.options.Servers[i].Key {
			t.Errorf("liteserver %d is %+v, want %+v by another address", i, s, p.options.Servers[i])
		}
	}
	params, err := cell.ParseOne(spec.Chain.Params)
	if err != nil || params.Hash() != spec.Config.Service.Chain.Params {
		t.Errorf("params are another cell than the config names (%v)", err)
	}
	for name, tt := range map[string]struct {
		flags  settleFlags
		change func(*config.Measured)
		code   int
		want   string
	}{
		"other params":             {given, func(m *config.Measured) { m.Service.Chain.Params[0]++ }, exitRejected, "and the config names"},
		"another root":             {given, func(m *config.Measured) { m.Identity.RootContract = p.wallets["client"].Address }, exitRejected, "is uninit"},
		"another anchor":           {given, func(m *config.Measured) { m.Service.Chain.Anchor.RootHash[0]++ }, exitUnavailable, "liteserver"},
		"no file":                  {settleFlags{}, nil, exitUsage, "--ton-config names liteservers"},
		"nothing is settled":       {given, func(m *config.Measured) { m.Service.Chain = config.Chain{} }, exitUsage, "are for a config that settles"},
		"an end of nothing":        {settleFlags{ends: true}, func(m *config.Measured) { m.Service.Chain = config.Chain{} }, exitUsage, "are for a config that settles"},
		"nothing to be said":       {settleFlags{}, func(m *config.Measured) { m.Service.Chain = config.Chain{} }, 0, ""},
		"a file that is not there": {settleFlags{source: chainFlags{file: "nowhere"}}, nil, exitUsage, "nowhere"},
	} {
		if _, err := apply(tt.flags, tt.change, guest.Spec{}); code(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want code %d and %q", name, err, tt.code, tt.want)
		}
	}
	// What it had before is enough for the next start, where the params are the same; it may be the one that ends.
	again, err := apply(settleFlags{ends: true}, nil, spec)
	if err != nil || !again.Chain.Close || len(again.Chain.Liteservers) != 2 {
		t.Errorf("again: %+v (%v)", again.Chain.Liteservers, err)
	}
	if _, err := apply(settleFlags{}, func(m *config.Measured) { m.Service.Chain.Params[0]++ }, spec); code(err) != exitUsage {
		t.Errorf("again, with other params: got %v", err)
	}
}
