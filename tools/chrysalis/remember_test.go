package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/pubkey"
	"chrysalis/runtime/receipt"
)

// TestMemory: of each guest the newest receipt is remembered; what does not come after it is refused, and changes nothing.
func TestMemory(t *testing.T) {
	m := memory{filepath.Join(t.TempDir(), "folder", "receipts.json")}
	one, other := pubkey.Ed25519{1}, pubkey.Ed25519{2}
	name := func(n uint64) (h [32]byte) { binary.LittleEndian.PutUint64(h[:], n+1); return h }
	at := time.Unix(1_800_000_000, 0)
	for _, step := range []struct {
		name     string
		guest    pubkey.Ed25519
		sequence uint64
		previous [32]byte
		hash     [32]byte
		says     string
	}{
		{"the first", one, 4, name(3), name(4), ""},
		{"the next", one, 5, name(4), name(5), ""},
		{"after others'", one, 9, name(8), name(9), ""},
		{"another guest", other, 2, name(1), name(2), ""},
		{"the same number", one, 9, name(8), name(9), "numbers this receipt 9, and numbered one 9 on 2027-01-15T08:00:00Z"},
		{"an earlier number", one, 3, name(2), name(3), "numbers this receipt 3, and numbered one 9"},
		{"a history of its own", one, 10, [32]byte{99}, name(10), "receipt 10 follows 63000"},
		{"the next all the same", one, 10, name(9), name(10), ""},
		{"the other's next", other, 3, name(2), name(3), ""},
	} {
		before, _ := os.ReadFile(m.file)
		known, err := m.read()
		if err != nil {
			t.Fatal(err)
		}
		err = m.judge(known, step.guest, receipt.Receipt{Sequence: step.sequence, Previous: step.previous}, step.hash, at)
		back := wentBack{}
		if errors.As(err, &back) != (step.says != "") || err != nil && !strings.Contains(err.Error(), step.says) || step.says == "" && err != nil {
			t.Errorf("%s: got error %v, want one with %q", step.name, err, step.says)
		}
		if after, _ := os.ReadFile(m.file); (string(after) == string(before)) != (step.says != "") {
			t.Errorf("%s: what is remembered: changed: %t", step.name, string(after) != string(before))
		}
	}
}

// TestMemoryOfMany: answers that were asked for together come in any order, and the latest of them is remembered.
func TestMemoryOfMany(t *testing.T) {
	m := memory{filepath.Join(t.TempDir(), "receipts.json")}
	guest := pubkey.Ed25519{1}
	known, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{6, 8, 5, 7} {
		if err := m.judge(known, guest, receipt.Receipt{Sequence: n, Previous: [32]byte{byte(n)}}, [32]byte{byte(n + 1)}, time.Unix(1, 0)); err != nil {
			t.Errorf("receipt %d of four at once: %v", n, err)
		}
	}
	if known, err = m.read(); err != nil || known[guest.String()].Sequence != 8 {
		t.Errorf("got %+v and error %v, want number 8", known, err)
	}
	if err := m.judge(known, guest, receipt.Receipt{Sequence: 8}, [32]byte{}, time.Unix(1, 0)); !errors.As(err, new(wentBack)) {
		t.Errorf("number 8 again: got error %v, want that it went back", err)
	}
}

// TestMemoryIsBounded: the guest that was silent longest is forgotten, and a file that is none is not written over.
func TestMemoryIsBounded(t *testing.T) {
	m := memory{filepath.Join(t.TempDir(), "receipts.json")}
	known := map[string]remembered{}
	for n := range maxRemembered {
		key := pubkey.Ed25519{byte(n), byte(n >> 8), 1}
		known[key.String()] = remembered{Sequence: 1, Receipt: hex.EncodeToString(make([]byte, 32)), Came: time.Unix(int64(1000+(n+7)%maxRemembered), 0)}
	}
	if err := m.write(known); err != nil {
		t.Fatal(err)
	}
	if err := m.judge(nil, pubkey.Ed25519{9, 9, 9}, receipt.Receipt{}, [32]byte{}, time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	after, err := m.read()
	if err != nil || len(after) != maxRemembered {
		t.Fatalf("got %d guests and error %v, want %d", len(after), err, maxRemembered)
	}
	for key, r := range known {
		if _, still := after[key]; still == (r.Came.Unix() == 1000) {
			t.Errorf("the guest of %s is remembered: %t", r.Came, still)
		}
	}
	for _, text := range []string{"", "{", `{"x": {"number": 1}}`, strings.Repeat(" ", maxMemoryBytes+1)} {
		if err := os.WriteFile(m.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := m.judge(nil, pubkey.Ed25519{1}, receipt.Receipt{}, [32]byte{}, time.Now()); err == nil || !strings.Contains(err.Error(), "remove it to begin anew") {
			t.Errorf("a file of %d bytes that is none: got error %v", len(text), err)
		}
		if after, err := os.ReadFile(m.file); err != nil || string(after) != text {
			t.Error("a file that is none was written over")
		}
	}
}
