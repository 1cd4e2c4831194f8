package advisory

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/semver"
)

// Bounds of a database, which has some thousands of entries of some kilobytes.
const (
	maxEntries    = 1 << 17
	maxEntryBytes = 1 << 20
)

// Names under which the Go vulnerability database files what is no module.
const (
	Stdlib    = "stdlib"
	Toolchain = "toolchain"
)

// GoDatabase holds the entries of a Go vulnerability database.
type GoDatabase struct {
	Entries  int
	Modified time.Time // as it says itself; zero where it does not
	affected map[string][]affected
}

// GoFinding is a vulnerability in a module, with what of the module is concerned.
type GoFinding struct {
	Finding
	Imports []Import // empty: the whole module
}

// Import is a package that is concerned, and the functions and methods in it. Without symbols it is the whole package.
type Import struct {
	Path    string   `json:"path"`
	Symbols []string `json:"symbols"`
	GOOS    []string `json:"goos"`
	GOARCH  []string `json:"goarch"`
}

// affected is an entry's word about one module.
type affected struct {
	finding Finding
	ranges  []versions
	imports []Import
}

// versions is a range of an entry: versions from introduced on, before fixed.
type versions struct{ introduced, fixed string }

// osv is what is read of an entry: https://ossf.github.io/osv-schema. An entry may have more members, which people read.
type osv struct {
	ID        string    `json:"id"`
	Modified  time.Time `json:"modified"`
	Withdrawn time.Time `json:"withdrawn"`
	Aliases   []string  `json:"aliases"`
	Summary   string    `json:"summary"`
	Affected  []struct {
		Package struct {
			Name      string `json:"name"`
			Ecosystem string `json:"ecosystem"`
		} `json:"package"`
		Ranges []struct {
			Type   string `json:"type"`
			Events []struct {
				Introduced string `json:"introduced"`
				Fixed      string `json:"fixed"`
			} `json:"events"`
		} `json:"ranges"`
		Specific struct {
			Imports []Import `json:"imports"`
		} `json:"ecosystem_specific"`
	} `json:"affected"`
}

// OpenGo reads a database: a folder or a zip file with the entries as the database publishes them, ID/*.json beside an index, or as its
// sources have them, *.json.
func OpenGo(file string) (GoDatabase, error) {
	d := GoDatabase{affected: map[string][]affected{}}
	info, err := os.Stat(file)
	if err != nil {
		return d, err
	}
	if info.IsDir() {
		err = d.read(os.DirFS(file))
	} else {
		var z *zip.ReadCloser
		if z, err = zip.OpenReader(file); err == nil {
			defer z.Close()
			err = d.read(z)
		}
	}
	if err == nil && len(d.affected[Stdlib]) == 0 {
		err = fmt.Errorf("%d entries, and none is of Go's standard library", d.Entries)
	}
	if err != nil {
		return d, fmt.Errorf("reading Go vulnerability database %s: %w", file, err)
	}
	return d, nil
}

func (d *GoDatabase) read(tree fs.FS) error {
	var index, newest time.Time
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path.Ext(name) != ".json" {
			return err
		}
		if path.Base(path.Dir(name)) == "index" {
			if path.Base(name) != "db.json" {
				return nil
			}
			var of struct {
				Modified time.Time `json:"modified"`
			}
			err := readEntry(tree, name, &of)
			index = of.Modified
			return err
		}
		var o osv
		if err := readEntry(tree, name, &o); err != nil {
			return err
		}
		if d.Entries++; d.Entries > maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if o.Modified.After(newest) {
			newest = o.Modified
		}
		if err := d.add(o); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if d.Modified = index; index.IsZero() {
		d.Modified = newest
	}
	return err
}

func readEntry(tree fs.FS, name string, to any) error {
	f, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEntryBytes+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxEntryBytes {
		return fmt.Errorf("%s: more than %d bytes", name, maxEntryBytes)
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// add files an entry under the modules that it is about.
func (d *GoDatabase) add(o osv) error {
	if o.ID == "" || len(o.Affected) == 0 {
		return errors.New("it has no id or affects nothing: want an OSV entry")
	}
	if !o.Withdrawn.IsZero() {
		return nil
	}
	for _, in := range o.Affected {
		if in.Package.Ecosystem != "Go" || in.Package.Name == "" {
			return fmt.Errorf("%s is about %.60q of %.40q, want a package of Go", o.ID, in.Package.Name, in.Package.Ecosystem)
		}
		a := affected{finding: Finding{ID: o.ID, Aliases: o.Aliases, Note: o.Summary}, imports: in.Specific.Imports}
		for _, r := range in.Ranges {
			if r.Type != "SEMVER" {
				return fmt.Errorf("%s has a range of type %.40q, want SEMVER", o.ID, r.Type)
			}
			for _, e := range r.Events {
				for _, v := range []string{e.Introduced, e.Fixed} {
					if v != "" && v != "0" && !semver.IsValid("v"+v) {
						return fmt.Errorf("%s names version %.60q, want a semantic one", o.ID, v)
					}
				}
				last := len(a.ranges) - 1
				switch {
				case e.Introduced != "" && e.Fixed == "":
					a.ranges = append(a.ranges, versions{introduced: e.Introduced})
				case e.Fixed != "" && e.Introduced == "" && last >= 0 && a.ranges[last].fixed == "":
					a.ranges[last].fixed = e.Fixed
				default:
					return fmt.Errorf("%s has an event that introduces %.60q and fixes %.60q, want one of them, in turns", o.ID, e.Introduced, e.Fixed)
				}
			}
		}
		d.affected[in.Package.Name] = append(d.affected[in.Package.Name], a)
	}
	return nil
}

// Affecting returns what is known of a module in a version, as a program's linker wrote it; of Stdlib and Toolchain the version is Go's.
func (d GoDatabase) Affecting(module, version string) (found []GoFinding, err error) {
	v := version
	if module == Stdlib || module == Toolchain {
		if v, err = goVersion(version); err != nil {
			return nil, err
		}
	}
	if !semver.IsValid(v) {
		return nil, fmt.Errorf("module %s has version %.60q, want a semantic one", module, version)
	}
	for _, a := range d.affected[module] {
		f := GoFinding{Finding: a.finding, Imports: a.imports}
		holds := len(a.ranges) == 0
		for _, r := range a.ranges {
			if (r.introduced == "0" || semver.Compare(v, "v"+r.introduced) >= 0) && (r.fixed == "" || semver.Compare(v, "v"+r.fixed) < 0) {
				holds, f.Fixed = true, r.fixed
			}
		}
		if holds {
			found = append(found, f)
		}
	}
	slices.SortFunc(found, func(a, b GoFinding) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

var goRelease = regexp.MustCompile(`^go([1-9][0-9]*\.[0-9]+)(\.[0-9]+)?(?:(rc|beta)([0-9]+))?$`)

// goVersion makes a semantic version of Go's own.
func goVersion(text string) (string, error) {
	m := goRelease.FindStringSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("version %.60q is none of Go, want such as go1.26.8", text)
	}
	v := "v" + m[1]
	if v += m[2]; m[2] == "" {
		v += ".0"
	}
	if m[3] != "" {
		v += "-" + m[3] + "." + m[4]
	}
	return v, nil
}
