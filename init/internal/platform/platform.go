// Package platform is what hardware does for a guest: it measures, signs and seals. Each kind of hardware has a room of its own
// below this folder, and the rest of init knows only the seam.
//
//	p, err := platform.Open(platform.Paths{Dev: "/dev", Sys: "/sys"})
//
// A room promises what its hardware does and nothing for the host that runs it: see the rooms.
package platform

import (
	"fmt"
	"strings"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/platform/vtpm"
	"chrysalis/measure/eventlog"
	"chrysalis/runtime/secret"
)

// Platform is the hardware under a guest. It is safe for concurrent use: a quote that takes its time holds up no event.
type Platform interface {
	// Registers says which registers the runtime log is kept in.
	Registers() eventlog.Registers
	// Extend extends the record's register with its digest. Where there is no such register it does nothing: the log's head in
	// the statement is then all that binds the log.
	Extend(eventlog.Record) error
	// BootLog returns the firmware's log, which is evidence and no truth; nil where there is none.
	BootLog() ([]byte, error)
	// Quote has the hardware sign report data, and returns the parts of the evidence that are the platform's: its name, the
	// quote, what stands beside it, and stapled collateral.
	Quote(reportData [64]byte) (evidence.Evidence, error)
	// Secret opens the secret that is sealed to the image and to what the registers say of the identity, and makes one when there
	// is none. boots counts those that CountBoot has counted since it was made. A secret that is there and stays sealed is
	// secret.ErrSealed.
	Secret() (s *secret.Secret, boots uint64, err error)
	// CountBoot adds one to the count of boots.
	CountBoot() error
}

// Paths is where devices and their files are; tests point it at a folder of their own.
type Paths struct{ Dev, Sys string }

// kinds are the platforms that there are, in the order in which they are looked for: a machine is the first that is present.
// Hardware that the host can't make up comes before what it can, so that a host's TPM beside it changes nothing.
var kinds = []struct {
	name    string
	present func(dev string) bool
	open    func(dev, sys string) (Platform, error)
}{
	{"vtpm", vtpm.Present, func(dev, sys string) (Platform, error) { return vtpm.Open(dev, sys) }},
}

// Open opens the platform under this machine.
func Open(p Paths) (Platform, error) {
	var names []string
	for _, k := range kinds {
		if !k.present(p.Dev) {
			names = append(names, k.name)
			continue
		}
		opened, err := k.open(p.Dev, p.Sys)
		if err != nil {
			return nil, fmt.Errorf("opening platform %s: %w", k.name, err)
		}
		return opened, nil
	}
	return nil, fmt.Errorf("opening platform: none of those there are is present: %s", strings.Join(names, ", "))
}
