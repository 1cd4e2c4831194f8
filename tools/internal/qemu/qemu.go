// Package qemu starts QEMU and talks to it: over its monitor (QMP), which is about the machine, and over its test port
// (qtest), which is the machine's own bus. It knows QEMU's command line and no guest: what a guest is made of is guest's to
// say, and what its firmware would read acpi's.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"chrysalis/tools/internal/toolstree"
)

// Program is QEMU's name.
const Program = "qemu-system-x86_64"

// Command returns a command that runs the tree's QEMU.
func Command(ctx context.Context, tree toolstree.Tree, args ...string) *exec.Cmd {
	return tree.Command(ctx, Program, args...)
}

// Stamp tells builds of the tree's QEMU apart without running it.
func Stamp(tree toolstree.Tree) (string, error) { return tree.Stamp(Program) }

// Version asks the tree's QEMU for its version.
func Version(ctx context.Context, tree toolstree.Tree) (string, error) {
	out, err := Command(ctx, tree, "--version").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("asking QEMU for its version: %w: %s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("asking QEMU for its version: %w", err)
	}
	_, version, ok := strings.Cut(strings.SplitN(string(out), "\n", 2)[0], "version ")
	if !ok {
		return "", fmt.Errorf("asking QEMU for its version: it said %q", out)
	}
	version, _, _ = strings.Cut(version, " ")
	return version, nil
}

// OfVersion returns the tree with the QEMU of that version: the tree's own, or the newer one beside it.
func OfVersion(ctx context.Context, tree toolstree.Tree, want string) (toolstree.Tree, error) {
	own, err := Version(ctx, tree)
	if err != nil || own == want {
		return tree, err
	}
	newer, err := tree.WithNewerQEMU()
	if err != nil {
		return tree, fmt.Errorf("QEMU of the tools tree is %s, want the shape's %s, and there is no other: %w (chrysalis image build makes it)",
			own, want, err)
	}
	other, err := Version(ctx, newer)
	if err == nil && other != want {
		err = fmt.Errorf("QEMU here is %s and %s, want the shape's %s", own, other, want)
	}
	return newer, err
}
