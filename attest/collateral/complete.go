package collateral

import (
	"context"
	"fmt"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
)

// Complete fetches what evidence needs to be judged: Intel's collateral for a quote, AMD's certificates and revocation list for a
// report, and for GPUs their reference values and the answers of NVIDIA's responder. What whoever handed out the evidence stapled does not decide how old it is: of each document the later issue is taken. Where
// nothing can be fetched the staple stays, for Verify to judge by its dates. Evidence that does not parse is left as it is, for
// Verify to refuse.
func (f *Fetcher) Complete(ctx context.Context, e *evidence.Evidence) error {
	var err error
	switch e.Platform {
	case evidence.TDX:
		err = f.completeTDX(ctx, e)
	case evidence.SEVSNP:
		err = f.completeSNP(ctx, e)
	}
	if err != nil || len(e.GPUs.Devices) == 0 {
		return err
	}
	return f.completeGPUs(ctx, e)
}

// Again is for evidence that Complete has completed and that was refused all the same for what the collateral says: where that came out
// of the cache, and not just now, it is dropped and asked for again. It reports whether it was. A service that gives nothing else makes
// no difference, and one that can't be reached leaves the evidence as it is.
func (f *Fetcher) Again(ctx context.Context, e *evidence.Evidence) (bool, error) {
	dropped := false
	for _, address := range append(f.addressesOf(e), f.addressesOfGPUs(e)...) {
		dropped = f.drop(address) || dropped
	}
	if !dropped {
		return false, nil
	}
	if err := f.Complete(ctx, e); err != nil {
		return false, err
	}
	return true, nil
}

// addressesOf lists from where the collateral of evidence may have come that can be another tomorrow. AMD's certificates can't.
func (f *Fetcher) addressesOf(e *evidence.Evidence) []string {
	switch e.Platform {
	case evidence.TDX:
		if quote, err := tdx.Parse(e.Quote); err == nil {
			if fmspc, ca, err := quote.Needs(); err == nil {
				return f.intelAddresses(fmspc, ca).all()
			}
		}
	case evidence.SEVSNP:
		if report, err := sevsnp.Parse(e.Quote); err == nil {
			if product, err := report.Product(); err == nil {
				return []string{f.crlAddress(product, report.Signer)}
			}
		}
	}
	return nil
}

func (f *Fetcher) completeTDX(ctx context.Context, e *evidence.Evidence) error {
	quote, err := tdx.Parse(e.Quote)
	if err != nil {
		return nil
	}
	var stapled *tdx.Collateral
	if e.Collateral != nil {
		if stapled, err = tdx.ParseCollateral(e.Collateral); err != nil {
			return nil
		}
	}
	var c *tdx.Collateral
	if quote.Certification.Type != 0 && stapled != nil && f.Folder == "" {
		// Which machine it is of, the chain beside the quote says.
		fmspc, ca, needs := tdx.NeedsOf(stapled.PCKChain)
		if needs != nil {
			return nil
		}
		c, err = f.tdx(ctx, f.intelAddresses(fmspc, ca))
	} else {
		c, err = f.TDX(ctx, quote)
	}
	if err != nil {
		if stapled != nil {
			return nil
		}
		return err
	}
	if stapled != nil {
		c = tdx.Latest(stapled, c, f.intelRoot())
	}
	if e.Collateral, err = c.Encode(); err != nil {
		return fmt.Errorf("completing evidence: %w: %w", check.ErrUnavailable, err)
	}
	return nil
}

func (f *Fetcher) completeSNP(ctx context.Context, e *evidence.Evidence) error {
	report, err := sevsnp.Parse(e.Quote)
	if err != nil {
		return nil
	}
	missing := e.Collateral == nil || len(e.Certificates) == 0
	product, err := report.Product()
	if err != nil {
		if !missing {
			return nil
		}
		return fmt.Errorf("completing evidence: %w: %w", check.ErrUnavailable, err)
	}
	if len(e.Certificates) == 0 {
		got, err := f.SNP(ctx, report, product)
		if err != nil {
			return err
		}
		e.Certificates = append([][]byte{got.Certificate}, got.Chain...)
	}
	authorities := e.Certificates[1:]
	crl, err := f.snpCRL(ctx, product, report.Signer, authorities)
	switch {
	case err != nil && e.Collateral == nil:
		return err
	case err != nil: // the staple stays
	case e.Collateral == nil:
		e.Collateral = crl
	default:
		e.Collateral = sevsnp.LatestCRL(e.Collateral, crl, authorities, f.amdRoots())
	}
	return nil
}

// completeGPUs takes what NVIDIA's services have now, which is no older than the cache lets it be.
func (f *Fetcher) completeGPUs(ctx context.Context, e *evidence.Evidence) error {
	var devices []nvidia.Device
	for _, d := range e.GPUs.Devices {
		device := nvidia.Device{Report: d.Report, Chain: d.Chain}
		if _, err := device.Needs(); err != nil {
			return nil
		}
		devices = append(devices, device)
	}
	got, err := f.NVIDIA(ctx, devices)
	switch {
	case err != nil && len(e.GPUs.RIMs) > 0 && len(e.GPUs.OCSP) > 0: // the staple stays
	case err != nil:
		return err
	default:
		e.GPUs.RIMs, e.GPUs.OCSP = got.RIMs, got.OCSP
	}
	return nil
}

// addressesOfGPUs lists under which names the cache has what completeGPUs takes.
func (f *Fetcher) addressesOfGPUs(e *evidence.Evidence) (all []string) {
	var questions []nvidia.Question
	for _, d := range e.GPUs.Devices {
		needs, err := nvidia.Device{Report: d.Report, Chain: d.Chain}.Needs()
		if err != nil {
			return nil
		}
		questions = append(questions, needs.Questions...)
		for _, name := range needs.RIMs {
			all = append(all, f.rimAddress(name))
		}
	}
	for _, document := range e.GPUs.RIMs {
		if rim, err := nvidia.ParseRIM(document); err == nil {
			questions = append(questions, rim.Questions()...)
		}
	}
	for _, q := range questions {
		if asked, err := f.ocspQuestion(q); err == nil {
			all = append(all, asked.kept())
		}
	}
	return all
}
