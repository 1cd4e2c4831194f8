package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
)

func TestJudge(t *testing.T) {
	good, bad := check.Line{Name: "a", Got: "1", Want: "1", Verdict: check.Accepted}, check.Line{Name: "b", Got: "1", Want: "2",
		Verdict: check.Denied}
	for _, tt := range []struct {
		name   string
		checks []check.Line
		err    error
		want   Outcome
		reason string
	}{
		{"all hold", []check.Line{good}, nil, Accepted, ""},
		{"one does not", []check.Line{good, bad}, nil, Rejected, "b: got 1, want 2"},
		{"two do not", []check.Line{bad, bad}, nil, Rejected, "and 1 more"},
		{"none was made", nil, nil, Unavailable, "no check was made"},
		{"an error", []check.Line{good}, errors.New("no network"), Unavailable, "no network"},
		{"an error beside a refusal", []check.Line{bad}, errors.New("no network"), Rejected, "b: got"},
		{"a rejection", nil, fmt.Errorf("x: %w", check.ErrRejected), Rejected, "x: rejected"},
		{"an appraisal that could not be made", []check.Line{bad}, fmt.Errorf("x: %w", check.ErrUnavailable), Unavailable, "x: could not"},
		{"waived checks alone", []check.Line{{Name: "c", Verdict: check.Waived}}, nil, Accepted, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Part{Checks: tt.checks}
			p.Judge(tt.err)
			if p.Outcome != tt.want || !strings.Contains(p.Reason, tt.reason) || (tt.reason == "") != (p.Reason == "") {
				t.Errorf("got %s, %q, want %s, %q", p.Outcome, p.Reason, tt.want, tt.reason)
			}
		})
	}
}

func TestClose(t *testing.T) {
	for _, tt := range []struct {
		outcomes []Outcome
		verdict  string
		summary  string
	}{
		{[]Outcome{Accepted, Accepted}, check.WordAccepted, "Accepted: 0, 1."},
		{[]Outcome{Accepted, Unchecked}, check.WordAccepted, "Accepted: 0. Not checked: 1."},
		{[]Outcome{Accepted, Waived}, check.WordAccepted, "Accepted: 0. Waived: 1."},
		{[]Outcome{Rejected, Unavailable, Accepted}, check.WordRejected, "Rejected: 0."},
		{[]Outcome{Unavailable, Accepted}, check.WordUnavailable, "Could not be checked: 0."},
		{[]Outcome{Unchecked, Waived}, check.WordUnavailable, "Nothing was checked. Waived: 1. Not checked: 0."},
		{nil, check.WordUnavailable, "Nothing was checked."},
	} {
		var r Report
		for i, o := range tt.outcomes {
			r.Parts = append(r.Parts, Part{Name: fmt.Sprint(i), Outcome: o})
		}
		r.Close(time.Unix(0, 0))
		if r.Verdict != tt.verdict || r.Summary != tt.summary {
			t.Errorf("%v: got %s, %q, want %s, %q", tt.outcomes, r.Verdict, r.Summary, tt.verdict, tt.summary)
		}
	}
}

func TestWaive(t *testing.T) {
	for was, want := range map[Outcome]Outcome{Accepted: Accepted, Rejected: Waived, Unavailable: Waived, Unchecked: Unchecked} {
		p := Part{Outcome: was}
		if p.Waive(); p.Outcome != want {
			t.Errorf("%s: got %s, want %s", was, p.Outcome, want)
		}
	}
}

// hostile is what somebody would write who wants his report to look better than it is.
const hostile = `</p><script>alert(1)</script><img src="https://evil.example/x" onerror=1>" style="display:none" &lt; ` + "\x1b[2J\u202edetpecca\u200b\x00\xff"

// hostileReport has the text in each field that somebody else can write.
func hostileReport() Report {
	r := Report{Auditor: hostile, Begun: time.Unix(1790000000, 0), Uncovered: []string{"hardware"},
		Subject: Subject{Folder: hostile, Profile: hostile, Kernel: hostile, Go: hostile, SecurityVersion: 1},
		Tool:    Tool{Version: "(devel)", Arguments: []string{"audit", hostile}}, Source: Source{Folder: hostile, Commit: "c0ffee"},
		Parts: []Part{{Name: "files", Title: "Files", How: "hashed", Notes: []string{hostile}, Facts: []Fact{{hostile, hostile}}}}}
	r.Parts[0].Check(hostile, hostile, "want "+hostile)
	r.Parts[0].Judge(nil)
	r.Close(time.Unix(1790000060, 0))
	return r
}

// TestPageEscapes: whatever a release or a guest says, the page has no element, attribute or address that the template has not, and
// nothing that is not seen.
func TestPageEscapes(t *testing.T) {
	r := hostileReport()
	encoded, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Page(encoded)
	if err != nil {
		t.Fatal(err)
	}
	calm := hostileReport()
	calm.Auditor, calm.Subject.Folder, calm.Subject.Profile, calm.Subject.Kernel, calm.Subject.Go = "a", "a", "a", "a", "a"
	calm.Tool.Arguments, calm.Source.Folder = []string{"audit", "a"}, "a"
	calm.Parts = []Part{{Name: "files", Title: "Files", How: "hashed", Notes: []string{"a"}, Facts: []Fact{{"a", "a"}}}}
	calm.Parts[0].Check("a", "a", "want a")
	calm.Parts[0].Judge(nil)
	calm.Close(time.Unix(1790000060, 0))
	plain, err := calm.Page(encoded)
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`<[^>]*>`)
	if a, b := tags.FindAll(got, -1), tags.FindAll(plain, -1); !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
		t.Errorf("the page of a hostile report has other elements than that of a calm one:\n%s\n%s", bytes.Join(a, nil), bytes.Join(b, nil))
	}
	for _, text := range []string{"<script", "<img", "\x1b", "\u202e", "\u200b", "\x00"} {
		if bytes.Contains(got, []byte(text)) {
			t.Errorf("the page has %q", text)
		}
	}
	if !strings.Contains(html.UnescapeString(string(got)), `<script>alert(1)</script>`) || !bytes.Contains(got,
		[]byte(`\u202edetpecca\u200b\u0000`)) {
		t.Error("the page does not show what was said")
	}
	sum := sha256.Sum256(encoded)
	if !bytes.Contains(got, []byte(hex.EncodeToString(sum[:]))) {
		t.Error("the page does not name the report by its hash")
	}
	if bytes.Contains(encoded, []byte("\x1b")) || bytes.ContainsRune(encoded, '\u202e') {
		t.Error("the JSON has characters that are not seen")
	}
	var again Report
	if err := json.Unmarshal(encoded, &again, json.RejectUnknownMembers(true)); err != nil {
		t.Fatal(err)
	}
	if again.Format != Format || again.Verdict != check.WordRejected || len(again.Parts) != 1 || again.Parts[0].Outcome != Rejected {
		t.Errorf("the JSON says %+v", again)
	}
}

// TestPageStandsAlone: the page asks nobody for anything, and forbids that it does.
func TestPageStandsAlone(t *testing.T) {
	for _, text := range []string{"src=", "http://", "https://", "url(", "@import", "<script", "<link", "<iframe"} {
		if strings.Contains(pageText, text) {
			t.Errorf("the template has %q", text)
		}
	}
	if !strings.Contains(pageText, `content="default-src 'none'; style-src 'unsafe-inline'"`) {
		t.Error("the template does not forbid what it does not need")
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{"plain ü …\nline": "plain ü …\nline", "a\x00b": `a\u0000b`, "\u2028": `\u2028`,
		"\ufeffa": `\ufeffa`, "\xff": "\ufffd",
		strings.Repeat("ä", maxShown): strings.Repeat("ä", maxShown/2) + "…"} {
		if got := visible(in); got != want {
			t.Errorf("%.20q: got %.40q, want %.40q", in, got, want)
		}
	}
}
