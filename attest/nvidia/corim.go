package nvidia

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/pki"
)

// Labels and tags of a signed CoRIM: RFC 9052 and RFC 9360 (COSE), draft-ietf-rats-corim-10 (CoRIM and CoMID), and the TCG's DICE
// Concise Evidence Binding for SPDM 1.1, by which a measurement's key is its index in a report.
const (
	tagCOSESign1 = 0xd2 // tag 18, as it is written

	tagSign1      = 18
	tagEpoch      = 1
	tagCoRIM      = 501
	tagCoMID      = 506
	tagRawBytes   = 560
	tagMaskedRaw  = 563
	headAlgorithm = 1
	headContent   = 3
	headMeta      = 8
	headChain     = 33
	headThumb     = 34

	algorithmES384 = -35
	digestSHA384   = 7

	keyDigests   = 2
	keyRawValue  = 4
	keyName      = 11
	maxTriples   = 64
	maxClaims    = 256
	maxRawBytes  = 4 << 10
	maxNameBytes = 128
)

// parseCoRIM parses a signed CoRIM whose reference values are of measurements by their index. Authorities are certificates that its
// chain may lack.
func parseCoRIM(facts *check.Facts, document []byte, authorities [][]byte) (*RIM, error) {
	item, err := parseCBOR(document)
	if err != nil {
		return nil, fmt.Errorf("CBOR: %w", err)
	}
	sign1, err := item.tagged(tagSign1)
	if err != nil {
		return nil, err
	}
	parts, err := sign1.list(4, 4)
	if err != nil {
		return nil, fmt.Errorf("COSE_Sign1: %w", err)
	}
	if parts[0].kind != kindBytes || parts[2].kind != kindBytes || parts[3].kind != kindBytes {
		return nil, errors.New("COSE_Sign1: want protected headers, payload and signature in bytes")
	}
	r := &RIM{Form: FormCoRIM}
	if err := r.headers(facts, parts[0].bytes, parts[1], authorities); err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	if err := r.corim(parts[2].bytes); err != nil {
		return nil, err
	}
	// RFC 9052, section 4.4.
	signed := cbor{kind: kindArray, items: []cbor{{kind: kindText, bytes: []byte("Signature1")}, parts[0], {kind: kindBytes}, parts[2]}}
	digest := sha512.Sum384(signed.append(nil))
	if !pki.SignedRaw(r.chain.leaf().PublicKey.(*ecdsa.PublicKey), digest[:], parts[3].bytes) {
		r.wrong = errors.New("signature does not verify")
	}
	return r, nil
}

// headers reads who signed, and how.
func (r *RIM) headers(facts *check.Facts, protected []byte, unprotected cbor, authorities [][]byte) error {
	item, err := parseCBOR(protected)
	if err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	signed, err := item.members(headAlgorithm, headContent, headMeta, headChain, headThumb)
	if err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	open, err := unprotected.members(headChain, headThumb)
	if err != nil {
		return fmt.Errorf("unprotected: %w", err)
	}
	if algorithm, ok := signed[headAlgorithm].integer(); !ok || algorithm != algorithmES384 {
		return fmt.Errorf("algorithm is %d, want %d, ECDSA with SHA-384", algorithm, algorithmES384)
	}
	if meta, ok := signed[headMeta]; ok {
		if err := r.meta(meta); err != nil {
			return fmt.Errorf("meta: %w", err)
		}
	}
	certificates, ok := signed[headChain]
	if other, too := open[headChain]; too == ok {
		return fmt.Errorf("chain is in the protected headers: %t, in the others: %t; want one of them", ok, too)
	} else if too {
		certificates = other
	}
	if certificates.kind == kindBytes {
		certificates = cbor{kind: kindArray, items: []cbor{certificates}}
	}
	list, err := certificates.list(1, maxChain)
	if err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	var ders [][]byte
	for _, c := range list {
		if c.kind != kindBytes {
			return errors.New("chain: want certificates in bytes")
		}
		ders = append(ders, c.bytes)
	}
	if r.chain, err = parseDERs(facts, completed(ders, authorities), minRIMChain); err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	return nil
}

// completed adds the authority that issued the last certificate, where it is known and no more than that is missing: COSE's chains
// usually leave the root out.
func completed(ders, authorities [][]byte) [][]byte {
	last, err := x509.ParseCertificate(ders[len(ders)-1])
	if err != nil || pki.SelfIssued(last) {
		return ders
	}
	for _, der := range authorities {
		if a, err := x509.ParseCertificate(der); err == nil && bytes.Equal(a.RawSubject, last.RawIssuer) {
			return append(slices.Clip(ders), der)
		}
	}
	return ders
}

// meta reads how long the signer wants its signature to hold: the map with the signer (0) and the validity (1).
func (r *RIM) meta(item cbor) error {
	if item.kind != kindBytes {
		return fmt.Errorf("item of kind %d, want bytes", item.kind)
	}
	inner, err := parseCBOR(item.bytes)
	if err != nil {
		return err
	}
	members, err := inner.members(0, 1)
	if err != nil {
		return err
	}
	if validity, ok := members[1]; ok {
		return r.validity(validity)
	}
	return nil
}

// validity narrows when the document holds.
func (r *RIM) validity(item cbor) error {
	members, err := item.members(0, 1)
	if err != nil {
		return err
	}
	for key, member := range members {
		epoch, err := member.tagged(tagEpoch)
		if err != nil {
			return err
		}
		seconds, ok := epoch.integer()
		if !ok || seconds < 0 || seconds > 1<<40 {
			return fmt.Errorf("time is %d, want seconds", seconds)
		}
		at := time.Unix(seconds, 0)
		switch {
		case key == 0 && at.After(r.notBefore):
			r.notBefore = at
		case key == 1 && (r.notAfter.IsZero() || at.Before(r.notAfter)):
			r.notAfter = at
		}
	}
	if _, ok := members[1]; !ok {
		return errors.New("no end")
	}
	return nil
}

// corim reads the payload.
func (r *RIM) corim(payload []byte) error {
	item, err := parseCBOR(payload)
	if err != nil {
		return fmt.Errorf("CoRIM: %w", err)
	}
	inner, err := item.tagged(tagCoRIM)
	if err != nil {
		return fmt.Errorf("CoRIM: %w", err)
	}
	members, err := inner.members(0, 1, 3, 4, 5) // id, tags, profile, validity, entities; not 2, other documents that it depends on
	if err != nil {
		return fmt.Errorf("CoRIM: %w", err)
	}
	if r.Tag, err = identity(members[0]); err != nil {
		return fmt.Errorf("CoRIM: %w", err)
	}
	if validity, ok := members[4]; ok {
		if err := r.validity(validity); err != nil {
			return fmt.Errorf("validity: %w", err)
		}
	}
	tags, err := members[1].list(1, maxTriples)
	if err != nil {
		return fmt.Errorf("tags: %w", err)
	}
	for i, tag := range tags {
		comid, err := tag.tagged(tagCoMID)
		if err == nil {
			err = r.comid(comid)
		}
		if err != nil {
			return fmt.Errorf("tag %d: %w", i, err)
		}
	}
	if len(r.References) == 0 {
		return errors.New("no measurements")
	}
	return nil
}

func identity(item cbor) (string, error) {
	switch {
	case item.kind == kindText && len(item.bytes) > 0 && len(item.bytes) <= maxNameBytes:
		return string(item.bytes), nil
	case item.kind == kindBytes && len(item.bytes) == 16:
		return hex.EncodeToString(item.bytes), nil
	}
	return "", fmt.Errorf("id of kind %d and %d bytes, want a text of 1 to %d or a UUID", item.kind, len(item.bytes), maxNameBytes)
}

// comid reads a tag with reference values. Triples of other kinds say nothing that is compared: endorsements (1, 8 and 10) add to what
// a device is, and all others would take something away, so they are refused.
func (r *RIM) comid(item cbor) error {
	if item.kind != kindBytes {
		return fmt.Errorf("CoMID of kind %d, want bytes", item.kind)
	}
	inner, err := parseCBOR(item.bytes)
	if err != nil {
		return err
	}
	members, err := inner.members(0, 1, 2, 4) // language, identity, entities, triples; not 3, tags that it replaces or supplements
	if err != nil {
		return err
	}
	triples, err := members[4].members(0, 1, 8, 10)
	if err != nil {
		return fmt.Errorf("triples: %w", err)
	}
	list, err := triples[0].list(1, maxTriples)
	if err != nil {
		return fmt.Errorf("reference triples: %w", err)
	}
	for i, triple := range list {
		if err := r.triple(triple); err != nil {
			return fmt.Errorf("reference triple %d: %w", i, err)
		}
	}
	return nil
}

// triple reads what an environment must measure. The environment is a class of NVIDIA's.
func (r *RIM) triple(item cbor) error {
	pair, err := item.list(2, 2)
	if err != nil {
		return err
	}
	environment, err := pair[0].members(0) // a class; not an instance or a group, which would narrow it
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	class, err := environment[0].members(1, 2, 3, 4) // vendor, model, layer, index; not 0, an id
	if err != nil {
		return fmt.Errorf("class: %w", err)
	}
	if vendor := class[1]; vendor.kind != kindText || string(vendor.bytes) != "NVIDIA" {
		return fmt.Errorf("vendor is %.20q, want NVIDIA", vendor.bytes)
	}
	claims, err := pair[1].list(1, maxClaims)
	if err != nil {
		return err
	}
	for i, claim := range claims {
		if err := r.claim(claim); err != nil {
			return fmt.Errorf("measurement %d: %w", i, err)
		}
	}
	return nil
}

// claim reads one measurement's value. Another of the same index is an alternative.
func (r *RIM) claim(item cbor) error {
	members, err := item.members(0, 1) // key and values; not 2, who is authorised to claim them
	if err != nil {
		return err
	}
	index, ok := members[0].integer()
	if !ok || index < 1 || index > 255 {
		return fmt.Errorf("key %d, want the index of a measurement, 1 to 255", index)
	}
	values, err := members[1].members(keyDigests, keyRawValue, keyName)
	if err != nil {
		return err
	}
	var value, mask []byte
	digests, hashed := values[keyDigests]
	raw, plain := values[keyRawValue]
	switch {
	case hashed == plain:
		return fmt.Errorf("digests are there: %t, a value: %t; want one of them", hashed, plain)
	case hashed:
		value, err = digestOf(digests)
	default:
		value, mask, err = rawOf(raw)
	}
	if err != nil {
		return err
	}
	r.add(uint8(index), value, mask)
	return nil
}

func (r *RIM) add(index uint8, value, mask []byte) {
	at := slices.IndexFunc(r.References, func(have Reference) bool { return have.Index == index })
	if at < 0 {
		at = len(r.References)
		r.References = append(r.References, Reference{Index: index})
	}
	reference := &r.References[at]
	reference.Values, reference.Masks = append(reference.Values, value), append(reference.Masks, mask)
}

// digestOf reads the one digest, of SHA-384, that reports have.
func digestOf(item cbor) ([]byte, error) {
	digests, err := item.list(1, 1)
	if err != nil {
		return nil, fmt.Errorf("digests: %w", err)
	}
	digest, err := digests[0].list(2, 2)
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	algorithm, number := digest[0].integer()
	if !number || algorithm != digestSHA384 || digest[1].kind != kindBytes || len(digest[1].bytes) != sha512.Size384 {
		return nil, fmt.Errorf("digest of the algorithm %d with %d bytes, want %d, SHA-384", algorithm, len(digest[1].bytes), digestSHA384)
	}
	return digest[1].bytes, nil
}

// rawOf reads a value as it is, with or without a mask.
func rawOf(item cbor) (value, mask []byte, err error) {
	if plain, err := item.tagged(tagRawBytes); err == nil {
		if plain.kind != kindBytes || len(plain.bytes) == 0 || len(plain.bytes) > maxRawBytes {
			return nil, nil, fmt.Errorf("value of kind %d with %d bytes, want 1 to %d bytes", plain.kind, len(plain.bytes), maxRawBytes)
		}
		return plain.bytes, nil, nil
	}
	both, err := item.tagged(tagMaskedRaw)
	if err != nil {
		return nil, nil, err
	}
	pair, err := both.list(2, 2)
	if err != nil {
		return nil, nil, err
	}
	value, mask = pair[0].bytes, pair[1].bytes
	if pair[0].kind != kindBytes || pair[1].kind != kindBytes || len(value) == 0 || len(value) > maxRawBytes || len(value) != len(mask) ||
		len(bytes.Trim(mask, "\x00")) == 0 {
		return nil, nil, fmt.Errorf("value of %d bytes with a mask of %d, want as many and some bit set", len(value), len(mask))
	}
	return value, mask, nil
}
