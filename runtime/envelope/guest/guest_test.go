package guest

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/runtime/envelope/internal/wire"
)

// scene is a guest with one key, and a client's envelope for it.
type scene struct {
	key    Key
	id     evidence.KeyID
	clock  time.Time
	held   bool
	header wire.Header
	opener *Opener
}

const path = "/v1/chat/completions"

func newScene(t testing.TB) *scene {
	t.Helper()
	private, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{key: Key{private, 3, [32]byte{1}}, clock: time.Unix(1_800_000_000, 0), held: true}
	s.id = evidence.HPKEKeyID(sha256.Sum256(private.PublicKey().Bytes()))
	s.header = wire.Header{Key: s.id, Epoch: 3, Instance: [32]byte{1}, NotBefore: 1_800_000_000 - 30, NotAfter: 1_800_000_000 + 60, ID: [16]byte{9}}
	s.opener = NewOpener(func(id evidence.KeyID) (Key, bool) { return s.key, s.held && id == s.id }, func() time.Time { return s.clock })
	return s
}

func (s *scene) seal(t testing.TB) ([]byte, wire.Secret) {
	t.Helper()
	sealed, secret, err := wire.Seal(s.key.PublicKey().Bytes(), s.header, "POST", path, wire.Request{Method: "POST", Path: path, Body: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	return sealed, secret
}

func TestOpen(t *testing.T) {
	s := newScene(t)
	sealed, theirs := s.seal(t)
	r, ours, err := s.opener.Open(sealed, s.header.Key, "POST", path)
	if err != nil || string(r.Body) != "hello" {
		t.Fatalf("got %+v, %v", r, err)
	}
	var out bytes.Buffer
	answer, err := ours.Seal(&out)
	if err != nil {
		t.Fatal(err)
	}
	if ours.secret != (wire.Secret{}) {
		t.Error("the secret is left behind")
	}
	if err := answer.Begin(200, nil); err != nil {
		t.Fatal(err)
	}
	io.WriteString(answer, "world")
	if err := answer.Close(); err != nil {
		t.Fatal(err)
	}
	o, err := wire.NewOpener(&out, &theirs)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(o); err != nil || string(text) != "world" {
		t.Errorf("answer: got %q, %v", text, err)
	}
}

// TestOpenRefuses changes one thing of an envelope or of the guest each.
func TestOpenRefuses(t *testing.T) {
	other := errors.New("any other")
	for _, tt := range []struct {
		name   string
		change func(*scene)
		want   error
	}{
		{"as it should be", func(*scene) {}, nil},
		{"from its first second", func(s *scene) { s.clock = s.clock.Add(-30 * time.Second) }, nil},
		{"before", func(s *scene) { s.clock = s.clock.Add(-31 * time.Second) }, ErrWindow},
		{"to its last second", func(s *scene) { s.clock = s.clock.Add(60 * time.Second) }, nil},
		{"after", func(s *scene) { s.clock = s.clock.Add(61 * time.Second) }, ErrWindow},
		{"the longest window", func(s *scene) { s.header.NotAfter = s.header.NotBefore + 300 }, nil},
		{"a longer window", func(s *scene) { s.header.NotAfter = s.header.NotBefore + 301 }, ErrWindow},
		{"a window that ends before it begins", func(s *scene) { s.header.NotBefore, s.header.NotAfter = s.header.NotAfter, s.header.NotBefore }, ErrWindow},
		{"a window without end", func(s *scene) { s.header.NotAfter = 1<<64 - 1 }, ErrWindow},
		{"another key", func(s *scene) { s.header.Key[0]++ }, ErrKey},
		{"a key that is not held any more", func(s *scene) { s.held = false }, ErrKey},
		{"another epoch", func(s *scene) { s.header.Epoch++ }, other},
		{"another instance", func(s *scene) { s.header.Instance[0]++ }, other},
		{"no place to remember it", func(s *scene) { s.opener.most = 0 }, ErrFull},
	} {
		s := newScene(t)
		tt.change(s)
		sealed, _ := s.seal(t)
		_, _, err := s.opener.Open(sealed, s.header.Key, "POST", path)
		named := errors.Is(err, ErrKey) || errors.Is(err, ErrWindow) || errors.Is(err, ErrReplayed) || errors.Is(err, ErrFull)
		if tt.want == other && (err == nil || named) || tt.want != other && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	s := newScene(t)
	sealed, _ := s.seal(t)
	for name, where := range map[string][2]string{"path": {"POST", "/v1/completions"}, "method": {"GET", path}} {
		if _, _, err := s.opener.Open(sealed, s.header.Key, where[0], where[1]); err == nil {
			t.Errorf("another %s: it opens", name)
		}
	}
	if _, _, err := s.opener.Open(sealed, evidence.KeyID{1}, "POST", path); err == nil || !strings.Contains(err.Error(), "came for 01") {
		t.Errorf("another key's id around it: got %v", err)
	}
	moved, _, err := wire.Seal(s.key.PublicKey().Bytes(), s.header, "POST", path, wire.Request{Method: "POST", Path: "/v1/models"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.opener.Open(moved, s.header.Key, "POST", path); err == nil || !strings.Contains(err.Error(), "means a path") {
		t.Errorf("a message that means another path than its envelope: got %v", err)
	}
	if _, _, err := s.opener.Open(sealed, s.header.Key, "POST", path); err != nil {
		t.Errorf("what was refused took the place of %v", err)
	}
}

// TestReplay: an envelope opens once, however often, at whatever time and by however many at once it is sent.
func TestReplay(t *testing.T) {
	s := newScene(t)
	sealed, _ := s.seal(t)
	var opened, replayed atomic.Int32
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			switch _, _, err := s.opener.Open(sealed, s.header.Key, "POST", path); {
			case err == nil:
				opened.Add(1)
			case errors.Is(err, ErrReplayed):
				replayed.Add(1)
			}
		})
	}
	wait.Wait()
	if opened.Load() != 1 || replayed.Load() != 15 {
		t.Errorf("opened %d times and refused %d times, want 1 and 15", opened.Load(), replayed.Load())
	}
	begin := s.clock
	for _, age := range []time.Duration{-30, 0, 59, 60, 61, 300, 61, 0, -30} {
		s.clock = begin.Add(age * time.Second) // the host turns the clock on, and back again
		if _, _, err := s.opener.Open(sealed, s.header.Key, "POST", path); !errors.Is(err, ErrReplayed) && !errors.Is(err, ErrWindow) {
			t.Errorf("%d seconds later: got %v, want it refused", age, err)
		}
		if age == 300 { // what is opened then lets the first one be forgotten
			s.header.NotBefore, s.header.NotAfter, s.header.ID = s.header.NotBefore+300, s.header.NotAfter+300, [16]byte{8}
			later, _ := s.seal(t)
			if _, _, err := s.opener.Open(later, s.header.Key, "POST", path); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestMemoryIsBounded: ids are forgotten when their window is over, and with their key; at the bound nothing opens, and what came
// before is remembered still.
func TestMemoryIsBounded(t *testing.T) {
	s := newScene(t)
	s.opener.most = 10
	first, _ := s.seal(t)
	for i := range 12 {
		s.header.ID[1] = byte(i)
		sealed, _ := s.seal(t)
		if _, _, err := s.opener.Open(sealed, s.header.Key, "POST", path); i < 10 && err != nil || i >= 10 && !errors.Is(err, ErrFull) {
			t.Errorf("envelope %d: got %v", i, err)
		}
	}
	if _, _, err := s.opener.Open(first, s.header.Key, "POST", path); !errors.Is(err, ErrReplayed) {
		t.Errorf("the first one again: got %v, want ErrReplayed", err)
	}
	s.clock = s.clock.Add(3 * time.Minute)
	s.header.NotBefore, s.header.NotAfter = s.header.NotBefore+180, s.header.NotAfter+180
	sealed, _ := s.seal(t)
	if _, _, err := s.opener.Open(sealed, s.header.Key, "POST", path); err != nil {
		t.Errorf("when the windows are over: got %v, want it opened", err)
	}
	if m := s.opener.seen[s.id]; m.count != 1 || len(m.minutes) != 1 {
		t.Errorf("%d ids in %d minutes are remembered, want 1", m.count, len(m.minutes))
	}
	s.held = false
	if _, _, err := s.opener.Open(sealed, s.header.Key, "POST", path); !errors.Is(err, ErrKey) || len(s.opener.seen) != 0 {
		t.Errorf("without the key: got %v, and %d keys remembered, want ErrKey and none", err, len(s.opener.seen))
	}
}
