package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"chrysalis/attest/attesttest"
)

// root vouches for several software machines, and from start to start: guests that judge each other by a root in their identity need one.
type root struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

// rootLife is how long a root holds that is kept. What it certifies holds for a day.
const rootLife = 10 * 365 * 24 * time.Hour

// runRoot makes a root of TDX and writes it, key and certificate. It is software's, and vouches for nothing.
func runRoot(args []string) error {
	flags := flag.NewFlagSet("root", flag.ExitOnError)
	out := flags.String("o", "", "file to write it to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	machine := attesttest.NewTDX(time.Now(), 5, true)
	machine.Root.Template.NotAfter = time.Now().Add(rootLife)
	certificate := machine.Build().Root
	key, err := x509.MarshalPKCS8PrivateKey(machine.Root.Key)
	if err != nil {
		return err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return os.WriteFile(*out, text, 0o600)
}

// readRoot reads what runRoot has written; no file is no root.
func readRoot(file string) (*root, error) {
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
	var ok bool
	if r.key, ok = key.(*ecdsa.PrivateKey); !ok || !r.key.PublicKey.Equal(r.certificate.PublicKey) {
		return nil, errors.New("reading " + file + ": the key is not the certificate's")
	}
	return r, nil
}
