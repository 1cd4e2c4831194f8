package guest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

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
