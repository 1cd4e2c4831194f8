package main

import (
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
)

// TestCollateralFetchThenAppraise fetches what a quote needs from a service, and appraises the quote with it: accepted as it is,
// rejected when one byte of what was fetched is another.
func TestCollateralFetchThenAppraise(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	machine := attesttest.NewTDX(now, 4, false).Build()
	c := machine.Collateral
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !attesttest.IntelService(w, r, c) {
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("quote", []byte(hex.EncodeToString(machine.Quote)))
	write("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: machine.Root.Raw}))
	fetch := []string{"collateral", "fetch", "--quote", path("quote"), "-o", path("collateral.json"), "--cache", path("cache"), "--root", path("root.pem"),
		"--intel-pcs", server.URL, "--intel-certificates", server.URL}
	appraise := []string{"appraise", "tdx", "--quote", path("quote"), "--collateral", path("collateral.json"), "--root", path("root.pem"),
		"--at", now.Format(time.RFC3339)}
	for _, step := range []struct {
		name string
		args []string
		want int
	}{
		{"fetch", fetch, 0},
		{"show", []string{"collateral", "show", path("collateral.json")}, 0},
		{"appraise", appraise, 0},
	} {
		if got := run(step.args); got != step.want {
			t.Fatalf("%s: got exit code %d, want %d", step.name, got, step.want)
		}
	}
	server.Close()
	if got := run(fetch); got != 0 {
		t.Errorf("fetch again without the service: got exit code %d, want 0, out of the cache", got)
	}
	c.TCBInfoSignature[10] ^= 1
	other, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	write("collateral.json", other)
	if got := run(appraise); got != exitRejected {
		t.Errorf("appraise with a changed signature: got exit code %d, want %d", got, exitRejected)
	}
	if err := os.RemoveAll(path("cache")); err != nil {
		t.Fatal(err)
	}
	if got := run(append(fetch, "--wait", "200ms")); got != exitUnavailable {
		t.Errorf("fetch without service and cache: got exit code %d, want %d", got, exitUnavailable)
	}
}
