package sealing

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// Deriver is hardware that derives keys of this launch alone, one for each patch level that it has.
type Deriver interface {
	// CommittedTCB is the highest patch level that can't be taken back, a version in each of its bytes.
	CommittedTCB() uint64
	// Derive returns the key of a patch level up to that.
	Derive(tcb uint64) ([32]byte, error)
}

// Store is where records lie: the first StoreBytes of the journal's disk.
type Store interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// StoreBytes is what records take of the journal's disk, at its beginning. The journal has the rest.
const StoreBytes = slots * slotBytes

// A record lies in one of two slots, so that a write which is cut short leaves the other. SEALING.md has the layout.
const (
	slots     = 2
	slotBytes = 4096

	magic     = "CHRYSEA2"
	headBytes = len(magic) + 8 + 8 + 8  // generation, patch level, how many have held the secret
	openBytes = secret.Size + 8 + 8 + 8 // secret, boots, number and boots of its coming; and behind them those who held it
	heldBytes = len(register.Digest{})

	nonceBytes  = 12
	tagBytes    = 16
	recordBytes = headBytes + nonceBytes + openBytes + tagBytes // and heldBytes for each who held it: without any it fits a sector

	keyInfo = "chrysalis sealing key v1\n" // followed by the identity's digest
)

// Derived wraps a random secret with a key that follows from what the hardware derives and from the identity. Each record is bound to
// the patch level at which it was written: hardware that went below it can't open the record, and hardware that is above it writes
// the next one at its own.
type Derived struct {
	hardware Deriver
	identity register.Digest
	store    Store

	open       bool
	generation uint64
	slot       int // of the newest record
	kept       Taken
}

// NewDerived returns the vault of an identity over a store.
func NewDerived(hardware Deriver, identity register.Digest, store Store) *Derived {
	return &Derived{hardware: hardware, identity: identity, store: store}
}

// record is a slot's contents, its sealed part still closed.
type record struct {
	slot       int
	generation uint64
	tcb        uint64
	head       []byte
	sealed     []byte // nonce, ciphertext, tag
}

// Secret opens the newest record that is whole, and makes one when both slots are zeros. The copy that CountBoot needs is wiped by
// it.
func (d *Derived) Secret() (Taken, error) {
	found, blank, err := d.read()
	if err != nil {
		return Taken{}, fmt.Errorf("opening sealed secret: %w", err)
	}
	if blank {
		made, err := secret.Random()
		if err != nil {
			return Taken{}, err
		}
		// The next record goes to slot 0.
		d.open, d.kept, d.slot = true, Taken{Secret: made}, slots-1
		if err := d.write(); err != nil {
			return Taken{}, fmt.Errorf("sealing secret: %w", err)
		}
		return d.copy()
	}
	var refusals []error
	for _, r := range found {
		err := d.unwrap(r)
		if err != nil && !errors.Is(err, secret.ErrSealed) {
			return Taken{}, fmt.Errorf("opening sealed secret: %w", err) // the hardware does not answer
		}
		if err != nil {
			refusals = append(refusals, fmt.Errorf("record %d: %w", r.generation, err))
			continue
		}
		d.open, d.generation, d.slot = true, r.generation, r.slot
		if r.tcb != d.hardware.CommittedTCB() {
			if err := d.write(); err != nil {
				return Taken{}, fmt.Errorf("sealing secret at the new patch level: %w", err)
			}
			// The older record opens at the older level still.
			if err := d.clear(r.slot); err != nil {
				return Taken{}, fmt.Errorf("sealing secret at the new patch level: %w", err)
			}
		}
		return d.copy()
	}
	if len(refusals) == 0 {
		return Taken{}, fmt.Errorf("opening sealed secret: %w: the disk holds no record, and is not blank", secret.ErrSealed)
	}
	return Taken{}, fmt.Errorf("opening sealed secret: %w", errors.Join(refusals...))
}

func (d *Derived) copy() (taken Taken, err error) {
	taken = d.kept
	d.kept.Secret.Expose(func(raw []byte) { taken.Secret, err = secret.New(raw) })
	return taken, err
}

// Blank reports whether both slots are zeros.
func (d *Derived) Blank() (bool, error) {
	_, blank, err := d.read()
	return blank, err
}

// Keep seals a secret that was made elsewhere.
func (d *Derived) Keep(t Taken) error {
	_, blank, err := d.read()
	if err == nil && !blank {
		err = errors.New("the disk holds a record already, or what is none")
	}
	if err != nil {
		return fmt.Errorf("keeping secret: %w", err)
	}
	d.kept = Taken{Held: t.Held, Came: t.Came}
	t.Secret.Expose(func(raw []byte) { d.kept.Secret, err = secret.New(raw) })
	if err != nil {
		return fmt.Errorf("keeping secret: %w", err)
	}
	d.open, d.slot = true, slots-1
	if err := d.write(); err != nil {
		d.kept.Secret.Wipe()
		return fmt.Errorf("keeping secret: %w", err)
	}
	return nil
}

// CountBoot adds one to the count in the record, and forgets the secret.
func (d *Derived) CountBoot() error {
	if !d.open || d.kept.Secret == nil {
		return errors.New("counting boot: the secret is not open")
	}
	defer func() { d.kept.Secret.Wipe(); d.kept.Secret = nil }()
	d.kept.Boots++
	if err := d.write(); err != nil {
		return fmt.Errorf("counting boot: %w", err)
	}
	return nil
}

// read returns the records of the slots, the newest first, and whether both slots are zeros.
func (d *Derived) read() (found []record, blank bool, err error) {
	blank = true
	for slot := range slots {
		b := make([]byte, slotBytes)
		if _, err := d.store.ReadAt(b, int64(slot)*slotBytes); err != nil {
			return nil, false, fmt.Errorf("reading slot %d: %v", slot, err)
		}
		if bytes.Equal(b, make([]byte, slotBytes)) {
			continue
		}
		blank = false
		if string(b[:len(magic)]) != magic {
			continue
		}
		held := binary.LittleEndian.Uint64(b[len(magic)+16:])
		if held > eventlog.MaxHeld {
			continue
		}
		found = append(found, record{
			slot: slot, generation: binary.LittleEndian.Uint64(b[len(magic):]), tcb: binary.LittleEndian.Uint64(b[len(magic)+8:]),
			head: b[:headBytes], sealed: b[headBytes : recordBytes+int(held)*heldBytes],
		})
	}
	if len(found) == slots && found[0].generation < found[1].generation {
		found[0], found[1] = found[1], found[0]
	}
	return found, blank, nil
}

// unwrap opens a record.
func (d *Derived) unwrap(r record) error {
	if !reaches(d.hardware.CommittedTCB(), r.tcb) {
		return fmt.Errorf("%w: sealed at patch level %016x, and the firmware's committed one is %016x", secret.ErrSealed, r.tcb,
			d.hardware.CommittedTCB())
	}
	aead, err := d.aead(r.tcb)
	if err != nil {
		return err
	}
	plain, err := aead.Open(nil, r.sealed[:nonceBytes], r.sealed[nonceBytes:], r.head)
	if err != nil {
		return fmt.Errorf("%w: another image, guest policy, chip or identity sealed it, or it was changed", secret.ErrSealed)
	}
	defer clear(plain)
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(plain[secret.Size+8*at:]) }
	kept := Taken{Boots: number(0), Came: role.Coming{Number: number(1), Boots: number(2)}}
	if kept.Held, err = eventlog.HeldOf(plain[openBytes:]); err != nil {
		return err
	}
	if kept.Secret, err = secret.New(plain[:secret.Size]); err != nil {
		return err
	}
	d.kept = kept
	return nil
}

// reaches reports whether no component of a patch level is below that of another.
func reaches(got, want uint64) bool {
	for shift := 0; shift < 64; shift += 8 {
		if byte(got>>shift) < byte(want>>shift) {
			return false
		}
	}
	return true
}

// write seals what is held at the committed patch level into the slot that does not hold the newest record, and flushes it.
func (d *Derived) write() error {
	if n := len(d.kept.Held); n > eventlog.MaxHeld {
		return fmt.Errorf("%d images have held the secret, want at most %d", n, eventlog.MaxHeld)
	}
	tcb := d.hardware.CommittedTCB()
	aead, err := d.aead(tcb)
	if err != nil {
		return err
	}
	b := append(make([]byte, 0, slotBytes), magic...)
	b = binary.LittleEndian.AppendUint64(b, d.generation+1)
	b = binary.LittleEndian.AppendUint64(b, tcb)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(d.kept.Held)))
	head := b[:headBytes:headBytes]
	var nonce [nonceBytes]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	plain := make([]byte, 0, openBytes+len(d.kept.Held)*heldBytes)
	d.kept.Secret.Expose(func(raw []byte) { plain = append(plain, raw...) })
	for _, number := range []uint64{d.kept.Boots, d.kept.Came.Number, d.kept.Came.Boots} {
		plain = binary.LittleEndian.AppendUint64(plain, number)
	}
	plain = append(plain, eventlog.HeldData(d.kept.Held)...)
	defer clear(plain)
	b = aead.Seal(append(b, nonce[:]...), nonce[:], plain, head)
	slot := (d.slot + 1) % slots
	if err := d.put(slot, b[:slotBytes]); err != nil {
		return err
	}
	d.generation, d.slot = d.generation+1, slot
	return nil
}

func (d *Derived) clear(slot int) error { return d.put(slot, make([]byte, slotBytes)) }

func (d *Derived) put(slot int, b []byte) error {
	if _, err := d.store.WriteAt(b, int64(slot)*slotBytes); err != nil {
		return fmt.Errorf("writing slot %d: %w", slot, err)
	}
	if err := d.store.Sync(); err != nil {
		return fmt.Errorf("writing slot %d: %w", slot, err)
	}
	return nil
}

// aead returns the cipher of a patch level: AES-256-GCM under HKDF-SHA256 of the hardware's key.
func (d *Derived) aead(tcb uint64) (cipher.AEAD, error) {
	derived, err := d.hardware.Derive(tcb)
	if err != nil {
		return nil, err
	}
	defer clear(derived[:])
	key, err := hkdf.Key(sha256.New, derived[:], nil, keyInfo+string(d.identity[:]), 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
