package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"chrysalis/runtime/role"
)

// TestReportsOfSeveral: of several engines all must answer before anything is ready or up, and one that is gone is down once.
func TestReportsOfSeveral(t *testing.T) {
	type said struct {
		at   int
		word role.Word
	}
	for _, tt := range []struct {
		name string
		n    int
		says []said
		want string
	}{
		{"one", 1, []said{{0, role.Ready}, {0, role.EngineUp}, {0, role.EngineDown}, {0, role.EngineUp}}, "ready engine-up engine-down engine-up"},
		{"one of two", 2, []said{{0, role.Ready}, {0, role.EngineUp}}, ""},
		{"both", 2, []said{{0, role.Ready}, {0, role.EngineUp}, {1, role.Ready}, {1, role.EngineUp}}, "ready engine-up"},
		{"one dies and comes again", 2, []said{{0, role.Ready}, {0, role.EngineUp}, {1, role.Ready}, {1, role.EngineUp}, {0, role.EngineDown}, {0, role.EngineUp}},
			"ready engine-up engine-down engine-up"},
		{"both die, and one comes again", 2, []said{{0, role.Ready}, {0, role.EngineUp}, {1, role.Ready}, {1, role.EngineUp}, {0, role.EngineDown}, {1, role.EngineDown}, {0, role.EngineUp}},
			"ready engine-up engine-down"},
		{"one dies before the other has come", 2, []said{{0, role.Ready}, {0, role.EngineUp}, {0, role.EngineDown}, {1, role.Ready}, {1, role.EngineUp}, {0, role.EngineUp}},
			"ready engine-up"},
	} {
		var got []string
		h := &heard{report: func(w role.Word) { got = append(got, w.String()) }, up: make([]bool, tt.n), came: make([]bool, tt.n)}
		for _, s := range tt.says {
			h.of(s.at, s.word)
		}
		if words := strings.Join(got, " "); words != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, words, tt.want)
		}
	}
}

// TestOneEndsAll: engines run beside each other, and when one gives up the others end, and the error names the one.
func TestOneEndsAll(t *testing.T) {
	gaveUp := errors.New("does not come up")
	running := make(chan string, 3)
	var ended []string
	err := runAll(t.Context(), []Settings{{Name: "engine-0"}, {Name: "engine-1"}, {Name: "engine-2"}}, func(role.Word) {}, func(ctx context.Context, s Settings) error {
		running <- s.Name
		if s.Name == "engine-1" {
			for range 3 { // all run at a time, or this waits for ever
				ended = append(ended, <-running)
			}
			return gaveUp
		}
		<-ctx.Done()
		return nil
	})
	slices.Sort(ended)
	if !errors.Is(err, gaveUp) || !strings.Contains(err.Error(), "engine-1: ") || strings.Contains(err.Error(), "engine-0") {
		t.Errorf("got %v, want that of engine-1 alone", err)
	}
	if want := []string{"engine-0", "engine-1", "engine-2"}; !slices.Equal(ended, want) {
		t.Errorf("ran %q, want %q", ended, want)
	}
	ctx, end := context.WithCancel(t.Context())
	end()
	if err := runAll(ctx, []Settings{{}, {}}, nil, func(ctx context.Context, _ Settings) error { <-ctx.Done(); return nil }); err != nil {
		t.Errorf("ended from outside: got %v, want no error", err)
	}
}
