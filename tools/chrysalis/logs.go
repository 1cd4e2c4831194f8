package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/guest"
)

// maxLogBytes is how much of the end of each log is shown.
const maxLogBytes = 1 << 20

// guestLogs are what lies in a guest's folder, by who wrote it: the guest itself has no log that leaves it but its words.
var guestLogs = []struct{ who, file string }{
	{"guest", guest.StatusFile}, {"hardware", "double.log"}, {"tpm", "tpm/swtpm.log"}, {"qemu", "qemu.log"},
}

// logLine is a line for machines.
type logLine struct {
	From string `json:"from"`
	Line string `json:"line"`
}

func newLogs() *cobra.Command {
	var flags guestFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "logs", Short: "Show what a guest, its QEMU and its TPM have said since its last start", Args: cobra.NoArgs,
		Long: "Prints the words of a guest's status port, and what the programs around it have said of themselves on this machine: the software that\n" +
			"plays a confidential machine, the TPM, QEMU. What the kernel and the services inside say stays inside. A guest of provider install has\n" +
			"more in systemd's journal: journalctl -u chrysalis-NAME.",
		Example: "  chrysalis logs\n  chrysalis logs --name box --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := flags.folder()
			if err != nil {
				return err
			}
			lines := []logLine{}
			found := false
			for _, l := range guestLogs {
				text, err := lastOf(filepath.Join(dir, l.file))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return unavailable(err)
				}
				found = true
				for line := range strings.Lines(text) {
					lines = append(lines, logLine{l.who, printable(strings.TrimRight(line, "\r\n"))})
				}
			}
			if !found {
				return unavailable(fmt.Errorf("no guest in %s has said anything (start one with: chrysalis up)", dir))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), lines)
			}
			for _, l := range lines {
				say(cmd.OutOrStdout(), "%-9s %s\n", l.From, l.Line)
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// lastOf reads the end of a file, from the beginning of a line where it is long.
func lastOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	from := max(0, info.Size()-maxLogBytes)
	data, err := io.ReadAll(io.NewSectionReader(f, from, maxLogBytes))
	text := string(data)
	if from > 0 {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text, err
}
