package tdx_test

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/testing/testdata"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
)

// genuine returns the quotes of real machines that go-tdx-guest carries. Somebody appended text to the first.
func genuine(t testing.TB) [][]byte {
	t.Helper()
	end := bytes.Index(testdata.RawQuote, []byte("\nextra bytes"))
	if len(testdata.RawQuoteV5) == 0 || end < 0 {
		t.Fatal("no quotes in go-tdx-guest's test data")
	}
	return [][]byte{testdata.RawQuote[:end], testdata.RawQuoteV5}
}

func TestParse(t *testing.T) {
	quotes := genuine(t)
	for _, tt := range []struct{ version, tdx15 int }{{4, 0}, {5, 0}, {5, 1}} {
		quotes = append(quotes, attesttest.NewTDX(now, uint16(tt.version), tt.tdx15 == 1).Build().Quote)
	}
	for i, raw := range quotes {
		q, err := tdx.Parse(append(bytes.Clone(raw), make([]byte, 100)...))
		if err != nil {
			t.Errorf("quote %d with padding: %v", i, err)
			continue
		}
		if !bytes.Equal(q.Encode(), raw) {
			t.Errorf("quote %d: written again it is another", i)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	v4, v5 := attesttest.NewTDX(now, 4, false).Build().Quote, attesttest.NewTDX(now, 5, true).Build().Quote
	edit := func(b []byte, at int, value ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[at:], value)
		return b
	}
	u32 := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	sizeAt := 48 + 584
	typeAt := sizeAt + 4 + 128
	authAt := typeAt + 6 + 384 + 64
	auth := int(binary.LittleEndian.Uint16(v4[authAt:]))
	for _, tt := range []struct {
		name  string
		quote []byte
		want  string
	}{
		{"empty", nil, "header is 0 bytes, want 48"},
		{"header cut", v4[:40], "header is 40 bytes, want 48"},
		{"too long", append(bytes.Clone(v4), make([]byte, tdx.MaxQuoteBytes)...), "want at most"},
		{"version 3", edit(v4, 0, 3), "version is 3"},
		{"version 6", edit(v4, 0, 6), "version is 6"},
		{"P-384 key", edit(v4, 2, 3), "attestation key is of type 3"},
		{"SGX", edit(v4, 4, 0), "TEE is of type 0x0"},
		{"another vendor", edit(v4, 12, 0), "vendor"},
		{"body cut", v4[:600], "body is 552 bytes, want 584"},
		{"SGX body", edit(v5, 48, 1), "body is of type 1"},
		{"unknown body", edit(v5, 48, 4), "body is of type 4"},
		{"size of another body", edit(v5, 50, u32(584)...), "want 648"},
		{"no signature data", v4[:sizeAt], "size of signature data is 0 bytes"},
		{"huge signature data", edit(v4, sizeAt, 0xff, 0xff, 0xff, 0xff), "want 4294967295"},
		{"short signature data", edit(v4, sizeAt, u32(100)...), "after the quote"},
		{"cut", v4[:len(v4)-1], "signature data is"},
		{"trailing byte", append(bytes.Clone(v4), 1), "1 bytes after the quote"},
		{"byte after padding", append(bytes.Clone(v4), 0, 0, 1), "3 bytes after the quote"},
		{"certification data of another type", edit(v4, typeAt, 5), "certification data is of type 5, want 6"},
		{"huge certification data", edit(v4, typeAt+2, 0xff, 0xff, 0xff, 0xff), "want 4294967295"},
		{"long authentication data", edit(v4, authAt, 0xff, 0xff), "QE authentication data is"},
		{"a chain that is called a PPID", edit(v4, authAt+2+auth, 3), "QE certification data of type 3 has"},
		{"certification data of no known type", edit(v4, authAt+2+auth, 6), "QE certification data is of type 6, want 5"},
		{"chain shorter than its place", edit(v4, authAt+4+auth, u32(10)...), "left over"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tdx.Parse(tt.quote); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestEveryPrefix cuts a quote at every length.
func TestEveryPrefix(t *testing.T) {
	for _, raw := range genuine(t) {
		// Intel's chain ends with a zero or not; cut there the quote is still cut.
		for n := range raw {
			if _, err := tdx.Parse(raw[:n]); err == nil {
				t.Fatalf("the first %d of %d bytes: got no error", n, len(raw))
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, raw := range genuine(f) {
		f.Add(raw)
	}
	for _, version := range []uint16{4, 5} {
		f.Add(attesttest.NewTDX(now, version, version == 5).Build().Quote)
	}
	ppid := attesttest.NewTDX(now, 4, false)
	ppid.Certification = tdx.Certification{Type: 3, Data: make([]byte, 404)}
	if _, err := tdx.Parse(ppid.Build().Quote); err != nil {
		f.Fatal(err)
	}
	f.Add(ppid.Quote())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := tdx.Parse(b)
		if err != nil {
			return
		}
		again := q.Encode()
		if len(again) > len(b) || !bytes.Equal(again, b[:len(again)]) || len(bytes.Trim(b[len(again):], "\x00")) != 0 {
			t.Errorf("parsed and written again: got %x, want %x and zeros", again, b)
		}
	})
}

func FuzzParseCollateral(f *testing.F) {
	whole, err := attesttest.NewTDX(now, 4, false).Build().Collateral.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := tdx.ParseCollateral(b)
		if err != nil {
			return
		}
		text, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := tdx.ParseCollateral(text)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(twice, text) {
			t.Errorf("written twice: got %s, want %s", twice, text)
		}
	})
}

func TestParseCollateral(t *testing.T) {
	e := attesttest.NewTDX(now, 4, false).Build()
	text, err := e.Collateral.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := tdx.ParseCollateral(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tdx.Verify(e.Quote, c, tdx.Options{}, now, e.Root); err != nil {
		t.Errorf("collateral that was written and read: %v", err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown member", `{"pck_crl"`, `{"other":"","pck_crl"`, "unknown"},
		{"member twice", `{"pck_crl"`, `{"pck_crl":"00","pck_crl"`, "duplicate"},
		{"missing member", `{"pck_crl"`, `{"pck_crl":"","x`, ""},
		{"trailing bytes", `{"pck_crl"`, `{}{"pck_crl"`, ""},
		{"CRL not hexadecimal", `{"pck_crl":"30`, `{"pck_crl":"zz`, "pck_crl"},
		{"member of a number", `{"pck_crl"`, `{"pck_crl":7,"x`, `member "/pck_crl" can't be a number`},
		{"member of null", `{"pck_crl":"`, `{"pck_crl":null,"pck_certificate_chain":"`, "pck_crl is missing or empty"},
		{"half a character", `{"pck_crl":"30`, `{"pck_crl":"\ud800`, "no JSON"},
		{"short signature", `"tcb_info_signature":"`, `"tcb_info_signature":"00`, "65 bytes, want 64"},
	} {
		bad := strings.Replace(string(text), tt.old, tt.new, 1)
		if bad == string(text) {
			t.Fatalf("%s: nothing was replaced", tt.name)
		}
		if _, err := tdx.ParseCollateral([]byte(bad)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, err := tdx.ParseCollateral(make([]byte, tdx.MaxCollateralBytes+1)); err == nil {
		t.Error("too long: got no error")
	}
}

func TestParseRoot(t *testing.T) {
	if got := tdx.IntelRoot().Subject.CommonName; got != "Intel SGX Root CA" {
		t.Errorf("embedded root: got %q", got)
	}
	m := attesttest.NewTDX(now, 4, false)
	e := m.Build()
	if !tdx.IsIntelRoot(tdx.IntelRoot()) || tdx.IsIntelRoot(e.Root) || tdx.IsIntelRoot(nil) {
		t.Error("Intel's root is not told from another")
	}
	for name, pem := range map[string][]byte{
		"two certificates": e.Collateral.TCBInfoIssuerChain,
		"nothing":          nil,
		"text around it":   append([]byte("# root\n"), e.Collateral.TCBInfoIssuerChain...),
	} {
		if _, err := tdx.ParseRoot(pem); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzParseSigned(f *testing.F) {
	c := attesttest.NewTDX(now, 4, false).Build().Collateral
	for _, seed := range [][]byte{c.TCBInfo, c.QEIdentity, []byte("{}")} {
		f.Add(seed)
	}
	if info, identity := tdx.ParseSigned(c.TCBInfo); info != nil || identity == nil {
		f.Fatalf("TCB info: got %v and %v, want it to be TCB info alone", info, identity)
	}
	if info, identity := tdx.ParseSigned(c.QEIdentity); info == nil || identity != nil {
		f.Fatalf("QE identity: got %v and %v, want it to be a QE identity alone", info, identity)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if info, identity := tdx.ParseSigned(b); info == nil && identity == nil {
			t.Errorf("%s is both TCB info and QE identity", b)
		}
	})
}

func FuzzParseChain(f *testing.F) {
	c := attesttest.NewTDX(now, 4, false).Build().Collateral
	if _, err := tdx.ParseChain(c.TCBInfoIssuerChain, 2); err != nil {
		f.Fatal(err)
	}
	f.Add(c.TCBInfoIssuerChain)
	f.Add(append(bytes.Clone(c.PCKCRLIssuerChain), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		ders, err := tdx.ParseChain(b, 2)
		if err != nil {
			return
		}
		// Line ends and trailing zeros apart, the text is the one encoding of its certificates.
		var again []byte
		for _, der := range ders {
			again = append(again, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		strip := func(b []byte) string {
			return strings.NewReplacer("\r", "", "\n", "").Replace(string(bytes.TrimRight(b, "\x00")))
		}
		if strip(again) != strip(b) {
			t.Errorf("parsed and written again: got %q, want %q", strip(again), strip(b))
		}
	})
}

var ppidName = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1, 1}

// TestExtensionIsDER: each way to write the extension otherwise is refused.
func TestExtensionIsDER(t *testing.T) {
	m := attesttest.NewTDX(now, 4, false)
	m.Build()
	good := m.PCK.Template.ExtraExtensions[0].Value
	if good[0] != 0x30 || good[1] != 0x82 {
		t.Fatalf("the extension begins with %x, want a sequence with a length of two bytes", good[:4])
	}
	body := good[4:]
	wrap := func(body []byte) []byte {
		return append([]byte{0x30, 0x82, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	entry := func(content ...byte) []byte { return append([]byte{0x30, byte(len(content))}, content...) }
	var many []byte
	for i := range byte(64) {
		many = append(many, entry(0x06, 2, 0x2a, i, 5, 0)...)
	}
	for _, tt := range []struct {
		name string
		der  []byte
		want string
	}{
		{"nothing", []byte{}, "0 bytes, want a tag and a length"},
		{"bytes after it", append(slices.Clone(good), 5, 0), "2 bytes after it"},
		{"a set", append([]byte{0x31}, good[1:]...), "tag 0x31, want a sequence"},
		{"a byte short", good[:len(good)-1], "bytes, want"},
		{"a length without end", append([]byte{0x30, 0x80}, append(slices.Clone(body), 0, 0)...), "shortest"},
		{"a length of three bytes", append([]byte{0x30, 0x83, 0}, good[2:]...), "shortest"},
		{"a length with a zero before it", wrap(append([]byte{0x30, 0x82, 0, 4, 0x06, 0x00, 0x05, 0x00}, body...)), "shortest"},
		{"a long length for a short one", wrap(append([]byte{0x30, 0x81, 7, 0x06, 3, 0x2a, 3, 4, 5, 0}, body...)), "shortest"},
		{"a tag that goes on", wrap(append(slices.Clone(body), entry(0x06, 2, 0x2a, 3, 0x1f, 1, 0)...)), "tag 0x1f goes on"},
		{"an entry without a value", wrap(append(slices.Clone(body), entry(0x06, 2, 0x2a, 3)...)), "0 bytes, want a tag and a length"},
		{"an entry of two values", wrap(append(slices.Clone(body), entry(0x06, 2, 0x2a, 3, 5, 0, 5, 0)...)), "2 bytes after an entry's value"},
		{"an entry without a name", wrap(append(slices.Clone(body), entry(0x04, 2, 0x2a, 3, 5, 0)...)), "begins with a name"},
		{"a name that is none", wrap(append(slices.Clone(body), entry(0x06, 2, 0x80, 1, 5, 0)...)), "an entry's name"},
		{"entries without end", wrap(append(slices.Clone(body), many...)), "more than 64 entries"},
		{"a name twice", wrap(append(slices.Clone(body), body[:2+int(body[1])]...)), "1.2.840.113741.1.13.1.1 is there twice"},
	} {
		if _, err := tdx.ParseSGX(tt.der); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	p, err := tdx.ParseSGX(wrap(append(slices.Clone(body), entry(0x06, 2, 0x2a, 3, 5, 0)...)))
	if err != nil || p.PPID != m.Platform.PPID {
		t.Errorf("an entry more: got %v, want it read", err)
	}
}

func FuzzParseSGX(f *testing.F) {
	m := attesttest.NewTDX(now, 4, false)
	m.Build()
	seed := m.PCK.Template.ExtraExtensions[0].Value
	if p, err := tdx.ParseSGX(seed); err != nil || p != m.Platform {
		f.Fatalf("got %+v and %v, want %+v", p, err, m.Platform)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := tdx.ParseSGX(b)
		if err == nil && !bytes.Contains(b, p.PPID[:]) {
			t.Errorf("PPID %x is not in %x", p.PPID, b)
		}
		// What is read here by hand encoding/asn1 must read too, to the same PPID.
		var entries []attesttest.SGXEntry
		rest, standard := asn1.Unmarshal(b, &entries)
		if err == nil && (standard != nil || len(rest) != 0 || !slices.ContainsFunc(entries, func(e attesttest.SGXEntry) bool {
			return e.Name.Equal(ppidName) && e.Value.Tag == asn1.TagOctetString && bytes.Equal(e.Value.Bytes, p.PPID[:])
		})) {
			t.Errorf("%x is accepted, and encoding/asn1 says %v", b, standard)
		}
	})
}

func FuzzParseCRL(f *testing.F) {
	c := attesttest.NewTDX(now, 4, false).Build().Collateral
	for _, seed := range [][]byte{c.PCKCRL, c.RootCACRL} {
		if _, err := tdx.ParseCRL(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Add(append(bytes.Clone(c.PCKCRL), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if crl, err := tdx.ParseCRL(b); err == nil && (!bytes.Equal(crl.Raw, b) || crl.NextUpdate.IsZero()) {
			t.Errorf("%x: a CRL of %d bytes until %s in %d", b, len(crl.Raw), crl.NextUpdate, len(b))
		}
	})
}
