package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/localchain"
)

// TestChain serves a chain, and has a wallet of it send what a request asks for.
func TestChain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "chain")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"serve", "-o", dir, "a", "b"}, nil, new(bytes.Buffer)) }()
	for {
		if _, err := os.Stat(filepath.Join(dir, readyFile)); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	do := func(in []byte, args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), args, bytes.NewReader(in), &out)
		return strings.TrimSpace(out.String()), err
	}
	want := func(text string, args ...string) {
		t.Helper()
		if got, err := do(nil, args...); err != nil || got != text {
			t.Errorf("%q: got %q (%v), want %q", args, got, err, text)
		}
	}
	a, err := localchain.NewWallet("a")
	if err != nil {
		t.Fatal(err)
	}
	want(a.Address.Friendly(false), "address", "a")
	want("100000000000", "balance", "-o", dir, "b")
	want("100000000000", "balance", "-o", dir, a.Address.String())
	template, err := os.ReadFile(filepath.Join(dir, templateFile))
	if err != nil {
		t.Fatal(err)
	}
	to, err := ton.Parse(strings.TrimSpace(string(template)))
	if err != nil {
		t.Fatal(err)
	}
	request, err := carry.Connect([]carry.Message{{To: to, Value: 5}}, a.Address, localchain.GlobalID, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := do(request, "send", "-o", dir, "a"); err != nil || got != "sent 0.000000005 GRAM to "+to.Friendly(true) {
		t.Errorf("send: got %q (%v)", got, err)
	}
	if got, err := do(nil, "balance", "-o", dir, "a"); err != nil || got >= "100000000000" && len(got) == 12 || len(got) != 11 {
		t.Errorf("a has %s (%v), want a little less than before", got, err)
	}
	for _, args := range [][]string{nil, {"nothing", "a"}, {"address"}, {"send", "-o", dir, "b"}, {"balance", "-o", t.TempDir(), "a"}, {"serve", "-x"}} {
		if got, err := do(request, args...); err == nil {
			t.Errorf("%q: got %q, want an error", args, got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, readyFile)); err == nil {
		t.Error("a chain that has ended is ready")
	}
}
