package sealing

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
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

// came is a secret that another custodian gave.
func came(t *testing.T) Taken {
	t.Helper()
	s, err := secret.New(bytes.Repeat([]byte{9}, secret.Size))
	if err != nil {
		t.Fatal(err)
	}
	return Taken{Secret: s, Held: []register.Digest{{1}, {2}}, Came: role.Coming{Number: 5, Boots: 3}}
}

// TestKeep: a secret from elsewhere is sealed in the place of one that would be made, with all that came with it, and not over another.
func TestKeep(t *testing.T) {
	c, d, want := &chip{seed: "launch", committed: 5}, newDisk(), came(t)
	v := NewDerived(c, me, d)
	if blank, err := v.Blank(); !blank || err != nil {
		t.Errorf("a blank disk: got %t, error %v", blank, err)
	}
	if err := v.Keep(want); err != nil {
		t.Fatal(err)
	}
	if err := v.CountBoot(); err != nil { // of the boot in which it came
		t.Fatal(err)
	}
	for boots := uint64(1); boots < 4; boots++ {
		c.committed++ // sealed anew, with all of it
		v := NewDerived(c, me, d)
		if blank, err := v.Blank(); blank || err != nil {
			t.Errorf("after it was kept: blank is %t, error %v", blank, err)
		}
		taken, err := v.Secret()
		if err != nil || !taken.Secret.Equal(want.Secret) || taken.Boots != boots || taken.Came != want.Came || !slices.Equal(taken.Held, want.Held) {
			t.Fatalf("boot %d: got %+v, error %v, want what was kept", boots, taken, err)
		}
		if err := v.CountBoot(); err != nil {
			t.Fatal(err)
		}
	}
	before := d.b
	if err := NewDerived(c, me, d).Keep(want); err == nil || d.b != before {
		t.Errorf("over another: got error %v, the disk as it was: %t, want it refused", err, d.b == before)
	}
	other := newDisk()
	other.b[slotBytes] = 1
	if err := NewDerived(c, me, other).Keep(want); err == nil {
		t.Error("over what is no record: got no error, want one")
	}
	for i := range eventlog.MaxHeld {
		want.Held = append(want.Held, register.Digest{3, byte(i)})
	}
	if err := NewDerived(c, me, newDisk()).Keep(want); err == nil {
		t.Errorf("held by %d: got no error, want one", len(want.Held))
	}
	want.Held = want.Held[:eventlog.MaxHeld]
	full := newDisk()
	if err := NewDerived(c, me, full).Keep(want); err != nil {
		t.Fatal(err)
	}
	if taken, err := NewDerived(c, me, full).Secret(); err != nil || !slices.Equal(taken.Held, want.Held) {
		t.Errorf("held by as many as there can be: got %d, error %v, want %d", len(taken.Held), err, len(want.Held))
	}
}

// TestKeepCut: the power goes while a secret from elsewhere is sealed. Then the vault is blank, or it has all of it, or where so many have held it
// that a record is longer than a sector, it stays sealed: never another secret.
func TestKeepCut(t *testing.T) {
	c := &chip{seed: "launch", committed: 1}
	for sector := range slotBytes/512 + 1 {
		d := &disk{sector: sector}
		want := came(t)
		for i := range 30 {
			want.Held = append(want.Held, register.Digest{3, byte(i)})
		}
		if err := NewDerived(c, me, d).Keep(want); !errors.Is(err, errPower) {
			t.Fatalf("got error %v, want %v", err, errPower)
		}
		d.after = -1
		v := NewDerived(c, me, d)
		if blank, err := v.Blank(); err != nil || blank != (sector == 0) {
			t.Fatalf("after %d sectors: blank is %t, error %v", sector, blank, err)
		}
		if sector == 0 {
			continue
		}
		taken, err := v.Secret()
		if whole := sector*512 >= recordBytes+len(want.Held)*heldBytes; whole != (err == nil) || !whole && !errors.Is(err, secret.ErrSealed) {
			t.Errorf("after %d sectors: got error %v", sector, err)
		} else if whole && (!taken.Secret.Equal(want.Secret) || taken.Came != want.Came) {
			t.Errorf("after %d sectors: got another secret, or one that came otherwise: %+v", sector, taken.Came)
		}
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
