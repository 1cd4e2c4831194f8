package collateral

import (
	"context"
	"fmt"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// Complete fetches what evidence lacks to be judged: Intel's collateral for a quote, AMD's certificates and revocation list
// for a report. What the guest stapled stays. Evidence that does not parse is left as it is, for Verify to refuse.
func (f *Fetcher) Complete(ctx context.Context, e *evidence.Evidence) error {
	switch e.Platform {
	case evidence.TDX:
		quote, err := tdx.Parse(e.Quote)
		if err != nil || e.Collateral != nil {
			return nil
		}
		c, err := f.TDX(ctx, quote)
		if err != nil {
			return err
		}
		if e.Collateral, err = c.Encode(); err != nil {
			return fmt.Errorf("completing evidence: %w: %w", check.ErrUnavailable, err)
		}
	case evidence.SEVSNP:
		report, err := sevsnp.Parse(e.Quote)
		if err != nil || e.Collateral != nil && len(e.Certificates) > 0 {
			return nil
		}
		product, err := report.Product()
		if err != nil {
			return fmt.Errorf("completing evidence: %w: %w", check.ErrUnavailable, err)
		}
		got, err := f.SNP(ctx, report, product)
		if err != nil {
			return err
		}
		if len(e.Certificates) == 0 {
			e.Certificates = append([][]byte{got.Certificate}, got.Chain...)
		}
		if e.Collateral == nil {
			e.Collateral = got.CRL
		}
	}
	return nil
}
