package lock

import (
	"bytes"
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
)

// Source is a suite of an archive to resolve from.
type Source struct{ Archive, Suite string }

// keyring holds the archive's signing keys: of the package debian-archive-keyring, on Debian and on Ubuntu.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Resolve asks apt which packages satisfy the request in today's archives and locks them. apt runs in work, a folder of its
// own, with nothing installed, and checks the archive's signatures. A suite whose Release has expired is taken, because
// an unstable suite's mirror may lag; its date stands in the lock.
func Resolve(ctx context.Context, places Places, work, name string, request []string, sources []Source) (Lock, error) {
	l, err := resolve(ctx, places, work, name, request, sources)
	if err != nil {
		return Lock{}, fmt.Errorf("resolving lock %s: %w", name, err)
	}
	return l, nil
}

func resolve(ctx context.Context, places Places, work, name string, request []string, sources []Source) (Lock, error) {
	apt, err := newApt(places, work, sources)
	if err != nil {
		return Lock{}, err
	}
	if _, err := apt.run(ctx, "update"); err != nil {
		return Lock{}, err
	}
	plan, err := apt.run(ctx, append([]string{"install", "--simulate", "--no-install-recommends"}, request...)...)
	if err != nil {
		return Lock{}, err
	}
	wanted := planned(plan)
	if len(wanted) == 0 {
		return Lock{}, errors.New("apt plans no package")
	}
	l := Lock{Name: name, Request: request}
	for _, s := range sources {
		release, packages, err := apt.lists(s)
		if err != nil {
			return Lock{}, err
		}
		l.Releases = append(l.Releases, release)
		for text := range strings.SplitSeq(string(packages), "\n\n") {
			values, err := parseStanza(strings.TrimSpace(text))
			if err != nil {
				return Lock{}, fmt.Errorf("suite %s: %w", s.Suite, err)
			}
			key := [2]string{values["Package"], values["Version"]}
			if !wanted[key] {
				continue
			}
			delete(wanted, key)
			values["X-Archive"] = s.Archive
			p, err := newPackage(values)
			if err != nil {
				return Lock{}, fmt.Errorf("suite %s: %w", s.Suite, err)
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
