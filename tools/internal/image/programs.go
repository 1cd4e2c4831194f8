package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/tools/internal/toolstree"
)

// program is a program of the guest, built from this module or a module it requires.
type program struct {
	name, pkg string
	tags      string
}

// containerdTags leave out the parts of containerd that the guest has no use for: Kubernetes and file systems not in the kernel's list.
const containerdTags = "no_cri,no_btrfs,no_zfs,no_devmapper,no_tracing"

// programs are built without cgo, so the machine's C compiler has no say.
var programs = []program{
	{"init", "chrysalis/init", ""},
	{"runtime", "chrysalis/runtime", ""},
	{"engine-host", "chrysalis/runtime/enginehost", ""},
	{"containerd", "github.com/containerd/containerd/v2/cmd/containerd", containerdTags},
	{"containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", containerdTags},
}

// runc needs cgo: it enters namespaces in C before the Go runtime starts threads, and filters system calls through libseccomp.
var runc = program{"runc", "github.com/opencontainers/runc", "seccomp"}

const stripped = "-s -w -buildid="

// goTool is the exact Go toolchain of the guest's programs.
type goTool struct {
	version string            // such as go1.26.8
	env     map[string]string // where it finds modules and caches
}

// findGo reads the toolchain line of go.mod, the one place that names it, and asks that toolchain for its folders.
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
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE"} {
		env = append(env, name+"="+g.env[name])
	}
	for _, name := range []string{"PATH", "HOME", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"} {
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
		cmd := exec.CommandContext(ctx, goCommand(), buildArgs(p, filepath.Join(out, p.name), stripped)...)
		cmd.Dir, cmd.Env = b.Source, g.environment("0")
		if err := runQuiet(cmd); err != nil {
			return "", fmt.Errorf("building %s: %w", p.name, err)
		}
		step.Done(size(filepath.Join(out, p.name)))
	}
	step := b.Progress.Step("build runc", 0)
	if err := b.buildRunc(ctx, tree, g, out); err != nil {
		return "", fmt.Errorf("building runc: %w", err)
	}
	step.Done(size(filepath.Join(out, runc.name)))
	return out, nil
}

// buildRunc builds runc inside the tools tree, with its C compiler and libseccomp, and the machine's Go bind-mounted.
func (b *Builder) buildRunc(ctx context.Context, tree toolstree.Tree, g goTool, out string) error {
	// The build inside has no network: have the modules here first.
	list := exec.CommandContext(ctx, goCommand(), "list", "-deps", "-tags", runc.tags, runc.pkg)
	list.Dir, list.Env = b.Source, g.environment("1")
	if err := runQuiet(list); err != nil {
		return err
	}
	entry := toolstree.Entry{
		Binds: map[string]string{"go": g.env["GOROOT"], "modules": g.env["GOMODCACHE"], "source": b.Source, "cache": g.env["GOCACHE"], "out": out},
		Dir:   "/mnt/source",
		Env: []string{"GOTOOLCHAIN=local", "GOROOT=/mnt/go", "GOMODCACHE=/mnt/modules", "GOCACHE=/mnt/cache", "GOPATH=/tmp/go",
			"GOPROXY=off", "GOSUMDB=off", "GOFLAGS=-mod=readonly", "GOENV=off", "GOWORK=off", "GOFIPS140=off", "GOEXPERIMENT=",
			"GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "CGO_ENABLED=1", "CC=gcc", epoch},
	}
	args := buildArgs(runc, "/mnt/out/"+runc.name, stripped+` -linkmode external -extldflags "-static -Wl,--build-id=none"`)
	return runQuiet(tree.Enter(ctx, entry, slices.Concat([]string{"/mnt/go/bin/go"}, args)...))
}

func size(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%.1f MB", float64(info.Size())/1e6)
}
