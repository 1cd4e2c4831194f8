package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chrysalis/measure/config"
	"chrysalis/measure/volume"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// rootFile is a line of root.list: one name of the root and where it comes from.
type rootFile struct {
	from string // "base", "guest" or "dir"
	path string // slash-separated, relative
	by   string // of base: the package whose installation script makes the file; "" if a package ships it
}

// parseRootList reads the closed list of what the root holds.
func parseRootList(data []byte) ([]rootFile, error) {
	var list []rootFile
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		word, by := strings.Fields(line), ""
		if len(word) == 4 && word[0] == "base" && word[2] == "by" {
			word, by = word[:2], word[3]
		}
		if len(word) != 2 || !fs.ValidPath(word[1]) || !slices.Contains([]string{"base", "guest", "dir"}, word[0]) {
			return nil, fmt.Errorf("root list: line %q, want base, guest or dir and a path, or base, a path, by and a package", line)
		}
		list = append(list, rootFile{from: word[0], path: word[1], by: by})
	}
	if len(list) == 0 {
		return nil, errors.New("root list: empty")
	}
	return list, nil
}

func (b *Builder) rootList() ([]rootFile, error) {
	data, err := os.ReadFile(filepath.Join(b.Source, "image", "root.list"))
	if err != nil {
		return nil, err
	}
	return parseRootList(bytes.TrimSpace(data))
}

// stageRoot makes the root's tree in dir: exactly what the list names, from the mkosi base and the folder of built programs.
func stageRoot(dir string, list []rootFile, base, guest string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for _, f := range list {
		to := filepath.Join(dir, filepath.FromSlash(f.path))
		var err error
		switch f.from {
		case "dir":
			err = os.MkdirAll(to, 0o755)
		case "base":
			err = copyFile(filepath.Join(base, filepath.FromSlash(f.path)), to)
		case "guest":
			err = copyFile(filepath.Join(guest, filepath.Base(f.path)), to)
		}
		if err != nil {
			return fmt.Errorf("staging root: %s: %w", f.path, err)
		}
	}
	return nil
}

// copyFile copies a regular file with its mode. A link is refused: what it points to is not on the list.
func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is %v, want a regular file", from, info.Mode().Type())
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(info.Mode().Perm()), out.Close())
}

// buildBase has mkosi install the packages of the image lock into a folder, offline, and returns the folder.
func (b *Builder) buildBase(ctx context.Context, tree toolstree.Tree, l lock.Lock) (string, error) {
	dir := filepath.Join(b.Work, "base")
	config, err := b.configDigest()
	if err != nil {
		return "", err
	}
	key := fmt.Sprintf("%x %x %x", l.Digest(), b.toolsLock.Digest(), config)
	err = b.cachedStep("install base by mkosi", dir, key, func() (string, error) {
		return fmt.Sprintf("%d packages", len(l.Packages)), b.mkosi(ctx, tree, l, dir)
	})
	return filepath.Join(dir, "root"), err
}

func (b *Builder) mkosi(ctx context.Context, tree toolstree.Tree, l lock.Lock, dir string) error {
	repo := filepath.Join(dir, "repository")
	if err := l.WriteRepository(repo, b.Places.Cached); err != nil {
		return err
	}
	// The configuration is copied: mkosi takes modes from it, and a checkout's modes are the machine's.
	source := filepath.Join(dir, "source")
	for _, path := range b.mkosiFiles() {
		if err := copyFile(filepath.Join(b.Source, path), filepath.Join(source, path)); err != nil {
			return err
		}
	}
	if err := openModes(source); err != nil {
		return err
	}
	entry := toolstree.Entry{Binds: map[string]string{"source": source, "repository": repo, "out": dir}, Dir: "/mnt/source",
		Env: []string{epoch}}
	// mkosi's workspace holds the root while it grows; memory of the private namespace would not do on a small machine.
	for _, name := range []string{"workspace", "package-cache"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	err := runQuiet(tree.Enter(ctx, entry, "mkosi", "--profile="+string(b.Profile), "--local-mirror=file:///mnt/repository",
		"--output-directory=/mnt/out",
		"--workspace-directory=/mnt/out/workspace", "--package-cache-dir=/mnt/out/package-cache", "--with-network=no", "--force", "build"))
	for _, name := range []string{"repository", "workspace", "package-cache"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
	}
	return err
}

// mkosiFiles are the files of the source tree that mkosi reads.
func (b *Builder) mkosiFiles() []string {
	return []string{"mkosi.conf", "image/mkosi.conf", b.Profile.file(profileBase)}
}

func (b *Builder) configDigest() ([32]byte, error) {
	h := sha256.New()
	for _, path := range b.mkosiFiles() {
		data, err := os.ReadFile(filepath.Join(b.Source, path))
		if err != nil {
			return [32]byte{}, err
		}
		fmt.Fprintf(h, "%s %d\n%s", path, len(data), data)
	}
	return [32]byte(h.Sum(nil)), nil
}

func openModes(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}

// packVolume packs a tree into a volume file; the file is there whole or not at all.
func packVolume(ctx context.Context, tree fs.FS, path string, dirs []string) (ref config.Volume, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".volume-*")
	if err != nil {
		return config.Volume{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	defer f.Close()
	if ref, err = volume.Pack(ctx, tree, f, volume.Options{Dirs: dirs}); err != nil {
		return config.Volume{}, err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return config.Volume{}, err
	}
	return ref, os.Rename(f.Name(), path)
}

// buildRoot packs the root volume to path.
func (b *Builder) buildRoot(ctx context.Context, base, guest, path string) (config.Volume, error) {
	list, err := b.rootList()
	if err != nil {
		return config.Volume{}, err
	}
	step := b.Progress.Step("pack root", 0)
	staged := filepath.Join(b.Work, "root")
	if err := stageRoot(staged, list, base, guest); err != nil {
		return config.Volume{}, err
	}
	ref, err := packVolume(ctx, os.DirFS(staged), path, nil)
	if err != nil {
		return config.Volume{}, err
	}
	step.Done(size(path))
	return ref, os.RemoveAll(staged)
}
