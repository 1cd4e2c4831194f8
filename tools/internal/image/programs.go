package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/tools/internal/toolstree"
)

// program is a program of the guest.
type program struct {
	name, pkg string
	module    string // folder of the go.mod whose versions it is built of, relative to the source tree
	tags      string
	cgo       bool     // built in the tools tree with its C compiler; without cgo the machine's own has no say
	linked    []string // Debian packages of the tools tree whose static libraries end up in it
}

// containerdTags leave out the parts of containerd that the guest has no use for: Kubernetes and file systems not in the kernel's list.
const containerdTags = "no_cri,no_btrfs,no_zfs,no_devmapper,no_tracing"

// engineHostModule is built of containerd's tree and asks for its versions; what holds keys is not.
const engineHostModule = "runtime/enginehost"

var programs = []program{
	{name: "init", pkg: "chrysalis/init", module: "."},
	{name: "runtime", pkg: "chrysalis/runtime", module: "."},
	{name: "custody", pkg: "chrysalis/runtime/custody", module: "."},
	{name: "fetch", pkg: "chrysalis/runtime/fetch", module: "."},
	{name: "engine-host", pkg: "chrysalis/runtime/enginehost", module: engineHostModule},
	{name: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd", module: engineHostModule, tags: containerdTags},
	{name: "containerd-shim-runc-v2", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", module: engineHostModule,
		tags: containerdTags},
	// runc enters namespaces in C before the Go runtime starts threads, and filters system calls through libseccomp.
	{name: "runc", pkg: "github.com/opencontainers/runc", module: engineHostModule, tags: "seccomp", cgo: true,
		linked: []string{"libc6-dev", "libgcc-14-dev", "libseccomp-dev"}},
}

// programModules returns the folders of the modules that the programs are built of, each once.
func programModules() (folders []string) {
	for _, p := range programs {
		folders = append(folders, p.module)
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// linkedPackages lists by main package what is linked into the programs.
func linkedPackages() map[string][]string {
	linked := map[string][]string{}
	for _, p := range programs {
		if len(p.linked) > 0 {
			linked[p.pkg] = p.linked
		}
	}
	return linked
}

func (p program) cgoEnabled() string {
	if p.cgo {
		return "1"
	}
	return "0"
}

// stripped leaves the build ID in, which says what a program was made of: go build links anew only what is of something else.
const stripped = "-s -w"

// goTool is the exact Go toolchain of the guest's programs.
type goTool struct {
	version string            // such as go1.26.8
	env     map[string]string // where it finds modules and caches
}

// findGo reads the toolchain line of the root's go.mod, which a test holds the other modules to, and asks that toolchain for its folders.
func (b *Builder) findGo(ctx context.Context) (goTool, error) {
	var mod struct{ Toolchain string }
	if err := b.goJSON(ctx, nil, &mod, "mod", "edit", "-json"); err != nil {
		return goTool{}, err
	}
	if !strings.HasPrefix(mod.Toolchain, "go1.") {
		return goTool{}, fmt.Errorf("go.mod names toolchain %q, want go1.N.N", mod.Toolchain)
	}
	g := goTool{version: mod.Toolchain}
	if err := b.goJSON(ctx, []string{"GOTOOLCHAIN=" + g.version}, &g.env, "env", "-json"); err != nil {
		return goTool{}, err
	}
	if got := g.env["GOVERSION"]; got != g.version {
		return goTool{}, fmt.Errorf("toolchain is %s, want %s", got, g.version)
	}
	return g, nil
}

// goCommand returns the go command of PATH, or else the one where Go's own installer puts it: sudo's PATH often lacks it.
func goCommand() string {
	if path, err := exec.LookPath("go"); err == nil {
		return path
	}
	return "/usr/local/go/bin/go"
}

func (b *Builder) goJSON(ctx context.Context, env []string, into any, args ...string) error {
	cmd := exec.CommandContext(ctx, goCommand(), args...)
	cmd.Dir, cmd.Env = b.Source, append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running go %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return json.Unmarshal(out, into)
}

// environment is built from scratch: of the caller's only where modules come from and lie reaches a build.
func (g goTool) environment(cgo string) []string {
	env := []string{"GOTOOLCHAIN=" + g.version, "CGO_ENABLED=" + cgo, "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1",
		"GOENV=off", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOFIPS140=off", "GOEXPERIMENT="}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE",
		"GOINSECURE"} {
		env = append(env, name+"="+g.env[name])
	}
	for _, name := range []string{"PATH", "HOME", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
		"SSL_CERT_FILE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func buildArgs(p program, out, ldflags string) []string {
	return []string{"build", "-trimpath", "-buildvcs=false", "-tags", p.tags, "-ldflags", ldflags, "-o", out, p.pkg}
}

// buildPrograms builds the guest's programs into a folder and returns it.
func (b *Builder) buildPrograms(ctx context.Context, tree toolstree.Tree, g goTool) (string, error) {
	out := filepath.Join(b.Work, "programs")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	for _, p := range programs {
		step := b.Progress.Step("build "+p.name, 0)
		build := b.buildProgram
		if p.cgo {
			build = b.buildInTree
		}
		if err := build(ctx, tree, g, p, out); err != nil {
			return "", fmt.Errorf("building %s: %w", p.name, err)
		}
		step.Done(size(filepath.Join(out, p.name)))
	}
	return out, nil
}

// buildProgram builds a program without cgo, which needs nothing of the tools tree.
func (b *Builder) buildProgram(ctx context.Context, _ toolstree.Tree, g goTool, p program, out string) error {
	cmd := exec.CommandContext(ctx, goCommand(), buildArgs(p, filepath.Join(out, p.name), stripped)...)
	cmd.Dir, cmd.Env = filepath.Join(b.Source, p.module), g.environment(p.cgoEnabled())
	return runQuiet(cmd)
}

// buildInTree builds a program inside the tools tree, with its C compiler and libraries, and the machine's Go bind-mounted.
func (b *Builder) buildInTree(ctx context.Context, tree toolstree.Tree, g goTool, p program, out string) error {
	// The build inside has no network: have the modules here first.
	list := exec.CommandContext(ctx, goCommand(), "list", "-deps", "-tags", p.tags, p.pkg)
	list.Dir, list.Env = filepath.Join(b.Source, p.module), g.environment(p.cgoEnabled())
	if err := runQuiet(list); err != nil {
		return err
	}
	entry := toolstree.Entry{
		Binds: map[string]string{"go": g.env["GOROOT"], "modules": g.env["GOMODCACHE"], "source": b.Source, "cache": g.env["GOCACHE"],
			"out": out},
		Dir: path.Join("/mnt/source", p.module),
		Env: []string{"GOTOOLCHAIN=local", "GOROOT=/mnt/go", "GOMODCACHE=/mnt/modules", "GOCACHE=/mnt/cache", "GOPATH=/tmp/go",
			"GOPROXY=off", "GOSUMDB=off", "GOFLAGS=-mod=readonly", "GOENV=off", "GOWORK=off", "GOFIPS140=off", "GOEXPERIMENT=",
			"GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED=1", "CC=gcc", epoch},
	}
	args := buildArgs(p, "/mnt/out/"+p.name, stripped+` -linkmode external -extldflags "-static -Wl,--build-id=none"`)
	return runQuiet(tree.Enter(ctx, entry, slices.Concat([]string{"/mnt/go/bin/go"}, args)...))
}

func size(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}
