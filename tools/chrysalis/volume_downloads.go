package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Downloads are a folder of models as downloaders leave them, each file with its hash:
//
//	models--ORG--NAME/refs/REVISION              the commit that a branch or tag stood for
//	models--ORG--NAME/snapshots/COMMIT/FILE      a link to ../../blobs/HASH, as huggingface_hub keeps them: SHA-256 of large files, git's
//	                                             own of the others
//	NAME/REVISION/FILE, NAME/REVISION/SHA256SUMS as anybody may lay them out
//
// Source of the first: huggingface/huggingface_hub, "Understand caching".

// download is a model in such a folder: where each of its files lies, and what its hash must be.
type download struct {
	revision string // what a branch or tag stood for
	files    map[string]downloaded
}

type downloaded struct {
	path string
	hash string // 64 hexadecimal digits of SHA-256, or 40 of git's name of a blob
	size int64
}

const (
	maxDownloadFiles = 1 << 16
	sumsName         = "SHA256SUMS"
)

var (
	gitCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)
	blobName  = regexp.MustCompile(`^(?:[0-9a-f]{40}|[0-9a-f]{64})$`)
)

// findDownload looks for NAME@REVISION below a folder of downloads.
func findDownload(dir, id string) (d download, err error) {
	name, revision, ok := cutID(id)
	if !ok || !fs.ValidPath(name) || !fs.ValidPath(revision) {
		return d, exitError{exitUsage, fmt.Errorf("%q: want NAME@REVISION", id)}
	}
	hub := filepath.Join(dir, "models--"+strings.ReplaceAll(name, "/", "--"))
	if _, err := os.Stat(hub); err == nil {
		return hubDownload(hub, revision)
	}
	folder := filepath.Join(dir, filepath.FromSlash(name), filepath.FromSlash(revision))
	if _, err := os.Stat(filepath.Join(folder, sumsName)); err == nil {
		return listedDownload(folder, revision)
	}
	return d, fmt.Errorf("%s has neither %s nor %s", dir, hub, filepath.Join(folder, sumsName))
}

func hubDownload(hub, revision string) (d download, err error) {
	d = download{revision: revision, files: map[string]downloaded{}}
	if !gitCommit.MatchString(revision) {
		commit, err := os.ReadFile(filepath.Join(hub, "refs", filepath.FromSlash(revision)))
		if err != nil {
			return d, err
		}
		if d.revision = strings.TrimSpace(string(commit)); !gitCommit.MatchString(d.revision) {
			return d, fmt.Errorf("refs/%s is %.80q, want a commit", revision, d.revision)
		}
	}
	blobs, err := filepath.EvalSymlinks(filepath.Join(hub, "blobs"))
	if err != nil {
		return d, err
	}
	snapshot := filepath.Join(hub, "snapshots", d.revision)
	err = filepath.WalkDir(snapshot, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		target, err := filepath.EvalSymlinks(file)
		if err != nil {
			return fmt.Errorf("%w: download it again", err)
		}
		if filepath.Dir(target) != blobs || !blobName.MatchString(filepath.Base(target)) {
			return fmt.Errorf("%s is no link to one of %s, whose names are their hashes", file, blobs)
		}
		return d.add(snapshot, file, target, filepath.Base(target))
	})
	if err == nil && len(d.files) == 0 {
		err = fmt.Errorf("%s is empty", snapshot)
	}
	return d, err
}

func listedDownload(folder, revision string) (d download, err error) {
	d = download{revision: revision, files: map[string]downloaded{}}
	sums, err := readInput(filepath.Join(folder, sumsName))
	if err != nil {
		return d, err
	}
	want := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(string(sums))); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), " ")
		name = strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(name, " "), "*"), "./")
		if _, twice := want[name]; !ok || twice || len(sum) != 64 || !blobName.MatchString(sum) || !fs.ValidPath(name) {
			return d, fmt.Errorf("%s: line %.120q, want a SHA-256 and a name, each once", sumsName, lines.Text())
		}
		want[name] = sum
	}
	err = filepath.WalkDir(folder, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || file == filepath.Join(folder, sumsName) {
			return err
		}
		name, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		sum, listed := want[filepath.ToSlash(name)]
		if !listed {
			return fmt.Errorf("%s is not in %s", name, sumsName)
		}
		delete(want, filepath.ToSlash(name))
		return d.add(folder, file, file, sum)
	})
	for name := range want {
		if err == nil {
			err = fmt.Errorf("%s names %s, which is not there", sumsName, name)
		}
	}
	return d, err
}

func (d download) add(root, file, target, sum string) error {
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(root, file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || len(d.files) == maxDownloadFiles {
		return fmt.Errorf("%s is no file, or the %dth", name, maxDownloadFiles)
	}
	d.files[filepath.ToSlash(name)] = downloaded{target, sum, info.Size()}
	return nil
}

// check hashes every file, as many at a time as there are processors, and says how many of them git's SHA-1 alone vouches for.
func (d download) check(ctx context.Context, show func(string, int64, int64)) (weak int, err error) {
	var names []string
	var total int64
	for name, f := range d.files {
		names = append(names, name)
		total += f.size
		if len(f.hash) == 2*sha1.Size {
			weak++
		}
	}
	slices.Sort(names)
	return weak, hashAll(ctx, len(names), func(i int, count func(int64)) error {
		if err := d.files[names[i]].check(count); err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		return nil
	}, func(done int64) { show("checking downloads", done, total) })
}

var errDownload = errors.New("download it again")

func (f downloaded) check(count func(int64)) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	var h hash.Hash
	if len(f.hash) == 2*sha1.Size {
		h = sha1.New() // git's name of a file's content: its kind and length come first
		fmt.Fprintf(h, "blob %d\x00", f.size)
	} else {
		h = sha256.New()
	}
	n, err := io.Copy(io.MultiWriter(h, tally(count)), in)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.hash {
		return fmt.Errorf("its %d bytes have hash %s, want %s: %w", n, got, f.hash, errDownload)
	}
	return nil
}

// tree returns the model's files as a file system without links.
func (d download) tree() fs.FS { return downloadTree{d} }

type downloadTree struct{ d download }

func (t downloadTree) Open(name string) (fs.File, error) {
	if f, ok := t.d.files[name]; ok {
		file, err := os.Open(f.path)
		return calledFile{file, path.Base(name)}, err
	}
	entries, err := t.ReadDir(name)
	if err != nil {
		return nil, err
	}
	return &subfolder{base: path.Base(name), entries: entries}, nil
}

func (t downloadTree) ReadDir(name string) (entries []fs.DirEntry, err error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	seen := map[string]bool{}
	for file, f := range t.d.files {
		rest := file
		if name != "." {
			var below bool
			if rest, below = strings.CutPrefix(file, name+"/"); !below {
				continue
			}
		}
		base, _, deeper := strings.Cut(rest, "/")
		if seen[base] {
			continue
		}
		seen[base] = true
		if deeper {
			entries = append(entries, fs.FileInfoToDirEntry(&subfolder{base: base}))
			continue
		}
		info, err := os.Stat(f.path)
		if err != nil {
			return nil, err
		}
		entries = append(entries, fs.FileInfoToDirEntry(called{info, base}))
	}
	if len(entries) == 0 {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// calledFile is an open file under the name that its model gives it.
type calledFile struct {
	*os.File
	base string
}

func (f calledFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	return called{info, f.base}, err
}

// called is a file under the name that its model gives it.
type called struct {
	fs.FileInfo
	base string
}

func (c called) Name() string { return c.base }

// subfolder is a folder of such a tree, open or told.
type subfolder struct {
	base    string
	entries []fs.DirEntry
}

func (f *subfolder) Name() string               { return f.base }
func (f *subfolder) Size() int64                { return 0 }
func (f *subfolder) Mode() fs.FileMode          { return fs.ModeDir | 0o755 }
func (f *subfolder) ModTime() time.Time         { return time.Time{} }
func (f *subfolder) IsDir() bool                { return true }
func (f *subfolder) Sys() any                   { return nil }
func (f *subfolder) Stat() (fs.FileInfo, error) { return f, nil }
func (f *subfolder) Close() error               { return nil }

// ReadDir is what fs.ReadDirFile asks for: the next n entries, or all that are left.
func (f *subfolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 || n > len(f.entries) {
		if n > 0 && len(f.entries) == 0 {
			return nil, io.EOF
		}
		n = len(f.entries)
	}
	next := f.entries[:n]
	f.entries = f.entries[n:]
	return next, nil
}

func (f *subfolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.base, Err: errors.New("is a folder")}
}
