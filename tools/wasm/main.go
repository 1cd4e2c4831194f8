//go:build js && wasm

// Command wasm is a client of guests for pages, Workers and Node, but for its network: it sets one object in the global scope and stays.
//
//	chrysalis.verify({evidence, policy, roots, nonce, exporter, tlsKey, releaseList, time})
//	chrysalis.client({policy, roots, releaseList, listAfter, payer, seen})
//
// verify judges evidence that is bound to a connection, whose exporter whoever calls must know (a page does not: this is for extensions and
// local programs), and answers JSON: the verdict (accepted, rejected, unavailable), the refusing check, the reason, every check, and on
// acceptance alone what is true of the guest. client is package runtime/client/exchange: sdk/js is written over it, and client.go has its
// shape. Without an accepted verdict it hands out nothing that seals.
//
// policy is the text of a policy; roots has PEM texts (vtpm: the TPM makers that are trusted; tdx, sevsnp, gpu, gpuRims: in place of Intel's,
// AMD's and NVIDIA's own, for software platforms), each of which may be left out; releaseList the bytes of a signed release list, where the policy
// names signers of one. Bytes are Uint8Arrays.
package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"syscall/js"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/runtime/client/exchange"
)

// Bounds of what is copied out of a page. The decoders' own are narrower.
const (
	maxEvidenceBytes = 4 << 20
	maxBodyBytes     = 16 << 20
)

func main() {
	js.Global().Set("chrysalis", js.ValueOf(map[string]any{
		"verify": function(func(args []js.Value) any { return reportOf(verify(args)) }),
		"client": function(open),
	}))
	select {}
}

// function is a function for JavaScript. What it is given may be anything, and it never panics on that.
func function(f func(args []js.Value) any) js.Func {
	return js.FuncOf(func(_ js.Value, args []js.Value) any { return f(args) })
}

// reportOf is a verdict as the libraries have it. What can't be read of a page's arguments could not be checked.
func reportOf(result *attest.Result, err error) string {
	if err != nil && !errors.Is(err, attest.ErrRejected) && !errors.Is(err, attest.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", attest.ErrUnavailable, err)
	}
	text, err := json.Marshal(attest.ReportOf(result, err))
	if err != nil {
		panic(err) // our own types
	}
	return string(text)
}

func verify(args []js.Value) (*attest.Result, error) {
	in, err := argument(args)
	if err != nil {
		return nil, err
	}
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
	at := in.Get("time")
	if at.Type() != js.TypeNumber {
		return nil, errors.New("reading arguments: want time as a number")
	}
	policy, roots, _, err := trusted(in)
	if err != nil {
		return nil, err
	}
	e, err := evidence.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", attest.ErrRejected, err)
	}
	return attest.Verify(e, c, policy, time.Unix(int64(at.Float()), 0), roots)
}

// argument wants one object.
func argument(args []js.Value) (js.Value, error) {
	if len(args) != 1 || args[0].Type() != js.TypeObject {
		return js.Value{}, errors.New("reading arguments: want one object")
	}
	return args[0], nil
}

// trusted reads what says what a guest must be: policy with its release list, and roots. The list's time of issue is zero without a list.
func trusted(in js.Value) (policy attest.Policy, roots attest.Roots, issued time.Time, err error) {
	text, err := textOf(in, "policy")
	if err != nil {
		return policy, roots, issued, err
	}
	if policy, err = attest.ParsePolicy([]byte(text)); err != nil {
		return policy, roots, issued, fmt.Errorf("%w: %v", attest.ErrRejected, err)
	}
	if !in.Get("releaseList").IsUndefined() {
		signed, err := bytesOf(in, "releaseList", maxEvidenceBytes)
		if err != nil {
			return policy, roots, issued, err
		}
		after := time.Time{}
		if text, err := textOf(in, "listAfter"); err != nil {
			return policy, roots, issued, err
		} else if text != "" {
			if after, err = time.Parse(time.RFC3339, text); err != nil {
				return policy, roots, issued, fmt.Errorf("reading arguments: listAfter: %v", err)
			}
		}
		if policy, issued, err = exchange.WithReleases(policy, signed, after); err != nil {
			return policy, roots, issued, err
		}
	}
	roots, err = rootsOf(in.Get("roots"))
	return policy, roots, issued, err
}

func rootsOf(in js.Value) (attest.Roots, error) {
	roots := attest.Roots{VTPM: x509.NewCertPool(), TDX: tdx.IntelRoot(), SEVSNP: sevsnp.AMDRoots(), NVIDIA: nvidia.NVIDIARoots()}
	if in.IsUndefined() {
		return roots, nil
	}
	if in.Type() != js.TypeObject {
		return roots, errors.New("reading arguments: roots is no object")
	}
	for name, take := range map[string]func([]*x509.Certificate){
		"vtpm": func(all []*x509.Certificate) {
			for _, c := range all {
				roots.VTPM.AddCert(c)
			}
		},
		"tdx":     func(all []*x509.Certificate) { roots.TDX = all[0] },
		"sevsnp":  func(all []*x509.Certificate) { roots.SEVSNP = all },
		"gpu":     func(all []*x509.Certificate) { roots.NVIDIA.Device = []nvidia.Root{nvidia.RootOf(all[0])} },
		"gpuRims": func(all []*x509.Certificate) { roots.NVIDIA.RIM = []nvidia.Root{nvidia.RootOf(all[0])} },
	} {
		text, err := textOf(in, name)
		if err != nil {
			return roots, err
		}
		if text == "" {
			continue
		}
		all, err := pki.ParsePEM([]byte(text), 64<<10, max(1, strings.Count(text, "-----BEGIN")))
		if err != nil {
			return roots, fmt.Errorf("reading arguments: roots of %s: %w", name, err)
		}
		take(all)
	}
	return roots, nil
}

// textOf reads a string, "" where there is none.
func textOf(in js.Value, name string) (string, error) {
	v := in.Get(name)
	if v.IsUndefined() {
		return "", nil
	}
	if v.Type() != js.TypeString {
		return "", fmt.Errorf("reading arguments: %s is no string", name)
	}
	return v.String(), nil
}

// bytesOf copies a Uint8Array.
func bytesOf(in js.Value, name string, most int) ([]byte, error) {
	b, err := copied(in.Get(name), most)
	if err != nil {
		return nil, fmt.Errorf("reading arguments: %s: %w", name, err)
	}
	return b, nil
}

func copied(v js.Value, most int) ([]byte, error) {
	if v.Type() != js.TypeObject || !v.InstanceOf(js.Global().Get("Uint8Array")) {
		return nil, errors.New("no Uint8Array")
	}
	n := v.Get("byteLength").Int()
	if n > most {
		return nil, fmt.Errorf("%d bytes, want at most %d", n, most)
	}
	b := make([]byte, n)
	js.CopyBytesToGo(b, v)
	return b, nil
}

// handed is bytes as JavaScript has them.
func handed(b []byte) js.Value {
	v := js.Global().Get("Uint8Array").New(len(b))
	js.CopyBytesToJS(v, b)
	return v
}
