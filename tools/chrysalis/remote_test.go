package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

// softwareGuest is a guest whose prompt says what goes wrong with its answer.
type softwareGuest struct {
	*attesttest.Guest
	address string
}

func newSoftwareGuest(t *testing.T, measured []byte) softwareGuest {
	t.Helper()
	g := softwareGuest{Guest: attesttest.New(measured, time.Now())}
	server, err := guest.NewServer(func(r evidence.Request) (*evidence.Evidence, error) {
		g.Statement.Epoch, g.Statement.NotAfter = r.Epoch, r.NotAfter
		return g.Attest(r.NonceRoot, r.TLSKey), nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/evidence", server)
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"data":[]}`) })
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) { g.answer(t, w, r) })
	g.address = attesttest.Listen(t, mux, server.TLSConfig(), server.ConnContext)
	return g
}

func (g softwareGuest) answer(t *testing.T, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
		return
	}
	if bytes.Contains(body, []byte("too long")) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"error":{"message":"the prompt is \u001b[31mtoo long"}}`)
		return
	}
	client, err := ton.Parse(r.Header.Get("Chrysalis-Client"))
	if err != nil {
		t.Error(err)
		return
	}
	m, err := config.Decode(g.Measured)
	if err != nil {
		t.Error(err)
		return
	}
	_, service, err := config.Split(g.Measured)
	if err != nil {
		t.Error(err)
		return
	}
	text := receipt.NewResponseHash()
	text.Content([]byte("The capital is \x1b[1mOslo."))
	p := m.Service.Price
	rec := receipt.Receipt{
		Sequence: 1, Previous: [32]byte{1}, Instance: [16]byte{1}, Request: sha256.Sum256(body), Response: text.Sum(), Service: serviceDigest(service),
		Model: m.Service.Model.Volume.Root, Engine: m.Service.Engine.Volume.Root, Client: client,
		Usage: receipt.Usage{Prompt: 7, Completion: 5}, Weighted: 12, Cumulative: 20, Outcome: receipt.Complete,
		Price: p.Price,
	}
	message := claim.Message{Op: claim.ClientCharge, QueryID: 1, Tokens: 20, Contract: client, Excesses: client}
	receiptKey, claimKey := g.ReceiptKey, g.ClaimKey
	switch {
	case bytes.Contains(body, []byte("wrong receipt key")):
		receiptKey = claimKey
	case bytes.Contains(body, []byte("wrong claim key")):
		claimKey = receiptKey
	case bytes.Contains(body, []byte("wrong request")):
		rec.Request[0]++
	case bytes.Contains(body, []byte("wrong model")):
		rec.Model[0]++
	case bytes.Contains(body, []byte("dear")):
		rec.Price.NanotonPerToken++
	case bytes.Contains(body, []byte("more charged")):
		message.Tokens++
	}
	signed, err := receipt.Sign(receiptKey, rec)
	if err != nil {
		t.Error(err)
		return
	}
	charge, err := claim.Sign(claimKey, message)
	if err != nil {
		t.Error(err)
		return
	}
	for _, piece := range []string{"The capital is ", "\x1b[1mOslo."} {
		quoted, _ := json.Marshal(piece)
		fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%s}}]}\n\n", quoted)
	}
	if bytes.Contains(body, []byte("cut")) {
		return
	}
	fmt.Fprintf(w, "data: {\"choices\":[],\"chrysalis\":{\"receipt\":%q,\"charge\":%q}}\n\ndata: [DONE]\n\n",
		base64.StdEncoding.EncodeToString(signed[:]), base64.StdEncoding.EncodeToString(charge[:]))
}

// files writes what a client of the guest has: its policy, spoiled ones, and the roots.
func (g softwareGuest) files(dir string) error {
	rules := g.Rules()
	good, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	rules.Releases[0].Name = "other"
	for index := range rules.Releases[0].VTPM[0] {
		rules.Releases[0].VTPM[0][index] = register.Digest{1}
	}
	other, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	rules = g.Rules()
	rules.Config.Model.Volumes = []config.Volume{{Root: register.Digest{9}, Blocks: 9}}
	model, err := json.Marshal(rules)
	if err != nil {
		return err
	}
	listed, list, err := g.listed()
	if err != nil {
		return err
	}
	manifest, err := g.manifest()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"guest-manifest.json": manifest,
		"policy.json":         good, "listed-policy.json": listed, "list.json": list, "other-release.json": other, "other-model.json": model,
		"unknown-field.json": []byte(strings.Replace(string(good), `{"version"`, `{"debug":true,"version"`, 1)),
		"roots.pem":          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Root.Raw}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// changed writes evidence whose statement is not the one that was quoted.
func (g softwareGuest) changed(file string) error {
	e := g.Evidence(attest.Challenge{Nonce: [32]byte{1}})
	e.Statement.NotAfter++
	encoded, err := e.Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(file, encoded, 0o644)
}

// manifest describes a release with the guest's registers, whose files nobody has.
func (g softwareGuest) manifest() ([]byte, error) {
	example, err := os.ReadFile("../../measure/testdata/manifest.json")
	if err != nil {
		return nil, err
	}
	m, err := measure.DecodeManifest(example)
	if err != nil {
		return nil, err
	}
	m.PCRs = g.Rules().Releases[0].VTPM[0]
	return measure.EncodeManifest(m)
}

// listed returns a policy that asks for a signed list of releases, and such a list.
func (g softwareGuest) listed() (policy, list []byte, err error) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	rules := g.Rules()
	d := release.NewDocument(time.Now().Add(-time.Minute), time.Hour)
	d.Releases = []release.Listed{{Manifest: register.Digest{1}, Values: rules.Releases[0], Rebuilds: []release.Envelope{}}}
	if list, err = release.EncodeList(d); err == nil {
		list, err = release.SignList(list, key)
	}
	if err != nil {
		return nil, nil, err
	}
	rules.Releases = nil
	rules.ReleaseList = attest.ListRules{Signers: []register.Digest{register.Digest(key.Public().(ed25519.PublicKey))}, Threshold: 1, MaxAge: "1h"}
	policy, err = json.Marshal(rules)
	return policy, list, err
}
