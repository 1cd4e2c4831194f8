// Command enginehost keeps the engine running, in a container of its own. It is the one program of ours that links
// containerd's client and its parsers, and it holds no key: keeper and gateway, which do, are another program.
//
// It takes its settings from the measured config and its flags, and says on its status pipe when the engine answers and when it is
// gone; runtime/role is its contract with init. The image has it as /usr/bin/engine-host.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"chrysalis/measure/config"
	"chrysalis/measure/engines"
	"chrysalis/runtime/enginehost/internal/engine"
	"chrysalis/runtime/role"
)

// runcProgram is where the image has runc.
const runcProgram = "/usr/bin/runc"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		slog.Error("engine-host ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	settings, err := role.EngineHost.Parse(args)
	if err != nil {
		return err
	}
	files, err := role.EngineHost.Inherit()
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(settings[role.Measured])
	if err != nil {
		return fmt.Errorf("reading measured config: %w", err)
	}
	m, err := config.Decode(raw)
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	e := m.Service.Engine
	dialect, _ := engines.Find(e.Dialect) // the config was decoded, so there is one
	return engine.Run(ctx, engine.Settings{
		Containerd: settings[role.Containerd], Runc: runcProgram,
		Rootfs: settings[role.Rootfs], Model: settings[role.Model], SocketDir: settings[role.SocketDir],
		Argv: e.Argv, Env: e.Env, Health: dialect.Health, MemoryBytes: e.MemoryBytes,
		Report: func(w role.Word) { role.Say(files[role.Status], w) },
	})
}
