package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
)

// columns is how wide the terminal behind w is; 0 where there is none: lines that go into a pipe or a file stay whole.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(f.Fd()) {
		return 0
	}
	width, _, err := term.GetSize(f.Fd())
	if err != nil {
		return 0
	}
	return width
}

// helpColumns is how wide help is where no terminal says it.
const helpColumns = 80

// wide is from how many columns on tables have all that they can show.
const wide = 120

// say writes text, folded where it goes to a terminal.
func say(w io.Writer, format string, args ...any) {
	io.WriteString(w, fold(fmt.Sprintf(format, args...), columns(w)))
}

// fold breaks lines that are wider than that many columns at their spaces. What follows stands below the value of its line, behind the
// last gap of two spaces in its first half. Words are not broken: who copies a key gets all of it. 0 columns fold nothing.
func fold(text string, columns int) string {
	if columns <= 0 {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		body := strings.TrimRight(line, "\n")
		end := line[len(body):]
		if utf8.RuneCountInString(body) <= columns {
			b.WriteString(line)
			continue
		}
		hang := hangOf(body, columns)
		indent, width := strings.Repeat(" ", hang), 0
		for i, word := range strings.Split(strings.TrimRight(body, " "), " ") {
			n := utf8.RuneCountInString(word)
			switch {
			case i == 0:
			case width > hang && word != "" && width+1+n > columns:
				b.WriteString("\n" + indent)
				width = hang
			default:
				b.WriteByte(' ')
				width++
			}
			b.WriteString(word)
			width += n
		}
		b.WriteString(end)
	}
	return b.String()
}

var gap = regexp.MustCompile(`  +`)

// hangOf is where the lines that follow a broken one begin.
func hangOf(line string, columns int) int {
	leading := len(line) - len(strings.TrimLeft(line, " "))
	hang := leading
	for _, at := range gap.FindAllStringIndex(line, -1) {
		if n := utf8.RuneCountInString(line[:at[1]]); at[0] > 0 && n <= columns/2 {
			hang = n
		}
	}
	return hang
}

// foldHelp has a command's help fit. Paragraphs are filled anew; examples stay as they are, for whoever copies them.
func foldHelp(root *cobra.Command) {
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		out := cmd.OutOrStdout()
		width := columns(out)
		if width == 0 {
			width = helpColumns
		}
		var b bytes.Buffer
		cmd.SetOut(&b)
		help(cmd, args)
		cmd.SetOut(out)
		text, paragraph, examples := b.String(), "", false
		flush := func() {
			io.WriteString(out, fold(paragraph, width))
			paragraph = ""
		}
		for line := range strings.Lines(text) {
			plain := line != "\n" && line[0] != ' '
			if plain && strings.HasSuffix(line, ":\n") {
				examples = line == "Examples:\n"
			}
			switch {
			case plain && paragraph != "":
				paragraph = strings.TrimSuffix(paragraph, "\n") + " " + line
			case plain:
				paragraph = line
			default:
				flush()
				if !examples {
					line = fold(line, width)
				}
				io.WriteString(out, line)
			}
		}
		flush()
	})
}
