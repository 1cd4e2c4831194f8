// Command chrysalis checks a host, boots and verifies confidential inference guests, talks to them, and rebuilds and
// measures their image. Exit codes: 0 accepted, 1 rejected, 2 usage, 3 could not check.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// exitError carries the exit code of a verb that has already said what is wrong, or says it in err.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// Exit codes, one meaning each, for every verb.
const (
	exitRejected    = 1
	exitUsage       = 2
	exitUnavailable = 3
)

func rejected(err error) error    { return exitError{exitRejected, err} }
func unavailable(err error) error { return exitError{exitUnavailable, err} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "chrysalis",
		Short:         "Confidential inference guests: boot, verify, talk, rebuild",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(verbs()...)
	return root
}

// verbs lists the commands, one file a verb.
func verbs() []*cobra.Command {
	return []*cobra.Command{
		newUp(),
		newDown(),
		newStatus(),
		newPolicy(),
		newImage(),
		newRelease(),
		newVolume(),
		newMeasure(),
		newVerify(),
		newExplain(),
		newAppraise(),
		newChat(),
		newClaim(),
		newCollateral(),
	}
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			// A refusal quotes what somebody else sent.
			fmt.Fprintf(os.Stderr, "chrysalis: %s\n", printable(exit.err.Error()))
		}
		return exit.code
	}
	fmt.Fprintf(os.Stderr, "chrysalis: %v\nchrysalis: hint: see chrysalis --help\n", err)
	return exitUsage
}
