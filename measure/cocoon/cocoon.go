// Package cocoon has the names by which COCOON's root contract knows images and models: the hash of an image, the hash of a model's name, and
// what RTMR3 holds in a guest of the reference network.
//
// The common path: fill in a TD from a verified quote, or from computed registers, and take its ImageHash.
//
// What this package does not promise: that a root contract lists a hash, or that a guest with a listed one is sound. The hash covers neither
// attributes and modules of a TD nor policy and patch levels of SEV-SNP: attest judges those.
package cocoon

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"

	"chrysalis/measure/register"
)

// TD is what an image hash covers of a TD's report.
type TD struct {
	MRTD, MRConfigID, MROwner, MROwnerConfig [48]byte
	RTMR                                     [4][48]byte
}

// reportData is the place of a report's data, zeroed: it differs from key to key.
var reportData [64]byte

// ImageHash returns the hash of a TD's image: SHA-256 of the registers in the order of the report, and of 64 zeros.
func (t TD) ImageHash() register.Digest {
	h := sha256.New()
	for _, r := range [][48]byte{t.MRTD, t.MRConfigID, t.MROwner, t.MROwnerConfig, t.RTMR[0], t.RTMR[1], t.RTMR[2], t.RTMR[3]} {
		h.Write(r[:])
	}
	h.Write(reportData[:])
	return register.Digest(h.Sum(nil))
}

// SNPImageHash returns the hash of the image of an SEV-SNP guest: SHA-256 of the launch digest, and of 64 zeros.
func SNPImageHash(measurement [48]byte) register.Digest {
	return sha256.Sum256(append(measurement[:], reportData[:]...))
}

// Lines returns what a guest of the reference that serves has extended RTMR3 by, in order: each line by its SHA-384. tree is the id of its
// configuration's tree, as git has it with SHA-256.
func Lines(tree [32]byte) []string {
	return []string{"cocoon:spec.tree=" + hex.EncodeToString(tree[:]), "cocoon:tdx_inited"}
}

// RTMR3 returns what RTMR3 holds then.
func RTMR3(tree [32]byte) (r [48]byte) {
	for _, line := range Lines(tree) {
		digest := sha512.Sum384([]byte(line))
		r = sha512.Sum384(append(r[:], digest[:]...))
	}
	return r
}

// NoTree returns the id of the tree without files, as git has it with SHA-256. Guests of ours have no tree of configuration: with this one
// in RTMR3 all configs of a release have one image hash.
func NoTree() [32]byte { return sha256.Sum256([]byte("tree 0\x00")) }

// Model is a model as the network names it.
type Model struct {
	Name, Revision string
	Root           register.Digest // of its volume
}

// String returns the name in full: NAME@REVISION:ROOT.
func (m Model) String() string { return fmt.Sprintf("%s@%s:%s", m.Name, m.Revision, m.Root) }

// Key returns what the root contract lists: the SHA-256 of the name in full.
func (m Model) Key() register.Digest { return sha256.Sum256([]byte(m.String())) }
