package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/measure/config"
	"chrysalis/runtime/numbers"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/metrics"
)

// guestPlaces are where folders of guests are: those that up makes here, by name or without one, and those of units.
var guestPlaces = []string{"build/guest", "build/guest-*", stateRoot + "/*"}

// processes is where the kernel lists them.
const processes = "/proc"

// guestState is a guest as status prints it.
type guestState struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
	URL   string `json:"url,omitempty"`
	Open  bool   `json:"open"` // whether other machines can reach it
	Model string `json:"model,omitempty"`
	// Custodian is a guest that keeps a secret for others; BorrowsFrom where another has its own from. Which loan it is, verify says.
	Custodian   bool     `json:"custodian,omitzero"`
	BorrowsFrom string   `json:"borrows_from,omitempty"`
	Dir         string   `json:"dir"`
	Lines       []string `json:"lines"`
	// Numbers are what it counts, by the names of its numbers' port; NumbersAge is how old they are.
	Numbers    map[string]uint64 `json:"numbers,omitempty"`
	NumbersAge float64           `json:"numbers_age_seconds,omitempty"`

	look    guest.Look
	counted *counted
}

// serves is the model that a guest serves, in words for people.
func (g guestState) serves() string {
	if g.Custodian {
		return "none: a custodian"
	}
	return printable(g.Model)
}

// counted are a guest's numbers with their age.
type counted struct {
	numbers.Values
	age time.Duration
}

// unknownState is of a guest whose folder does not say how it stands.
const unknownState = "unknown"

func newStatus() *cobra.Command { return newStatusOf(processes) }

// newStatusOf is status of the machine whose processes proc lists.
func newStatusOf(proc string) *cobra.Command {
	var flags guestFlags
	var asJSON, all, watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "Say what the guests of this machine do", Args: cobra.NoArgs,
		Long: "Reads each guest's status port, which says how far its boot came and why it ended, and greets a guest that says that it serves: one\n" +
			"that hangs is silent. It is the host's view: it proves nothing, verify does. Without --name or --dir it shows all: those with a folder\n" +
			"here, and those that run. It takes five seconds at most.\n" +
			"Exit code 0: each of them serves. 1: one does not. 3: how one stands could not be found out, or there is none.",
		Example: "  chrysalis status\n  chrysalis status --watch\n  chrysalis status --name box   # and the lines of its status port\n  chrysalis status --all --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all && (flags.name != "" || flags.dir != "") {
				return exitError{exitUsage, errors.New("--all shows every guest: give it, or --name or --dir")}
			}
			if watch && asJSON {
				return exitError{exitUsage, errors.New("--watch is for people: programs read --json, or chrysalis exporter")}
			}
			one := flags.name != "" || flags.dir != ""
			dir, err := flags.folder()
			if err != nil {
				return err
			}
			dirs := []string{dir}
			if !one {
				if dirs, err = guest.Folders(proc, guestPlaces...); err != nil {
					return unavailable(err)
				}
				if len(dirs) == 0 {
					return unavailable(errors.New("no guest on this machine (start one with: chrysalis up)"))
				}
			}
			if watch {
				return watchGuests(cmd.Context(), cmd.OutOrStdout(), proc, dirs, one)
			}
			guests, err := look(cmd.Context(), dirs)
			if one && errors.Is(err, os.ErrNotExist) {
				return unavailable(fmt.Errorf("no guest in %s (start one with: chrysalis up)", dir))
			}
			if one && err != nil {
				return unavailable(err)
			}
			if err := printStatus(cmd.OutOrStdout(), cmd.ErrOrStderr(), guests, one, asJSON); err != nil {
				return unavailable(err)
			}
			return verdictOf(guests)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "show every guest, as without --name and --dir")
	cmd.Flags().BoolVar(&watch, "watch", false, "show states and numbers every two seconds, until interrupted")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// modelsOf names what a guest serves.
func modelsOf(s config.Service) string { return strings.Join(s.Names(), ", ") }

// look looks at all guests at once. One whose folder does not say how it stands is unknown, and err joins why.
func look(ctx context.Context, dirs []string) (guests []guestState, err error) {
	guests = make([]guestState, len(dirs))
	errs := make([]error, len(dirs))
	var wait sync.WaitGroup
	for i, dir := range dirs {
		wait.Go(func() {
			l, err := guest.Guest{Dir: dir}.Look(ctx)
			s := guestState{Name: nameOf(dir), State: string(l.State), Why: l.Why, Dir: dir, Model: modelsOf(l.Spec.Config.Service), Lines: []string{}}
			if s.Custodian = l.Spec.Config.Service.Custodian; !s.Custodian {
				s.BorrowsFrom = l.Spec.Custodian
			}
			if l.Spec.Port != 0 {
				s.URL, s.Open = guestURL(l.Spec), l.Spec.Open()
			}
			if err != nil {
				s.State, s.Why = unknownState, err.Error()
			}
			for _, line := range l.Lines {
				s.Lines = append(s.Lines, line.String())
			}
			s.look = l
			s.count(guest.Guest{Dir: dir})
			guests[i], errs[i] = s, err
		})
	}
	wait.Wait()
	return guests, errors.Join(errs...)
}

// count takes in the numbers of a guest that runs. One that does not has none: what it said last is of another time.
func (s *guestState) count(g guest.Guest) {
	switch guest.State(s.State) {
	case guest.Serving, guest.Silent, guest.Booting:
	default:
		return
	}
	v, at, found, err := g.Numbers()
	if err != nil && s.Why == "" {
		s.Why = err.Error()
	}
	if err != nil || !found {
		return
	}
	s.counted = &counted{v, max(time.Since(at), 0)}
	s.NumbersAge, s.Numbers = s.counted.age.Seconds(), map[string]uint64{}
	for _, n := range numbers.All() {
		s.Numbers[n.Row().Name] = v[n]
	}
}

// metrics is the guest as metrics has it.
func (s *guestState) metrics(claims *claimsCache) metrics.Guest {
	m := metrics.Guest{Name: s.Name, State: s.State, Model: s.Model, Serving: s.State == string(guest.Serving), Lines: s.look.Lines, Earned: claims.of(s.Dir)}
	if s.counted != nil {
		m.Numbers, m.Age, m.Counted = s.counted.Values, s.counted.age, true
	}
	return m
}

// completeGuests completes names of guests that have a folder here or a unit.
func completeGuests(*cobra.Command, []string, string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	dirs, err := guest.Folders(os.DevNull, guestPlaces...) // one that runs elsewhere has no name here
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, dir := range dirs {
		if name := nameOf(dir); guestName.MatchString(name) && filepath.Base(dir) != "guest" {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// nameOf is what a guest's folder is called.
func nameOf(dir string) string {
	base := filepath.Base(dir)
	return cmp.Or(strings.TrimPrefix(base, "guest-"), base)
}

// verdictOf says which guests do not serve, or how many could not be looked at.
func verdictOf(guests []guestState) error {
	var idle, unknown []string
	for _, g := range guests {
		switch g.State {
		case string(guest.Serving):
		case unknownState:
			unknown = append(unknown, g.Name)
		default:
			idle = append(idle, g.Name+" ("+g.State+")")
		}
	}
	switch {
	case len(idle) > 0:
		return rejected(fmt.Errorf("%d of %d guests do not serve: %s", len(idle), len(guests), strings.Join(idle, ", ")))
	case len(unknown) > 0:
		return unavailable(fmt.Errorf("how %d of %d guests stand is not known: %s", len(unknown), len(guests), strings.Join(unknown, ", ")))
	}
	return nil
}

// printStatus writes one guest with its lines, or a table of all.
func printStatus(out, hints io.Writer, guests []guestState, one, asJSON bool) error {
	switch {
	case asJSON && one:
		return printJSON(out, guests[0])
	case asJSON:
		return printJSON(out, guests)
	case one:
		g := guests[0]
		fmt.Fprintf(out, "%-8s %s\n%-8s %s\n%-8s %s\n", "state", g.State, "url", g.URL, "model", g.serves())
		if g.BorrowsFrom != "" {
			fmt.Fprintf(out, "%-8s borrowed from %s (verify says which loan it is)\n", "secret", printable(g.BorrowsFrom))
		}
		for _, line := range g.Lines {
			fmt.Fprintf(out, "%-8s %s\n", "port", line)
		}
		if g.counted != nil {
			for _, n := range numbers.All() {
				fmt.Fprintf(out, "%-8s %s %d\n", "number", n.Row().Name, g.counted.Values[n])
			}
		}
		if g.Why != "" {
			say(hints, "chrysalis: hint: %s\n", printable(g.Why))
		}
		return nil
	}
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "guest\tstate\turl\tmodel\tfolder")
	for _, g := range guests {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", printable(g.Name), g.State, g.URL, g.serves(), printable(g.Dir))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	say(out, "%s", text.String())
	for _, g := range guests {
		if g.Why != "" {
			say(hints, "chrysalis: hint: %s: %s\n", printable(g.Name), printable(g.Why))
		}
	}
	return nil
}

func guestURL(spec guest.Spec) string { return "https://" + spec.Address() }
