package release

import (
	"maps"
	"slices"
)

// Change is a package or module that two releases have in different versions.
type Change struct {
	Kind string `json:"kind"` // package, module or toolchain
	Name string `json:"name"`
	A    string `json:"a,omitempty"` // "": A has none
	B    string `json:"b,omitempty"`
}

// Changes compares by contents.json what two release folders are made of. Folders without contents have no changes to tell.
func Changes(a, b string) []Change {
	inA, inB := readContents(a).parts(), readContents(b).parts()
	if len(inA) == 0 || len(inB) == 0 {
		return nil
	}
	all := maps.Clone(inA)
	maps.Copy(all, inB)
	var changes []Change
	for _, key := range slices.SortedFunc(maps.Keys(all), comparePairs) {
		if inA[key] != inB[key] {
			changes = append(changes, Change{Kind: key[0], Name: key[1], A: inA[key], B: inB[key]})
		}
	}
	return changes
}

func comparePairs(a, b [2]string) int { return slices.Compare(a[:], b[:]) }

// parts maps kind and name of each part to its version. A module that programs have in two versions has both.
func (c Contents) parts() map[[2]string]string {
	versions := map[[2]string][]string{}
	add := func(kind, name, version string) {
		key := [2]string{kind, name}
		if !slices.Contains(versions[key], version) {
			versions[key] = append(versions[key], version)
		}
	}
	for _, p := range c.Packages {
		add("package", p.Name, p.Version)
	}
	for _, p := range c.Programs {
		add("toolchain", "go", p.Go)
		for _, m := range append(slices.Clone(p.Modules), p.Module) {
			add("module", m.Path, m.Version)
		}
	}
	parts := map[[2]string]string{}
	for key, list := range versions {
		slices.Sort(list)
		text := list[0]
		for _, v := range list[1:] {
			text += " and " + v
		}
		parts[key] = text
	}
	return parts
}
