package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/image"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/progress"
)

func newImage() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build the guest image from its locks",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newImageLock())
	return cmd
}

func newImageLock() *cobra.Command {
	return &cobra.Command{
		Use:   "lock",
		Short: "Resolve the locks anew in today's archives and write them to image/",
		Long: `Resolve the request in the header of each lock in today's archives, check the archives' signatures, and write the
locks. To add a package, add it to the request first. The mirror is that of the machine's apt sources or of DEBIAN_MIRROR
and DEBIAN_SECURITY_MIRROR.`,
		Example: "  chrysalis image lock && git diff --stat image/",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder(cmd)
			if err != nil {
				return unavailable(err)
			}
			if err := b.WriteLocks(cmd.Context()); err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
}

// newBuilder returns a builder for the source tree that holds the working directory.
func newBuilder(cmd *cobra.Command) (*image.Builder, error) {
	source, err := sourceTree()
	if err != nil {
		return nil, err
	}
	work := filepath.Join(source, "build")
	places, err := lock.FindPlaces("/etc/apt", filepath.Join(work, "cache", "packages"), os.Getenv)
	if err != nil {
		return nil, err
	}
	relock := image.Relock(os.Getenv("RELOCK"))
	switch relock {
	case image.RelockNever, image.RelockAlways, image.RelockAuto:
	default:
		return nil, fmt.Errorf("RELOCK is %q, want 1, auto or nothing", relock)
	}
	return &image.Builder{Source: source, Work: work, Places: places, Relock: relock, Progress: progress.New(cmd.ErrOrStderr())}, nil
}

// sourceTree returns the folder of this module that holds the working directory.
func sourceTree() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the source tree: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "image", "image.lock")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("finding the source tree: no image/image.lock in %s or above", dir)
		}
	}
}
