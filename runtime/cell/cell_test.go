package cell

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/xssnick/tonutils-go/address"
	ton "github.com/xssnick/tonutils-go/tvm/cell"

	house "chrysalis/measure/ton"
)

// tree builds a random tree by tonutils-go, the second opinion of these tests.
func tree(r *rand.Rand, depth int) *ton.Cell {
	b := ton.BeginCell()
	data := make([]byte, 128)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	b.MustStoreSlice(data, uint(r.IntN(MaxBits+1)))
	if depth > 0 {
		for range r.IntN(MaxRefs + 1) {
			b.MustStoreRef(tree(r, depth-1))
		}
	}
	return b.EndCell()
}

// proof prunes some of a tree's references.
func proof(t testing.TB, r *rand.Rand, root *ton.Cell) *ton.Cell {
	t.Helper()
	b := ton.NewMerkleProofBuilder(root)
	var keep func(c *ton.Cell) // whoever begins to parse a cell has it in the proof
	keep = func(c *ton.Cell) {
		s := c.MustBeginParse()
		for range c.RefsNum() {
			ref, err := s.LoadRefCell()
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(3) > 0 {
				keep(ref)
			}
		}
	}
	keep(b.Root())
	p, err := b.CreateProof()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func same(t testing.TB, got *Cell, want *ton.Cell) {
	t.Helper()
	for level := range 4 {
		h := got.at(level)
		if !bytes.Equal(h.hash[:], want.Hash(level)) || h.depth != want.Depth(level) {
			t.Fatalf("level %d: hash %x and depth %d, want %x and %d", level, h.hash, h.depth, want.Hash(level), want.Depth(level))
		}
	}
	if got.Bits() != int(want.BitsSize()) || got.Refs() != int(want.RefsNum()) {
		t.Fatalf("%d bits and %d references, want %d and %d", got.Bits(), got.Refs(), want.BitsSize(), want.RefsNum())
	}
	for i := range got.Refs() {
		same(t, got.refs[i], want.MustPeekRef(i))
	}
}

var options = []ton.BOCSerializeOptions{
	{}, {WithCRC32C: true}, {WithIndex: true}, {WithIndex: true, WithCRC32C: true}, {WithIndex: true, WithCacheBits: true, WithCRC32C: true},
}

// TestSameAsTonutils: trees, proofs and updates of trees have the hashes of a second implementation, in each form of bag.
func TestSameAsTonutils(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		root := tree(r, 5)
		other := tree(r, 3)
		update, err := ton.CreateMerkleUpdate(root, other)
		if err != nil {
			t.Fatal(err)
		}
		in := ton.BeginCell().MustStoreRef(update).MustStoreRef(other).EndCell()
		for _, c := range []*ton.Cell{root, proof(t, r, root), update, in, proof(t, r, in)} {
			for _, o := range options {
				got, err := ParseOne(c.ToBOCWithOptions(o))
				if err != nil {
					t.Fatalf("%+v: %v", o, err)
				}
				same(t, got, c)
			}
			got, _ := ParseOne(c.ToBOC())
			bag, err := Encode(got)
			if err != nil {
				t.Fatal(err)
			}
			back, err := ton.FromBOC(bag)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, back)
			again, err := ParseOne(bag)
			if err != nil {
				t.Fatal(err)
			}
			same(t, again, c)
		}
		got, _ := ParseOne(update.ToBOC())
		if h, err := NewHash(got); err != nil || !bytes.Equal(h[:], other.Hash()) {
			t.Fatalf("new hash %x (%v), want %x", h, err, other.Hash())
		}
	}
}

func TestManyRoots(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	shared := tree(r, 2)
	want := []*ton.Cell{ton.BeginCell().MustStoreRef(shared).EndCell(), shared, tree(r, 3)}
	got, err := Parse(ton.ToBOCWithOptions(want, ton.BOCSerializeOptions{WithCRC32C: true}))
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d roots (%v), want %d", len(got), err, len(want))
	}
	for i := range want {
		same(t, got[i], want[i])
	}
	if _, err := ParseOne(ton.ToBOCWithOptions(want, ton.BOCSerializeOptions{})); err == nil || !strings.Contains(err.Error(),
		"3 roots, want 1") {
		t.Errorf("got %v, want a refusal of three roots", err)
	}
}

// bag writes cells as they are given: descriptors, data, references.
func bag(flags byte, roots []byte, cells ...[]byte) []byte {
	body := bytes.Join(cells, nil)
	b := []byte{0xb5, 0xee, 0x9c, 0x72, flags | 1, 1, byte(len(cells)), byte(len(roots)), 0, byte(len(body))}
	b = append(append(b, roots...), body...)
	if flags&flagCheckSum != 0 {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	}
	return b
}

func TestParseRefuses(t *testing.T) {
	leaf := []byte{0, 2, 7}
	parent := []byte{1, 0, 1}
	good := bag(flagCheckSum, []byte{0}, parent, leaf)
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(bag(0, []byte{0}, parent, leaf))
		b[at] = to
		return b
	}
	pruned := append([]byte{1<<5 | 8, 2 * 36, kindPruned, 1}, make([]byte, 34)...)
	proofOf := func(hash byte) []byte {
		c := append([]byte{9, 2 * 35, kindMerkleProof, hash}, make([]byte, 33)...)
		return append(c, 1)
	}
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	for _, tt := range []struct {
		name, want string
		b          []byte
	}{
		{"nothing", "ends 4 bytes short", nil},
		{"magic", "want b5ee9c72", changed(0, 0xb6)},
		{"cache bits without an index", "flags are 0x21", changed(4, 0x21)},
		{"unknown flag", "flags are 0x09", changed(4, 0x09)},
		{"numbers of no bytes", "numbers have 0", changed(4, 0)},
		{"wide numbers", "numbers have 5", changed(4, 5)},
		{"no offsets", "and 0 bytes", changed(5, 0)},
		{"more cells than bytes", "4 cells in 6 bytes", changed(6, 4)},
		{"no root", "0 roots", changed(7, 0)},
		{"more roots than cells", "3 roots", changed(7, 3)},
		{"absent cells", "1 absent", changed(8, 1)},
		{"size", "ends 1 bytes short", changed(9, 7)}, {"size beyond the bag", "in 9 bytes, and 7 are left", changed(9, 9)},
		{"root that is not there", "root 0 is cell 2 of 2", changed(10, 2)},
		{"cell reached by nobody", "nothing refers to cell 0", changed(10, 1)},
		{"cut", "ends", good[:len(good)-1]},
		{"check sum", "check sum is", broken},
		{"trailing byte", "1 bytes follow", append(bytes.Clone(good), 0)},
		{"five references", "descriptor 0x05", bag(0, []byte{0}, []byte{5, 0, 1, 1, 1, 1, 1}, leaf)},
		{"stored hashes", "descriptor 0x11", bag(0, []byte{0}, []byte{0x11, 0, 1}, leaf)},
		{"a reference back", "refers to cell 0, want a later one", bag(0, []byte{0}, parent, []byte{1, 0, 0})},
		{"a reference to itself", "refers to cell 0, want a later one", bag(0, []byte{0}, []byte{1, 0, 0})},
		{"a reference out", "refers to cell 2", bag(0, []byte{0}, []byte{1, 0, 2}, leaf)},
		{"a cell more bytes", "bytes follow the last cell", bag(0, []byte{0}, parent, []byte{0, 2, 7, 0})},
		{"completion tag of whole bytes", "as if it ended inside one", bag(0, []byte{0}, []byte{0, 1, 0x80})},
		{"no completion tag", "as if it ended inside one", bag(0, []byte{0}, []byte{0, 1, 0})},
		{"level of an ordinary cell", "says level mask 1, want 0", bag(0, []byte{0}, []byte{1<<5 | 1, 0, 1}, leaf)},
		{"special of no kind", "names no kind", bag(0, []byte{0}, []byte{8, 0})},
		{"special of kind 0", "names no kind", bag(0, []byte{0}, []byte{8, 2, 0})},
		{"special of kind 5", "kind 5, want one", bag(0, []byte{0}, []byte{8, 2, 5})},
		{"pruned of level 0", "no level", bag(0, []byte{0}, []byte{8, 4, kindPruned, 0})},
		{"pruned of level 8", "no level", bag(0, []byte{0}, []byte{8, 4, kindPruned, 8})},
		{"pruned cut short", "special cell of kind 1 has 280 bits", bag(0, []byte{0}, append([]byte{1<<5 | 8, 2 * 35}, pruned[2:37]...))},
		{"library of no hash", "special cell of kind 2", bag(0, []byte{0}, []byte{8, 2, kindLibrary})},
		{"proof of another tree", "special cell says hash", bag(0, []byte{0}, proofOf(9), leaf)},
		{"index", "index says that cell 0 ends", append([]byte{0xb5, 0xee, 0x9c, 0x72, 0x81, 1, 2, 1, 0, 6, 0, 4, 6},
			append(bytes.Clone(parent), leaf...)...)},
	} {
		got, err := Parse(tt.b)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one that says %q", tt.name, got, err, tt.want)
		}
	}
	if _, err := Parse(make([]byte, MaxBag+1)); err == nil || !strings.Contains(err.Error(), "want at most") {
		t.Errorf("too many bytes: got %v", err)
	}
}

// TestDepth: no tree is deeper than the chain allows, however it was built.
func TestDepth(t *testing.T) {
	c, err := new(Builder).Cell()
	for range maxDepth {
		if err != nil {
			t.Fatal(err)
		}
		c, err = new(Builder).Ref(c).Cell()
	}
	if err != nil || c.Depth() != maxDepth {
		t.Fatalf("depth %d (%v), want %d", c.Depth(), err, maxDepth)
	}
	if _, err := new(Builder).Ref(c).Cell(); err == nil || !strings.Contains(err.Error(), "depth is 1025") {
		t.Errorf("a deeper one: got %v, want a refusal", err)
	}
}

func TestFields(t *testing.T) {
	a := house.Address{Workchain: -1, Account: [32]byte{1, 2, 3}}
	leaf, err := new(Builder).Uint(5, 3).Cell()
	if err != nil {
		t.Fatal(err)
	}
	c, err := new(Builder).Bool(true).Uint(0x1234, 13).Coins(0).Coins(1).Coins(1<<63 - 1).Address(a).Bytes([]byte{9,
		8}).MaybeRef(nil).MaybeRef(leaf).Cell()
	if err != nil {
		t.Fatal(err)
	}
	second := ton.BeginCell().MustStoreBoolBit(true).MustStoreUInt(0x1234, 13).MustStoreCoins(0).MustStoreCoins(1).MustStoreCoins(1<<63-1).
		MustStoreAddr(address.NewAddress(0, 0xff, a.Account[:])).MustStoreSlice([]byte{9, 8}, 16).MustStoreBoolBit(false).
		MustStoreMaybeRef(ton.BeginCell().MustStoreUInt(5, 3).EndCell()).EndCell()
	same(t, c, second)
	r := c.Read()
	if !r.Bool() || r.Uint(13) != 0x1234 || r.Coins() != 0 || r.Coins() != 1 || r.Coins() != 1<<63-1 || r.Address() != a {
		t.Errorf("fields differ (%v)", r.Err())
	}
	var two [2]byte
	r.Bytes(two[:])
	none, some := r.MaybeRef(), r.MaybeRef()
	if two != [2]byte{9, 8} || none != nil || some == nil || r.End() != nil {
		t.Errorf("got %v, %v, %v, %v", two, none, some, r.End())
	}
	for _, tt := range []struct {
		name, want string
		build      *Builder
		read       func(r *Reader)
	}{
		{"short", "3 bits are left, want 4", new(Builder).Uint(1, 3), func(r *Reader) { r.Uint(4) }},
		{"bits left", "1 bits and 0 references are left", new(Builder).Uint(1, 3), func(r *Reader) { r.Uint(2) }},
		{"reference left", "0 bits and 1 references are left", new(Builder).Ref(leaf), func(r *Reader) {}},
		{"no reference", "no reference is left", new(Builder), func(r *Reader) { r.Open().Uint(3) }},
		{"coins with a zero byte", "more than it needs", new(Builder).Uint(2, 4).Uint(1, 16), func(r *Reader) { r.Coins() }},
		{"coins of 64 bits", "has 64 bits", new(Builder).Uint(8, 4).Uint(1<<63, 64), func(r *Reader) { r.Coins() }},
		{"coins of 9 bytes", "9 bytes, want at most 8", new(Builder).Uint(9, 4).Uint(1, 64).Uint(0, 8), func(r *Reader) { r.Coins() }},
		{"anycast", "address begins with 0x5", new(Builder).Uint(0b101, 3).Uint(0, 64), func(r *Reader) { r.Address() }},
		{"no address", "address begins with 0x0", new(Builder).Uint(0, 64), func(r *Reader) { r.Address() }},
		{"workchain", "workchain is 5", new(Builder).Uint(0b100, 3).Uint(5, 8).Bytes(a.Account[:]), func(r *Reader) { r.Address() }},
		{"tag", "thing begins with 0x3, want 0x4", new(Builder).Uint(3, 8), func(r *Reader) { r.Tag(8, 4, "thing") }},
		{"the caller's error", "three is 3", new(Builder), func(r *Reader) { r.Fail("three is %d", 3) }},
	} {
		c, err := tt.build.Cell()
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		r := c.Read()
		tt.read(r)
		if err := r.End(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want one that says %q", tt.name, err, tt.want)
		}
	}
	for name, b := range map[string]*Builder{
		"a number too wide": new(Builder).Uint(8, 3), "too many bits": new(Builder).Bytes(make([]byte, 128)), "no cell": new(Builder).Ref(nil),
		"five references": new(Builder).Ref(leaf).Ref(leaf).Ref(leaf).Ref(leaf).Ref(leaf), "coins of 64 bits": new(Builder).Coins(1 << 63),
	} {
		if _, err := b.Cell(); err == nil {
			t.Errorf("building with %s: got no error", name)
		}
	}
}

// TestDictionaries: values are found where a second implementation put them, and absence is told from a pruned path.
func TestDictionaries(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, keyBits := range []int{1, 16, 32, 256} {
		dict := ton.NewDict(uint(keyBits))
		want := map[string]uint64{}
		for range 40 {
			key := randomKey(r, keyBits)
			v := r.Uint64()
			if err := dict.SetIntKey(key, ton.BeginCell().MustStoreUInt(v, 64).EndCell()); err != nil {
				t.Fatal(err)
			}
			want[string(keyBytes(key, keyBits))] = v
		}
		root, err := ParseOne(dict.AsCell().ToBOC())
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		err = Each(root, keyBits, 1000, func(key [32]byte, value *Reader) error {
			seen++
			if got, v := value.Uint(64), want[string(key[:(keyBits+7)/8])]; got != v || value.End() != nil {
				t.Errorf("%d bits: value is %d (%v), want %d", keyBits, got, value.End(), v)
			}
			return nil
		})
		if err != nil || seen != len(want) {
			t.Errorf("%d bits: %d values (%v), want %d", keyBits, seen, err, len(want))
		}
		if err := Each(root, keyBits, len(want)-1, func([32]byte, *Reader) error { return nil }); err == nil {
			t.Errorf("%d bits: more values than the bound: got no error", keyBits)
		}
		for key, v := range want {
			value, err := Lookup(root, []byte(key), keyBits)
			if err != nil || value.Uint(64) != v || value.End() != nil {
				t.Errorf("%d bits: key %x: %v", keyBits, key, err)
			}
		}
		for range 200 {
			key := keyBytes(randomKey(r, keyBits), keyBits)
			_, there := want[string(key)]
			if _, err := Lookup(root, key, keyBits); there != (err == nil) || err != nil && !errors.Is(err, ErrAbsent) {
				t.Errorf("%d bits: key %x: %v, and it is there: %t", keyBits, key, err, there)
			}
		}
		if keyBits < 16 {
			continue
		}
		// Every path but the root's own is pruned: nothing is known of most keys, and absence only where the root's label tells it.
		b := ton.NewMerkleProofBuilder(dict.AsCell())
		b.Root().MustBeginParse()
		pruned, err := b.CreateProof()
		if err != nil {
			t.Fatal(err)
		}
		if root, err = ParseOne(pruned.ToBOC()); err != nil {
			t.Fatal(err)
		}
		if root, err = Unwrap(root, [32]byte(dict.AsCell().Hash())); err != nil {
			t.Fatal(err)
		}
		for key := range want {
			if _, err := Lookup(root, []byte(key), keyBits); !errors.Is(err, ErrPruned) {
				t.Errorf("%d bits: a pruned path: got %v, want ErrPruned", keyBits, err)
			}
			missing := []byte(key)
			missing[len(missing)-1] ^= 1
			if _, err := Lookup(root, missing, keyBits); errors.Is(err, ErrAbsent) {
				t.Errorf("%d bits: a pruned path is taken for absence", keyBits)
			}
		}
		if err := Each(root, keyBits, 1000, func([32]byte, *Reader) error { return nil }); !errors.Is(err, ErrPruned) {
			t.Errorf("%d bits: all values of a pruned dictionary: got %v, want ErrPruned", keyBits, err)
		}
	}
	if _, err := Lookup(nil, []byte{1}, 8); !errors.Is(err, ErrAbsent) {
		t.Errorf("empty dictionary: got %v, want ErrAbsent", err)
	}
}

func randomKey(r *rand.Rand, bits int) *big.Int {
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	return new(big.Int).Rsh(new(big.Int).SetBytes(raw), uint(256-bits))
}

func keyBytes(key *big.Int, bits int) []byte {
	return new(big.Int).Lsh(key, uint((8-bits%8)%8)).FillBytes(make([]byte, (bits+7)/8))
}

func TestUnwrapRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	root := tree(r, 3)
	c, err := ParseOne(proof(t, r, root).ToBOC())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unwrap(c, [32]byte(root.Hash())); err != nil {
		t.Error(err)
	}
	if _, err := Unwrap(c, [32]byte{1}); err == nil || !strings.Contains(err.Error(), "want 01") {
		t.Errorf("another hash: got %v", err)
	}
	if _, err := Unwrap(c.refs[0], [32]byte(root.Hash())); err == nil || !strings.Contains(err.Error(), "want a Merkle proof") {
		t.Errorf("no proof: got %v", err)
	}
	if _, err := NewHash(c); err == nil {
		t.Error("a proof is taken for an update")
	}
	if c.Read().Err() == nil {
		t.Error("fields of a proof are read")
	}
}

func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	seeds := 0
	for range 4 {
		root := tree(r, 3)
		for _, o := range options {
			f.Add(root.ToBOCWithOptions(o))
			f.Add(proof(f, r, root).ToBOCWithOptions(o))
			seeds += 2
		}
	}
	if seeds < 30 {
		f.Fatalf("%d seeds, want at least 30", seeds)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		roots, err := Parse(data)
		if err != nil {
			return
		}
		second, err := ton.FromBOCMultiRoot(data)
		if err != nil {
			t.Fatalf("tonutils-go refuses what Parse accepts: %v", err)
		}
		for i, root := range roots {
			if h := root.at(maxLevel); !bytes.Equal(h.hash[:], second[i].Hash()) {
				t.Fatalf("root %d: hash is %x, want %x", i, h.hash, second[i].Hash())
			}
			bag, err := Encode(root)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseOne(bag)
			if err != nil || again.representation() != root.representation() {
				t.Fatalf("root %d encoded and parsed again: %v", i, err)
			}
			// Reading as a dictionary must end, whatever the cells are.
			_, _ = Lookup(root, make([]byte, 32), 256)
			_ = Each(root, 32, 100, func([32]byte, *Reader) error { return nil })
		}
	})
}

// BenchmarkParse reads the bag of a tree of some thousand cells, beside tonutils-go.
func BenchmarkParse(b *testing.B) {
	r := rand.New(rand.NewPCG(11, 12))
	c := ton.BeginCell()
	for range 4 {
		c.MustStoreRef(tree(r, 8))
	}
	bag := c.EndCell().ToBOC()
	b.SetBytes(int64(len(bag)))
	b.Run("tonutils", func(b *testing.B) {
		for b.Loop() {
			if _, err := ton.FromBOC(bag); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cell", func(b *testing.B) {
		for b.Loop() {
			if _, err := Parse(bag); err != nil {
				b.Fatal(err)
			}
		}
	})
}
