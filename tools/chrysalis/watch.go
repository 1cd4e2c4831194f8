package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"

	"chrysalis/runtime/numbers"
	"chrysalis/tools/internal/guest"
)

// watchEvery is the time between two looks.
const watchEvery = 2 * time.Second

// watchGuests shows the guests until ctx ends: in place on a terminal, one table after the other elsewhere. Guests that come are shown too,
// unless one was asked for.
func watchGuests(ctx context.Context, w io.Writer, proc string, dirs []string, one bool) error {
	var claims claimsCache
	home := ""
	if isTerminal(w) {
		home = "\x1b[H\x1b[2J"
	}
	for {
		if !one {
			if found, err := guest.Folders(proc, guestPlaces...); err == nil {
				dirs = found
			}
		}
		guests, _ := look(ctx, dirs) // one that is unknown is shown as that
		if ctx.Err() != nil {
			return nil
		}
		var screen bytes.Buffer
		screen.WriteString(home)
		writeDashboard(&screen, guests, &claims, time.Now())
		if _, err := w.Write(screen.Bytes()); err != nil {
			return unavailable(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

// writeDashboard writes a line for each guest, and why those that do not serve do not.
func writeDashboard(w io.Writer, guests []guestState, claims *claimsCache, now time.Time) {
	fmt.Fprintf(w, "%s, %d guests\n", now.Format(time.DateTime), len(guests))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "guest\tstate\tcomputing\twaiting\tasked\tanswered\tcut\trefused\ttokens in\tout\tcontracts\tkeys end in\tearned TON\t")
	for _, g := range guests {
		m := g.metrics(claims)
		earned := "?"
		if m.Earned != nil {
			earned = fmt.Sprintf("%.3f", float64(m.Earned.Nanoton)/1e9)
		}
		if !m.Counted {
			fmt.Fprintf(table, "%s\t%s\t\t\t\t\t\t\t\t\t\t\t%s\t\n", printable(g.Name), g.State, earned)
			continue
		}
		v := m.Numbers
		refused := v[numbers.RefusedInvalid] + v[numbers.RefusedBusy] + v[numbers.RefusedFull] + v[numbers.RefusedEngine] + v[numbers.RefusedUnrecorded]
		full := "?"
		if had, left := float64(v[numbers.Contracts]), float64(v[numbers.ContractsLeft]); had+left > 0 {
			full = fmt.Sprintf("%.0f%%", math.Ceil(100*had/(had+left)))
		}
		ends := "?"
		if v[numbers.KeyEnds] > 0 {
			ends = time.Unix(int64(min(v[numbers.KeyEnds], math.MaxInt32*4)), 0).Sub(now).Truncate(time.Second).String()
		}
		fmt.Fprintf(table, "%s\t%s\t%d of %d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", printable(g.Name), g.State, v[numbers.Computing], v[numbers.Places],
			v[numbers.Waiting], v[numbers.Asked], v[numbers.Answered], v[numbers.Cut], refused, v[numbers.PromptTokens], v[numbers.CompletionTokens], full, ends, earned)
	}
	table.Flush()
	for _, g := range guests {
		if g.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", printable(g.Name), printable(g.Why))
		}
	}
}
