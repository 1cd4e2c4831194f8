package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"fmt"
	"os"
	"path/filepath"

	"chrysalis/tools/internal/toolstree"
)

//go:embed plugin
var sources embed.FS

// plugins are what is compiled of the sources, each of a file of its name.
var plugins = []string{"tdx", "snp"}

// gcc is how a plugin is compiled; what stands beside the output decides whether it must be again.
var gcc = []string{"gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o", "/mnt/out/plugin.new"}

// compile has the tools tree's compiler make a plugin in dir, unless what is there was made of these sources. It needs root, as
// entering the tree does.
func compile(ctx context.Context, tree toolstree.Tree, name, dir string) error {
	compiler, err := tree.Stamp("gcc")
	if err != nil {
		return fmt.Errorf("compiling plugin: %w", err)
	}
	files := map[string][]byte{name + ".c": nil, "qemu.h": nil}
	stamp := fmt.Appendf(nil, "%s\n%q\n", compiler, gcc)
	for _, file := range []string{name + ".c", "qemu.h"} {
		if files[file], err = sources.ReadFile("plugin/" + file); err != nil {
			return err
		}
		stamp = append(stamp, files[file]...)
	}
	key := fmt.Appendf(nil, "%x\n", sha256.Sum256(stamp))
	out := filepath.Join(dir, name+".so")
	if got, err := os.ReadFile(out + ".key"); err == nil && bytes.Equal(got, key) {
		if _, err := os.Stat(out); err == nil {
			return nil
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
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
	for file, data := range files {
		if err := os.WriteFile(filepath.Join(work, file), data, 0o644); err != nil {
			return err
		}
	}
	cmd := tree.Enter(ctx, toolstree.Entry{Binds: map[string]string{"out": work}}, append(gcc, "/mnt/out/"+name+".c", "-lpthread")...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compiling plugin %s: %w\n%.4000s", name, err, said)
	}
	// The key last: a plugin half made is made again.
	if err := os.Rename(filepath.Join(work, "plugin.new"), out); err != nil {
		return err
	}
	return os.WriteFile(out+".key", key, 0o644)
}
