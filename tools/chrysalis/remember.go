package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/pubkey"
	"chrysalis/runtime/receipt"
)

// memory is what this user was told last by each guest: the number and the hash of its newest receipt. A guest whose journal was put back to an
// earlier state numbers receipts from there again, which nobody sees but who holds a later one.
type memory struct{ file string }

// remembered is a guest's newest receipt.
type remembered struct {
	Sequence uint64    `json:"sequence"`
	Receipt  string    `json:"receipt"` // its hash, in hexadecimal digits
	Came     time.Time `json:"came"`
}

const (
	maxRemembered    = 4096 // guests; the one that was silent longest is forgotten
	maxMemoryBytes   = 1 << 20
	memoryName       = "receipts.json"
	memoryFolderName = "chrysalis"
)

// memoryFile is where a user's memory is, or "" for one without a home.
func memoryFile() string {
	if runtime.GOOS == "linux" {
		if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
			return filepath.Join(dir, memoryFolderName, memoryName)
		}
		home, err := os.UserHomeDir()
		if info, missing := os.Stat(home); err != nil || missing != nil || !info.IsDir() {
			return ""
		}
		return filepath.Join(home, ".local/state", memoryFolderName, memoryName)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, memoryFolderName, memoryName)
}

// wentBack says that a guest's count is not the one that this client has seen.
type wentBack struct{ error }

// judge holds a receipt, which is proven, against the newest that was known of its guest before its answer was asked for: answers that are on
// their way together may come in any order. One that does not come after it is a wentBack. The later one is remembered.
func (m memory) judge(known map[string]remembered, guest pubkey.Ed25519, r receipt.Receipt, hash [32]byte, now time.Time) error {
	key := guest.String()
	last, met := known[key]
	switch {
	case met && r.Sequence <= last.Sequence:
		return wentBack{fmt.Errorf("this guest's count went back: it numbers this receipt %d, and numbered one %d on %s: its journal was put back to an earlier state, or two guests run on one key",
			r.Sequence, last.Sequence, last.Came.UTC().Format(time.RFC3339))}
	case met && r.Sequence == last.Sequence+1 && hex.EncodeToString(r.Previous[:]) != last.Receipt:
		return wentBack{fmt.Errorf("this guest's count is another one: receipt %d follows %x, and receipt %d of %s was %s: its journal was put back to an earlier state and went on, or two guests run on one key",
			r.Sequence, r.Previous, last.Sequence, last.Came.UTC().Format(time.RFC3339), last.Receipt)}
	}
	// What came meanwhile, of others who ask for this user. Two who write at once leave one of both, which is later than what both had known.
	known, err := m.read()
	if err != nil {
		return err
	}
	if newest, met := known[key]; met && newest.Sequence >= r.Sequence {
		return nil
	}
	known[key] = remembered{r.Sequence, hex.EncodeToString(hash[:]), now}
	if len(known) > maxRemembered {
		oldest := key
		for k, v := range known {
			if v.Came.Before(known[oldest].Came) {
				oldest = k
			}
		}
		delete(known, oldest)
	}
	return m.write(known)
}

func (m memory) read() (map[string]remembered, error) {
	known := map[string]remembered{}
	info, err := os.Stat(m.file)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err == nil && info.Size() > maxMemoryBytes {
		err = fmt.Errorf("%d bytes, want at most %d", info.Size(), maxMemoryBytes)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(m.file)
	}
	if err == nil {
		err = json.Unmarshal(text, &known, json.RejectUnknownMembers(true))
	}
	if err != nil {
		return nil, fmt.Errorf("reading what guests said last, in %s: %w (remove it to begin anew)", m.file, err)
	}
	return known, nil
}

// write replaces the file at once: one that is cut short would be none.
func (m memory) write(known map[string]remembered) error {
	text, err := json.Marshal(known, json.Deterministic(true), jsontext.WithIndent("  "))
	if err == nil {
		err = os.MkdirAll(filepath.Dir(m.file), 0o700)
	}
	if err != nil {
		return fmt.Errorf("remembering a receipt: %w", err)
	}
	next, err := os.CreateTemp(filepath.Dir(m.file), ".new-*")
	if err != nil {
		return fmt.Errorf("remembering a receipt: %w", err)
	}
	defer os.Remove(next.Name())
	_, err = next.Write(append(text, '\n'))
	if err := errors.Join(err, next.Close()); err != nil {
		return fmt.Errorf("remembering a receipt: %w", err)
	}
	return os.Rename(next.Name(), m.file)
}
