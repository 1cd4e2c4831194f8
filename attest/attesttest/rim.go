package attesttest

import (
	"cmp"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chrysalis/attest/nvidia"
)

// Names in a document of reference values in XML.
const (
	swidSpace   = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
	sha384Space = "http://www.w3.org/2001/04/xmlenc#sha384"
	dsigSpace   = "http://www.w3.org/2000/09/xmldsig#"
	rimSpace    = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
)

// Document returns the signed document.
func (r *BoardRIM) Document() []byte {
	if r.Form == nvidia.FormCoRIM {
		return r.corim()
	}
	edit := func(change func(string) string, text string) string {
		if change != nil {
			return change(text)
		}
		return text
	}
	// What is signed is written as Canonical XML 1.1 has it, what is handed out as NVIDIA writes it: two writers of one document.
	canonical := edit(r.EditXML, r.swid(true))
	digest := sha512.Sum384([]byte(canonical))
	info := edit(r.EditSignedInfo, signedInfo(digest[:]))
	scope := fmt.Sprintf(`<ds:SignedInfo xmlns="%s" xmlns:ds="%s" xmlns:ns0="%s" xmlns:ns2="%s">`, swidSpace, dsigSpace, swidSpace,
		sha384Space)
	written := strings.Replace(closed(info), "<ds:SignedInfo>", scope, 1)
	digest = sha512.Sum384([]byte(written))
	value := signRaw(cmp.Or(r.SigningKey, r.Signers[0].Key), digest[:])
	signature := `<ds:Signature xmlns:ds="` + dsigSpace + `">` + info + `<ds:SignatureValue>` + base64.StdEncoding.EncodeToString(value) +
		`</ds:SignatureValue><ds:KeyInfo><ds:X509Data>`
	for _, c := range r.Signers {
		text := base64.StdEncoding.EncodeToString(c.DER())
		signature += "<ds:X509Certificate>" + text[:64] + "\n" + text[64:] + "\n</ds:X509Certificate>"
	}
	signature += `</ds:X509Data></ds:KeyInfo></ds:Signature>`
	text := strings.Replace(edit(r.EditXML, r.swid(false)), "</SoftwareIdentity>", signature+"</SoftwareIdentity>\n", 1)
	return []byte(edit(r.EditSigned, text))
}

func signedInfo(digest []byte) string {
	method := func(name, algorithm string) string { return "<ds:" + name + ` Algorithm="` + algorithm + `"/>` }
	const canonical = "http://www.w3.org/2006/12/xml-c14n11"
	return "<ds:SignedInfo>" + method("CanonicalizationMethod", canonical) +
		method("SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384") +
		`<ds:Reference URI=""><ds:Transforms>` + method("Transform", dsigSpace+"enveloped-signature") + method("Transform", canonical) +
		"</ds:Transforms>" +
		method("DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#sha384") + "<ds:DigestValue>" + base64.StdEncoding.EncodeToString(digest) +
		"</ds:DigestValue></ds:Reference></ds:SignedInfo>"
}

// closed writes each empty element with an end tag.
func closed(text string) string {
	for {
		at := strings.Index(text, "/>")
		if at < 0 {
			return text
		}
		start := strings.LastIndexByte(text[:at], '<')
		name, _, _ := strings.Cut(text[start+1:at], " ")
		text = text[:at] + "></" + name + ">" + text[at+2:]
	}
}

// swid writes the document without its signature.
func (r *BoardRIM) swid(canonical bool) string {
	type pair struct{ name, value string }
	element := func(name string, spaces []pair, attributes ...pair) string {
		if canonical {
			// Attributes of no namespace come first.
			slices.SortFunc(attributes, func(a, b pair) int {
				_, _, inA := strings.Cut(a.name, ":")
				_, _, inB := strings.Cut(b.name, ":")
				if inA != inB {
					return map[bool]int{true: 1, false: -1}[inA]
				}
				return cmp.Compare(a.name, b.name)
			})
		}
		text := "<" + name
		for _, p := range append(slices.Clone(spaces), attributes...) {
			text += " " + p.name + `="` + p.value + `"`
		}
		return text
	}
	empty := map[bool]func(string) string{false: func(string) string { return "/>" },
		true: func(name string) string { return "></" + name + ">" }}[canonical]
	text := element("SoftwareIdentity", []pair{{"xmlns", swidSpace}, {"xmlns:ns0", swidSpace}, {"xmlns:ns2", sha384Space}},
		pair{"corpus", "false"}, pair{"name", r.Product},
		pair{"patch", "false"}, pair{"supplemental", "false"}, pair{"tagId", r.Tag}, pair{"version", "1.0"}, pair{"tagVersion", "0"}) + ">\n    "
	text += element("ns0:Entity", nil, pair{"name", "software &amp; Co"}, pair{"role", "softwareCreator tagCreator"}) +
		empty("ns0:Entity") + "\n    "
	text += element("ns0:Meta", []pair{{"xmlns:ns1", rimSpace}}, pair{"colloquialVersion", r.Version}, pair{"edition", r.Edition},
		pair{"product", r.Product}, pair{"revision", "r1"},
		pair{"PayloadType", "direct"}, pair{"ns1:BindingSpec", "RIMIM"}, pair{"ns1:PlatformModel", r.Product}) + empty("ns0:Meta") + "\n    "
	text += element("ns0:Payload", []pair{{"xmlns:SHA384", sha384Space}}) + ">\n"
	for _, e := range r.Entries {
		index := strconv.Itoa(int(e.Index) - 1)
		attributes := []pair{{"type", "Measurement"}, {"index", index}, {"active", map[bool]string{true: "True", false: "False"}[e.Active]},
			{"alternatives", strconv.Itoa(len(e.Values))}}
		for i, v := range e.Values {
			attributes = append(attributes, pair{"ns2:Hash" + strconv.Itoa(i), hex.EncodeToString(v)})
		}
		attributes = append(attributes, pair{"name", "Measurement_" + index}, pair{"size", strconv.Itoa(len(e.Values[0]))})
		text += "        " + element("ns0:Resource", nil, attributes...) + empty("ns0:Resource") + "\n"
	}
	return text + "    </ns0:Payload>\n</SoftwareIdentity>"
}

// CoRIM is a document of reference values in CBOR before it is signed.
type CoRIM struct {
	Protected, Unprotected CBORMap
	Payload                any
	Comid                  CBORMap             // in the payload, unless Payload is changed
	Edit                   func([]byte) []byte // after it was signed
}

// CBORMap is a map in the order in which it is written, keys and values in turn; CBORTag is an item with a tag.
type CBORMap []any

// CBORTag is an item with a tag.
type CBORTag struct {
	Tag  uint64
	Item any
}

// EncodeCBOR writes integers, byte strings, texts, arrays ([]any), maps, tags, booleans and null.
func EncodeCBOR(item any) []byte {
	head := func(kind byte, n uint64) []byte {
		switch kind <<= 5; {
		case n < 24:
			return []byte{kind | byte(n)}
		case n < 1<<8:
			return []byte{kind | 24, byte(n)}
		case n < 1<<16:
			return binary.BigEndian.AppendUint16([]byte{kind | 25}, uint16(n))
		case n < 1<<32:
			return binary.BigEndian.AppendUint32([]byte{kind | 26}, uint32(n))
		}
		return binary.BigEndian.AppendUint64([]byte{kind | 27}, n)
	}
	all := func(b []byte, items []any) []byte {
		for _, i := range items {
			b = append(b, EncodeCBOR(i)...)
		}
		return b
	}
	switch v := item.(type) {
	case int:
		if v < 0 {
			return head(1, uint64(-1-v))
		}
		return head(0, uint64(v))
	case int64:
		return EncodeCBOR(int(v))
	case []byte:
		return append(head(2, uint64(len(v))), v...)
	case string:
		return append(head(3, uint64(len(v))), v...)
	case []any:
		return all(head(4, uint64(len(v))), v)
	case CBORMap:
		return all(head(5, uint64(len(v)/2)), v)
	case CBORTag:
		return append(head(6, v.Tag), EncodeCBOR(v.Item)...)
	case bool:
		return []byte{map[bool]byte{true: 0xf5, false: 0xf4}[v]}
	case nil:
		return []byte{0xf6}
	}
	panic(fmt.Sprintf("attesttest: no CBOR for %T", item))
}

// Set replaces a map's value at a key, or adds it.
func (m *CBORMap) Set(key, value any) {
	for i := 0; i < len(*m); i += 2 {
		if (*m)[i] == key {
			(*m)[i+1] = value
			return
		}
	}
	*m = append(*m, key, value)
}

// Del takes a key away.
func (m *CBORMap) Del(key any) {
	for i := 0; i < len(*m); i += 2 {
		if (*m)[i] == key {
			*m = slices.Delete(*m, i, i+2)
			return
		}
	}
}

// corim writes and signs the document.
func (r *BoardRIM) corim() []byte {
	var claims []any
	for _, e := range r.Entries {
		if !e.Active {
			continue
		}
		for _, v := range e.Values {
			values := CBORMap{2, []any{[]any{7, v}}}
			switch {
			case e.Mask != nil:
				values = CBORMap{4, CBORTag{563, []any{v, e.Mask}}}
			case e.Raw:
				values = CBORMap{4, CBORTag{560, v}}
			}
			claims = append(claims, CBORMap{0, int(e.Index), 1, values})
		}
	}
	environment := CBORMap{0, CBORMap{1, "NVIDIA", 2, r.Product + " A01 GSP", 4, 0}}
	c := &CoRIM{Comid: CBORMap{1, CBORMap{0, r.Tag + "-comid"}, 2, []any{CBORMap{0, "NVIDIA", 2, []any{1}}}, 4,
		CBORMap{0, []any{[]any{environment, claims}}}}}
	var chain []any
	for _, s := range r.Signers {
		if !r.OmitRoot || s.Issuer != nil {
			chain = append(chain, s.DER())
		}
	}
	validity := CBORMap{0, CBORTag{1, r.NotBefore.Unix()}, 1, CBORTag{1, r.NotAfter.Unix()}}
	c.Protected = CBORMap{1, -35, 3, "application/rim+cbor", 8, EncodeCBOR(CBORMap{0, CBORMap{0, "software"}, 1, validity}), 33, chain}
	if r.EditCoRIM != nil {
		r.EditCoRIM(c)
	}
	payload := c.Payload
	if payload == nil {
		payload = CBORTag{501, CBORMap{0, r.Tag, 1, []any{CBORTag{506, EncodeCBOR(c.Comid)}}, 3, CBORTag{32, "tag:software,2026:profile"}, 4,
			validity,
			5, []any{CBORMap{0, "NVIDIA", 2, []any{1}}}}}
	}
	protected, content := EncodeCBOR(c.Protected), EncodeCBOR(payload)
	digest := sha512.Sum384(EncodeCBOR([]any{"Signature1", protected, []byte{}, content}))
	signature := signRaw(cmp.Or(r.SigningKey, r.Signers[0].Key), digest[:])
	unprotected := c.Unprotected
	if unprotected == nil {
		unprotected = CBORMap{}
	}
	document := EncodeCBOR(CBORTag{18, []any{protected, unprotected, content, signature}})
	if c.Edit != nil {
		document = c.Edit(document)
	}
	return document
}
