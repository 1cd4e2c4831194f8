// Command chrysalis checks a host, boots and verifies confidential inference guests, talks to them, and rebuilds and
// measures their image. Exit codes: 0 accepted, 1 rejected, 2 usage, 3 could not check.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
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
		Version:       version,
	}
	root.SetVersionTemplate(facts())
	root.AddCommand(verbs()...)
	wantVerbs(root)
	wantLinux(root, runtime.GOOS)
	foldHelp(root)
	return root
}

// linuxVerbs are those that start guests, look at them, or build what they run: QEMU, KVM and Debian's tools are Linux's. All others run on
// every system, as far as no shape of a machine is asked of QEMU.
var linuxVerbs = []string{"doctor", "up", "down", "upgrade", "status", "exporter", "provider install", "provider uninstall", "image build", "image audit", "image disk", "image tools", "image lock"}

// wantLinux has those verbs say what they need, on a system that is another.
func wantLinux(root *cobra.Command, system string) {
	if system == "linux" {
		return
	}
	for _, name := range linuxVerbs {
		c, _, err := root.Find(strings.Fields(name))
		if err != nil {
			panic(err) // the list above is wrong, and a test says so
		}
		c.Args = nil
		c.Short += " (Linux)"
		c.FParseErrWhitelist.UnknownFlags = true
		c.PreRunE = func(c *cobra.Command, _ []string) error { // before flags are missed
			return unavailable(fmt.Errorf("%s needs Linux, and this is %s", c.CommandPath(), system))
		}
	}
}

// wantVerbs makes it a usage error to name a group of verbs and one that it does not have. Cobra prints help and ends with
// 0, which whoever runs a mistyped command from a script takes for an acceptance.
func wantVerbs(group *cobra.Command) {
	for _, c := range group.Commands() {
		wantVerbs(c)
		if !c.HasSubCommands() || c.Runnable() {
			continue
		}
		c.Args, c.DisableFlagsInUseLine = cobra.ArbitraryArgs, true
		c.RunE = func(c *cobra.Command, args []string) error {
			var names []string
			for _, verb := range c.Commands() {
				names = append(names, verb.Name())
			}
			if len(args) == 0 {
				return fmt.Errorf("no command for %q, want one of: %s", c.CommandPath(), strings.Join(names, ", "))
			}
			return fmt.Errorf("unknown command %q for %q, want one of: %s", args[0], c.CommandPath(), strings.Join(names, ", "))
		}
	}
}

// verbs lists the commands, one file a verb.
func verbs() []*cobra.Command {
	return []*cobra.Command{
		newDoctor(),
		newUp(),
		newDown(),
		newUpgrade(),
		newBackup(),
		newRestore(),
		newStatus(),
		newLogs(),
		newExporter(),
		newConfig(),
		newProvider(),
		newPolicy(),
		newImage(),
		newRelease(),
		newAudit(),
		newVolume(),
		newMeasure(),
		newVerify(),
		newExplain(),
		newAppraise(),
		newChat(),
		newProxy(),
		newClient(),
		newEarn(),
		newClaim(),
		newChain(),
		newReceipt(),
		newCollateral(),
		newMan(),
	}
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var exit exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			// A refusal quotes what somebody else sent.
			say(os.Stderr, "chrysalis: %s\n", printable(exit.err.Error()))
		}
		return exit.code
	}
	say(os.Stderr, "chrysalis: %s\nchrysalis: hint: see %s --help\n", strings.TrimSpace(err.Error()), cmd.CommandPath())
	return exitUsage
}
