// Package engine runs the program that computes answers, as one container of a containerd that this guest owns. The
// program comes from a volume whose every block is checked, gets its arguments and its environment from the measured
// config and from nowhere else, and sees a model it can't write, one socket, and no network.
//
// The common path: Run, which starts the engine again whenever it ends, until its context does. Where engines are wiped, a spare one
// waits, and takes over when the one that serves was ended (keep.go).
//
// What this package does not promise: that a process forgets before it ends. What it keeps in memory of a prompt is up to its arguments
// and its allocator.
package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"chrysalis/runtime/role"
)

// User is the user and group that the engine runs as.
const User = role.EngineUser

// SocketName is the engine's socket in its directory.
const SocketName = role.EngineSocketName

// Settings say what to run. Every field must be set, but Address and Wipes.
type Settings struct {
	Name        string // what the names of its containers begin with: one of several engines has another than the others
	Containerd  string // containerd's socket
	Runc        string // path of runc
	Rootfs      string // where the engine's volume is mounted
	Model       string // where the model's volume is mounted; the engine sees it as /model
	SocketDir   string // where SocketName leads to the process that serves; each process has a folder in it, which it sees as role.EngineRun
	Argv, Env   []string
	Address     string // where the engine listens in its network, if it takes no socket
	Health      string // what is asked for to know that the engine answers
	MemoryBytes uint64 // of each process
	// What a process has of /dev/shm, of open files, and of processes and threads.
	SharedMemoryBytes uint64
	OpenFiles, Tasks  uint32
	// Spare has a second process wait, loaded and unused, behind the one that serves.
	Spare bool
	// Wipes are what Wipe sends; nil: nobody asks.
	Wipes <-chan Wiping
	// Report gets Ready once, when the engine first answers, and EngineUp and EngineDown as that changes. A wipe is neither.
	Report func(role.Word)
}

// Wiping asks for the process that serves to be gone with its memory. It is closed once that is so and another one serves.
type Wiping chan struct{}

// Limits and waits that no config changes.
const (
	tmpBytes       = "64m"
	startWait      = 30 * time.Minute      // to read a large model
	firstHealth    = 10 * time.Millisecond // doubled from question to question: each takes from an engine that loads
	maxHealth      = 320 * time.Millisecond
	endWait        = time.Minute // to overwrite hundreds of gigabytes
	firstBackoff   = 100 * time.Millisecond
	maxBackoff     = 5 * time.Second
	maxFailedStart = 8 // in a row, of starts that never came up
)

const (
	namespace = "chrysalis"
	places    = 2 // of the process that serves, and of the spare
)

// Run keeps the engine running until ctx ends, and then ends it. It gives up when the engine does not come up any more, and when one that
// was to end does not.
func Run(ctx context.Context, s Settings) error {
	c, err := client.New(s.Containerd, client.WithDefaultNamespace(namespace))
	if err != nil {
		return fmt.Errorf("connecting to containerd: %w", err)
	}
	defer c.Close()
	ctx = namespaces.WithNamespace(ctx, namespace)
	var made [places]client.Container
	for at := range made {
		if err := removeOld(ctx, c, s.name(at)); err != nil {
			return err
		}
		if !s.Spare && at > 0 {
			continue
		}
		if err := s.makePlace(at); err != nil {
			return err
		}
		made[at], err = c.NewContainer(ctx, s.name(at),
			client.WithRuntime("io.containerd.runc.v2", &options.Options{BinaryName: s.Runc}),
			client.WithNewSpec(s.spec(at)...))
		if err != nil {
			return fmt.Errorf("making the engine's container: %w", err)
		}
	}
	return s.keep(ctx, func(ctx context.Context, at int, up func()) error { return s.once(ctx, made[at], at, up) })
}

// once runs the engine from its start to its end, or ctx's, which kills it: it has nothing to save. It calls up when it answers. When once returns, the
// process's memory is the kernel's again, which overwrites it (init_on_free), unless the error is errStays.
func (s Settings) once(ctx context.Context, c client.Container, at int, up func()) (err error) {
	socket := filepath.Join(s.place(at), SocketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		return fmt.Errorf("making the engine's task: %w", err)
	}
	defer func() { // also when ctx has ended
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
		defer cancel()
		if _, gone := task.Delete(ending, client.WithProcessKill); gone != nil && !errdefs.IsNotFound(gone) {
			err = errors.Join(err, errStays, fmt.Errorf("deleting the engine's task: %w", gone))
		}
	}()
	exited, err := task.Wait(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("waiting for the engine: %w", err)
	}
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("starting the engine: %w", err)
	}
	if s.Address != "" {
		r, err := startRelay(socket, task.Pid(), s.Address)
		if err != nil {
			return err
		}
		defer r.close()
	}
	healthy := make(chan error, 1)
	probing, stop := context.WithTimeout(ctx, startWait)
	defer stop()
	go func() { healthy <- waitHealthy(probing, socket, s.Health) }()
	for {
		select {
		case status := <-exited:
			return fmt.Errorf("the engine ended with status %d", status.ExitCode())
		case err := <-healthy:
			if err != nil {
				return err
			}
			up()
			healthy = nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitHealthy asks the engine until it says that it is healthy.
func waitHealthy(ctx context.Context, socket, health string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	for pause := firstHealth; ; pause = min(2*pause, maxHealth) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+health, nil)
		if err != nil {
			return err
		}
		if response, err := transport.RoundTrip(request); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the engine to be healthy: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// removeOld removes what an engine-host before this one has left.
func removeOld(ctx context.Context, c *client.Client, name string) error {
	old, err := c.LoadContainer(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for an old container: %w", err)
	}
	if task, err := old.Task(ctx, nil); err == nil {
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("deleting an old task: %w", err)
		}
	}
	if err := old.Delete(ctx); err != nil {
		return fmt.Errorf("deleting an old container: %w", err)
	}
	return nil
}

// spec is the container of a place. What it does not name, containerd's default spec has: own mount, pid, ipc, uts and
// network namespaces, the latter with lo alone, and masked and read-only paths in /proc and /sys.
func (s Settings) spec(at int) []oci.SpecOpts {
	return []oci.SpecOpts{
		oci.WithDefaultSpec(),
		oci.WithRootFSPath(s.Rootfs),
		oci.WithRootFSReadonly(),
		oci.WithoutRunMount,
		oci.WithMounts([]specs.Mount{
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=" + tmpBytes}},
			{Destination: role.EngineModel, Type: "bind", Source: s.Model, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}},
			{Destination: role.EngineRun, Type: "bind", Source: s.place(at), Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"}},
		}),
		oci.WithUIDGID(User, User),
		oci.WithUmask(0), // the gateway, another user, must be able to open the socket; the directory decides who gets there
		oci.WithCapabilities(nil),
		oci.WithAmbientCapabilities(nil),
		oci.WithNoNewPrivileges,
		oci.WithCgroup("/engine/" + s.name(at)),
		oci.WithMemoryLimit(s.MemoryBytes),
		oci.WithMemorySwap(int64(s.MemoryBytes)),
		oci.WithPidsLimit(int64(s.Tasks)),
		oci.WithDevShmSize(int64(s.SharedMemoryBytes >> 10)),
		s.process,
		seccomp.WithDefaultProfile(), // last: it looks at the capabilities
	}
}

// process sets the whole command line and the whole environment.
func (s Settings) process(_ context.Context, _ oci.Client, _ *containers.Container, spec *oci.Spec) error {
	spec.Process.Args = s.Argv
	spec.Process.Env = s.Env
	spec.Process.Cwd = "/"
	spec.Process.Terminal = false
	spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NOFILE", Soft: uint64(s.OpenFiles), Hard: uint64(s.OpenFiles)}}
	return nil
}
