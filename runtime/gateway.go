package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"chrysalis/measure/config"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/gateway"
	"chrysalis/runtime/internal/keeper"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/role"
)

// runGateway answers the network.
func runGateway(ctx context.Context, settings role.Settings, files role.Files) error {
	m, _, err := readMeasured(settings[role.Measured])
	if err != nil {
		return err
	}
	listener, err := net.FileListener(files[role.Listener])
	if err != nil {
		return fmt.Errorf("taking listener: %v", err)
	}
	files[role.Listener].Close()
	quotes, err := net.FileConn(files[role.Quotes])
	if err != nil {
		return fmt.Errorf("taking quote socket: %v", err)
	}
	files[role.Quotes].Close()
	confined := confine.Options{User: role.Gateway.User(), Root: settings[role.Chroot], Calls: confine.Network, UnixSockets: true}
	if err := confine.Process(confined); err != nil {
		return err
	}
	g, err := gateway.New(gatewayConfig(m.Service, keeper.NewClient(settings[role.KeeperSocket]), quotes, settings[role.EngineSocket]))
	if err != nil {
		return err
	}
	role.Say(files[role.Status], role.Ready)
	return g.Serve(ctx, listener)
}

func gatewayConfig(s config.Service, k *keeper.Client, quotes net.Conn, enginePath string) gateway.Config {
	return gateway.Config{
		Model: s.Model.Name, RequestBytes: s.Limits.RequestBytes, AnswerTokens: s.Limits.AnswerTokens, Concurrent: s.Limits.Concurrent,
		Charges: s.Price.Payment == config.PayCharge,
		Keeper:  keeperAdapter{k}, Quote: role.NewQuotes(quotes).Ask,
		DialEngine: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", enginePath)
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
}

// keeperAdapter gives the gateway the keeper in its own words, so that neither package knows the other.
type keeperAdapter struct{ client *keeper.Client }

func (k keeperAdapter) Reserve(ctx context.Context) (gateway.Place, error) {
	place, err := k.client.Reserve(ctx)
	if errors.Is(err, keeper.ErrFull) {
		return nil, gateway.ErrFull
	}
	if err != nil {
		return nil, err
	}
	return place, nil
}

func (k keeperAdapter) Vouch(ctx context.Context, id receipt.AnswerID, body [32]byte) (receipt.TextSignature, error) {
	return k.client.Vouch(ctx, id, body)
}
