// Command runtime is the part of the guest's service that holds keys, in two roles that init starts as two processes:
//
//	runtime keeper   owns the keys that sign and the journal; no network
//	runtime gateway  answers the network; owns nothing but its TLS key
//
// The third process of the service, engine-host, is a program of its own, so that what it links stays out of this one.
//
// Each takes its settings from the measured config and its flags, and what it may touch from inherited descriptors. A role
// says on its status pipe, in words of a closed vocabulary, when it is ready and why it gave up.
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
)

func main() { os.Exit(run(os.Args[1:])) }

// roles are what this program can be.
var roles = map[string]func(ctx context.Context, args []string) error{
	"keeper":  runKeeper,
	"gateway": runGateway,
}

func run(args []string) int {
	if len(args) == 0 || roles[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "runtime: want a role: keeper or gateway")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := roles[args[0]](ctx, args[1:]); err != nil {
		slog.Error("runtime ended", "role", args[0], "error", err)
		return 1
	}
	return 0
}

// parseFlags parses flags and wants nothing behind them.
func parseFlags(set *flag.FlagSet, args []string) error {
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() != 0 {
		return fmt.Errorf("%s: %d arguments after the flags, want none", set.Name(), set.NArg())
	}
	return nil
}

// readMeasured reads the measured config, which init has hashed and logged before.
func readMeasured(path string) (config.Measured, []byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return config.Measured{}, nil, fmt.Errorf("reading measured config: %w", err)
	}
	m, err := config.Decode(raw)
	if err != nil {
		return config.Measured{}, nil, err
	}
	return m, raw, nil
}

// inherited returns a descriptor that init has passed, and refuses one that is not open.
func inherited(fd uintptr, name string) (*os.File, error) {
	if _, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil {
		return nil, fmt.Errorf("descriptor %d, %s: %v", fd, name, err)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, name), nil
}

// status is the pipe on which a role says how it is.
type status struct{ f *os.File }

// say writes one word of the closed vocabulary. A reader that is gone ends the process by its own means.
func (s status) say(word string) { _, _ = s.f.WriteString(word + "\n") }
