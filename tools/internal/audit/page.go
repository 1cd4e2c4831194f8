package audit

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
)

//go:embed page.html
var pageText string

// page escapes everything that is put into it, for the place where it stands.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"utc":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"wants": func(l check.Line) bool { return l.Got != l.Want },
	"lines": func(s string) []string { return strings.Split(s, "\n") },
	"count": counts,
}).Parse(pageText))

// Page returns the report as one HTML page without scripts or anything from elsewhere. encoded is the report as JSON, which the
// page names by its SHA-256.
func (r Report) Page(encoded []byte) ([]byte, error) {
	var b bytes.Buffer
	sum := sha256.Sum256(encoded)
	if err := page.Execute(&b, struct {
		Report
		SHA256 string
	}{r.shown(), fmt.Sprintf("%x", sum)}); err != nil {
		return nil, fmt.Errorf("writing page: %w", err)
	}
	return b.Bytes(), nil
}

// counts says how many checks have which verdict.
func counts(lines []check.Line) string {
	n := map[check.Verdict]int{}
	for _, l := range lines {
		n[l.Verdict]++
	}
	var words []string
	for _, v := range []check.Verdict{check.Denied, check.Waived, check.Accepted} {
		if n[v] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[v], v))
		}
	}
	return strings.Join(words, ", ")
}

// Partly reports whether the report accepts without something that its verdict could have rested on.
func (r Report) Partly() bool {
	return r.Verdict == check.WordAccepted && slices.ContainsFunc(r.Parts, func(p Part) bool {
		return p.Outcome == Unchecked ||
			p.Outcome == Waived
	})
}
