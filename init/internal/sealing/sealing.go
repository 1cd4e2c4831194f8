// Package sealing keeps a guest's secret from one boot to the next, in the way that its config names. What a way promises, and
// against whom, is in SEALING.md beside this file.
package sealing

import (
	"errors"

	"chrysalis/runtime/secret"
)

// Vault is a way of sealing on the hardware under this guest. It is used by one caller, once in a boot.
type Vault interface {
	// Secret opens the secret that is sealed to the image and the identity, and makes one when there is none. boots counts those
	// that CountBoot has counted since it was made. A secret that is there and stays sealed is secret.ErrSealed.
	Secret() (s *secret.Secret, boots uint64, err error)
	// CountBoot adds one to the count of boots.
	CountBoot() error
}

// ErrUnfit says that the config names a way of sealing that the hardware under the guest does not have.
var ErrUnfit = errors.New("the config's way of sealing is not to be had on this platform")

// Ephemeral makes a secret for one boot. Nothing is kept: the next boot is another guest to everybody, and needs a blank
// journal.
type Ephemeral struct{}

// Secret makes a secret.
func (Ephemeral) Secret() (*secret.Secret, uint64, error) {
	s, err := secret.Random()
	return s, 0, err
}

// CountBoot does nothing: there is one boot.
func (Ephemeral) CountBoot() error { return nil }
