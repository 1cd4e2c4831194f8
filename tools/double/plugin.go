package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"chrysalis/tools/internal/toolstree"
)

//go:embed plugin/tdx.c
var source []byte

// gcc is how the plugin is compiled; what stands beside the output decides whether it must be again.
var gcc = []string{"gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o", "/mnt/out/tdx.so.new", "/mnt/out/tdx.c", "-lpthread"}

// compile has the tools tree's compiler make the plugin, unless out is what it made of this source before. It needs root, as
// entering the tree does.
func compile(ctx context.Context, tree toolstree.Tree, out string) error {
	compiler, err := tree.Stamp("gcc")
	if err != nil {
		return fmt.Errorf("compiling plugin: %w", err)
	}
	key := fmt.Appendf(nil, "%x\n", sha256.Sum256(fmt.Appendf(nil, "%s\n%q\n%s", compiler, gcc, source)))
	if got, err := os.ReadFile(out + ".key"); err == nil && bytes.Equal(got, key) {
		if _, err := os.Stat(out); err == nil {
			return nil
		}
	}
	dir, err := filepath.Abs(filepath.Dir(out))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(dir, "compile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "tdx.c"), source, 0o644); err != nil {
		return err
	}
	cmd := tree.Enter(ctx, toolstree.Entry{Binds: map[string]string{"out": work}}, gcc...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling plugin: %w\n%.4000s", err, said)
	}
	// The key last: a plugin half made is made again.
	if err := os.Rename(filepath.Join(work, "tdx.so.new"), out); err != nil {
		return err
	}
	return os.WriteFile(out+".key", key, 0o644)
}
