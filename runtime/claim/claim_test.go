package claim

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xssnick/tonutils-go/address"
	"github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

var allOps = []Op{WorkerPayout, WorkerLastPayout, ClientCharge, ClientRefund}

func testKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(0x40 + i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func testAddress(workchain int8, first byte) ton.Address {
	a := ton.Address{Workchain: workchain}
	for i := range a.Account {
		a.Account[i] = first + byte(i)*7
	}
	return a
}

func testMessage(op Op) Message {
	return Message{Op: op, QueryID: 0x0123456789abcdef, Tokens: 1_000_000, Contract: testAddress(0, 0xc1), Excesses: testAddress(-1, 0x5e)}
}

func testPolicy() Policy {
	return Policy{Key: pubkey.Of(testKey()), Contract: testAddress(0, 0xc1)}
}

func mustSign(t testing.TB, m Message) *Body {
	t.Helper()
	b, err := Sign(testKey(), m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tonutilsBody builds the same message with a second implementation: tonutils-go's cells.
func tonutilsBody(m Message, key ed25519.PrivateKey) *cell.Cell {
	payload := cell.BeginCell().
		MustStoreUInt(uint64(m.Op), 32).MustStoreUInt(m.QueryID, 64).MustStoreUInt(m.Tokens, 64).
		MustStoreAddr(address.NewAddress(0, byte(m.Contract.Workchain), m.Contract.Account[:])).EndCell()
	return cell.BeginCell().
		MustStoreUInt(uint64(m.Op), 32).MustStoreUInt(m.QueryID, 64).
		MustStoreAddr(address.NewAddress(0, byte(m.Excesses.Workchain), m.Excesses.Account[:])).
		MustStoreSlice(ed25519.Sign(key, payload.Hash()), 512).MustStoreRef(payload).EndCell()
}

func TestSameBytesAsTonutils(t *testing.T) {
	for _, op := range allOps {
		t.Run(op.String(), func(t *testing.T) {
			for _, tokens := range []uint64{0, 1, 1_000_000, 1 << 63, 1<<64 - 1} {
				m := testMessage(op)
				m.Tokens = tokens
				got := mustSign(t, m)
				second := tonutilsBody(m, testKey())
				if want := second.ToBOC(); !bytes.Equal(got[:], want) {
					t.Fatalf("tokens %d: got\n%x\nwant, by tonutils-go,\n%x", tokens, got, want)
				}
				if hash := got.Hash(); !bytes.Equal(hash[:], second.Hash()) {
					t.Errorf("tokens %d: hash is %x, want %x", tokens, hash, second.Hash())
				}
				back, err := Verify(got[:], testPolicy())
				if err != nil {
					t.Fatal(err)
				}
				if *back != m {
					t.Errorf("verified: got %+v, want %+v", *back, m)
				}
			}
		})
	}
}

// vector is one entry of testdata/vectors/messages.json. Reason is empty for a message that is accepted.
type vector struct {
	Name     string `json:"name"`
	Key      string `json:"pubkey"`
	Contract string `json:"contract"`
	Body     string `json:"body"`
	Op       string `json:"op,omitempty"`
	QueryID  uint64 `json:"query_id,omitempty"`
	Tokens   uint64 `json:"tokens,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// edited applies change to the bytes of a good charge and repairs the check sum, so that only the change is wrong.
func edited(t testing.TB, change func(b []byte) []byte) []byte {
	b := mustSign(t, testMessage(ClientCharge))
	out := change(b[:])
	if len(out) >= 4 {
		end := len(out) - 4
		binary.LittleEndian.PutUint32(out[end:], crc32.Checksum(out[:end], castagnoli))
	}
	return out
}

func flip(at int, mask byte) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= mask; return b }
}

// bare is a body without check sum, with bits of one byte flipped.
func bare(body *cell.Cell, at int, bits byte) []byte {
	b := body.ToBOCWithOptions(cell.BOCSerializeOptions{})
	b[at] ^= bits
	return b
}

// TestWithoutCheckSum: the bytes that TON's own libraries write by default carry the same message.
func TestWithoutCheckSum(t *testing.T) {
	m := testMessage(ClientCharge)
	want := mustSign(t, m)
	got, err := Parse(bare(tonutilsBody(m, testKey()), 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	full, err := Parse(want[:])
	if err != nil {
		t.Fatal(err)
	}
	if got.Message != full.Message || got.Signature != full.Signature || got.digest != full.digest {
		t.Errorf("got %+v, want %+v", got, full)
	}
}

// refused lists bodies with one thing wrong, each with the words of the check that must refuse it.
func refused(t testing.TB) []vector {
	outer, inner := bodyCellAt+2, payloadCellAt+2
	m := testMessage(ClientCharge)
	good := tonutilsBody(m, testKey())
	stranger := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	payload := good.MustPeekRef(0)
	signed := func(payload *cell.Cell) *cell.Cell {
		return cell.BeginCell().MustStoreUInt(uint64(m.Op), 32).MustStoreUInt(m.QueryID, 64).
			MustStoreAddr(address.NewAddress(0, byte(m.Excesses.Workchain), m.Excesses.Account[:])).
			MustStoreSlice(ed25519.Sign(testKey(), payload.Hash()), 512).MustStoreRef(payload).EndCell()
	}
	other := m
	other.Contract = testAddress(0, 0x11)
	last := good.ToBOC()
	last[len(last)-1] ^= 1
	closing := cell.BeginCell().MustStoreUInt(0x636a4391, 32).MustStoreUInt(m.QueryID, 64).
		MustStoreAddr(address.NewAddress(0, 0, m.Contract.Account[:])).EndCell()
	var list []vector
	for _, e := range []struct {
		name, reason string
		body         []byte
	}{
		{"empty", "0 bytes, want 184", nil},
		{"cut short", "183 bytes", good.ToBOC()[:BodySize-1]},
		{"trailing byte", "185 bytes", append(good.ToBOC(), 0)},
		{"no check sum, but flags that promise one", "flags of 180 bytes", good.ToBOC()[:crcAt]},
		{"no check sum, one bit of the payload changed", "signature is not by key", bare(good, inner+12, 0x80)},
		{"with an index", "186 bytes", good.ToBOCWithOptions(cell.BOCSerializeOptions{WithCRC32C: true, WithIndex: true})},
		{"two roots", "185 bytes", cell.ToBOCWithOptions([]*cell.Cell{good, payload}, cell.BOCSerializeOptions{WithCRC32C: true})},
		{"a third cell", "bytes, want 184", signed(payload.ToBuilder().MustStoreRef(cell.BeginCell().EndCell()).EndCell()).ToBOC()},
		{"a byte more in the payload", "185 bytes", signed(payload.ToBuilder().MustStoreUInt(0, 8).EndCell()).ToBOC()},
		{"a bit more in the payload", "addresses or ends of cells", signed(payload.ToBuilder().MustStoreUInt(1, 1).EndCell()).ToBOC()},
		{"a bit more in the body", "addresses or ends of cells", good.ToBuilder().MustStoreUInt(1, 1).EndCell().ToBOC()},
		{"an operation without tokens", "bytes, want 184", signed(closing).ToBOC()},
		{"magic", "magic", edited(t, flip(0, 1))},
		{"check sum", "check sum is", last},
		{"flags", "header of the bag", edited(t, flip(4, 0x20))},
		{"count of roots", "header of the bag", edited(t, flip(7, 2))},
		{"exotic body", "descriptors", edited(t, flip(bodyCellAt, 8))},
		{"body refers to itself", "reference is 0", edited(t, flip(payloadCellAt-1, 1))},
		{"exotic payload", "descriptors", edited(t, flip(payloadCellAt, 8))},
		{"operation outside", "operation outside the signature", edited(t, flip(outer, 0x80))},
		{"query id outside", "query id outside the signature", edited(t, flip(outer+4, 0x80))},
		{"unknown operation", "want one that carries tokens", edited(t, func(b []byte) []byte { b[outer] ^= 1; b[inner] ^= 1; return b })},
		{"tokens", "signature is not by key", edited(t, flip(inner+12, 0x80))},
		{"contract outside the signature", "signature is not by key", edited(t, flip(inner+25, 0x10))},
		{"anycast address", "addresses or ends of cells", edited(t, flip(inner+20, 0x20))},
		{"external address", "addresses or ends of cells", edited(t, flip(inner+20, 0xc0))},
		{"workchain", "workchain is 1", edited(t, flip(inner+21, 0x20))},
		{"signature", "signature is not by key", edited(t, flip(outer+60, 1))},
		{"another key", "signature is not by key", tonutilsBody(m, stranger).ToBOC()},
		{"another contract", "contract is 0:11", tonutilsBody(other, testKey()).ToBOC()},
	} {
		list = append(list, vector{Name: e.name, Body: hex.EncodeToString(e.body), Reason: e.reason,
			Key: testPolicy().Key.String(), Contract: testPolicy().Contract.String()})
	}
	return list
}

func accepted(t testing.TB) []vector {
	var list []vector
	for _, op := range allOps {
		m := testMessage(op)
		b := mustSign(t, m)
		list = append(list, vector{Name: op.String(), Body: hex.EncodeToString(b[:]), Op: op.String(), QueryID: m.QueryID, Tokens: m.Tokens,
			Key: testPolicy().Key.String(), Contract: m.Contract.String()})
	}
	return list
}

func TestVectors(t *testing.T) {
	file := filepath.Join("testdata", "vectors", "messages.json")
	want := append(accepted(t), refused(t)...)
	if *update {
		text, err := json.MarshalIndent(want, "", "\t")
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
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != len(want) {
		t.Fatalf("%s has %d vectors, want %d", file, len(vectors), len(want))
	}
	for i, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			if v != want[i] {
				t.Fatalf("file has %+v, the test builds %+v", v, want[i])
			}
			body, err := hex.DecodeString(v.Body)
			if err != nil {
				t.Fatal(err)
			}
			key, err := pubkey.Parse(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			contract, err := ton.Parse(v.Contract)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Verify(body, Policy{Key: key, Contract: contract})
			if v.Reason != "" {
				if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), v.Reason) {
					t.Fatalf("got error %v, want a rejection that says %q", err, v.Reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Op.String() != v.Op || m.Tokens != v.Tokens || m.QueryID != v.QueryID || m.Contract != contract {
				t.Errorf("got %+v, want %+v", *m, v)
			}
		})
	}
}

// TestEveryBit flips each bit of a message: under a repaired check sum too, none may be accepted as the same message,
// and what is still accepted may differ in the unsigned address for excesses alone.
func TestEveryBit(t *testing.T) {
	want := testMessage(ClientCharge)
	good := mustSign(t, want)
	for bit := range 8 * BodySize {
		bad := *good
		bad[bit/8] ^= 0x80 >> (bit % 8)
		if _, err := Verify(bad[:], testPolicy()); !errors.Is(err, check.ErrRejected) {
			t.Fatalf("bit %d flipped: got error %v, want a rejection", bit, err)
		}
		binary.LittleEndian.PutUint32(bad[crcAt:], crc32.Checksum(bad[:crcAt], castagnoli))
		if bad == *good {
			continue // the bit was in the check sum
		}
		got, err := Verify(bad[:], testPolicy())
		if err != nil {
			continue
		}
		if got.Excesses == want.Excesses {
			t.Fatalf("bit %d flipped: accepted with equal fields", bit)
		}
		got.Excesses = want.Excesses
		if *got != want {
			t.Fatalf("bit %d flipped: accepted as %+v", bit, *got)
		}
	}
}

func TestPolicyMustBeFilledIn(t *testing.T) {
	body := mustSign(t, testMessage(ClientCharge))
	key := testPolicy().Key
	for name, p := range map[string]Policy{
		"zero":                 {},
		"no contract":          {Key: key},
		"contract and any":     {Key: key, Contract: testPolicy().Contract, AnyContract: true},
		"no key":               {Contract: testPolicy().Contract},
		"no key, any contract": {AnyContract: true},
	} {
		if _, err := Verify(body[:], p); err == nil || errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: got error %v, want one about the policy", name, err)
		}
	}
	if _, err := Verify(body[:], Policy{Key: key, AnyContract: true}); err != nil {
		t.Errorf("any contract: got error %v, want none", err)
	}
}

func TestSignRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*Message)
	}{
		{"operation without tokens", "want one that carries tokens", func(m *Message) { m.Op = 0x636a4391 }},
		{"no contract", "contract is not given", func(m *Message) { m.Contract = ton.Address{} }},
		{"no excesses", "excesses is not given", func(m *Message) { m.Excesses = ton.Address{} }},
		{"workchain", "workchain is 5", func(m *Message) { m.Contract.Workchain = 5 }},
	} {
		m := testMessage(ClientCharge)
		tt.change(&m)
		if _, err := Sign(testKey(), m); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want it to say %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds := 0
	for _, v := range append(accepted(f), refused(f)...) {
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
		seeds++
	}
	if seeds < 30 {
		f.Fatalf("%d seeds, want at least 30", seeds)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == BodySize { // let mutations past the check sum
			binary.LittleEndian.PutUint32(data[crcAt:], crc32.Checksum(data[:crcAt], castagnoli))
		}
		u, err := Parse(data)
		if err != nil {
			if !errors.Is(err, check.ErrRejected) {
				t.Fatalf("error %v is no rejection", err)
			}
			return
		}
		var again Body
		again.writePayload(u.Message)
		again.writeBody(u.Message, u.Signature)
		if len(data) == bareSize {
			again[flagsAt] &^= flagCheckSum
		}
		if !bytes.Equal(again[:len(data)], data) {
			t.Fatalf("encoded again: got %x, want %x", again, data)
		}
		again[flagsAt] |= flagCheckSum
		root, err := cell.FromBOC(data)
		if err != nil {
			t.Fatalf("tonutils-go refuses what Parse accepts: %v", err)
		}
		if hash := again.Hash(); !bytes.Equal(hash[:], root.Hash()) {
			t.Fatalf("hash is %x, want %x", hash, root.Hash())
		}
	})
}

func BenchmarkSign(b *testing.B) {
	key, m := testKey(), testMessage(ClientCharge)
	digest := make([]byte, 32)
	b.Run("bare-ed25519", func(b *testing.B) {
		for b.Loop() {
			ed25519.Sign(key, digest)
		}
	})
	b.Run("claim", func(b *testing.B) {
		for b.Loop() {
			if _, err := Sign(key, m); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := mustSign(b, testMessage(ClientCharge))
	u, err := Parse(body[:])
	if err != nil {
		b.Fatal(err)
	}
	b.Run("bare-ed25519", func(b *testing.B) {
		for b.Loop() {
			ed25519.Verify(testPolicy().Key.Public(), u.digest[:], u.Signature[:])
		}
	})
	b.Run("claim", func(b *testing.B) {
		p := testPolicy()
		for b.Loop() {
			if _, err := Verify(body[:], p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
