//go:build js && wasm

// Command wasm is package attest for pages and for Node: it adds one function to the global object and stays.
//
//	chrysalisVerify({evidence, policy, roots, nonce, exporter, tlsKey, time, releaseList})
//
// evidence, nonce, exporter and tlsKey are Uint8Arrays, policy is the text of a policy, roots the PEM text of the TPM
// makers that are trusted beside Intel and AMD for their own hardware, time a number of seconds since 1970, releaseList
// the bytes of a signed release list where the policy names signers of one, and else undefined. The answer is JSON: the verdict
// (accepted, rejected, unavailable), the refusing check, the reason, every check, and on acceptance alone what is true of the guest.
//
// A page can't see the exporter of its own TLS connection. It can judge evidence that it was given beside the exporter by
// something that it trusts as much as itself, such as an extension or a local program; it is no client by itself.
package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"syscall/js"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// maxEvidenceBytes bounds what is copied out of a page. The decoder's own bounds are narrower.
const maxEvidenceBytes = 4 << 20

func main() {
	js.Global().Set("chrysalisVerify", js.FuncOf(func(_ js.Value, args []js.Value) any {
		text, err := json.Marshal(judge(args))
		if err != nil {
			panic(err) // our own types
		}
		return string(text)
	}))
	select {}
}

// judge never panics on what a page passes in. What can't be read of it could not be checked.
func judge(args []js.Value) attest.Report {
	result, err := verify(args)
	if err != nil && !errors.Is(err, attest.ErrRejected) && !errors.Is(err, attest.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", attest.ErrUnavailable, err)
	}
	return attest.ReportOf(result, err)
}

func verify(args []js.Value) (*attest.Result, error) {
	if len(args) != 1 || args[0].Type() != js.TypeObject {
		return nil, errors.New("reading arguments: want one object")
	}
	in := args[0]
	raw, err := bytesOf(in, "evidence", maxEvidenceBytes)
	if err != nil {
		return nil, err
	}
	var c attest.Challenge
	for name, value := range map[string]*[32]byte{"nonce": &c.Nonce, "exporter": &c.Exporter, "tlsKey": &c.TLSKey} {
		b, err := bytesOf(in, name, len(value))
		if err != nil {
			return nil, err
		}
		if len(b) != len(value) {
			return nil, fmt.Errorf("reading arguments: %s has %d bytes, want %d", name, len(b), len(value))
		}
		copy(value[:], b)
	}
	at, policyText, rootsText := in.Get("time"), in.Get("policy"), in.Get("roots")
	if at.Type() != js.TypeNumber || policyText.Type() != js.TypeString || rootsText.Type() != js.TypeString {
		return nil, errors.New("reading arguments: want time as a number, policy and roots as strings")
	}
	policy, err := attest.ParsePolicy([]byte(policyText.String()))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", attest.ErrRejected, err)
	}
	if !in.Get("releaseList").IsUndefined() {
		signed, err := bytesOf(in, "releaseList", maxEvidenceBytes)
		if err != nil {
			return nil, err
		}
		if policy, err = policy.WithReleases(signed); err != nil {
			return nil, fmt.Errorf("%w: %v", attest.ErrRejected, err)
		}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(rootsText.String())) {
		return nil, errors.New("reading arguments: no certificate in roots")
	}
	evidence, err := evidence.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", attest.ErrRejected, err)
	}
	return attest.Verify(evidence, c, policy, time.Unix(int64(at.Float()), 0),
		attest.Roots{VTPM: pool, TDX: tdx.IntelRoot(), SEVSNP: sevsnp.AMDRoots(), NVIDIA: nvidia.NVIDIARoots()})
}

// bytesOf copies a Uint8Array.
func bytesOf(in js.Value, name string, most int) ([]byte, error) {
	v := in.Get(name)
	if v.Type() != js.TypeObject || !v.InstanceOf(js.Global().Get("Uint8Array")) {
		return nil, fmt.Errorf("reading arguments: %s is no Uint8Array", name)
	}
	n := v.Get("byteLength").Int()
	if n > most {
		return nil, fmt.Errorf("reading arguments: %s has %d bytes, want at most %d", name, n, most)
	}
	b := make([]byte, n)
	js.CopyBytesToGo(b, v)
	return b, nil
}
