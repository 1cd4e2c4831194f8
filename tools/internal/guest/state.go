package guest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"chrysalis/init/status"
	"chrysalis/tools/internal/qemu"
)

// State is what a guest does, as its host sees it.
type State string

// The states. A guest that ended has its code behind the word: "ended: volume-corrupt".
const (
	Booting State = "booting"
	Serving State = "serving" // it has said so, and takes connections
	Silent  State = "silent"  // it has said that it serves, and takes none
	Stopped State = "stopped" // without a word
	ended         = "ended: "
)

// State returns what the guest does as its status port and QEMU's process say it, and the lines of the port. Whether a guest that says that
// it serves does so is for Look to find out.
func (g Guest) State() (state State, lines []status.Line, err error) {
	running := g.Running()
	if lines, err = g.lines(); err != nil {
		return "", nil, err
	}
	state = Booting
	var code status.Code
	for _, line := range lines {
		if line.Serving {
			state = Serving
		}
		if line.Code != 0 {
			code = line.Code
		}
	}
	switch {
	case code != 0:
		return State(ended + code.String()), lines, nil
	case !running:
		return Stopped, lines, nil
	}
	return state, lines, nil
}

// Look is how a guest stands.
type Look struct {
	State State
	Why   string // of a state other than Serving, as far as it is known
	Lines []status.Line
	Spec  Spec
}

// How long a look at a guest takes at most, whatever the guest does.
const (
	greetLimit  = 4 * time.Second // for a handshake, which an emulated guest at work needs some of
	sayLimit    = 500 * time.Millisecond
	LookSeconds = 5 // both, rounded up
)

// Look returns how the guest stands, after five seconds at most: one that says that it serves is greeted.
func (g Guest) Look(ctx context.Context) (l Look, err error) {
	if l.Spec, err = g.Spec(); err != nil {
		return l, err
	}
	if l.State, l.Lines, err = g.State(); err != nil {
		return l, err
	}
	if n := len(l.Lines); n > 0 && l.Lines[n-1].Code != 0 {
		l.Why = l.Lines[n-1].Code.Hint()
	}
	if l.State != Serving {
		return l, nil
	}
	greeting, cancel := context.WithTimeout(ctx, greetLimit)
	defer cancel()
	switch _, err := l.Spec.greet(greeting); {
	case err == nil:
	case errors.Is(err, syscall.ECONNREFUSED):
		l.State, l.Why = Silent, fmt.Sprintf("nobody listens on %s: it is being stopped, or QEMU lost the port", l.Spec.Address())
	case greeting.Err() != nil:
		l.State, l.Why = Silent, fmt.Sprintf("%s says nothing for %s; %s", l.Spec.Address(), greetLimit, qemu.Says(sayLimit, g.Path(monitorFile)))
	default:
		l.State, l.Why = Silent, err.Error()
	}
	return l, nil
}

// greet makes a TLS connection to the guest and returns its certificate, which proves nothing here.
func (s Spec) greet(ctx context.Context) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(ctx, "tcp", s.Address())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// Folders returns the folders of this machine's guests, in order: of those that match a pattern the ones from which a guest was started
// once, and those of guests that run, wherever they are, as far as this user sees their processes below proc.
func Folders(proc string, patterns ...string) ([]string, error) {
	var all []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, dir := range found {
			if dir, err = filepath.Abs(dir); err != nil {
				return nil, err
			}
			all = append(all, dir)
		}
	}
	processes, err := filepath.Glob(filepath.Join(proc, "[0-9]*/cmdline"))
	if err != nil {
		return nil, err
	}
	for _, file := range processes {
		line, _ := os.ReadFile(file) // it may have ended meanwhile
		words := strings.Split(string(line), "\x00")
		if at := slices.Index(words, "-pidfile"); at >= 0 && at+1 < len(words) && filepath.IsAbs(words[at+1]) {
			all = append(all, filepath.Dir(words[at+1]))
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, specFile))
		return err != nil
	}), nil
}
