// Package tdx judges Intel TDX quotes: versions 4 and 5, with reports of TDX 1.0 and 1.5.
//
//	result, err := tdx.Verify(quote, collateral, tdx.Options{}, time.Now(), tdx.IntelRoot())
//
// A quote and the collateral of Intel's provisioning certification service go in, both untrusted; a Result comes out when
// every check has accepted. The package works offline, on any operating system and in a browser. The zero Options are the
// strictest: every status but UpToDate is refused, and so is a TD under debug. The specifications are Intel's: TDX DCAP
// Quoting Library API (quotes), PCK Certificate and CRL Specification, PCS API 4 (collateral), TDX Module ABI (attributes).
// DIFFERENCES.md beside this file lists where go-tdx-guest and Intel's own library decide otherwise.
//
// A Result says that a genuine, current TDX module measured these values. It does not say what was measured, and not that
// nobody with physical access has broken the machine.
package tdx
