package guest

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// TestComments: lines of comments are no part of a config, and nothing else is taken for one.
func TestComments(t *testing.T) {
	m := DemoConfig()
	m.Service.Engine.Volume.Root, m.Service.Engine.Volume.Blocks = register.Digest{1}, 1
	m.Service.Model.Volume = m.Service.Engine.Volume
	m.Service.Model.Name = "//name"
	text, err := WriteConfig(m)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	read := func(text string) error {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadConfig("", file, "", "")
		if err == nil && !reflect.DeepEqual(got, m) {
			t.Errorf("got %+v, want %+v", got, m)
		}
		return err
	}
	for name, commented := range map[string]string{
		"none":         text,
		"before all":   "// one\n//two\n" + text,
		"after all":    text + "// one",
		"in its midst": strings.ReplaceAll(text, "\n", "\n \t// a comment with \"quotes\" and {\n"),
		"CR LF":        strings.ReplaceAll("// one\n"+text, "\n", "\r\n"),
	} {
		if err := read(commented); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoiled := range map[string]string{
		"behind a member": strings.Replace(text, "{\n", "{ // one\n", 1),
		"another form":    "# one\n" + text,
		"half of one":     "/ one\n" + text,
	} {
		if err := read(spoiled); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	unnamed := DemoConfig()
	if text, err = WriteConfig(unnamed); err != nil || strings.Contains(text, "volume") {
		t.Errorf("volumes that are not named: got %q (%v)", text, err)
	}
}

// TestConfigOfSeveral: volumes that a config of several models does not name are filled in from as many pairs, in its order.
func TestConfigOfSeveral(t *testing.T) {
	m := DemoConfig()
	sv := &m.Service
	one := config.Served{Engine: sv.Engine, Model: sv.Model, Limits: sv.Limits}
	other := one
	other.Model.Name = "other"
	sv.Engine, sv.Model, sv.Limits, sv.Models = config.Engine{}, config.Model{}, config.Limits{}, []config.Served{one, other}
	text, err := WriteConfig(m)
	if err != nil || strings.Contains(text, "volume") {
		t.Fatalf("volumes that are not named: got %q (%v)", text, err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := func(b byte) string { return config.Volume{Root: register.Digest{b}, Blocks: uint64(b)}.String() }
	pairs := []Volumes{{ref(1), ref(2)}, {ref(1), ref(3)}}
	got, err := ReadConfigOf("", file, pairs)
	if err != nil {
		t.Fatal(err)
	}
	for i, served := range got.Service.Served() {
		if served.Engine.Volume.String() != pairs[i].Engine || served.Model.Volume.String() != pairs[i].Model || served.Model.Name != []string{"tiny", "other"}[i] {
			t.Errorf("model %d is %+v, want %+v", i, served, pairs[i])
		}
	}
	for name, files := range map[string][]Volumes{"one pair": pairs[:1], "three pairs": {pairs[0], pairs[1], pairs[1]}} {
		if got, err := ReadConfigOf("", file, files); err == nil || !strings.Contains(err.Error(), "want as many") {
			t.Errorf("%s: got %+v (%v), want a refusal", name, got, err)
		}
	}
	if got, err := ReadConfigOf("", file, []Volumes{pairs[0], pairs[0]}); err == nil || !strings.Contains(err.Error(), "receipts tell models apart") {
		t.Errorf("the same model twice: got %+v (%v), want a refusal", got, err)
	}
	spec := Spec{}.WithVolumes(pairs)
	if got := spec.Volumes(); !slices.Equal(got, pairs) || spec.Engine != "" {
		t.Errorf("the spec's volumes: got %+v, want %+v", got, pairs)
	}
	if spec = spec.WithVolumes(pairs[:1]); spec.Models != nil || spec.Engine != pairs[0].Engine || spec.Model != pairs[0].Model {
		t.Errorf("of one pair: got %+v", spec)
	}
}
