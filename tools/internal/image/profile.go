package image

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Profile is a kind of guest: a folder of image/mkosi.profiles with what makes its image another's. Manifests name it.
type Profile string

// DefaultProfile is the guest on a machine without GPU.
const DefaultProfile Profile = "cpu"

const profiles = "image/mkosi.profiles"

// The files of a profile. profileBase is read by mkosi, whose name for it is fixed.
const (
	profileBase    = "mkosi.conf"
	profileModules = "modules" // kernel modules of the initrd
	profileCmdline = "cmdline" // the kernel's command line, to the byte
)

// FindProfile returns the profile of that name. The name may come out of a manifest that nobody trusts yet, so only a folder
// that the source tree lists is one.
func FindProfile(source, name string) (Profile, error) {
	folders, err := os.ReadDir(filepath.Join(source, profiles))
	if err != nil {
		return "", fmt.Errorf("finding profile: %w", err)
	}
	var names []string
	for _, f := range folders {
		names = append(names, f.Name())
	}
	if !slices.Contains(names, name) {
		return "", fmt.Errorf("finding profile: %q is none of this source tree, which has %s", name, strings.Join(names, ", "))
	}
	return Profile(name), nil
}

// file is the name of one of the profile's files, relative to the source tree.
func (p Profile) file(name string) string { return path.Join(profiles, string(p), name) }
