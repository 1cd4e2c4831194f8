package receipt_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/receipt"
)

// The guest signs a receipt for each answer, and a client compares it with what it has sent and got.
func Example() {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // in a guest: secret.DeriveSigner with secret.RoleReceipt
	request := []byte(`{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}]}`)
	text := receipt.NewResponseHash()
	text.Content([]byte("Oslo "))
	text.Content([]byte("it is."))

	price := ton.Price{NanotonPerToken: 20, PromptWeight: ton.WeightOne, CompletionWeight: 2 * ton.WeightOne}
	usage := receipt.Usage{Prompt: 14, Completion: 3}
	weighted, err := usage.Weighted(price)
	if err != nil {
		panic(err)
	}
	signed, err := receipt.Sign(key, receipt.Receipt{
		Instance: [16]byte{1}, Request: sha256.Sum256(request), Response: text.Sum(),
		Usage: usage, Price: price, Weighted: weighted, Cumulative: weighted, Outcome: receipt.Complete,
	})
	if err != nil {
		panic(err)
	}

	// The key is the one of an accepted guest: attest.Result.ReceiptKey.
	r, err := receipt.Verify(signed[:], pubkey.Of(key))
	if err != nil {
		panic(err)
	}
	got := receipt.NewResponseHash()
	got.Content([]byte("Oslo it is.")) // in whatever pieces it came
	cost, err := r.Nanoton()
	if err != nil {
		panic(err)
	}
	fmt.Println("my request:", r.Request == sha256.Sum256(request))
	fmt.Println("my answer:", r.Response == got.Sum())
	fmt.Println(r.Outcome, r.Weighted, "tokens,", cost, "nanoton")
	// Output:
	// my request: true
	// my answer: true
	// complete 20 tokens, 400 nanoton
}

// An auditor who holds two receipts of an instance sees whether one stands between them.
func ExampleReceipt_Follows() {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	sign := func(r receipt.Receipt) *receipt.Signed {
		r.Instance, r.Outcome = [16]byte{1}, receipt.Complete
		signed, err := receipt.Sign(key, r)
		if err != nil {
			panic(err)
		}
		return signed
	}
	first := sign(receipt.Receipt{})
	second := sign(receipt.Receipt{Sequence: 1, Previous: first.Hash()})
	third := sign(receipt.Receipt{Sequence: 2, Previous: second.Hash()})

	r, err := receipt.Verify(third[:], pubkey.Of(key))
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Follows(second))
	fmt.Println(r.Follows(first))
	// Output:
	// <nil>
	// rejected: receipt has sequence 2 after 0, want 1
}
