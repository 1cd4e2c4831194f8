package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"chrysalis/tools/internal/guest"
)

// TestStatusVerdict: a guest that does not serve weighs more than one of which nothing is known, and no guest is no acceptance.
func TestStatusVerdict(t *testing.T) {
	serving, idle, unknown := guestState{State: string(guest.Serving)}, guestState{State: string(guest.Silent)}, guestState{State: unknownState}
	for name, tt := range map[string]struct {
		guests []guestState
		code   int
	}{
		"all serve":      {[]guestState{serving, serving}, 0},
		"one is silent":  {[]guestState{serving, idle}, exitRejected},
		"one is unknown": {[]guestState{serving, unknown}, exitUnavailable},
		"one of each":    {[]guestState{serving, unknown, idle}, exitRejected},
	} {
		err := verdictOf(tt.guests)
		var exit exitError
		if errors.As(err, &exit); exit.code != tt.code || (err == nil) != (tt.code == 0) {
			t.Errorf("%s: got %v, want exit code %d", name, err, tt.code)
		}
	}
}

// TestStatusOfAll: a machine without a guest, and one with a guest of which nothing is known.
func TestStatusOfAll(t *testing.T) {
	t.Chdir(t.TempDir())
	status := func() (string, int) {
		var out bytes.Buffer
		cmd := newStatusOf(t.TempDir())
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs([]string{})
		var exit exitError
		errors.As(cmd.Execute(), &exit)
		return out.String(), exit.code
	}
	if said, code := status(); code != exitUnavailable || said != "" {
		t.Errorf("no guest: got exit code %d and %q, want %d and nothing", code, said, exitUnavailable)
	}
	dir := filepath.Join("build", "guest-x")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "guest.json"), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if said, code := status(); code != exitUnavailable || !bytes.Contains([]byte(said), []byte("x      unknown")) {
		t.Errorf("a guest of which nothing is known: got exit code %d and %q, want %d and its line", code, said, exitUnavailable)
	}
}
