package release

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/measure/fault"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

const (
	releaseListFormat      = "chrysalis release list v1"
	releaseListPayloadType = "application/vnd.chrysalis.release-list+json"

	maxReleaseListBytes = 4 << 20
	maxReleaseName      = 128
	maxReason           = 512
	maxRebuilds         = 64 // of one release
)

// Document is what a release list says. It is untrusted: ParseList makes a List of it, if enough
// signers stand for it. RELEASES.md is its specification.
type Document struct {
	Format   string    `json:"format"`  // chrysalis release list v1
	Issued   time.Time `json:"issued"`  // UTC, whole seconds
	Expires  time.Time `json:"expires"` // later than Issued; from then on the list says nothing
	Releases []Listed  `json:"releases"`
	Revoked  []Revoked `json:"revoked"`
}

// Listed is a release that may run.
type Listed struct {
	Manifest register.Digest `json:"manifest"` // SHA-256 of its manifest.json
	Values   Release         `json:"values"`   // name, security version, reference values
	Rebuilds []Envelope      `json:"rebuilds"` // signed statements (Rebuild) about this manifest
}

// Revoked is a release that must not run any more.
type Revoked struct {
	Name     string          `json:"name"`
	Manifest register.Digest `json:"manifest"`
	Reason   string          `json:"reason"`
}

// List is a release list that enough signers stand for. The zero List knows no release and is of no time.
type List struct {
	document Document
	signers  []pubkey.Ed25519
}

// ParseList reads a signed release list, and takes it if at least threshold of the signers, each counted once, signed
// exactly its bytes. Signatures by others do not count; one by a signer that does not hold refuses the list.
func ParseList(signed []byte, signers []pubkey.Ed25519, threshold int) (*List, error) {
	if err := checkThreshold(signers, threshold); err != nil {
		return nil, fmt.Errorf("reading release list: %w", err)
	}
	e, document, err := readReleaseList(signed)
	if err != nil {
		return nil, fmt.Errorf("%w: reading release list: %v", check.ErrRejected, err)
	}
	found, err := e.enough(signers, threshold)
	if err != nil {
		return nil, fmt.Errorf("%w: reading release list: %v", check.ErrRejected, err)
	}
	return &List{document, found}, nil
}

// DecodeList reads a release list without asking who signed it, for those who show it or sign it.
func DecodeList(signed []byte) (untrusted Document, signatures []Signature, err error) {
	e, document, err := readReleaseList(signed)
	if err != nil {
		return Document{}, nil, fmt.Errorf("reading release list: %w", err)
	}
	return document, e.Signatures, nil
}

// EncodeList checks the document and returns it as a list that nobody has signed yet.
func EncodeList(document Document) ([]byte, error) {
	payload, err := document.encode()
	if err != nil {
		return nil, fmt.Errorf("encoding release list: %w", err)
	}
	return Envelope{PayloadType: releaseListPayloadType, Payload: payload}.encode()
}

// SignList adds a signature to a release list.
func SignList(signed []byte, key ed25519.PrivateKey) ([]byte, error) {
	e, _, err := readReleaseList(signed)
	if err != nil {
		return nil, fmt.Errorf("signing release list: %w", err)
	}
	if err := e.sign(key); err != nil {
		return nil, fmt.Errorf("signing release list: %w", err)
	}
	return e.encode()
}

func readReleaseList(signed []byte) (Envelope, Document, error) {
	var d Document
	e, err := parseEnvelope(signed, releaseListPayloadType, maxReleaseListBytes)
	if err != nil {
		return e, d, err
	}
	if err := json.Unmarshal(e.Payload, &d, json.RejectUnknownMembers(true)); err != nil {
		return e, d, fault.JSON(err)
	}
	again, err := d.encode()
	if err != nil {
		return e, d, err
	}
	if !bytes.Equal(again, e.Payload) {
		return e, d, errors.New("the payload is not the one encoding of its content")
	}
	return e, d, nil
}

func (d Document) encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	return json.Marshal(d, json.Deterministic(true))
}

func (d Document) check() error {
	if d.Format != releaseListFormat {
		return fmt.Errorf("format is %.80q, want %q", d.Format, releaseListFormat)
	}
	if err := wholeSecond("issued", d.Issued); err != nil {
		return err
	}
	if err := wholeSecond("expires", d.Expires); err != nil {
		return err
	}
	if !d.Expires.After(d.Issued) {
		return fmt.Errorf("expires is %v, want later than issued, %v", d.Expires, d.Issued)
	}
	if len(d.Releases) > MaxListed || len(d.Revoked) > MaxListed {
		return fmt.Errorf("%d releases and %d revoked ones, want at most %d each", len(d.Releases), len(d.Revoked), MaxListed)
	}
	for i, r := range d.Releases {
		name := r.Values.Name
		if err := checkNamed(name, r.Manifest); err != nil {
			return fmt.Errorf("release %d: %w", i, err)
		}
		if i > 0 && d.Releases[i-1].Values.Name >= name {
			return fmt.Errorf("release %q stands after %q, want each once and sorted", name, d.Releases[i-1].Values.Name)
		}
		if r.Values.SecurityVersion == 0 {
			return fmt.Errorf("release %q: security version is 0, want more", name)
		}
		if err := r.checkRebuilds(); err != nil {
			return fmt.Errorf("release %q: %w", name, err)
		}
	}
	for i, r := range d.Revoked {
		if err := checkNamed(r.Name, r.Manifest); err != nil {
			return fmt.Errorf("revoked release %d: %w", i, err)
		}
		if i > 0 && d.Revoked[i-1].Name >= r.Name {
			return fmt.Errorf("revoked release %q stands after %q, want each once and sorted", r.Name, d.Revoked[i-1].Name)
		}
		if r.Reason == "" || len(r.Reason) > maxReason {
			return fmt.Errorf("revoked release %q: reason is %d bytes, want 1 to %d", r.Name, len(r.Reason), maxReason)
		}
		for _, listed := range d.Releases {
			if listed.Values.Name == r.Name || listed.Manifest == r.Manifest {
				return fmt.Errorf("release %q is revoked as %q, yet listed", listed.Values.Name, r.Name)
			}
		}
	}
	return nil
}

func checkNamed(name string, manifest register.Digest) error {
	if name == "" || len(name) > maxReleaseName {
		return fmt.Errorf("name is %d bytes, want 1 to %d", len(name), maxReleaseName)
	}
	if manifest == (register.Digest{}) {
		return fmt.Errorf("%q names no manifest", name)
	}
	return nil
}

// checkRebuilds wants statements about this release alone, sorted by key, one of each. Whose keys count is the reader's to say.
func (r Listed) checkRebuilds() error {
	if r.Rebuilds == nil {
		return errors.New("rebuilds is absent, want a list")
	}
	if len(r.Rebuilds) > maxRebuilds {
		return fmt.Errorf("%d rebuilds, want at most %d", len(r.Rebuilds), maxRebuilds)
	}
	for i, e := range r.Rebuilds {
		statement, _, err := e.rebuild(nil)
		if err != nil {
			return fmt.Errorf("rebuild %d: %w", i, err)
		}
		if statement.Manifest != r.Manifest {
			return fmt.Errorf("rebuild %d is of manifest %s, want %s", i, statement.Manifest, r.Manifest)
		}
		if i > 0 && r.Rebuilds[i-1].Signatures[0].KeyID >= e.Signatures[0].KeyID {
			return fmt.Errorf("rebuild %d: its key stands out of order or twice", i)
		}
	}
	return nil
}

// AddRebuild puts a signed statement into the list that it speaks of.
func (d *Document) AddRebuild(signed []byte) error {
	e, err := parseEnvelope(signed, rebuildPayloadType, maxRebuildBytes)
	if err != nil {
		return fmt.Errorf("adding rebuild: %w", err)
	}
	statement, _, err := e.rebuild(nil)
	if err != nil {
		return fmt.Errorf("adding rebuild: %w", err)
	}
	i := slices.IndexFunc(d.Releases, func(r Listed) bool { return r.Manifest == statement.Manifest })
	if i < 0 {
		return fmt.Errorf("adding rebuild: the list has no release with manifest %s", statement.Manifest)
	}
	r := &d.Releases[i]
	at, twice := slices.BinarySearchFunc(r.Rebuilds, e.Signatures[0].KeyID,
		func(e Envelope, id string) int { return bytes.Compare([]byte(e.Signatures[0].KeyID), []byte(id)) })
	if twice {
		return fmt.Errorf("adding rebuild: key %s speaks of %q already", e.Signatures[0].KeyID, r.Values.Name)
	}
	r.Rebuilds = slices.Insert(r.Rebuilds, at, e)
	return nil
}

// NewDocument returns an empty list.
func NewDocument(issued time.Time, lasts time.Duration) Document {
	issued = issued.UTC().Truncate(time.Second)
	return Document{Format: releaseListFormat, Issued: issued, Expires: issued.Add(lasts).Truncate(time.Second),
		Releases: []Listed{}, Revoked: []Revoked{}}
}

// Issued returns the time at which the signers issued the list. A client that keeps it refuses an older list later.
func (l *List) Issued() time.Time { return l.document.Issued }

// Releases returns what the list says may run.
func (l *List) Releases() []Listed { return slices.Clone(l.document.Releases) }

// Revoked returns what the list says must not run.
func (l *List) Revoked() []Revoked { return slices.Clone(l.document.Revoked) }

// Signers returns which of the signers that were passed in signed it.
func (l *List) Signers() []pubkey.Ed25519 { return slices.Clone(l.signers) }

// Fresh reports whether the list may be used now: issued, not expired, and not older than maxAge, which must be positive.
func (l *List) Fresh(now time.Time, maxAge time.Duration) error {
	d := l.document
	switch age := now.Sub(d.Issued); {
	case maxAge <= 0:
		return fmt.Errorf("judging release list: maximum age is %v, want more", maxAge)
	case now.Before(d.Issued):
		return fmt.Errorf("%w: release list is not yet issued: now is %s, issued %s", check.ErrRejected, now.UTC().Format(time.RFC3339),
			d.Issued.Format(time.RFC3339))
	case !now.Before(d.Expires):
		return fmt.Errorf("%w: release list has expired: now is %s, expires %s", check.ErrRejected, now.UTC().Format(time.RFC3339),
			d.Expires.Format(time.RFC3339))
	case age > maxAge:
		return fmt.Errorf("%w: release list is too old: issued %s, which is %v ago, want at most %v", check.ErrRejected,
			d.Issued.Format(time.RFC3339), age.Truncate(time.Second), maxAge)
	}
	return nil
}

// Release returns the listed release of that name. A revoked or unknown release is refused.
func (l *List) Release(name string) (Listed, error) {
	for _, r := range l.document.Revoked {
		if r.Name == name {
			return Listed{}, fmt.Errorf("%w: release %q is revoked: %s", check.ErrRejected, name, r.Reason)
		}
	}
	for _, r := range l.document.Releases {
		if r.Values.Name == name {
			return r, nil
		}
	}
	return Listed{}, fmt.Errorf("%w: release %q is not listed", check.ErrRejected, name)
}

// Judge reports whether the named release may run now: the list is Fresh, and lists it.
func (l *List) Judge(release string, now time.Time, maxAge time.Duration) error {
	if err := l.Fresh(now, maxAge); err != nil {
		return err
	}
	_, err := l.Release(release)
	return err
}

// Rebuilt reports whether at least threshold of the rebuilders, each counted once, say that they rebuilt the release with
// the same bytes. Statements by others do not count.
func (l *List) Rebuilt(release string, rebuilders []pubkey.Ed25519, threshold int) error {
	if threshold < 1 || threshold > len(rebuilders) {
		return fmt.Errorf("judging rebuilds: threshold is %d of %d rebuilders, want 1 to all of them", threshold, len(rebuilders))
	}
	r, err := l.Release(release)
	if err != nil {
		return err
	}
	count := 0
	for i, e := range r.Rebuilds { // of this manifest, and each key once: reading the list has checked that
		_, key, err := e.rebuild(rebuilders)
		if err != nil {
			return fmt.Errorf("%w: release %q: rebuild %d: %v", check.ErrRejected, release, i, err)
		}
		if !key.IsZero() {
			count++
		}
	}
	if count < threshold {
		return fmt.Errorf("%w: release %q was rebuilt by %d of %d rebuilders, want at least %d", check.ErrRejected, release, count,
			len(rebuilders), threshold)
	}
	return nil
}
