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

var (
	countOps = []Op{WorkerPayout, WorkerLastPayout, ClientCharge, ClientRefund}
	closeOps = []Op{ProxyClose, ProxyCloseComplete}
)

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
	m := Message{Op: op, QueryID: 0x0123456789abcdef, Tokens: 1_000_000, Contract: testAddress(0, 0xc1), Excesses: testAddress(-1, 0x5e)}
	if op.Closes() {
		m.Tokens = 0
	}
	return m
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

func mustSignClose(t testing.TB, m Message) *CloseBody {
	t.Helper()
	b, err := SignClose(testKey(), m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tonutilsBody builds the same message with a second implementation: tonutils-go's cells.
func tonutilsBody(m Message, key ed25519.PrivateKey) *cell.Cell {
	inner := cell.BeginCell().MustStoreUInt(uint64(m.Op), 32).MustStoreUInt(m.QueryID, 64)
	if !m.Op.Closes() {
		inner.MustStoreUInt(m.Tokens, 64)
	}
	payload := inner.MustStoreAddr(address.NewAddress(0, byte(m.Contract.Workchain), m.Contract.Account[:])).EndCell()
	return cell.BeginCell().
		MustStoreUInt(uint64(m.Op), 32).MustStoreUInt(m.QueryID, 64).
		MustStoreAddr(address.NewAddress(0, byte(m.Excesses.Workchain), m.Excesses.Account[:])).
		MustStoreSlice(ed25519.Sign(key, payload.Hash()), 512).MustStoreRef(payload).EndCell()
}

func TestSameBytesAsTonutils(t *testing.T) {
	for _, op := range countOps {
		t.Run(op.String(), func(t *testing.T) {
			for _, tokens := range []uint64{0, 1, 1_000_000, MaxTokens - 1, MaxTokens} {
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

func TestCloseSameBytesAsTonutils(t *testing.T) {
	for _, op := range closeOps {
		m := testMessage(op)
		got, second := mustSignClose(t, m), tonutilsBody(m, testKey())
		if want := second.ToBOC(); !bytes.Equal(got[:], want) {
			t.Fatalf("%s: got\n%x\nwant, by tonutils-go,\n%x", op, got, want)
		}
		if bits := second.MustPeekRef(0).BitsSize(); bits != 363 {
			t.Errorf("%s: payload has %d bits, want 363", op, bits)
		}
		if hash := got.Hash(); !bytes.Equal(hash[:], second.Hash()) {
			t.Errorf("%s: hash is %x, want %x", op, hash, second.Hash())
		}
		for _, b := range [][]byte{got[:], bare(second, 0, 0)} {
			if back, err := Verify(b, testPolicy()); err != nil || *back != m {
				t.Errorf("%s, verified in %d bytes: got %+v (%v), want %+v", op, len(b), back, err, m)
			}
		}
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

// mislaid signs a message in the layout of another operation, which no builder of ours does.
func mislaid(m Message, op Op) *cell.Cell {
	as := m
	as.Op = op
	in := tonutilsBody(as, testKey()).MustPeekRef(0).MustBeginParse()
	in.MustLoadUInt(32)
	payload := cell.BeginCell().MustStoreUInt(uint64(m.Op), 32).MustStoreBuilder(in.ToBuilder()).EndCell()
	return cell.BeginCell().MustStoreUInt(uint64(m.Op), 32).MustStoreUInt(m.QueryID, 64).
		MustStoreAddr(address.NewAddress(0, byte(m.Excesses.Workchain), m.Excesses.Account[:])).
		MustStoreSlice(ed25519.Sign(testKey(), payload.Hash()), 512).MustStoreRef(payload).EndCell()
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
	closes := testMessage(ProxyClose)
	otherClose := closes
	otherClose.Contract = other.Contract
	many := func(tokens uint64) Message { m := m; m.Tokens = tokens; return m }
	var list []vector
	for _, e := range []struct {
		name, reason string
		body         []byte
	}{
		{"empty", "0 bytes, want 184", nil},
		{"cut short", "183 bytes", good.ToBOC()[:BodySize-1]},
		{"trailing byte", "185 bytes", append(good.ToBOC(), 0)},
		{"no check sum, but flags that promise one", "flags of 180 bytes", good.ToBOC()[:countForm.crcAt()]},
		{"no check sum, one bit of the payload changed", "signature is not by key", bare(good, inner+19, 1)},
		{"with an index", "186 bytes", good.ToBOCWithOptions(cell.BOCSerializeOptions{WithCRC32C: true, WithIndex: true})},
		{"two roots", "185 bytes", cell.ToBOCWithOptions([]*cell.Cell{good, payload}, cell.BOCSerializeOptions{WithCRC32C: true})},
		{"a third cell", "bytes, want 184", signed(payload.ToBuilder().MustStoreRef(cell.BeginCell().EndCell()).EndCell()).ToBOC()},
		{"a byte more in the payload", "185 bytes", signed(payload.ToBuilder().MustStoreUInt(0, 8).EndCell()).ToBOC()},
		{"a bit more in the payload", "addresses or ends of cells", signed(payload.ToBuilder().MustStoreUInt(1, 1).EndCell()).ToBOC()},
		{"a bit more in the body", "addresses or ends of cells", good.ToBuilder().MustStoreUInt(1, 1).EndCell().ToBOC()},
		{"a close under a charge's operation", "operation outside the signature is bb63ff93", signed(closing).ToBOC()},
		{"a count as a close", "proxy-close has 184 bytes, want 176", mislaid(testMessage(ProxyClose), ClientCharge).ToBOC()},
		{"a close as a charge", "client-charge has 176 bytes, want 184", mislaid(m, ProxyClose).ToBOC()},
		{"a close with one bit of the payload changed", "signature is not by key", bare(tonutilsBody(closes, testKey()), inner+20, 0x10)},
		{"a close, signed by another", "signature is not by key", tonutilsBody(closes, stranger).ToBOC()},
		{"a close of another proxy", "contract is 0:11", tonutilsBody(otherClose, testKey()).ToBOC()},
		{"a close cut short", "175 bytes", tonutilsBody(closes, testKey()).ToBOC()[:CloseSize-1]},
		{"a close with a bit more", "addresses or ends of cells", tonutilsBody(closes, testKey()).ToBuilder().MustStoreUInt(1, 1).EndCell().
			ToBOC()},
		{"2^62 and one tokens", "count is 4611686018427387905, want at most", tonutilsBody(many(MaxTokens+1), testKey()).ToBOC()},
		{"2^63 tokens", "count is 9223372036854775808, want at most", tonutilsBody(many(1<<63), testKey()).ToBOC()},
		{"2^64-1 tokens", "count is 18446744073709551615, want at most", tonutilsBody(many(1<<64-1), testKey()).ToBOC()},
		{"magic", "magic", edited(t, flip(0, 1))},
		{"check sum", "check sum is", last},
		{"flags", "header of the bag", edited(t, flip(4, 0x20))},
		{"count of roots", "header of the bag", edited(t, flip(7, 2))},
		{"exotic body", "descriptors", edited(t, flip(bodyCellAt, 8))},
		{"body refers to itself", "reference is 0", edited(t, flip(payloadCellAt-1, 1))},
		{"exotic payload", "descriptors", edited(t, flip(payloadCellAt, 8))},
		{"operation outside", "operation outside the signature", edited(t, flip(outer, 0x80))},
		{"query id outside", "query id outside the signature", edited(t, flip(outer+4, 0x80))},
		{"unknown operation", "want one of a payment or a close", edited(t, func(b []byte) []byte { b[outer] ^= 1; b[inner] ^= 1; return b })},
		{"tokens", "signature is not by key", edited(t, flip(inner+19, 1))},
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
	for _, op := range countOps {
		m := testMessage(op)
		b := mustSign(t, m)
		list = append(list, vector{Name: op.String(), Body: hex.EncodeToString(b[:]), Op: op.String(), QueryID: m.QueryID, Tokens: m.Tokens,
			Key: testPolicy().Key.String(), Contract: m.Contract.String()})
	}
	for _, op := range closeOps {
		m := testMessage(op)
		b := mustSignClose(t, m)
		list = append(list, vector{Name: op.String(), Body: hex.EncodeToString(b[:]), Op: op.String(), QueryID: m.QueryID,
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
	for _, want := range []Message{testMessage(ClientCharge), testMessage(ProxyClose)} {
		everyBit(t, want, tonutilsBody(want, testKey()).ToBOC())
	}
}

func everyBit(t *testing.T, want Message, good []byte) {
	crcAt := len(good) - crcBytes
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 0x80 >> (bit % 8)
		if _, err := Verify(bad, testPolicy()); !errors.Is(err, check.ErrRejected) {
			t.Fatalf("bit %d flipped: got error %v, want a rejection", bit, err)
		}
		binary.LittleEndian.PutUint32(bad[crcAt:], crc32.Checksum(bad[:crcAt], castagnoli))
		if bytes.Equal(bad, good) {
			continue // the bit was in the check sum
		}
		got, err := Verify(bad, testPolicy())
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
		{"unknown operation", "want one of a payment or a close", func(m *Message) { m.Op = 1 }},
		{"operation without tokens", "want SignClose", func(m *Message) { m.Op = ProxyClose }},
		{"no contract", "contract is not given", func(m *Message) { m.Contract = ton.Address{} }},
		{"no excesses", "excesses is not given", func(m *Message) { m.Excesses = ton.Address{} }},
		{"workchain", "workchain is 5", func(m *Message) { m.Contract.Workchain = 5 }},
		{"a count beyond the bound", "want at most 4611686018427387904", func(m *Message) { m.Tokens = MaxTokens + 1 }},
		{"2^63", "want at most 4611686018427387904", func(m *Message) { m.Tokens = 1 << 63 }},
		{"2^64-1", "want at most 4611686018427387904", func(m *Message) { m.Tokens = 1<<64 - 1 }},
	} {
		m := testMessage(ClientCharge)
		tt.change(&m)
		if b, err := Sign(testKey(), m); b != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want it to say %q", tt.name, b, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name, want string
		change     func(*Message)
	}{
		{"an operation that closes no proxy", "want Sign", func(m *Message) { m.Op = ClientRefund }},
		{"a count", "a close carries none", func(m *Message) { m.Tokens = 1 }},
		{"no contract", "contract is not given", func(m *Message) { m.Contract = ton.Address{} }},
	} {
		m := testMessage(ProxyCloseComplete)
		tt.change(&m)
		if b, err := SignClose(testKey(), m); b != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("closing with %s: got %v and error %v, want it to say %q", tt.name, b, err, tt.want)
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
		if n := len(data); n == BodySize || n == CloseSize { // let mutations past the check sum
			binary.LittleEndian.PutUint32(data[n-crcBytes:], crc32.Checksum(data[:n-crcBytes], castagnoli))
		}
		u, err := Parse(data)
		if err != nil {
			if !errors.Is(err, check.ErrRejected) {
				t.Fatalf("error %v is no rejection", err)
			}
			return
		}
		f := formOf(u.Message.Op)
		again := make([]byte, f.size)
		writePayload(again, u.Message)
		writeBody(again, u.Message, u.Signature)
		if len(data) == f.crcAt() {
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
		if hash := bodyHash(again); !bytes.Equal(hash[:], root.Hash()) {
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
