package release

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/measure/fault"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// CardFormat names the one format of a model card.
const CardFormat = "chrysalis model card v1"

const (
	cardPayloadType = "application/vnd.chrysalis.model-card+json"

	maxCardBytes      = 1 << 20
	maxCatalogueBytes = 16 << 20
	maxCardFiles      = 1 << 12
	maxCardName       = 64
	maxCardText       = 128
	maxFileName       = 1024
)

// Card says what a model's volume holds. It is untrusted: VerifyCard says who stands for it. MODELS.md is its specification.
type Card struct {
	Format       string          `json:"format"`
	Name         string          `json:"name"`         // such as qwen2.5-7b-instruct
	Revision     string          `json:"revision"`     // of where it was published: a commit or a version
	Licence      string          `json:"licence"`      // an SPDX expression, or words
	Quantisation string          `json:"quantisation"` // such as Q4_K_M or BF16
	Root         register.Digest `json:"root"`         // of the volume
	Blocks       uint64          `json:"blocks"`       // of its data
	Size         int64           `json:"size"`         // sum of the files
	Files        []CardFile      `json:"files"`        // of the volume, sorted by name
}

// CardFile is a file of a model.
type CardFile struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"`
	SHA256 register.Digest `json:"sha256"`
}

// ID names the model as a config does.
func (c Card) ID() string { return c.Name + "@" + c.Revision }

// EncodeCard checks the card and returns it as one that nobody has signed yet.
func EncodeCard(c Card) ([]byte, error) {
	payload, err := c.encode()
	if err != nil {
		return nil, fmt.Errorf("encoding model card: %w", err)
	}
	return Envelope{PayloadType: cardPayloadType, Payload: payload}.encode()
}

// SignCard adds a signature to a card.
func SignCard(signed []byte, key ed25519.PrivateKey) ([]byte, error) {
	e, _, err := readCard(signed)
	if err == nil {
		err = e.sign(key)
	}
	if err != nil {
		return nil, fmt.Errorf("signing model card: %w", err)
	}
	return e.encode()
}

// DecodeCard reads a card without asking who signed it.
func DecodeCard(signed []byte) (untrusted Card, signatures []Signature, err error) {
	e, c, err := readCard(signed)
	if err != nil {
		return Card{}, nil, fmt.Errorf("reading model card: %w", err)
	}
	return c, e.Signatures, nil
}

// VerifyCard reads a card, and takes it if at least threshold of the signers, each counted once, signed exactly its bytes. It returns
// those who did. A card does not expire: what a volume holds stays what it is.
func VerifyCard(signed []byte, signers []pubkey.Ed25519, threshold int) (Card, []pubkey.Ed25519, error) {
	if err := checkThreshold(signers, threshold); err != nil {
		return Card{}, nil, fmt.Errorf("reading model card: %w", err)
	}
	e, c, err := readCard(signed)
	if err != nil {
		return Card{}, nil, fmt.Errorf("%w: reading model card: %v", check.ErrRejected, err)
	}
	found, err := e.enough(signers, threshold)
	if err != nil {
		return Card{}, nil, fmt.Errorf("%w: reading model card %s: %v", check.ErrRejected, c.ID(), err)
	}
	return c, found, nil
}

// Catalogue is cards by the names of their models, each as it was signed.
type Catalogue struct{ cards map[string][]byte }

// ParseCatalogue reads a file of cards, one a line, sorted by the names of their models, each once. Nobody is asked who signed them.
func ParseCatalogue(data []byte) (Catalogue, error) {
	if len(data) > maxCatalogueBytes {
		return Catalogue{}, fmt.Errorf("reading model catalogue: %d bytes, want at most %d", len(data), maxCatalogueBytes)
	}
	k := Catalogue{map[string][]byte{}}
	last := ""
	for line := range bytes.Lines(data) {
		c, _, err := DecodeCard(line)
		if err != nil {
			return Catalogue{}, fmt.Errorf("reading model catalogue: card %d: %w", len(k.cards), err)
		}
		if id := c.ID(); id <= last {
			return Catalogue{}, fmt.Errorf("reading model catalogue: %s stands after %s, want each once and sorted", id, last)
		}
		last = c.ID()
		k.cards[last] = bytes.Clone(line)
	}
	if len(k.cards) == 0 {
		return Catalogue{}, errors.New("reading model catalogue: it has no card")
	}
	return k, nil
}

// Add adds a card. One of the same model is replaced, unless it names another volume: a revision has one.
func (k *Catalogue) Add(signed []byte) error {
	c, _, err := DecodeCard(signed)
	if err != nil {
		return err
	}
	if there, ok := k.cards[c.ID()]; ok {
		old, _, err := DecodeCard(there)
		if err != nil {
			return err
		}
		if old.Root != c.Root {
			return fmt.Errorf("adding %s: its volume is %s, and the catalogue has %s for it", c.ID(), c.Root, old.Root)
		}
	}
	if k.cards == nil {
		k.cards = map[string][]byte{}
	}
	k.cards[c.ID()] = bytes.Clone(signed)
	return nil
}

// Names returns the names of the models, sorted.
func (k Catalogue) Names() (all []string) {
	for id := range k.cards {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

// Card returns the card of a model as it was signed.
func (k Catalogue) Card(id string) ([]byte, error) {
	if card, ok := k.cards[id]; ok {
		return card, nil
	}
	return nil, fmt.Errorf("no card for %.200q: the catalogue has %s", id, strings.Join(k.Names(), ", "))
}

// Bytes returns the catalogue's one encoding.
func (k Catalogue) Bytes() []byte {
	var b []byte
	for _, id := range k.Names() {
		b = append(b, k.cards[id]...)
	}
	return b
}

func readCard(signed []byte) (Envelope, Card, error) {
	var c Card
	e, err := parseEnvelope(signed, cardPayloadType, 2*maxCardBytes)
	if err != nil {
		return e, c, err
	}
	if err := json.Unmarshal(e.Payload, &c, json.RejectUnknownMembers(true)); err != nil {
		return e, c, fault.JSON(err)
	}
	again, err := c.encode()
	if err != nil {
		return e, c, err
	}
	if !bytes.Equal(again, e.Payload) {
		return e, c, errors.New("the payload is not the one encoding of its content")
	}
	return e, c, nil
}

func (c Card) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(c, json.Deterministic(true))
	if err == nil && len(data) > maxCardBytes {
		err = fmt.Errorf("%d bytes, want at most %d", len(data), maxCardBytes)
	}
	return data, err
}

func (c Card) check() error {
	if c.Format != CardFormat {
		return fmt.Errorf("format is %.80q, want %q", c.Format, CardFormat)
	}
	for _, w := range [][2]string{{"name", c.Name}, {"revision", c.Revision}, {"quantisation", c.Quantisation}} {
		if len(w[1]) > maxCardName || !plain(w[1], '!') || strings.Contains(w[1], "@") {
			return fmt.Errorf("%s is %.80q, want 1 to %d printable ASCII characters without spaces and @", w[0], w[1], maxCardName)
		}
	}
	if len(c.Licence) > maxCardText || !plain(c.Licence, ' ') || strings.TrimSpace(c.Licence) != c.Licence {
		return fmt.Errorf("licence is %.140q, want 1 to %d printable ASCII characters", c.Licence, maxCardText)
	}
	if c.Root == (register.Digest{}) || c.Blocks == 0 {
		return errors.New("the volume is not named")
	}
	if n := len(c.Files); n == 0 || n > maxCardFiles {
		return fmt.Errorf("%d files, want 1 to %d", n, maxCardFiles)
	}
	sum := int64(0)
	for i, f := range c.Files {
		if !fs.ValidPath(f.Name) || f.Name == "." || len(f.Name) > maxFileName || f.Size < 0 || f.Size > 1<<50 {
			return fmt.Errorf("file %d is %.80q of %d bytes", i, f.Name, f.Size)
		}
		if i > 0 && c.Files[i-1].Name >= f.Name {
			return fmt.Errorf("file %.80q stands after %.80q, want each once and sorted", f.Name, c.Files[i-1].Name)
		}
		if f.SHA256 == (register.Digest{}) {
			return fmt.Errorf("file %.80q has no SHA-256", f.Name)
		}
		sum += f.Size
	}
	if sum != c.Size {
		return fmt.Errorf("size is %d, want the %d of its files", c.Size, sum)
	}
	return nil
}

// plain reports whether a text is printable ASCII from a first character on, and not empty.
func plain(text string, first byte) bool {
	for i := range len(text) {
		if text[i] < first || text[i] > '~' {
			return false
		}
	}
	return text != ""
}
