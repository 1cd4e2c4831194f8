package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/audit"
	"chrysalis/tools/internal/release"
)

// holding is an audit of a release that holds a package of each lock of this source tree, and this very program.
func holding(t *testing.T) (a *auditing, program string) {
	t.Helper()
	a = &auditing{cmd: &cobra.Command{}}
	a.flags.known.maxAge = time.Hour
	b, err := newBuilder(a.cmd)
	if err != nil {
		t.Fatal(err)
	}
	a.contents = &release.Contents{}
	for lock, name := range map[string]string{"image": "zlib1g", "firmware": "ovmf-amdsev"} {
		l, err := b.Locked(lock)
		if err != nil {
			t.Fatal(err)
		}
		p, err := l.Package(name)
		if err != nil {
			t.Fatal(err)
		}
		source, version := p.Source()
		a.contents.Packages = append(a.contents.Packages, release.Package{Name: name, Version: p.Version, Source: source, SourceVersion: version,
			Lock: lock, SHA256: register.Digest(p.SHA256)})
	}
	if program, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	a.contents.Programs = []release.Program{{File: "root.img", Path: "usr/bin/x", Go: "go1.26.8", Module: release.Module{Path: "chrysalis", Version: "(devel)"},
		Modules: []release.Module{{Path: "example.org/m", Version: "v1.2.0", Sum: "h1:x"}, {Path: "chrysalis", Version: "(devel)"}}}}
	return a, program
}

// partBy makes a part, and returns it with the verdicts of its checks that do not hold.
func partBy(do func(*audit.Part) error) (p audit.Part, others map[string]check.Verdict) {
	p.Judge(do(&p))
	others = map[string]check.Verdict{}
	for _, c := range p.Checks {
		if c.Verdict != check.Accepted {
			others[c.Name[strings.LastIndex(c.Name, " ")+1:]] = c.Verdict
		}
	}
	return p, others
}

// TestAuditTracker: what is open refuses unless it is waived by its name, what is not determined can't be checked, and a file is judged by
// its date.
func TestAuditTracker(t *testing.T) {
	const tracker = `{"zlib": {"CVE-2026-0001": {"releases": {"trixie": {"status": %q, "urgency": %q, "repositories": {}, "fixed_version": %q}}}},
	"edk2": {"CVE-2026-0002": {"releases": {"sid": {"status": "resolved", "fixed_version": "0"}}}}}`
	for _, tt := range []struct {
		name                   string
		status, urgency, fixed string
		waive                  string
		age                    time.Duration
		outcome                audit.Outcome
		reason                 string
	}{
		{"fixed before", "resolved", "high", "1:1.0-1", "", 0, audit.Accepted, ""},
		{"fixed later", "resolved", "high", "1:99-1", "", 0, audit.Rejected, "CVE-2026-0001: got fixed in 1:99-1, want not affected"},
		{"open", "open", "", "", "", 0, audit.Rejected, "CVE-2026-0001: got open, and not fixed in trixie yet"},
		{"open, and waived", "open", "", "", "CVE-2026-0001", 0, audit.Accepted, ""},
		{"open, and another is waived", "open", "", "", "CVE-2026-0009", 0, audit.Rejected, "CVE-2026-0001"},
		{"no vulnerability to Debian", "open", "unimportant", "", "", 0, audit.Accepted, ""},
		{"not determined", "undetermined", "", "", "", 0, audit.Unavailable, "whether these are affected Debian has not determined: zlib CVE-2026-0001"},
		{"not determined, and waived", "undetermined", "", "", "CVE-2026-0001", 0, audit.Accepted, ""},
		{"an old file", "resolved", "", "0", "", 25 * time.Hour, audit.Rejected, "date: got 25h0m0s old, want at most 1h0m0s old"},
		{"a file of the future", "resolved", "", "0", "", -25 * time.Hour, audit.Rejected, "date: got -25h0m0s old"},
		{"no tracker's", "fine", "", "", "", 0, audit.Unavailable, `status "fine"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := holding(t)
			a.flags.known.tracker = filepath.Join(t.TempDir(), "json")
			if tt.waive != "" {
				a.flags.waive = []string{tt.waive}
			}
			if err := os.WriteFile(a.flags.known.tracker, fmt.Appendf(nil, tracker, tt.status, tt.urgency, tt.fixed), 0o644); err != nil {
				t.Fatal(err)
			}
			when := time.Now().Add(-tt.age)
			if err := os.Chtimes(a.flags.known.tracker, when, when); err != nil {
				t.Fatal(err)
			}
			p, others := partBy(func(p *audit.Part) error { return auditTracker(t.Context(), a, p) })
			if p.Outcome != tt.outcome || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got %s, %q, want %s with %q", p.Outcome, p.Reason, tt.outcome, tt.reason)
			}
			if tt.waive == "CVE-2026-0001" && (others[tt.waive] != check.Waived || !a.waived[tt.waive]) {
				t.Errorf("got %v, want %s waived, and said so", others, tt.waive)
			}
			if tt.outcome != audit.Unavailable && !slices.ContainsFunc(p.Facts, func(f audit.Fact) bool { return f.Name == "dated" }) {
				t.Errorf("the report does not date the file: %+v", p.Facts)
			}
		})
	}
	a, _ := holding(t)
	a.contents.Packages[0].SHA256[0] ^= 1
	if _, err := a.suites(); err == nil || !strings.Contains(err.Error(), "that tree is not the release's") {
		t.Errorf("a package of another hash: got error %v", err)
	}
}

// TestAuditModules: what affects a module refuses where it is linked, and is told where it is not.
func TestAuditModules(t *testing.T) {
	entry := func(module, fixed, imports string) string {
		return fmt.Sprintf(`{"id":"GO-2026-0001","modified":%q,"aliases":["CVE-2026-0001"],"summary":"s","affected":[{"package":{"name":%q,"ecosystem":"Go"},
		"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":%q}]}],"ecosystem_specific":{"imports":[%s]}},
		{"package":{"name":"stdlib","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.0.0"}]}]}]}`,
			time.Now().UTC().Format(time.RFC3339), module, fixed, imports)
	}
	for _, tt := range []struct {
		name, text, waive string
		outcome           audit.Outcome
		reason            string
		told              bool
	}{
		{"fixed before", entry("example.org/m", "1.1.0", ""), "", audit.Accepted, "", false},
		{"a whole module", entry("example.org/m", "1.3.0", ""), "", audit.Rejected, "example.org/m v1.2.0: GO-2026-0001: got GO-2026-0001 CVE-2026-0001: s; usr/bin/x has the whole module; fixed in 1.3.0", false},
		{"waived by its other name", entry("example.org/m", "1.3.0", ""), "CVE-2026-0001", audit.Accepted, "", false},
		{"linked", entry("stdlib", "1.99.0", `{"path":"os","symbols":["ReadFile"]}`), "", audit.Rejected, "usr/bin/x has os.ReadFile", false},
		{"not linked", entry("stdlib", "1.99.0", `{"path":"net/smtp","symbols":["SendMail"]}`), "", audit.Accepted, "", true},
		{"the toolchain", entry("toolchain", "1.99.0", `{"path":"cmd/go"}`), "", audit.Rejected, "toolchain go1.26.8: GO-2026-0001: got GO-2026-0001 CVE-2026-0001: s; it built the programs", false},
		{"no database", `{}`, "", audit.Unavailable, "affects nothing", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, file := holding(t)
			a.flags.known.vulnDB = t.TempDir()
			a.flags.waive = []string{tt.waive}
			if err := os.WriteFile(filepath.Join(a.flags.known.vulnDB, "GO-2026-0001.json"), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			program, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p, _ := partBy(func(p *audit.Part) error {
				database, err := a.openVulnDB(p)
				if err != nil {
					return err
				}
				return a.judgeModules(p, database, map[[2]string][]byte{{"root.img", "usr/bin/x"}: program})
			})
			if p.Outcome != tt.outcome || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got %s, %q, want %s with %q", p.Outcome, p.Reason, tt.outcome, tt.reason)
			}
			told := slices.ContainsFunc(p.Facts, func(f audit.Fact) bool { return strings.HasPrefix(f.Name, "affected, and not linked: ") })
			if told != tt.told {
				t.Errorf("told of what is not linked is %t, want %t: %+v", told, tt.told, p.Facts)
			}
		})
	}
}
