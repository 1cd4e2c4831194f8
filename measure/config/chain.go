package config

import (
	"fmt"
	"net/netip"
	"time"

	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

// Chain says that charges are settled on chain, and how. A guest with it proves the chain for itself, serves whom what it has proven
// covers, and signs payouts and refunds; without it, it signs charges and asks nobody.
type Chain struct {
	// Params is the hash of the root contract's params cell, codes of the contracts among them. Price and weights are the config's too.
	Params register.Digest `json:"params"`
	// MaxAgeSeconds is how old the newest block that was proven may be for anybody to be served or anything to be signed by it.
	MaxAgeSeconds uint32 `json:"max_age_seconds"`
	// Coefficient is the band of what weighted tokens are multiplied by. It is left out where that is one.
	Coefficient Band `json:"coefficient,omitzero"`
	// Anchor is a key block from which on blocks are proven. It is left out for mainnet, of which one is compiled in.
	Anchor Anchor `json:"anchor,omitzero"`
}

// Band is from where to where a coefficient goes, in parts of ton.WeightOne. Where both are the same, it is fixed; else it follows the guest's queue.
type Band struct {
	Min uint32 `json:"min"`
	Max uint32 `json:"max"`
}

// Coefficients returns the band, which is one where none is given.
func (c Chain) Coefficients() Band {
	if c.Coefficient == (Band{}) {
		return Band{ton.WeightOne, ton.WeightOne}
	}
	return c.Coefficient
}

// At returns the coefficient when so many of so many places in a queue are taken.
func (b Band) At(waiting, places int) uint32 {
	if places <= 0 {
		return b.Min
	}
	return b.Min + uint32(uint64(b.Max-b.Min)*uint64(max(0, min(waiting, places)))/uint64(places))
}

// Takes reports whether a receipt may have a coefficient: one of the band where charges are settled on chain, and none elsewhere.
func (s Service) Takes(coefficient uint32) bool {
	if !s.Settles() {
		return coefficient == 0
	}
	b := s.Chain.Coefficients()
	return b.Min <= coefficient && coefficient <= b.Max
}

const maxCoefficient = 100 * ton.WeightOne

// Anchor is a key block of the masterchain that is believed without proof.
type Anchor struct {
	GlobalID int32           `json:"global_id"` // of the network, which each of its blocks says
	Seqno    uint32          `json:"seqno"`
	RootHash register.Digest `json:"root_hash"`
	FileHash register.Digest `json:"file_hash"`
}

// Settles reports whether charges are settled on chain.
func (s Service) Settles() bool { return s.Chain != Chain{} }

// MaxAge is how old the newest block that was proven may be.
func (c Chain) MaxAge() time.Duration { return time.Duration(c.MaxAgeSeconds) * time.Second }

const (
	minBlockAgeSeconds = 10
	maxBlockAgeSeconds = 3600
)

func (m Measured) validateChain() error {
	c := m.Service.Chain
	switch {
	case !m.Service.Settles():
		return nil
	case m.Service.Price.Payment != PayCharge || m.Service.Price.NanotonPerToken == 0:
		return fmt.Errorf("it is given with payment %q at %d nanotons, want payment %q at more than none", m.Service.Price.Payment,
			m.Service.Price.NanotonPerToken, PayCharge)
	case c.Params == register.Digest{}:
		return fmt.Errorf("params is zero, want the hash of the root's params")
	case c.MaxAgeSeconds < minBlockAgeSeconds || c.MaxAgeSeconds > maxBlockAgeSeconds:
		return fmt.Errorf("max_age_seconds is %d, want %d to %d", c.MaxAgeSeconds, minBlockAgeSeconds, maxBlockAgeSeconds)
	case c.Coefficient != Band{} && (c.Coefficient.Min == 0 || c.Coefficient.Min > c.Coefficient.Max || c.Coefficient.Max > maxCoefficient ||
		c.Coefficient == Band{ton.WeightOne, ton.WeightOne}):
		return fmt.Errorf("coefficient goes from %d to %d, want from 1 up, to %d at most, or none given where it is one", c.Coefficient.Min,
			c.Coefficient.Max, maxCoefficient)
	case m.Identity.Network == Mainnet && c.Anchor != Anchor{}:
		return fmt.Errorf("anchor is block %d, want none given: that of %s is compiled in", c.Anchor.Seqno, Mainnet)
	case m.Identity.Network != Mainnet && (c.Anchor.Seqno == 0 || c.Anchor.RootHash == register.Digest{}):
		return fmt.Errorf("anchor is block %d, %s, want a key block of network %s", c.Anchor.Seqno, c.Anchor.RootHash, m.Identity.Network)
	}
	return nil
}

// HostChain is how a guest reaches the chain. All that comes by it is proven, and none of this is believed.
type HostChain struct {
	Liteservers []Liteserver `json:"liteservers"` // who are asked, 2 to 16
	// Params is the root's params cell as a bag of cells. The measured config has its hash.
	Params []byte `json:"params"`
	// Close asks the guest to bring its contracts to their end: it serves nobody any more, and closes its proxy once everybody is settled.
	Close bool `json:"close,omitzero"`
}

// Liteserver is where one listens, and the Ed25519 key that its answers come under.
type Liteserver struct {
	Address netip.AddrPort  `json:"address"` // IPv4
	Key     register.Digest `json:"key"`
}

// Bounds of HostChain.
const (
	MinLiteservers = 2 // one alone could keep newer blocks back
	MaxLiteservers = 16
	MaxParamsBytes = 48 << 10
)

// Given reports whether there is a way to the chain.
func (h HostChain) Given() bool { return len(h.Liteservers) > 0 || len(h.Params) > 0 }

// Check wants liteservers and params, in sizes that a document has room for.
func (h HostChain) Check() error {
	if n := len(h.Liteservers); n < MinLiteservers || n > MaxLiteservers {
		return fmt.Errorf("chain: %d liteservers, want %d to %d", n, MinLiteservers, MaxLiteservers)
	}
	seen := map[register.Digest]bool{}
	for _, s := range h.Liteservers {
		if !s.Address.IsValid() || !s.Address.Addr().Is4() || s.Address.Port() == 0 {
			return fmt.Errorf("chain: address of a liteserver is %q, want an IPv4 address and a port", s.Address)
		}
		if seen[s.Key] {
			return fmt.Errorf("chain: key %s is named twice", s.Key)
		}
		seen[s.Key] = true
	}
	if n := len(h.Params); n == 0 || n > MaxParamsBytes {
		return fmt.Errorf("chain: params have %d bytes, want 1 to %d", n, MaxParamsBytes)
	}
	return nil
}
