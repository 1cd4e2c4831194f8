package vtpm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"chrysalis/init/internal/sealing"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// failing is a TPM of which the power goes after some commands.
type failing struct {
	transport.TPM
	left int // commands until then; negative: it stays
	sent int
}

var errPower = errors.New("the power is gone")

func (f *failing) Send(command []byte) ([]byte, error) {
	if f.left == 0 {
		return nil, errPower
	}
	f.left--
	f.sent++
	return f.TPM.Send(command)
}

// image names one that boots over a TPM, by what its firmware and kernel extend.
type image byte

// boot resets the machine and returns the guest of an image under an identity, at the point where it takes the secret. left is how many
// commands it has from then on.
func (m machine) boot(i image, identity string, left int) (*TPM, *failing) {
	m.t.Helper()
	m.reset()
	guest := New(m, "")
	for _, pcr := range namingPCRs {
		if err := guest.Extend(eventlog.Record{Register: eventlog.Register(pcr), Kind: eventlog.KindConfig, Data: []byte{byte(i)}}); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := guest.Extend(event(identity)); err != nil {
		m.t.Fatal(err)
	}
	cut := &failing{TPM: m, left: left}
	return New(cut, ""), cut
}

// of returns the registers of an image, by a boot of it.
func (m machine) of(i image) map[string][]byte {
	m.t.Helper()
	guest, _ := m.boot(i, "nobody", -1)
	registers, err := guest.Image()
	if err != nil {
		m.t.Fatal(err)
	}
	return registers
}

// takes boots an image, has it take the secret and count its boot. Nothing is taken where the secret stays sealed.
func (m machine) takes(i image, identity string) (taken sealing.Taken, ok bool) {
	m.t.Helper()
	guest, _ := m.boot(i, identity, -1)
	taken, err := guest.Secret()
	if errors.Is(err, secret.ErrSealed) {
		return taken, false
	}
	if err == nil {
		err = guest.CountBoot()
	}
	if err != nil {
		m.t.Fatalf("image %d: %v", i, err)
	}
	return taken, true
}

// TestMove hands a secret from image to image: it goes on with its count, the list of those who held it grows, and who gave it away is
// shut out.
func TestMove(t *testing.T) {
	m := start(t, t.TempDir())
	first, ok := m.takes(1, "me")
	if !ok || first.Boots != 0 || first.Held != nil {
		t.Fatalf("the first image: got %t, %d boots, held by %v", ok, first.Boots, first.Held)
	}
	var held []register.Digest
	for from, boots := image(1), uint64(1); from < 4; from, boots = from+1, boots+1 {
		to := m.of(from + 1)
		guest, _ := m.boot(from, "me", -1)
		if err := guest.Move(to, register.Digest{byte(from)}); err != nil {
			t.Fatal(err)
		}
		held = append(held, register.Digest{byte(from)})
		if err := guest.Move(to, register.Digest{9}); !errors.Is(err, secret.ErrSealed) {
			t.Errorf("image %d, once more: got %v, want %v", from, err, secret.ErrSealed)
		}
		for _, i := range []image{from, 7} {
			if _, ok := m.takes(i, "me"); ok {
				t.Errorf("handed from %d to %d: image %d has the secret, too", from, from+1, i)
			}
		}
		if _, ok := m.takes(from+1, "you"); ok {
			t.Errorf("image %d has the secret under another identity", from+1)
		}
		taken, ok := m.takes(from+1, "me")
		if !ok || !taken.Secret.Equal(first.Secret) || taken.Boots != boots || !slices.Equal(taken.Held, held) {
			t.Fatalf("image %d: got the secret: %t, with %d boots, held by %v; want %d boots and %v", from+1, ok, taken.Boots, taken.Held, boots, held)
		}
	}
	// To itself: nothing is added, and it goes on.
	own := m.of(4)
	guest, _ := m.boot(4, "me", -1)
	if err := guest.Move(own, register.Digest{}); err != nil {
		t.Fatal(err)
	}
	if taken, ok := m.takes(4, "me"); !ok || !taken.Secret.Equal(first.Secret) || !slices.Equal(taken.Held, held) {
		t.Errorf("handed to itself: got the secret: %t, held by %v", ok, taken.Held)
	}
}

// TestMoveTooOften: there is room for so many that have held a secret, and the last of them keeps it.
func TestMoveTooOften(t *testing.T) {
	m := start(t, t.TempDir())
	if _, ok := m.takes(1, "me"); !ok {
		t.Fatal("no secret was made")
	}
	for i := image(1); ; i++ {
		to := m.of(i + 1)
		guest, _ := m.boot(i, "me", -1)
		err := guest.Move(to, register.Digest{byte(i)})
		if err == nil && i <= eventlog.MaxHeld {
			continue
		}
		if err == nil || i != eventlog.MaxHeld+1 {
			t.Fatalf("handover %d: got error %v, want one at number %d", i, err, eventlog.MaxHeld+1)
		}
		if taken, ok := m.takes(i, "me"); !ok || len(taken.Held) != eventlog.MaxHeld {
			t.Errorf("image %d has the secret: %t, and %d held it before, want %d", i, ok, len(taken.Held), eventlog.MaxHeld)
		}
		return
	}
}

// TestMoveRefuses: what can't be handed over stays where it is.
func TestMoveRefuses(t *testing.T) {
	m := start(t, t.TempDir())
	to := m.of(2)
	guest, _ := m.boot(1, "me", -1)
	if err := guest.Move(to, register.Digest{1}); !errors.Is(err, errNone) {
		t.Errorf("without a secret: got %v, want %v", err, errNone)
	}
	if _, ok := m.takes(1, "me"); !ok {
		t.Fatal("no secret was made")
	}
	guest, _ = m.boot(3, "me", -1)
	if err := guest.Move(to, register.Digest{1}); !errors.Is(err, secret.ErrSealed) {
		t.Errorf("by another image: got %v, want %v", err, secret.ErrSealed)
	}
	guest, _ = m.boot(1, "me", -1)
	if err := guest.Move(map[string][]byte{"pcr-0": to["pcr-0"], "pcr-4": to["pcr-4"]}, register.Digest{1}); err == nil {
		t.Error("to two registers of three: got no error, want one")
	}
	if _, ok := m.takes(1, "me"); !ok {
		t.Error("after the refusals the secret is gone")
	}
}

// TestMoveCut takes the power away after each command of a handover. Then one of the two images has the secret, with its count and
// with a list that says whether it was handed over; and once it has it, the other one can't get it any more. The giver is sent as many
// commands as it takes, and the last cut is after the last of them.
func TestMoveCut(t *testing.T) {
	dir := t.TempDir()
	m := start(t, dir)
	first, ok := m.takes(1, "me")
	if !ok {
		t.Fatal("no secret was made")
	}
	to := m.of(2)
	state := filepath.Join(dir, "tpm2-00.permall")
	before, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	// Each cut is looked at twice: by the giver first, and by the taker first.
	left := map[image]int{}
	cuts := 0
	for ; ; cuts++ {
		for _, order := range [][]image{{1, 2}, {2, 1}} {
			if err := os.WriteFile(state, before, 0o600); err != nil {
				t.Fatal(err)
			}
			guest, cut := m.boot(1, "me", cuts)
			err := guest.Move(to, register.Digest{1})
			if err == nil && cut.left != 0 {
				if cuts < 10 || left[1] == 0 || left[2] == 0 {
					t.Fatalf("a handover is %d commands, and the giver had the secret after %d cuts of it, the taker after %d: want some of each", cut.sent, left[1], left[2])
				}
				return
			}
			if cut.left != 0 {
				t.Fatalf("cut after %d commands: got %v", cuts, err)
			}
			var has []image
			for _, i := range order {
				taken, ok := m.takes(i, "me")
				if !ok {
					continue
				}
				has = append(has, i)
				left[i]++
				want := []register.Digest{{1}}
				if i == 1 {
					want = nil
				}
				if !taken.Secret.Equal(first.Secret) || taken.Boots != 1 || !slices.Equal(taken.Held, want) {
					t.Errorf("cut after %d commands: image %d has another secret, or %d boots, or %v held it", cuts, i, taken.Boots, taken.Held)
				}
			}
			if len(has) != 1 {
				t.Errorf("cut after %d commands: images %v of %v can take the secret, want one", cuts, has, order)
			}
			if _, ok := m.takes(has[0], "me"); !ok {
				t.Errorf("cut after %d commands: image %d has lost the secret", cuts, has[0])
			}
		}
	}
}

// TestHeldIsSealed: the list lies in memory that the host can write, and its digest with the secret.
func TestHeldIsSealed(t *testing.T) {
	m := start(t, t.TempDir())
	if _, ok := m.takes(1, "me"); !ok {
		t.Fatal("no secret was made")
	}
	to := m.of(2)
	guest, _ := m.boot(1, "me", -1)
	if err := guest.Move(to, register.Digest{1}); err != nil {
		t.Fatal(err)
	}
	if err := guest.writeHeld(0, register.Digest{2}); err != nil {
		t.Fatal(err)
	}
	guest, _ = m.boot(2, "me", -1)
	if taken, err := guest.Secret(); err == nil || taken.Secret != nil {
		t.Errorf("with another list: got the secret, held by %v", taken.Held)
	}
}

// came is a secret that another custodian gave.
func came(t *testing.T) sealing.Taken {
	t.Helper()
	s, err := secret.New(slices.Repeat([]byte{9}, secret.Size))
	if err != nil {
		t.Fatal(err)
	}
	return sealing.Taken{Secret: s, Held: []register.Digest{{1}, {2}}, Came: role.Coming{Number: 5, Boots: 3}}
}

// TestKeep: a secret from elsewhere is sealed in the place of one that would be made, with all that came with it, and not over another; a
// handover takes it along.
func TestKeep(t *testing.T) {
	m := start(t, t.TempDir())
	want := came(t)
	guest, _ := m.boot(1, "me", -1)
	if blank, err := guest.Blank(); !blank || err != nil {
		t.Errorf("a new TPM: blank is %t, error %v", blank, err)
	}
	if err := guest.Keep(want); err != nil {
		t.Fatal(err)
	}
	if err := guest.CountBoot(); err != nil { // of the boot in which it came
		t.Fatal(err)
	}
	wantKept := func(i image, boots uint64, held []register.Digest) {
		t.Helper()
		taken, ok := m.takes(i, "me")
		if !ok || !taken.Secret.Equal(want.Secret) || taken.Boots != boots || taken.Came != want.Came || !slices.Equal(taken.Held, held) {
			t.Fatalf("image %d: got %t, %+v, want what was kept, after %d boots", i, ok, taken, boots)
		}
	}
	wantKept(1, 1, want.Held)
	for _, i := range []image{1, 2} {
		guest, _ := m.boot(i, "me", -1)
		if blank, err := guest.Blank(); blank || err != nil {
			t.Errorf("image %d, after it was kept: blank is %t, error %v", i, blank, err)
		}
		if err := guest.Keep(want); err == nil || !strings.Contains(err.Error(), "holds one already") {
			t.Errorf("image %d, over another: got %v, want an error that says so", i, err)
		}
	}
	to := m.of(2)
	guest, _ = m.boot(1, "me", -1)
	if err := guest.Move(to, register.Digest{3}); err != nil {
		t.Fatal(err)
	}
	wantKept(2, 2, append(want.Held, register.Digest{3}))
}

// TestKeepCut takes the power away after each command by which a TPM gets its first secret, one from elsewhere and one that is made: then it
// is blank and can be given one again, or has all of it.
func TestKeepCut(t *testing.T) {
	for name, give := range map[string]func(*TPM, sealing.Taken) error{
		"kept": (*TPM).Keep,
		"made": func(guest *TPM, _ sealing.Taken) error { return guest.makeSecret() },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := start(t, dir)
			state := filepath.Join(dir, "tpm2-00.permall")
			m.boot(1, "me", -1)
			before, err := os.ReadFile(state)
			if err != nil {
				t.Fatal(err)
			}
			want := came(t)
			blanks := 0
			for cuts := 0; ; cuts++ {
				if err := os.WriteFile(state, before, 0o600); err != nil {
					t.Fatal(err)
				}
				guest, cut := m.boot(1, "me", cuts)
				err := give(guest, want)
				if done := err == nil && cut.left != 0; done {
					if blanks < 8 {
						t.Errorf("the TPM was blank after %d of %d cuts, want most", blanks, cuts)
					}
					return
				}
				guest, _ = m.boot(1, "me", -1)
				blank, err := guest.Blank()
				if err != nil {
					t.Fatal(err)
				}
				if blank {
					blanks++
					if err := give(guest, want); err != nil { // once more
						t.Fatalf("cut after %d commands, and again: %v", cuts, err)
					}
				}
				taken, ok := m.takes(1, "me")
				if !ok || taken.Boots != 0 {
					t.Fatalf("cut after %d commands, blank then: %t: got a secret: %t, after %d boots, want one after none", cuts, blank, ok, taken.Boots)
				}
				if same := taken.Secret.Equal(want.Secret) && taken.Came == want.Came && slices.Equal(taken.Held, want.Held); same != (name == "kept") {
					t.Fatalf("cut after %d commands, blank then: %t: it is the one from elsewhere, with all that came with it: %t", cuts, blank, same)
				}
			}
		})
	}
}
