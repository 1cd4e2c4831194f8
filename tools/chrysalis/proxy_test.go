package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProxyServes runs the verb as a user would: it says where it listens once the guest is verified, answers, and ends when it is told to.
func TestProxyServes(t *testing.T) {
	measured, err := os.ReadFile("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	g := newSoftwareGuest(t, measured)
	dir := t.TempDir()
	if err := g.files(dir); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	root := newRoot()
	root.SetArgs([]string{"proxy", g.URL, "--policy", filepath.Join(dir, "policy.json"), "--roots", filepath.Join(dir, "roots.pem"), "--offline",
		"--listen", "127.0.0.1:0", "--receipts", filepath.Join(dir, "receipts"), "--json"})
	root.SetOut(in)
	root.SetErr(io.Discard)
	ended := make(chan error, 1)
	go func() {
		ended <- root.ExecuteContext(ctx)
		in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	base, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("said %q (%v), ended %v", line, err, <-ended)
	}
	response, err := http.Post(base+"/chat/completions", "application/json", strings.NewReader(`{"model":"tiny","messages":[{"role":"user","content":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != 200 || response.Header.Get("Chrysalis-Release") == "" {
		t.Errorf("got %d %s (%v)", response.StatusCode, text, err)
	}
	if kept, err := filepath.Glob(filepath.Join(dir, "receipts", "*", "*.json")); err != nil || len(kept) != 1 {
		t.Errorf("kept %q (%v), want one proof", kept, err)
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}
