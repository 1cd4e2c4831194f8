package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"chrysalis/measure/config"
	"chrysalis/measure/verity"
	"chrysalis/measure/volume"
	"chrysalis/tools/internal/image"
)

func newVolume() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Pack and check the volumes of engine and model",
		Long: "A volume is an erofs image followed by its dm-verity tree, named by its root hash. Equal trees give equal volumes:\n" +
			"owners and times are not kept, modes are normalised, hard links become copies.",
	}
	pack := &cobra.Command{Use: "pack", Short: "Pack a volume and print its root hash"}
	pack.AddCommand(newVolumePack("model", "DIR|FILE|NAME@REVISION",
		"Pack a model: the files of a folder, one file, or a download by its name",
		"  chrysalis volume pack model tiny.gguf -o model.img\n"+
			"  chrysalis volume pack model Qwen/Qwen2.5-7B-Instruct@main --downloads ~/.cache/huggingface/hub -o model.img", modelTree, isModel))
	pack.AddCommand(newVolumePack("engine", "OCI-LAYOUT|DIR", "Pack an engine: an OCI image layout, flattened, or a root folder",
		"  chrysalis volume pack engine ./llama-root -o engine.img\n  skopeo copy docker://vllm/vllm-openai@sha256:… oci:vllm && chrysalis "+
			"volume pack engine vllm -o engine.img", engineTree, nil))
	cmd.AddCommand(pack, newVolumeCheck(), newVolumeCard())
	return cmd
}

// packing is a tree to pack, with what to add to it and what to close afterwards.
type packing struct {
	tree  fs.FS
	dirs  []string
	close func() error
}

// newVolumePack makes the verb that packs what open returns, once looks says that it is what it should be; nil looks at nothing.
func newVolumePack(kind, operand, short, example string, open func(string) (packing, error), looks func(fs.FS) error) *cobra.Command {
	var out, downloads string
	var asJSON, force bool
	cmd := &cobra.Command{
		Use: kind + " " + operand + " -o OUT", Short: short, Example: example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			show, end := byteProgress(cmd.ErrOrStderr())
			p, err := packing{}, error(nil)
			if downloads != "" {
				p, err = downloadedTree(cmd, downloads, args[0], show)
				end()
				if exit := (exitError{}); errors.As(err, &exit) {
					return err
				}
			} else {
				p, err = open(args[0])
			}
			if err != nil {
				return unavailable(fmt.Errorf("packing %s: %w", args[0], err))
			}
			defer p.close()
			if looks != nil && !force {
				if err := looks(p.tree); err != nil {
					return rejected(fmt.Errorf("packing %s: %w\nchrysalis: hint: --force packs it as it is", args[0], err))
				}
			}
			ref, err := packInto(cmd.Context(), out, p.tree, p.dirs, cmd.ErrOrStderr(), func(stage volume.Stage, done,
				total int64) {
				show(string(stage), done, total)
			})
			end()
			if err != nil {
				return unavailable(err)
			}
			return printRef(cmd.OutOrStdout(), ref, asJSON)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	if looks != nil {
		cmd.Flags().StringVar(&downloads, "downloads", "", "folder of downloads that has NAME@REVISION, each file with its hash: "+
			"huggingface_hub's cache, "+
			"or NAME/REVISION/ with SHA256SUMS")
		cmd.Flags().BoolVar(&force, "force", false, "pack it whatever it is")
	}
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

func newVolumeCheck() *cobra.Command {
	var root string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check FILE --root HEX", Short: "Read a whole volume and compare it with its root hash", Args: cobra.ExactArgs(1),
		Example: "  chrysalis volume check model.img --root e8f70e0a865d509109bde20de1305e68903bcf0e9d00ca0464bc024244ed1310",
		RunE: func(cmd *cobra.Command, args []string) error {
			want, err := hex.DecodeString(root)
			if err != nil || len(want) != 32 {
				return fmt.Errorf("root hash %q: want 64 hex digits", root)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return unavailable(err)
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return unavailable(err)
			}
			ref, err := volume.Check(f, info.Size(), [32]byte(want))
			if errors.Is(err, verity.ErrCorrupt) {
				return rejected(err)
			}
			if err != nil {
				return unavailable(err)
			}
			return printRef(cmd.OutOrStdout(), ref, asJSON)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "root hash of the volume, in hex")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("root")
	return cmd
}

func printRef(w io.Writer, ref config.Volume, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(ref)
	}
	_, err := fmt.Fprintf(w, "root   %s\nblocks %d\n", ref.Root, ref.Blocks)
	return err
}

func modelTree(name string) (packing, error) {
	info, err := os.Stat(name)
	if err != nil {
		return packing{}, err
	}
	nop := func() error { return nil }
	if info.IsDir() {
		return packing{tree: os.DirFS(name), close: nop}, nil
	}
	if !info.Mode().IsRegular() {
		return packing{}, fmt.Errorf("want a folder or a regular file, got %v", info.Mode().Type())
	}
	return packing{tree: oneFile{name}, close: nop}, nil
}

// downloadedTree finds a model among downloads and checks the hash of each of its files.
func downloadedTree(cmd *cobra.Command, dir, id string, show func(string, int64, int64)) (packing, error) {
	d, err := findDownload(dir, id)
	if err != nil {
		return packing{}, err
	}
	weak, err := d.check(cmd.Context(), show)
	switch {
	case errors.Is(err, errDownload):
		return packing{}, rejected(fmt.Errorf("checking %s: %w", id, err))
	case err != nil:
		return packing{}, err
	}
	name, _, _ := cutID(id)
	fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: note: %s@%s: %d files have the hashes by which they were downloaded", name, d.revision,
		len(d.files))
	if weak > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), ", %d of them git's SHA-1 alone", weak)
	}
	fmt.Fprintln(cmd.ErrOrStderr())
	return packing{tree: d.tree(), close: func() error { return nil }}, nil
}

// oneFile is the file system with one file in its root, under its base name.
type oneFile struct{ path string }

func (o oneFile) base() string { return filepath.Base(o.path) }

func (o oneFile) Open(name string) (fs.File, error) {
	switch name {
	case o.base():
		return os.Open(o.path)
	case ".":
		return os.Open(filepath.Dir(o.path))
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (o oneFile) ReadDir(string) ([]fs.DirEntry, error) {
	info, err := os.Stat(o.path)
	if err != nil {
		return nil, err
	}
	return []fs.DirEntry{fs.FileInfoToDirEntry(info)}, nil
}

func engineTree(name string) (packing, error) {
	if _, err := os.Stat(filepath.Join(name, "oci-layout")); err == nil {
		tree, close, err := ociTree(name)
		return packing{tree, image.EngineDirs, close}, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return packing{}, err
	}
	if !info.IsDir() {
		return packing{}, fmt.Errorf("want an OCI layout or a root folder, got a file")
	}
	return packing{os.DirFS(name), image.EngineDirs, func() error { return nil }}, nil
}
