// Package releasetest signs releases with sigstore-go's virtual certificate authority, log and timestamp authority. It is for
// tests alone: a program must not contain it, because nobody else may sign so easily.
package releasetest

import (
	"encoding/base64"
	"encoding/hex"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"
)

// Who signs.
const (
	Issuer  = "https://issuer.example.test"
	Subject = "release@example.test"
)

// Bundle makes a bundle over a statement by a certificate of the virtual sigstore, for Subject and Issuer, as its JSON.
func Bundle(t testing.TB, sigstore *ca.VirtualSigstore, statement []byte) []byte {
	t.Helper()
	entity, err := sigstore.AttestAtTime(Subject, Issuer, statement, time.Now().Add(5*time.Minute), true)
	if err != nil {
		t.Fatal(err)
	}
	content, err := entity.VerificationContent()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := entity.SignatureContent()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := entity.TlogEntries()
	if err != nil {
		t.Fatal(err)
	}
	stamps, err := entity.Timestamps()
	if err != nil {
		t.Fatal(err)
	}
	material := &protobundle.VerificationMaterial{
		Content:                   &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: content.Certificate().Raw}},
		TimestampVerificationData: &protobundle.TimestampVerificationData{},
		TlogEntries:               []*protorekor.TransparencyLogEntry{},
	}
	for _, e := range entries {
		entry := e.TransparencyLogEntry()
		var body struct{ APIVersion, Kind string }
		if err := json.Unmarshal(entry.CanonicalizedBody, &body, json.MatchCaseInsensitiveNames(true)); err != nil {
			t.Fatal(err)
		}
		entry.KindVersion = &protorekor.KindVersion{Kind: body.Kind, Version: body.APIVersion}
		material.TlogEntries = append(material.TlogEntries, entry)
	}
	for _, s := range stamps {
		material.TimestampVerificationData.Rfc3161Timestamps = append(material.TimestampVerificationData.Rfc3161Timestamps,
			&protocommon.RFC3161SignedTimestamp{SignedTimestamp: s})
	}
	raw := signed.EnvelopeContent().RawEnvelope()
	payload, err := raw.DecodeB64Payload()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(raw.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(&protobundle.Bundle{MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: material,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{Payload: payload, PayloadType: raw.PayloadType,
			Signatures: []*protodsse.Signature{{Sig: signature}}}}})
	if err != nil {
		t.Fatal(err)
	}
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		t.Fatal(err)
	}
	return value
}

// TrustedRoot returns the virtual sigstore's root, with or without its certificate log: its certificates have no timestamp of one.
func TrustedRoot(t testing.TB, sigstore *ca.VirtualSigstore, certificateLogs bool) *root.TrustedRoot {
	t.Helper()
	ctLogs := map[string]*root.TransparencyLog{}
	if certificateLogs {
		ctLogs = sigstore.CTLogs()
	}
	logs := sigstore.RekorLogs()
	for id, log := range logs { // it names itself in hexadecimal, where files and entries have the bytes
		raw, err := hex.DecodeString(id)
		if err != nil {
			t.Fatal(err)
		}
		log.ID = raw
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, sigstore.FulcioCertificateAuthorities(), ctLogs,
		sigstore.TimestampingAuthorities(), logs)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
