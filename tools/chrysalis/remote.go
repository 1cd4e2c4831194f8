package main

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
	"chrysalis/attest/ratls"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// remoteFlags are what every verb takes that talks to a guest.
type remoteFlags struct {
	policy, roots, tdxRoot, snpRoot, list string
	gpuRoot, gpuRIMRoot                   string
	offline                               bool
	reach                                 time.Duration
	sources                               sourceFlags
}

func (f *remoteFlags) add(cmd *cobra.Command) {
	f.addOptional(cmd)
	_ = cmd.MarkFlagRequired("policy")
}

// addOptional is for a verb that may talk to a guest.
func (f *remoteFlags) addOptional(cmd *cobra.Command) {
	f.addTrust(cmd)
	cmd.Flags().BoolVar(&f.offline, "offline", false, "fetch no collateral: judge by what the guest staples, or not at all")
	cmd.Flags().DurationVar(&f.reach, "reach", defaultReach, "how long to wait for anybody at the guest's address, before a machine that is there may take its time")
	f.sources.add(cmd)
}

// defaultReach is how long anybody at a guest's address is waited for.
const defaultReach = 5 * time.Second

// addTrust adds what says who is trusted, for a verb that judges what was shown before and reaches nobody.
func (f *remoteFlags) addTrust(cmd *cobra.Command) {
	f.offline, f.reach = true, defaultReach
	cmd.Flags().StringVar(&f.policy, "policy", "", "policy that the guest must meet (make one with: chrysalis policy)")
	cmd.Flags().StringVar(&f.roots, "roots", "",
		"PEM file of the TPM makers that are trusted (default: none; Intel and AMD are, for their own hardware)")
	cmd.Flags().StringVar(&f.tdxRoot, "tdx-root", "", "PEM file with the root of a software TDX, in place of Intel's: protocol and measurement "+
		"are shown then, and nothing is confidential")
	cmd.Flags().StringVar(&f.snpRoot, "snp-root", "", "PEM file with the root of a software SEV-SNP, in place of AMD's: the same holds")
	cmd.Flags().StringVar(&f.gpuRoot, "gpu-root", "", "PEM file with the root of software GPUs, in place of NVIDIA's: the same holds")
	cmd.Flags().StringVar(&f.gpuRIMRoot, "gpu-rim-root", "", "PEM file with the root of their reference values")
	cmd.Flags().StringVar(&f.list, "release-list", "", "signed list of the releases that may run, for a policy that names its signers")
}

// open reads policy and roots. A policy that can't be one is a rejection: it accepts no guest.
func (f *remoteFlags) open() (ratls.Config, error) {
	document, err := readInput(f.policy)
	if err != nil {
		return ratls.Config{}, unavailable(err)
	}
	if f.reach <= 0 {
		return ratls.Config{}, exitError{exitUsage, fmt.Errorf("--reach is %s, want a time", f.reach)}
	}
	config := ratls.Config{Reach: f.reach}
	if config.Policy, err = attest.ParsePolicy(document); err != nil {
		return config, rejected(fmt.Errorf("%s accepts no guest: %w", f.policy, err))
	}
	if f.list != "" {
		signed, err := readInput(f.list)
		if err != nil {
			return config, unavailable(err)
		}
		if config.Policy, err = config.Policy.WithReleases(signed); err != nil {
			return config, rejected(fmt.Errorf("%s: %w", f.list, err))
		}
	}
	if !f.offline {
		fetcher, err := f.sources.fetcher()
		if err != nil {
			return config, err
		}
		config.Complete, config.Again = fetcher.Complete, fetcher.Again
	}
	config.Roots.TDX, config.Roots.SEVSNP, config.Roots.NVIDIA = tdx.IntelRoot(), sevsnp.AMDRoots(), nvidia.NVIDIARoots()
	if f.tdxRoot != "" {
		text, err := readInput(f.tdxRoot)
		if err != nil {
			return config, unavailable(err)
		}
		chain, err := pki.ParsePEM(text, 16<<10, 1)
		if err != nil {
			return config, exitError{exitUsage, fmt.Errorf("reading %s: %w", f.tdxRoot, err)}
		}
		// Nobody but the guest has collateral of a machine that Intel does not know.
		config.Roots.TDX, config.Complete, config.Again = chain[0], nil, nil
	}
	if f.snpRoot != "" {
		text, err := readInput(f.snpRoot)
		if err != nil {
			return config, unavailable(err)
		}
		if config.Roots.SEVSNP, err = pki.ParsePEM(text, 16<<10, 1); err != nil {
			return config, exitError{exitUsage, fmt.Errorf("reading %s: %w", f.snpRoot, err)}
		}
		config.Complete, config.Again = nil, nil // the same of AMD
	}
	for _, given := range []struct {
		file  string
		roots *[]nvidia.Root
	}{{f.gpuRoot, &config.Roots.NVIDIA.Device}, {f.gpuRIMRoot, &config.Roots.NVIDIA.RIM}} {
		if given.file == "" {
			continue
		}
		text, err := readInput(given.file)
		if err != nil {
			return config, unavailable(err)
		}
		chain, err := pki.ParsePEM(text, 16<<10, 1)
		if err != nil {
			return config, exitError{exitUsage, fmt.Errorf("reading %s: %w", given.file, err)}
		}
		*given.roots = []nvidia.Root{nvidia.RootOf(chain[0])}
		config.Complete, config.Again = nil, nil // the same of NVIDIA
	}
	if f.roots == "" {
		return config, nil
	}
	data, err := readInput(f.roots)
	if err != nil {
		return config, unavailable(err)
	}
	if config.Roots.VTPM, err = parseRoots(data); err != nil {
		return config, exitError{exitUsage, fmt.Errorf("reading %s: %w", f.roots, err)}
	}
	return config, nil
}

// trusted is a file of roots that the user named, or "" where he named none.
func (f *remoteFlags) trusted() string { return cmp.Or(f.roots, f.tdxRoot, f.snpRoot) }

// software is said to whoever asks a guest whose root --tdx-root or --snp-root names.
const software = "chrysalis: note: the root of this machine is software's: protocol and measurement are shown, and nothing is confidential"

// parseRoots takes a PEM file of certificates and nothing else.
func parseRoots(data []byte) (*x509.CertPool, error) {
	pool, count := x509.NewCertPool(), 0
	for len(data) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %d is a %s, want CERTIFICATE", count, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", count, err)
		}
		pool.AddCert(cert)
		count, data = count+1, rest
	}
	if count == 0 {
		return nil, errors.New("no certificate in it")
	}
	return pool, nil
}

// guestAddress takes https://HOST[:PORT] and returns the base URL and the address to dial.
func guestAddress(text string) (base, address string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Path != "" && u.Path != "/" {
		return "", "", exitError{exitUsage, fmt.Errorf("URL %q: want https://HOST[:PORT]", text)}
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	host := u.Hostname()
	if u.Host[0] == '[' {
		host = "[" + host + "]"
	}
	return "https://" + host + ":" + port, host + ":" + port, nil
}

// checkHints say what to do about a check that refuses.
var checkHints = map[string]string{
	"release-list": "--release-list gives the signed list for which this policy asks",
	"held-by":      "the guest was upgraded from that image: chrysalis policy --held-by MANIFEST accepts that a release of before has held its secret",
}

// refusalOf gives a verification's error its exit code and a hint.
func refusalOf(err error, roots string) error {
	var refused *attest.Refused
	if errors.As(err, &refused) && checkHints[refused.Failed.Name] != "" {
		err = fmt.Errorf("%w\nchrysalis: hint: %s", err, checkHints[refused.Failed.Name])
	}
	switch {
	case errors.Is(err, attest.ErrRejected):
		if roots == "" {
			err = fmt.Errorf("%w\nchrysalis: hint: --roots names the TPM makers to trust; without it no vtpm is trusted", err)
		}
		return rejected(err)
	default:
		return unavailable(err)
	}
}
