package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// owners returns the package that ships each path of the lock's packages, with folders left out. It reads the packages
// themselves: the base keeps no list, and a list of dpkg's would be one more file to trust.
func (b *Builder) owners(ctx context.Context, tree toolstree.Tree, l lock.Lock) (map[string]string, error) {
	dir := filepath.Join(b.Work, "owners")
	err := b.cachedStep("list packages' files", dir, fmt.Sprintf("%x %x", l.Digest(), b.toolsLock.Digest()), func() (string, error) {
		owners, err := listOwners(ctx, tree, l, b.Places.Cached)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d files", len(owners)), writeOwners(filepath.Join(dir, "list"), owners)
	})
	if err != nil {
		return nil, fmt.Errorf("listing packages' files: %w", err)
	}
	return readOwners(filepath.Join(dir, "list"))
}

func listOwners(ctx context.Context, tree toolstree.Tree, l lock.Lock, cached func(lock.Package) string) (map[string]string, error) {
	var mu sync.Mutex
	owners := map[string]string{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, p := range l.Packages {
		group.Go(func() error {
			files, err := packageFiles(tree.Command(ctx, "dpkg-deb", "--fsys-tarfile", cached(p)))
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, file := range files {
				if other, taken := owners[file]; taken {
					return fmt.Errorf("%s is shipped by %s and by %s", file, other, p.Name)
				}
				owners[file] = p.Name
			}
			return nil
		})
	}
	return owners, group.Wait()
}

// packageFiles lists what the command writes as a tar archive: the paths of everything but folders.
func packageFiles(cmd *exec.Cmd) (files []string, err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_, drained := io.Copy(io.Discard, out)
		err = errors.Join(err, drained, cmd.Wait())
	}()
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeDir {
			files = append(files, merged(h.Name))
		}
	}
}

// merged is the path of a package's file on a system where /bin, /sbin and /lib are links into /usr.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, top := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(name, top) {
			return "usr/" + name
		}
	}
	return name
}

func writeOwners(file string, owners map[string]string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(owners)) {
		if strings.Contains(name, "\n") {
			return fmt.Errorf("path %q has a line break", name)
		}
		fmt.Fprintf(&b, "%s %s\n", owners[name], name)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

func readOwners(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	owners := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		owner, name, ok := strings.Cut(s.Text(), " ")
		if !ok {
			return nil, fmt.Errorf("reading owners: line %q has no path", s.Text())
		}
		owners[name] = owner
	}
	return owners, s.Err()
}
