package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryVerbExplainsItself: a short line, an example, and JSON for machines wherever something is printed.
func TestEveryVerbExplainsItself(t *testing.T) {
	silent := map[string]bool{"chrysalis down": true, "chrysalis image store": true, "chrysalis image tools": true}
	leaves, groups := 0, 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s: no short help", c.CommandPath())
		}
		if c.HasSubCommands() {
			for _, sub := range c.Commands() {
				walk(sub)
			}
			if groups++; c.HasParent() {
				for _, more := range [][]string{nil, {"nothing"}} {
					if got := run(append(strings.Fields(c.CommandPath())[1:], more...)); got != exitUsage {
						t.Errorf("%s %q: exit code is %d, want %d", c.CommandPath(), more, got, exitUsage)
					}
				}
			}
			return
		}
		leaves++
		if c.Example == "" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		if c.Flags().Lookup("json") == nil && !silent[c.CommandPath()] {
			t.Errorf("%s: no --json", c.CommandPath())
		}
	}
	walk(newRoot())
	if groups < 5 {
		t.Fatalf("found %d groups of verbs, want all of them", groups)
	}
	if leaves < 10 {
		t.Fatalf("found %d verbs, want all of them", leaves)
	}
}
