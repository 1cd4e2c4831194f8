package release

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Describe lists the named files of a release folder, and what root.img and initrd hold, as they lie on disk. origin names the
// owner of each; linked names the Debian packages whose static libraries a program of that main package holds.
func Describe(dir string, names []string, origin func(file, path string) (Origin, error), linked map[string][]string) (Contents, error) {
	c := Contents{Format: ContentsFormat}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return Contents{}, fmt.Errorf("describing release: %w", err)
		}
		if err := c.add(name, "", found{mode: 0o644, data: data}, origin, linked); err != nil {
			return Contents{}, fmt.Errorf("describing release: %w", err)
		}
		open := inside(name)
		if open == nil {
			continue
		}
		entries, err := open(data)
		if err != nil {
			return Contents{}, fmt.Errorf("describing release: reading %s: %w", name, err)
		}
		for _, path := range slices.Sorted(maps.Keys(entries)) {
			if path == "." {
				continue
			}
			if err := c.add(name, path, entries[path], origin, linked); err != nil {
				return Contents{}, fmt.Errorf("describing release: %w", err)
			}
		}
	}
	slices.SortFunc(c.Files, orderFiles)
	return c, nil
}

func (c *Contents) add(file, path string, e found, origin func(file, path string) (Origin, error), linked map[string][]string) error {
	from, err := origin(file, path)
	if err != nil {
		return err
	}
	f := File{File: file, Path: path, Mode: e.mode.String(), Size: int64(len(e.data)), Link: e.link, From: from}
	if e.mode.IsRegular() {
		f.SHA256 = sha256.Sum256(e.data)
	}
	c.Files = append(c.Files, f)
	if from.Kind != FromGo {
		return nil
	}
	p, err := readProgram(e.data)
	if err != nil {
		return fmt.Errorf("%s: %w", f.where(), err)
	}
	if p.Main != from.Name {
		return fmt.Errorf("%s: was built from %s, want %s", f.where(), p.Main, from.Name)
	}
	p.File, p.Path, p.Linked = file, path, linked[p.Main]
	c.Programs = append(c.Programs, p)
	return nil
}

// ownModule is the module of the source tree's root, which the nested ones take from the folder above them.
const ownModule = "chrysalis"

// readProgram reads what the Go linker wrote into a program.
func readProgram(data []byte) (Program, error) {
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		return Program{}, err
	}
	return describeProgram(info)
}

func describeProgram(info *buildinfo.BuildInfo) (Program, error) {
	p := Program{Go: info.GoVersion, Main: info.Path, Module: Module{info.Main.Path, info.Main.Version, info.Main.Sum}, Settings: []string{},
		Modules: []Module{}}
	for _, s := range info.Settings {
		p.Settings = append(p.Settings, s.Key+"="+s.Value)
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			if m.Path != ownModule || m.Replace.Version != "(devel)" || strings.Trim(m.Replace.Path, "./") != "" {
				return Program{}, fmt.Errorf("module %s is replaced by %s, want none replaced but the source tree's own", m.Path, m.Replace.Path)
			}
			continue // a program of a nested module: the root's is this source tree, as the program's own is
		}
		p.Modules = append(p.Modules, Module{m.Path, m.Version, m.Sum})
	}
	return p, nil
}
