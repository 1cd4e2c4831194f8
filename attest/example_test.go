package attest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
)

// A client judges evidence by its policy. Whoever talks to a guest over a connection has ratls do it.
func Example() {
	measured, err := os.ReadFile(filepath.Join("..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		panic(err)
	}
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	guest := attesttest.New(measured, now) // in software; a genuine one answers GET /v1/evidence

	// A policy is a JSON document, which "chrysalis policy" makes. The zero Policy accepts nothing.
	document, err := json.Marshal(guest.Rules())
	if err != nil {
		panic(err)
	}
	policy, err := attest.ParsePolicy(document)
	if err != nil {
		panic(err)
	}

	challenge := attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: [32]byte{3}} // random, and of the connection
	evidence := guest.Evidence(challenge)
	result, err := attest.Verify(evidence, challenge, policy, now, guest.Roots())
	if err != nil {
		panic(err)
	}
	fmt.Println("accepted:", result.Platform(), "runs", result.Release(), "with model", result.Config().Service.Model.Name)
	fmt.Println("talk to key", result.TLSKey() == challenge.TLSKey)

	// The same evidence is no answer to another's challenge, and the refusal carries its proof.
	challenge.Nonce[0]++
	_, err = attest.Verify(evidence, challenge, policy, now, guest.Roots())
	var refused *attest.Refused
	fmt.Println(errors.Is(err, attest.ErrRejected), errors.As(err, &refused), refused.Failed.Name)
	// Output:
	// accepted: vtpm runs software with model tiny
	// talk to key true
	// true true challenge
}
