package e2e

import (
	"os"
	"path"
	"path/filepath"
	"testing"

	"chrysalis/tools/internal/image"
	"chrysalis/tools/internal/release"
)

// TestReleaseModules holds what the linker wrote into the release's programs against the list in the source tree: a version
// that moves there moves measured bytes.
func TestReleaseModules(t *testing.T) {
	needsBuild(t)
	data, err := os.ReadFile(filepath.Join(built, "release", release.ContentsName))
	if err != nil {
		t.Fatal(err)
	}
	c, err := release.DecodeContents(data)
	if err != nil {
		t.Fatal(err)
	}
	var uses []image.ModuleUse
	for _, p := range c.Programs {
		for _, m := range append(p.Modules, p.Module) { // containerd and runc are of modules with a version
			if !image.IsOwnModule(m.Path) {
				uses = append(uses, image.ModuleUse{Program: path.Base(p.Path), Module: m.Path, Version: m.Version})
			}
		}
	}
	differences, err := image.CompareModules(filepath.Join(built, ".."), image.SortModules(uses))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range differences {
		t.Error(line)
	}
}
