// Package release says which releases may run: their reference values, the signed list that names them and revokes others, and
// the statements of those who rebuilt one bit for bit.
//
//	list, err := release.ParseList(signed, signers, threshold)
//	err = list.Judge(name, time.Now(), maxAge)
//
// Whom to trust is always passed in. What a release's values mean for a guest is judged by package attest. RELEASES.md beside
// this file is the specification.
package release
