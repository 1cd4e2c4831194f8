package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// Names in a RIM document: ISO/IEC 19770-2:2015, TCG's Reference Integrity Manifest, and W3C XML Signature. All of it is signed once, by
// an enveloped signature over the whole document.
const (
	spaceSWID      = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
	spaceSHA384    = "http://www.w3.org/2001/04/xmlenc#sha384"
	spaceSignature = "http://www.w3.org/2000/09/xmldsig#"

	methodCanonical = "http://www.w3.org/2006/12/xml-c14n11"
	methodEnveloped = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
	methodSignature = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
	methodDigest    = "http://www.w3.org/2001/04/xmldsig-more#sha384"

	maxAlternatives = 64
)

// parseSWID parses a RIM in XML. What its Result says is read from exactly the element that the signature covers.
func parseSWID(facts *check.Facts, text []byte) (*RIM, error) {
	root, err := parseXML(text)
	if err != nil {
		return nil, fmt.Errorf("XML: %w", err)
	}
	if !root.is(spaceSWID, "SoftwareIdentity") {
		return nil, fmt.Errorf("root element is %s of %q, want SoftwareIdentity of %q", root.name, root.space, spaceSWID)
	}
	r := &RIM{Form: FormSWID}
	signature, err := r.swid(root)
	if err != nil {
		return nil, err
	}
	return r, r.signature(facts, root, signature)
}

// swid reads what is in the root element, and returns its signature.
func (r *RIM) swid(root *element) (signature *element, err error) {
	children, err := root.children()
	if err != nil {
		return nil, err
	}
	var meta, payload *element
	for _, c := range children {
		switch {
		case c.is(spaceSWID, "Entity"):
		case c.is(spaceSWID, "Meta") && meta == nil:
			meta = c
		case c.is(spaceSWID, "Payload") && payload == nil:
			payload = c
		case c.is(spaceSignature, "Signature") && signature == nil:
			signature = c
		default:
			return nil, fmt.Errorf("element %s of %q is there twice, or unknown", c.name, c.space)
		}
	}
	if meta == nil || payload == nil || signature == nil {
		return nil, fmt.Errorf("document has Meta: %t, Payload: %t, Signature: %t; want all", meta != nil, payload != nil, signature != nil)
	}
	r.Tag, _ = root.attribute("", "tagId")
	for _, of := range []struct {
		to   *string
		name string
	}{{&r.Version, "colloquialVersion"}, {&r.Edition, "edition"}, {&r.Product, "product"}} {
		if *of.to, _ = meta.attribute("", of.name); *of.to == "" || len(*of.to) > maxTextBytes {
			return nil, fmt.Errorf("%s is %.20q, want 1 to %d bytes", of.name, *of.to, maxTextBytes)
		}
	}
	if r.Tag == "" || len(r.Tag) > 2*maxTextBytes {
		return nil, fmt.Errorf("tagId is %.20q, want 1 to %d bytes", r.Tag, 2*maxTextBytes)
	}
	return signature, r.payload(payload)
}

// payload reads the measurements. Their indices count from 0, those of SPDM from 1.
func (r *RIM) payload(payload *element) error {
	resources, err := payload.children()
	if err != nil {
		return err
	}
	seen := map[uint64]bool{}
	for _, e := range resources {
		text, _ := e.attribute("", "index")
		index, err := strconv.ParseUint(text, 10, 8)
		if kind, _ := e.attribute("", "type"); !e.is(spaceSWID, "Resource") || kind != "Measurement" || err != nil || index > 254 || seen[index] {
			return fmt.Errorf("element %s of type %q with the index %.10q, want a measurement with one of its own of 0 to 254", e.name, kind, text)
		}
		seen[index] = true
		values, active, err := resource(e)
		if err != nil {
			return fmt.Errorf("measurement %d: %w", index, err)
		}
		if active {
			r.References = append(r.References, Reference{Index: uint8(index) + 1, Values: values})
		}
	}
	if len(r.References) == 0 {
		return errors.New("no active measurements")
	}
	return nil
}

// resource reads one measurement: as many values as it says, each of the size that it says.
func resource(e *element) (values [][]byte, active bool, err error) {
	number := func(name string, most uint64) int {
		text, _ := e.attribute("", name)
		n, wrong := strconv.ParseUint(text, 10, 16)
		if wrong != nil || n == 0 || n > most {
			err = errors.Join(err, fmt.Errorf("%s is %.10q, want 1 to %d", name, text, most))
		}
		return int(n)
	}
	size, alternatives := number("size", 64), number("alternatives", maxAlternatives)
	if err != nil {
		return nil, false, err
	}
	switch text, _ := e.attribute("", "active"); text {
	case "True":
		active = true
	case "False":
	default:
		return nil, false, fmt.Errorf("active is %.10q, want True or False", text)
	}
	for i := range alternatives {
		text, _ := e.attribute(spaceSHA384, "Hash"+strconv.Itoa(i))
		value, err := hex.DecodeString(text)
		if err != nil || len(value) != size {
			return nil, false, fmt.Errorf("hash %d is %.20q, want %d bytes in hexadecimal", i, text, size)
		}
		values = append(values, value)
	}
	// A hash that is not counted, or any other attribute, may be one that the signer thinks is looked at.
	const others = 6 // type, index, active, alternatives, name, size
	if _, named := e.attribute("", "name"); !named || len(e.attributes) != others+alternatives || len(e.content) != 0 {
		return nil, false, fmt.Errorf("%d attributes, want type, index, active, alternatives, name, size and %d hashes", len(e.attributes),
			alternatives)
	}
	return values, active, nil
}

// signature reads an enveloped signature: its digest must be the document's without it, and the first certificate's key must have signed
// that; where it is not so, r.wrong says how. There is one form, NVIDIA's; each element has its place and nothing else is in it.
func (r *RIM) signature(facts *check.Facts, root, signature *element) error {
	parts, err := within(signature, "SignedInfo", "SignatureValue", "KeyInfo")
	if err != nil {
		return err
	}
	info, value, keys := parts[0], parts[1], parts[2]
	inner, err := within(info, "CanonicalizationMethod", "SignatureMethod", "Reference")
	if err != nil {
		return err
	}
	reference, err := within(inner[2], "Transforms", "DigestMethod", "DigestValue")
	if err != nil {
		return err
	}
	transforms, err := within(reference[0], "Transform", "Transform")
	if err != nil {
		return err
	}
	for _, method := range []struct {
		of   *element
		want string
	}{{inner[0], methodCanonical}, {inner[1], methodSignature}, {transforms[0], methodEnveloped}, {transforms[1], methodCanonical},
		{reference[1], methodDigest}} {
		got, _ := method.of.attribute("", "Algorithm")
		if got != method.want || len(method.of.attributes) != 1 || len(method.of.content) != 0 {
			return fmt.Errorf("%s is %q, want %q and nothing else", method.of.name, got, method.want)
		}
	}
	if uri, ok := inner[2].attribute("", "URI"); !ok || uri != "" || len(inner[2].attributes) != 1 {
		return fmt.Errorf("the signature is of %q, want one of the whole document", uri)
	}
	want, err := base64Of(reference[2], sha512.Size384)
	if err != nil {
		return err
	}
	signed, err := base64Of(value, signatureSize)
	if err != nil {
		return err
	}
	if err := r.keys(facts, keys); err != nil {
		return err
	}
	digest := sha512.Sum384(root.canonical(signature))
	if !bytes.Equal(digest[:], want) {
		r.wrong = fmt.Errorf("digest of the document is %x, want %x as signed", digest, want)
		return nil
	}
	digest = sha512.Sum384(info.canonical(nil))
	if !pki.SignedRaw(r.chain.leaf().PublicKey.(*ecdsa.PublicKey), digest[:], signed) {
		r.wrong = errors.New("signature does not verify")
	}
	return nil
}

// within returns an element's children, which must be these and no others.
func within(e *element, names ...string) ([]*element, error) {
	children, err := e.children()
	if err != nil {
		return nil, err
	}
	if len(children) != len(names) {
		return nil, fmt.Errorf("%s holds %d elements, want %d", e.name, len(children), len(names))
	}
	for i, c := range children {
		if !c.is(spaceSignature, names[i]) {
			return nil, fmt.Errorf("%s holds %s of %q, want %s", e.name, c.name, c.space, names[i])
		}
	}
	return children, nil
}

// keys reads the certificates of a signature, the signer's first.
func (r *RIM) keys(facts *check.Facts, info *element) error {
	data, err := within(info, "X509Data")
	if err != nil {
		return err
	}
	children, err := data[0].children()
	if err != nil {
		return err
	}
	if len(children) > maxChain {
		return fmt.Errorf("%d certificates, want at most %d", len(children), maxChain)
	}
	var ders [][]byte
	for _, c := range children {
		if !c.is(spaceSignature, "X509Certificate") {
			return fmt.Errorf("X509Data holds %s, want X509Certificate", c.name)
		}
		der, err := base64Of(c, 0)
		if err != nil {
			return err
		}
		ders = append(ders, der)
	}
	if r.chain, err = parseDERs(facts, ders, minRIMChain); err != nil {
		return fmt.Errorf("signer: %w", err)
	}
	return nil
}

// base64Of decodes the text of an element, of so many bytes unless that is 0.
func base64Of(e *element, size int) ([]byte, error) {
	text, err := e.words()
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.name, err)
	}
	if size != 0 && len(b) != size {
		return nil, fmt.Errorf("%s has %d bytes, want %d", e.name, len(b), size)
	}
	return b, nil
}
