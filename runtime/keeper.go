package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sync/errgroup"

	"chrysalis/measure/config"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/internal/keeper"
	"chrysalis/runtime/secret"
)

// keeperUser runs the keeper.
const keeperUser = 65530

// runKeeper owns the secret's keys and the journal. Descriptors: 3 the secret and the boot counter, 4 the journal's disk,
// 5 the socket to answer on, 6 status.
func runKeeper(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("keeper", flag.ContinueOnError)
	measured := flags.String("measured", "", "file with the measured config")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	config, raw, err := readMeasured(*measured)
	if err != nil {
		return err
	}
	files := make([]*os.File, 4)
	for i, name := range []string{"secret", "journal", "socket", "status"} {
		if files[i], err = inherited(uintptr(3+i), name); err != nil {
			return err
		}
	}
	listener, err := net.FileListener(files[2])
	if err != nil {
		return fmt.Errorf("taking socket: %v", err)
	}
	if err := confine.Process(confine.Options{User: keeperUser, Calls: append(confine.Disk, confine.Network...)}); err != nil {
		return err
	}
	status := status{files[3]}
	sealed, boots, err := readSecret(files[0])
	if err != nil {
		return err
	}
	terms, key, err := keeperTerms(sealed, config, raw)
	sealed.Wipe()
	if err != nil {
		return err
	}
	k, err := keeper.Open(journal.Disk{File: files[1]}, key, boots, terms)
	clear(key[:])
	if err != nil {
		status.say("fail " + journal.Code(err))
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.Run(ctx) })
	group.Go(func() error { return k.Serve(ctx, listener) })
	status.say("ready")
	if err := group.Wait(); err != nil && err != context.Canceled {
		status.say("fail " + journal.Code(err))
		return err
	}
	return nil
}

// readSecret reads the secret and the count of completed boots, and nothing else, to the pipe's end.
func readSecret(pipe *os.File) (*secret.Secret, uint64, error) {
	defer pipe.Close()
	var message [secret.Size + 8 + 1]byte
	defer clear(message[:])
	n, err := io.ReadFull(pipe, message[:])
	if err != io.ErrUnexpectedEOF || n != len(message)-1 {
		return nil, 0, fmt.Errorf("reading secret: %d bytes, want %d", n, len(message)-1)
	}
	s, err := secret.New(message[:secret.Size])
	return s, binary.LittleEndian.Uint64(message[secret.Size:]), err
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
