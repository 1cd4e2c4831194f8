package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"chrysalis/attest/collect"
	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/gateway"
	"chrysalis/runtime/internal/keeper"
)

// gatewayUser runs the gateway. Keeper and engine let it connect.
const gatewayUser = 65531

// runGateway answers the network. Descriptors: 3 the TCP socket to accept on, 4 the stream to init that gives quotes,
// 5 status.
func runGateway(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	measured := flags.String("measured", "", "file with the measured config")
	keeperPath := flags.String("keeper", "", "keeper's socket, inside the new root")
	enginePath := flags.String("engine", "", "engine's socket, inside the new root")
	root := flags.String("chroot", "", "new root directory")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	m, _, err := readMeasured(*measured)
	if err != nil {
		return err
	}
	files := make([]*os.File, 3)
	for i, name := range []string{"listener", "quotes", "status"} {
		if files[i], err = inherited(uintptr(3+i), name); err != nil {
			return err
		}
	}
	listener, err := net.FileListener(files[0])
	if err != nil {
		return fmt.Errorf("taking listener: %v", err)
	}
	files[0].Close()
	quotes, err := net.FileConn(files[1])
	if err != nil {
		return fmt.Errorf("taking quote socket: %v", err)
	}
	files[1].Close()
	if err := confine.Process(confine.Options{User: gatewayUser, Root: *root, Calls: confine.Network, UnixSockets: true}); err != nil {
		return err
	}
	g, err := gateway.New(gatewayConfig(m.Service, keeper.NewClient(*keeperPath), quotes, *enginePath))
	if err != nil {
		return err
	}
	status{files[2]}.say("ready")
	return g.Serve(ctx, listener)
}

func gatewayConfig(s config.Service, k *keeper.Client, quotes net.Conn, enginePath string) gateway.Config {
	return gateway.Config{
		Model: s.Model.Name, RequestBytes: s.Limits.RequestBytes, AnswerTokens: s.Limits.AnswerTokens, Concurrent: s.Limits.Concurrent,
		Charges: s.Price.Payment == config.PayCharge,
		Keeper:  keeperAdapter{k}, Quote: (&quoteSocket{conn: quotes}).quote,
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

// quoteWait bounds the time of one quote: a TPM takes a part of a second.
const quoteWait = 20 * time.Second

// quoteSocket is the stream to init. One goroutine asks at a time.
type quoteSocket struct {
	conn   net.Conn
	broken error
}

func (q *quoteSocket) quote(r collect.Request) (*evidence.Evidence, error) {
	if q.broken != nil {
		return nil, q.broken
	}
	if err := q.conn.SetDeadline(time.Now().Add(quoteWait)); err != nil {
		return nil, err
	}
	evidence, err := collect.Ask(q.conn, r)
	if err != nil && !errors.Is(err, collect.ErrRefused) {
		q.broken = err // an answer that comes late would be taken for the next one
	}
	return evidence, err
}
