// Package handover is the one rule by which a guest's secret passes to another guest, on every platform and by every way that it may
// take: to registers equal to the giver's own, or to a release of a higher security version that the keys in the giver's image stand
// for; under the same identity, on the same platform, never down. HANDOVER.md beside this file is the specification.
//
//	err := handover.Handover{Giver: own, Taker: other, Image: image, Narrowed: identity.Handover, List: signed}.Judge()
//
// What this package does not promise: that the parties are what is said of them. A giver knows its own registers from its hardware, and
// the taker's are what the secret is sealed to, or what evidence of the taker's has proved.
package handover

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/measure/config"
	"chrysalis/measure/fault"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// Image is what an image says of itself and of those that may follow it: a file of its initrd, and so measured.
type Image struct {
	SecurityVersion uint32           `json:"security_version"`
	Signers         []pubkey.Ed25519 `json:"signers"`   // of release lists, sorted, each once; none: nothing follows this image
	Threshold       int              `json:"threshold"` // how many of them a list needs; 0 without signers
}

const (
	maxImageBytes = 8 << 10
	maxSigners    = 64
)

// ParseImage reads the file in its one encoding.
func ParseImage(data []byte) (Image, error) {
	i, err := parseImage(data)
	if err != nil {
		return Image{}, fmt.Errorf("reading an image's release keys: %w", err)
	}
	return i, nil
}

func parseImage(data []byte) (i Image, err error) {
	if len(data) > maxImageBytes {
		return i, fmt.Errorf("%d bytes, want at most %d", len(data), maxImageBytes)
	}
	if err := json.Unmarshal(data, &i, json.RejectUnknownMembers(true)); err != nil {
		return i, fault.JSON(err)
	}
	again, err := i.encode()
	if err != nil {
		return i, err
	}
	if !bytes.Equal(again, data) {
		return i, fmt.Errorf("the bytes are not the one encoding of their content: got %.80q, want %.80q", data, again)
	}
	return i, nil
}

// Encode returns the file's bytes.
func (i Image) Encode() ([]byte, error) {
	data, err := i.encode()
	if err != nil {
		return nil, fmt.Errorf("writing an image's release keys: %w", err)
	}
	return data, nil
}

func (i Image) encode() ([]byte, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	if i.Signers == nil {
		i.Signers = []pubkey.Ed25519{}
	}
	return json.Marshal(i, json.Deterministic(true))
}

func (i Image) check() error {
	if i.SecurityVersion == 0 {
		return errors.New("security version is 0, want more")
	}
	n := len(i.Signers)
	if n > maxSigners || n == 0 && i.Threshold != 0 || n > 0 && (i.Threshold < 1 || i.Threshold > n) {
		return fmt.Errorf("threshold is %d of %d signers, want 1 to all of at most %d, or neither", i.Threshold, n, maxSigners)
	}
	for at, key := range i.Signers {
		if key.IsZero() || at > 0 && bytes.Compare(i.Signers[at-1][:], key[:]) >= 0 {
			return fmt.Errorf("signer %d is %s, want keys that are not zero, sorted, each once", at, key)
		}
	}
	return nil
}

// Party is who gives or takes: a measured image, and whom it works for.
type Party struct {
	Platform  evidence.Platform
	Registers map[string][]byte // by the register's name; those of the platform that name an image count
	Identity  register.Digest   // of the config's identity part, as in the runtime log
}

// Naming returns the registers that name an image on a platform, by name and in order: what the platform's seal binds a secret to. On a vtpm those
// that are left follow from these, from the machine's shape or from the config.
func Naming(p evidence.Platform) []string {
	if p == evidence.VTPM {
		return []string{register.PCR(0), register.PCR(4), register.PCR(9)}
	}
	return release.Registers(p)
}

// measurementLabel opens the hash of a measurement, so that it is no other digest.
const measurementLabel = "chrysalis measurement v1\n"

// Measurement is the digest that stands for an image on a platform where those are listed that have held a secret: SHA-256 of the
// label, the platform's name, and name and value of each register that names an image, each of these preceded by its length in one
// byte. It is an error if one of them is missing.
func Measurement(p evidence.Platform, registers map[string][]byte) (register.Digest, error) {
	names := Naming(p)
	if len(names) == 0 {
		return register.Digest{}, fmt.Errorf("measurement on %s: it has no registers", p)
	}
	text := []byte(measurementLabel)
	add := func(part []byte) { text = append(append(text, byte(len(part))), part...) }
	add([]byte(p.String()))
	for _, name := range names {
		value := registers[name]
		if len(value) == 0 || len(value) > 255 {
			return register.Digest{}, fmt.Errorf("measurement on %s: %s has %d bytes, want a digest", p, name, len(value))
		}
		add([]byte(name))
		add(value)
	}
	return sha256.Sum256(text), nil
}

// Handover is a secret that is asked to pass.
type Handover struct {
	Giver, Taker Party
	Image        Image           // the giver's
	Narrowed     config.Handover // by the identity of the giver
	List         []byte          // a signed release list that names the taker; empty: none was given. Untrusted
}

// Judge reports whether the secret may pass: nil, or an error that says what was got and what was wanted.
func (h Handover) Judge() error {
	if err := h.judge(); err != nil {
		return fmt.Errorf("judging handover: %w", err)
	}
	return nil
}

func (h Handover) judge() error {
	return h.judgeBoth(func(_, taker register.Digest) error {
		return h.judgeListed("taker", h.Taker.Platform, taker, func(version uint32) bool { return version > h.Image.SecurityVersion }, "more than the giver's")
	})
}

// judgeBoth judges what both sides must have in common. other judges those of different registers.
func (h Handover) judgeBoth(other func(giver, taker register.Digest) error) error {
	if !slices.Contains([]config.Handover{config.HandoverReleases, config.HandoverSame}, h.Narrowed) {
		return fmt.Errorf("the identity's handover is %.40q, want %q, or none given", h.Narrowed, config.HandoverSame)
	}
	if h.Taker.Platform != h.Giver.Platform {
		return fmt.Errorf("the taker's platform is %s, want the giver's, %s", h.Taker.Platform, h.Giver.Platform)
	}
	if h.Taker.Identity != h.Giver.Identity || h.Giver.Identity == (register.Digest{}) {
		return fmt.Errorf("the taker's identity is %s, want the giver's, %s", h.Taker.Identity, h.Giver.Identity)
	}
	giver, err := Measurement(h.Giver.Platform, h.Giver.Registers)
	if err != nil {
		return fmt.Errorf("the giver's %w", err)
	}
	taker, err := Measurement(h.Taker.Platform, h.Taker.Registers)
	if err != nil {
		return fmt.Errorf("the taker's %w", err)
	}
	if taker == giver {
		return nil
	}
	if err := other(giver, taker); err != nil {
		return fmt.Errorf("%s, and %w", h.differ(), err)
	}
	return nil
}

// JudgeGiver reports whether the taker may take a secret from the giver, with Image the taker's own: whoever made the secret could know
// it still, and a taker that took it from just anybody would sign with a stranger's key. The giver has the taker's own registers, or those of a
// release of a lower security version in a list that the keys in the taker's image stand for.
func (h Handover) JudgeGiver() error {
	if err := h.judgeBoth(func(giver, _ register.Digest) error {
		return h.judgeListed("giver", h.Giver.Platform, giver, func(version uint32) bool { return version < h.Image.SecurityVersion }, "less than the taker's")
	}); err != nil {
		return fmt.Errorf("judging giver: %w", err)
	}
	return nil
}

// Adds returns the measurement that the list of those who have held the secret grows by: the giver's, or zeros where the taker's is the same.
func (h Handover) Adds() (register.Digest, error) {
	giver, err := Measurement(h.Giver.Platform, h.Giver.Registers)
	if err != nil {
		return register.Digest{}, err
	}
	taker, err := Measurement(h.Taker.Platform, h.Taker.Registers)
	if err != nil || taker == giver {
		return register.Digest{}, err
	}
	return giver, nil
}

// differ says in which register the taker is another image.
func (h Handover) differ() string {
	for _, name := range Naming(h.Giver.Platform) {
		if got, want := h.Taker.Registers[name], h.Giver.Registers[name]; !bytes.Equal(got, want) {
			return fmt.Sprintf("the taker's %s is %x, the giver's own %x", name, got, want)
		}
	}
	return "the taker is the giver's own image"
}

// judgeListed judges one side, called who, of another image than the other's: a list that the keys in Image stand for must name a release
// with its registers, and the release's security version be fit.
func (h Handover) judgeListed(who string, p evidence.Platform, measurement register.Digest, fit func(version uint32) bool, want string) error {
	if h.Narrowed == config.HandoverSame {
		return fmt.Errorf("the identity's handover is %q", h.Narrowed)
	}
	if len(h.Image.Signers) == 0 {
		return errors.New("the image that judges names no key that could sign another")
	}
	if len(h.List) == 0 {
		return errors.New("there is no release list that names it")
	}
	list, err := release.ParseList(h.List, h.Image.Signers, h.Image.Threshold)
	if err != nil {
		return err
	}
	named, all := false, list.Releases()
	for i := range all {
		r := &all[i].Values
		if !has(r, p, measurement) {
			continue
		}
		// Where a list has the same registers more than once, each version must be fit.
		if named = true; !fit(r.SecurityVersion) {
			return fmt.Errorf("release %q has security version %d, want %s, %d", r.Name, r.SecurityVersion, want, h.Image.SecurityVersion)
		}
	}
	if !named {
		return fmt.Errorf("none of the %d releases of the list has the %s's registers on %s", len(all), who, p)
	}
	return nil
}

// has reports whether one of the release's machines shows that measurement. An entry that leaves one of the registers open names none.
func has(r *release.Release, p evidence.Platform, measurement register.Digest) bool {
	return slices.ContainsFunc(r.Entries(p), func(e release.Entry) bool {
		m, err := Measurement(p, e.Values)
		return err == nil && m == measurement
	})
}
