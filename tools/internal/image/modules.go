package image

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ModulesFile is where a source tree records which modules, in which versions, each program of the guest is built of.
const ModulesFile = "image/modules"

// ownModule is the module of the source tree's root; the nested ones begin with its name. Their version is the tree itself.
const ownModule = "chrysalis"

// ModuleUse says that a program of the guest is built of a module in that version.
type ModuleUse struct {
	Program string `json:"program"`
	Module  string `json:"module"`
	Version string `json:"version"`
}

// IsOwnModule reports whether a module is one of this source tree's, which no go.mod gives a version.
func IsOwnModule(name string) bool {
	return name == ownModule || strings.HasPrefix(name, ownModule+"/")
}

// Modules asks the go command what it would build each program of, in the form of FormatModules. It builds nothing.
func (b *Builder) Modules(ctx context.Context) ([]ModuleUse, error) {
	g, err := b.findGo(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing modules: %w", err)
	}
	var uses []ModuleUse
	for _, p := range programs {
		of, err := b.modulesOf(ctx, g, p)
		if err != nil {
			return nil, fmt.Errorf("listing modules of %s: %w", p.name, err)
		}
		uses = append(uses, of...)
	}
	return uses, nil
}

func (b *Builder) modulesOf(ctx context.Context, g goTool, p program) ([]ModuleUse, error) {
	cmd := exec.CommandContext(ctx, goCommand(), "list", "-deps", "-tags", p.tags, "-f",
		"{{with .Module}}{{.Path}} {{.Version}}{{end}}", p.pkg)
	cmd.Dir, cmd.Env = filepath.Join(b.Source, p.module), g.environment(p.cgoEnabled())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running go list: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	var uses []ModuleUse
	for line := range strings.Lines(string(out)) {
		module, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		if module != "" && !IsOwnModule(module) {
			uses = append(uses, ModuleUse{p.name, module, version})
		}
	}
	return SortModules(uses), nil
}

// SortModules sorts by program, module and version and drops what stands there twice.
func SortModules(uses []ModuleUse) []ModuleUse {
	slices.SortFunc(uses, func(a, b ModuleUse) int { return strings.Compare(a.line(), b.line()) })
	return slices.Compact(uses)
}

func (u ModuleUse) line() string { return u.Program + " " + u.Module + " " + u.Version }

// FormatModules returns the text of ModulesFile.
func FormatModules(uses []ModuleUse) string {
	var out strings.Builder
	out.WriteString("# The modules of each program of the guest: a version that changes here changes measured bytes, and a test compares both what\n" +
		"# the go command would take and what the built programs say. A wanted change is recorded with: chrysalis image modules > image/modules\n")
	for _, u := range uses {
		fmt.Fprintln(&out, u.line())
	}
	return out.String()
}

// CompareModules returns one line for each difference between the modules that the source tree records and those of uses.
func CompareModules(source string, uses []ModuleUse) (differences []string, err error) {
	recorded, err := readNames(filepath.Join(source, ModulesFile))
	if err != nil {
		return nil, fmt.Errorf("comparing modules: %w", err)
	}
	var got []string
	for _, u := range uses {
		got = append(got, u.line())
	}
	for _, line := range recorded {
		if !slices.Contains(got, line) {
			differences = append(differences, "recorded, and not built of: "+line)
		}
	}
	for _, line := range got {
		if !slices.Contains(recorded, line) {
			differences = append(differences, "built of, and not recorded: "+line)
		}
	}
	return differences, nil
}
