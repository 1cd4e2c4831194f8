package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// kernel is an unpacked kernel.
type kernel struct {
	release string // as in uname -r
	modules string // folder with modules.dep and the modules
}

func (k kernel) image() string { return filepath.Join(k.modules, "vmlinuz") }

const kernelPackage = "linux-binary-"

// unpackKernel unpacks the kernel's packages into the work folder and has depmod work out the modules' dependencies.
func (b *Builder) unpackKernel(ctx context.Context, tree toolstree.Tree, l lock.Lock) (kernel, error) {
	i := slices.IndexFunc(l.Packages, func(p lock.Package) bool { return strings.HasPrefix(p.Name, kernelPackage) })
	if i < 0 {
		return kernel{}, fmt.Errorf("unpacking kernel: lock %s has no %s package", l.Name, kernelPackage)
	}
	release := strings.TrimPrefix(l.Packages[i].Name, kernelPackage)
	root := filepath.Join(b.Work, "kernel")
	k := kernel{release, filepath.Join(root, "usr/lib/modules", release)}
	err := b.cachedStep("unpack kernel", root, fmt.Sprintf("%x %x %s", l.Digest(), b.toolsLock.Digest(), release), func() (string, error) {
		for _, p := range l.Packages {
			// Three packages make a kernel: linux-base- the lists of built-in modules, -modules- and -binary-.
			if !strings.HasPrefix(p.Name, "linux-") || !strings.HasSuffix(p.Name, "-"+release) {
				continue
			}
			if err := runQuiet(tree.Command(ctx, "dpkg-deb", "-x", b.Places.Cached(p), root)); err != nil {
				return "", fmt.Errorf("unpacking %s: %w", p.Name, err)
			}
		}
		// depmod looks below lib/modules.
		if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
		if err := runQuiet(tree.Command(ctx, "depmod", "-b", root, release)); err != nil {
			return "", err
		}
		return release, nil
	})
	if err != nil {
		return kernel{}, fmt.Errorf("unpacking kernel: %w", err)
	}
	return k, nil
}

// readNames reads a list of words, one a line, with comments.
func readNames(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, line)
		}
	}
	return names, nil
}

// moduleOrder returns the files of the wanted modules and of everything they depend on, each after its dependencies, as
// paths relative to k.modules.
func (k kernel) moduleOrder(wanted []string) ([]string, error) {
	f, err := os.Open(filepath.Join(k.modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	depends := make(map[string][]string) // file to files
	files := make(map[string]string)     // name to file
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		file, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: line %q has no colon", lines.Text())
		}
		depends[file] = strings.Fields(rest)
		files[moduleName(file)] = file
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("modules.dep: %w", err)
	}
	var order []string
	seen := make(map[string]bool)
	var visit func(file string)
	visit = func(file string) {
		if seen[file] {
			return
		}
		seen[file] = true
		for _, d := range depends[file] {
			visit(d)
		}
		order = append(order, file)
	}
	for _, name := range wanted {
		file, ok := files[strings.ReplaceAll(name, "-", "_")]
		if !ok {
			return nil, fmt.Errorf("kernel %s has no module %s", k.release, name)
		}
		visit(file)
	}
	return order, nil
}

// moduleName returns the name that the kernel gives the module of a file; it knows no dashes.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}
