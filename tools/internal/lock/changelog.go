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
	for i := range d.Packages {
		c := &d.Packages[i]
		switch {
		case c.New == "":
			c.News = "removed"
			continue
		case c.Old == "":
			c.News = "new in the lock: no earlier version to read from"
			continue
		case c.Old == c.New:
			c.News = "the same version with another hash, which no archive may do"
			continue
		case c.Downgrade():
			c.News = "an older version: what it loses is not in its changelog"
			continue
		}
		source, now := c.new.Source()
		_, was := c.old.Source()
		groups[key{source, was, now}] = append(groups[key{source, was, now}], i)
	}
	for k, members := range groups {
		slices.SortFunc(members, func(a, b int) int { return cmp.Compare(d.Packages[a].NewSize, d.Packages[b].NewSize) })
		var advisories []string
		news := ""
		for _, i := range members[:min(len(members), newsTries)] {
			found, err := p.news(ctx, client, d.Packages[i].new, k.source, k.old, after)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				advisories, news = found, "changelog in "+d.Packages[i].Name
				break
			}
			news = fmt.Sprintf("cannot be told: %s: %v", d.Packages[i].Name, err)
		}
		for _, i := range members {
			d.Packages[i].Advisories, d.Packages[i].News = append([]string{}, advisories...), news
		}
	}
	return nil
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
