// Package register has the words in which everybody speaks of measurement registers: their names, the digests that they
// hold, and the selection that a TPM quotes. It knows neither how a value comes about (package measure) nor who signs it
// (package attest), so that both can speak of the same thing.
//
// Registers by platform: a TPM's PCRs in its SHA-256 bank; MRTD and RTMR0 to RTMR3 of a TD, SHA-384; the launch digest of an
// SEV-SNP guest, SHA-384.
package register

import (
	"fmt"
	"maps"
	"slices"
)

// Names of the registers that are none of several.
const (
	MRTD   = "mrtd"          // measurement of a TD's first memory
	Launch = "launch-digest" // of SEV-SNP
)

// index is a register's number, in whichever type its structure has it.
type index interface {
	~uint8 | ~uint32 | ~uint | ~int
}

// PCR returns the name of a TPM's register: pcr-0 to pcr-23.
func PCR[I index](i I) string { return fmt.Sprintf("pcr-%d", i) }

// RTMR returns the name of a TD's run-time register: rtmr-0 to rtmr-3.
func RTMR[I index](i I) string { return fmt.Sprintf("rtmr-%d", i) }

// TD returns the names of a TD's registers that follow from files and the machine's shape. RTMR3 follows from the config.
func TD() []string { return []string{MRTD, RTMR(0), RTMR(1), RTMR(2)} }

// quoted leaves out 6 (unused), 10 (IMA) and those from 15 on.
var quoted = [...]uint{0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14}

// Quoted returns the one selection of PCRs, in the SHA-256 bank, that is quoted and accepted, in ascending order.
func Quoted() []uint { return slices.Clone(quoted[:]) }

// PCRs are values of a TPM's SHA-256 bank by register. In JSON an object from the register's number to hex.
type PCRs map[uint8]Digest

// With returns p and the values of other together; other wins.
func (p PCRs) With(other PCRs) PCRs {
	sum := maps.Clone(p)
	maps.Copy(sum, other)
	return sum
}
