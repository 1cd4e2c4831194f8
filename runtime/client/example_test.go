package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client"
	"chrysalis/runtime/client/clienttest"
)

// exampleGuest is a guest in software. Its policy and roots are in the place of those that a client brings along: a policy
// read with attest.ParsePolicy, tdx.IntelRoot and sevsnp.AMDRoots.
func exampleGuest() (g *clienttest.Guest, done func()) {
	measured, err := os.ReadFile(filepath.Join("..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		panic(err)
	}
	t, done := attesttest.ForExample()
	return clienttest.New(t, measured), done
}

// The common path: verify a guest, ask it, and get an answer whose receipt and charge are proven.
func Example() {
	software, done := exampleGuest()
	defer done()
	ctx := context.Background()

	guest, err := client.Dial(ctx, software.URL, ratls.Config{Policy: software.Policy(), Roots: software.Roots()})
	if err != nil {
		panic(err) // a guest that the policy refuses has heard nothing
	}
	defer guest.Close()
	answer, err := guest.Ask(ctx, client.Request{
		Messages: []client.Message{{Role: "user", Content: "What is the capital of Norway?"}},
		Payer:    ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}},
	}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%q\n", answer.Content)
	fmt.Println(answer.Receipt.Outcome, answer.Receipt.Usage.Completion, "tokens")
	fmt.Println(answer.Charge.Op, "of", answer.Charge.Tokens, "in all")
	// Output:
	// "The capital is \x1b[1mOslo."
	// complete 5 tokens
	// client-charge of 20 in all
}

// What can go wrong has four classes.
func ExampleGuest_Ask() {
	software, done := exampleGuest()
	defer done()
	ctx := context.Background()
	guest, err := client.Dial(ctx, software.URL, ratls.Config{Policy: software.Policy(), Roots: software.Roots()})
	if err != nil {
		panic(err)
	}
	defer guest.Close()

	software.Spoil = func(_ []byte, r *clienttest.Reply) { r.Charge.Tokens++ } // it charges more than its receipt says
	streamed := ""
	_, err = guest.Ask(ctx, client.Request{
		Messages: []client.Message{{Role: "user", Content: "What is the capital of Norway?"}},
		Payer:    ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}},
	}, func(p client.Piece) error { streamed += p.Content; return nil })

	var declined *client.Declined
	var cut *client.Cut
	switch {
	case errors.Is(err, check.ErrRejected):
		fmt.Printf("not proven, whatever %d bytes of text came: %v\n", len(streamed), err)
	case errors.As(err, &declined):
		fmt.Println("the guest declined:", declined.Code)
	case errors.As(err, &cut):
		fmt.Println("cut; charged for a part:", cut.Answer != nil)
	case err != nil:
		fmt.Println("could not be found out:", err)
	}
	// Output:
	// not proven, whatever 24 bytes of text came: verifying charge: rejected: it is a client-charge of 21 tokens, want a client-charge of the receipt's 20
}
