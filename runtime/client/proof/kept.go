package proof

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"chrysalis/measure/config"
)

// Kept is a proof as it is kept: what a third party needs besides the evidence that it names. No word of what was said is in it.
type Kept struct {
	Time       time.Time `json:"time"`
	Guest      string    `json:"guest"` // its URL
	Release    string    `json:"release"`
	Platform   string    `json:"platform"`
	Machine    string    `json:"machine"`
	Config     string    `json:"config"`
	Contract   string    `json:"contract,omitzero"`
	Receipt    string    `json:"receipt"`
	Charge     string    `json:"charge,omitzero"`
	ReceiptKey string    `json:"receipt_key"`
	ClaimKey   string    `json:"claim_key"`
	Evidence   string    `json:"evidence,omitzero"` // the name of what the keys rest on
	Nonce      string    `json:"nonce,omitzero"`    // that the evidence answers
}

// Bundle is proofs in one file, with the evidence that they rest on.
type Bundle struct {
	Object   string            `json:"object"` // BundleObject
	Receipts []Kept            `json:"receipts"`
	Evidence map[string][]byte `json:"evidence"` // by name
}

// BundleObject is what a Bundle says that it is.
const BundleObject = "chrysalis.receipts"

// EvidenceName names evidence by its hash.
func EvidenceName(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:16])
}

// Keep returns the answer's proof as of a time at which it came from a URL, and the evidence that it names.
func (a *Answer) Keep(url string, at time.Time) (k Kept, evidence []byte, err error) {
	evidence, nonce, err := a.Guest.Evidence()
	if err != nil {
		return Kept{}, nil, fmt.Errorf("keeping evidence: %w", err)
	}
	k = Kept{Time: at.UTC(), Guest: url, Release: a.Guest.Release(), Platform: a.Guest.Platform().String(), Machine: hex.EncodeToString(a.Guest.Machine()),
		Config:     config.SHA256(a.Guest.ConfigBytes()).String(),
		Receipt:    base64.StdEncoding.EncodeToString(a.Signed.Receipt[:]),
		ReceiptKey: a.Guest.ReceiptKey().String(), ClaimKey: a.Guest.ClaimKey().String(), Evidence: EvidenceName(evidence), Nonce: hex.EncodeToString(nonce[:])}
	if a.Signed.Charge != nil {
		k.Charge, k.Contract = base64.StdEncoding.EncodeToString(a.Signed.Charge[:]), a.Receipt.Client.String()
	}
	return k, evidence, nil
}
