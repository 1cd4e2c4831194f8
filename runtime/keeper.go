package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sync/errgroup"

	"chrysalis/measure/config"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/internal/keeper"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// runKeeper owns the secret's keys and the journal.
func runKeeper(ctx context.Context, settings role.Settings, files role.Files) error {
	measured, raw, err := readMeasured(settings[role.Measured])
	if err != nil {
		return err
	}
	listener, err := net.FileListener(files[role.Socket])
	if err != nil {
		return fmt.Errorf("taking socket: %v", err)
	}
	if err := confine.Process(confine.Options{User: role.Keeper.User(), Calls: append(confine.Disk, confine.Network...)}); err != nil {
		return err
	}
	status := files[role.Status]
	sealed, boots, err := role.ReceiveSecret(files[role.SecretPipe])
	files[role.SecretPipe].Close()
	if err != nil {
		return err
	}
	terms, key, err := keeperTerms(sealed, measured, raw)
	sealed.Wipe()
	if err != nil {
		return err
	}
	k, err := keeper.Open(journal.Disk{File: files[role.Journal]}, key, boots, terms)
	clear(key[:])
	if err != nil {
		role.Say(status, journal.Word(err))
		return err
	}
	// A host that takes nothing holds up the exports alone, so nobody waits for their end.
	go func() {
		if err := k.Export(ctx, files[role.Proofs]); err != nil && ctx.Err() == nil {
			fmt.Fprintf(os.Stderr, "keeper: %v\n", err)
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.Run(ctx) })
	group.Go(func() error { return k.Serve(ctx, listener) })
	role.Say(status, role.Ready)
	if err := group.Wait(); err != nil && err != context.Canceled {
		role.Say(status, journal.Word(err))
		return err
	}
	return nil
}

// keeperTerms derives the keys and takes from the measured config what receipts state.
func keeperTerms(s *secret.Secret, m config.Measured, raw []byte) (keeper.Terms, [32]byte, error) {
	scope, err := secret.ScopeOf(m.Identity, s.Instance())
	if err != nil {
		return keeper.Terms{}, [32]byte{}, err
	}
	_, service, err := config.Split(raw)
	if err != nil {
		return keeper.Terms{}, [32]byte{}, err
	}
	price := m.Service.Price
	return keeper.Terms{
		Charges: price.Payment == config.PayCharge,
		Price:   price.Price,
		Service: config.ServiceDigest(service), Model: m.Service.Model.Volume.Root, Engine: m.Service.Engine.Volume.Root,
		Instance: scope.Instance, Excesses: m.Identity.PayoutOwner,
		MaxPrompt: m.Service.Limits.ContextTokens, MaxAnswer: m.Service.Limits.AnswerTokens,
		ReceiptKey: secret.DeriveSigner(s, secret.RoleReceipt, scope), ClaimKey: secret.DeriveSigner(s, secret.RoleClaim, scope),
	}, secret.Derive(s, secret.RoleJournal, scope), nil
}
