package advisory

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"pault.ag/go/debian/version"
)

// Bounds of a tracker's file, which has some hundred megabytes and four thousand source packages.
const (
	maxTrackerBytes   = 1 << 30
	maxTrackerSources = 1 << 17
	maxSourceIssues   = 1 << 17
)

// Source is a Debian source package that a release holds, in the suite that it was taken from.
type Source struct{ Name, Version, Suite string }

func (s Source) String() string { return s.Name + " " + s.Version + " (" + s.Suite + ")" }

// SourceOf returns the source package by which the tracker files a binary package. Kernels are signed by a source package of its own,
// whose name and version are derived. A backport is of the unstable suite's source: the tracker does not follow backports.
func SourceOf(source, sourceVersion, packageVersion, suite string) Source {
	if name, signed := strings.CutSuffix(source, "-signed-amd64"); signed {
		source, sourceVersion = name, packageVersion
	}
	if before, _, backport := strings.Cut(sourceVersion, "~bpo"); backport {
		sourceVersion, suite = before, "sid"
	}
	return Source{source, sourceVersion, suite}
}

// Standing is what the tracker says of a source package in its version.
type Standing struct {
	Source
	Named        bool // the tracker names the source package
	Open         []Finding
	Undetermined []Finding // nobody has looked yet, or it can't be told from what is said
	Unimportant  []Finding // open, and no vulnerability as Debian sees it
}

// issue is what the tracker has of one vulnerability in one source package.
type issue struct {
	Description string           `json:"description"`
	Bug         int              `json:"debianbug"`
	Scope       string           `json:"scope"`
	Releases    map[string]state `json:"releases"`
}

// state is what the tracker has of it in one suite.
type state struct {
	Status       string            `json:"status"`
	Repositories map[string]string `json:"repositories"`
	Fixed        string            `json:"fixed_version"`
	Urgency      string            `json:"urgency"`
	NoDSA        string            `json:"nodsa"`
	NoDSAReason  string            `json:"nodsa_reason"`
	PointUpdate  bool              `json:"next_point_update"`
}

// ReadTracker reads the tracker's JSON and returns how each of the sources stands, in their order. A file that does not follow one of
// the suites is refused.
func ReadTracker(r io.Reader, sources []Source) ([]Standing, error) {
	standings, err := readTracker(r, sources)
	if err != nil {
		return nil, fmt.Errorf("reading tracker: %w", err)
	}
	return standings, nil
}

func readTracker(r io.Reader, sources []Source) ([]Standing, error) {
	limited := &io.LimitedReader{R: r, N: maxTrackerBytes + 1}
	d := jsontext.NewDecoder(limited)
	standings := make([]Standing, len(sources))
	for i, s := range sources {
		standings[i].Source = s
	}
	open, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if open.Kind() != '{' {
		return nil, fmt.Errorf("it begins with %s, want an object of source packages", open.Kind())
	}
	suites := map[string]int{} // how many issues it follows in each
	for n := 0; d.PeekKind() != '}'; n++ {
		name, err := d.ReadToken()
		switch {
		case err != nil:
			return nil, err
		case n == maxTrackerSources:
			return nil, fmt.Errorf("more than %d source packages", maxTrackerSources)
		}
		source := name.String()
		var issues map[string]issue
		if err := json.UnmarshalDecode(d, &issues, json.RejectUnknownMembers(true)); err != nil {
			return nil, fmt.Errorf("%.60q: %w", source, err)
		}
		if len(issues) > maxSourceIssues {
			return nil, fmt.Errorf("%.60q has %d issues, want at most %d", source, len(issues), maxSourceIssues)
		}
		for _, i := range issues {
			for suite := range i.Releases {
				suites[suite]++
			}
		}
		for i := range standings {
			if standings[i].Name == source {
				if err := standings[i].judge(issues); err != nil {
					return nil, fmt.Errorf("%s: %w", source, err)
				}
			}
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		if limited.N == 0 {
			return nil, fmt.Errorf("more than %d bytes", maxTrackerBytes)
		}
		return nil, fmt.Errorf("something stands behind its end (%v)", err)
	}
	for _, s := range sources {
		if suites[s.Suite] == 0 {
			return nil, fmt.Errorf("it follows nothing in %s, and %s is from there", s.Suite, s.Name)
		}
	}
	return standings, nil
}

// judge sorts the issues of the source package.
func (s *Standing) judge(issues map[string]issue) error {
	s.Named = true
	held, err := version.Parse(s.Version)
	if err != nil {
		return fmt.Errorf("version %q: %w", s.Version, err)
	}
	for _, id := range slices.Sorted(maps.Keys(issues)) {
		in, ok := issues[id].Releases[s.Suite]
		if !ok {
			continue
		}
		f := Finding{ID: id, Note: strings.TrimSpace(in.NoDSA)}
		switch in.Status {
		case "resolved":
			if in.Fixed == "" { // true of the versions that the suite has
				if !slices.Contains(slices.Collect(maps.Values(in.Repositories)), s.Version) {
					f.Note = "resolved in another version, and the tracker does not say since which"
					s.Undetermined = append(s.Undetermined, f)
				}
				continue
			}
			fixed, err := version.Parse(in.Fixed)
			if err != nil {
				return fmt.Errorf("%s is fixed in version %.60q: %w", id, in.Fixed, err)
			}
			if version.Compare(held, fixed) >= 0 {
				continue
			}
			f.Fixed = in.Fixed
		case "open":
		case "undetermined":
			s.Undetermined = append(s.Undetermined, f)
			continue
		default:
			return fmt.Errorf("%s has status %.40q, want resolved, open or undetermined", id, in.Status)
		}
		if in.Urgency == "unimportant" {
			s.Unimportant = append(s.Unimportant, f)
			continue
		}
		s.Open = append(s.Open, f)
	}
	return nil
}
