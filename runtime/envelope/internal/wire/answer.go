package wire

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxChunk bounds the plaintext of a chunk, its length and padding included.
const maxChunk = 16 << 10

// ErrCut says that an answer ended before its final chunk: what came of it is authentic, and not all.
var ErrCut = errors.New("the sealed answer ended before its final chunk")

// ErrForged says that a chunk of an answer is not the one that the guest sealed in this place.
var ErrForged = errors.New("the sealed answer is not what the guest sent")

// Secret is what the keys of one answer are made of. Only the two ends of its request have it.
type Secret struct {
	exported [32]byte
	enc      [encBytes]byte
}

// Wipe overwrites the secret.
func (s *Secret) Wipe() { *s = Secret{} }

const nonceBytes = 32 // of an answer: the larger of AES-256-GCM's key and nonce, as in RFC 9458, section 4.4

// chunkKey seals or opens the chunks of one answer in their order.
type chunkKey struct {
	aead  cipher.AEAD
	nonce [12]byte
	count uint64
}

func (s *Secret) chunkKey(nonce []byte) (*chunkKey, error) {
	pseudorandom, err := hkdf.Extract(sha256.New, s.exported[:], append(s.enc[:], nonce...))
	if err != nil {
		return nil, err
	}
	defer clear(pseudorandom)
	key, err := hkdf.Expand(sha256.New, pseudorandom, "key", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	base, err := hkdf.Expand(sha256.New, pseudorandom, "nonce", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	k := &chunkKey{nonce: [12]byte(base)}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

// next returns nonce and associated data of the next chunk: its number is in the one, whether it is the final one in the other.
func (k *chunkKey) next(final bool) (nonce [12]byte, associated []byte) {
	nonce = k.nonce
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^k.count)
	k.count++
	if final {
		associated = []byte("final")
	}
	return nonce, associated
}

// Sealer writes one answer: Begin, then Write and Flush, then Close. It seals what has gathered when it is flushed, or when it fills a
// chunk.
type Sealer struct {
	out   io.Writer
	key   *chunkKey
	plain []byte // what gathers, behind room for its length
	wire  []byte
	begun bool
}

// NewSealer writes the answer's nonce, and returns what seals the rest. It does not keep the secret.
func NewSealer(out io.Writer, secret *Secret) (*Sealer, error) {
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce)
	return newSealer(out, secret, nonce)
}

func newSealer(out io.Writer, secret *Secret, nonce []byte) (*Sealer, error) {
	key, err := secret.chunkKey(nonce)
	if err != nil {
		return nil, err
	}
	s := &Sealer{out: out, key: key, plain: make([]byte, 0, maxChunk), wire: append(make([]byte, 0, nonceBytes+8+maxChunk+tagBytes), nonce...)}
	return s, nil
}

// Begin writes the answer's status and header.
func (s *Sealer) Begin(status int, header []Field) error {
	fields, err := appendFields(nil, header)
	if err != nil {
		return err
	}
	if status < 200 || status > 599 {
		return fmt.Errorf("status %d, want 200 to 599", status)
	}
	s.begun = true
	head := append(appendVarint([]byte{indeterminateLengthResponse}, uint64(status)), fields...)
	return s.add(append(head, 0))
}

// Write adds to the answer's content.
func (s *Sealer) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	err := s.add(appendVarint(nil, uint64(len(p))))
	if err == nil {
		err = s.add(p)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// room is what fits into a chunk besides its own length.
const room = maxChunk - 2

func (s *Sealer) add(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), room-len(s.plain))
		s.plain = append(s.plain, p[:n]...)
		if p = p[n:]; len(s.plain) == room {
			if err := s.chunk(false); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flush sends what has gathered.
func (s *Sealer) Flush() error {
	if len(s.plain) == 0 {
		return nil
	}
	return s.chunk(false)
}

// Close ends the answer with its final chunk, and overwrites what was gathered. An answer that is not closed is cut.
func (s *Sealer) Close() error {
	if !s.begun {
		return errors.New("sealing answer: it has no status")
	}
	err := s.add([]byte{0, 0}) // no more content, no trailer
	if err == nil {
		err = s.chunk(true)
	}
	return err
}

// Wipe overwrites what is left of the answer's text.
func (s *Sealer) Wipe() { clear(s.plain[:cap(s.plain)]) }

func (s *Sealer) chunk(final bool) error {
	n := len(s.plain)
	prefix := appendVarint(nil, uint64(n))
	padded := s.plain[:Bucket(len(prefix)+n)]
	copy(padded[len(prefix):], s.plain)
	copy(padded, prefix)
	clear(padded[len(prefix)+n:])
	length := uint64(len(padded) + tagBytes)
	if final {
		length = 0
	}
	nonce, associated := s.key.next(final)
	b := s.key.aead.Seal(appendVarint(s.wire, length), nonce[:], padded, associated)
	clear(padded)
	s.plain, s.wire = s.plain[:0], s.wire[:0]
	_, err := s.out.Write(b)
	return err
}

// Opener reads one answer. What Read returns is authentic, and it is whole when Read returns io.EOF: an answer that ends before its final
// chunk is ErrCut, a chunk that is not the guest's ErrForged.
type Opener struct {
	Status int
	Header []Field

	chunks  *bufio.Reader
	key     *chunkKey
	final   bool   // the final chunk was opened
	plain   []byte // what was opened and is not read yet
	buffer  []byte
	content uint64 // bytes left of the piece of content that is being read
	err     error
}

// NewOpener reads an answer as far as its header. It does not keep the secret.
func NewOpener(in io.Reader, secret *Secret) (*Opener, error) {
	o := &Opener{chunks: bufio.NewReaderSize(in, maxChunk+tagBytes)}
	var nonce [nonceBytes]byte
	if _, err := io.ReadFull(o.chunks, nonce[:]); err != nil {
		return nil, cut(err)
	}
	var err error
	if o.key, err = secret.chunkKey(nonce[:]); err != nil {
		return nil, err
	}
	if err := o.begin(); err != nil {
		return nil, noMore(err)
	}
	return o, nil
}

func (o *Opener) begin() error {
	d := decoder{(*opened)(o)}
	kind, err := d.ReadByte()
	if err != nil {
		return err
	}
	if kind != indeterminateLengthResponse {
		return fmt.Errorf("framing indicator %d, want %d", kind, indeterminateLengthResponse)
	}
	status, err := readVarint(d)
	if err != nil {
		return err
	}
	if status < 200 || status > 599 {
		return fmt.Errorf("status %d, want 200 to 599", status)
	}
	o.Status = int(status)
	o.Header, err = decodeFields(d)
	return err
}

// Read reads the answer's content.
func (o *Opener) Read(p []byte) (int, error) {
	if o.err != nil || len(p) == 0 {
		return 0, o.err
	}
	n, err := o.read(p)
	o.err = err
	return n, err
}

func (o *Opener) read(p []byte) (int, error) {
	in := (*opened)(o)
	if o.content == 0 {
		size, err := readVarint(in)
		if err != nil {
			return 0, noMore(err)
		}
		if size == 0 {
			return 0, o.end()
		}
		o.content = size
	}
	n, err := in.Read(p[:min(uint64(len(p)), o.content)])
	o.content -= uint64(n)
	return n, noMore(err)
}

// end wants no trailer, and nothing behind it.
func (o *Opener) end() error {
	in := (*opened)(o)
	if b, err := in.ReadByte(); err != nil || b != 0 {
		return fmt.Errorf("a trailer (%v), want none", noMore(err))
	}
	if _, err := in.ReadByte(); err != io.EOF {
		return fmt.Errorf("reading the end of the answer: %v, want nothing behind it", err)
	}
	return io.EOF
}

// noMore makes an end that a final chunk has set amid a message an error of its own.
func noMore(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the message ends within the final chunk")
	}
	return err
}

// cut makes the end of what travels an answer that was cut, and keeps what broke it.
func cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrCut
	}
	return fmt.Errorf("%w: %w", ErrCut, err)
}

// opened is the plaintext of the chunks, one after the other; its io.EOF is the final chunk's end.
type opened Opener

func (o *opened) Read(p []byte) (int, error) {
	if err := o.fill(); err != nil {
		return 0, err
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

func (o *opened) ReadByte() (byte, error) {
	if err := o.fill(); err != nil {
		return 0, err
	}
	b := o.plain[0]
	o.plain = o.plain[1:]
	return b, nil
}

// fill opens the next chunk when nothing is left of the last one. No chunk is empty.
func (o *opened) fill() error {
	if len(o.plain) > 0 {
		return nil
	}
	if o.final {
		return io.EOF
	}
	return o.next()
}

// next opens the next chunk.
func (o *opened) next() error {
	length, err := readVarint(o.chunks)
	if errors.Is(err, errLonger) {
		return fmt.Errorf("the length of chunk %d: %w: %w", o.key.count, err, ErrForged)
	}
	if err != nil {
		return cut(err)
	}
	if length > maxChunk+tagBytes || length != 0 && length < minBucket+tagBytes {
		return fmt.Errorf("chunk %d has %d bytes, want %d to %d: %w", o.key.count, length, minBucket+tagBytes, maxChunk+tagBytes, ErrForged)
	}
	if o.buffer == nil {
		o.buffer = make([]byte, maxChunk+tagBytes+1)
	}
	var sealed []byte
	if length != 0 {
		sealed = o.buffer[:length]
		if _, err := io.ReadFull(o.chunks, sealed); err != nil {
			return cut(err)
		}
	} else {
		n, err := io.ReadFull(o.chunks, o.buffer) // to the end of what travels
		if err == nil {
			return fmt.Errorf("the final chunk has more than %d bytes: %w", maxChunk+tagBytes, ErrForged)
		}
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			return cut(err)
		}
		sealed = o.buffer[:n]
	}
	nonce, associated := o.key.next(length == 0)
	number := o.key.count - 1
	plain, err := o.key.aead.Open(sealed[:0], nonce[:], sealed, associated)
	if err != nil && length == 0 {
		// Whoever cuts within the final chunk leaves this behind.
		return fmt.Errorf("%w, or within it", ErrCut)
	}
	if err != nil {
		return fmt.Errorf("chunk %d: %w", number, ErrForged)
	}
	return o.unpad(plain, length == 0)
}

func (o *opened) unpad(plain []byte, final bool) error {
	size := len(plain)
	if size < minBucket {
		return fmt.Errorf("a chunk of %d bytes, want at least %d", size, minBucket)
	}
	prefix := 1
	n := int(plain[0])
	if plain[0]>>6 == 1 {
		prefix, n = 2, int(binary.BigEndian.Uint16(plain)&0x3fff)
	}
	if plain[0]>>6 > 1 || len(appendVarint(nil, uint64(n))) != prefix || prefix+n > size {
		return fmt.Errorf("a chunk's text has no length that %d bytes hold", size)
	}
	if n == 0 {
		return errors.New("a chunk without text")
	}
	if err := checkPadding(plain[prefix+n:], size); err != nil {
		return err
	}
	o.plain, o.final = plain[prefix:prefix+n], final
	return nil
}
