//go:build !js

package tdx_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// dcapQVL is what npm's @phala/dcap-qvl says of this package's vectors: a status, or "refused". tools/differential/dcap-qvl.mjs
// recorded it.
type dcapQVL struct {
	Version string            `json:"version"`
	Answers map[string]string `json:"answers"`
}

// TestAgainstDcapQVL holds the recorded answers against what is refused here: each UpToDate among them has its row in DIFFERENCES.md.
// CHRYSALIS_VECTORS names a folder to write the vectors to for a recording; CHRYSALIS_DIFFERENTIAL wants an answer for each.
func TestAgainstDcapQVL(t *testing.T) {
	if dir := os.Getenv("CHRYSALIS_VECTORS"); dir != "" {
		writeVectors(t, dir)
		return
	}
	text, err := os.ReadFile("testdata/dcap-qvl.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded dcapQVL
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	if recorded.Answers["sound machine"] != "UpToDate" || len(recorded.Answers) < 50 {
		t.Errorf("%d answers, of a sound machine %q", len(recorded.Answers), recorded.Answers["sound machine"])
	}
	document, err := os.ReadFile("DIFFERENCES.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, there := strings.Cut(string(document), "## dcap-qvl "+recorded.Version)
	if !there {
		t.Fatalf("DIFFERENCES.md has no part for dcap-qvl %s", recorded.Version)
	}
	seen := map[string]bool{"sound machine": true}
	for _, v := range vectors() {
		name := v.check + "/" + v.name
		seen[name] = true
		answer, recorded := recorded.Answers[name]
		if !recorded && os.Getenv("CHRYSALIS_DIFFERENTIAL") != "" && judgedByOthers(v) {
			t.Errorf("no recorded answer for %s: record anew", name)
		}
		if answer == "UpToDate" && !regexp.MustCompile(`(?m)^\| (?:\S+, )*`+v.check+`(?:, \S+)* \|`).MatchString(rows) {
			t.Errorf("dcap-qvl takes %s, and DIFFERENCES.md has no row for the check under it", name)
		}
	}
	for name := range recorded.Answers {
		if !seen[name] {
			t.Logf("the answer for %q is of a vector that has gone", name)
		}
	}
}

// judgedByOthers reports whether a vector can be handed to others: it needs no option that only this package has.
func judgedByOthers(v vector) bool {
	s := newScene()
	v.spoil(s)
	o := s.options
	e := s.m.Build()
	if s.edit != nil {
		s.edit(e)
	}
	if _, err := e.Collateral.Encode(); err != nil || e.Root == nil {
		return false // no JSON to hand over, or no root to trust
	}
	return o.AcceptStatus == nil && o.MRSEAM == nil && o.ServiceTDs == nil && o.MinTCBEvaluation == 0 && o.MaxCollateralAge == 0 && o.MinTCBDate.IsZero()
}

func writeVectors(t *testing.T, dir string) {
	type row struct {
		Name string `json:"name"`
		Time int64  `json:"time"`
	}
	var index []row
	write := func(name string, s *scene) {
		e := s.m.Build()
		if s.edit != nil {
			s.edit(e)
		}
		collateral, err := e.Collateral.Encode()
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(dir, fmt.Sprint(len(index)))
		for suffix, data := range map[string][]byte{".quote": e.Quote, ".json": collateral, ".der": e.Root.Raw} {
			if err := os.WriteFile(at+suffix, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		index = append(index, row{name, s.at.Unix()})
	}
	// It knows a quoting enclave's authentication data of 32 bytes alone, which is what Intel's has.
	scene := func() *scene {
		s := newScene()
		s.m.QEAuthData = []byte("authentication data, of 32 bytes")
		return s
	}
	write("sound machine", scene())
	for _, v := range vectors() {
		if judgedByOthers(v) {
			s := scene()
			v.spoil(s)
			write(v.check+"/"+v.name, s)
		}
	}
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}
