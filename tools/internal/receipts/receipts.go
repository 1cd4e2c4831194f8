// Package receipts keeps the proofs of answers in a folder, with the evidence that they rest on, and judges them again later. No word of
// what was said is in it.
//
//	DIR/2006-01-02/<receipt's hash>.json   a Kept each, by the day
//	DIR/evidence/<hash>.evidence           what the guest showed for its keys
//
// One file with all of it, for somebody else, is a Bundle. Nothing in folder or bundle is believed but what signatures hold: the time at
// which an answer was kept is the keeper's own word, and evidence is judged as of then.
package receipts

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/runtime/client"
)

// Kept is a proof as it is kept: what a third party needs besides the evidence that it names.
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

// evidenceDir is the folder of evidence within that of receipts.
const evidenceDir = "evidence"

// Folder keeps proofs.
type Folder struct {
	path string

	mu    sync.Mutex
	shown map[*attest.Result]named // evidence that was written
}

// named is evidence by its name, with its nonce.
type named struct{ evidence, nonce string }

// maxShown bounds what is remembered of evidence that was written. What is forgotten is written again, to the same name.
const maxShown = 64

// NewFolder returns the folder at a path, which is made with the first proof.
func NewFolder(path string) *Folder { return &Folder{path: path, shown: map[*attest.Result]named{}} }

// Keep writes an answer's proof, under the receipt's own name, and its evidence where it is new. Of k the caller fills in what the proof
// does not say: time, guest and what it is.
func (f *Folder) Keep(k Kept, a *client.Answer) error {
	of, err := f.show(a.Guest)
	if err != nil {
		return fmt.Errorf("keeping evidence: %w", err)
	}
	k.Evidence, k.Nonce = of.evidence, of.nonce
	k.Receipt, k.ReceiptKey, k.ClaimKey = base64.StdEncoding.EncodeToString(a.Signed.Receipt[:]), a.Guest.ReceiptKey().String(), a.Guest.ClaimKey().String()
	if a.Signed.Charge != nil {
		k.Charge, k.Contract = base64.StdEncoding.EncodeToString(a.Signed.Charge[:]), a.Receipt.Client.String()
	}
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keeping receipt: %w", err)
	}
	name := a.Signed.Receipt.Hash()
	return write(filepath.Join(f.path, k.Time.Format(time.DateOnly)), fmt.Sprintf("%x.json", name[:16]), append(text, '\n'))
}

// show writes the evidence of a guest, once.
func (f *Folder) show(guest *attest.Result) (named, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if of, ok := f.shown[guest]; ok {
		return of, nil
	}
	encoded, nonce, err := guest.Evidence()
	if err != nil {
		return named{}, err
	}
	of := named{nameOf(encoded), hex.EncodeToString(nonce[:])}
	if err := write(filepath.Join(f.path, evidenceDir), of.evidence+".evidence", encoded); err != nil {
		return named{}, err
	}
	if len(f.shown) >= maxShown {
		clear(f.shown)
	}
	f.shown[guest] = of
	return of, nil
}

// nameOf names evidence by its hash.
func nameOf(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:16])
}

// write writes a file whole or not at all.
func write(dir, name string, content []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file+".part", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}
