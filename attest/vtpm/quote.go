package vtpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

const (
	magicGenerated = 0xff544347 // TPM_GENERATED_VALUE, section 6.2
	typeQuote      = 0x8018     // TPM_ST_ATTEST_QUOTE, section 6.9
	algSHA256      = 0x000b     // TPM_ALG_SHA256, section 6.3
	algECDSA       = 0x0018     // TPM_ALG_ECDSA

	maxQuoteBytes     = 1024
	maxSignatureBytes = 256
	maxNameBytes      = 68 // TPM2B_NAME: algorithm and the longest digest
	maxExtraBytes     = 64 // TPM2B_DATA
	maxSelections     = 16
	selectBytes       = 3 // 24 registers, section 10.6
)

// Selection is the registers of one bank that a quote covers.
type Selection struct {
	Hash      uint16 // TPM_ALG_ID of the bank
	Registers []uint
}

// String names the bank by its algorithm and lists the registers.
func (s Selection) String() string { return fmt.Sprintf("bank %#06x: %v", s.Hash, s.Registers) }

// Quote is a TPMS_ATTEST of type quote. Until its signature is verified it is what somebody claims.
type Quote struct {
	Signer                   []byte // qualified name of the signing key
	Extra                    []byte // qualifyingData of the one who asked
	Clock                    uint64 // milliseconds
	ResetCount, RestartCount uint32
	Safe                     bool
	FirmwareVersion          uint64
	Selections               []Selection
	Digest                   []byte // over the selected registers
}

// ParseQuote parses a TPMS_ATTEST. It refuses other types than quotes, what a TPM did not generate, and trailing bytes.
func ParseQuote(attest []byte) (*Quote, error) {
	q, err := parseQuote(attest)
	if err != nil {
		return nil, fmt.Errorf("parsing quote: %w", err)
	}
	return q, nil
}

func parseQuote(b []byte) (*Quote, error) {
	if len(b) > maxQuoteBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(b), maxQuoteBytes)
	}
	c := cutter{rest: b}
	if magic := c.uint32(); c.err == nil && magic != magicGenerated {
		return nil, fmt.Errorf("magic is %#x, want %#x", magic, uint32(magicGenerated))
	}
	if typ := c.uint16(); c.err == nil && typ != typeQuote {
		return nil, fmt.Errorf("type is %#x, want a quote, %#x", typ, typeQuote)
	}
	var q Quote
	q.Signer = c.sized(maxNameBytes)
	q.Extra = c.sized(maxExtraBytes)
	q.Clock, q.ResetCount, q.RestartCount = c.uint64(), c.uint32(), c.uint32()
	safe := c.uint8()
	if safe > 1 {
		return nil, fmt.Errorf("safe is %d, want 0 or 1", safe)
	}
	q.Safe = safe == 1
	q.FirmwareVersion = c.uint64()
	count := c.uint32()
	if count > maxSelections {
		return nil, fmt.Errorf("%d selections, want at most %d", count, maxSelections)
	}
	for range count {
		s := Selection{Hash: c.uint16()}
		if n := c.uint8(); c.err == nil && n != selectBytes {
			return nil, fmt.Errorf("selection has %d bytes, want %d", n, selectBytes)
		}
		for i, mask := range c.bytes(selectBytes) {
			for bit := range 8 {
				if mask&(1<<bit) != 0 {
					s.Registers = append(s.Registers, uint(8*i+bit))
				}
			}
		}
		q.Selections = append(q.Selections, s)
	}
	q.Digest = c.sized(64)
	return &q, c.end()
}

// Marshal returns the TPMS_ATTEST that ParseQuote would parse into q.
func (q *Quote) Marshal() []byte {
	b := binary.BigEndian.AppendUint32(nil, magicGenerated)
	b = binary.BigEndian.AppendUint16(b, typeQuote)
	b = appendSized(appendSized(b, q.Signer), q.Extra)
	b = binary.BigEndian.AppendUint64(b, q.Clock)
	b = binary.BigEndian.AppendUint32(b, q.ResetCount)
	b = binary.BigEndian.AppendUint32(b, q.RestartCount)
	if q.Safe {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, q.FirmwareVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(q.Selections)))
	for _, s := range q.Selections {
		b = append(binary.BigEndian.AppendUint16(b, s.Hash), selectBytes)
		var mask [selectBytes]byte
		for _, r := range s.Registers {
			mask[r/8] |= 1 << (r % 8)
		}
		b = append(b, mask[:]...)
	}
	return appendSized(b, q.Digest)
}

// SHA256Selection is the selection of registers in the SHA-256 bank.
func SHA256Selection(registers []uint) Selection {
	return Selection{Hash: algSHA256, Registers: slices.Clone(registers)}
}

// Selects reports whether the quote covers exactly the given registers, ascending, of the SHA-256 bank, and no other bank.
func (q *Quote) Selects(registers []uint) bool {
	return len(q.Selections) == 1 && q.Selections[0].Hash == algSHA256 && slices.Equal(q.Selections[0].Registers, registers)
}

// Digest returns what a quote's digest must be over these values of the SHA-256 bank, in the order of their registers.
func Digest(values [][32]byte) [32]byte {
	h := sha256.New()
	for _, v := range values {
		h.Write(v[:])
	}
	return [32]byte(h.Sum(nil))
}

// Signature is an ECDSA TPMT_SIGNATURE over SHA-256.
type Signature struct{ R, S []byte }

// ParseSignature parses a TPMT_SIGNATURE and refuses other algorithms than ECDSA with SHA-256.
func ParseSignature(b []byte) (Signature, error) {
	if len(b) > maxSignatureBytes {
		return Signature{}, fmt.Errorf("parsing quote signature: %d bytes, want at most %d", len(b), maxSignatureBytes)
	}
	c := cutter{rest: b}
	alg, hash := c.uint16(), c.uint16()
	if c.err == nil && (alg != algECDSA || hash != algSHA256) {
		return Signature{}, fmt.Errorf("parsing quote signature: algorithms are %#x and %#x, want ECDSA (%#x) and SHA-256 (%#x)", alg,
			hash, algECDSA, algSHA256)
	}
	s := Signature{R: c.sized(32), S: c.sized(32)}
	if err := c.end(); err != nil {
		return Signature{}, fmt.Errorf("parsing quote signature: %w", err)
	}
	return s, nil
}

// Marshal returns the TPMT_SIGNATURE.
func (s Signature) Marshal() []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, algECDSA), algSHA256)
	return appendSized(appendSized(b, s.R), s.S)
}

// Verify reports whether the signature is the key's over the bytes of a TPMS_ATTEST. A key on another curve than P-256
// verifies nothing.
func (s Signature) Verify(key *ecdsa.PublicKey, attest []byte) bool {
	if key == nil || key.Curve != elliptic.P256() {
		return false
	}
	sum := sha256.Sum256(attest)
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(s.R), new(big.Int).SetBytes(s.S))
}

var errShort = errors.New("it ends early")

// cutter takes big-endian fields off a byte string. After the first error it returns zeros.
type cutter struct {
	rest []byte
	err  error
}

func (c *cutter) bytes(n int) []byte {
	if c.err == nil && len(c.rest) < n {
		c.err = errShort
	}
	if c.err != nil {
		return make([]byte, min(n, 8))
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cutter) uint8() uint8   { return c.bytes(1)[0] }
func (c *cutter) uint16() uint16 { return binary.BigEndian.Uint16(c.bytes(2)) }
func (c *cutter) uint32() uint32 { return binary.BigEndian.Uint32(c.bytes(4)) }
func (c *cutter) uint64() uint64 { return binary.BigEndian.Uint64(c.bytes(8)) }

// sized takes a TPM2B: a length and as many bytes.
func (c *cutter) sized(most int) []byte {
	n := int(c.uint16())
	if c.err == nil && n > most {
		c.err = fmt.Errorf("a field has %d bytes, want at most %d", n, most)
	}
	if c.err != nil {
		return nil
	}
	return c.bytes(n)
}

// end returns the first error, or one that says that bytes are left.
func (c *cutter) end() error {
	if c.err == nil && len(c.rest) > 0 {
		return fmt.Errorf("%d bytes after the end, want none", len(c.rest))
	}
	return c.err
}

func appendSized(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}
