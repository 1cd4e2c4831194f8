package collateral

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// files reads the folder's files, those of its subfolders left out.
func (f *Fetcher) files() (all [][]byte, err error) {
	entries, err := os.ReadDir(f.Folder)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if len(all) == dialect.MaxFiles {
			return nil, fmt.Errorf("more than %d files", dialect.MaxFiles)
		}
		b, err := readFile(filepath.Join(f.Folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, dialect.MaxFileBytes+1))
	if err == nil && len(b) > dialect.MaxFileBytes {
		err = fmt.Errorf("%s has more than %d bytes", name, dialect.MaxFileBytes)
	}
	return b, err
}

// sets returns the folder's collateral of Intel's: files in any of package dialect's forms, those of AMD's beside them.
func (f *Fetcher) sets() ([]*tdx.Collateral, error) {
	files, err := f.files()
	if err == nil {
		files = slices.DeleteFunc(files, amds)
		var sets []*tdx.Collateral
		if sets, err = dialect.Collateral(files...); err == nil {
			return sets, nil
		}
	}
	return nil, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, err)
}

// folderTDX returns what the folder has for a quote.
func (f *Fetcher) folderTDX(quote *tdx.Quote) (*tdx.Collateral, error) {
	sets, err := f.sets()
	if err != nil {
		return nil, err
	}
	c, err := dialect.Pick(sets, quote, f.intelRoot())
	if err != nil {
		return nil, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, err)
	}
	return c, nil
}

func (f *Fetcher) folderEvaluation() (uint32, error) {
	sets, err := f.sets()
	if err != nil {
		return 0, err
	}
	n, err := Evaluation(sets, f.intelRoot())
	if err != nil {
		return 0, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, err)
	}
	return n, nil
}

// Evaluation returns the highest tcbEvaluationDataNumber of sets that prove under the root. The last error is returned when none does.
func Evaluation(sets []*tdx.Collateral, root *x509.Certificate) (highest uint32, err error) {
	for _, set := range sets {
		n, wrong := set.Evaluation(root)
		if wrong != nil {
			err = wrong
		}
		highest = max(highest, n)
	}
	if highest == 0 {
		return 0, err
	}
	return highest, nil
}

// amds reports whether a file is of AMD's: its certificates, and the lists that they sign, have RSA-4096 signatures.
func amds(file []byte) bool {
	ders, lists := parts(file)
	for _, der := range ders {
		if cert, err := x509.ParseCertificate(der); err == nil {
			return cert.SignatureAlgorithm == x509.SHA384WithRSAPSS
		}
	}
	for _, der := range lists {
		if crl, err := x509.ParseRevocationList(der); err == nil {
			return crl.SignatureAlgorithm == x509.SHA384WithRSAPSS
		}
	}
	return false
}

// parts returns the certificates or the list in a file.
func parts(file []byte) (ders, lists [][]byte) {
	if dialect.IsTHIM(file) {
		if answer, err := dialect.ParseTHIM(file); err == nil {
			return append([][]byte{answer.Certificate}, answer.Chain...), nil
		}
		return nil, nil
	}
	if bytes.HasPrefix(file, []byte("-----BEGIN CERTIFICATE-----")) {
		return certificates(file), nil
	}
	if _, err := x509.ParseCertificate(file); err == nil {
		return [][]byte{file}, nil
	}
	return nil, [][]byte{dialect.List(file)}
}

// folderSNP returns what the folder has for a report.
func (f *Fetcher) folderSNP(report *sevsnp.Report, product sevsnp.Product) (*SNP, error) {
	files, err := f.files()
	if err != nil {
		return nil, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, err)
	}
	var ders, lists [][]byte
	for _, file := range files {
		certs, crls := parts(file)
		ders, lists = append(ders, certs...), append(lists, crls...)
	}
	s := &SNP{}
	for _, der := range ders {
		if report.EndorsedBy(der, product) {
			s.Certificate = der
		}
	}
	if s.Certificate == nil {
		return nil, f.missing("certificate of the report's key")
	}
	if s.Chain = f.chainOf(s.Certificate, ders); s.Chain == nil {
		return nil, f.missing("chain from the key's certificate to a trusted root")
	}
	if s.CRL = f.latest(s.Chain, lists); s.CRL == nil {
		return nil, f.missing("revocation list of the chain's root")
	}
	return s, nil
}

// folderCRL returns the folder's list of authorities.
func (f *Fetcher) folderCRL(authorities [][]byte) ([]byte, error) {
	files, err := f.files()
	if err != nil {
		return nil, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, err)
	}
	var lists [][]byte
	for _, file := range files {
		_, crls := parts(file)
		lists = append(lists, crls...)
	}
	if crl := f.latest(authorities, lists); crl != nil {
		return crl, nil
	}
	return nil, f.missing("revocation list of the chain's root")
}

func (f *Fetcher) missing(what string) error {
	return fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, errors.New("no "+what))
}

// chainOf finds the two authorities above a key's certificate, in the service's order.
func (f *Fetcher) chainOf(certificate []byte, ders [][]byte) [][]byte {
	for _, ask := range ders {
		for _, ark := range ders {
			if bytes.Equal(ask, ark) || !named(certificate, ask) || !named(ask, ark) {
				continue
			}
			if _, err := sevsnp.Prove([][]byte{ask, ark}, certificate, nil, f.amdRoots()); err == nil {
				return [][]byte{ask, ark}
			}
		}
	}
	return nil
}

// named reports whether one certificate names the other as its issuer: signatures are only looked at where names fit.
func named(der, issuer []byte) bool {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return false
	}
	above, err := x509.ParseCertificate(issuer)
	return err == nil && bytes.Equal(cert.RawIssuer, above.RawSubject)
}

func (f *Fetcher) latest(authorities, lists [][]byte) (latest []byte) {
	for _, list := range lists {
		if _, err := sevsnp.Prove(authorities, nil, list, f.amdRoots()); err != nil {
			continue
		}
		if latest == nil {
			latest = list
			continue
		}
		latest = sevsnp.LatestCRL(list, latest, authorities, f.amdRoots())
	}
	return latest
}
