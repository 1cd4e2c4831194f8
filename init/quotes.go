package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"

	"chrysalis/attest/collect"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/quote"
	"chrysalis/init/internal/tpm"
	"chrysalis/init/status"
	"chrysalis/runtime/claim"
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
	raw, boots, err := g.complete.Secret()
	if errors.Is(err, tpm.ErrUnsealRefused) {
		return boot.Coded{Code: status.UnsealRefused, Err: err}
	}
	if err != nil {
		return err
	}
	secret, err := claim.NewSecret(raw[:])
	if err != nil {
		return err
	}
	defer secret.Wipe()
	zerostate, _ := g.config.Identity.Network.Zerostate()
	scope := claim.Scope{
		Network: string(g.config.Identity.Network), Zerostate: zerostate,
		Root: string(g.config.Identity.RootContract), Instance: secret.Instance(),
	}
	g.recorder.SetKeys(quote.Keys{
		Receipt:    publicKey(secret, claim.RoleReceipt, scope),
		Claim:      publicKey(secret, claim.RoleClaim, scope),
		SecretHash: secret.Digest(),
	})
	g.services.secret, g.services.boots = raw, boots
	clear(raw[:])
	return nil
}

func publicKey(secret *claim.Secret, role claim.Role, scope claim.Scope) [32]byte {
	key := claim.DeriveSigner(secret, role, scope)
	defer clear(key)
	return [32]byte(key.Public().(ed25519.PublicKey))
}

// serveQuotes answers the gateway until it is gone, and then the guest ends anyway.
func (g *guest) serveQuotes(conn *os.File) {
	defer conn.Close()
	if err := collect.Serve(conn, g.recorder.Evidence, func(err error) { boot.Log("%v", err) }); err != nil {
		boot.Log("quotes: %v", err)
	}
}
