package vtpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"chrysalis/measure/register"
)

func exampleQuote() *Quote {
	return &Quote{
		Signer: append([]byte{0, 0x0b}, bytes.Repeat([]byte{7}, 32)...), Extra: bytes.Repeat([]byte{9},
			64), Clock: 123456, ResetCount: 3, RestartCount: 1,
		Safe: true, FirmwareVersion: 0x2024012500120000, Selections: []Selection{SHA256Selection(register.Quoted())}, Digest: bytes.Repeat([]byte{5}, 32),
	}
}

// TestAgainstGoTPM has another implementation of the structures as second opinion, in both directions.
func TestAgainstGoTPM(t *testing.T) {
	own := exampleQuote()
	theirs := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: own.Signer}, ExtraData: tpm2.TPM2BData{Buffer: own.Extra},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: own.Clock, ResetCount: own.ResetCount, RestartCount: own.RestartCount, Safe: true},
		FirmwareVersion: own.FirmwareVersion,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256,
				PCRSelect: tpm2.PCClientCompatible.PCRs(register.Quoted()...)}}},
			PCRDigest: tpm2.TPM2BDigest{Buffer: own.Digest},
		}),
	}
	if got, want := own.Marshal(), tpm2.Marshal(theirs); !bytes.Equal(got, want) {
		t.Errorf("marshalled: got %x, want go-tpm's %x", got, want)
	}
	q, err := ParseQuote(tpm2.Marshal(theirs))
	if err != nil {
		t.Fatal(err)
	}
	if !q.Selects(register.Quoted()) || !bytes.Equal(q.Extra, own.Extra) || !bytes.Equal(q.Digest, own.Digest) {
		t.Errorf("parsed: got %+v, want %+v", q, own)
	}
	signature := Signature{R: bytes.Repeat([]byte{1}, 32), S: bytes.Repeat([]byte{2}, 32)}
	want := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: signature.R}, SignatureS: tpm2.TPM2BECCParameter{Buffer: signature.S}})})
	if got := signature.Marshal(); !bytes.Equal(got, want) {
		t.Errorf("signature: got %x, want go-tpm's %x", got, want)
	}
}

func TestParseQuoteRefuses(t *testing.T) {
	good := exampleQuote().Marshal()
	edit := func(at int, value ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], value)
		return b
	}
	selection := bytes.Index(good, []byte{0, 0, 0, 1, 0, 0x0b, 3})
	safe := selection - 9
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "ends early"},
		{"too long", make([]byte, maxQuoteBytes+1), "want at most"},
		{"not made by a TPM", edit(0, 0), "magic is"},
		{"a certification instead of a quote", edit(4, 0x80, 0x17), "type is 0x8017"},
		{"long name", edit(6, 0xff), "want at most 68"},
		{"safe is two", edit(safe, 2), "safe is 2"},
		{"many selections", edit(selection, 1), "selections, want at most"},
		{"selection of four bytes", edit(selection+6, 4), "selection has 4 bytes"},
		{"trailing byte", append(bytes.Clone(good), 0), "1 bytes after the end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseQuote(tt.b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	for cut := range good {
		if _, err := ParseQuote(good[:cut]); err == nil {
			t.Fatalf("cut at byte %d: got no error, want a refusal", cut)
		}
	}
}

func TestSelects(t *testing.T) {
	sha1 := Selection{Hash: 4, Registers: register.Quoted()}
	exact := SHA256Selection(register.Quoted())
	for _, tt := range []struct {
		name       string
		selections []Selection
		want       bool
	}{
		{"exact", []Selection{exact}, true},
		{"none", nil, false},
		{"no register", []Selection{SHA256Selection(nil)}, false},
		{"one fewer", []Selection{SHA256Selection(register.Quoted()[1:])}, false},
		{"one more", []Selection{SHA256Selection(append(register.Quoted(), 15))}, false},
		{"another bank", []Selection{sha1}, false},
		{"another bank too", []Selection{exact, sha1}, false},
		{"twice", []Selection{exact, exact}, false},
	} {
		if got := (&Quote{Selections: tt.selections}).Selects(register.Quoted()); got != tt.want {
			t.Errorf("%s: got %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestSignature(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	attest := exampleQuote().Marshal()
	sum := sha256.Sum256(attest)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature, err := ParseSignature(Signature{r.Bytes(), s.Bytes()}.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if !signature.Verify(&key.PublicKey, attest) {
		t.Error("the key's own signature: got false, want true")
	}
	for i := range len(attest) * 8 {
		bad := bytes.Clone(attest)
		bad[i/8] ^= 1 << (i % 8)
		if signature.Verify(&key.PublicKey, bad) {
			t.Fatalf("bit %d flipped: got true, want false", i)
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signature.Verify(nil, attest) || signature.Verify(&other.PublicKey, attest) || (Signature{}).Verify(&key.PublicKey, attest) {
		t.Error("no key, a P-384 key or an empty signature: got true, want false")
	}
	for _, b := range [][]byte{nil, {0, 0x14, 0, 0x0b, 0, 0, 0, 0}, {0, 0x18, 0, 0x0c, 0, 0, 0, 0},
		append(signature.Marshal(), 0), make([]byte, 300)} {
		if _, err := ParseSignature(b); err == nil {
			t.Errorf("%x: got no error, want a refusal", b)
		}
	}
}

func FuzzParseQuote(f *testing.F) {
	f.Add(exampleQuote().Marshal())
	f.Add((&Quote{}).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseQuote(b)
		if err != nil {
			return
		}
		if got := q.Marshal(); !bytes.Equal(got, b) {
			t.Errorf("parsed and marshalled: got %x, want %x", got, b)
		}
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add(Signature{make([]byte, 32), make([]byte, 32)}.Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSignature(b)
		if err != nil {
			return
		}
		if got := s.Marshal(); !bytes.Equal(got, b) {
			t.Errorf("parsed and marshalled: got %x, want %x", got, b)
		}
	})
}
