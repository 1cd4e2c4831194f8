package release

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chrysalis/measure"
)

// CheckContents checks that contents.json describes the files of a release folder as they lie there: every file of the root and of
// the initrd with its mode, size, hash and link, and every Go program with what its linker wrote. Which package owns a file is what
// the contents say; a rebuild shows it.
func CheckContents(dir string, c Contents) error {
	if err := checkContents(dir, c); err != nil {
		return fmt.Errorf("checking contents: %w", err)
	}
	return nil
}

func checkContents(dir string, c Contents) error {
	linked := map[string][]string{}
	for _, p := range c.Programs {
		linked[p.Main] = p.Linked
	}
	found, err := Describe(dir, measure.ReleaseFiles(), func(file, path string) (Origin, error) {
		f, ok := c.find(file, path)
		if !ok {
			return Origin{}, fmt.Errorf("%s is not listed", File{File: file, Path: path}.where())
		}
		return f.From, nil
	}, linked)
	if err != nil {
		return err
	}
	for _, f := range c.Files {
		if _, ok := found.find(f.File, f.Path); !ok {
			return fmt.Errorf("%s is listed, and not there", f.where())
		}
	}
	for _, whole := range []bool{false, true} { // what lies in an archive first: it is why the archive differs
		for _, f := range found.Files {
			if listed, _ := c.find(f.File, f.Path); listed != f && whole == (f.Path == "") {
				return fmt.Errorf("%s is %s, %d bytes, SHA-256 %s, link %q; it is listed as %s, %d bytes, SHA-256 %s, link %q", f.where(), f.Mode,
					f.Size,
					f.SHA256, f.Link, listed.Mode, listed.Size, listed.SHA256, listed.Link)
			}
		}
	}
	found.Packages = c.Packages
	want, err := EncodeContents(c)
	if err != nil {
		return err
	}
	got, err := EncodeContents(found)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) { // files are the same, and packages are not looked at
		return errors.New("the Go programs are not those that are listed")
	}
	return nil
}

// Programs returns the bytes of the Go programs that the contents of a release folder list, by file and path.
func Programs(dir string, c Contents) (map[[2]string][]byte, error) {
	programs := map[[2]string][]byte{}
	archives := map[string]map[string]found{}
	for _, p := range c.Programs {
		open := inside(p.File)
		if open == nil {
			return nil, fmt.Errorf("reading programs: %s is no archive", p.File)
		}
		if archives[p.File] == nil {
			data, err := os.ReadFile(filepath.Join(dir, p.File))
			if err == nil {
				archives[p.File], err = open(data)
			}
			if err != nil {
				return nil, fmt.Errorf("reading programs: %s: %w", p.File, err)
			}
		}
		f, ok := archives[p.File][p.Path]
		if !ok || !f.mode.IsRegular() {
			return nil, fmt.Errorf("reading programs: %s has no file %s", p.File, p.Path)
		}
		programs[[2]string{p.File, p.Path}] = f.data
	}
	return programs, nil
}

// InitrdFile returns a file of the initrd of a release folder.
func InitrdFile(dir, name string) ([]byte, error) {
	archive, err := os.ReadFile(filepath.Join(dir, "initrd"))
	if err != nil {
		return nil, err
	}
	entries, err := readInitrd(archive)
	if err != nil {
		return nil, fmt.Errorf("reading initrd: %w", err)
	}
	f, ok := entries[name]
	if !ok || !f.mode.IsRegular() {
		return nil, fmt.Errorf("initrd has no file %s", name)
	}
	return f.data, nil
}
