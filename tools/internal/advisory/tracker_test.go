package advisory

import (
	"slices"
	"strings"
	"testing"
)

const trackerText = `{
 "zlib": {
  "CVE-2026-0001": {"description": "d", "scope": "remote", "debianbug": 7, "releases": {
   "trixie": {"status": "resolved", "repositories": {"trixie": "1:1.3-3", "trixie-security": "1:1.3-3+deb13u1"}, "fixed_version": "1:1.3-3+deb13u1", "urgency": "not yet assigned"},
   "sid": {"status": "resolved", "repositories": {"sid": "1:1.4-1"}, "fixed_version": "1:1.4-1", "urgency": "high"}}},
  "CVE-2026-0002": {"releases": {"trixie": {"status": "resolved", "repositories": {"trixie": "1:1.3-3"}, "fixed_version": "0", "urgency": "unimportant"}}},
  "CVE-2026-0003": {"releases": {"trixie": {"status": "open", "repositories": {"trixie": "1:1.3-3"}, "urgency": "not yet assigned", "nodsa": "Minor issue", "nodsa_reason": "postponed", "next_point_update": true}}},
  "CVE-2026-0004": {"releases": {"trixie": {"status": "open", "repositories": {"trixie": "1:1.3-3"}, "urgency": "unimportant"}}},
  "CVE-2026-0005": {"releases": {"trixie": {"status": "undetermined", "repositories": {"trixie": "1:1.3-3"}, "urgency": "not yet assigned"}}},
  "CVE-2026-0006": {"releases": {"sid": {"status": "open", "repositories": {"sid": "1:1.4-1"}, "urgency": "low"}}},
  "TEMP-0000000-AAAAAA": {"releases": {"trixie": {"status": "resolved", "repositories": {"trixie": "1:1.3-3"}, "urgency": "low"}}}
 },
 "other": {}
}`

func ids(all []Finding) string {
	var names []string
	for _, f := range all {
		name := f.ID
		if f.Fixed != "" {
			name += "<" + f.Fixed
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

func TestReadTracker(t *testing.T) {
	for _, tt := range []struct {
		name                            string
		source                          Source
		named                           bool
		open, undetermined, unimportant string
	}{
		{"before the fix", Source{"zlib", "1:1.3-3", "trixie"}, true, "CVE-2026-0001<1:1.3-3+deb13u1 CVE-2026-0003", "CVE-2026-0005", "CVE-2026-0004"},
		{"with the fix", Source{"zlib", "1:1.3-3+deb13u1", "trixie"}, true, "CVE-2026-0003", "CVE-2026-0005 TEMP-0000000-AAAAAA", "CVE-2026-0004"},
		{"another suite", Source{"zlib", "1:1.4-1", "sid"}, true, "CVE-2026-0006", "", ""},
		{"an epoch less", Source{"zlib", "1.4-1", "sid"}, true, "CVE-2026-0001<1:1.4-1 CVE-2026-0006", "", ""},
		{"not named", Source{"quiet", "1", "trixie"}, false, "", "", ""},
		{"named, without issues", Source{"other", "1", "sid"}, true, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadTracker(strings.NewReader(trackerText), []Source{{"first", "1", "sid"}, tt.source})
			if err != nil {
				t.Fatal(err)
			}
			s := got[1]
			if s.Source != tt.source || s.Named != tt.named || ids(s.Open) != tt.open || ids(s.Undetermined) != tt.undetermined || ids(s.Unimportant) != tt.unimportant {
				t.Errorf("got %+v, want open %q, undetermined %q, unimportant %q", s, tt.open, tt.undetermined, tt.unimportant)
			}
		})
	}
}

func TestReadTrackerRefuses(t *testing.T) {
	held := []Source{{"zlib", "1:1.3-3", "trixie"}}
	edit := func(old, new string) string { return strings.Replace(trackerText, old, new, 1) }
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "EOF"},
		{"no object", "[]", "it begins with ["},
		{"cut", trackerText[:len(trackerText)-2], "unexpected EOF"},
		{"something behind", trackerText + "{}", "behind its end"},
		{"another state", edit(`"status": "open"`, `"status": "fine"`), `status "fine"`},
		{"an unknown member", edit(`"urgency": "unimportant"`, `"urgency": "unimportant", "vex": "x"`), `unknown object member name "vex"`},
		{"a source twice", edit(`"other"`, `"zlib"`), "duplicate"},
		{"no version", edit(`"fixed_version": "1:1.3-3+deb13u1"`, `"fixed_version": ":"`), `fixed in version ":"`},
		{"another suite", strings.ReplaceAll(trackerText, "trixie", "bookworm"), "follows nothing in trixie"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := ReadTracker(strings.NewReader(tt.text), held); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v and error %v, want one with %q", got, err, tt.want)
			}
		})
	}
}

func TestSourceOf(t *testing.T) {
	for _, tt := range []struct {
		in   [4]string
		want Source
	}{
		{[4]string{"glibc", "2.41-12", "2.41-12", "trixie"}, Source{"glibc", "2.41-12", "trixie"}},
		{[4]string{"linux-signed-amd64", "6.12.1+1", "6.12.1-1", "trixie"}, Source{"linux", "6.12.1-1", "trixie"}},
		{[4]string{"linux-signed-amd64", "7.3.4+1~bpo13+1", "7.3.4-1~bpo13+1", "trixie"}, Source{"linux", "7.3.4-1", "sid"}},
	} {
		if got := SourceOf(tt.in[0], tt.in[1], tt.in[2], tt.in[3]); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.in, got, tt.want)
		}
	}
}

// FuzzReadTracker: whatever a file says, the issues that are told are of the sources that were asked for, each once.
func FuzzReadTracker(f *testing.F) {
	f.Add(trackerText)
	f.Add(`{"zlib":{"CVE-2026-1":{"releases":{"trixie":{"status":"open"}}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		held := []Source{{"zlib", "1:1.3-3", "trixie"}}
		got, err := ReadTracker(strings.NewReader(text), held)
		if err != nil {
			return
		}
		all := slices.Concat(got[0].Open, got[0].Undetermined, got[0].Unimportant)
		if len(got) != 1 || got[0].Source != held[0] || len(all) > 0 && !got[0].Named {
			t.Fatalf("got %+v", got)
		}
		seen := map[string]bool{}
		for _, issue := range all {
			if seen[issue.ID] {
				t.Fatalf("%s stands twice in %+v", issue.ID, got)
			}
			seen[issue.ID] = true
		}
	})
}
