// Command localchain runs a chain of one's own on this machine, for the demonstration of payments: two liteservers with real proofs and
// signatures, contracts of this project's own, and wallets whose keys follow from their names. Nothing on it has a value.
//
//	localchain serve -o FOLDER [-delay SECONDS] WALLET...   until it is ended; writes global.config.json, template.txt and ready
//	localchain address WALLET                               the wallet's address
//	localchain balance -o FOLDER ADDRESS|WALLET             what an account has, in nanotons, by proof
//	localchain send -o FOLDER WALLET                        sends what TON Connect's request on standard input asks for
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/tools/internal/localchain"
	"chrysalis/tools/internal/onchain"
)

// Files of a chain's folder.
const (
	configFile   = "global.config.json"
	templateFile = "template.txt"
	readyFile    = "ready"
)

// funds are what each wallet has at first.
const funds = 100 * ton.Coin

// interval is between blocks; TON's are as far apart.
const interval = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "localchain:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("want serve, address, balance or send")
	}
	flags := flag.NewFlagSet("localchain "+args[0], flag.ContinueOnError)
	dir := flags.String("o", "build/chain", "the chain's folder")
	delay := flags.Uint("delay", 5, "seconds that a contract takes to close")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] == "serve" {
		return serve(ctx, *dir, uint32(*delay), flags.Args(), out)
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%s takes one wallet, got %q", args[0], flags.Args())
	}
	name := flags.Arg(0)
	wallet, err := localchain.NewWallet(name)
	if err != nil {
		return err
	}
	switch args[0] {
	case "address":
		fmt.Fprintln(out, wallet.Address.Friendly(false))
		return nil
	case "balance":
		at := wallet.Address
		if a, err := ton.Parse(name); err == nil {
			at = a
		}
		o, err := read(*dir)
		if err != nil {
			return err
		}
		coins, err := localchain.Balance(ctx, o, at)
		if err == nil {
			fmt.Fprintln(out, uint64(coins))
		}
		return err
	case "send":
		request, err := io.ReadAll(io.LimitReader(in, 1<<20))
		if err != nil {
			return err
		}
		o, err := read(*dir)
		if err != nil {
			return err
		}
		sent, err := wallet.Send(ctx, o, request)
		for _, m := range sent {
			fmt.Fprintf(out, "sent %s to %s\n", m.Value, m.To.Friendly(true))
		}
		return err
	}
	return fmt.Errorf("%q: want serve, address, balance or send", args[0])
}

// read says how the chain of a folder is read.
func read(dir string) (onchain.Options, error) {
	raw, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return onchain.Options{}, err
	}
	o := onchain.Options{Wait: 10 * time.Second, MaxAge: time.Minute}
	o.Network, o.Servers, err = onchain.ReadConfig(raw, true, localchain.GlobalID)
	return o, err
}

func serve(ctx context.Context, dir string, delay uint32, wallets []string, out io.Writer) error {
	w, err := localchain.New(localchain.Options{Delay: delay, Wallets: wallets, Funds: funds})
	if err != nil {
		return err
	}
	defer w.Close()
	config, err := w.Config()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		text []byte
	}{{configFile, config}, {templateFile, []byte(w.Template.String() + "\n")}, {readyFile, nil}} { // the last says that the others are there
		if err := os.WriteFile(filepath.Join(dir, f.name), f.text, 0o644); err != nil {
			return err
		}
	}
	defer os.Remove(filepath.Join(dir, readyFile))
	fmt.Fprintf(out, "a chain runs at %s\n", dir)
	return w.Run(ctx, interval)
}
