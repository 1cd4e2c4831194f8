package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"chrysalis/attest/collateral"
	"chrysalis/attest/dialect"
	"chrysalis/attest/sevsnp"
)

// roots are the ARKs that are trusted.
func (f *snpFlags) roots() ([]*x509.Certificate, error) {
	if f.root == "" {
		return sevsnp.AMDRoots(), nil
	}
	ders, err := readCertificates("root", f.root, "CERTIFICATE")
	if err != nil {
		return nil, unavailable(err)
	}
	var roots []*x509.Certificate
	for _, der := range ders {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("reading %s: %w", f.root, err)}
		}
		roots = append(roots, root)
	}
	if len(roots) == 0 {
		return nil, exitError{exitUsage, fmt.Errorf("reading %s: no certificate in it", f.root)}
	}
	return roots, nil
}

// fetches reports whether certificates come from a service or a folder.
func (f *snpFlags) fetches() bool { return f.fetch || f.sources.folder != "" }

// evidence reads the files. What they hold is for Verify to refuse. A report of Azure's is returned beside it.
func (f *snpFlags) evidence(ctx context.Context, roots []*x509.Certificate) (e sevsnp.Evidence, azure *dialect.HCL, err error) {
	raw, err := readEvidence("report", f.report, []byte{2, 0, 0, 0}, []byte{3, 0, 0, 0}, []byte{4, 0, 0, 0}, []byte{5, 0, 0, 0}, []byte("HCLA"))
	if err != nil {
		return e, nil, err
	}
	switch e.Report = raw; {
	case dialect.IsHCL(raw):
		if azure, err = dialect.ParseHCL(raw); err != nil {
			return e, nil, malformed{"hcl-format", err}
		}
		if azure.SNP == nil {
			return e, nil, exitError{exitUsage, errors.New("--report is Azure's report of a TD: appraise tdx takes it as --hcl, beside the quote")}
		}
		e.Report = azure.SNP
	case dialect.IsExtended(raw):
		extended, err := dialect.ParseExtended(raw)
		if err != nil {
			return e, nil, malformed{"certificate-table-format", err}
		}
		e.Report, e.Certificate, e.Chain = extended.Report, extended.Certificate, extended.Chain
	}
	if f.fetches() {
		return e, azure, f.complete(ctx, &e, roots)
	}
	if err := f.certificates(&e); err != nil {
		return e, azure, err
	}
	if f.crl == "" {
		return e, azure, nil
	}
	lists, err := readCertificates("crl", f.crl, "X509 CRL")
	e.CRL = append([]byte{}, slices.Concat(lists...)...) // an empty file is a list too, which does not parse
	return e, azure, err
}

// source is where certificates for a report come from, and for which.
type source struct {
	*collateral.Fetcher
	report  *sevsnp.Report
	product sevsnp.Product
}

// source returns it for a report; nil for one that does not parse, which is left for Verify to refuse.
func (f *snpFlags) source(raw []byte, roots []*x509.Certificate) (*source, error) {
	fetcher, err := f.sources.fetcher()
	if err != nil {
		return nil, err
	}
	fetcher.AMDRoots = roots
	report, err := sevsnp.Parse(raw)
	if err != nil {
		return nil, nil
	}
	product := sevsnp.Product(f.product)
	if product == "" {
		if product, err = report.Product(); err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("%w (give --product)", err)}
		}
	}
	return &source{fetcher, report, product}, nil
}

// complete fetches what the report needs.
func (f *snpFlags) complete(ctx context.Context, e *sevsnp.Evidence, roots []*x509.Certificate) error {
	from, err := f.source(e.Report, roots)
	if from == nil {
		return err
	}
	got, err := from.SNP(ctx, from.report, from.product)
	if err != nil {
		return err
	}
	e.Certificate, e.Chain, e.CRL = got.Certificate, got.Chain, got.CRL
	return nil
}

// verify judges the report, and once more where a revocation list that was kept refuses.
func (f *snpFlags) verify(ctx context.Context, e sevsnp.Evidence, options sevsnp.Options, at time.Time,
	roots []*x509.Certificate) (*sevsnp.Result, error) {
	result, err := sevsnp.Verify(e, options, at, roots)
	var refused *sevsnp.Refused
	if !f.fetches() || !errors.As(err, &refused) || !sevsnp.RestsOnCollateral(refused.Failed.Name) {
		return result, err
	}
	if from, wrong := f.source(e.Report, roots); wrong == nil && from != nil {
		if newer, wrong := from.SNPAgain(ctx, from.report, from.product); wrong == nil && newer != nil {
			e.CRL = newer.CRL
			return sevsnp.Verify(e, options, at, roots)
		}
	}
	return result, err
}

// certificates reads --cert and --chain, where the report does not carry them. Azure's service hands out both in one answer.
func (f *snpFlags) certificates(e *sevsnp.Evidence) error {
	if f.cert == "" {
		if e.Certificate == nil {
			return exitError{exitUsage, errors.New("no --cert: the report carries no certificate of its key (--fetch and --collateral-dir bring one)")}
		}
		return nil
	}
	text, err := readInput(f.cert)
	if err != nil {
		return unreadable{"certificate", err}
	}
	var leaf [][]byte
	if dialect.IsTHIM(text) {
		answer, err := dialect.ParseTHIM(text)
		if err != nil {
			return malformed{"certificate-format", err}
		}
		leaf = append([][]byte{answer.Certificate}, answer.Chain...)
	} else if leaf, err = readCertificates("certificate", f.cert, "CERTIFICATE"); err != nil {
		return err
	}
	if f.chain != "" {
		if e.Chain, err = readCertificates("chain", f.chain, "CERTIFICATE"); err != nil {
			return err
		}
	} else if e.Chain = nil; len(leaf) < 3 {
		return exitError{exitUsage, errors.New("no --chain: want ASK and ARK, or the three certificates in --cert")}
	}
	if len(leaf) > 0 {
		e.Certificate = leaf[0]
		e.Chain = authorities(leaf[0], append(e.Chain, leaf[1:]...))
	}
	return nil
}

// authorities leaves out of more than two certificates those that are there twice or have nothing to do with the key: the
// tools for these processors write ASK, ARK and ASVK into one file, or the whole chain into that of the key.
func authorities(leaf []byte, chain [][]byte) (needed [][]byte) {
	key, err := x509.ParseCertificate(leaf)
	if err != nil || len(chain) <= 2 {
		return chain
	}
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		other := err == nil && !bytes.Equal(cert.RawSubject, key.RawIssuer) && !bytes.Equal(cert.RawSubject, cert.RawIssuer)
		if !other && !slices.ContainsFunc(needed, func(known []byte) bool { return bytes.Equal(known, der) }) {
			needed = append(needed, der)
		}
	}
	return needed
}

// readCertificates reads a file of certificates, or of revocation lists, in PEM or DER. What is neither is returned as it
// is, for the appraisal to refuse.
func readCertificates(what, name, kind string) ([][]byte, error) {
	data, err := readInput(name)
	if err != nil {
		return nil, unreadable{what, err}
	}
	text := bytes.Contains(data, []byte("-----BEGIN "))
	var all [][]byte
	for {
		var der, rest []byte
		if block, after := pem.Decode(data); text && block != nil && block.Type == kind {
			der, rest = block.Bytes, after
		} else if one := new(asn1.RawValue); !text {
			rest, _ = asn1.Unmarshal(data, one)
			der = one.FullBytes
		}
		if len(der) == 0 {
			break
		}
		all, data = append(all, der), rest
	}
	if len(bytes.TrimSpace(data)) > 0 {
		all = append(all, data)
	}
	return all, nil
}
