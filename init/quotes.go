package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"

	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/quote"
	"chrysalis/init/internal/tpm"
	"chrysalis/init/status"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

const (
	bootLogFile     = "/sys/kernel/security/tpm0/binary_bios_measurements"
	maxBootLogBytes = 256 << 10
)

func readBootLog() ([]byte, error) {
	f, err := os.Open(bootLogFile)
	if err != nil {
		return nil, fmt.Errorf("reading boot log: %v", err)
	}
	defer f.Close()
	log, err := io.ReadAll(io.LimitReader(f, maxBootLogBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading boot log: %v", err)
	}
	if len(log) > maxBootLogBytes {
		return nil, fmt.Errorf("reading boot log: more than %d bytes", maxBootLogBytes)
	}
	return log, nil
}

// takeSecret takes the sealed secret; nobody can take it again in this boot. The public keys that follow from it go into
// every statement, so that the gateway can't name others.
func (g *guest) takeSecret(context.Context) error {
	taken, boots, err := g.complete.Secret()
	if errors.Is(err, tpm.ErrUnsealRefused) {
		return boot.Coded{Code: status.UnsealRefused, Err: err}
	}
	if err != nil {
		return err
	}
	scope, err := secret.ScopeOf(g.config.Identity, taken.Instance())
	if err != nil {
		taken.Wipe()
		return err
	}
	g.recorder.SetKeys(quote.Keys{
		Receipt:    publicKey(taken, secret.RoleReceipt, scope),
		Claim:      publicKey(taken, secret.RoleClaim, scope),
		SecretHash: taken.Digest(),
	})
	g.services.secret, g.services.boots = taken, boots
	return nil
}

func publicKey(s *secret.Secret, role secret.Role, scope secret.Scope) [32]byte {
	key := secret.DeriveSigner(s, role, scope)
	defer clear(key)
	return [32]byte(key.Public().(ed25519.PublicKey))
}

// serveQuotes answers the gateway until it is gone, and then the guest ends anyway.
func (g *guest) serveQuotes(conn *os.File) {
	defer conn.Close()
	if err := role.ServeQuotes(conn, g.recorder.Evidence, func(err error) { boot.Log("%v", err) }); err != nil {
		boot.Log("quotes: %v", err)
	}
}
