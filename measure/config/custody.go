package config

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Custody is what a custodian and those that it lends the secret to need to judge each other. It is part of the identity, so both have
// the same, and nobody has the secret lent who would judge by less.
type Custody struct {
	// LeaseSeconds is how long a loan holds after it was last renewed.
	LeaseSeconds uint32 `json:"lease_seconds"`
	// CollateralHours is how long after its issue a machine's collateral is believed.
	CollateralHours uint32 `json:"collateral_hours"`
	// Roots vouch for the hardware of either side, in DER. Without any, the makers of TDX and SEV-SNP do; a TPM's maker must be named.
	Roots [][]byte `json:"roots,omitzero"`
	// MinTCBEvaluation is the lowest tcbEvaluationDataNumber of a TD's collateral.
	MinTCBEvaluation uint32 `json:"min_tcb_evaluation,omitzero"`
	// MinTCB are the lowest patch levels of SEV-SNP machines, one for each line of processors. A line without is refused.
	MinTCB []PatchLevels `json:"min_tcb,omitzero"`
}

// PatchLevels are the patch levels of a line of SEV-SNP processors.
type PatchLevels struct {
	Product    string `json:"product"` // Milan, Genoa or Turin
	FMC        uint8  `json:"fmc"`     // Turin's alone
	Bootloader uint8  `json:"bootloader"`
	TEE        uint8  `json:"tee"`
	SNP        uint8  `json:"snp"`
	Microcode  uint8  `json:"microcode"`
}

// Lease is how long a loan holds after it was last renewed.
func (c Custody) Lease() time.Duration { return time.Duration(c.LeaseSeconds) * time.Second }

const (
	minLeaseSeconds    = 5
	maxLeaseSeconds    = 24 * 3600
	maxCollateralHours = 24 * 400 // AMD issues a revocation list once a year
	maxRoots           = 8
	maxRootBytes       = 4096
)

// validateCustody wants custody where sealing is SealCustodian, and nowhere else.
func (i Identity) validateCustody() error {
	c := i.Custody
	if i.Sealing != SealCustodian {
		if !reflect.ValueOf(c).IsZero() {
			return fmt.Errorf("it is given with sealing %q, want sealing %q, or none", i.Sealing, SealCustodian)
		}
		return nil
	}
	switch {
	case i.Handover == HandoverNone:
		return fmt.Errorf("handover is %q, and a custodian hands the secret over", i.Handover)
	case c.LeaseSeconds < minLeaseSeconds || c.LeaseSeconds > maxLeaseSeconds:
		return fmt.Errorf("lease_seconds is %d, want %d to %d", c.LeaseSeconds, minLeaseSeconds, maxLeaseSeconds)
	case c.CollateralHours == 0 || c.CollateralHours > maxCollateralHours:
		return fmt.Errorf("collateral_hours is %d, want 1 to %d", c.CollateralHours, maxCollateralHours)
	case len(c.Roots) > maxRoots || c.Roots != nil && len(c.Roots) == 0:
		return fmt.Errorf("%d roots, want 1 to %d, or the member left out", len(c.Roots), maxRoots)
	case c.MinTCB != nil && len(c.MinTCB) == 0:
		return fmt.Errorf("min_tcb is empty, want a line of processors, or the member left out")
	}
	for at, der := range c.Roots {
		// Who judges by it parses it: a config is read by process 1, which has no business with certificates.
		if len(der) == 0 || len(der) > maxRootBytes {
			return fmt.Errorf("root %d has %d bytes, want 1 to %d", at, len(der), maxRootBytes)
		}
	}
	products := []string{"Milan", "Genoa", "Turin"}
	for at, l := range c.MinTCB {
		twice := slices.ContainsFunc(c.MinTCB[:at], func(o PatchLevels) bool { return o.Product == l.Product })
		if twice || !slices.Contains(products, l.Product) {
			return fmt.Errorf("min_tcb names product %.40q, want each of %q at most once", l.Product, products)
		}
	}
	return nil
}

// validateCustodian wants nothing beside the GPU rule: a custodian computes nothing, for nobody.
func (s Service) validateCustodian() error {
	if want := (Service{Custodian: true, GPU: GPUNone}); !reflect.DeepEqual(s, want) {
		return fmt.Errorf("custodian with more than gpu %q: it has no engine, model, limits, price or wipe", GPUNone)
	}
	return nil
}
