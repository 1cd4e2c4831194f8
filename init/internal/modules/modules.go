// Package modules loads the kernel modules that lie in the initrd, in the order of their names. The kernel checks
// their signatures; the initrd is measured, so the list is closed.
package modules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Load loads every module file of dir (name.ko or name.ko.xz) in lexical order. A module that finds no device of its
// own stays unloaded; that is no error, because the drivers of all platforms are in one image.
func Load(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko*"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("loading modules: %s holds none", dir)
	}
	for _, file := range files { // Glob sorts
		if err := load(file); err != nil {
			return fmt.Errorf("loading module %s: %v", filepath.Base(file), err)
		}
	}
	return nil
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	switch err := unix.FinitModule(int(f.Fd()), "", flags); err {
	case nil, unix.EEXIST, unix.ENODEV:
		return nil
	default:
		return err
	}
}
