// Package proxy is a plain OpenAI endpoint on this machine in front of verified guests: what it is asked it seals to one of them, and
// what comes back it opens, judges and passes on.
//
//	p, err := proxy.New(config)
//	err = p.Verify(ctx)          // before the first byte
//	err = p.Serve(ctx, listener)
//
// Whoever reaches the listener can ask, so it is for this machine alone: requests for another host's name, and those of pages that
// were not named, are refused.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client"
	"chrysalis/tools/internal/receipts"
)

// Config says for whom a proxy speaks, and to whom. Guests, Attest and Payer must be set.
type Config struct {
	Guests []string     // https://HOST[:PORT] each, of guests or of a balancer in front of one kind
	Attest ratls.Config // what a guest must be
	// Payer names the payment contract that is charged where a guest of this config charges, and zero where none does.
	Payer func(config.Measured) (ton.Address, error)
	// Key is shown to guests that settle on chain, in the place of what local programs send as a key; zero: what they send is passed on.
	Key api.Key
	// MaxCoefficient is the most that such a guest may multiply tokens by, in parts of 10000; 0: what its config allows.
	MaxCoefficient uint32
	Origins        []string // of pages on this machine that may ask, as browsers write them: http://localhost:3000
	Receipts       string   // folder that keeps the proofs of answers, and what they rest on; "" keeps none
	Log            *slog.Logger

	// Page is what is served at /, and PageSettings what it asks (sdk/page/PAGE.md). Nil serves the table of guests instead.
	Page, PageSettings []byte
}

// Proxy serves local clients.
type Proxy struct {
	config Config
	guests []*guest
	began  time.Time

	receipts *receipts.Folder // nil keeps none
	carried  carriers
}

// New returns a proxy that has verified nothing yet.
func New(c Config) (*Proxy, error) {
	if len(c.Guests) == 0 {
		return nil, errors.New("starting proxy: no guest is named")
	}
	for _, origin := range c.Origins {
		if err := checkOrigin(origin); err != nil {
			return nil, fmt.Errorf("starting proxy: %w", err)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{config: c, began: time.Now()}
	if c.Receipts != "" {
		p.receipts = receipts.NewFolder(c.Receipts)
	}
	for _, url := range c.Guests {
		sealed, err := client.NewSealed(url, c.Attest)
		if err != nil {
			return nil, fmt.Errorf("starting proxy: %w", err)
		}
		p.guests = append(p.guests, &guest{url: url, sealed: sealed, log: c.Log})
	}
	return p, nil
}

// Verify verifies each guest. The error is that of the last one when none is accepted; nothing is said to one that is not.
func (p *Proxy) Verify(ctx context.Context) error {
	var wait sync.WaitGroup
	for _, g := range p.guests {
		wait.Go(func() { g.verify(ctx) })
	}
	wait.Wait()
	var last error
	for _, g := range p.guests {
		s := g.status()
		if s.err == nil {
			return nil
		}
		if last == nil || errors.Is(s.err, attest.ErrRejected) {
			last = s.err
		}
	}
	return fmt.Errorf("verifying guests: none of %d is accepted: %w", len(p.guests), last)
}

// checkEvery is how often a guest is looked at when nobody asks it: whether its key ends soon, or whether it is good again.
const checkEvery = 15 * time.Second

// Serve serves until ctx ends; answers that are on their way then get a grace of ten seconds.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler: p.Handler(l.Addr().String()), Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	background.Go(func() {
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, g := range p.guests {
				g.verify(ctx)
			}
		}
	})
	shut := make(chan struct{})
	background.Go(func() {
		defer close(shut)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		for _, g := range p.guests {
			g.sealed.Close()
		}
	})
	err := server.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-shut
		return nil
	}
	return fmt.Errorf("serving: %w", err)
}
