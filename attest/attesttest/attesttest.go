// Package attesttest is a software platform: a TPM maker with its own root, and guests whose quotes, logs and statements
// are byte for byte what a TPM and a guest write. The production verifier accepts them only with this root passed in.
//
// It is for tests, and for tools/double, which plays hardware below an emulated guest. No other program links it.
package attesttest
