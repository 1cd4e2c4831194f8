package check

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// Facts remembers what was proven of bytes: that they parse to something, that a key signed them. Such a fact never changes,
// so it is safe to remember; whether it is what a policy wants at a time is judged anew by every appraisal. A nil *Facts
// remembers nothing. It is safe for concurrent use, and bounded: what was not needed for the longest time is forgotten first.
type Facts struct {
	mu     sync.Mutex // guards the fields below
	byKey  map[[32]byte]*list.Element
	recent *list.List // of *fact, the most recently used first
	bytes  int
}

type fact struct {
	key   [32]byte
	value any
	cost  int
}

// maxFactBytes bounds the bytes that facts were proven of, and maxFacts their number: small ones cost more than their bytes. What they
// parse to takes a small multiple of the bytes.
const (
	maxFactBytes = 8 << 20
	maxFacts     = 1 << 14
)

// Prove returns what prove makes of parts, from memory when it succeeded on exactly these parts before. kind names what is
// proven: each has one type T and one meaning. Failures are not remembered. The value is shared and must not be changed.
func Prove[T any](f *Facts, kind string, prove func() (T, error), parts ...[]byte) (T, error) {
	if f == nil {
		return prove()
	}
	h := sha256.New()
	cost := 0
	var length [8]byte
	for _, part := range append([][]byte{[]byte(kind)}, parts...) {
		binary.LittleEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
		cost += len(part)
	}
	key := [32]byte(h.Sum(nil))
	if value, ok := f.recall(key); ok {
		return value.(T), nil
	}
	value, err := prove()
	if err == nil {
		f.remember(&fact{key, value, cost})
	}
	return value, err
}

func (f *Facts) recall(key [32]byte) (any, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	element, ok := f.byKey[key]
	if !ok {
		return nil, false
	}
	f.recent.MoveToFront(element)
	return element.Value.(*fact).value, true
}

func (f *Facts) remember(new *fact) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byKey == nil {
		f.byKey, f.recent = map[[32]byte]*list.Element{}, list.New()
	}
	if _, known := f.byKey[new.key]; known || new.cost > maxFactBytes {
		return // somebody proved the same meanwhile
	}
	f.byKey[new.key] = f.recent.PushFront(new)
	f.bytes += new.cost
	for f.bytes > maxFactBytes || f.recent.Len() > maxFacts {
		oldest := f.recent.Remove(f.recent.Back()).(*fact)
		delete(f.byKey, oldest.key)
		f.bytes -= oldest.cost
	}
}
