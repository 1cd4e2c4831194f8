// Command chrysalis checks a host, boots and verifies confidential inference guests, talks to them, and rebuilds and
// measures their image. Exit codes: 0 accepted, 1 rejected, 2 usage, 3 could not check.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

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
	cmd, err := root, unknownVerb(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
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
	fmt.Fprintf(os.Stderr, "chrysalis: %s\nchrysalis: hint: see %s --help\n", strings.TrimSpace(err.Error()), cmd.CommandPath())
	return exitUsage
}

// unknownVerb is the error for a word that no group of verbs knows: cobra itself prints the group's help and is content.
func unknownVerb(root *cobra.Command, args []string) error {
	group, rest, err := root.Find(args)
	if err != nil || group == root || !group.HasSubCommands() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return nil // what root does not know, cobra refuses
	}
	var names []string
	for _, c := range group.Commands() {
		names = append(names, c.Name())
	}
	return fmt.Errorf("unknown command %q for %q, want one of: %s", rest[0], group.CommandPath(), strings.Join(names, ", "))
}
