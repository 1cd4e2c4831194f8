package main

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"chrysalis/attest"
	"chrysalis/init/status"
	"chrysalis/tools/internal/guest"
)

var hinted = regexp.MustCompile(`chrysalis ((?:[a-z]+ ?)+)`)

// TestCheckHints: a check that can be mended by a flag says by which, whatever the class of its refusal.
func TestCheckHints(t *testing.T) {
	named, err := os.ReadFile("../../attest/APPRAISAL.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, hint := range checkHints {
		if !strings.Contains(string(named), name) {
			t.Errorf("%s is no check", name)
		}
		for _, class := range []error{attest.ErrRejected, attest.ErrUnavailable} {
			err := refusalOf(errors.Join(&attest.Refused{Failed: attest.Check{Name: name}}, class), "roots.pem")
			if !strings.Contains(err.Error(), "\nchrysalis: hint: "+hint) {
				t.Errorf("%s: got %q, want its hint", name, err)
			}
		}
	}
}

// TestEndHints: a guest's end is told with its hint, and the verbs that hints name exist.
func TestEndHints(t *testing.T) {
	verbs := 0
	for _, code := range status.Codes() {
		hint := endHint(errors.Join(errors.New("booting"), guest.EndedError{Code: code}))
		if !strings.HasPrefix(hint, "\nchrysalis: hint: ") || !strings.Contains(hint, code.Hint()) {
			t.Errorf("%s: got %q, want its hint", code, hint)
		}
		for _, m := range hinted.FindAllStringSubmatch(code.Hint(), -1) {
			verbs++
			if cmd, _, err := newRoot().Find(strings.Fields(m[1])); err != nil || !cmd.HasParent() {
				t.Errorf("%s: its hint names %q, which is no verb: %v", code, m[0], err)
			}
		}
	}
	if verbs == 0 {
		t.Error("no hint names a verb: the test looked for the wrong thing")
	}
	for _, err := range []error{errors.New("booting"), guest.EndedError{}} {
		if got := endHint(err); got != "" {
			t.Errorf("%v: got %q, want no hint", err, got)
		}
	}
}
