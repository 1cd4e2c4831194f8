package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/collateral"
)

// sourceFlags say where collateral comes from, alike in every verb that takes it.
type sourceFlags struct {
	sources       collateral.Sources
	folder, cache string
	maxAge        time.Duration
}

func (f *sourceFlags) add(cmd *cobra.Command) {
	f.sources = collateral.DefaultSources()
	flags := cmd.Flags()
	flags.StringVar(&f.sources.IntelPCS, "intel-pcs", f.sources.IntelPCS, "base URL of Intel's service")
	flags.StringVar(&f.sources.IntelCerts, "intel-certificates", f.sources.IntelCerts, "base URL of Intel's root revocation list")
	flags.StringVar(&f.sources.AMDKDS, "amd-kds", f.sources.AMDKDS, "base URL of AMD's service, or of a cache of it")
	flags.StringVar(&f.sources.NVIDIARIM, "nvidia-rim", f.sources.NVIDIARIM, "base URL of NVIDIA's service of reference values")
	flags.StringVar(&f.sources.NVIDIAOCSP, "nvidia-ocsp", f.sources.NVIDIAOCSP, "URL of NVIDIA's OCSP responder")
	flags.StringVar(&f.sources.PCCS, "pccs", "", "base URL of a PCCS to ask in the place of Intel's services (SSL_CERT_FILE names the certificate of one that signed its own)")
	flags.StringVar(&f.sources.Update, "tcb-update", "", "which TCB info to ask Intel's service or the PCCS for: early or standard (default: the service's own, standard)")
	cmd.RegisterFlagCompletionFunc("tcb-update", cobra.FixedCompletions([]string{collateral.UpdateEarly, collateral.UpdateStandard}, cobra.ShellCompDirectiveNoFileComp))
	flags.StringVar(&f.folder, "collateral-dir", "",
		"folder of files to read in the place of all services: collateral as appraise tdx takes it; AMD's certificates and revocation lists in DER or PEM")
	flags.StringVar(&f.cache, "cache", "", "folder of what was fetched before (default: chrysalis/collateral in the user's cache folder)")
	flags.DurationVar(&f.maxAge, "max-age", 24*time.Hour, "how old the cache's answers may be")
}

// fetcher checks the flags and returns what fetches by them.
func (f *sourceFlags) fetcher() (*collateral.Fetcher, error) {
	switch f.sources.Update {
	case "", collateral.UpdateEarly, collateral.UpdateStandard:
	default:
		return nil, exitError{exitUsage, fmt.Errorf("--tcb-update %q: want %s or %s", f.sources.Update, collateral.UpdateEarly, collateral.UpdateStandard)}
	}
	for _, address := range []struct{ flag, text string }{{"intel-pcs", f.sources.IntelPCS}, {"intel-certificates", f.sources.IntelCerts},
		{"amd-kds", f.sources.AMDKDS}, {"nvidia-rim", f.sources.NVIDIARIM}, {"nvidia-ocsp", f.sources.NVIDIAOCSP}, {"pccs", f.sources.PCCS}} {
		u, err := url.Parse(address.text)
		if address.text != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "") {
			return nil, exitError{exitUsage, fmt.Errorf("--%s %q: want a URL like https://pccs.example:8081", address.flag, address.text)}
		}
	}
	if f.folder != "" && f.sources.PCCS != "" {
		return nil, exitError{exitUsage, fmt.Errorf("--collateral-dir %s beside --pccs %s: want one of them", f.folder, f.sources.PCCS)}
	}
	cache := f.cache
	if cache == "" {
		var err error
		if cache, err = collateralCache(); err != nil {
			cache = "" // a user without a home keeps nothing
		}
	}
	return &collateral.Fetcher{Sources: f.sources, Folder: f.folder, Cache: cache, MaxAge: f.maxAge}, nil
}

// collateralCache is where collateral is kept between runs.
func collateralCache() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "chrysalis", "collateral"), err
}
