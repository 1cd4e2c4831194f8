// Package differential holds what this house computes and judges against other people's programs: go-tdx-guest, go-sev-guest,
// go-eventlog and gce-tcb-verifier, which run here, and npm's dcap-qvl, whose answers are recorded. There is nothing in it but tests;
// make differential runs them, and those beside the packages that have an oracle of their own. DIFFERENCES.md says where they
// disagree with us, and why we stay with what we say.
package differential
