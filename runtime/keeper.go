package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"chrysalis/measure/config"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/internal/keeper"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
	"chrysalis/runtime/settle"
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
	stream, err := net.FileConn(files[role.Chain])
	if err != nil {
		return fmt.Errorf("taking stream of the chain: %v", err)
	}
	files[role.Chain].Close()
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
	asker := relay.NewClient(stream)
	defer stream.Close()
	if measured.Service.Settles() {
		if terms.Settling, err = settling(ctx, asker, measured, terms); err != nil {
			role.Say(status, role.ParamsRefused)
			return err
		}
	}
	k, err := keeper.Open(journal.Disk{File: files[role.Journal]}, key, boots, terms)
	clear(key[:])
	if err != nil {
		role.Say(status, refused(err))
		return err
	}
	var follow func(context.Context) error
	if measured.Service.Settles() {
		if follow, err = k.Follow(asker, saying()); err != nil {
			return err
		}
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
	if follow != nil {
		group.Go(func() error {
			defer context.AfterFunc(ctx, func() { stream.Close() })()
			return follow(ctx)
		})
	}
	role.Say(status, role.Ready)
	if err := group.Wait(); err != nil && err != context.Canceled {
		role.Say(status, journal.Word(err))
		return err
	}
	return nil
}

// refused is the word for a journal that was not opened.
func refused(err error) role.Word {
	if errors.Is(err, settle.ErrOther) {
		return role.ProxyOpen
	}
	return journal.Word(err)
}

// paramsWait is how long the keeper waits for what the host hands over of the root's params.
const paramsWait = 10 * time.Second

// settling is how charges are settled, by the measured config and the params of which it has the hash.
func settling(ctx context.Context, asker *relay.Client, m config.Measured, terms keeper.Terms) (*keeper.Settling, error) {
	ctx, cancel := context.WithTimeout(ctx, paramsWait)
	defer cancel()
	bag, err := asker.Ask(ctx, relay.Question{Kind: relay.Params})
	if err != nil {
		return nil, fmt.Errorf("asking for the root's params: %w", err)
	}
	root, err := cell.ParseOne(bag)
	if err != nil {
		return nil, fmt.Errorf("the root's params: %w", err)
	}
	if got, want := root.Hash(), m.Service.Chain.Params; got != want {
		return nil, fmt.Errorf("the root's params have the hash %x, want %s", got, want)
	}
	params, err := claim.ParseParams(root)
	switch {
	case err != nil:
		return nil, err
	case params.ProxyCode == nil || params.WorkerCode == nil || params.ClientCode == nil:
		return nil, errors.New("the root's params lack a contract's code")
	case params.Price != m.Service.Price.Price:
		return nil, fmt.Errorf("the root's params have the price %+v, want the config's %+v", params.Price, m.Service.Price.Price)
	}
	key := terms.ClaimKey.Public().(ed25519.PublicKey)
	return &keeper.Settling{Network: network(m), MaxAge: m.Service.Chain.MaxAge(),
		Least: m.Service.Chain.Coefficients().Min, Most: m.Service.Chain.Coefficients().Max,
		Terms: settle.Terms{Root: m.Identity.RootContract, Key: [32]byte(key), Owner: m.Identity.PayoutOwner, Params: params}}, nil
}

// network is the one whose blocks count: compiled in, or as the measured config begins it.
func network(m config.Measured) chain.Network {
	if m.Identity.Network == config.Mainnet {
		return chain.Mainnet
	}
	a := m.Service.Chain.Anchor
	return chain.NewNetwork(string(m.Identity.Network), a.GlobalID, a.Seqno, a.RootHash, a.FileHash)
}

// saying logs what rounds of following the chain came to, when that changes.
func saying() func(error) {
	last := ""
	return func(err error) {
		text := "the chain is proven"
		if err != nil {
			text = err.Error()
		}
		if text != last {
			last = text
			fmt.Fprintf(os.Stderr, "keeper: %.500s\n", text)
		}
	}
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
	var served []keeper.Served
	for _, s := range m.Service.Served() {
		served = append(served, keeper.Served{Model: s.Model.Volume.Root, Engine: s.Engine.Volume.Root, MaxPrompt: s.Limits.ContextTokens, MaxAnswer: s.Limits.AnswerTokens})
	}
	return keeper.Terms{
		Charges: price.Payment == config.PayCharge,
		Price:   price.Price,
		Service: config.ServiceDigest(service), Served: served,
		Instance: scope.Instance, Excesses: m.Identity.PayoutOwner,
		ReceiptKey: secret.DeriveSigner(s, secret.RoleReceipt, scope), ClaimKey: secret.DeriveSigner(s, secret.RoleClaim, scope),
	}, secret.Derive(s, secret.RoleJournal, scope), nil
}
