package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/tools/internal/guest"
)

// fragile packs the engine that dies on demand, and returns a spec that runs it.
func fragile(t *testing.T) guest.Spec {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(root, "usr/bin/fragile"), "./fragile")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the engine: %v: %s", err, out)
	}
	spec := demoSpec(t)
	spec.Engine = filepath.Join(dir, "engine.img")
	chrysalis(t, 0, "volume", "pack", "engine", root, "-o", spec.Engine)
	ref, err := guest.VolumeRef(spec.Engine)
	if err != nil {
		t.Fatal(err)
	}
	spec.Config.Service.Engine.Volume = ref
	startedAs(&spec, "/usr/bin/fragile")
	return spec
}

// startedAs has another program started with the engine's arguments: a config takes no others. What the program does with them is its own.
func startedAs(spec *guest.Spec, program string) {
	argv := slices.Clone(spec.Config.Service.Engine.Argv)
	argv[0] = program
	spec.Config.Service.Engine.Argv = argv
}

// TestEngineDies kills the engine in the middle of an answer, in the guest: the client gets a clean error and no receipt for
// a whole answer, what was streamed is counted once, and the engine comes back.
func TestEngineDies(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), fragile(t)
	start(t, g, spec)
	c := newClient(t, g, spec)

	first := c.ask("hello")
	if first.text != "still here" || first.tokens != 7 {
		t.Fatalf("first answer: got %+v, want %q and 7 tokens", first, "still here")
	}
	out, notes, code := try(t, "chat", c.url, "--policy", c.policy, "--reach", patience, "--roots", c.roots, "please fall over")
	if code == 0 || strings.Contains(out, "here") {
		t.Errorf("an answer whose engine died: got exit code %d and %q, want an error after %q", code, out, "still")
	}
	t.Logf("the client sees: %s%s", out, notes)

	var second answer
	for deadline := time.Now().Add(bootLimit); ; time.Sleep(500 * time.Millisecond) {
		_, lines, err := g.State()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[status.Event]int{}
		for _, line := range lines {
			seen[line.Event]++
		}
		if seen[status.EngineUp] == 2 {
			if seen[status.EngineDown] != 1 {
				t.Errorf("status port: got %q, want one engine-down", lines)
			}
			second = c.ask("hello")
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the engine did not come back: %q", lines)
		}
	}
	// Between the two whole answers lies what was streamed of the broken one: at least its one word, at most its whole.
	broken := second.tokens - first.tokens - 7
	if second.text != "still here" || second.key != first.key || broken < 1 || broken > 7 {
		t.Errorf("answer after the engine came back: got %+v, so the broken answer cost %d tokens; want 1 to 7", second, broken)
	}
}
