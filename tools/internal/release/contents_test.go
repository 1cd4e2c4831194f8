package release

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"

	"chrysalis/measure/register"
)

// testContents describes a release of two packages and one program.
func testContents() Contents {
	return Contents{
		Format: ContentsFormat,
		Files: []File{
			{File: "initrd", Mode: "-rw-r--r--", Size: 9, SHA256: register.Digest{1}, From: Origin{Kind: FromBuild}},
			{File: "initrd", Path: "init", Mode: "-rwxr-xr-x", Size: 4, SHA256: register.Digest{2}, From: Origin{FromGo, "chrysalis/init"}},
			{File: "initrd", Path: "modules/00-a.ko.xz", Mode: "-rw-r--r--", Size: 6, SHA256: register.Digest{3},
				From: Origin{FromPackage, "linux-modules"}},
			{File: "root.img", Path: "etc/certs", Mode: "-rw-r--r--", Size: 12, SHA256: register.Digest{4},
				From: Origin{FromScript, "ca-certificates"}},
			{File: "root.img", Path: "lib", Mode: "Lrwxrwxrwx", Link: "usr/lib", From: Origin{Kind: FromBuild}},
		},
		Packages: []Package{
			{"ca-certificates", "20250419", "all", "ca-certificates", "20250419", "image", register.Digest{5}},
			{"libc6-dev", "2.41-12+deb13u4", "amd64", "glibc", "2.41-12+deb13u4", "tools", register.Digest{6}},
			{"linux-modules", "7.2.12-1~bpo13+1", "amd64", "linux", "7.2.12-1~bpo13+1", "image", register.Digest{7}},
		},
		Programs: []Program{{File: "initrd", Path: "init", Go: "go1.26.8", Main: "chrysalis/init",
			Module:   Module{Path: "chrysalis", Version: "(devel)"},
			Settings: []string{"-trimpath=true"}, Modules: []Module{{"golang.org/x/sys", "v0.48.0", "h1:abc="}}, Linked: []string{"libc6-dev"}}},
	}
}

func TestContentsRoundTrip(t *testing.T) {
	data, err := EncodeContents(testContents())
	if err != nil {
		t.Fatal(err)
	}
	c, err := DecodeContents(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EncodeContents(c); err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoding again: got %s, error %v, want %s", again, err, data)
	}
	for where, want := range map[[2]string]string{
		{"root.img", "etc/certs"}:            "installation script of package ca-certificates 20250419",
		{"initrd", "modules/00-a.ko.xz"}:     "package linux-modules 7.2.12-1~bpo13+1",
		{"initrd", "init"}:                   "Go program chrysalis/init",
		{"initrd", ""}:                       "assembled by the build",
		{"initrd", "modules/00-nosuch.ko.x"}: "",
	} {
		if got := c.Owner(where[0], where[1]); got != want {
			t.Errorf("owner of %q: got %q, want %q", where, got, want)
		}
	}
}

func TestContentsRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Contents)
		want   string
	}{
		{"format", func(c *Contents) { c.Format = "" }, "format"},
		{"no files", func(c *Contents) { c.Files = nil }, "0 files"},
		{"files out of order", func(c *Contents) { slices.Reverse(c.Files) }, "each once and sorted"},
		{"file twice", func(c *Contents) { c.Files = slices.Insert(c.Files, 1, c.Files[1]) }, "each once and sorted"},
		{"package that is not described", func(c *Contents) { c.Packages = c.Packages[:2] }, "not described"},
		{"linked package that is not described", func(c *Contents) { c.Programs[0].Linked = []string{"musl"} }, "not described"},
		{"packages out of order", func(c *Contents) { slices.Reverse(c.Packages) }, "each once and sorted"},
		{"package without source", func(c *Contents) { c.Packages[0].Source = "" }, "lacks"},
		{"unknown origin", func(c *Contents) { c.Files[0].From.Kind = "elsewhere" }, "elsewhere"},
		{"unnamed program", func(c *Contents) { c.Files[1].From.Name = "" }, "unnamed"},
		{"assembled from something", func(c *Contents) { c.Files[0].From.Name = "x" }, "assembled"},
		{"program that is no file", func(c *Contents) { c.Programs[0].Path = "usr/bin/init" }, "no Go program"},
		{"program twice", func(c *Contents) { c.Programs = append(c.Programs, c.Programs[0]) }, "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testContents()
			tt.change(&c)
			if _, err := EncodeContents(c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	good, err := EncodeContents(testContents())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, old, new string }{
		{"unknown member", `"format":`, `"extra": 1, "format":`},
		{"member twice", `"format": "chrysalis contents v1",`, `"format": "chrysalis contents v1", "format": "chrysalis contents v1",`},
		{"other spacing", `"format": `, `"format":  `},
		{"trailing bytes", "\n}\n", "\n}\n\n"},
	} {
		bad := strings.Replace(string(good), tt.old, tt.new, 1)
		if bad == string(good) {
			t.Fatalf("%s: the change does nothing", tt.name)
		}
		if _, err := DecodeContents([]byte(bad)); err == nil {
			t.Errorf("%s: got no error, want a refusal", tt.name)
		}
	}
	if _, err := DecodeContents(make([]byte, maxContentsBytes+1)); err == nil {
		t.Error("too long: got no error, want a refusal")
	}
}

func FuzzDecodeContents(f *testing.F) {
	seed, err := EncodeContents(testContents())
	if err != nil {
		f.Fatal(err)
	}
	if _, err := DecodeContents(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := DecodeContents(data)
		if err != nil {
			return
		}
		if again, err := EncodeContents(c); err != nil || !bytes.Equal(again, data) {
			t.Errorf("encoding again: got %q, error %v, want %q", again, err, data)
		}
	})
}

// TestSBOM reads the bill with the library's own decoder: every reference leads to a component, and what counts for an
// advisory is there: version, source package, module sum.
func TestSBOM(t *testing.T) {
	data, err := SBOM("chrysalis cpu", testContents())
	if err != nil {
		t.Fatal(err)
	}
	again, err := SBOM("chrysalis cpu", testContents())
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("writing again: error %v, or other bytes", err)
	}
	other := testContents()
	other.Packages[0].Version = "20250420"
	if changed, err := SBOM("chrysalis cpu", other); err != nil || bytes.Equal(changed, data) {
		t.Errorf("another version: error %v, or the same bytes", err)
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(data), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if bom.SpecVersion != cyclonedx.SpecVersion1_6 || bom.Metadata == nil || bom.Metadata.Timestamp != "" ||
		!strings.HasPrefix(bom.SerialNumber, "urn:uuid:") {
		t.Errorf("got version %v, serial %q, metadata %+v", bom.SpecVersion, bom.SerialNumber, bom.Metadata)
	}
	refs := map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		refs[c.BOMRef] = true
	}
	for _, want := range []string{"pkg:deb/debian/ca-certificates@20250419?arch=all",
		"pkg:deb/debian/libc6-dev@2.41-12%2Bdeb13u4?arch=amd64&upstream=glibc%402.41-12%2Bdeb13u4",
		"pkg:golang/golang.org/x/sys@v0.48.0", "pkg:golang/stdlib@1.26.8", "initrd:init"} {
		if !refs[want] {
			t.Errorf("no component %s among %v", want, refs)
		}
	}
	edges := 0
	for _, d := range *bom.Dependencies {
		if !refs[d.Ref] {
			t.Errorf("dependency of unknown %q", d.Ref)
		}
		if d.Dependencies == nil {
			continue
		}
		for _, to := range *d.Dependencies {
			edges++
			if !refs[to] {
				t.Errorf("%s needs unknown %q", d.Ref, to)
			}
		}
	}
	if edges != 6 { // release: 2 packages and a program; program: stdlib, module, libc6-dev
		t.Errorf("got %d edges, want 6", edges)
	}
}

// TestDescribe describes a folder that holds this test's own program.
func TestDescribe(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"initrd": written(t,
		[]entry{{name: "init", data: string(program), mode: 0o755}, {name: "root.json", data: "{}", mode: 0o644}}), "cmdline": []byte("quiet")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	main := "chrysalis/tools/internal/release.test"
	origin := func(file, path string) (Origin, error) {
		if path == "init" {
			return Origin{FromGo, main}, nil
		}
		return Origin{Kind: FromBuild}, nil
	}
	c, err := Describe(dir, []string{"cmdline", "initrd"}, origin, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := EncodeContents(c); err != nil {
		t.Error(err)
	}
	var paths []string
	for _, f := range c.Files {
		paths = append(paths, f.where()+" "+f.Mode)
	}
	want := []string{"cmdline -rw-r--r--", "initrd -rw-r--r--", "initrd: init -rwxr-xr-x", "initrd: root.json -rw-r--r--"}
	if !slices.Equal(paths, want) {
		t.Errorf("files: got %q, want %q", paths, want)
	}
	if len(c.Programs) != 1 || c.Programs[0].Go == "" || len(c.Programs[0].Settings) == 0 || c.Programs[0].Module.Path != "chrysalis/tools" {
		t.Errorf("programs: got %+v, want this test", c.Programs)
	}
	main = "chrysalis/init"
	if _, err := Describe(dir, []string{"initrd"}, origin, nil); err == nil || !strings.Contains(err.Error(), "was built from") {
		t.Errorf("a program of another main package: got error %v", err)
	}
}

// TestReplacedModules: the source tree's own module alone may stand in for itself, from the folder above a nested one.
func TestReplacedModules(t *testing.T) {
	for _, tt := range []struct {
		name    string
		module  string
		replace debug.Module
		err     string
	}{
		{"the root, from a nested module", "chrysalis", debug.Module{Path: "../../", Version: "(devel)"}, ""},
		{"another module by a folder", "golang.org/x/sys", debug.Module{Path: "../../", Version: "(devel)"}, "want none replaced"},
		{"another module by another version", "golang.org/x/sys", debug.Module{Path: "golang.org/x/sys", Version: "v0.1.0"},
			"want none replaced"},
		{"the root by a folder of a machine", "chrysalis", debug.Module{Path: "/home/me/chrysalis", Version: "(devel)"}, "want none replaced"},
		{"the root by a fork", "chrysalis", debug.Module{Path: "example.org/fork", Version: "v1.0.0"}, "want none replaced"},
	} {
		info := &buildinfo.BuildInfo{Path: "chrysalis/x", Deps: []*debug.Module{{Path: tt.module, Version: "v0.0.0", Replace: &tt.replace},
			{Path: "github.com/json", Version: "v1.0.0", Sum: "h1:x"}}}
		p, err := describeProgram(info)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got error %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if want := []Module{{"github.com/json", "v1.0.0", "h1:x"}}; err != nil || !slices.Equal(p.Modules, want) {
			t.Errorf("%s: got modules %v, error %v, want %v", tt.name, p.Modules, err, want)
		}
	}
}

func TestChanges(t *testing.T) {
	write := func(change func(*Contents)) string {
		c, dir := testContents(), t.TempDir()
		change(&c)
		data, err := EncodeContents(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ContentsName), data, 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	a := write(func(*Contents) {})
	b := write(func(c *Contents) {
		c.Packages[2].Version, c.Programs[0].Go = "7.2.13-1~bpo13+1", "go1.26.9"
		c.Programs[0].Modules = append(c.Programs[0].Modules, Module{"golang.org/x/net", "v0.59.0", "h1:def="})
	})
	want := []Change{{"module", "golang.org/x/net", "", "v0.59.0"}, {"package", "linux-modules", "7.2.12-1~bpo13+1", "7.2.13-1~bpo13+1"},
		{"toolchain", "go", "go1.26.8", "go1.26.9"}}
	if got := Changes(a, b); !slices.Equal(got, want) {
		text, _ := json.Marshal(got)
		t.Errorf("got %s, want %v", text, want)
	}
	if got := Changes(a, a); len(got) != 0 {
		t.Errorf("a release and itself: got %v, want no change", got)
	}
	if got := Changes(a, t.TempDir()); len(got) != 0 {
		t.Errorf("a folder without contents: got %v, want no change", got)
	}
}
