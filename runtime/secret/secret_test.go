package secret

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

func testSecret(t testing.TB, first byte) *Secret {
	t.Helper()
	raw := make([]byte, Size)
	for i := range raw {
		raw[i] = first + byte(i)
	}
	s, err := New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testScope(s *Secret) Scope {
	return Scope{Network: "local", Zerostate: [32]byte{1}, Root: "0:" + strings.Repeat("a1", 32), Instance: s.Instance()}
}

// TestSecretNeverShows prints a secret in every way that a log line could.
func TestSecretNeverShows(t *testing.T) {
	s := testSecret(t, 'A')
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "value", *s, "inside", struct{ S *Secret }{s})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "value", *s, "inside", struct{ S *Secret }{s})
	encoded, err := json.Marshal(struct{ S *Secret }{s})
	if err == nil {
		t.Errorf("json: got %s, want an error", encoded)
	}
	text := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c"} {
		text += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, *s) + fmt.Sprintf(verb, struct{ S Secret }{*s}) + fmt.Sprintf(verb, []*Secret{s})
	}
	raw := s.b[:]
	for _, canary := range []string{string(raw[:8]), hex.EncodeToString(raw[:4]), strings.ToUpper(hex.EncodeToString(raw[:4])), "65 66 67", "[65,66"} {
		if strings.Contains(text, canary) {
			t.Errorf("%q stands in what was printed", canary)
		}
	}
	if !strings.Contains(text, "[secret]") {
		t.Error("[secret] does not stand in what was printed: the test looks at the wrong thing")
	}
}

func TestSecret(t *testing.T) {
	for _, raw := range [][]byte{nil, make([]byte, 31), make([]byte, 33), make([]byte, 32)} {
		if _, err := New(raw); err == nil {
			t.Errorf("%d bytes, the first zero: got no error, want one", len(raw))
		}
	}
	a, b := testSecret(t, 1), testSecret(t, 2)
	if !a.Equal(testSecret(t, 1)) || a.Equal(b) {
		t.Error("Equal does not tell equal secrets from others")
	}
	a.Wipe()
	if a.b != [Size]byte{} {
		t.Error("a wiped secret still has bytes")
	}
}

// TestDeriveSeparates changes one part of role and scope at a time: each must give another key.
func TestDeriveSeparates(t *testing.T) {
	s := testSecret(t, 1)
	seen := map[[32]byte]string{s.Digest(): "digest"}
	add := func(name string, s *Secret, role Role, scope Scope) {
		t.Helper()
		seed := Derive(s, role, scope)
		if other, ok := seen[seed]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[seed] = name
		if again := Derive(s, role, scope); again != seed {
			t.Errorf("%s: derived twice, two keys", name)
		}
	}
	base := testScope(s)
	for _, role := range []Role{RoleClaim, RoleReceipt, RoleJournal, RoleLoans} {
		add(string(role), s, role, base)
	}
	other := base
	other.Network = "testnet"
	add("network", s, RoleClaim, other)
	other = base
	other.Zerostate[31] = 1
	add("zerostate", s, RoleClaim, other)
	other = base
	other.Root = "-1:" + strings.Repeat("a1", 32)
	add("root", s, RoleClaim, other)
	other = base
	other.Instance[0]++
	add("instance", s, RoleClaim, other)
	add("secret", testSecret(t, 2), RoleClaim, base)
	// The boundary between network and root must not move.
	other = base
	other.Network, other.Root = base.Network+base.Root[:1], base.Root[1:]
	add("boundary", s, RoleClaim, other)
}

func TestDerivePanicsOnUnfinishedScope(t *testing.T) {
	s := testSecret(t, 1)
	for name, change := range map[string]func(*Scope){
		"network":   func(s *Scope) { s.Network = "" },
		"zerostate": func(s *Scope) { s.Zerostate = [32]byte{} },
		"root":      func(s *Scope) { s.Root = "" },
		"instance":  func(s *Scope) { s.Instance = [16]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("got a key, want a panic")
				}
			}()
			scope := testScope(s)
			change(&scope)
			Derive(s, RoleClaim, scope)
		})
	}
}

// TestKeyVectors pins the derivation: init, keeper and later releases must agree on it for as long as guests live.
func TestKeyVectors(t *testing.T) {
	s := testSecret(t, 1)
	scope := testScope(s)
	got := map[string]string{}
	for _, role := range []Role{RoleClaim, RoleReceipt, RoleJournal, RoleLoans} {
		seed := Derive(s, role, scope)
		got[string(role)] = hex.EncodeToString(seed[:])
	}
	id, digest := s.Instance(), s.Digest()
	got["instance"], got["digest"] = hex.EncodeToString(id[:]), hex.EncodeToString(digest[:])
	moved := s.Moved(5)
	got["moved under number 5"] = hex.EncodeToString(moved[:])
	got["network"], got["root"], got["zerostate"] = scope.Network, scope.Root, hex.EncodeToString(scope.Zerostate[:])
	got["secret"] = hex.EncodeToString(s.b[:])
	file := filepath.Join("testdata", "vectors", "keys.json")
	if *update {
		text, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(got) {
		t.Errorf("%s has %d entries, want %d", file, len(want), len(got))
	}
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s: got %s, want %s", name, got[name], want[name])
		}
	}
}

// TestScopeOf: every part of an identity that separates keys is in the scope, and what is missing is an error and no panic.
func TestScopeOf(t *testing.T) {
	identity := config.Identity{Network: config.Local, RootContract: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xa1}, 32))}}
	s := testSecret(t, 1)
	base, err := ScopeOf(identity, s.Instance())
	if err != nil {
		t.Fatal(err)
	}
	zerostate, _ := config.Local.Zerostate()
	if want := (Scope{Network: "local", Zerostate: zerostate, Root: identity.RootContract.String(), Instance: s.Instance()}); base != want {
		t.Errorf("got %+v, want %+v", base, want)
	}
	for name, change := range map[string]func(*config.Identity, *[16]byte){
		"network":  func(i *config.Identity, _ *[16]byte) { i.Network = config.Mainnet },
		"root":     func(i *config.Identity, _ *[16]byte) { i.RootContract.Workchain = -1 },
		"instance": func(_ *config.Identity, id *[16]byte) { id[0]++ },
	} {
		other, id := identity, s.Instance()
		change(&other, &id)
		if scope, err := ScopeOf(other, id); err != nil || Derive(s, RoleClaim, scope) == Derive(s, RoleClaim, base) {
			t.Errorf("another %s: got the same key, or %v", name, err)
		}
	}
	for name, change := range map[string]func(*config.Identity, *[16]byte){
		"network":  func(i *config.Identity, _ *[16]byte) { i.Network = "othernet" },
		"root":     func(i *config.Identity, _ *[16]byte) { i.RootContract = ton.Address{} },
		"instance": func(_ *config.Identity, id *[16]byte) { *id = [16]byte{} },
	} {
		other, id := identity, s.Instance()
		change(&other, &id)
		if scope, err := ScopeOf(other, id); err == nil {
			t.Errorf("no %s: got %+v, want an error", name, scope)
		}
	}
}

func TestRandom(t *testing.T) {
	a, err := Random()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Random()
	if err != nil || a.Equal(b) || a.b == [Size]byte{} {
		t.Errorf("got two secrets that are equal or empty (%v)", err)
	}
}
