package main

import (
	"context"
	"errors"
	"net"
	"os"

	"chrysalis/init/disks"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/network"
	"chrysalis/init/internal/record"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// takeSecret takes the sealed secret; nobody can take it again in this boot. The public keys that follow from it go into
// every statement, so that the gateway can't name others.
func (g *guest) takeSecret(context.Context) error {
	taken, boots, err := g.recorder.Secret()
	if errors.Is(err, secret.ErrSealed) {
		return boot.Coded{Code: status.UnsealRefused, Err: err}
	}
	if err != nil {
		return err
	}
	g.services.Hold(taken, boots)
	scope, err := secret.ScopeOf(g.config.Identity, taken.Instance())
	if err != nil {
		return err
	}
	g.recorder.SetKeys(record.Keys{
		Receipt:    publicKey(taken, secret.RoleReceipt, scope),
		Claim:      publicKey(taken, secret.RoleClaim, scope),
		SecretHash: taken.Digest(),
	})
	return nil
}

func publicKey(s *secret.Secret, r secret.Role, scope secret.Scope) pubkey.Ed25519 {
	key := secret.DeriveSigner(s, r, scope)
	defer clear(key)
	return pubkey.Of(key)
}

func (g *guest) bringUpNetwork(ctx context.Context) error {
	host, err := config.DecodeHost(g.hostSays)
	if err != nil {
		return err
	}
	if err := network.Up(ctx, host.Network); err != nil {
		return err
	}
	g.listener, err = listen(host.Port)
	return err
}

// listen opens the service's port; the gateway gets the descriptor and opens no socket of its own.
func listen(port uint16) (*os.File, error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File()
}

// startKeeper gives the secret to the keeper. The boot counts once the journal carries it.
func (g *guest) startKeeper(ctx context.Context) error {
	journal, err := systemPaths.Find(ctx, disks.Journal)
	if err != nil {
		return err
	}
	device, err := os.OpenFile(journal.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer device.Close()
	if err := g.services.Keeper(ctx, device); err != nil {
		return err
	}
	return g.recorder.CountBoot()
}

func (g *guest) startEngine(ctx context.Context) error {
	return g.services.EngineHost(ctx, engineDir, modelDir)
}

func (g *guest) startGateway(ctx context.Context) error {
	defer g.listener.Close()
	return g.services.Gateway(ctx, g.listener, g.serveQuotes)
}

// serveQuotes answers the gateway until it is gone, and then the guest ends anyway.
func (g *guest) serveQuotes(stream *os.File) {
	defer stream.Close()
	if err := role.ServeQuotes(stream, g.recorder.Evidence, func(err error) { boot.Log("%v", err) }); err != nil {
		boot.Log("quotes: %v", err)
	}
}
