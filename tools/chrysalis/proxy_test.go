package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure/pubkey"
)

// threeKept has a proxy ask the guest three times, and returns the folder with the receipts that it kept.
func threeKept(t *testing.T, g softwareGuest, dir string) (kept string, files []string) {
	t.Helper()
	kept = filepath.Join(dir, "receipts")
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	root := newRoot()
	root.SetArgs([]string{"proxy", g.URL, "--policy", filepath.Join(dir, "policy.json"), "--roots", filepath.Join(dir, "roots.pem"), "--offline",
		"--listen", "127.0.0.1:0", "--receipts", kept, "--json"})
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
	for range 3 {
		response, err := http.Post(base+"/chat/completions", "application/json", strings.NewReader(`{"model":"tiny","messages":[{"role":"user","content":"x"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != 200 || response.Header.Get("Chrysalis-Release") == "" {
			t.Errorf("got %d %s (%v)", response.StatusCode, text, err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	stop()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	files, err = filepath.Glob(filepath.Join(kept, "*", "*.json"))
	if err != nil || len(files) != 3 {
		t.Fatalf("kept %q (%v), want three proofs", files, err)
	}
	return kept, files
}

// TestProxyServes runs the verb as a user would: it says where it listens once the guest is verified, answers, and ends when it is told to.
// What it keeps of the answers is accepted later by receipt's verbs, here and with somebody else.
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
	policy, roots := filepath.Join(dir, "policy.json"), filepath.Join(dir, "roots.pem")
	kept, files := threeKept(t, g, dir)
	bundle := filepath.Join(dir, "bundle.json")
	key, stranger := pubkey.Of(g.ReceiptKey).String(), pubkey.Of(g.ClaimKey).String()
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"list " + kept, 0, "number"},
		{"verify " + kept + " --policy " + policy + " --roots " + roots, 0, "instance 01000000: 3 receipts, numbers 1 to 3, 0 between them are not here"},
		{"verify " + files[0] + " --policy " + policy + " --roots " + roots + " --json", 0, `"verdict": "accepted"`},
		{"export " + kept + " --output " + bundle, 0, "3 receipts in"},
		{"verify " + bundle + " --policy " + policy + " --roots " + roots, 0, "3 receipts"},
		{"verify " + kept + " --pubkey " + key, 0, "3 receipts"},
		{"verify " + kept + " --pubkey " + stranger, exitRejected, "rejected"},
		{"verify " + kept + " --policy " + policy, exitRejected, "rejected"}, // nobody trusts its maker
		{"verify " + kept + " --policy " + filepath.Join(dir, "other-model.json") + " --roots " + roots, exitRejected, "rejected"},
		{"verify " + kept, exitUsage, ""},
		{"verify " + kept + " --policy " + policy + " --pubkey " + key, exitUsage, ""},
		{"verify " + kept + " --pubkey 12", exitUsage, ""},
		{"verify " + filepath.Join(dir, "nothing") + " --pubkey " + key, exitUnavailable, ""},
		{"verify " + t.TempDir() + " --pubkey " + key, exitUnavailable, ""},
		{"verify " + policy + " --pubkey " + key, exitRejected, ""},
		{"list " + roots, exitRejected, ""},
		{"export " + kept, exitUsage, ""},
	} {
		var out strings.Builder
		root := newRoot()
		root.SetArgs(append([]string{"receipt"}, strings.Fields(tt.args)...))
		root.SetOut(&out)
		root.SetErr(io.Discard)
		err, code := root.ExecuteContext(t.Context()), 0
		if exit := (exitError{}); errors.As(err, &exit) {
			code = exit.code
		} else if err != nil {
			code = exitUsage
		}
		if code != tt.code || !strings.Contains(out.String(), tt.says) {
			t.Errorf("%s: code %d (%v), want %d and %q: %s", tt.args, code, err, tt.code, tt.says, out.String())
		}
	}
	if err := os.RemoveAll(filepath.Join(kept, "evidence")); err != nil {
		t.Fatal(err)
	}
	if code := run([]string{"receipt", "verify", kept, "--policy", policy, "--roots", roots}); code != exitUnavailable {
		t.Errorf("without the evidence: code %d, want %d", code, exitUnavailable)
	}
}
