package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/engines"
	"chrysalis/measure/ton"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/gateway"
	"chrysalis/runtime/internal/keeper"
	"chrysalis/runtime/numbers"
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
	stream, err := net.FileConn(files[role.Wipes])
	if err != nil {
		return fmt.Errorf("taking stream of wipes: %v", err)
	}
	files[role.Wipes].Close()
	wipes := role.NewWipes(stream, len(m.Service.Served()))
	confined := confine.Options{User: role.Gateway.User(), Root: settings[role.Chroot], Calls: confine.Network, UnixSockets: true}
	if err := confine.Process(confined); err != nil {
		return err
	}
	client := keeper.NewClient(settings[role.KeeperSocket], m.Service.Settles())
	g, err := gateway.New(gatewayConfig(m.Service, client, quotes, wipes, settings[role.EngineSocket]))
	if err != nil {
		return err
	}
	role.Say(files[role.Status], role.Ready)
	serving, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stream.Close()
	defer stop()
	beside.Go(func() { report(serving, files[role.Numbers], numbers.Interval, g.Numbers, client.Count) })
	lost := make(chan error, 1)
	beside.Go(func() {
		lost <- wipes.Run()
		stop()
	})
	err = g.Serve(serving, listener)
	select {
	case why := <-lost: // a gateway that can't have an engine wiped serves nobody
		return errors.Join(why, err)
	default:
		return err
	}
}

// report writes the numbers until ctx ends, one line at once and then one each interval. Where the keeper does not answer, what it knows
// is zero in that line. A pipe that init has closed ends it.
func report(ctx context.Context, w io.Writer, interval time.Duration, counted func() numbers.Values, journal func(context.Context) (keeper.Counts, error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		v := counted()
		asking, cancel := context.WithTimeout(ctx, interval/2)
		if c, err := journal(asking); err == nil {
			v[numbers.JournalBytes], v[numbers.Receipts], v[numbers.Contracts] = c.Bytes, c.Receipts, c.Contracts
			v[numbers.ContractsLeft], v[numbers.ProofsWaiting] = c.Left, c.Waiting
		}
		cancel()
		if _, err := io.WriteString(w, v.Line()+"\n"); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func gatewayConfig(s config.Service, k *keeper.Client, quotes net.Conn, wipes *role.WipeStream, enginePath string) gateway.Config {
	all := s.Served()
	var models []gateway.Model
	for at, m := range all {
		dialect, _ := engines.Find(m.Engine.Dialect) // the config was decoded, so there is one
		socket := role.EngineSocketOf(enginePath, at, len(all))
		models = append(models, gateway.Model{
			Name: m.Model.Name, Engine: dialect, Volume: m.Model.Volume, RequestBytes: m.Limits.RequestBytes, AnswerTokens: m.Limits.AnswerTokens,
			ContextTokens: m.Limits.ContextTokens, Concurrent: m.Limits.Concurrent,
			DialEngine: func(ctx context.Context) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", socket)
			},
			AskWipe: func() (<-chan struct{}, error) { return wipes.Ask(at) },
		})
	}
	return gateway.Config{
		Models:  models,
		Charges: s.Price.Payment == config.PayCharge, Settles: s.Settles(), Coefficient: s.Chain.Coefficients(),
		Keeper: keeperAdapter{k}, Quote: role.NewQuotes(quotes).Ask, Wipe: s.Wipe,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
}

// keeperAdapter gives the gateway the keeper in its own words, so that neither package knows the other.
type keeperAdapter struct{ client *keeper.Client }

func (k keeperAdapter) Reserve(ctx context.Context, by gateway.Payer) (gateway.Place, error) {
	place, err := k.client.Reserve(ctx, keeper.Payer{Contract: by.Contract, Secret: by.Secret, Most: by.Most, Coefficient: by.Coefficient})
	if err != nil {
		return nil, inItsWords(err)
	}
	return place, nil
}

func (k keeperAdapter) SetKey(ctx context.Context, contract ton.Address, shown, hash [32]byte, name [16]byte, most uint64) (uint64, error) {
	used, err := k.client.SetKey(ctx, contract, shown, hash, name, most)
	return used, inItsWords(err)
}

// inItsWords is the keeper's error in the gateway's words.
func inItsWords(err error) error {
	for theirs, ours := range map[error]error{keeper.ErrFull: gateway.ErrFull, keeper.ErrKey: gateway.ErrKey, keeper.ErrFunds: gateway.ErrFunds,
		keeper.ErrChain: gateway.ErrChain} {
		if errors.Is(err, theirs) {
			return ours
		}
	}
	return err
}

func (k keeperAdapter) Vouch(ctx context.Context, id receipt.AnswerID, body [32]byte) (receipt.TextSignature, error) {
	return k.client.Vouch(ctx, id, body)
}
