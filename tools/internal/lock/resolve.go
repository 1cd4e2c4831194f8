package lock

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"pault.ag/go/debian/version"
)

// Source is a suite of an archive to resolve from.
type Source struct{ Archive, Suite string }

// keyring holds the archive's signing keys: of the package debian-archive-keyring, on Debian and on Ubuntu.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Resolve asks apt which packages satisfy the request of old in today's archives and locks them. apt runs in work, a folder of its
// own, with nothing installed, and checks the archive's signatures. A suite whose Release has expired is taken, because
// an unstable suite's mirror may lag; its date stands in the lock.
func Resolve(ctx context.Context, places Places, work string, old Lock) (Lock, error) {
	l, err := resolve(ctx, places, work, old)
	if err != nil {
		return Lock{}, fmt.Errorf("resolving lock %s: %w", old.Name, err)
	}
	return l, nil
}

func resolve(ctx context.Context, places Places, work string, old Lock) (Lock, error) {
	var sources []Source
	for _, r := range old.Releases {
		sources = append(sources, Source{r.Archive, r.Suite})
	}
	apt, err := newApt(places, work, sources)
	if err != nil {
		return Lock{}, err
	}
	if _, err := apt.run(ctx, "update"); err != nil {
		return Lock{}, err
	}
	suites, err := apt.suites(sources)
	if err != nil {
		return Lock{}, err
	}
	plan, err := apt.plan(ctx, old.Request, suites)
	if err != nil {
		return Lock{}, err
	}
	wanted := planned(plan)
	if len(wanted) == 0 {
		return Lock{}, errors.New("apt plans no package")
	}
	if old.Alone {
		for key := range wanted {
			if !slices.ContainsFunc(old.Request, func(r string) bool { name, _, _ := strings.Cut(r, "/"); return name == key[0] }) {
				delete(wanted, key)
			}
		}
	}
	l := Lock{Name: old.Name, Request: old.Request, Alone: old.Alone}
	for _, suite := range suites {
		l.Releases = append(l.Releases, suite.release)
		for _, values := range suite.stanzas {
			key := [2]string{values["Package"], values["Version"]}
			if !wanted[key] {
				continue
			}
			delete(wanted, key)
			values["X-Archive"] = suite.release.Archive
			p, err := newPackage(values)
			if err != nil {
				return Lock{}, fmt.Errorf("suite %s: %w", suite.release.Suite, err)
			}
			l.Packages = append(l.Packages, p)
		}
	}
	if len(wanted) > 0 {
		return Lock{}, fmt.Errorf("%d planned packages stand in no index: %v", len(wanted), wanted)
	}
	slices.SortFunc(l.Packages, order)
	return Parse(l.Bytes())
}

// maxKernels bounds how many values of a request's * are tried.
const maxKernels = 4

// plan simulates the installation of the request. A * in it stands for the newest text for which apt finds a plan: the
// version in the name of a kernel's packages, of which mirrors keep only the latest. It is the same text everywhere in the request.
func (a apt) plan(ctx context.Context, request []string, suites []suite) ([]byte, error) {
	simulate := []string{"install", "--simulate", "--no-install-recommends"}
	texts := newestTexts(request, suites)
	if texts == nil {
		return a.run(ctx, append(simulate, request...)...)
	}
	err := fmt.Errorf("no packages have the names %q", request)
	for _, text := range texts[:min(len(texts), maxKernels)] {
		args := slices.Clone(simulate)
		for _, name := range request {
			args = append(args, strings.ReplaceAll(name, "*", text))
		}
		var plan []byte
		if plan, err = a.run(ctx, args...); err == nil {
			return plan, nil
		}
	}
	return nil, err
}

// newestTexts returns the texts that the * of the request can stand for, newest package first: those for which every name with a
// * is the name of a package. It returns nil if the request has no *.
func newestTexts(request []string, suites []suite) []string {
	var count int
	found := make(map[string]map[string]version.Version) // text to package names
	for _, pattern := range request {
		before, after, ok := strings.Cut(pattern, "*")
		if !ok {
			continue
		}
		count++
		for _, suite := range suites {
			for _, values := range suite.stanzas {
				name := values["Package"]
				v, err := version.Parse(values["Version"])
				if err != nil || len(name) <= len(before)+len(after) || !strings.HasPrefix(name, before) || !strings.HasSuffix(name, after) {
					continue
				}
				text := name[len(before) : len(name)-len(after)]
				if found[text] == nil {
					found[text] = make(map[string]version.Version)
				}
				if old, ok := found[text][pattern]; !ok || version.Compare(v, old) > 0 {
					found[text][pattern] = v
				}
			}
		}
	}
	if count == 0 {
		return nil
	}
	texts := make([]string, 0, len(found))
	newest := make(map[string]version.Version)
	for text, patterns := range found {
		if len(patterns) < count {
			continue
		}
		texts = append(texts, text)
		for _, v := range patterns {
			newest[text] = v
		}
	}
	slices.SortFunc(texts, func(a, b string) int {
		return cmp.Or(version.Compare(newest[b], newest[a]), cmp.Compare(a, b))
	})
	return texts
}

// suite is what apt knows of one suite.
type suite struct {
	release Release
	stanzas []map[string]string
}

func (a apt) suites(sources []Source) ([]suite, error) {
	var suites []suite
	for _, s := range sources {
		release, packages, err := a.lists(s)
		if err != nil {
			return nil, err
		}
		known := suite{release: release}
		for text := range strings.SplitSeq(strings.TrimSpace(string(packages)), "\n\n") {
			if text == "" {
				continue
			}
			values, err := parseStanza(text)
			if err != nil {
				return nil, fmt.Errorf("suite %s: %w", s.Suite, err)
			}
			known.stanzas = append(known.stanzas, values)
		}
		suites = append(suites, known)
	}
	return suites, nil
}

// planned returns name and version of each package that a simulated installation would install.
func planned(plan []byte) map[[2]string]bool {
	packages := make(map[[2]string]bool)
	for line := range strings.Lines(string(plan)) {
		// Inst NAME (VERSION ARCHIVE [ARCHITECTURE]) …
		if word := strings.Fields(line); len(word) >= 3 && word[0] == "Inst" {
			bare, _, _ := strings.Cut(word[1], ":")
			packages[[2]string{bare, strings.TrimPrefix(word[2], "(")}] = true
		}
	}
	return packages
}

// apt is a private apt: own state, own sources, nothing installed.
type apt struct {
	work    string
	sources map[Source]string // base URL
}

func newApt(places Places, work string, sources []Source) (apt, error) {
	if _, err := os.Stat(keyring); err != nil {
		return apt{}, fmt.Errorf("%w: install debian-archive-keyring", err)
	}
	a := apt{work: work, sources: make(map[Source]string)}
	var list strings.Builder
	for _, s := range sources {
		base, err := places.Base(s.Archive)
		if err != nil {
			return apt{}, err
		}
		a.sources[s] = base
		fmt.Fprintf(&list, "deb [signed-by=%s arch=amd64] %s %s main\n", keyring, base, s.Suite)
	}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
			return apt{}, err
		}
	}
	return a, errors.Join(os.WriteFile(filepath.Join(work, "status"), nil, 0o644),
		os.WriteFile(filepath.Join(work, "sources.list"), []byte(list.String()), 0o644))
}

func (a apt) run(ctx context.Context, args ...string) ([]byte, error) {
	options := map[string]string{
		"Dir::State": a.work + "/state", "Dir::State::status": a.work + "/status", "Dir::Cache": a.work + "/cache",
		"Dir::Etc::sourcelist": a.work + "/sources.list", "Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::preferences": "/dev/null",
		"Dir::Etc::preferencesparts": "/dev/null", "APT::Architecture": "amd64", "APT::Architectures": "amd64",
		"APT::Sandbox::User": "root", "Acquire::Check-Valid-Until": "false", "Acquire::Languages": "none", "Acquire::GzipIndexes": "false",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false", "Acquire::http::Timeout": "60", "Acquire::Retries": "2",
	}
	var argv []string
	for name, value := range options {
		argv = append(argv, "-o", name+"="+value)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(argv, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	if args[0] == "update" && strings.Contains(stderr.String(), "W: Failed to fetch") {
		return nil, fmt.Errorf("apt-get update: %s", strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// lists returns what apt fetched and checked for the suite.
func (a apt) lists(s Source) (Release, []byte, error) {
	_, host, _ := strings.Cut(a.sources[s], "://")
	prefix := filepath.Join(a.work, "state/lists", strings.ReplaceAll(host+"/dists/"+s.Suite, "/", "_"))
	signed, err := os.ReadFile(prefix + "_InRelease")
	if err != nil {
		return Release{}, nil, err
	}
	r := Release{Archive: s.Archive, Suite: s.Suite, InRelease: sha256.Sum256(signed)}
	for line := range strings.Lines(string(signed)) {
		if date, ok := strings.CutPrefix(strings.TrimSpace(line), "Date: "); ok {
			if r.Date, err = time.Parse(time.RFC1123, date); err != nil {
				return Release{}, nil, fmt.Errorf("suite %s: %w", s.Suite, err)
			}
			break
		}
	}
	if r.Date.IsZero() {
		return Release{}, nil, fmt.Errorf("suite %s: its release has no date", s.Suite)
	}
	packages, err := os.ReadFile(prefix + "_main_binary-amd64_Packages")
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil, nil // a suite without packages
	}
	return r, packages, err
}
