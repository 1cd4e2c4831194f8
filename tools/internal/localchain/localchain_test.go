package localchain

import (
	"context"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/onchain"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestWallet: a wallet sends what a request asks for, once, in time, on its network; nobody else's requests.
func TestWallet(t *testing.T) {
	w := must(New(Options{Wallets: []string{"a"}, Funds: 10 * ton.Coin}))
	defer w.Close()
	o := onchain.Options{Wait: 5 * time.Second, MaxAge: time.Minute}
	var err error
	if o.Network, o.Servers, err = onchain.ReadConfig(must(w.Config()), true, GlobalID); err != nil {
		t.Fatal(err)
	}
	a, b := must(NewWallet("a")), must(NewWallet("b"))
	ask := func(from ton.Address, global int32, until time.Time) []byte {
		return must(carry.Connect([]carry.Message{{To: w.Template, Value: ton.Coin}, {To: w.Template, Value: 1}}, from, global, until))
	}
	had := must(Balance(t.Context(), o, w.Template))
	soon := time.Now().Add(time.Minute)
	for range 2 { // the first deploys it
		if _, err := a.Send(t.Context(), o, ask(a.Address, GlobalID, soon)); err != nil {
			t.Fatal(err)
		}
	}
	if got := must(Balance(t.Context(), o, w.Template)) - had; got < 2*ton.Coin-1_000_000 || got > 2*ton.Coin+2 {
		t.Errorf("it got %d, want two coins and two nanotons but for fees", got)
	}
	for want, request := range map[string][]byte{
		"request is for wallet":  ask(b.Address, GlobalID, soon),
		"request is for network": ask(a.Address, -239, soon),
		"not accepted":           ask(a.Address, GlobalID, time.Now().Add(-time.Hour)),
		"reading request":        []byte("{}"),
	} {
		if _, err := a.Send(t.Context(), o, request); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// A message that was taken is not taken again.
	body := must(a.body([]carry.Message{{To: b.Address, Value: 1}}, 2, soon))
	bag := must(a.external(body, false))
	if _, err := w.Chain.Post(bag); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Chain.Post(bag); err == nil {
		t.Error("a message is taken twice")
	}
}

// TestRun: blocks follow the clock.
func TestRun(t *testing.T) {
	w := must(New(Options{Time: uint32(time.Now().Unix()) - 1000}))
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	before := w.Chain.Last().Seqno
	go func() { done <- w.Run(ctx, time.Millisecond) }()
	for w.Chain.Last().Seqno < before+3 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if behind := time.Now().Unix() - int64(w.Chain.Now()); behind > 10 || behind < -10 {
		t.Errorf("the chain is %d seconds behind the clock", behind)
	}
}
