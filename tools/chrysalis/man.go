package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newMan() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "man DIR", Short: "Write a manual page for each command", Args: cobra.ExactArgs(1),
		Long:    "Writes chrysalis.1 and a page for each command into a folder, out of the same tables as --help. The same program writes the same bytes.",
		Example: "  chrysalis man ~/.local/share/man/man1 && man chrysalis-verify",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return unavailable(err)
			}
			names := []string{}
			for name, text := range manPages(cmd.Root()) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return unavailable(err)
				}
				names = append(names, name)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"pages": len(names)})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: %d pages are in %s\n", len(names), args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// manPages returns the pages of a command and of those below it, by the names of their files.
func manPages(root *cobra.Command) map[string]string {
	pages := map[string]string{}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" || strings.HasPrefix(c.Name(), "__") {
			return
		}
		pages[manName(c)+".1"] = manPage(c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return pages
}

func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage is a command's page in the macros of man(7).
func manPage(c *cobra.Command) string {
	var b strings.Builder
	section := func(name string) { b.WriteString(".SH " + name + "\n") }
	b.WriteString(".TH " + strings.ToUpper(roff(manName(c))) + " 1\n")
	section("NAME")
	b.WriteString(roff(manName(c)) + ` \- ` + roff(c.Short) + "\n")
	section("SYNOPSIS")
	b.WriteString(".B " + roff(c.UseLine()) + "\n")
	section("DESCRIPTION")
	for i, paragraph := range strings.Split(strings.TrimSpace(firstOf(c.Long, c.Short+".")), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		b.WriteString(roff(strings.TrimSpace(paragraph)) + "\n")
	}
	subs := false
	for _, sub := range c.Commands() {
		if sub.Hidden || sub.Name() == "help" || sub.Name() == "completion" {
			continue
		}
		if !subs {
			section("COMMANDS")
		}
		subs = true
		b.WriteString(".TP\n.BR " + roff(manName(sub)) + " (1)\n" + roff(sub.Short) + "\n")
	}
	options := false
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if !options {
			section("OPTIONS")
		}
		options = true
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			value = ` \fI` + roff(value) + `\fR`
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		b.WriteString(".TP\n" + `\fB` + roff(name) + `\fR` + value + "\n" + roff(usage) + "\n")
	})
	if c.Example != "" {
		section("EXAMPLES")
		b.WriteString(".nf\n" + roff(c.Example) + "\n.fi\n")
	}
	section("EXIT STATUS")
	b.WriteString("0: accepted. 1: rejected. 2: usage. 3: could not check.\n")
	if c.HasParent() {
		section("SEE ALSO")
		b.WriteString(".BR " + roff(manName(c.Parent())) + " (1)\n")
	}
	return b.String()
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// roff escapes text: groff_char(7), and a control character at the beginning of a line.
func roff(text string) string {
	lines := strings.Split(strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimLeft(line, " "), ".") {
			lines[i] = `\&` + line
		}
	}
	var b strings.Builder
	for _, r := range strings.Join(lines, "\n") {
		if r > '~' {
			fmt.Fprintf(&b, `\[u%04X]`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
