package engine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"chrysalis/runtime/role"
)

func testSettings(report func(role.Word)) Settings {
	return Settings{
		Name: "engine", Rootfs: "/run/vol/engine", Model: "/run/vol/model", SocketDir: "/run/engine",
		Argv: []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf"}, Env: []string{"A=b"}, MemoryBytes: 1 << 29, SharedMemoryBytes: 96 << 20,
		OpenFiles: 4096, Tasks: 700, Report: report,
	}
}

// TestSpec looks at the whole container as runc will get it.
func TestSpec(t *testing.T) {
	ctx := namespaces.WithNamespace(t.Context(), namespace)
	spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: testSettings(nil).name(1)}, testSettings(nil).spec(1)...)
	if err != nil {
		t.Fatal(err)
	}
	p := spec.Process
	if !slices.Equal(p.Args, []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf"}) || !slices.Equal(p.Env, []string{"A=b"}) {
		t.Errorf("command is %q in environment %q: want the config's and no more", p.Args, p.Env)
	}
	groups := p.User.AdditionalGids
	if p.User.UID != User || p.User.GID != User || len(groups) != 0 && !slices.Equal(groups, []uint32{User}) || *p.User.Umask != 0 {
		t.Errorf("user is %+v", p.User)
	}
	if c := p.Capabilities; c == nil || len(c.Bounding)+len(c.Effective)+len(c.Permitted)+len(c.Inheritable)+len(c.Ambient) != 0 {
		t.Errorf("capabilities are %+v, want none", c)
	}
	if !p.NoNewPrivileges || p.Terminal || p.Rlimits[0].Type != "RLIMIT_CORE" || p.Rlimits[0].Hard != 0 {
		t.Errorf("process is %+v", p)
	}
	if !spec.Root.Readonly || spec.Root.Path != "/run/vol/engine" {
		t.Errorf("root is %+v", spec.Root)
	}
	for _, want := range []specs.LinuxNamespaceType{
		specs.NetworkNamespace, specs.PIDNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace,
	} {
		if !slices.ContainsFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == want && n.Path == "" }) {
			t.Errorf("no %s namespace of its own", want)
		}
	}
	if s := spec.Linux.Seccomp; s == nil || s.DefaultAction != specs.ActErrno {
		t.Errorf("filter is %+v", s)
	} else {
		for _, rule := range s.Syscalls {
			for _, call := range []string{"mount", "ptrace_nothing", "bpf", "kexec_load", "init_module", "unshare"} {
				if rule.Action == specs.ActAllow && len(rule.Args) == 0 && slices.Contains(rule.Names, call) {
					t.Errorf("filter allows %s", call)
				}
			}
		}
	}
	writable := []string{}
	for _, m := range spec.Mounts {
		switch {
		case m.Type == "bind" && !slices.Contains(m.Options, "ro"):
			writable = append(writable, m.Destination)
		case m.Destination == "/run":
			t.Error("a tmpfs hides /run")
		}
		if m.Destination == role.EngineRun && m.Source != "/run/engine/1" {
			t.Errorf("the socket's folder is %s, want that of the place alone", m.Source)
		}
		if m.Destination == "/model" && (m.Source != "/run/vol/model" || !slices.Contains(m.Options, "ro")) {
			t.Errorf("model is mounted as %+v", m)
		}
	}
	if !slices.Equal(writable, []string{"/run/engine"}) {
		t.Errorf("writable from outside: %q, want the socket's directory alone", writable)
	}
	r := spec.Linux.Resources
	if *r.Memory.Limit != 1<<29 || *r.Memory.Swap != 1<<29 || *r.Pids.Limit != 700 || spec.Linux.CgroupsPath != "/engine/engine-1" {
		t.Errorf("limits are %+v in %s", r, spec.Linux.CgroupsPath)
	}
	if l := p.Rlimits[1]; l.Type != "RLIMIT_NOFILE" || l.Soft != 4096 || l.Hard != 4096 {
		t.Errorf("open files are %+v, want 4096", l)
	}
	at := slices.IndexFunc(spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	if at < 0 || !slices.Equal(slices.DeleteFunc(slices.Clone(spec.Mounts[at].Options), func(o string) bool { return !strings.HasPrefix(o, "size=") }), []string{"size=98304k"}) ||
		!slices.Contains(spec.Mounts[at].Options, "noexec") {
		t.Errorf("mounts are %+v, want 96 MiB of /dev/shm that nothing runs from", spec.Mounts)
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/sys/firmware"} {
		if !slices.Contains(spec.Linux.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}
}

func TestWaitHealthy(t *testing.T) {
	socket := filepath.Join(t.TempDir(), SocketName)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := waitHealthy(ctx, socket, "/ready"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no socket: got %v, want %v", err, context.DeadlineExceeded)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := 0
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if asked++; asked < 3 || r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable) // the model is being loaded
		}
	})}
	go server.Serve(l)
	defer server.Close()
	if err := waitHealthy(t.Context(), socket, "/ready"); err != nil {
		t.Error(err)
	}
	if asked != 3 {
		t.Errorf("asked %d times, want until it was healthy", asked)
	}
}
