package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/sealing"
	"chrysalis/init/internal/services"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/runtime/role"
)

// borrowLimit is the longest that a loan may take: the borrower itself ends once a lease, of a day at most, and its margin are over.
const borrowLimit = 36 * time.Hour

// settleLimit is the longest that it may take until the giver of a secret has said that it has it no more: some connections' time.
const settleLimit = 15 * time.Minute

// dialPause is how long init waits before it dials again: a custodian may start with its borrower.
const dialPause = 500 * time.Millisecond

func (g *guest) isCustodian() bool { return g.config.Service.Custodian }
func (g *guest) serves() bool      { return !g.isCustodian() }

// borrows reports whether the guest has its secret lent.
func (g *guest) borrows() bool { return g.sealing() == config.SealCustodian }

// sealing is how this guest's own secret is kept: as the identity says, and a custodian's by what its hardware has.
func (g *guest) sealing() config.Sealing {
	if g.isCustodian() {
		return platform.Own(g.platform)
	}
	return g.config.Identity.Sealing
}

// takesOver reports whether the guest is a custodian without a secret that shall have another one's.
func (g *guest) takesOver() bool { return g.isCustodian() && g.blank && g.hostDoc.Custodian.Given() }

// asks reports whether the secret comes from another guest.
func (g *guest) asks() bool { return g.borrows() || g.takesOver() }

// borrow dials whom the host calls the custodian and has the borrower judge who answers. init dials and judges nobody; the borrower judges
// and can dial nobody: it gets this one connection, in no network of its own.
func (g *guest) borrow(ctx context.Context) error {
	way := g.hostDoc.Custodian
	if !way.Given() {
		return errors.New("the host document names no custodian")
	}
	peer, err := dial(ctx, way.Address.String())
	if err != nil {
		return err
	}
	defer peer.Close()
	if g.isCustodian() {
		g.giver, err = g.services.Successor(ctx, peer, way.List, g.serveAsking, true)
		return err
	}
	g.vault, err = g.services.Borrower(ctx, peer, way.List, g.serveAsking)
	return err
}

// custodianVault is the vault out of which a custodian takes its secret: its own, or where it takes another's over the stream to that one,
// after which its own has it.
func (g *guest) custodianVault() (sealing.Vault, error) {
	if g.giver == nil {
		return g.vault, nil
	}
	own, ok := g.vault.(sealing.Keeper)
	if !ok {
		return nil, errors.New("taking a secret over: what this machine seals with keeps none that was made elsewhere")
	}
	return successor{g.giver, own}, nil
}

// successor is the vault of a custodian that takes a secret over: whoever has taken it out of it has sealed it.
type successor struct {
	sealing.Vault
	own sealing.Keeper
}

func (s successor) Secret() (sealing.Taken, error) {
	taken, err := s.Vault.Secret()
	if err == nil {
		err = s.own.Keep(taken)
	}
	if err != nil && taken.Secret != nil {
		taken.Secret.Wipe()
	}
	return taken, err
}

// settle tells the custodian that gave the secret that it is sealed here, and hears that it has it no more. Until then this one, which has
// no lender yet, lends nothing; a guest whose power is cut meanwhile does it in its next boot.
func (g *guest) settle(ctx context.Context) error {
	connect := func() (sealing.Vault, error) {
		way := g.hostDoc.Custodian
		if !way.Given() {
			return nil, fmt.Errorf("%w: the host document does not name it", services.ErrUnsettled)
		}
		peer, err := dial(ctx, way.Address.String())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", services.ErrUnsettled, err)
		}
		defer peer.Close()
		return g.services.Successor(ctx, peer, way.List, g.serveQuotes, false)
	}
	err := settled(ctx, g.giver, connect, func(giver sealing.Vault) error { return services.Settle(giver, g.loans, g.told) })
	if errors.Is(err, services.ErrUnsettled) {
		return boot.Coded{Code: status.SecretUnsettled, Err: err}
	}
	return err
}

// settled tells the giver of the secret, over another connection as long as it does not answer: it may have heard, and have the secret no more.
func settled(ctx context.Context, giver sealing.Vault, connect func() (sealing.Vault, error), tell func(sealing.Vault) error) (err error) {
	for {
		if giver == nil {
			if giver, err = connect(); err != nil {
				return err
			}
		}
		if err = tell(giver); !errors.Is(err, services.ErrSilent) || ctx.Err() != nil {
			return err
		}
		giver = nil
	}
}

// dial connects to an address. It tries for as long as a step usually may take.
func dial(ctx context.Context, address string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, boot.DefaultLimit)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp4", address)
		if err == nil {
			defer conn.Close()
			return conn.(*net.TCPConn).File()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(dialPause):
		}
	}
}

// serveAsking gives the borrower evidence of a guest that has no secret, until keys are released.
func (g *guest) serveAsking(stream *os.File) {
	defer stream.Close()
	if err := role.ServeQuotes(stream, g.recorder.Asking, g.quoteFailed); err != nil {
		boot.Log("quotes of the borrower: %v", err)
	}
}

// startCustodian gives the secret to the custodian. The boot counts once its journal carries it.
func (g *guest) startCustodian(ctx context.Context) error {
	device, err := g.openJournal(ctx)
	if err != nil {
		return err
	}
	defer device.Close()
	if g.loans, g.told, err = g.services.Custodian(ctx, device); err != nil {
		return err
	}
	return g.vault.CountBoot()
}

func (g *guest) startLender(ctx context.Context) error {
	defer g.listener.Close()
	defer g.loans.Close()
	return g.services.Lender(ctx, g.listener, g.loans, g.serveQuotes)
}
