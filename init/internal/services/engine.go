package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"chrysalis/init/internal/supervise"
	"chrysalis/init/status"
	"chrysalis/measure/engines"
	"chrysalis/runtime/role"
)

const (
	containerdProgram = "/usr/bin/containerd"
	containerdDir     = "/run/containerd"
	containerdRoot    = "/var/lib/containerd"
	containerdConfig  = containerdDir + "/config.toml"
	containerdSocket  = containerdDir + "/containerd.sock"
)

// containerdTOML leaves containerd without anything that is not needed to run one container on a root that is mounted
// already: no images are pulled, no layers are mounted, no plugin reaches out. Its socket is where it always is.
const containerdTOML = `version = 4
root = "` + containerdRoot + `"
state = "` + containerdDir + `"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs", "io.containerd.mount-handler.v1.erofs", "io.containerd.image-verifier.v1.bindir", "io.containerd.transfer.v1.local", "io.containerd.grpc.v1.transfer", "io.containerd.monitor.container.v1.restart"]
`

// containerdWait is how long containerd may take to answer.
const containerdWait = time.Minute

// Containerd starts containerd. It takes seconds to answer, in which others start; EngineHost waits for it.
func (s *Services) Containerd(context.Context) error {
	for _, dir := range []string{containerdDir, containerdRoot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(containerdConfig, []byte(containerdTOML), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(s.Cgroups+"/cgroup.subtree_control", []byte("+cpu +memory +pids"), 0o644); err != nil {
		return fmt.Errorf("enabling cgroup controllers: %v", err)
	}
	return s.start(supervise.Process{
		Name: "containerd",
		Argv: []string{containerdProgram, "--config", containerdConfig, "--log-level", "warn"},
	}, status.ContainerdExited, nil)
}

// waitForSocket asks more and more seldom: each time takes from who is starting.
func waitForSocket(ctx context.Context, path string) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %v: %w", path, err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// EngineHost waits for containerd, starts engine-host over the mounted volumes of so many models, and returns when all engines answer, with the stream
// on which the gateway asks for wipes. The folders are those of the only one, or what engines.Nth makes of them. The sockets' directory is root's: what
// leads to an engine's socket in it is no engine's to change.
func (s *Services) EngineHost(ctx context.Context, rootfs, model string, models int) (wipes *os.File, err error) {
	answers, cancel := context.WithTimeout(ctx, containerdWait)
	defer cancel()
	if err := waitForSocket(answers, containerdSocket); err != nil {
		return nil, err
	}
	for at := range models {
		dir := engines.Nth(engineSocketDir, at, models)
		if err := os.MkdirAll(dir, 0o710); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, 0, role.GatewayUser); err != nil {
			return nil, err
		}
	}
	wipes, theirs, err := socketPair("wipes")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	err = s.run(ctx, role.EngineHost, role.Settings{
		role.Containerd: containerdSocket, role.Rootfs: rootfs, role.Model: model, role.SocketDir: engineSocketDir,
	}, role.Files{role.Wipes: theirs}, nil)
	if err != nil {
		return nil, errors.Join(err, wipes.Close())
	}
	return wipes, nil
}
