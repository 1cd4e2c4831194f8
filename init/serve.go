package main

import (
	"context"
	"errors"
	"net"
	"os"

	"chrysalis/init/disks"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/disk"
	"chrysalis/init/internal/network"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/init/internal/port"
	"chrysalis/init/internal/record"
	"chrysalis/init/internal/sealing"
	"chrysalis/init/internal/services"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// takeSecret takes the secret out of what the config seals it with; nobody can take it again in this boot. The public keys that follow from it go into
// every statement, so that the gateway can't name others.
func (g *guest) takeSecret(context.Context) error {
	vault, err := g.custodianVault()
	if err != nil {
		return err
	}
	taken, err := g.recorder.Secret(vault)
	if err != nil {
		return sealed(err)
	}
	g.services.Hold(taken)
	scope, err := secret.ScopeOf(g.config.Identity, taken.Secret.Instance())
	if err != nil {
		return err
	}
	g.recorder.SetKeys(record.Keys{
		Receipt:    publicKey(taken.Secret, secret.RoleReceipt, scope),
		Claim:      publicKey(taken.Secret, secret.RoleClaim, scope),
		SecretHash: taken.Secret.Digest(),
	})
	return nil
}

// sealed gives the error of a secret that stays sealed its code.
func sealed(err error) error {
	if errors.Is(err, secret.ErrSealed) {
		return boot.Coded{Code: status.UnsealRefused, Err: err}
	}
	return err
}

// openVault finds the way of sealing that the config names, and the beginning of the journal's disk where it keeps a record there.
func (g *guest) openVault(ctx context.Context) error {
	identity, _, err := config.Split(g.measured)
	if err != nil {
		return err
	}
	var store sealing.Store
	if platform.InStore(g.sealing()) {
		journal, err := systemPaths.Find(ctx, disks.Journal)
		if err != nil {
			return err
		}
		// It stays open until the boot is counted, and then as long as the guest: nobody else is given it.
		if store, err = os.OpenFile(journal.Path, os.O_RDWR, 0); err != nil {
			return err
		}
	}
	g.vault, err = platform.Vault(g.platform, g.sealing(), config.IdentityDigest(identity), store)
	return err
}

func publicKey(s *secret.Secret, r secret.Role, scope secret.Scope) pubkey.Ed25519 {
	key := secret.DeriveSigner(s, r, scope)
	defer clear(key)
	return pubkey.Of(key)
}

func (g *guest) bringUpNetwork(ctx context.Context) (err error) {
	if err := g.platform.UseHost(g.hostDoc); err != nil {
		return err
	}
	// The port is open before anybody can reach it: who comes in between would be turned away, and a borrower takes that for a refusal.
	if g.listener, err = listen(g.hostDoc.Port); err != nil {
		return err
	}
	return network.Up(ctx, g.hostDoc.Network)
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

// openJournal opens the journal's disk, behind a sealed record where one lies there.
func (g *guest) openJournal(ctx context.Context) (*os.File, error) {
	journal, err := systemPaths.Find(ctx, disks.Journal)
	if err != nil {
		return nil, err
	}
	if platform.InStore(g.sealing()) {
		if journal, err = disk.OpenAfter(journal, journalVolume, sealing.StoreBytes); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(journal.Path, os.O_RDWR, 0)
}

// settles reports whether the guest's charges are settled on chain.
func (g *guest) settles() bool { return g.config.Service.Settles() }

// startFetch starts who asks liteservers for the keeper.
func (g *guest) startFetch(ctx context.Context) error {
	if !g.hostDoc.Chain.Given() {
		return errors.New("the host document names no liteservers")
	}
	var err error
	g.chain, err = g.services.Fetch(ctx, g.hostSays)
	return err
}

// startKeeper gives the secret to the keeper. The boot counts once the journal carries it.
func (g *guest) startKeeper(ctx context.Context) error {
	device, err := g.openJournal(ctx)
	if err != nil {
		return err
	}
	defer device.Close()
	proofs, err := port.Proofs(statusPaths)
	if err != nil {
		return err
	}
	chain := g.chain
	if chain == nil {
		if chain, err = services.NoChain(); err != nil {
			return err
		}
	}
	defer chain.Close()
	if err := g.services.Keeper(ctx, device, chain, proofs); err != nil {
		return err
	}
	return g.vault.CountBoot()
}

func (g *guest) startEngine(ctx context.Context) (err error) {
	g.wipes, err = g.services.EngineHost(ctx, volumeDir+engineVolume, volumeDir+modelVolume, len(g.config.Service.Served()))
	return err
}

func (g *guest) startGateway(ctx context.Context) error {
	defer g.listener.Close()
	defer g.wipes.Close()
	numbers, err := port.Numbers(statusPaths)
	if err != nil {
		return err
	}
	return g.services.Gateway(ctx, g.listener, g.wipes, len(g.config.Service.Served()), g.serveQuotes, numbers)
}

// failedQuotes are the words for evidence that did not come about.
var failedQuotes = []struct {
	why  error
	word status.Event
}{
	{tsm.ErrTimeout, status.QuoteLate}, {tsm.ErrBusy, status.QuoteBusy}, {tsm.ErrRefused, status.QuoteRefused}, {tsm.ErrForeign, status.QuoteForeign},
	{nil, status.QuoteFailed},
}

// quoteFailed tells the host why evidence failed, for it is most often the host that can do something about it. When none will
// ever come again, the guest is of no use to anybody.
func (g *guest) quoteFailed(err error) {
	boot.Log("%v", err)
	if errors.Is(err, tsm.ErrEnded) {
		g.ender.End(status.PlatformLost, err)
	}
	for _, f := range failedQuotes {
		if f.why == nil || errors.Is(err, f.why) {
			g.host.Event(f.word)
			return
		}
	}
}

// serveQuotes answers the gateway until it is gone, and then the guest ends anyway.
func (g *guest) serveQuotes(stream *os.File) {
	defer stream.Close()
	if err := role.ServeQuotes(stream, g.recorder.Evidence, g.quoteFailed); err != nil {
		boot.Log("quotes: %v", err)
	}
}
