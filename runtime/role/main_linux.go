package role

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Run is what a role does until its context ends.
type Run func(ctx context.Context, settings Settings, files Files) error

// Main is the program that is one of the roles, the one that the first of args names, and returns its exit status.
func Main(args []string, roles map[Role]Run) int {
	program := filepath.Base(os.Args[0])
	if len(args) == 0 || roles[Named(args[0])] == nil {
		fmt.Fprintf(os.Stderr, "%s: want one of the roles %v\n", program, slices.Sorted(maps.Keys(roles)))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	r := Named(args[0])
	if err := r.run(ctx, args[1:], roles[r]); err != nil {
		slog.Error(program+" ended", "role", r, "error", err)
		return 1
	}
	return 0
}

func (r Role) run(ctx context.Context, args []string, run Run) error {
	settings, err := r.Parse(args)
	if err != nil {
		return err
	}
	files, err := r.Inherit()
	if err != nil {
		return err
	}
	return run(ctx, settings, files)
}
