// Package platform is what hardware does for a guest: it measures, signs, and gives what a secret is sealed with. Each kind of hardware has a room of its own
// below this folder, and the rest of init knows only the seam.
//
//	p, err := platform.Open(platform.Paths{Dev: "/dev", Sys: "/sys", Proc: "/proc"})
//
// A room promises what its hardware does and nothing for the host that runs it: see the rooms.
package platform

import (
	"errors"
	"fmt"
	"strings"

	"chrysalis/attest/evidence"
	"chrysalis/init/internal/platform/sevsnp"
	"chrysalis/init/internal/platform/tdx"
	"chrysalis/init/internal/platform/vtpm"
	"chrysalis/init/internal/sealing"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
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
	// Launched compares the measured config with the hash of a config that the machine was launched with, where the hardware
	// has a place for one. None given is no error.
	Launched(measured []byte) error
	// UseHost takes what the host document says of quotes. None of it is believed.
	UseHost(config.Host) error
	// Quote has the hardware sign report data, and returns the parts of the evidence that are the platform's: its name, the
	// quote, what stands beside it, and stapled collateral.
	Quote(reportData [64]byte) (evidence.Evidence, error)
}

// Public is a platform that can take COCOON's public identity: registers that no config changes. It is taken once, before anything is
// recorded; what is recorded then extends nothing, and the statement's log head and a key of the recorder's are all that bind the log.
type Public interface {
	TakePublicIdentity() error
}

// ErrNotPublic says that the config asks for a public identity that the platform can't take.
var ErrNotPublic = errors.New("identity.cocoon is a TD's, and this platform is none")

// Paths is where devices and their files are; tests point it at a folder of their own.
type Paths struct{ Dev, Sys, Proc string }

// kinds are the platforms that there are, in the order in which they are looked for: a machine is the first that is present.
// Hardware that the host can't make up comes before what it can, so that a host's TPM beside it changes nothing.
var kinds = []struct {
	name    string
	present func(Paths) bool
	open    func(Paths) (Platform, error)
}{
	{"tdx", func(p Paths) bool { return tdx.Present(p.Dev, p.Proc) }, func(p Paths) (Platform, error) { return tdx.Open(p.Dev, p.Sys) }},
	{"sev-snp", func(p Paths) bool { return sevsnp.Present(p.Dev, p.Sys) }, func(p Paths) (Platform, error) { return sevsnp.Open(p.Dev, p.Sys) }},
	{"vtpm", func(p Paths) bool { return vtpm.Present(p.Dev) }, func(p Paths) (Platform, error) { return vtpm.Open(p.Dev, p.Sys) }},
}

// Fits says whether a way of sealing is to be had on the platform; an error is sealing.ErrUnfit, with what is to be had.
func Fits(p Platform, s config.Sealing) error {
	if s == config.SealCustodian {
		return nil // another guest has what the secret is kept with
	}
	_, err := Vault(p, s, register.Digest{}, nil)
	return err
}

// Vault returns the way of sealing that an identity names. store is used by ways that keep a record on the journal's disk:
// see InStore.
func Vault(p Platform, s config.Sealing, identity register.Digest, store sealing.Store) (sealing.Vault, error) {
	to := []config.Sealing{config.SealNothing}
	if s == config.SealNothing {
		return sealing.Ephemeral{}, nil
	}
	switch p := p.(type) {
	case sealing.Vault: // a TPM seals by itself
		if s == config.SealTPM {
			return p, nil
		}
		to = append(to, config.SealTPM)
	case sealing.Deriver:
		if s == config.SealSNP {
			return sealing.NewDerived(p, identity, store), nil
		}
		to = append(to, config.SealSNP)
	}
	return nil, fmt.Errorf("%w: it is %q, want one of %q", sealing.ErrUnfit, s, to)
}

// Own returns the way in which a custodian keeps its own secret: what its hardware has. On a TD that is nothing: the secret lives as long
// as the custodian runs.
func Own(p Platform) config.Sealing {
	switch p.(type) {
	case sealing.Vault:
		return config.SealTPM
	case sealing.Deriver:
		return config.SealSNP
	}
	return config.SealNothing
}

// InStore reports whether a way of sealing keeps its record at the beginning of the journal's disk.
func InStore(s config.Sealing) bool { return s == config.SealSNP }

// Open opens the platform under this machine.
func Open(p Paths) (Platform, error) {
	var names []string
	for _, k := range kinds {
		if !k.present(p) {
			names = append(names, k.name)
			continue
		}
		opened, err := k.open(p)
		if err != nil {
			return nil, fmt.Errorf("opening platform %s: %w", k.name, err)
		}
		return opened, nil
	}
	return nil, fmt.Errorf("opening platform: none of those there are is present: %s", strings.Join(names, ", "))
}
