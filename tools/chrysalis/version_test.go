package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

func TestVersion(t *testing.T) {
	root, out := newRoot(), &bytes.Buffer{}
	root.SetOut(out)
	root.SetArgs([]string{"--version"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	want := "chrysalis unreleased, " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	if !strings.HasPrefix(out.String(), want) || !strings.Contains(out.String(), "\nmodules  ") {
		t.Errorf("got %q, want it to begin with %q and to count modules", out, want)
	}
}
