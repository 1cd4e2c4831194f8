package oracle

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"chrysalis/attest/check"
)

var now = time.UnixMilli(1_800_000_000_000).UTC()

type point struct {
	feed  string
	value uint64
}

func key(n byte) *secp256k1.PrivateKey {
	return secp256k1.PrivKeyFromBytes(bytes.Repeat([]byte{n}, 32))
}

func signerOf(n byte) Signer { return Signer(keccak(key(n).PubKey().SerializeUncompressed()[1:])[12:]) }

// unsigned is what a signer signs.
func unsigned(at time.Time, points ...point) []byte {
	var b []byte
	for _, p := range points {
		b = append(b, append([]byte(p.feed), make([]byte, feedBytes-len(p.feed))...)...)
		b = binary.BigEndian.AppendUint64(append(b, make([]byte, valueBytes-8)...), p.value)
	}
	ms := uint64(at.UnixMilli())
	b = append(b, byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
	b = binary.BigEndian.AppendUint32(b, valueBytes)
	return append(b, byte(len(points)>>16), byte(len(points)>>8), byte(len(points)))
}

func sign(n byte, b []byte) []byte {
	compact := ecdsa.SignCompact(key(n), keccak(b), false)
	return append(append(bytes.Clone(b), compact[1:]...), compact[0])
}

func said(n byte, value uint64) []byte {
	return sign(n, unsigned(now.Add(-time.Second), point{"BTC", 9}, point{"TON", value}))
}

// TestAddress: addresses of two keys as every library of Ethereum's has them.
func TestAddress(t *testing.T) {
	for n, want := range map[byte]string{0x11: "0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a", 0x22: "0x1563915e194d8cfba1943570603f7606a3115508"} {
		if got := signerOf(n).String(); got != want {
			t.Errorf("key %x: got %s, want %s", n, got, want)
		}
		if got, err := ParseSigner(strings.ToUpper(want[2:])); err != nil || got != signerOf(n) {
			t.Errorf("%s: read as %s (%v)", want, got, err)
		}
	}
	for _, text := range []string{"", "0x", "19e7", "0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a00", strings.Repeat("g", 40)} {
		if got, err := ParseSigner(text); err == nil {
			t.Errorf("%q: read as %s", text, got)
		}
	}
}

func TestParse(t *testing.T) {
	good := said(1, 3_21000000)
	p, err := Parse(good)
	if err != nil || p.Signer != signerOf(1) || !p.Time.Equal(now.Add(-time.Second)) || len(p.Prices) != 2 || p.Prices["TON"] != 3_21000000 {
		t.Fatalf("got %+v (%v)", p, err)
	}
	at := func(i int, v byte) []byte { b := bytes.Clone(good); b[i] = v; return b }
	tail := len(good) - tailBytes
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":               {nil, "has 0 bytes"},
		"too much":              {make([]byte, MaxPackageBytes+1), "bytes, want"},
		"a byte behind":         {append(bytes.Clone(good), 0), "a value has"},
		"values of 16 bytes":    {at(tail+timeBytes+3, 16), "a value has 16"},
		"one point too many":    {at(tail+timeBytes+sizeBytes+2, 3), "3 points take 128"},
		"no points":             {sign(1, unsigned(now)), "0 points"},
		"another v":             {at(len(good)-1, 29), "ends with 29"},
		"a feed twice":          {sign(1, unsigned(now, point{"TON", 1}, point{"TON", 2})), "each once"},
		"a feed of nothing":     {sign(1, unsigned(now, point{"", 1})), "each once"},
		"a feed with an escape": {sign(1, unsigned(now, point{"T\x1b", 1})), "printable"},
		"a price of nothing":    {sign(1, unsigned(now, point{"TON", 0})), "price of TON is 0"},
		"a price beyond":        {at(feedBytes+20, 1), "price of BTC"},
		"r of zeros":            {append(append(bytes.Clone(good[:len(good)-65]), make([]byte, 32)...), good[len(good)-33:]...), "signature:"},
	} {
		if p, err := Parse(tt.raw); !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, p, err, tt.want)
		}
	}
	// Any other byte makes another signer of it, or none.
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1
		if p, err := Parse(b); err == nil && p.Signer == signerOf(1) {
			t.Errorf("byte %d changes, and the signer is the same", i)
		}
	}
}

func TestJudge(t *testing.T) {
	trusted := Options{Feed: "TON", Signers: []Signer{signerOf(1), signerOf(2), signerOf(3)}, Threshold: 3, MaxAge: time.Minute, Now: now}
	three := [][]byte{said(1, 3_00000000), said(2, 9_00000000), said(3, 3_10000000)}
	p, err := Judge(three, trusted)
	if err != nil || p.PerCoin != 3_10000000 || p.Signers != 3 || !p.Oldest.Equal(now.Add(-time.Second)) {
		t.Fatalf("got %+v (%v), want the median", p, err)
	}
	for name, tt := range map[string]struct {
		packages [][]byte
		change   func(*Options)
		want     string
	}{
		"one is missing":      {three[:2], nil, "2 signers, want 3"},
		"one twice":           {[][]byte{three[0], three[1], said(1, 5)}, nil, "two packages are by"},
		"a stranger":          {append(three[:2:2], said(4, 3)), nil, "not trusted"},
		"an old one":          {append(three[:2:2], sign(3, unsigned(now.Add(-2*time.Minute), point{"TON", 3}))), nil, "may be 1m0s old"},
		"one of the future":   {append(three[:2:2], sign(3, unsigned(now.Add(2*time.Minute), point{"TON", 3}))), nil, "may be 1m0s old"},
		"another feed":        {append(three[:2:2], sign(3, unsigned(now, point{"BTC", 3}))), nil, "no price of TON"},
		"a broken one":        {append(three[:2:2], three[2][1:]), nil, "reading price"},
		"nobody is trusted":   {three, func(o *Options) { *o = Options{Feed: "TON", MaxAge: 1, Now: now} }, "want one at least"},
		"more than there are": {three, func(o *Options) { o.Threshold = 4 }, "want one at least"},
		"no threshold":        {three, func(o *Options) { o.Threshold = 0 }, "want one at least"},
		"no age":              {three, func(o *Options) { o.MaxAge = 0 }, "want one at least"},
	} {
		o := trusted
		if tt.change != nil {
			tt.change(&o)
		}
		if p, err := Judge(tt.packages, o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, p, err, tt.want)
		}
	}
	for nanotons, want := range map[uint64]string{0: "0.00", 1_000_000_000: "3.10", 1_000_000: "0.00", 1_612_904: "0.01", 1<<64 - 1: "57184906628.50"} {
		if got := p.Of(nanotons); got != want {
			t.Errorf("%d nanotons: got %s, want %s", nanotons, got, want)
		}
	}
}

func TestReadPackages(t *testing.T) {
	all, err := ReadPackages([]byte("0x" + hex.EncodeToString(said(1, 3)) + "\n\n" + hex.EncodeToString(said(2, 3)) + "\r\n"))
	if err != nil || len(all) != 2 || !bytes.Equal(all[1], said(2, 3)) {
		t.Errorf("got %d packages (%v), want two", len(all), err)
	}
	for _, text := range []string{"", "\n", "hello", "0x1"} {
		if all, err := ReadPackages([]byte(text)); err == nil {
			t.Errorf("%q: got %d packages", text, len(all))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(said(1, 3))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, check.ErrRejected) {
				t.Fatal(err)
			}
			return
		}
		if want := (len(raw) - tailBytes) / (feedBytes + valueBytes); len(p.Prices) != want {
			t.Fatalf("%d prices in a package of %d points", len(p.Prices), want)
		}
	})
}
