package receipts

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/receipt"
)

// Bounds of what is read.
const (
	maxKeptBytes     = 16 << 10
	maxEvidenceBytes = 1 << 20
	maxBundleBytes   = 256 << 20
	maxEntries       = 1 << 20
)

// Entry is a proof as it was read. Nothing of it is judged.
type Entry struct {
	Kept
	File    string // or where in a bundle it stands
	Signed  receipt.Signed
	Receipt *receipt.Receipt // as it says
	Charge  []byte
	Payer   ton.Address
}

// Archive is what a folder, a file or a bundle holds.
type Archive struct {
	Entries  []Entry
	evidence func(name string) ([]byte, error)
}

// alone is a receipt as a guest tells it to whoever has the answer's id.
type alone struct {
	Object  string `json:"object"`
	ID      string `json:"id"`
	Receipt string `json:"receipt"`
}

// Read reads a folder, one file of it, a bundle, a receipt as a guest tells it, or the bytes of one.
func Read(path string) (*Archive, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading receipts: %w", err)
	}
	if info.IsDir() {
		return readFolder(path)
	}
	text, err := readFile(path, maxBundleBytes)
	if err != nil {
		return nil, err
	}
	return parse(text, path)
}

// parse reads what a file of that path holds.
func parse(text []byte, path string) (*Archive, error) {
	var object struct {
		Object string `json:"object"`
	}
	_ = json.Unmarshal(text, &object) // what is no JSON has none
	a := &Archive{evidence: fileEvidence(filepath.Dir(filepath.Dir(path)))}
	switch {
	case len(text) == receipt.Size:
		return a, a.add(Kept{Receipt: base64.StdEncoding.EncodeToString(text)}, path)
	case object.Object == proof.BundleObject:
		return readBundle(text, path)
	case object.Object != "":
		var told alone
		if err := strict(text, &told); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		return a, a.add(Kept{Receipt: told.Receipt}, path)
	}
	return a, a.kept(text, path)
}

func readFolder(path string) (*Archive, error) {
	a := &Archive{evidence: fileEvidence(path)}
	err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(file) != ".json" {
			return err
		}
		text, err := readFile(file, maxKeptBytes)
		if err != nil {
			return err
		}
		return a.kept(text, file)
	})
	if err != nil {
		return nil, fmt.Errorf("reading receipts: %w", err)
	}
	return a, nil
}

func readBundle(text []byte, path string) (*Archive, error) {
	var b Bundle
	if err := strict(text, &b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	a := &Archive{evidence: func(name string) ([]byte, error) {
		encoded, ok := b.Evidence[name]
		if !ok {
			return nil, fmt.Errorf("%w: the bundle has no evidence %q", check.ErrUnavailable, name)
		}
		return encoded, nil
	}}
	for i, k := range b.Receipts {
		if err := a.add(k, fmt.Sprintf("%s: receipt %d", path, i)); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// Bundle returns the archive in one file, with the evidence that its receipts name.
func (a *Archive) Bundle() ([]byte, error) {
	b := Bundle{Object: proof.BundleObject, Receipts: []Kept{}, Evidence: map[string][]byte{}}
	for _, e := range a.Entries {
		b.Receipts = append(b.Receipts, e.Kept)
		if e.Evidence == "" || b.Evidence[e.Evidence] != nil {
			continue
		}
		encoded, err := a.shown(e.Evidence)
		if err != nil {
			return nil, fmt.Errorf("bundling receipts: %s: %w", e.File, err)
		}
		b.Evidence[e.Evidence] = encoded
	}
	text, err := json.Marshal(b, json.Deterministic(true))
	return append(text, '\n'), err
}

// shown returns evidence that is what its name says.
func (a *Archive) shown(name string) ([]byte, error) {
	if raw, err := hex.DecodeString(name); err != nil || len(raw) != 16 {
		return nil, fmt.Errorf("%w: evidence is named %.80q, want 32 hexadecimal digits", check.ErrRejected, name)
	}
	encoded, err := a.evidence(name)
	if err != nil {
		return nil, err
	}
	if got := proof.EvidenceName(encoded); got != name {
		return nil, fmt.Errorf("%w: evidence hashes to %s, want %s", check.ErrRejected, got, name)
	}
	return encoded, nil
}

func fileEvidence(dir string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		encoded, err := readFile(filepath.Join(dir, evidenceDir, name+".evidence"), maxEvidenceBytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", check.ErrUnavailable, err)
		}
		return encoded, nil
	}
}

func (a *Archive) kept(text []byte, file string) error {
	var k Kept
	if err := strict(text, &k); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return a.add(k, file)
}

// add takes a proof in, if it is one by its form.
func (a *Archive) add(k Kept, file string) error {
	if len(a.Entries) == maxEntries {
		return fmt.Errorf("reading receipts: more than %d of them", maxEntries)
	}
	e := Entry{Kept: k, File: file}
	raw, err := digits(k.Receipt)
	if err == nil {
		e.Receipt, err = receipt.Parse(raw)
	}
	if err == nil && k.Contract != "" {
		e.Payer, err = ton.Parse(k.Contract)
	}
	if err == nil && k.Charge != "" {
		if e.Charge, err = digits(k.Charge); err == nil && len(e.Charge) != claim.BodySize {
			err = fmt.Errorf("%w: charge has %d bytes, want %d", check.ErrRejected, len(e.Charge), claim.BodySize)
		}
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	e.Signed = receipt.Signed(raw)
	a.Entries = append(a.Entries, e)
	return nil
}

// digits reads base64 in its one form.
func digits(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return nil, fmt.Errorf("%w: %d digits are no base64 in its one form", check.ErrRejected, len(text))
	}
	return raw, nil
}

func strict(text []byte, into any) error {
	if err := json.Unmarshal(text, into, json.RejectUnknownMembers(true), jsontext.AllowDuplicateNames(false)); err != nil {
		return fmt.Errorf("%w: %v", check.ErrRejected, err)
	}
	return nil
}

func readFile(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if n, err := io.Copy(&b, io.LimitReader(f, most+1)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	} else if n > most {
		return nil, fmt.Errorf("reading %s: it has more than %d bytes", path, most)
	}
	return b.Bytes(), nil
}
