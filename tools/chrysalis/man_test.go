package main

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManPages: every command has a page, with each of its flags, and a formatter has nothing to say of it.
func TestManPages(t *testing.T) {
	root := newRoot()
	pages := manPages(root)
	commands := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		commands++
		page := pages[manName(c)+".1"]
		if !strings.Contains(page, ".SH SYNOPSIS\n.B "+roff(c.CommandPath())) || !strings.Contains(page, roff(c.Short)) {
			t.Errorf("%s: its page is %q", c.CommandPath(), page)
		}
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(page, roff("--"+f.Name)+`\fR`) {
				t.Errorf("%s: its page lacks --%s", c.CommandPath(), f.Name)
			}
		})
		if home := regexp.MustCompile(`(?m)/root/|/home/\w`).FindString(page); home != "" {
			t.Errorf("%s: its page speaks of this machine: %q", c.CommandPath(), home)
		}
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, ".") && !regexp.MustCompile(`^\.(TH|SH|B|BR|PP|TP|nf|fi)\b`).MatchString(line) || strings.HasPrefix(line, "'") {
				t.Errorf("%s: line %q is a request to the formatter", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if len(pages) != commands || commands < 40 {
		t.Errorf("%d pages for %d commands", len(pages), commands)
	}
	if again := manPages(newRoot()); again["chrysalis-up.1"] != pages["chrysalis-up.1"] {
		t.Error("the same program writes another page")
	}
	formatter, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff here to format the pages")
	}
	for name, page := range pages {
		cmd := exec.CommandContext(t.Context(), formatter, "-man", "-Tutf8", "-ww", "-z")
		cmd.Stdin = strings.NewReader(page)
		if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("%s: groff says %q (%v)", name, said, err)
		}
	}
}

func TestRoff(t *testing.T) {
	got := roff("…a-b \\n 'x'\n.TH\n  .B\n~^`")
	if want := "\\[u2026]a\\-b \\en \\(aqx\\(aq\n\\&.TH\n\\&  .B\n\\(ti\\(ha\\(ga"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
