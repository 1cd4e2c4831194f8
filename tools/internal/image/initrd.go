package image

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/cavaliergopher/cpio"
	"github.com/go-json-experiment/json"

	"chrysalis/measure/config"
)

// entry is one name of the initrd. A directory has no data and ends in a slash.
type entry struct {
	name string
	data []byte
	mode cpio.FileMode
}

// initrdEntries lists what the initrd holds: init, the modules in the order in which it loads them, the name of the root
// volume, the command line that init holds the kernel's against, and what the image says of itself.
func initrdEntries(initProgram []byte, k kernel, modules []string, root config.Volume, cmdline, image []byte) ([]entry, error) {
	ref, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	entries := []entry{
		{"init", initProgram, 0o755},
		{"root.json", ref, 0o644},
		{"cmdline", cmdline, 0o644},
		{"image.json", image, 0o644},
	}
	for _, dir := range []string{"dev/", "modules/", "newroot/", "proc/", "run/", "sys/"} {
		entries = append(entries, entry{dir, nil, 0o755})
	}
	if len(modules) > 99 {
		return nil, fmt.Errorf("%d modules, want at most 99", len(modules))
	}
	for i, file := range modules {
		data, err := os.ReadFile(filepath.Join(k.modules, file))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{fmt.Sprintf("modules/%02d-%s", i, filepath.Base(file)), data, 0o644})
	}
	return entries, nil
}

// writeInitrd writes the entries as an uncompressed newc archive: sorted, owned by root, without times, inode numbers
// counted from 1. It is not compressed because the firmware measures the file and the kernel unpacks it faster that way.
func writeInitrd(w io.Writer, entries []entry) error {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	c := cpio.NewWriter(w)
	for i, e := range entries {
		h := &cpio.Header{Name: e.name, Mode: cpio.TypeReg | e.mode, Size: int64(len(e.data)), Inode: int64(i + 1), Links: 1}
		if name := len(e.name) - 1; e.name[name] == '/' {
			h.Name, h.Mode, h.Links = e.name[:name], cpio.TypeDir|e.mode, 2
		}
		if err := c.WriteHeader(h); err != nil {
			return fmt.Errorf("writing initrd: %s: %w", e.name, err)
		}
		if _, err := c.Write(e.data); err != nil {
			return fmt.Errorf("writing initrd: %s: %w", e.name, err)
		}
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("writing initrd: %w", err)
	}
	return nil
}

func writeInitrdFile(path string, entries []entry) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeInitrd(f, entries), f.Close())
}
