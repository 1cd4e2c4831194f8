// Command enginehost keeps the engine running, or several, each in a container of its own. It is the one program of ours that links
// containerd's client and its parsers, and it holds no key: keeper and gateway, which do, are another program.
//
// It takes its settings from the measured config and its flags, and says on its status pipe when the engine answers and when it is
// gone; runtime/role is its contract with init. The image has it as /usr/bin/engine-host.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	wipes, err := net.FileConn(files[role.Wipes])
	if err != nil {
		return fmt.Errorf("taking stream of wipes: %v", err)
	}
	files[role.Wipes].Close()
	served := m.Service.Served()
	wiped := make([]chan engine.Wiping, len(served))
	var all []engine.Settings
	for at, model := range served {
		e := model.Engine
		dialect, _ := engines.Find(e.Dialect) // the config was decoded, so there is one
		shm, openFiles, tasks := e.Shares()
		nth := func(name string) string { return engines.Nth(name, at, len(served)) }
		wiped[at] = make(chan engine.Wiping)
		all = append(all, engine.Settings{
			Name: nth("engine"), Containerd: settings[role.Containerd], Runc: runcProgram,
			Rootfs: nth(settings[role.Rootfs]), Model: nth(settings[role.Model]), SocketDir: nth(settings[role.SocketDir]),
			Argv: e.Argv, Env: e.Env, Address: dialect.Address, Health: dialect.Health, MemoryBytes: e.MemoryBytes,
			SharedMemoryBytes: shm, OpenFiles: openFiles, Tasks: tasks,
			Spare: m.Service.Wipe.Restarts(), Wipes: wiped[at],
		})
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	refused := make(chan error, 1)
	go func() {
		err := role.ServeWipes(wipes, len(served), func(at int) <-chan struct{} {
			w := make(engine.Wiping)
			select {
			case wiped[at] <- w:
			case <-ctx.Done(): // nothing is served any more
			}
			return w
		})
		if err != nil { // else the gateway is gone, which ends the guest
			refused <- err
			end()
		}
	}()
	err = engine.RunAll(ctx, all, func(w role.Word) { role.Say(files[role.Status], w) })
	select {
	case why := <-refused:
		return errors.Join(why, err)
	default:
		return err
	}
}
