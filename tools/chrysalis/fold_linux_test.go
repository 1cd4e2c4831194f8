package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// onTerminal runs the command line in dir with its answer and its notes on a terminal of that many columns.
func onTerminal(t *testing.T, dir string, columns int, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		err = unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := program(t, dir, args...)
	cmd.Stdout, cmd.Stderr = terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	said, err := io.ReadAll(master) // EIO: nobody has the terminal open any more
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(said)
}

// program is this command line as a process.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Args = append([]string{"chrysalis"}, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TERM=xterm-256color", "NO_COLOR=", "HOME="+dir)
	return cmd
}

// colour is a sequence that changes a terminal's colours or weight.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestOutputFits: what verbs usually say fits into 80 columns of a terminal, word for word; in a pipe it has whole lines, and neither colour
// nor what moves a cursor.
func TestOutputFits(t *testing.T) {
	dir := t.TempDir()
	document, err := os.ReadFile("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	guest := newSoftwareGuest(t, document)
	if err := errors.Join(guest.files(dir), writeClaims(dir), os.MkdirAll(filepath.Join(dir, "release"), 0o755)); err != nil {
		t.Fatal(err)
	}
	threeKept(t, guest, dir)
	goodRelease().write(t, filepath.Join(dir, "release"))
	remote := []string{guest.URL, "--policy", "policy.json", "--roots", "roots.pem"}
	for _, tt := range []struct {
		name string
		args []string
		want string // is there, on the terminal and in the pipe
	}{
		{"verify", append([]string{"verify"}, remote...), "accepted: software on vtpm"},
		{"verify --all", append([]string{"verify", "--all"}, remote...), "quote-signature"},
		{"verify, refused", []string{"verify", guest.URL, "--policy", "other-release.json", "--roots", "roots.pem"}, "rejected"},
		{"claim list", []string{"claim", "list", "--dir", "earned"}, "contract"},
		{"status", []string{"status"}, ""},
		{"doctor", []string{"doctor"}, "memory"},
		{"receipt list", []string{"receipt", "list", "receipts"}, "kept"},
		{"audit", []string{"audit", "release", "--without", "rebuild", "--without", "advisories", "-o"}, "Not checked:"},
		{"help", []string{"--help"}, "Available Commands:"},
		{"help of a verb", []string{"up", "--help"}, "Flags:"},
		{"a wrong flag", []string{"verify", "--nothing"}, "hint: see chrysalis verify --help"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := func(out string) []string {
				if tt.name == "audit" {
					return append(tt.args[:len(tt.args):len(tt.args)], out)
				}
				return tt.args
			}
			said := onTerminal(t, dir, 80, args("out-terminal")...)
			plain := colour.ReplaceAllString(said, "")
			if before, rest, ok := strings.Cut(plain, "Examples:\r\n"); ok { // to be copied
				_, after, _ := strings.Cut(rest, "\r\n\r\n")
				plain = before + after
			}
			if lines := tooWide(plain, 80); len(lines) > 0 || strings.Contains(strings.ReplaceAll(plain, "\r\n", ""), "\x1b") {
				t.Errorf("on a terminal: wider than 80 columns, or more than colour: %q", lines)
			}
			var b bytes.Buffer
			cmd := program(t, dir, args("out-pipe")...)
			cmd.Stdout, cmd.Stderr = &b, &b
			var exit *exec.ExitError
			if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if text := b.String(); strings.ContainsAny(text, "\x1b\r") {
				t.Errorf("in a pipe: %q has colour, or moves a cursor", text)
			} else if !strings.Contains(text, tt.want) || !strings.Contains(strings.Join(strings.Fields(plain), " "), tt.want) {
				t.Errorf("got on a terminal %q and in a pipe %q, want %q in both", plain, text, tt.want)
			}
		})
	}
}
