package main

import (
	"errors"
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
		own := c.Example == ""
		for _, line := range strings.Split(strings.ReplaceAll(c.Example, "\\\n", ""), "\n") {
			own = tryExample(t, c, line) || own // another verb may come before
		}
		if !own {
			t.Errorf("%s: no example of its own", c.CommandPath())
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

// tryExample takes an example apart as its verb would: its flags exist, none is missing, and so with its arguments. It reports
// whether the example is one of the verb whose help it stands in.
func tryExample(t *testing.T, verb *cobra.Command, line string) (own bool) {
	t.Helper()
	at := strings.Index(line, "chrysalis ") // behind sudo, settings, another command
	if at < 0 {
		t.Errorf("%s: example %q does not run chrysalis", verb.CommandPath(), line)
		return true
	}
	text := line[at:]
	for _, end := range []string{" #", " && ", " > "} {
		text, _, _ = strings.Cut(text, end)
	}
	var words []string
	quote := rune(0)
	for _, part := range strings.FieldsFunc(text, func(r rune) bool {
		switch {
		case r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		}
		return r == ' ' && quote == 0
	}) {
		words = append(words, strings.Trim(part, `"'`))
	}
	found, rest, err := newRoot().Find(words[1:])
	for _, check := range []func() error{
		func() error { return err }, func() error { return found.ParseFlags(rest) }, func() error { return found.ValidateRequiredFlags() },
		func() error { return found.ValidateArgs(found.Flags().Args()) },
	} {
		if err := check(); err != nil {
			t.Errorf("%s: example %q: %v", verb.CommandPath(), line, err)
			return true
		}
	}
	return found.CommandPath() == verb.CommandPath()
}

// TestLinuxVerbs: on another system the verbs that need Linux say so by name, whatever they are told, and the others are what they were.
func TestLinuxVerbs(t *testing.T) {
	for _, name := range linuxVerbs {
		root := newRoot()
		wantLinux(root, "darwin")
		root.SetArgs(append(strings.Fields(name), "--dir", "x", "--manifest", "y"))
		var exit exitError
		if err := root.Execute(); !errors.As(err, &exit) || exit.code != exitUnavailable ||
			!strings.Contains(err.Error(), "chrysalis "+name+" needs Linux, and this is darwin") {
			t.Errorf("%s: got error %v, want one that names it and both systems", name, err)
		}
	}
	for _, name := range []string{"verify", "chat", "proxy", "policy", "claim list", "appraise tdx"} {
		root := newRoot()
		wantLinux(root, "windows")
		root.SetArgs(append(strings.Fields(name), "--nonsense"))
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), "unknown flag") {
			t.Errorf("%s: got error %v, want that of its flag", name, err)
		}
	}
}
