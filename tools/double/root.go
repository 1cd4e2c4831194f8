package main

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
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
	certificate, key, err := guest.ReadRoot(file)
	if err != nil {
		return nil, err
	}
	r, ok := &root{certificate: certificate}, false
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
