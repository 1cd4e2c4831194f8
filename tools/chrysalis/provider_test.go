package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/toolstree"
)

// systemdAnalyze returns systemd's own reader of units, which starts none: that of the tools tree, or of the machine.
func systemdAnalyze(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	if tree, err := toolstree.Open("../../build/tools-tree"); err == nil {
		return func(args ...string) *exec.Cmd { return tree.Command(t.Context(), "systemd-analyze", args...) }
	} else if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("there is no tools tree, and no systemd-analyze on this machine")
	}
	return func(args ...string) *exec.Cmd { return exec.CommandContext(t.Context(), "systemd-analyze", args...) }
}

// TestServicesVerify: systemd finds nothing to say about the units of proxy and exporter, and gives them an exposure that is low; without
// their hardening it does not. The last word is of systemd-analyze security: 0 is nothing, 10 is all.
func TestServicesVerify(t *testing.T) {
	analyze := systemdAnalyze(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"chrysalis-proxy.service", "chrysalis-exporter.service"} {
		text, err := os.ReadFile("service/" + name)
		if err != nil {
			t.Fatal(err)
		}
		here := strings.Replace(string(text), "=/usr/local/bin/chrysalis ", "="+program+" ", 1)
		open := regexp.MustCompile(`(?m)^(DynamicUser|NoNew|Capab|Protect|Private|Restrict[ANS]|Lock|Memory|System).*\n`).ReplaceAllString(here, "")
		for unit, hardened := range map[string]bool{here: true, open: false} {
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
				t.Fatal(err)
			}
			said, err := analyze("verify", "--man=no", file).CombinedOutput()
			if err != nil || strings.Contains(string(said), name) {
				t.Errorf("%s: systemd-analyze verify says %s (%v)", name, said, err)
			}
			const threshold = "--threshold=30" // of 100
			said, err = analyze("security", "--offline=true", "--no-pager", threshold, file).CombinedOutput()
			if (err == nil) != hardened || !strings.Contains(string(said), "Overall exposure level for "+name) {
				t.Errorf("%s, hardened %t: systemd-analyze security says %v: %s", name, hardened, err, said[max(0, len(said)-200):])
			}
		}
	}
}

// TestUnitsVerify: systemd itself reads the units and finds nothing to say, and finds what is wrong with one that was spoiled.
func TestUnitsVerify(t *testing.T) {
	analyze := systemdAnalyze(t)
	verify := func(files ...string) *exec.Cmd { return analyze(append([]string{"verify", "--man=no"}, files...)...) }
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(s string) string { return strings.Replace(s, "KillMode=mixed", "KillMode=gentle", 1) }
	for name, tt := range map[string]struct {
		user bool
		args []string
		edit func(string) string
		want string
	}{
		"of a machine":       {args: []string{"--listen", "0.0.0.0:443", "--config", "/srv/100% my $config.json"}},
		"of a user":          {user: true},
		"one that is broken": {edit: spoil, want: "gentle"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			u := unit{name: "box", program: program, state: "/var/lib/chrysalis/box", drain: time.Minute, user: tt.user}
			if err := u.take(tt.args); err != nil {
				t.Fatal(err)
			}
			var paths []string
			for _, f := range u.files() {
				if tt.edit != nil {
					f.text = tt.edit(f.text)
				}
				paths = append(paths, filepath.Join(dir, f.name))
				if err := os.WriteFile(paths[len(paths)-1], []byte(f.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := verify(paths...).CombinedOutput()
			said := strings.Join(slices.DeleteFunc(strings.Split(string(out), "\n"), func(line string) bool { return !strings.Contains(line, "chrysalis-box") }), "\n")
			if tt.want == "" && (err != nil || said != "") || tt.want != "" && !strings.Contains(said, tt.want) {
				t.Errorf("systemd-analyze says %q (%v), want %q\nall of it: %s", said, err, tt.want, out)
			}
		})
	}
}

// TestCommand: a word comes out of systemd's reading as it was: systemd.service(5), "Command lines", and systemd.syntax(7).
func TestCommand(t *testing.T) {
	got := command([]string{"/x", "plain", "a b", `quote"d`, `back\slash`, "$HOME", "100%", "it's", ""})
	want := strings.Join([]string{"/x", "plain", `"a b"`, `"quote\"d"`, `"back\\slash"`, "$$HOME", "100%%", `"it's"`, `""`}, " \\\n  ")
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestReadable: what the unit's user can't read is refused by name, whichever folder above it is closed.
func TestReadable(t *testing.T) {
	dir, err := os.MkdirTemp("", "readable")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "model.img")
	if err := errors.Join(os.WriteFile(file, nil, 0o644), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	u := unit{read: []string{file}}
	if err := u.readable(); err != nil {
		t.Errorf("a file for all: %v", err)
	}
	for _, closed := range []struct {
		path string
		mode os.FileMode
	}{{file, 0o640}, {dir, 0o750}} {
		if err := os.Chmod(closed.path, closed.mode); err != nil {
			t.Fatal(err)
		}
		if err := u.readable(); err == nil || !strings.Contains(err.Error(), closed.path+" has mode") {
			t.Errorf("%s closed: got error %v", closed.path, err)
		}
		if err := os.Chmod(closed.path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNotify: systemd hears what it is told, and nobody is held up where it does not listen; a guest that is gone is stopped already.
func TestNotify(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	notify("READY=1\nSTATUS=serving")
	buffer := make([]byte, 100)
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Read(buffer); err != nil || string(buffer[:n]) != "READY=1\nSTATUS=serving" {
		t.Errorf("systemd hears %q (error %v)", buffer[:n], err)
	}
	l.Close()
	notify("nobody listens any more") // and that is no error
	cmd := newUp()
	cmd.SetErr(os.Stderr)
	g := guest.Guest{Dir: t.TempDir()}
	if err := errors.Join(stopGuest(context.Background(), cmd, g, time.Second), g.Stop(context.Background())); err != nil {
		t.Errorf("stopping a guest that is gone: %v", err)
	}
}
