package check_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"chrysalis/attest/check"
)

func TestProve(t *testing.T) {
	var facts check.Facts
	proofs := 0
	prove := func(f *check.Facts, kind string, fail error, parts ...[]byte) (int, error) {
		return check.Prove(f, kind, func() (int, error) { proofs++; return proofs, fail }, parts...)
	}
	for _, tt := range []struct {
		name   string
		facts  *check.Facts
		kind   string
		parts  []string
		fail   error
		proofs int // afterwards
	}{
		{"first", &facts, "a", []string{"x", "y"}, nil, 1},
		{"again", &facts, "a", []string{"x", "y"}, nil, 1},
		{"another kind", &facts, "b", []string{"x", "y"}, nil, 2},
		{"other parts of the same bytes", &facts, "a", []string{"xy", ""}, nil, 3},
		{"fewer parts", &facts, "a", []string{"xy"}, nil, 4},
		{"a failure", &facts, "a", []string{"z"}, errors.New("no"), 5},
		{"the failure again", &facts, "a", []string{"z"}, errors.New("no"), 6},
		{"no memory", nil, "a", []string{"x", "y"}, nil, 7},
	} {
		var parts [][]byte
		for _, p := range tt.parts {
			parts = append(parts, []byte(p))
		}
		if _, err := prove(tt.facts, tt.kind, tt.fail, parts...); !errors.Is(err, tt.fail) || proofs != tt.proofs {
			t.Errorf("%s: got %v after %d proofs, want %v after %d", tt.name, err, proofs, tt.fail, tt.proofs)
		}
	}
}

// TestFactsAreBounded proves more than fits: the oldest is proven again, the one that was just used is not.
func TestFactsAreBounded(t *testing.T) {
	var facts check.Facts
	proofs := map[string]int{}
	prove := func(name string) {
		part := make([]byte, 1<<20)
		copy(part, name)
		_, _ = check.Prove(&facts, "a", func() (string, error) { proofs[name]++; return name, nil }, part)
	}
	for i := range 20 {
		prove(fmt.Sprint(i))
		prove("0")
	}
	prove("1")
	if proofs["0"] != 1 || proofs["1"] != 2 {
		t.Errorf("proofs: got %d of the one in use and %d of the oldest, want 1 and 2", proofs["0"], proofs["1"])
	}
	huge := make([]byte, 9<<20)
	for range 2 {
		_, _ = check.Prove(&facts, "a", func() (string, error) { proofs["huge"]++; return "", nil }, huge)
	}
	if proofs["huge"] != 2 {
		t.Errorf("proofs of what is larger than all: got %d, want 2", proofs["huge"])
	}
}

// TestFactsAreBoundedByNumber: many small ones are forgotten too, though they fit by their bytes.
func TestFactsAreBoundedByNumber(t *testing.T) {
	var facts check.Facts
	proofs := 0
	prove := func(n uint32) {
		_, _ = check.Prove(&facts, "a", func() (uint32, error) { proofs++; return n, nil }, binary.LittleEndian.AppendUint32(nil, n))
	}
	const most = 1 << 14
	for n := range uint32(most + 1) {
		prove(n)
	}
	prove(most)
	prove(1)
	if proofs != most+1 {
		t.Errorf("proofs of those that are remembered: got %d more, want none", proofs-most-1)
	}
	if prove(0); proofs != most+2 {
		t.Errorf("proofs of the first of %d: got %d more, want 1", most+1, proofs-most-1)
	}
}

func TestFactsConcurrently(t *testing.T) {
	var facts check.Facts
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 200 {
				want := (worker + i) % 5
				got, err := check.Prove(&facts, "a", func() (int, error) { return want, nil }, []byte{byte(want)})
				if got != want || err != nil {
					t.Errorf("got %d, %v, want %d", got, err, want)
				}
			}
		})
	}
	group.Wait()
}
