package lock

import (
	"cmp"
	"maps"
	"slices"

	"pault.ag/go/debian/version"
)

// Diff is in what two locks differ.
type Diff struct {
	Lock     string          `json:"lock"`
	Archives []ArchiveChange `json:"archives"` // suites with another index
	Packages []PackageChange `json:"packages"`
}

// ArchiveChange is a suite whose signed index is another; a date is absent where a lock does not know the suite.
type ArchiveChange struct {
	Archive string `json:"archive"`
	Suite   string `json:"suite"`
	Old     string `json:"old,omitempty"`
	New     string `json:"new,omitempty"`
}

// PackageChange is a package that was added (no Old), removed (no New) or changed.
type PackageChange struct {
	Name    string `json:"name"`
	Old     string `json:"old,omitempty"` // version
	New     string `json:"new,omitempty"`
	OldSize int64  `json:"old_size,omitempty"` // bytes to download
	NewSize int64  `json:"new_size,omitempty"`
	// Advisories are the DSA, DLA and CVE numbers in the changelog entries after the old version; News says where it was
	// read, or why it could not be.
	Advisories []string `json:"advisories"`
	News       string   `json:"news,omitempty"`

	old, new Package
}

// Downgrade reports whether the new version is the older one.
func (c PackageChange) Downgrade() bool {
	before, errOld := version.Parse(c.Old)
	after, errNew := version.Parse(c.New)
	return errOld == nil && errNew == nil && version.Compare(after, before) < 0
}

// Compare compares two locks. A package of the same version with another hash is a change too: nobody may do that.
func Compare(before, after Lock) Diff {
	d := Diff{Lock: after.Name, Archives: []ArchiveChange{}, Packages: []PackageChange{}}
	suites := map[[2]string][2]Release{}
	for i, releases := range [][]Release{before.Releases, after.Releases} {
		for _, r := range releases {
			both := suites[[2]string{r.Archive, r.Suite}]
			both[i] = r
			suites[[2]string{r.Archive, r.Suite}] = both
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(suites), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		if both := suites[key]; both[0].InRelease != both[1].InRelease {
			d.Archives = append(d.Archives, ArchiveChange{key[0], key[1], dateOf(both[0]), dateOf(both[1])})
		}
	}
	type place struct{ name, architecture string }
	packages := map[place][2]Package{}
	for i, list := range [][]Package{before.Packages, after.Packages} {
		for _, p := range list {
			both := packages[place{p.Name, p.Architecture}]
			both[i] = p
			packages[place{p.Name, p.Architecture}] = both
		}
	}
	names := slices.SortedFunc(maps.Keys(packages), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.architecture, b.architecture))
	})
	for _, key := range names {
		if both := packages[key]; both[0].SHA256 != both[1].SHA256 {
			d.Packages = append(d.Packages, PackageChange{Name: key.name, Old: both[0].Version, New: both[1].Version, OldSize: both[0].Size,
				NewSize:    both[1].Size,
				Advisories: []string{}, old: both[0], new: both[1]})
		}
	}
	return d
}

func dateOf(r Release) string {
	if r.Date.IsZero() {
		return ""
	}
	return r.Date.UTC().Format("2006-01-02T15:04:05Z")
}

// Empty reports whether the locks name the same packages. The archives' dates alone are no difference: they move daily.
func (d Diff) Empty() bool { return len(d.Packages) == 0 }
