package main

import (
	"context"
	"flag"

	"golang.org/x/sys/unix"

	"chrysalis/runtime/internal/engine"
)

// runcProgram is where the image has runc.
const runcProgram = "/usr/bin/runc"

// runEngineHost keeps the engine running. Descriptor 3 is status.
func runEngineHost(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("engine-host", flag.ContinueOnError)
	measured := flags.String("measured", "", "file with the measured config")
	containerd := flags.String("containerd", "", "containerd's socket")
	rootfs := flags.String("rootfs", "", "directory on which the engine's volume is mounted")
	model := flags.String("model", "", "directory on which the model's volume is mounted")
	socketDir := flags.String("socket-dir", "", "directory for the engine's socket")
	runc := flags.String("runc", runcProgram, "path of runc")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	m, _, err := readMeasured(*measured)
	if err != nil {
		return err
	}
	f, err := inherited(3, "status")
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	e := m.Service.Engine
	return engine.Run(ctx, engine.Settings{
		Containerd: *containerd, Runc: *runc, Rootfs: *rootfs, Model: *model, SocketDir: *socketDir,
		Argv: e.Argv, Env: e.Env, MemoryBytes: e.MemoryBytes, Report: status{f}.say,
	})
}
