// Command fetch asks TON's liteservers for the keeper: init starts it in a guest whose charges are settled on chain.
//
//	fetch fetch  connects to the liteservers that the host document names, asks what the keeper asks, and hands back what came
//
// It judges nothing, has no key, and is believed as little as a liteserver. What it is for is to keep the network, and what speaks over it, out
// of the process that signs.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"chrysalis/measure/config"
	"chrysalis/runtime/chain/fetch"
	"chrysalis/runtime/chain/relay"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/role"
)

func main() { os.Exit(role.Main(os.Args[1:], map[role.Role]role.Run{role.Fetch: run})) }

// answerWait is how long a liteserver may take for one answer, its connection included.
const answerWait = 8 * time.Second

func run(ctx context.Context, settings role.Settings, files role.Files) error {
	raw, err := os.ReadFile(settings[role.Host])
	if err != nil {
		return fmt.Errorf("reading host document: %w", err)
	}
	host, err := config.DecodeHost(raw)
	if err != nil {
		return err
	}
	client, err := fetch.Open(servers(host.Chain), answerWait)
	if err != nil {
		return err
	}
	stream, err := net.FileConn(files[role.Chain])
	if err != nil {
		return fmt.Errorf("taking stream: %v", err)
	}
	files[role.Chain].Close()
	if err := confine.Process(confine.Options{User: role.Fetch.User(), Root: settings[role.Chroot], Calls: confine.Network, Connects: true}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	role.Say(files[role.Status], role.Ready)
	return relay.Serve(ctx, stream, asks(client, host.Chain))
}

func servers(h config.HostChain) (list []fetch.Server) {
	for _, s := range h.Liteservers {
		list = append(list, fetch.Server{Address: s.Address, Key: s.Key})
	}
	return list
}

// asks returns what answers the keeper's questions.
func asks(client *fetch.Client, host config.HostChain) func(context.Context, relay.Question) ([]byte, error) {
	return func(ctx context.Context, q relay.Question) ([]byte, error) {
		switch {
		case q.Kind == relay.Params:
			return host.Params, nil
		case q.Kind == relay.Ending && host.Close:
			return []byte{1}, nil
		case q.Kind == relay.Ending:
			return nil, nil
		}
		if int(q.Server) >= client.Servers() {
			return nil, relay.ErrNoServer
		}
		var query fetch.Query
		switch q.Kind {
		case relay.BlockProof:
			query = fetch.BlockProof{From: q.Block}
		case relay.AccountState:
			query = fetch.AccountState{Of: q.Block, Account: q.Account}
		case relay.Transactions:
			query = fetch.Transactions{Account: q.Account, From: q.From}
		}
		return client.AskOne(ctx, int(q.Server), query)
	}
}
