// Package config is the document that decides what a guest computes and for whom, and the layout of the disk that
// carries it.
//
// The disk holds the measured config, in two parts (identity, service), and after it the host-given document, which
// is another type: nothing in it changes what is computed or promised. The measured config is hashed as raw bytes
// before anything parses it. CONFIG.md beside this file is the specification.
//
// What this package does not promise: that a config is a good one. It refuses what is malformed or contradictory; which
// engine, model, price or owner is acceptable is judged by the policy of whoever verifies the guest.
package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/fault"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

// Measured is the measured config: what the hardware's evidence commits to.
type Measured struct {
	Identity Identity
	Service  Service
}

// Identity names whom the guest works for. The sealed secret is bound to it: another identity can't unseal.
type Identity struct {
	// Cocoon has a TD take the public identity of COCOON's reference, which is one for all configs of a release: no register and no field of
	// the hardware names the config then. It is left out of the document where it is false, and stands first: see IsCocoon.
	Cocoon       bool        `json:"cocoon,omitzero"`
	Network      Network     `json:"network"`       // chain whose payments count
	RootContract ton.Address `json:"root_contract"` // COCOON root contract that fixes the code and price of payments
	PayoutOwner  ton.Address `json:"payout_owner"`  // account that is paid
	Sealing      Sealing     `json:"sealing"`       // what the secret is bound to
	// Stranding is left out of the document where it is none.
	Stranding Stranding `json:"stranding,omitzero"`
	// Handover is left out of the document where the secret may pass to whatever the image lets it pass to.
	Handover Handover `json:"handover,omitzero"`
	// Custody is left out of the document unless sealing is SealCustodian.
	Custody  Custody  `json:"custody,omitzero"`
	Instance Instance `json:"instance"` // how the instance id comes about
}

// Service says what the guest computes, how, and for how much. A change of it keeps the sealed secret and is visible in
// the evidence.
type Service struct {
	// Custodian is a guest that serves nobody and lends the secret to those that do. It has a GPU rule beside this word, and nothing else.
	Custodian bool   `json:"custodian,omitzero"`
	Engine    Engine `json:"engine,omitzero"`
	Model     Model  `json:"model,omitzero"`
	// Models are there in the place of Engine, Model and Limits where the guest has several, and left out of the document where it has one.
	Models []Served `json:"models,omitzero"`
	GPU    GPURule  `json:"gpu"`
	Limits Limits   `json:"limits,omitzero"`
	Price  Terms    `json:"price,omitzero"`
	// Chain is left out of the document where charges are not settled on chain.
	Chain Chain `json:"chain,omitzero"`
	Wipe  Wipe  `json:"wipe,omitzero"`
}

// Served is a model that is served, by what, and within which bounds.
type Served struct {
	Engine Engine `json:"engine"`
	Model  Model  `json:"model"`
	Limits Limits `json:"limits"`
}

// MaxModels is how many models one guest can have.
const MaxModels = 8

// Served returns what is served, in the config's order: one model, or several, or none by a custodian.
func (s Service) Served() []Served {
	switch {
	case s.Custodian:
		return nil
	case len(s.Models) > 0:
		return slices.Clone(s.Models)
	}
	return []Served{{s.Engine, s.Model, s.Limits}}
}

// Names returns the names that clients ask for, in the config's order.
func (s Service) Names() (names []string) {
	for _, m := range s.Served() {
		names = append(names, m.Model.Name)
	}
	return names
}

// Named returns what answers to a name, its place in the config's order, and reports whether there is such.
func (s Service) Named(name string) (m Served, at int, ok bool) {
	all := s.Served()
	at = slices.IndexFunc(all, func(m Served) bool { return m.Model.Name == name })
	if at < 0 {
		return Served{}, at, false
	}
	return all[at], at, true
}

// Volume names a read-only volume by its dm-verity root hash and its count of 4096-byte data blocks.
type Volume struct {
	Root   register.Digest `json:"root"`
	Blocks uint64          `json:"blocks"`
}

func (v Volume) String() string { return fmt.Sprintf("%s/%d", v.Root, v.Blocks) }

// Engine is the program that computes answers, and how it is started. Nothing else reaches its command line.
type Engine struct {
	Volume Volume `json:"volume"`
	// Dialect names the program's row in package engines. It is left out of the document where that is engines.Default.
	Dialect string   `json:"dialect,omitzero"`
	Argv    []string `json:"argv"` // argv[0] is an absolute path inside the volume
	Env     []string `json:"env"`  // whole environment, NAME=value
	// MemoryBytes is the engine's memory limit; the model's mapped pages count towards it.
	MemoryBytes uint64 `json:"memory_bytes"`
	// SharedMemoryBytes is the size of /dev/shm, over which processes that compute together talk. It counts towards MemoryBytes. Left out: 64 MiB.
	SharedMemoryBytes uint64 `json:"shared_memory_bytes,omitzero"`
	// OpenFiles is how many files one process may have open. Left out: 1024.
	OpenFiles uint32 `json:"open_files,omitzero"`
	// Tasks is how many processes and threads there may be in all. Left out: 512.
	Tasks uint32 `json:"tasks,omitzero"`
}

// What an engine has whose config leaves it out.
const (
	defaultSharedMemoryBytes = 64 << 20
	defaultOpenFiles         = 1024
	defaultTasks             = 512
)

// Shares returns what a process of the engine has of /dev/shm in bytes, of open files, and of tasks.
func (e Engine) Shares() (sharedMemoryBytes uint64, openFiles, tasks uint32) {
	return cmp.Or(e.SharedMemoryBytes, defaultSharedMemoryBytes), cmp.Or(e.OpenFiles, defaultOpenFiles), cmp.Or(e.Tasks, defaultTasks)
}

// Model is the volume with the weights, and the name that clients ask for.
type Model struct {
	Name   string `json:"name"`
	Volume Volume `json:"volume"`
}

// Limits bound what one client can ask for.
type Limits struct {
	RequestBytes  uint32 `json:"request_bytes"`  // largest request body, bytes
	AnswerTokens  uint32 `json:"answer_tokens"`  // most tokens of one answer
	Concurrent    uint32 `json:"concurrent"`     // requests computed at a time
	ContextTokens uint32 `json:"context_tokens"` // prompt and answer together
}

// Terms are what an answer is paid with, and its price.
type Terms struct {
	Payment Payment `json:"payment"`
	ton.Price
}

// Encode returns the measured bytes: each part preceded by its length, u32 little endian. It refuses a config that
// Decode would refuse.
func (m Measured) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	identity, err := canonical(m.Identity)
	if err != nil {
		return nil, fmt.Errorf("encoding identity: %v", err)
	}
	service, err := canonical(m.Service)
	if err != nil {
		return nil, fmt.Errorf("encoding service: %v", err)
	}
	if len(identity) > maxIdentityBytes || len(service) > maxServiceBytes {
		return nil, fmt.Errorf("identity has %d bytes and service %d, want at most %d and %d", len(identity), len(service), maxIdentityBytes,
			maxServiceBytes)
	}
	return appendPart(appendPart(nil, identity), service), nil
}

// Decode parses measured bytes. There is one encoding for each config: bytes that Encode would not have written are
// refused.
func Decode(measured []byte) (Measured, error) {
	identity, service, err := Split(measured)
	if err != nil {
		return Measured{}, err
	}
	var m Measured
	if err := decodeCanonical(identity, &m.Identity); err != nil {
		return Measured{}, fmt.Errorf("decoding identity: %v", err)
	}
	if err := decodeCanonical(service, &m.Service); err != nil {
		return Measured{}, fmt.Errorf("decoding service: %v", err)
	}
	if err := m.validate(); err != nil {
		return Measured{}, err
	}
	return m, nil
}

// Split cuts measured bytes into the JSON of the two parts without parsing either.
func Split(measured []byte) (identity, service []byte, err error) {
	identity, rest, err := cutPart(measured, maxIdentityBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("splitting measured config: identity: %v", err)
	}
	service, rest, err = cutPart(rest, maxServiceBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("splitting measured config: service: %v", err)
	}
	if len(rest) != 0 {
		return nil, nil, fmt.Errorf("splitting measured config: %d bytes after the service part, want none", len(rest))
	}
	return identity, service, nil
}

// SHA256 is the digest of measured bytes that the runtime log, the statement and HOST_DATA carry.
func SHA256(measured []byte) register.Digest { return sha256.Sum256(measured) }

// SHA384 is the digest of measured bytes that MRCONFIGID carries on TDX, but for MRConfigID's exception.
func SHA384(measured []byte) [48]byte { return sha512.Sum384(measured) }

// MRConfigID is what MRCONFIGID has in a TD of these measured bytes: SHA384, or zeros where IsCocoon.
func MRConfigID(measured []byte) [48]byte {
	if IsCocoon(measured) {
		return [48]byte{}
	}
	return SHA384(measured)
}

// cocoonFirst begins the one encoding of an identity that is COCOON's.
const cocoonFirst = `{"cocoon":true,`

// IsCocoon reports whether measured bytes ask for COCOON's public identity. It compares bytes and parses nothing, so that init marks the
// registers before a parser sees the config. Of bytes that Decode accepts it is Identity.Cocoon.
func IsCocoon(measured []byte) bool {
	identity, _, err := Split(measured)
	return err == nil && bytes.HasPrefix(identity, []byte(cocoonFirst))
}

// IdentityDigest is the digest of the identity part alone, with its length prefix.
func IdentityDigest(identity []byte) register.Digest { return sha256.Sum256(appendPart(nil, identity)) }

// ServiceDigest is the digest of the service part alone, with its length prefix. Receipts name it.
func ServiceDigest(service []byte) register.Digest { return sha256.Sum256(appendPart(nil, service)) }

// canonical is the one JSON encoding of a value: fields in the order of the struct, no white space.
func canonical(v any) ([]byte, error) { return json.Marshal(v, json.Deterministic(true)) }

// decodeCanonical decodes data into v and refuses any other encoding than the canonical one. That covers unknown and
// repeated names, other letter case, white space, other number forms and missing fields at once.
func decodeCanonical(data []byte, v any) error {
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true)); err != nil {
		return fault.JSON(err)
	}
	again, err := canonical(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		at := 0
		for at < len(data) && at < len(again) && data[at] == again[at] {
			at++
		}
		return fmt.Errorf("not in canonical form from byte %d: got %.40q, want %.40q", at, data[at:], again[at:])
	}
	return nil
}
