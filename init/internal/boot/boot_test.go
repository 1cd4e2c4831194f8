package boot

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/init/status"
)

func TestRun(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		fail error
		want status.Code
	}{
		{"all succeed", nil, 0},
		{"a step fails", broken, status.Config.Failed()},
		{"a step fails with its own code", Coded{status.VolumeCorrupt, broken}, status.VolumeCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ran []string
			step := func(name status.Step, err error) Step {
				return Step{Name: name, Run: func(context.Context) error { ran = append(ran, name.String()); return err }}
			}
			code, err := Run(t.Context(), nil, []Step{step(status.Platform, nil), step(status.Config, tt.fail), step(status.GPU, nil)})
			if code != tt.want || !errors.Is(err, tt.fail) {
				t.Errorf("got code %s and error %v, want %s and %v", code, err, tt.want, tt.fail)
			}
			want := []string{"platform", "config", "gpu"}
			if tt.fail != nil {
				want = want[:2]
			}
			if !slices.Equal(ran, want) {
				t.Errorf("ran %q, want %q", ran, want)
			}
		})
	}
}

// TestWhen: a step that a guest does not have is not run, and that is asked once the steps before are done.
func TestWhen(t *testing.T) {
	var ran []string
	known := false
	step := func(name status.Step, when func() bool) Step {
		return Step{Name: name, When: when, Run: func(context.Context) error { ran = append(ran, name.String()); known = true; return nil }}
	}
	code, err := Run(t.Context(), nil, []Step{step(status.Config, nil), step(status.Lender, func() bool { return !known }), step(status.Keeper, func() bool { return known })})
	if want := []string{"config", "keeper"}; code != 0 || err != nil || !slices.Equal(ran, want) {
		t.Errorf("ran %q with code %s and error %v, want %q", ran, code, err, want)
	}
}

// TestOverrun: a step that never answers, whether it heeds its context or not, fails within its limit.
func TestOverrun(t *testing.T) {
	for name, run := range map[string]func(context.Context) error{
		"heeds its context": func(ctx context.Context) error { <-ctx.Done(); return errors.New("waited for the disk") },
		"hangs":             func(context.Context) error { time.Sleep(time.Hour); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				code, err := Run(t.Context(), nil, []Step{{Name: status.Platform, Run: run, Limit: 5 * time.Second}})
				if code != status.Platform.Failed() || err == nil {
					t.Errorf("got code %s and error %v, want platform-failed", code, err)
				}
				if took := time.Since(began); took > 7*time.Second {
					t.Errorf("took %s, want about the limit of 5 s", took)
				}
				if name == "heeds its context" && !strings.Contains(err.Error(), "waited for the disk") {
					t.Errorf("got error %v, want the step's own", err)
				}
				time.Sleep(2 * time.Hour) // lets what hangs end within the test
			})
		})
	}
}
