package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/measure"
)

// root vouches for several software machines, and from start to start: guests that judge each other by a root in their identity need one.
type root struct {
	key         *ecdsa.PrivateKey // of TDX; that of SEV-SNP is RSA, and a test library's
	certificate *x509.Certificate
}

// rootLife is how long a root holds that is kept. What it certifies holds for a day.
const rootLife = 10 * 365 * 24 * time.Hour

// runRoot makes a root of a platform and writes it, certificate and key. It is software's, and vouches for nothing.
func runRoot(args []string) error {
	flags := flag.NewFlagSet("root", flag.ExitOnError)
	platform := flags.String("platform", string(measure.TDX), "tdx or sev-snp")
	out := flags.String("o", "", "file to write it to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var certificate *x509.Certificate
	var private any
	switch measure.Platform(*platform) {
	case measure.TDX:
		machine := attesttest.NewTDX(time.Now(), 5, true)
		machine.Root.Template.NotAfter = time.Now().Add(rootLife)
		certificate, private = machine.Build().Root, machine.Root.Key
	case measure.SEVSNP:
		machine := newProcessor(time.Now())
		machine.ARK.NotAfter = time.Now().Add(rootLife)
		certificate, private = machine.Root(), machine.ARKKey
	default:
		return fmt.Errorf("-platform is %q, want %s or %s", *platform, measure.TDX, measure.SEVSNP)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return os.WriteFile(*out, text, 0o600)
}

// readRoot reads what runRoot has written for a platform; no file is no root.
func readRoot(file string, platform measure.Platform) (*root, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	first, rest := pem.Decode(text)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil || first.Type != "CERTIFICATE" || second.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("reading %s: want a certificate and its key", file)
	}
	r := &root{}
	if r.certificate, err = x509.ParseCertificate(first.Bytes); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(second.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	signer, ok := key.(interface {
		Public() crypto.PublicKey
	})
	if public, same := r.certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same || !public.Equal(signer.Public()) {
		return nil, errors.New("reading " + file + ": the key is not the certificate's")
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r.key, ok = key, platform == measure.TDX
	case *rsa.PrivateKey:
		ok = platform == measure.SEVSNP && key.Equal(newProcessor(time.Now()).ARKKey)
	}
	if !ok {
		return nil, fmt.Errorf("reading %s: %s with a key of type %T is no root of software %s", file, r.certificate.Subject, key, platform)
	}
	return r, nil
}
