package nvidia_test

import (
	"bytes"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/nvidia"
)

// swid returns a document of the driver's in XML.
func swid(change func(*attesttest.BoardRIM)) []byte {
	d := hopper().RIMs[0]
	if change != nil {
		change(d)
	}
	return d.Document()
}

// cut returns what is from one text up to another, both included.
func cut(text, from, to string) string {
	at := strings.Index(text, from)
	end := strings.Index(text[at:], to)
	return text[at : at+end+len(to)]
}

// TestSignatureWrapping hands in documents that still have a sound signature of the sound document in them, and say something else beside
// it. None is read: it is refused, or what is wrong with its signature is told.
func TestSignatureWrapping(t *testing.T) {
	sound := string(swid(nil))
	signature := cut(sound, "<ds:Signature ", "</ds:Signature>")
	payload := cut(sound, "<ns0:Payload", "</ns0:Payload>")
	info := cut(signature, "<ds:SignedInfo>", "</ds:SignedInfo>")
	key := cut(signature, "<ds:KeyInfo>", "</ds:KeyInfo>")
	reference := cut(info, "<ds:Reference ", "</ds:Reference>")
	resource := cut(payload, "<ns0:Resource", "/>")
	forged := strings.Replace(resource, `ns2:Hash0="`, `ns2:Hash0="00`, 1)
	forged = strings.Replace(forged, cut(forged, `ns2:Hash0="`, `" `), `ns2:Hash0="`+strings.Repeat("0", 96)+`" `, 1)
	bad := strings.Replace(payload, resource, forged, 1)
	other := string(hopper().RIMs[1].Document())
	otherKey := cut(other, "<ds:KeyInfo>", "</ds:KeyInfo>")
	root := sound[:strings.Index(sound, ">")+1]
	in := func(from, to string) string {
		if !strings.Contains(sound, from) {
			t.Fatalf("nothing to replace: %.60s", from)
		}
		return strings.Replace(sound, from, to, 1)
	}
	for name, text := range map[string]string{
		"payload forged":                in(payload, bad),
		"payload before the signed one": in(payload, bad+payload),
		"payload after the signed one":  in(payload, payload+bad),
		"payload in the signature":      in("</ds:Signature>", "<ds:Object>"+bad+"</ds:Object></ds:Signature>"),
		"signed payload in the signature": strings.Replace(in(payload, bad), "</ds:Signature>",
			"<ds:Object>"+payload+"</ds:Object></ds:Signature>", 1),
		"payload in a comment":       in(payload, "<!--"+payload+"-->"+bad),
		"comment in a value":         in(`<ns0:Payload`, `<!-- --><ns0:Payload`),
		"instruction":                in("<ns0:Payload", "<?x y?><ns0:Payload"),
		"CDATA":                      in("<ns0:Payload", "<![CDATA[ ]]><ns0:Payload"),
		"DTD":                        "<!DOCTYPE x [<!ENTITY e 'x'>]>" + sound,
		"entity":                     in(`edition="GPU"`, `edition="&e;"`),
		"root around the signed one": root + bad + sound + "</SoftwareIdentity>",
		"signed document in the signature": root + bad + strings.Replace(signature, "</ds:Signature>",
			"<ds:Object>"+sound+"</ds:Object></ds:Signature>", 1) + "</SoftwareIdentity>",
		"signature by its id":                in(`<ds:Reference URI="">`, `<ds:Reference URI="#x">`),
		"reference without a URI":            in(`<ds:Reference URI="">`, `<ds:Reference>`),
		"two signatures":                     in("</ds:Signature>", "</ds:Signature>"+signature),
		"signature within the payload":       in(payload, strings.Replace(payload, "</ns0:Payload>", signature+"</ns0:Payload>", 1)),
		"signature within the payload alone": strings.Replace(in(signature, ""), "</ns0:Payload>", signature+"</ns0:Payload>", 1),
		"no signature":                       in(signature, ""),
		"two of SignedInfo":                  in(info, info+info),
		"two references":                     in(reference, reference+reference),
		"a transform fewer":                  in(`<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>`, ""),
		"a transform more": in(`</ds:Transforms>`,
			`<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"/></ds:Transforms>`),
		"XPath in a transform": in(`xmldsig#enveloped-signature"/>`,
			`xmldsig#enveloped-signature"><ds:XPath>1</ds:XPath></ds:Transform>`),
		"exclusive canonicalisation": in(`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"/>`,
			`<ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>`),
		"signature by HMAC": in("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
			"http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
		"digest by SHA-1": in("http://www.w3.org/2001/04/xmldsig-more#sha384", "http://www.w3.org/2000/09/xmldsig#sha1"),
		"length of an HMAC": in(`#ecdsa-sha384"/>`,
			`#ecdsa-sha384"><ds:HMACOutputLength>0</ds:HMACOutputLength></ds:SignatureMethod>`),
		"key of others":        in(key, otherKey),
		"key of others before": in("<ds:X509Data>", "<ds:X509Data>"+cut(otherKey, "<ds:X509Certificate>", "</ds:X509Certificate>")),
		"bare key":             in(key, "<ds:KeyInfo><ds:KeyValue/></ds:KeyInfo>"),
		"signature in DER": in(cut(signature, "<ds:SignatureValue>", "</ds:SignatureValue>"),
			"<ds:SignatureValue>MGQCMBqtGhQ=</ds:SignatureValue>"),
		"empty signature": in(cut(signature, "<ds:SignatureValue>", "</ds:SignatureValue>"), "<ds:SignatureValue/>"),
		"signature in another namespace": in("xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"",
			"xmlns:ds=\"http://www.w3.org/2000/09/xmldsig\""),
		"hash in another namespace": in(`xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"`,
			`xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha256"`),
		"prefix declared anew": in(`<ns0:Payload `, `<ns0:Payload xmlns:ns2="x" `),
		"second root":          sound + sound,
		"text after the root":  sound + "x",
		"text in the root":     in("<ns0:Payload", "x<ns0:Payload"),
		"attribute twice":      in(`edition="GPU"`, `edition="GPU" edition="GPU"`),
		"attribute twice by two prefixes": in(`<ns0:Resource type="Measurement" index="7"`,
			`<ns0:Resource SHA384:Hash0="00" type="Measurement" index="7"`),
		"base of the document":        in(`corpus="false"`, `xml:base="x" corpus="false"`),
		"UTF-16":                      "\xff\xfe" + sound,
		"control character":           in(`edition="GPU"`, "edition=\"GPU\x01\""),
		"number of a character":       in(`edition="GPU"`, `edition="&#71;PU"`),
		"encoding":                    `<?xml version="1.0" encoding="utf-7"?>` + sound,
		"no end":                      strings.TrimSuffix(strings.TrimSpace(sound), "</SoftwareIdentity>"),
		"ends out of order":           in("</ns0:Payload>", "</ns0:Meta>"),
		"no space between attributes": in(`" index="7"`, `"index="7"`),
		"value without quotes":        in(`index="7"`, `index=7`),
	} {
		r, err := nvidia.ParseRIM([]byte(text))
		if err == nil && nvidia.SignatureOf(r) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// The same document, written otherwise: what is canonical is the same, and so it is accepted.
	for name, text := range map[string]string{
		"declaration":               `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + sound,
		"attributes out of order":   in(`edition="GPU" product="GH100"`, `product="GH100" edition="GPU"`),
		"single quotes":             in(`edition="GPU"`, `edition='GPU'`),
		"end tag":                   in(resource, strings.TrimSuffix(resource, "/>")+"></ns0:Resource>"),
		"line ends of two":          strings.ReplaceAll(sound, "\n", "\r\n"),
		"spaces in a tag":           in(` edition="GPU"`, "\n  edition = \"GPU\""),
		"space in the certificates": in("<ds:X509Certificate>", "<ds:X509Certificate>\n"),
	} {
		r, err := nvidia.ParseRIM([]byte(text))
		if err != nil || nvidia.SignatureOf(r) != nil {
			t.Errorf("%s: %v, %v", name, err, nvidia.SignatureOf(r))
		}
	}
}

// TestSWID refuses documents that are signed as they are and say nothing sound.
func TestSWID(t *testing.T) {
	if r, err := nvidia.ParseRIM(swid(nil)); err != nil || nvidia.SignatureOf(r) != nil || len(r.References) != 9 ||
		r.References[1].Index != 10 ||
		len(r.References[1].Values) != 2 || r.Version != "570.124.06" || r.Product != "GH100" || r.Edition != "GPU" || r.Tag != "driver's tag" {
		t.Fatalf("the sound document: got %+v, %v", r, err)
	}
	edit := func(from, to string) func(*attesttest.BoardRIM) {
		return func(d *attesttest.BoardRIM) { d.EditXML = replacing(from, to) }
	}
	for name, change := range map[string]func(*attesttest.BoardRIM){
		"another root element": edit("<SoftwareIdentity", "<Software"),
		"unknown element":      edit("<ns0:Entity", "<ns0:Link/><ns0:Entity"),
		"no tag":               func(d *attesttest.BoardRIM) { d.Tag = "" },
		"no version":           func(d *attesttest.BoardRIM) { d.Version = "" },
		"no edition":           func(d *attesttest.BoardRIM) { d.Edition = "" },
		"long product":         func(d *attesttest.BoardRIM) { d.Product = strings.Repeat("x", 65) },
		"nothing active": func(d *attesttest.BoardRIM) {
			d.Entries = []attesttest.BoardEntry{{Index: 1, Values: [][]byte{make([]byte, 48)}}}
		},
		"measurement twice":         func(d *attesttest.BoardRIM) { d.Entries = append(d.Entries, d.Entries[0]) },
		"measurement 255":           edit(`index="7"`, `index="255"`),
		"measurement -1":            edit(`index="7"`, `index="-1"`),
		"another type":              edit(`type="Measurement"`, `type="File"`),
		"neither active nor not":    edit(`active="True"`, `active="true"`),
		"no alternatives":           edit(`alternatives="1"`, `alternatives="0"`),
		"an alternative too few":    edit(`alternatives="2"`, `alternatives="1"`),
		"an alternative too many":   edit(`alternatives="1"`, `alternatives="2"`),
		"another size":              edit(`size="48"`, `size="47"`),
		"size 0":                    edit(`size="48"`, `size="0"`),
		"hash in words":             edit(`ns2:Hash0="`, `ns2:Hash0="zz`),
		"attribute twice":           edit(`edition="GPU"`, `edition="GPU" edition="GPU"`),
		"unknown attribute":         edit(`name="Measurement_7"`, `name="Measurement_7" mask="0"`),
		"text within a measurement": edit(`name="Measurement_7"`, `nome="Measurement_7"`),
		"one certificate":           func(d *attesttest.BoardRIM) { d.Signers = d.Signers[:1] },
		"chain without its root":    func(d *attesttest.BoardRIM) { d.Signers = d.Signers[:2] },
		"signer is an authority":    func(d *attesttest.BoardRIM) { d.Signers = d.Signers[1:] },
	} {
		if r, err := nvidia.ParseRIM(swid(change)); err == nil {
			t.Errorf("%s: got %+v, want a refusal", name, r)
		}
	}
}

// TestSignedInfo refuses signatures that are sound, over the document, and of another form than NVIDIA's.
func TestSignedInfo(t *testing.T) {
	const canonical = `Algorithm="http://www.w3.org/2006/12/xml-c14n11"`
	for name, change := range map[string][2]string{
		"attribute of a method":      {canonical + "/>", canonical + ` x="1"/>`},
		"text in a method":           {canonical + "/>", canonical + ">x</ds:CanonicalizationMethod>"},
		"element in a transform":     {`#enveloped-signature"/>`, `#enveloped-signature"><ds:XPath></ds:XPath></ds:Transform>`},
		"another canonicalisation":   {canonical, `Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"`},
		"another last transform":     {canonical + "/></ds:Transforms>", `Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>`},
		"another kind of signature":  {"xmldsig-more#ecdsa-sha384", "xmldsig-more#ecdsa-sha256"},
		"another kind of digest":     {"xmldsig-more#sha384", "xmlenc#sha256"},
		"a part of the document":     {`URI=""`, `URI="#x"`},
		"a reference without a URI":  {` URI=""`, ""},
		"a reference with a type":    {`URI=""`, `Type="x" URI=""`},
		"a digest that is too short": {"</ds:DigestValue>", "</ds:DigestValue><ds:DigestValue></ds:DigestValue>"},
		"two references":             {"</ds:SignedInfo>", "<ds:Reference></ds:Reference></ds:SignedInfo>"},
	} {
		r, err := nvidia.ParseRIM(swid(func(d *attesttest.BoardRIM) { d.EditSignedInfo = replacing(change[0], change[1]) }))
		if err == nil {
			t.Errorf("%s: got %+v, signature %v, want a refusal", name, r, nvidia.SignatureOf(r))
		}
	}
}

// TestCoRIM refuses documents that are signed as they are and say nothing sound, or something that is not compared here.
func TestCoRIM(t *testing.T) {
	document := func(change func(*attesttest.CoRIM)) []byte {
		d := corim().RIMs[0]
		d.EditCoRIM = change
		return d.Document()
	}
	r, err := nvidia.ParseRIM(document(nil))
	if err != nil || nvidia.SignatureOf(r) != nil || len(r.References) != 9 || len(r.References[1].Values) != 2 ||
		r.Tag != "NV_GPU_DRIVER_GH100_570.124.06" {
		t.Fatalf("the sound document: got %+v, %v", r, err)
	}
	// Paths into the CoMID: triples, the first reference triple, its environment, its class and its first measurement.
	type m = attesttest.CBORMap
	triples := func(c *attesttest.CoRIM) *m { v := c.Comid[5].(m); c.Comid[5] = v; return &v }
	triple := func(c *attesttest.CoRIM) []any { return (*triples(c))[1].([]any)[0].([]any) }
	claim := func(c *attesttest.CoRIM, to m) { triple(c)[1].([]any)[0] = to }
	digest := func(items ...any) m { return m{0, 8, 1, m{2, items}} }
	hash := make([]byte, 48)
	class := func(c *attesttest.CoRIM, to m) { triple(c)[0] = m{0, to} }
	payload := func(change func(m) m) func(*attesttest.CoRIM) {
		return func(c *attesttest.CoRIM) {
			c.Payload = attesttest.CBORTag{Tag: 501, Item: change(m{0, "id", 1, []any{attesttest.CBORTag{Tag: 506,
				Item: attesttest.EncodeCBOR(c.Comid)}},
				4, m{1, attesttest.CBORTag{Tag: 1, Item: 2000000000}}})}
		}
	}
	header := func(key, value any) func(*attesttest.CoRIM) {
		return func(c *attesttest.CoRIM) { c.Protected.Set(key, value) }
	}
	bytesOf := func(change func([]byte) []byte) func(*attesttest.CoRIM) {
		return func(c *attesttest.CoRIM) { c.Edit = change }
	}
	tag := func(n uint64, item any) any { return attesttest.CBORTag{Tag: n, Item: item} }
	for name, change := range map[string]func(*attesttest.CoRIM){
		"cut short":                          bytesOf(func(b []byte) []byte { return b[:len(b)-1] }),
		"a byte after":                       bytesOf(func(b []byte) []byte { return append(b, 0) }),
		"unsigned":                           bytesOf(func([]byte) []byte { return attesttest.EncodeCBOR(tag(501, m{0, "id"})) }),
		"of indefinite length":               bytesOf(func(b []byte) []byte { return slices.Concat(b[:1], []byte{0x9f}, b[2:], []byte{0xff}) }),
		"three parts":                        bytesOf(func(b []byte) []byte { return append([]byte{0xd2, 0x83}, b[2:]...) }),
		"another algorithm":                  header(1, -7),
		"no algorithm":                       func(c *attesttest.CoRIM) { c.Protected.Del(1) },
		"algorithm in words":                 header(1, "ES384"),
		"critical header":                    header(2, []any{99}),
		"unknown header":                     header(99, 1),
		"algorithm that nobody signed":       func(c *attesttest.CoRIM) { c.Unprotected = m{1, -35} },
		"no chain":                           func(c *attesttest.CoRIM) { c.Protected.Del(33) },
		"two chains":                         func(c *attesttest.CoRIM) { c.Unprotected = m{33, c.Protected[7]} },
		"empty chain":                        header(33, []any{}),
		"chain of texts":                     header(33, []any{"x", "y"}),
		"chain without its root":             func(c *attesttest.CoRIM) { c.Protected[7] = c.Protected[7].([]any)[:2] },
		"meta that is no map":                header(8, []byte{1}),
		"meta without an end":                header(8, attesttest.EncodeCBOR(m{1, m{0, tag(1, 5)}})),
		"a floating time":                    payload(func(p m) m { return append(p[:4], 4, m{1, tag(1, "2026")}) }),
		"no end":                             payload(func(p m) m { return append(p[:4], 4, m{0, tag(1, 5)}) }),
		"no id":                              payload(func(p m) m { return p[2:] }),
		"empty id":                           payload(func(p m) m { p[1] = ""; return p }),
		"no tags":                            payload(func(p m) m { return append(p[:2:2], p[4:]...) }),
		"empty tags":                         payload(func(p m) m { p[3] = []any{}; return p }),
		"other documents that it depends on": payload(func(p m) m { return append(p, 2, []any{m{0, "x"}}) }),
		"unknown member":                     payload(func(p m) m { return append(p, 9, 1) }),
		"member twice":                       payload(func(p m) m { return append(p, 0, "again") }),
		"tag of software":                    payload(func(p m) m { p[3] = []any{tag(505, []byte{0xa0})}; return p }),
		"another kind of payload":            func(c *attesttest.CoRIM) { c.Payload = tag(502, m{}) },
		"linked tags":                        func(c *attesttest.CoRIM) { c.Comid = append(c.Comid, 3, []any{}) },
		"no triples":                         func(c *attesttest.CoRIM) { c.Comid = c.Comid[:4] },
		"no reference triples":               func(c *attesttest.CoRIM) { c.Comid[5] = m{1, []any{}} },
		"identities":                         func(c *attesttest.CoRIM) { c.Comid[5] = append(c.Comid[5].(m), 2, []any{}) },
		"attestation keys":                   func(c *attesttest.CoRIM) { c.Comid[5] = append(c.Comid[5].(m), 3, []any{}) },
		"dependencies":                       func(c *attesttest.CoRIM) { c.Comid[5] = append(c.Comid[5].(m), 4, []any{}) },
		"memberships":                        func(c *attesttest.CoRIM) { c.Comid[5] = append(c.Comid[5].(m), 5, []any{}) },
		"another vendor":                     func(c *attesttest.CoRIM) { class(c, m{1, "nvidia", 2, "GH100"}) },
		"no vendor":                          func(c *attesttest.CoRIM) { class(c, m{2, "GH100"}) },
		"class by an id":                     func(c *attesttest.CoRIM) { class(c, m{0, tag(111, []byte{1}), 1, "NVIDIA"}) },
		"one instance":                       func(c *attesttest.CoRIM) { triple(c)[0] = m{0, m{1, "NVIDIA"}, 1, tag(560, []byte{1})} },
		"triple of one":                      func(c *attesttest.CoRIM) { (*triples(c))[1].([]any)[0] = []any{m{0, m{1, "NVIDIA"}}} },
		"no measurements":                    func(c *attesttest.CoRIM) { triple(c)[1] = []any{} },
		"measurement 0":                      func(c *attesttest.CoRIM) { claim(c, m{0, 0, 1, m{2, []any{[]any{7, hash}}}}) },
		"measurement 256":                    func(c *attesttest.CoRIM) { claim(c, m{0, 256, 1, m{2, []any{[]any{7, hash}}}}) },
		"measurement by a name":              func(c *attesttest.CoRIM) { claim(c, m{0, "x", 1, m{2, []any{[]any{7, hash}}}}) },
		"measurement of nothing":             func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{}}) },
		"claimed by others":                  func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{2, []any{[]any{7, hash}}}, 2, []any{}}) },
		"digest and value":                   func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{2, []any{[]any{7, hash}}, 4, tag(560, hash)}}) },
		"security version":                   func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{1, 3, 2, []any{[]any{7, hash}}}}) },
		"flags":                              func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{3, m{3, true}, 2, []any{[]any{7, hash}}}}) },
		"digest of SHA-256":                  func(c *attesttest.CoRIM) { claim(c, digest([]any{1, hash[:32]})) },
		"short digest":                       func(c *attesttest.CoRIM) { claim(c, digest([]any{7, hash[:47]})) },
		"two digests":                        func(c *attesttest.CoRIM) { claim(c, digest([]any{7, hash}, []any{8, hash})) },
		"no digests":                         func(c *attesttest.CoRIM) { claim(c, digest()) },
		"empty value":                        func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{4, tag(560, []byte{})}}) },
		"value without a tag":                func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{4, hash}}) },
		"mask of another size":               func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{4, tag(563, []any{hash, hash[:47]})}}) },
		"mask of nothing":                    func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{4, tag(563, []any{hash, hash})}}) },
	} {
		if r, err := nvidia.ParseRIM(document(change)); err == nil {
			t.Errorf("%s: got %+v, want a refusal", name, r)
		}
	}
	for name, change := range map[string]func(*attesttest.CoRIM){
		"endorsements":             func(c *attesttest.CoRIM) { c.Comid[5] = append(c.Comid[5].(m), 1, []any{}, 10, []any{}) },
		"name of a measurement":    func(c *attesttest.CoRIM) { claim(c, m{0, 8, 1, m{2, []any{[]any{7, hash}}, 11, "FSP"}}) },
		"chain that nobody signed": func(c *attesttest.CoRIM) { c.Unprotected = m{33, c.Protected[7]}; c.Protected.Del(33) },
	} {
		if r, err := nvidia.ParseRIM(document(change)); err != nil || nvidia.SignatureOf(r) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCBOR takes and refuses items of RFC 8949's appendix A.
func TestCBOR(t *testing.T) {
	for _, text := range []string{"\x00", "\x17", "\x18\x18", "\x19\x03\xe8", "\x1b\x00\x00\x00\xe8\xd4\xa5\x10\x00", "\x20", "\x38\x63",
		"\xf4", "\xf6", "\xc1\x1a\x51\x4b\x67\xb0",
		"\x40", "\x64IETF", "\x83\x01\x02\x03", "\xa2\x01\x02\x03\x04", "\xa2aaa1ab\x02"[:0] + "\xa1aaa1"} {
		if again, err := nvidia.AgainCBOR([]byte(text)); err != nil || string(again) != text {
			t.Errorf("%x: got %x, %v", text, again, err)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "long head": "\x18\x17", "long head of two bytes": "\x19\x00\xff", "head of nothing": "\x19\x03",
		"reserved head": "\x1c", "indefinite bytes": "\x5f\x41\x01\xff",
		"indefinite array": "\x9f\xff", "half": "\xf9\x3c\x00", "double": "\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a", "undefined": "\xf7",
		"simple 24": "\xf8\x18", "simple 255": "\xf8\xff",
		"short bytes": "\x42\x01", "short array": "\x82\x01", "short map": "\xa1\x01", "key twice": "\xa2\x01\x02\x01\x03",
		"key of bytes": "\xa1\x41\x01\x02", "key of an array": "\xa1\x80\x02",
		"two items": "\x00\x00", "text that is none": "\x61\xff", "number out of range": "\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
		"tag of nothing": "\xc1",
		"much":           "\x9a\xff\xff\xff\xff", "deep": strings.Repeat("\x81", 20) + "\x00",
	} {
		if again, err := nvidia.AgainCBOR([]byte(text)); err == nil {
			t.Errorf("%s: got %x, want a refusal", name, again)
		}
	}
	if _, err := nvidia.AgainCBOR(append([]byte{0x99, 0x80, 0x00}, make([]byte, 1<<15)...)); err == nil {
		t.Error("many items: got none refused")
	}
}

// TestCanonicalAgainstXmllint holds the canonical form against libxml2's, where that is installed.
func TestCanonicalAgainstXmllint(t *testing.T) {
	tool, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("no xmllint here")
	}
	for name, text := range map[string]string{
		"a document": string(swid(nil)),
		"namespaces": `<a xmlns="u:1" xmlns:b="u:2"><c xmlns="u:2" b:z="1" y="&lt;&quot;&#x9;&#xA;&#xD;&apos;"/>` +
			`<b:d xmlns:b="u:2"><e xmlns="u:1" xmlns:b="u:3"/></b:d>` +
			"\n &amp;&lt;&gt;\"'&#xD; </a>",
		"attributes": "<a xmlns:z=\"u:1\" xmlns:y='u:2' z:b='1' y:a='2' c='3' B='4'\n  _1 = \"5\t6\n7\"></a  >",
	} {
		command := exec.CommandContext(t.Context(), tool, "--c14n11", "-")
		command.Stdin = strings.NewReader(text)
		want, err := command.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Fatalf("%s: %v: %s", name, err, exit.Stderr)
		}
		if got, err := nvidia.Canonical([]byte(text)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, want)
		}
	}
}

// TestHostileXML bounds what a document can cost.
func TestHostileXML(t *testing.T) {
	spaces := ""
	for i := range 40 {
		spaces += ` xmlns:n` + string(rune('a'+i%26)) + string(rune('a'+i/26)) + `="u"`
	}
	for name, text := range map[string]string{
		"large":           "<a>" + strings.Repeat(" ", 256<<10) + "</a>",
		"deep":            strings.Repeat("<a>", 9) + strings.Repeat("</a>", 9),
		"many elements":   "<a>" + strings.Repeat("<b/>", 4096) + "</a>",
		"many attributes": "<a" + strings.Repeat(` b="1"`, 65) + "/>",
		"many namespaces": "<a" + spaces + "/>",
	} {
		if _, err := nvidia.Canonical([]byte(text)); err == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	// Within the bounds, canonical XML is at most so many times as long as what it was made of.
	widest := "<a>" + strings.Repeat(`<b c="&#x9;&#xA;" xmlns="u"><d xmlns="v"/></b>`, 2000) + "</a>"
	if got, err := nvidia.Canonical([]byte(widest)); err != nil || len(got) > 6*len(widest) {
		t.Errorf("%d bytes became %d, %v", len(widest), len(got), err)
	}
}
