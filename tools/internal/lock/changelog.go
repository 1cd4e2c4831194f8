package lock

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"

	"pault.ag/go/debian/changelog"
	"pault.ag/go/debian/version"
)

const (
	maxChangelogBytes = 16 << 20 // unpacked
	maxNewsPackage    = 64 << 20 // a larger package is not downloaded for its changelog
	newsTries         = 2        // packages of one source that are asked
)

var advisory = regexp.MustCompile(`\b(?:CVE-\d{4}-\d{4,7}|D[SL]A-\d{3,5}(?:-\d{1,2})?)\b`)

// ReadNews reads for each changed package which security advisories its changelog names after the old version, and says where
// that cannot be told. Packages of one source package share one changelog, so the smallest is fetched, checked by its hash
// like every package.
func (p Places) ReadNews(ctx context.Context, client *http.Client, d *Diff, after Lock) error {
	type key struct{ source, old, new string }
	groups := map[key][]int{}
	read := map[key][]Package{} // what has the changelog
	add := func(i int, old, now Package) {
		source, is := now.Source()
		_, was := old.Source()
		k := key{source, was, is}
		groups[k], read[k] = append(groups[k], i), append(read[k], now)
	}
	for i := range d.Packages {
		c := &d.Packages[i]
		switch {
		case c.New == "":
			successor, ok := d.successor(c.old)
			if !ok {
				c.News = "removed"
				continue
			}
			add(i, c.old, successor)
		case c.Old == "":
			c.News = "new in the lock: no earlier version to read from"
		case c.Old == c.New:
			c.News = "the same version with another hash, which no archive may do"
		case c.Downgrade():
			c.News = "an older version: what it loses is not in its changelog"
		default:
			add(i, c.old, c.new)
		}
	}
	for k, members := range groups {
		packages := read[k]
		slices.SortFunc(packages, func(a, b Package) int { return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Name, b.Name)) })
		packages = slices.CompactFunc(packages, func(a, b Package) bool { return a.Name == b.Name })
		var advisories []string
		news := ""
		for _, pkg := range packages[:min(len(packages), newsTries)] {
			found, err := p.news(ctx, client, pkg, k.source, k.old, after)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				advisories, news = found, NewsRead+pkg.Name
				break
			}
			news = fmt.Sprintf("cannot be told: %s: %v", pkg.Name, err)
		}
		for _, i := range members {
			d.Packages[i].Advisories, d.Packages[i].News = append([]string{}, advisories...), news
		}
	}
	return nil
}

// NewsRead begins the News of a change whose changelog was read.
const NewsRead = "changelog in "

// successor returns the package that took the place of a removed one: a kernel has its version in its packages' names. It is of the
// same source package in a newer version, and new in the lock; of several the smallest, for all have one changelog.
func (d *Diff) successor(removed Package) (best Package, ok bool) {
	source, was := removed.Source()
	old, err := version.Parse(was)
	if err != nil {
		return best, false
	}
	for _, c := range d.Packages {
		name, is := c.new.Source()
		now, err := version.Parse(is)
		if c.Old != "" || c.New == "" || name != source || err != nil || version.Compare(now, old) <= 0 {
			continue
		}
		if !ok || c.new.Size < best.Size {
			best, ok = c.new, true
		}
	}
	return best, ok
}

// elsewhereError says that a package's documents are another package's.
type elsewhereError struct{ name string }

func (e elsewhereError) Error() string {
	return "no changelog in the package: its documents are those of " + e.name
}

func (p Places) news(ctx context.Context, client *http.Client, pkg Package, source, since string, after Lock) ([]string, error) {
	text, err := p.changelog(ctx, client, pkg, after)
	var elsewhere elsewhereError
	if errors.As(err, &elsewhere) {
		if pkg, err := after.Package(elsewhere.name); err == nil {
			if text, err := p.changelog(ctx, client, pkg, after); err == nil {
				return advisoriesSince(text, source, since)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return advisoriesSince(text, source, since)
}

func (p Places) changelog(ctx context.Context, client *http.Client, pkg Package, after Lock) ([]byte, error) {
	if pkg.Size > maxNewsPackage {
		return nil, fmt.Errorf("%d bytes are too many to download for a changelog", pkg.Size)
	}
	one := after
	one.Packages = []Package{pkg}
	if err := p.Fetch(ctx, client, one, func(int64) {}); err != nil {
		return nil, err
	}
	return packageChangelog(ctx, p.Cached(pkg), pkg.Name)
}

// packageChangelog returns the Debian changelog in a package's file.
func packageChangelog(ctx context.Context, file, name string) (text []byte, err error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
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
	doc := "usr/share/doc/" + name
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil, errors.New("no changelog in the package")
		}
		if err != nil {
			return nil, err
		}
		at := strings.TrimPrefix(path.Clean(h.Name), "/")
		if at == doc && h.Typeflag == tar.TypeSymlink {
			return nil, elsewhereError{path.Base(h.Linkname)}
		}
		if h.Typeflag != tar.TypeReg || !slices.Contains([]string{doc + "/changelog.Debian.gz", doc + "/changelog.gz"}, at) {
			continue
		}
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		if text, err = io.ReadAll(io.LimitReader(z, maxChangelogBytes+1)); err != nil {
			return nil, err
		}
		if len(text) > maxChangelogBytes {
			return nil, fmt.Errorf("changelog is more than %d bytes", maxChangelogBytes)
		}
		return text, nil
	}
}

// advisoriesSince returns the advisories that the entries after a version name, sorted. A changelog of another source, or one
// that ends before the version is reached, does not tell.
func advisoriesSince(text []byte, source, since string) ([]string, error) {
	old, err := version.Parse(since)
	if err != nil {
		return nil, fmt.Errorf("version %q: %w", since, err)
	}
	found := map[string]bool{}
	for r := bufio.NewReader(bytes.NewReader(text)); ; {
		entry, err := changelog.ParseOne(r)
		if errors.Is(err, io.EOF) || err == nil && entry == nil {
			return nil, fmt.Errorf("its changelog does not reach back to version %s", since)
		}
		if err != nil {
			return nil, fmt.Errorf("reading changelog: %w", err)
		}
		if entry.Source != source && entry.Source+"-signed-amd64" != source {
			return nil, fmt.Errorf("its changelog is of %q, want %q", entry.Source, source)
		}
		if version.Compare(entry.Version, old) <= 0 {
			break
		}
		for _, id := range advisory.FindAllString(entry.Changelog, -1) {
			found[id] = true
		}
	}
	ids := make([]string, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
