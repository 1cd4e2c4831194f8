package main

import (
	"io"
	"os"

	"github.com/charmbracelet/x/term"
	"github.com/schollz/progressbar/v3"
)

// isTerminal reports whether w is a terminal: only there progress and colour are shown.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}

// byteProgress returns a function that shows how far each stage of a long piece of work is, on terminals alone, and one
// that clears the line at its end.
func byteProgress(w io.Writer) (show func(stage string, done, total int64), end func()) {
	return progressOf(w, true)
}

// countProgress is byteProgress for work that is no bytes.
func countProgress(w io.Writer) (show func(stage string, done, total int64), end func()) {
	return progressOf(w, false)
}

func progressOf(w io.Writer, bytes bool) (show func(stage string, done, total int64), end func()) {
	if !isTerminal(w) {
		return func(string, int64, int64) {}, func() {}
	}
	var bar *progressbar.ProgressBar
	var current string
	end = func() {
		if bar != nil {
			_ = bar.Clear()
		}
	}
	return func(stage string, done, total int64) {
		if stage != current {
			end()
			current = stage
			bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(stage),
				progressbar.OptionShowBytes(bytes), progressbar.OptionClearOnFinish())
		}
		_ = bar.Set64(done)
	}, end
}
