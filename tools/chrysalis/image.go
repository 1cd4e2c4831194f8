package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/image"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/progress"
)

func newImage() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build the guest image from its locks, and audit releases",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newImageBuild(), newImageAudit(), newImageDiff(), newImageStore(), newImageTools(), newImageLock(), newImageDisk(),
		newImageSizes(), newImageModules())
	return cmd
}

func newImageBuild() *cobra.Command {
	var out, volumes, profile string
	var asJSON, tests bool
	cmd := &cobra.Command{
		Use:   "build [--out DIR] [--volumes DIR] [--profile NAME] [--tests]",
		Short: "Build the release folder and the demo's volumes",
		Long: `Build the release folder: firmware, kernel, initrd, command line, root volume and the manifest that names them all, and the
engine and model volumes of the demo. Needs root, Go, and Debian or Ubuntu.

Each package of the locks in image/ is taken from the cache, CHRYSALIS_STORE, the mirror (of the machine's apt sources or
DEBIAN_MIRROR), the security mirror (DEBIAN_SECURITY_MIRROR) or the snapshot service (DEBIAN_SNAPSHOT), whichever has bytes with the
locked hash. When a package is nowhere the build stops; RELOCK=auto resolves that lock anew and RELOCK=1 always does, and the
manifest then says "unreleased lock".`,
		Example: "  sudo chrysalis image build\n  sudo CHRYSALIS_STORE=/srv/debs chrysalis image build --out /tmp/release --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder(cmd)
			if err != nil {
				return unavailable(err)
			}
			if b.Profile, err = image.FindProfile(b.Source, profile); err != nil {
				return exitError{exitUsage, err}
			}
			if err := image.NeedsRoot(); err != nil {
				return unavailable(err)
			}
			if out == "" {
				out = filepath.Join(b.Work, "release")
			}
			if volumes == "" {
				volumes = filepath.Join(b.Work, "volumes")
			}
			b.Tests = tests
			b.Progress.Expect(b.Steps(true))
			if err := b.Fetch(cmd.Context()); err != nil {
				return unavailable(err)
			}
			manifest, err := b.Build(cmd.Context(), out)
			if err != nil {
				return unavailable(err)
			}
			names, err := b.BuildVolumes(cmd.Context(), volumes)
			if err != nil {
				return unavailable(err)
			}
			if err := noteSizes(cmd.ErrOrStderr(), b.Source, manifest.Files); err != nil {
				return unavailable(err)
			}
			return printBuild(cmd.OutOrStdout(), manifest, names, asJSON)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "release folder to write (default build/release)")
	cmd.Flags().StringVar(&volumes, "volumes", "", "folder for the engine and model volumes (default build/volumes)")
	cmd.Flags().StringVar(&profile, "profile", string(image.DefaultProfile), "kind of guest: a folder of image/mkosi.profiles")
	cmd.Flags().BoolVar(&tests, "tests", false, "also what the tests need, which is in no release: libvirt, browsers, an engine that hears (320 MB of packages)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print manifest and volumes as JSON")
	return cmd
}

func printBuild(w io.Writer, m measure.Manifest, v image.Volumes, asJSON bool) error {
	if asJSON {
		return json.MarshalWrite(w, struct {
			Manifest measure.Manifest `json:"manifest"`
			Volumes  image.Volumes    `json:"volumes"`
		}{m, v}, json.Deterministic(true))
	}
	for _, f := range m.Files {
		fmt.Fprintf(w, "%-16s %11d  %s\n", f.Name, f.Size, f.SHA256)
	}
	fmt.Fprintf(w, "%-16s %11s  %s\n%-16s %11s  %s\n%-16s %11s  %s\n", "root volume", "", m.Root.Root, "engine volume", "", v.Engine.Root,
		"model volume", "", v.Model.Root)
	state := m.Lock
	if v.Lock != measure.LockReleased {
		state = v.Lock
	}
	fmt.Fprintf(w, "lock: %s\n", state)
	return nil
}

func newImageStore() *cobra.Command {
	return &cobra.Command{
		Use:     "store DIR",
		Short:   "Copy every locked package into a folder that serves as CHRYSALIS_STORE",
		Example: "  chrysalis image store /srv/debs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder(cmd)
			if err != nil {
				return unavailable(err)
			}
			if err := b.Store(cmd.Context(), args[0]); err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
}

func newImageTools() *cobra.Command {
	return &cobra.Command{
		Use:     "tools",
		Short:   "Build the tools tree and print its path",
		Example: "  sudo chrysalis image tools",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder(cmd)
			if err != nil {
				return unavailable(err)
			}
			tree, err := b.Tools(cmd.Context())
			if err != nil {
				return unavailable(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), tree.Path(""))
			return nil
		},
	}
}

// newBuilder returns a builder for the source tree that holds the working directory, of the default profile.
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
	return &image.Builder{Source: source, Profile: image.DefaultProfile, Work: work, Places: places, Relock: relock,
		Progress: progress.New(cmd.ErrOrStderr())}, nil
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
