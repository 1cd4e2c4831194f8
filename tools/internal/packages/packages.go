// Package packages puts files into what people install: a tarball for any system, and a Debian package. The same files make the same bytes:
// names are in order, everything belongs to root, and nothing has a time but one that is given for all.
//
//	tarball, err := packages.Tarball(files)
//	deb, err := packages.Deb(packages.Control{Name: "chrysalis", …}, files)
package packages

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// File is a file by its path from the root of what is installed, without a slash before it.
type File struct {
	Path    string
	Program bool // everybody may run it
	Data    []byte
}

// epoch is when everything was made: the first moment that every archive's form can say.
var epoch = time.Unix(315532800, 0) // 1980-01-01

// Tarball returns the files as a tar archive under gzip.
func Tarball(files []File) ([]byte, error) { return tarball("", files) }

// tarball writes every path behind prefix, folders before what is in them.
func tarball(prefix string, files []File) ([]byte, error) {
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(z)
	const folder, file = 1, 2
	seen := map[string]int{".": folder}
	for _, f := range files {
		if !fs.ValidPath(f.Path) || seen[f.Path] != 0 {
			return nil, fmt.Errorf("packing: path %q is none below a root, or stands twice", f.Path)
		}
		for i, c := range f.Path {
			dir := f.Path[:i]
			if c == '/' && seen[dir] == file {
				return nil, fmt.Errorf("packing: path %q is a file and a folder", dir)
			}
			if c == '/' && seen[dir] == 0 {
				seen[dir] = folder
				if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: prefix + dir + "/", Mode: 0o755, ModTime: epoch, Uname: "root", Gname: "root",
					Format: tar.FormatUSTAR}); err != nil {
					return nil, fmt.Errorf("packing: %w", err)
				}
			}
		}
		seen[f.Path] = file
		mode := int64(0o644)
		if f.Program {
			mode = 0o755
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: prefix + f.Path, Mode: mode, Size: int64(len(f.Data)), ModTime: epoch, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("packing: %w", err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("packing: %w", err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("packing: %w", err)
	}
	return out.Bytes(), nil
}

// Gzip returns data under gzip, as Debian wants its manual pages.
func Gzip(data []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(data)
	return out.Bytes(), errors.Join(err, z.Close())
}

// Control is what a Debian package says of itself: Debian Policy, chapter 5.
type Control struct {
	Name, Version, Architecture, Maintainer, Section, Homepage string
	Summary, Description                                       string // Description is wrapped by its author
}

var (
	controlName    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)           // section 5.6.1
	controlVersion = regexp.MustCompile(`^([0-9]+:)?[0-9][A-Za-z0-9.+~]*$`) // section 5.6.12, without a revision
)

// text returns the control file.
func (c Control) text(installed int) ([]byte, error) {
	if !controlName.MatchString(c.Name) || !controlName.MatchString(c.Architecture) {
		return nil, fmt.Errorf("packing: package %q for %q, want lower-case names", c.Name, c.Architecture)
	}
	if !controlVersion.MatchString(c.Version) {
		return nil, fmt.Errorf("packing: version is %.60q, want one that begins with a digit, of letters, digits and .+~", c.Version)
	}
	for _, line := range []string{c.Maintainer, c.Section, c.Summary} {
		if line == "" || strings.ContainsAny(line, "\r\n") {
			return nil, fmt.Errorf("packing: maintainer, section and summary are one line each, and one is %q", line)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: %s\nInstalled-Size: %d\nSection: %s\nPriority: optional\n", c.Name, c.Version,
		c.Architecture, c.Maintainer, (installed+1023)/1024, c.Section)
	fmt.Fprintf(&b, "Description: %s\n", c.Summary)
	for line := range strings.SplitSeq(strings.TrimSpace(c.Description), "\n") {
		if line = strings.TrimSpace(line); line == "" {
			line = "."
		}
		b.WriteString(" " + line + "\n")
	}
	return []byte(b.String()), nil
}

// Deb returns the files as a Debian package: deb(5).
func Deb(c Control, files []File) ([]byte, error) {
	var sums bytes.Buffer
	installed := 0
	for _, f := range slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) }) {
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.Data), f.Path) // which dpkg --verify reads; who signs the package's hash vouches for it
		installed += len(f.Data)
	}
	text, err := c.text(installed)
	if err != nil {
		return nil, err
	}
	control, err := tarball("./", []File{{Path: "control", Data: text}, {Path: "md5sums", Data: sums.Bytes()}})
	if err != nil {
		return nil, err
	}
	data, err := tarball("./", files)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, member := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}, {"data.tar.gz", data}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, epoch.Unix(), 0, 0, "100644", len(member.data))
		out.Write(member.data)
		if len(member.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}

// Below returns the files with folder before each path.
func Below(folder string, files []File) []File {
	moved := slices.Clone(files)
	for i := range moved {
		moved[i].Path = path.Join(folder, moved[i].Path)
	}
	return moved
}
