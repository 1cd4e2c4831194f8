package main

import (
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryVerbExplainsItself: a short line, an example, and JSON for machines wherever something is printed.
func TestEveryVerbExplainsItself(t *testing.T) {
	silent := map[string]bool{"chrysalis down": true, "chrysalis image store": true, "chrysalis image tools": true}
	leaves := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s: no short help", c.CommandPath())
		}
		if c.HasSubCommands() {
			for _, sub := range c.Commands() {
				walk(sub)
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
	if leaves < 10 {
		t.Fatalf("found %d verbs, want all of them", leaves)
	}
}
