package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"chrysalis/attest/check"
	"chrysalis/tools/internal/advisory"
	"chrysalis/tools/internal/audit"
	"chrysalis/tools/internal/release"
)

// knownFlags name databases of known vulnerabilities, as the auditor downloaded them.
type knownFlags struct {
	tracker, vulnDB string
	maxAge          time.Duration
}

func (f *knownFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tracker, "tracker", "", "JSON of Debian's security tracker, as you downloaded it")
	flags.StringVar(&f.vulnDB, "go-vulndb", "", "Go vulnerability database: a zip file or folder of OSV entries, as you downloaded it")
	flags.DurationVar(&f.maxAge, "max-data-age", 7*24*time.Hour, "how old --tracker and --go-vulndb may be")
}

// vulnerability is the name of one: by MITRE, by the Go vulnerability database, or by Debian until it has another.
var vulnerability = regexp.MustCompile(`^(CVE-[0-9]{4}-[0-9]{4,7}|GO-[0-9]{4}-[0-9]{4,7}|TEMP-[0-9]{7}-[0-9A-F]{6})$`)

// clockSkew is how far ahead of this machine's clock a database may be dated.
const clockSkew = 24 * time.Hour

// dated says in the report what a database is, and checks its age.
func (a *auditing) dated(p *audit.Part, date time.Time, from string) {
	want := "at most " + a.flags.known.maxAge.String() + " old"
	got, age := want, time.Since(date)
	if age > a.flags.known.maxAge || age < -clockSkew {
		got = age.Round(time.Minute).String() + " old"
	}
	p.Check("date", got, want)
	p.Fact("dated", fmt.Sprintf("%s, by %s", date.UTC().Format(time.RFC3339), from))
}

// found adds a check that a vulnerability refuses, unless the auditor waived it by one of its names.
func (a *auditing) found(p *audit.Part, in string, f advisory.Finding, got string) {
	line := check.Line{Name: in + ": " + f.ID, Got: got, Want: "not affected", Verdict: check.Denied}
	for _, name := range append([]string{f.ID}, f.Aliases...) {
		if slices.Contains(a.flags.waive, name) {
			line.Verdict = check.Waived
			if a.waived == nil {
				a.waived = map[string]bool{}
			}
			a.waived[name] = true
		}
	}
	p.Checks = append(p.Checks, line)
}

// auditTracker looks the release's source packages up in the tracker's file. What is open refuses; what nobody has looked at yet can't be
// checked; what Debian calls no vulnerability is told.
func auditTracker(_ context.Context, a *auditing, p *audit.Part) error {
	if a.contents == nil {
		return errors.New("there are no contents to look up")
	}
	suites, err := a.suites()
	if err != nil {
		return err
	}
	holders := map[advisory.Source][]string{}
	for _, pkg := range a.contents.Packages {
		s := advisory.SourceOf(pkg.Source, pkg.SourceVersion, pkg.Version, suites[pkg.Lock])
		holders[s] = append(holders[s], pkg.Name)
	}
	sources := slices.SortedFunc(maps.Keys(holders), func(x, y advisory.Source) int { return strings.Compare(x.String(), y.String()) })
	f, err := os.Open(a.flags.known.tracker)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	standings, err := advisory.ReadTracker(f, sources)
	if err != nil {
		return err
	}
	sum, size, err := release.HashFile(a.flags.known.tracker)
	if err != nil {
		return err
	}
	p.Fact("file", fmt.Sprintf("%d bytes, SHA-256 %s", size, sum))
	a.dated(p, info.ModTime(), "the file's time on this machine: the tracker writes no date into it")
	return a.judgeStandings(p, standings, holders)
}

func (a *auditing) judgeStandings(p *audit.Part, standings []advisory.Standing, holders map[advisory.Source][]string) error {
	var unclear, unnamed []string
	for _, s := range standings {
		if !s.Named {
			unnamed = append(unnamed, s.Source.String())
		}
		for _, f := range s.Open {
			got := "open, and not fixed in " + s.Suite + " yet"
			if f.Fixed != "" {
				got = "fixed in " + f.Fixed
			}
			if f.Note != "" {
				got += "; Debian says: " + f.Note
			}
			a.found(p, s.Source.String(), f, got)
		}
		if len(s.Open) == 0 {
			p.Check(s.Source.String(), "nothing open", "nothing open")
		}
		p.Fact("holds "+s.Source.String(), strings.Join(holders[s.Source], ", "))
		for _, f := range s.Undetermined {
			if !slices.Contains(a.flags.waive, f.ID) {
				unclear = append(unclear, s.Name+" "+f.ID)
				continue
			}
			a.found(p, s.Source.String(), f, "undetermined")
		}
		if n := len(s.Unimportant); n > 0 {
			names := make([]string, n)
			for i, f := range s.Unimportant {
				names[i] = f.ID
			}
			p.Fact("open, and unimportant to Debian: "+s.Source.String(), strings.Join(names, " "))
		}
	}
	if len(unnamed) > 0 {
		p.Note("The tracker does not name %s: nothing was ever filed, or it is filed under another name.", strings.Join(unnamed, ", "))
	}
	if len(unclear) > 0 {
		return fmt.Errorf("whether these are affected Debian has not determined: %s", strings.Join(unclear, ", "))
	}
	return nil
}

// suites says which suite of Debian the packages of each lock are from: the source tree's locks do, and the release's packages must be
// theirs.
func (a *auditing) suites() (map[string]string, error) {
	b, err := newBuilder(a.cmd)
	if err != nil {
		return nil, err
	}
	suites := map[string]string{}
	for _, pkg := range a.contents.Packages {
		l, err := b.Locked(pkg.Lock)
		if err != nil {
			return nil, err
		}
		if locked, err := l.Package(pkg.Name); err != nil || locked.SHA256 != [32]byte(pkg.SHA256) {
			return nil, fmt.Errorf("%s %s is not in the source tree's %s.lock: that tree is not the release's", pkg.Name, pkg.Version, pkg.Lock)
		}
		if len(l.Releases) == 0 {
			return nil, fmt.Errorf("%s.lock names no suite", pkg.Lock)
		}
		suites[pkg.Lock], _, _ = strings.Cut(l.Releases[0].Suite, "-")
	}
	return suites, nil
}

// auditModules looks the release's Go modules up. What affects one refuses where the functions concerned are in a program.
func auditModules(_ context.Context, a *auditing, p *audit.Part) error {
	if a.contents == nil {
		return errors.New("there are no contents to look up")
	}
	database, err := a.openVulnDB(p)
	if err != nil {
		return err
	}
	programs, err := release.Programs(a.folder, *a.contents)
	if err != nil {
		return err
	}
	return a.judgeModules(p, database, programs)
}

// openVulnDB reads the database and says in the report which it is.
func (a *auditing) openVulnDB(p *audit.Part) (advisory.GoDatabase, error) {
	database, err := advisory.OpenGo(a.flags.known.vulnDB)
	if err != nil {
		return database, err
	}
	p.Fact("entries", fmt.Sprint(database.Entries))
	info, err := os.Stat(a.flags.known.vulnDB)
	if err != nil {
		return database, err
	}
	if !info.IsDir() {
		sum, size, err := release.HashFile(a.flags.known.vulnDB)
		if err != nil {
			return database, err
		}
		p.Fact("file", fmt.Sprintf("%d bytes, SHA-256 %s", size, sum))
	}
	if date := database.Modified; !date.IsZero() {
		a.dated(p, date, "the database itself")
	} else {
		a.dated(p, info.ModTime(), "the file's time on this machine: the entries are not dated")
	}
	return database, nil
}

func (a *auditing) judgeModules(p *audit.Part, database advisory.GoDatabase, programs map[[2]string][]byte) error {
	type module struct{ path, version string }
	holders := map[module][]release.Program{}
	names := map[string]advisory.Names{}
	for _, of := range a.contents.Programs {
		n, err := advisory.NamesOf(programs[[2]string{of.File, of.Path}])
		if err != nil {
			return fmt.Errorf("%s: %w", of.Path, err)
		}
		names[of.File+": "+of.Path] = n
		for _, m := range append([]release.Module{{Path: advisory.Stdlib, Version: of.Go}, {Path: advisory.Toolchain, Version: of.Go}, of.Module}, of.Modules...) {
			if m.Path == advisory.Stdlib || m.Path == advisory.Toolchain || m.Sum != "" { // the rest is this source tree
				holders[module{m.Path, m.Version}] = append(holders[module{m.Path, m.Version}], of)
			}
		}
	}
	for _, m := range slices.SortedFunc(maps.Keys(holders), func(x, y module) int {
		return cmp.Or(strings.Compare(x.path, y.path), strings.Compare(x.version, y.version))
	}) {
		affecting, err := database.Affecting(m.path, m.version)
		if err != nil {
			return err
		}
		name, clean := m.path+" "+m.version, true
		for _, v := range affecting {
			called := strings.Join(append([]string{v.ID}, v.Aliases...), " ") + ": " + v.Note
			var in []string
			for _, of := range holders[m] {
				if linked, any := names[of.File+": "+of.Path].Linked(v); any && m.path != advisory.Toolchain {
					in = append(in, fmt.Sprintf("%s has %s", of.Path, few(linked)))
				}
			}
			if m.path == advisory.Toolchain {
				in = []string{"it built the programs"}
			}
			if len(in) == 0 {
				p.Fact("affected, and not linked: "+name, called)
				continue
			}
			got := fmt.Sprintf("%s; %s; fixed in %s", called, strings.Join(in, ", "), cmp.Or(v.Fixed, "no version yet"))
			a.found(p, name, v.Finding, got)
			clean = false
		}
		if clean {
			p.Check(name, "not affected", "not affected")
		}
	}
	return nil
}

// few names the first of many.
func few(all []string) string {
	const most = 3
	if len(all) <= most {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
}
