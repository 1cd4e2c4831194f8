package sealing

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

// chip is hardware of one launch: its keys follow from a seed, which stands for chip, launch digest and guest policy.
type chip struct {
	seed      string
	committed uint64
	fails     error
	derived   int
}

func (c *chip) CommittedTCB() uint64 { return c.committed }

func (c *chip) Derive(tcb uint64) ([32]byte, error) {
	c.derived++
	if c.fails != nil {
		return [32]byte{}, c.fails
	}
	if !reaches(c.committed, tcb) {
		return [32]byte{}, errors.New("the firmware refuses")
	}
	return sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(c.seed), tcb)), nil
}

// disk is a store in memory. Power goes after some writes, or in the middle of one.
type disk struct {
	b      [StoreBytes]byte
	writes int
	after  int // power goes after so many writes; negative: never
	sector int // and this many sectors of the next one have reached the disk
}

func newDisk() *disk { return &disk{after: -1} }

var errPower = errors.New("the power is gone")

func (d *disk) ReadAt(b []byte, at int64) (int, error) { return copy(b, d.b[at:]), nil }

func (d *disk) WriteAt(b []byte, at int64) (int, error) {
	if d.after >= 0 && d.writes >= d.after {
		n := min(len(b), d.sector*512)
		copy(d.b[at:], b[:n])
		return n, errPower
	}
	d.writes++
	return copy(d.b[at:], b), nil
}

func (d *disk) Sync() error { return nil }

var me = register.Digest{1}

func take(t *testing.T, c *chip, id register.Digest, d *disk) (*secret.Secret, uint64) {
	t.Helper()
	taken, err := NewDerived(c, id, d).Secret()
	if err != nil {
		t.Fatal(err)
	}
	return taken.Secret, taken.Boots
}

func TestDerived(t *testing.T) {
	c, d := &chip{seed: "launch", committed: 5}, newDisk()
	var first *secret.Secret
	for boot := range uint64(5) {
		v := NewDerived(c, me, d)
		taken, err := v.Secret()
		if err != nil || taken.Boots != boot || taken.Held != nil {
			t.Fatalf("boot %d: got %d boots, held by %v before, and error %v", boot, taken.Boots, taken.Held, err)
		}
		s := taken.Secret
		if first == nil {
			first = s
		}
		if !s.Equal(first) {
			t.Errorf("boot %d: another secret than in the first", boot)
		}
		if err := v.CountBoot(); err != nil {
			t.Fatal(err)
		}
		if err := v.CountBoot(); err == nil {
			t.Error("counted twice: got no error, want one")
		}
	}
	// A boot that ended before it was counted.
	if _, boots := take(t, c, me, d); boots != 5 {
		t.Errorf("got %d boots, want 5", boots)
	}
	if _, boots := take(t, c, me, d); boots != 5 {
		t.Errorf("after a boot that was not counted: got %d boots, want 5", boots)
	}
	if bytes.Contains(d.b[:], expose(first)) {
		t.Error("the secret lies on the disk as it is")
	}
}

func expose(s *secret.Secret) (raw []byte) {
	s.Expose(func(b []byte) { raw = slices.Clone(b) })
	return raw
}

// TestStaysSealed: another launch, identity or patch level gets nothing, and what lies on the disk stays as it was.
func TestStaysSealed(t *testing.T) {
	c, d := &chip{seed: "launch", committed: 0x0500_0000_0000_0203}, newDisk()
	first, _ := take(t, c, me, d)
	for _, tt := range []struct {
		name  string
		chip  *chip
		id    register.Digest
		spoil func(b []byte)
	}{
		{"another launch", &chip{seed: "other", committed: c.committed}, me, nil},
		{"another identity", c, register.Digest{2}, nil},
		{"one component lower", &chip{seed: "launch", committed: 0x0500_0000_0000_0202}, me, nil},
		{"one component lower and others higher", &chip{seed: "launch", committed: 0x04ff_0000_0000_ffff}, me, nil},
		{"a changed secret", c, me, func(b []byte) { b[headBytes+nonceBytes]++ }},
		{"a changed nonce", c, me, func(b []byte) { b[headBytes]++ }},
		{"a changed tag", c, me, func(b []byte) { b[recordBytes-1]++ }},
		{"another generation", c, me, func(b []byte) { b[len(magic)]++ }},
		{"a lower patch level written over it", c, me, func(b []byte) { b[len(magic)+8]-- }},
		{"another magic", c, me, func(b []byte) { b[0]++ }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			on := &disk{b: d.b, after: -1}
			if tt.spoil != nil {
				tt.spoil(on.b[:])
			}
			before := on.b
			taken, err := NewDerived(tt.chip, tt.id, on).Secret()
			if !errors.Is(err, secret.ErrSealed) || taken.Secret != nil {
				t.Errorf("got a secret: %v, and error %v, want %v", taken.Secret != nil, err, secret.ErrSealed)
			}
			if on.b != before {
				t.Error("the refusal wrote to the disk, want it as it was")
			}
		})
	}
	if s, _ := take(t, c, me, d); !s.Equal(first) {
		t.Error("afterwards the rightful guest gets another secret")
	}
}

// TestHigherPatchLevel: hardware that has moved on opens the record and seals it anew, after which the older level opens nothing.
func TestHigherPatchLevel(t *testing.T) {
	old, d := &chip{seed: "launch", committed: 0x0101}, newDisk()
	first, _ := take(t, old, me, d)
	older := d.b
	newer := &chip{seed: "launch", committed: 0x0102}
	if s, _ := take(t, newer, me, d); !s.Equal(first) {
		t.Error("at the higher level: another secret, want the same")
	}
	if _, err := NewDerived(old, me, d).Secret(); !errors.Is(err, secret.ErrSealed) {
		t.Errorf("back at the lower level: got %v, want %v", err, secret.ErrSealed)
	}
	if s, _ := take(t, newer, me, d); !s.Equal(first) {
		t.Error("again at the higher level: another secret, want the same")
	}
	// The host puts the whole record of before back: the rightful guest opens it still, and moves on again.
	d.b = older
	if s, _ := take(t, newer, me, d); !s.Equal(first) {
		t.Error("with the older record put back: another secret, want the same")
	}
}

// TestPowerCut ends the power at each write of a boot, at each sector of it. The next boot has the same secret, and a count that is
// the last one's or one more.
func TestPowerCut(t *testing.T) {
	base := newDisk()
	c := &chip{seed: "launch", committed: 1}
	v := NewDerived(c, me, base)
	made, err := v.Secret()
	if err != nil {
		t.Fatal(err)
	}
	first := made.Secret
	if err := v.CountBoot(); err != nil {
		t.Fatal(err)
	}
	raised := &chip{seed: "launch", committed: 2} // so that a boot writes thrice
	for after := range 4 {
		for sector := range slotBytes/512 + 1 {
			d := &disk{b: base.b, after: after, sector: sector}
			v := NewDerived(raised, me, d)
			_, err := v.Secret()
			if err == nil {
				err = v.CountBoot()
			}
			if cut := after < 3; cut != errors.Is(err, errPower) {
				t.Fatalf("power cut after %d writes: got error %v", after, err)
			}
			d.after = -1
			s, boots := take(t, raised, me, d)
			if !s.Equal(first) || boots < 1 || boots > 2 {
				t.Errorf("power cut after %d writes and %d sectors: got the same secret: %v, and %d boots", after, sector, s.Equal(first), boots)
			}
		}
	}
	// The very first write of all: either nothing is there, or the secret is.
	for sector := range slotBytes/512 + 1 {
		d := &disk{sector: sector}
		if _, err := NewDerived(c, me, d).Secret(); !errors.Is(err, errPower) {
			t.Fatalf("power cut at the first write: got error %v", err)
		}
		d.after = -1
		take(t, c, me, d)
	}
}

// TestHardwareFails: what does not answer is no refusal of the seal.
func TestHardwareFails(t *testing.T) {
	d := newDisk()
	c := &chip{seed: "launch", committed: 1}
	take(t, c, me, d)
	c.fails = errors.New("no answer")
	if _, err := NewDerived(c, me, d).Secret(); !errors.Is(err, c.fails) || errors.Is(err, secret.ErrSealed) {
		t.Errorf("got %v, want the hardware's own error", err)
	}
	if _, err := NewDerived(c, me, newDisk()).Secret(); !errors.Is(err, c.fails) {
		t.Errorf("making a secret: got %v, want the hardware's own error", err)
	}
	if err := NewDerived(c, me, d).CountBoot(); err == nil {
		t.Error("counting before the secret is open: got no error, want one")
	}
}

func TestEphemeral(t *testing.T) {
	a, err := Ephemeral{}.Secret()
	if err != nil || a.Boots != 0 {
		t.Fatalf("got %d boots and error %v", a.Boots, err)
	}
	b, err := Ephemeral{}.Secret()
	if err != nil || a.Secret.Equal(b.Secret) {
		t.Errorf("two boots have one secret, or error %v", err)
	}
	if err := (Ephemeral{}).CountBoot(); err != nil {
		t.Error(err)
	}
}

// FuzzStore gives the vault any bytes for a disk: it must not panic, and never give another secret than the one sealed.
func FuzzStore(f *testing.F) {
	d := newDisk()
	c := &chip{seed: "launch", committed: 7}
	first, err := NewDerived(c, me, d).Secret()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.b[:recordBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		on := newDisk()
		copy(on.b[:], b)
		blank := on.b == [StoreBytes]byte{}
		s, err := NewDerived(c, me, on).Secret()
		if err == nil && !blank && !s.Secret.Equal(first.Secret) {
			t.Error("got another secret than was sealed")
		}
	})
}
