// Package vtpm parses and verifies the quote of a TPM 2.0: TPMS_ATTEST and TPMT_SIGNATURE by an ECDSA P-256 attestation
// key, and the certificate that ties that key to whoever made the TPM. Structures: TPM 2.0 Library, Part 2.
//
// The package verifies signatures and layouts. What a quote's contents must be is judged by package attest. A quote of a
// TPM that the host runs proves what was measured into it, and hides nothing from the host.
package vtpm
