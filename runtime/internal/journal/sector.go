package journal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	sectorBytes = 512 // what a disk writes whole or not at all
	tagBytes    = 16
	dataBytes   = sectorBytes - len(salt{}) - 4 - 8 - tagBytes // of a record in one sector

	label    = "chrysalis journal v2\n"
	keyLabel = "chrysalis journal v2 record\n"
)

// salt names one attempt to write one record, and makes its key.
type salt [20]byte

// sector is one that was opened.
type sector struct {
	salt   salt
	index  uint32
	number uint64
	data   []byte
}

type sectorState int

const (
	sectorZero sectorState = iota
	sectorAuthentic
	sectorBad
)

// sealer seals and opens sectors. It keeps the last record's cipher.
type sealer struct {
	root [32]byte
	last salt
	aead cipher.AEAD
}

// of returns the cipher of the record with that salt. Its nonces are the sectors' indexes.
func (s *sealer) of(x salt) cipher.AEAD {
	if s.aead != nil && s.last == x {
		return s.aead
	}
	key, err := hkdf.Expand(sha256.New, s.root[:], keyLabel+string(x[:]), 32)
	if err == nil {
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			s.aead, err = cipher.NewGCM(block)
		}
	}
	if err != nil {
		panic(fmt.Sprintf("journal: a key of 32 bytes: %v", err))
	}
	s.last = x
	return s.aead
}

func nonce(index uint32) []byte { return binary.LittleEndian.AppendUint32(make([]byte, 8, 12), index) }

func bind(off int64) []byte { return binary.LittleEndian.AppendUint64([]byte(label), uint64(off)) }

// seal encrypts data, which is zeros behind its end, into whole sectors of one new salt, each for its place.
func (s *sealer) seal(number uint64, data []byte, count int, place func(i int) int64) (salt, []byte) {
	var x salt
	rand.Read(x[:])
	aead := s.of(x)
	out := make([]byte, 0, count*sectorBytes)
	plain := make([]byte, 8+dataBytes)
	binary.LittleEndian.PutUint64(plain, number)
	for i := range count {
		clear(plain[8:])
		data = data[copy(plain[8:], data):]
		out = binary.LittleEndian.AppendUint32(append(out, x[:]...), uint32(i))
		out = aead.Seal(out, nonce(uint32(i)), plain, bind(place(i)))
	}
	return x, out
}

// record seals a record of so many sectors behind the one with salt prev.
func (s *sealer) record(number uint64, prev salt, payload []byte, count int, place func(i int) int64) (salt, []byte) {
	data := binary.LittleEndian.AppendUint32(make([]byte, 0, headBytes+len(payload)), uint32(len(payload)))
	return s.seal(number, append(append(data, prev[:]...), payload...), count, place)
}

// open decrypts the sector at an offset.
func (s *sealer) open(raw []byte, off int64) (sector, sectorState) {
	if zero(raw) {
		return sector{}, sectorZero
	}
	x, sealed := salt(raw), raw[len(salt{})+4:]
	index := binary.LittleEndian.Uint32(raw[len(salt{}):])
	plain, err := s.of(x).Open(nil, nonce(index), sealed, bind(off))
	if err != nil {
		return sector{}, sectorBad
	}
	return sector{x, index, binary.LittleEndian.Uint64(plain), plain[8:]}, sectorAuthentic
}

// old reports whether a disk begins with a record of the layout before this one, under the same key.
func (s *sealer) old(raw []byte) bool {
	block, err := aes.NewCipher(s.root[:])
	if err != nil {
		return false
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return false
	}
	const first = "chrysalis journal v1\n"
	_, err = aead.Open(nil, nil, raw[:sectorBytes], append([]byte(first), make([]byte, 8+8+4+32)...)) // offset, number, sector, hash of none
	return err == nil
}

var zeros [blockBytes]byte

func zero(b []byte) bool {
	for ; len(b) > len(zeros); b = b[len(zeros):] {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
	}
	return bytes.Equal(b, zeros[:len(b)])
}
