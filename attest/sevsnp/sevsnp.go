// Package sevsnp appraises the attestation report of an AMD SEV-SNP guest: report, certificates up to AMD's root, patch
// levels, guest policy. Specifications: AMD 56860 (firmware ABI) and AMD 57230 (certificates).
//
//	result, err := sevsnp.Verify(evidence, options, time.Now(), sevsnp.AMDRoots())
//
// It works offline, on any operating system and in a browser. The zero Options accept nothing, and each field that makes
// them accept more says so in its name.
//
// What a Result does not promise: that nobody with physical access has broken the processor that signed; that ACPI tables
// are what they should be, which no field of a report covers; and, unless a measurement was given, what runs in the guest.
//
// DIFFERENCES.md beside this file lists where the verdict differs from github.com/google/go-sev-guest's, each with its test.
package sevsnp
