package nvidia_test

import (
	"bytes"
	"fmt"
	"testing"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/nvidia"
)

// FuzzParse shows that what is parsed is written again as it was, so that no bit of a report goes unread.
func FuzzParse(f *testing.F) {
	for _, r := range []*run{hopper(), blackwell(), ppcie()} {
		for _, d := range append(r.GPUs, r.Switches...) {
			raw := d.Sign()
			if _, err := nvidia.Parse(raw); err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := nvidia.Parse(raw)
		if err != nil {
			return
		}
		if got := r.Marshal(); !bytes.Equal(got, raw) {
			t.Errorf("got %x, want %x", got, raw)
		}
		_, _ = r.Claims()
		_, _ = r.SwitchClaims()
	})
}

// FuzzRIM shows that nothing but what the software's signers signed has a sound signature by them.
func FuzzRIM(f *testing.F) {
	trusted := map[nvidia.Root]bool{}
	documents := map[string]bool{}
	for _, r := range []*run{hopper(), corim(), ppcie()} {
		trusted[nvidia.RootOf(r.RIMRoot.Certificate())] = true
		for _, d := range r.RIMs {
			document := d.Document()
			rim, err := nvidia.ParseRIM(document)
			if err != nil || nvidia.SignatureOf(rim) != nil {
				f.Fatal(err, nvidia.SignatureOf(rim))
			}
			documents[contents(rim)] = true
			f.Add(document)
		}
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		rim, err := nvidia.ParseRIM(document)
		if err != nil || nvidia.SignatureOf(rim) != nil || !trusted[nvidia.RootOfRIM(rim)] {
			return
		}
		if !documents[contents(rim)] {
			t.Errorf("a document that nobody signed: %s", contents(rim))
		}
	})
}

// contents is what a document says.
func contents(r *nvidia.RIM) string {
	return fmt.Sprint(r.Form, r.Tag, r.Edition, r.Product, r.Version, r.References)
}

// FuzzXML shows that what is canonical stays as it is when it is read again.
func FuzzXML(f *testing.F) {
	f.Add(swid(nil))
	f.Add([]byte(`<a xmlns="u:1" xmlns:b="u:2" b:c="&lt;&#x9;">&amp;<d/></a>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := nvidia.Canonical(text)
		if err != nil || len(once) > 256<<10 {
			return
		}
		again, err := nvidia.Canonical(once)
		if err != nil || !bytes.Equal(once, again) {
			t.Errorf("%v\nonce  %q\nagain %q", err, once, again)
		}
	})
}

// FuzzCBOR shows that an item has one encoding.
func FuzzCBOR(f *testing.F) {
	f.Add(corim().RIMs[0].Document())
	f.Add(attesttest.EncodeCBOR(attesttest.CBORMap{1, -35, "x", []any{nil, true}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, err := nvidia.AgainCBOR(b); err == nil && !bytes.Equal(again, b) {
			t.Errorf("got %x, want %x", again, b)
		}
	})
}
