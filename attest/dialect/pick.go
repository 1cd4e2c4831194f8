package dialect

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"chrysalis/attest/check"
	"chrysalis/attest/tdx"
)

// Pick returns of several sets what a quote needs: those about its kind of machine and its PCK's CA, and of each document of theirs
// that proves under the root the one of latest issue. Of one set alone it returns that, for Verify to refuse. Without one about the
// machine the error is check.ErrUnavailable.
func Pick(sets []*tdx.Collateral, quote *tdx.Quote, root *x509.Certificate) (*tdx.Collateral, error) {
	if len(sets) == 1 {
		return sets[0], nil
	}
	var picked *tdx.Collateral
	var fmspc [6]byte
	var ca string
	for _, set := range sets {
		var err error
		if quote.Certification.Type != 0 {
			fmspc, ca, err = tdx.NeedsOf(set.PCKChain)
		} else {
			fmspc, ca, err = quote.Needs()
		}
		if err != nil {
			return nil, fmt.Errorf("choosing collateral: %w: %w", check.ErrUnavailable, err)
		}
		about, of, err := set.For()
		if err != nil || about != fmspc || of != ca {
			continue
		}
		if picked == nil {
			picked = set
			continue
		}
		picked = tdx.Latest(set, picked, root)
	}
	if picked == nil {
		return nil, fmt.Errorf("choosing collateral: none of %d sets is about FMSPC %s and the %s CA: %w", len(sets),
			hex.EncodeToString(fmspc[:]), ca, check.ErrUnavailable)
	}
	return picked, nil
}
