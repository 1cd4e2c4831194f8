// Package oracle judges prices that an oracle's signers have signed, in the form of RedStone's data packages. It is for showing an amount in
// another currency, and for nothing that is signed or paid.
//
//	package   = point…, u48 milliseconds since 1970, u32 length of a value, u24 number of points, bytes65 signature
//	point     = bytes32 feed (ASCII, zeros behind), value (8 decimals)
//	signature = r, s, v (27 or 28): ECDSA on secp256k1 over the Keccak-256 of all before it
//
// Numbers are big endian. A signer is known by his address: the last 20 bytes of the Keccak-256 of his public key.
//
// The common path: Judge packages against the signers that one trusts.
//
// What this package does not promise: that a price is right. So many of the signers said it, at that time.
package oracle

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/sha3"

	"chrysalis/attest/check"
)

// Signer is the address of a signer.
type Signer [20]byte

// ParseSigner reads an address: 40 hexadecimal digits, with or without 0x.
func ParseSigner(text string) (s Signer, err error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || len(raw) != len(s) {
		return s, fmt.Errorf("signer is %.60q, want 40 hexadecimal digits", text)
	}
	return Signer(raw), nil
}

func (s Signer) String() string { return "0x" + hex.EncodeToString(s[:]) }

// Layout in bytes.
const (
	feedBytes      = 32
	valueBytes     = 32
	timeBytes      = 6
	sizeBytes      = 4
	countBytes     = 3
	signatureBytes = 65
	tailBytes      = timeBytes + sizeBytes + countBytes + signatureBytes

	maxPoints = 256
	// MaxPackageBytes bounds a package.
	MaxPackageBytes = maxPoints*(feedBytes+valueBytes) + tailBytes
)

// Package is what one signer has signed.
type Package struct {
	Signer Signer
	Time   time.Time
	Prices map[string]uint64 // by feed, in 10^-8
}

func keccak(b []byte) []byte {
	h := sha3.NewLegacyKeccak256()
	h.Write(b)
	return h.Sum(nil)
}

// Parse reads a package and finds who has signed it: anybody may have. The error wraps check.ErrRejected.
func Parse(untrusted []byte) (Package, error) {
	p := Package{Prices: map[string]uint64{}}
	refuse := func(format string, args ...any) (Package, error) {
		return Package{}, fmt.Errorf("reading price: %w: "+format, append([]any{check.ErrRejected}, args...)...)
	}
	if len(untrusted) < tailBytes || len(untrusted) > MaxPackageBytes {
		return refuse("package has %d bytes, want %d to %d", len(untrusted), tailBytes, MaxPackageBytes)
	}
	signed, signature := untrusted[:len(untrusted)-signatureBytes], untrusted[len(untrusted)-signatureBytes:]
	points, tail := signed[:len(signed)-(tailBytes-signatureBytes)], signed[len(signed)-(tailBytes-signatureBytes):]
	milliseconds := uint64(binary.BigEndian.Uint16(tail))<<32 | uint64(binary.BigEndian.Uint32(tail[2:]))
	p.Time = time.UnixMilli(int64(milliseconds)).UTC()
	size, count := binary.BigEndian.Uint32(tail[timeBytes:]), uint64(tail[10])<<16|uint64(tail[11])<<8|uint64(tail[12])
	if size != valueBytes {
		return refuse("a value has %d bytes, want %d", size, valueBytes)
	}
	if count == 0 || uint64(len(points)) != count*(feedBytes+valueBytes) {
		return refuse("%d points take %d bytes, want %d each", count, len(points), feedBytes+valueBytes)
	}
	for ; len(points) > 0; points = points[feedBytes+valueBytes:] {
		feed := strings.TrimRight(string(points[:feedBytes]), "\x00")
		if _, twice := p.Prices[feed]; twice || feed == "" || strings.ContainsFunc(feed, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return refuse("feed is %.40q, want each once, in printable ASCII", feed)
		}
		value := new(big.Int).SetBytes(points[feedBytes : feedBytes+valueBytes])
		if !value.IsUint64() || value.Sign() == 0 {
			return refuse("price of %s is %s", feed, value)
		}
		p.Prices[feed] = value.Uint64()
	}
	if v := signature[64]; v != 27 && v != 28 {
		return refuse("signature ends with %d, want 27 or 28", v)
	}
	key, _, err := ecdsa.RecoverCompact(append([]byte{signature[64]}, signature[:64]...), keccak(signed))
	if err != nil {
		return refuse("signature: %v", err)
	}
	p.Signer = Signer(keccak(key.SerializeUncompressed()[1:])[12:])
	return p, nil
}

// Options say whose word counts. The zero Options accept nothing.
type Options struct {
	Feed      string // such as TON
	Signers   []Signer
	Threshold int           // how many of them must have signed
	MaxAge    time.Duration // of each package
	Now       time.Time
}

// Price is what a coin costs.
type Price struct {
	PerCoin uint64    // in 10^-8 of the other currency: the median
	Signers int       // that said so
	Oldest  time.Time // of what they said
}

// Judge returns the median of what trusted signers say, each once and lately. The error wraps check.ErrRejected.
func Judge(untrusted [][]byte, o Options) (Price, error) {
	refuse := func(format string, args ...any) (Price, error) {
		return Price{}, fmt.Errorf("judging price: %w: "+format, append([]any{check.ErrRejected}, args...)...)
	}
	if o.Threshold < 1 || o.Threshold > len(o.Signers) || o.Feed == "" || o.MaxAge <= 0 {
		return Price{}, fmt.Errorf("judging price: %d of %d signers of %q, at most %s old: want one at least", o.Threshold, len(o.Signers), o.Feed, o.MaxAge)
	}
	said := map[Signer]uint64{}
	price := Price{Oldest: o.Now}
	for _, raw := range untrusted {
		p, err := Parse(raw)
		if err != nil {
			return Price{}, err
		}
		if !slices.Contains(o.Signers, p.Signer) {
			return refuse("signed by %s, who is not trusted", p.Signer)
		}
		if _, twice := said[p.Signer]; twice {
			return refuse("two packages are by %s", p.Signer)
		}
		if age := o.Now.Sub(p.Time); age > o.MaxAge || age < -time.Minute {
			return refuse("the package of %s is of %s, and may be %s old", p.Signer, p.Time.Format(time.RFC3339), o.MaxAge)
		}
		value, there := p.Prices[o.Feed]
		if !there {
			return refuse("the package of %s has no price of %s", p.Signer, o.Feed)
		}
		said[p.Signer] = value
		if p.Time.Before(price.Oldest) {
			price.Oldest = p.Time
		}
	}
	if price.Signers = len(said); price.Signers < o.Threshold {
		return refuse("%d signers, want %d", price.Signers, o.Threshold)
	}
	var values []uint64
	for _, v := range said {
		values = append(values, v)
	}
	slices.Sort(values)
	price.PerCoin = values[(len(values)-1)/2]
	return price, nil
}

// Of returns what so many nanotons cost, with two places.
func (p Price) Of(nanotons uint64) string {
	cents := new(big.Int).Mul(new(big.Int).SetUint64(nanotons), new(big.Int).SetUint64(p.PerCoin))
	cents.Add(cents, big.NewInt(5e14)).Div(cents, big.NewInt(1e15)) // 10^9 nanotons, 10^8 parts, less two places
	whole, part := new(big.Int).DivMod(cents, big.NewInt(100), new(big.Int))
	return fmt.Sprintf("%s.%02d", whole, part)
}

// ReadPackages reads packages in hexadecimal digits, one a line.
func ReadPackages(text []byte) (all [][]byte, err error) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "0x")
		if line == "" {
			continue
		}
		raw, err := hex.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("reading prices: line %d: %v", len(all)+1, err)
		}
		all = append(all, raw)
	}
	if len(all) == 0 {
		return nil, errors.New("reading prices: there is none")
	}
	return all, nil
}
