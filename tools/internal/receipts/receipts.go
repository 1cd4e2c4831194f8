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
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/runtime/client"
	"chrysalis/runtime/client/proof"
)

// Kept is a proof as it is kept, and Bundle several in one file.
type (
	Kept   = proof.Kept
	Bundle = proof.Bundle
)

// evidenceDir is the folder of evidence within that of receipts.
const evidenceDir = "evidence"

// Folder keeps proofs.
type Folder struct {
	path string

	mu    sync.Mutex
	shown map[string]bool // evidence that was written
}

// named is evidence by its name, with its nonce.
type named struct{ evidence, nonce string }

// maxShown bounds what is remembered of evidence that was written. What is forgotten is written again, to the same name.
const maxShown = 64

// NewFolder returns the folder at a path, which is made with the first proof.
func NewFolder(path string) *Folder { return &Folder{path: path, shown: map[string]bool{}} }

// Keep writes the proof of an answer that came from a URL at a time, under the receipt's own name, and its evidence where it is new.
func (f *Folder) Keep(url string, at time.Time, a *client.Answer) error {
	k, evidence, err := a.Keep(url, at)
	if err != nil {
		return err
	}
	if err := f.show(k.Evidence, evidence); err != nil {
		return fmt.Errorf("keeping evidence: %w", err)
	}
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("keeping receipt: %w", err)
	}
	name := a.Signed.Receipt.Hash()
	return write(filepath.Join(f.path, k.Time.Format(time.DateOnly)), fmt.Sprintf("%x.json", name[:16]), append(text, '\n'))
}

// show writes evidence, once.
func (f *Folder) show(name string, encoded []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shown[name] {
		return nil
	}
	if err := write(filepath.Join(f.path, evidenceDir), name+".evidence", encoded); err != nil {
		return err
	}
	if len(f.shown) >= maxShown {
		clear(f.shown)
	}
	f.shown[name] = true
	return nil
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
