package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/disk"
	"chrysalis/init/internal/mount"
	"chrysalis/init/internal/supervise"
	"chrysalis/init/status"
	"chrysalis/runtime/secret"
)

// Where the services find each other. Each sees only what is bound or passed to it.
const (
	runtimeProgram    = "/usr/bin/runtime"
	engineHostProgram = "/usr/bin/engine-host"
	containerdProgram = "/usr/bin/containerd"

	measuredFile     = "/run/chrysalis/measured"
	containerdDir    = "/run/containerd"
	containerdConfig = containerdDir + "/config.toml"
	containerdSocket = containerdDir + "/containerd.sock"
	keeperDir        = "/run/keeper"
	engineSocketDir  = "/run/engine"
	gatewayRoot      = "/run/gateway"

	engineUser  = 65532
	gatewayUser = 65531

	cgroups = "/sys/fs/cgroup"
)

// serviceEnv is the whole environment of every service: nothing is inherited, from the kernel's command line least of all.
//
// schedtrace is here for what comes with it: Go's monitor thread then sleeps on by itself, while else it is woken by the
// first system call after each pause and looks around every 20 microseconds, which costs a sixth of the gateway's time when
// tokens come one by one. The trace itself, one line of counts, is printed after 24 days and then every 24 days.
var serviceEnv = []string{"PATH=/usr/bin", "HOME=/", "GOTRACEBACK=none", "GODEBUG=schedtrace=2147483647"}

// services are the children and what connects them.
type services struct {
	mu       sync.Mutex
	children []*supervise.Child
	secret   *secret.Secret // until the keeper has it
	boots    uint64
	listener *os.File
}

// kill ends every service. The last to start dies first.
func (s *services) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	for i := len(s.children) - 1; i >= 0; i-- {
		s.children[i].Kill()
	}
}

// forget wipes the secret, which may not have been taken yet. The caller holds mu.
func (s *services) forget() {
	if s.secret != nil {
		s.secret.Wipe()
	}
	s.secret = nil
}

// start starts a service whose end is the guest's end, with code.
func (g *guest) start(p supervise.Process, code status.Code) error {
	p.Env = serviceEnv
	p.Cgroup = cgroups + "/" + p.Name
	child, err := g.children.Start(p)
	if err != nil {
		return err
	}
	g.services.mu.Lock()
	g.services.children = append(g.services.children, child)
	g.services.mu.Unlock()
	go func() {
		exit := <-child.Exited()
		g.ender.End(code, fmt.Errorf("%s ended with %s", p.Name, describe(exit)))
	}()
	return nil
}

func describe(exit syscall.WaitStatus) string {
	if exit.Signaled() {
		return fmt.Sprintf("signal %d", exit.Signal())
	}
	return fmt.Sprintf("exit status %d", exit.ExitStatus())
}

// containerdTOML leaves containerd without anything that is not needed to run one container on a root that is mounted
// already: no images are pulled, no layers are mounted, no plugin reaches out. Its socket is where it always is.
const containerdTOML = `version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs", "io.containerd.image-verifier.v1.bindir", "io.containerd.transfer.v1.local", "io.containerd.grpc.v1.transfer", "io.containerd.monitor.container.v1.restart"]
`

func (g *guest) startContainerd(ctx context.Context) error {
	for _, dir := range []string{containerdDir, "/var/lib/containerd", "/run/chrysalis"} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(containerdConfig, []byte(containerdTOML), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(measuredFile, g.measured, 0o400); err != nil {
		return err
	}
	if err := os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+cpu +memory +pids"), 0o644); err != nil {
		return fmt.Errorf("enabling cgroup controllers: %v", err)
	}
	log, err := kernelLog()
	if err != nil {
		return err
	}
	defer log.Close()
	err = g.start(supervise.Process{
		Name: "containerd",
		Argv: []string{containerdProgram, "--config", containerdConfig, "--log-level", "warn"},
		Log:  log,
	}, status.ContainerdExited)
	if err != nil {
		return err
	}
	return waitForSocket(ctx, containerdSocket)
}

func waitForSocket(ctx context.Context, path string) error {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %v: %w", path, err, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// startKeeper gives the secret to the keeper, and to nobody else, and forgets it.
func (g *guest) startKeeper(ctx context.Context) error {
	journal, err := systemPaths.Find(ctx, disk.Journal)
	if err != nil {
		return err
	}
	device, err := os.OpenFile(journal.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := os.MkdirAll(keeperDir, 0o755); err != nil {
		return err
	}
	socket, err := listenUnix(keeperDir+"/keeper.sock", gatewayUser)
	if err != nil {
		return err
	}
	defer socket.Close()
	secretOut, secretIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer secretOut.Close()
	defer secretIn.Close()
	err = g.startService(ctx, supervise.Process{
		Name:      "keeper",
		Argv:      []string{runtimeProgram, "keeper", "-measured", measuredFile},
		NoNetwork: true,
		Files:     []*os.File{secretOut, device, socket},
	}, status.KeeperExited, func() error {
		g.services.mu.Lock()
		defer g.services.mu.Unlock()
		if g.services.secret == nil {
			return errors.New("there is no secret to give to the keeper")
		}
		message := make([]byte, 0, secret.Size+8)
		defer func() { clear(message) }()
		g.services.secret.Expose(func(raw []byte) { message = append(message, raw...) })
		message = binary.LittleEndian.AppendUint64(message, g.services.boots)
		g.services.forget()
		if _, err := secretIn.Write(message); err != nil {
			return err
		}
		return secretIn.Close()
	})
	if err != nil {
		return err
	}
	return g.recorder.CountBoot()
}

func (g *guest) startEngineHost(ctx context.Context) error {
	if err := os.MkdirAll(engineSocketDir, 0o710); err != nil {
		return err
	}
	if err := os.Chown(engineSocketDir, engineUser, gatewayUser); err != nil {
		return err
	}
	return g.startService(ctx, supervise.Process{
		Name: "engine-host",
		Argv: []string{engineHostProgram, "-measured", measuredFile, "-containerd", containerdSocket,
			"-rootfs", engineDir, "-model", modelDir, "-socket-dir", engineSocketDir},
	}, status.EngineHostExited, nil)
}

func (g *guest) startGateway(ctx context.Context) error {
	if err := os.MkdirAll(gatewayRoot, 0o755); err != nil {
		return err
	}
	if err := mount.Bind(keeperDir, gatewayRoot+"/keeper"); err != nil {
		return err
	}
	if err := mount.Bind(engineSocketDir, gatewayRoot+"/engine"); err != nil {
		return err
	}
	ours, theirs, err := socketPair("quote")
	if err != nil {
		return err
	}
	defer theirs.Close()
	go g.serveQuotes(ours)
	defer g.services.listener.Close()
	return g.startService(ctx, supervise.Process{
		Name: "gateway",
		Argv: []string{runtimeProgram, "gateway", "-measured", measuredFile, "-keeper", "/keeper/keeper.sock",
			"-engine", "/engine/e.sock", "-chroot", gatewayRoot},
		Files: []*os.File{g.services.listener, theirs},
	}, status.GatewayExited, nil)
}

// startService starts a runtime process with a status pipe as its last descriptor, calls after when it runs, and waits
// until it says that it is ready.
func (g *guest) startService(ctx context.Context, p supervise.Process, code status.Code, after func() error) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	log, err := kernelLog()
	if err != nil {
		return err
	}
	defer log.Close()
	p.Log = log
	p.Files = append(p.Files, in)
	if err := g.start(p, code); err != nil {
		return err
	}
	if after != nil {
		if err := after(); err != nil {
			return err
		}
	}
	ready := make(chan error, 1)
	go g.readStatus(p.Name, out, ready)
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w", p.Name, ctx.Err())
	}
}

// events are what a service may say beside ready, and what the host then reads. Anything else ends the guest.
var events = map[string]status.Event{
	status.EngineUp.String(): status.EngineUp, status.EngineDown.String(): status.EngineDown,
}

// failCodes are the reasons that a service may give for its end.
var failCodes = map[string]status.Code{
	"journal-torn": status.JournalTorn, "journal-foreign": status.JournalForeign, "journal-rolled-back": status.JournalRolledBack,
	"journal-io": status.JournalIO, "journal-full": status.JournalFull, "journal-corrupt": status.JournalCorrupt,
	"journal-short": status.JournalShort, "journal-refused": status.JournalRefused,
}

// failed are the codes of services that give no reason that there is, or say what is no word.
var failed = map[string]status.Code{
	"keeper": status.Keeper.Failed(), "engine-host": status.EngineHostFailed, "gateway": status.Gateway.Failed(),
}

// readStatus reads a service's status lines until its end. ready gets nil or the reason of a failure once.
func (g *guest) readStatus(name string, out *os.File, ready chan<- error) {
	defer out.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 128), 128)
	for lines.Scan() {
		word := lines.Text()
		if reason, ok := strings.CutPrefix(word, "fail "); ok {
			code, known := failCodes[reason]
			if !known {
				code = failed[name]
			}
			g.ender.End(code, fmt.Errorf("%s gave up: %q", name, reason))
		}
		if word == "ready" {
			select {
			case ready <- nil:
			default:
			}
			continue
		}
		event, known := events[word]
		if !known {
			g.ender.End(failed[name], fmt.Errorf("%s said %q", name, word))
		}
		g.host.Event(event)
	}
	select {
	case ready <- fmt.Errorf("%s closed its status pipe before it was ready", name):
	default:
	}
}

// listen opens the service's port; the gateway gets the descriptor and opens no socket of its own.
func listen(port uint16) (*os.File, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File()
}

// listenUnix opens a socket that one user alone can connect to.
func listenUnix(path string, user int) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := errors.Join(os.Chown(path, user, user), os.Chmod(path, 0o600)); err != nil {
		return nil, err
	}
	return l.File()
}

func socketPair(name string) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

// kernelLog is where services write: the guest's own log, which a release image shows to nobody.
func kernelLog() (*os.File, error) { return os.OpenFile("/dev/kmsg", os.O_WRONLY, 0) }
