package e2e

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/runtime/receipt"
	"chrysalis/tools/internal/guest"
)

// modelNamed packs the demo's weights as another volume, by their file's name.
func modelNamed(t *testing.T, name string) (file string, ref config.Volume) {
	t.Helper()
	dir := t.TempDir()
	weights, err := os.ReadFile("../../image/model/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".gguf"), weights, 0o644); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "model.img")
	chrysalis(t, 0, "volume", "pack", "model", filepath.Join(dir, name+".gguf"), "-o", file)
	if ref, err = guest.VolumeRef(file); err != nil {
		t.Fatal(err)
	}
	return file, ref
}

// withModels returns the demo's guest with more models beside its own: each on the demo's engine, or on another.
func withModels(t *testing.T, more map[string]guest.Spec, names ...string) guest.Spec {
	t.Helper()
	spec := demoSpec(t)
	sv := &spec.Config.Service
	all := []config.Served{{Engine: sv.Engine, Model: sv.Model, Limits: sv.Limits}}
	files := spec.Volumes()
	for _, name := range names {
		s := all[0]
		file, ref := modelNamed(t, name)
		volumes := guest.Volumes{Engine: files[0].Engine, Model: file}
		if other, ok := more[name]; ok {
			s.Engine, volumes.Engine = other.Config.Service.Engine, other.Engine
		}
		s.Engine.Argv = slices.Clone(s.Engine.Argv)
		s.Engine.Argv[slices.Index(s.Engine.Argv, "-m")+1] = "/model/" + name + ".gguf"
		s.Model = config.Model{Name: name, Volume: ref}
		all, files = append(all, s), append(files, volumes)
	}
	sv.Engine, sv.Model, sv.Limits, sv.Models = config.Engine{}, config.Model{}, config.Limits{}, all
	spec = spec.WithVolumes(files)
	var err error
	if spec.Shape, err = guest.WithModels(spec.Shape, len(all)); err != nil {
		t.Fatal(err)
	}
	spec.Shape.MemoryMiB += 128 * len(names)
	spec.Shape.CPUs = 2 // containers start beside each other
	return spec
}

// TestSeveralModels boots a guest of three models, two on one engine's volume and one on an engine that dies on demand: it is verified, each answers to
// its name with a receipt of its own pair, and when the engine of one dies the others go on.
func TestSeveralModels(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), withModels(t, map[string]guest.Spec{"brittle": fragile(t)}, "other", "brittle")
	start(t, g, spec)
	c := newClient(t, g, spec)
	served := spec.Config.Service.Served()

	said, _ := chrysalis(t, 0, c.remote("verify")...)
	for _, m := range served {
		if want := "model: " + m.Model.Name + ", volume " + m.Model.Volume.String() + ", on engine " + m.Engine.Volume.String(); !strings.Contains(said, want) {
			t.Errorf("verify says %s, want %q in it", said, want)
		}
	}
	if v := c.edited(served[1].Model.Volume.Root.String(), served[0].Engine.Volume.Root.String()).verify(1); v.Check != "config.service.model.volume" {
		t.Errorf("a policy of another second model: got refused by %q, want by config.service.model.volume", v.Check)
	}
	ask := func(model, question string) (text string, r *receipt.Receipt) {
		t.Helper()
		out, _ := chrysalis(t, 0, c.remote("chat", "--json", "--model", model, question)...)
		var answer struct {
			Answer  string `json:"answer"`
			Receipt struct {
				Body string `json:"body"`
			} `json:"receipt"`
		}
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			t.Fatalf("%s: %v: %s", model, err, out)
		}
		signed, err := hex.DecodeString(answer.Receipt.Body)
		if err != nil {
			t.Fatalf("%s: %v: %s", model, err, out)
		}
		if r, err = receipt.Parse(signed); err != nil {
			t.Fatalf("%s: %v: %s", model, err, out)
		}
		return answer.Answer, r
	}
	for _, m := range served {
		text, r := ask(m.Model.Name, "hello")
		if text == "" || register.Digest(r.Model) != m.Model.Volume.Root || register.Digest(r.Engine) != m.Engine.Volume.Root {
			t.Errorf("%s: %q with a receipt of model %x and engine %x, want %s and %s", m.Model.Name, text, r.Model, r.Engine, m.Model.Volume.Root, m.Engine.Volume.Root)
		}
		if m.Model.Name == "brittle" && text != "still here" {
			t.Errorf("brittle: got %q, want what its own engine says", text)
		}
	}
	if _, notes, code := try(t, c.remote("chat", "hello")...); code != 2 || !strings.Contains(notes, "the guest has the models tiny, other, brittle") {
		t.Errorf("no model named: got exit code %d and %q", code, notes)
	}
	if _, notes, code := try(t, c.remote("chat", "--model", "huge", "hello")...); code == 0 || !strings.Contains(notes, `the models here are "tiny", "other", "brittle"`) {
		t.Errorf("a model that is not there: got exit code %d and %q", code, notes)
	}

	if out, _, code := try(t, c.remote("chat", "--model", "brittle", "please fall over")...); code == 0 {
		t.Errorf("an answer whose engine died: got exit code 0 and %q", out)
	}
	if text, _ := ask("other", "hello"); text == "" {
		t.Error("the engine of another model died, and this one does not answer")
	}
	for deadline := time.Now().Add(bootLimit); ; time.Sleep(500 * time.Millisecond) {
		_, lines, err := g.State()
		if err != nil {
			t.Fatal(err)
		}
		seen := map[status.Event]int{}
		for _, line := range lines {
			seen[line.Event]++
		}
		if seen[status.EngineUp] == 2 && seen[status.EngineDown] == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the engine did not come back: %q", lines)
		}
	}
	if text, _ := ask("brittle", "hello"); text != "still here" {
		t.Errorf("after its engine came back: got %q", text)
	}
}
