// Command enginehost keeps the engine running, in a container of its own. It is the one program of ours that links
// containerd's client and its parsers, and it holds no key: keeper and gateway, which do, are another program.
//
// It takes its settings from the measured config and its flags. On descriptor 3, its status pipe, it says in words of a
// closed vocabulary when the engine answers and when it is gone. The image has it as /usr/bin/engine-host.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"chrysalis/measure/config"
	"chrysalis/runtime/enginehost/internal/engine"
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
	flags := flag.NewFlagSet("engine-host", flag.ContinueOnError)
	measured := flags.String("measured", "", "file with the measured config")
	containerd := flags.String("containerd", "", "containerd's socket")
	rootfs := flags.String("rootfs", "", "directory on which the engine's volume is mounted")
	model := flags.String("model", "", "directory on which the model's volume is mounted")
	socketDir := flags.String("socket-dir", "", "directory for the engine's socket")
	runc := flags.String("runc", runcProgram, "path of runc")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 0 {
		return fmt.Errorf("%d arguments after the flags, want none", flags.NArg())
	}
	raw, err := os.ReadFile(*measured)
	if err != nil {
		return fmt.Errorf("reading measured config: %w", err)
	}
	m, err := config.Decode(raw)
	if err != nil {
		return err
	}
	status, err := inherited(3, "status")
	if err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	e := m.Service.Engine
	return engine.Run(ctx, engine.Settings{
		Containerd: *containerd, Runc: *runc, Rootfs: *rootfs, Model: *model, SocketDir: *socketDir,
		Argv: e.Argv, Env: e.Env, MemoryBytes: e.MemoryBytes,
		// A reader that is gone ends the process by its own means.
		Report: func(word string) { _, _ = status.WriteString(word + "\n") },
	})
}

// inherited returns a descriptor that init has passed, and refuses one that is not open.
func inherited(fd uintptr, name string) (*os.File, error) {
	if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
		return nil, fmt.Errorf("descriptor %d, %s: %v", fd, name, err)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, name), nil
}
