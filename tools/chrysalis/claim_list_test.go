package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/tools/internal/earned"
	"chrysalis/tools/internal/guest"
)

// writeClaims writes what two guests have handed to their host into dir/earned, and what somebody else signed into dir/strange.
func writeClaims(dir string) error {
	var proofs, signers bytes.Buffer
	for seed := range byte(2) {
		receiptKey, claimKey := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed + 1}, 32)), ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed + 11}, 32))
		for n := range uint64(3) {
			r := receipt.Receipt{Sequence: n, Instance: [16]byte{seed + 0xa0}, Client: ton.Address{Account: [32]byte{0xc1, seed}},
				Usage: receipt.Usage{Completion: 10}, Weighted: 10, Cumulative: 10 * (n + 1),
				Price: ton.Price{NanotonPerToken: 20, CompletionWeight: ton.WeightOne}, Outcome: receipt.Complete}
			if n > 0 {
				r.Previous = [32]byte{1}
			}
			signed, err := receipt.Sign(receiptKey, r)
			if err != nil {
				return err
			}
			charge, err := claim.Sign(claimKey, claim.Message{Op: claim.ClientCharge, Tokens: r.Cumulative, Contract: r.Client, Excesses: r.Client})
			if err != nil {
				return err
			}
			line, err := receipt.Proof{Receipt: signed, Charge: charge}.Line()
			if err != nil {
				return err
			}
			fmt.Fprintln(&proofs, line)
		}
		fmt.Fprintln(&signers, earned.Signers{Receipt: pubkey.Of(receiptKey), Claim: pubkey.Of(claimKey)})
	}
	known := signers.Bytes()
	var errs []error
	for name, files := range map[string]map[string][]byte{
		"earned":  {guest.ProofsFile: append(proofs.Bytes(), "proof cut by a power"...), guest.SignersFile: known},
		"strange": {guest.ProofsFile: proofs.Bytes(), guest.SignersFile: known[:bytes.IndexByte(known, '\n')+1]},
		"damaged": {guest.ProofsFile: append([]byte("hello\n"), proofs.Bytes()...), guest.SignersFile: known},
		"unknown": {guest.ProofsFile: proofs.Bytes(), guest.SignersFile: []byte("hello\n")},
		"unpaid":  {guest.ProofsFile: nil},
	} {
		errs = append(errs, os.MkdirAll(filepath.Join(dir, name), 0o755))
		for file, data := range files {
			errs = append(errs, os.WriteFile(filepath.Join(dir, name, file), data, 0o644))
		}
	}
	return errors.Join(errs...)
}
