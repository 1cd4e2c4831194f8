package receipt

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"chrysalis/measure/pubkey"
)

// Text is what the receipt key signs beside receipts: the hashes of a request's body and of its answer's as they travelled, in digits with
// a colon between. It begins with a digit and so is no receipt.
func Text(request, answer [32]byte) string {
	return hex.EncodeToString(request[:]) + ":" + hex.EncodeToString(answer[:])
}

// TextSignature is an Ed25519 signature over a Text.
type TextSignature [ed25519.SignatureSize]byte

// SignText signs a Text with the key of receipts.
func SignText(signer crypto.Signer, request, answer [32]byte) (s TextSignature, err error) {
	signature, err := signer.Sign(rand.Reader, []byte(Text(request, answer)), crypto.Hash(0))
	if err != nil || len(signature) != len(s) {
		return s, fmt.Errorf("signing text of answer: %d bytes: %v", len(signature), err)
	}
	return TextSignature(signature), nil
}

// VerifyText accepts a signature over the hashes of a request and its answer if key made it. The error wraps check.ErrRejected.
func VerifyText(request, answer [32]byte, s TextSignature, key pubkey.Ed25519) error {
	if !key.Verify([]byte(Text(request, answer)), s[:]) {
		return fmt.Errorf("verifying text of answer: %w", rejectf("signature is not by key %s", key))
	}
	return nil
}
