// Package sealing keeps a guest's secret from one boot to the next, in the way that its config names. What a way promises, and
// against whom, is in SEALING.md beside this file.
package sealing

import (
	"errors"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// Vault is a way of sealing on the hardware under this guest. It is used by one caller, once in a boot.
type Vault interface {
	// Secret opens the secret that is sealed to the image and the identity, and makes one when there is none. A secret that is there
	// and stays sealed is secret.ErrSealed.
	Secret() (Taken, error)
	// CountBoot adds one to the count of boots.
	CountBoot() error
}

// Taken is a secret out of its vault.
type Taken struct {
	Secret *secret.Secret
	Boots  uint64            // that CountBoot has counted since it was made
	Held   []register.Digest // measurements of the images that have held it before this one, the first at first
	Loan   eventlog.Loan     // of a custodian's; zero of every other way
	Came   role.Coming       // how it came to a custodian from another; zero of every other secret
}

// Keeper is a vault that can keep a secret which was made elsewhere.
type Keeper interface {
	Vault
	// Blank reports whether nothing is sealed: Secret would make a secret.
	Blank() (bool, error)
	// Keep seals what was taken elsewhere, in the place of a secret that Secret would make, with those who held it and how it came. No boot
	// is counted yet. It refuses where something is sealed; power that goes meanwhile leaves the vault blank, or the secret in it, or where
	// SEALING.md says so what opens to nobody.
	Keep(Taken) error
}

// Mover is a vault that can seal its secret to another image instead of the one that runs.
type Mover interface {
	Vault
	// Image returns the registers that name the image that runs, by their names.
	Image() (map[string][]byte, error)
	// Move seals the secret to the image of those registers, under the present identity, and has the list of those that have held it
	// end in giver, which is zeros where that adds none. Power that goes meanwhile leaves the secret to one of the two images at least,
	// and the first that takes it then is the only one that can from then on. A secret that stays sealed is secret.ErrSealed.
	Move(to map[string][]byte, giver register.Digest) error
}

// ErrUnfit says that the config names a way of sealing that the hardware under the guest does not have.
var ErrUnfit = errors.New("the config's way of sealing is not to be had on this platform")

// Ephemeral makes a secret for one boot. Nothing is kept: the next boot is another guest to everybody, and needs a blank
// journal.
type Ephemeral struct{}

// Secret makes a secret.
func (Ephemeral) Secret() (Taken, error) {
	s, err := secret.Random()
	return Taken{Secret: s}, err
}

// CountBoot does nothing: there is one boot.
func (Ephemeral) CountBoot() error { return nil }

// Blank is true: nothing is ever kept.
func (Ephemeral) Blank() (bool, error) { return true, nil }

// Keep does nothing.
func (Ephemeral) Keep(Taken) error { return nil }
