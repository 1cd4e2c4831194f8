package claim_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
)

// A charge is signed inside a guest and verified by whoever carries it to the client's contract.
func Example() {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // in a guest: secret.DeriveSigner with secret.RoleClaim
	contract := ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}
	body, err := claim.Sign(key, claim.Message{
		Op: claim.ClientCharge, QueryID: 1, Tokens: 1200, Contract: contract, Excesses: ton.Address{Account: [32]byte{2}},
	})
	if err != nil {
		panic(err)
	}

	// The key is the one of an accepted guest: attest.Result.ClaimKey.
	policy := claim.Policy{Key: pubkey.Of(key), Contract: contract}
	message, err := claim.Verify(body[:], policy)
	if err != nil {
		panic(err)
	}
	fmt.Println(message.Op, message.Tokens)

	policy.Contract.Account[0]++
	_, err = claim.Verify(body[:], policy)
	fmt.Println("for another contract it is rejected:", errors.Is(err, check.ErrRejected))
	// Output:
	// client-charge 1200
	// for another contract it is rejected: true
}
