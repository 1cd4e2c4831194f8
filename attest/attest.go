// Package attest decides whether a confidential inference guest is what a client wants to talk to.
//
//	e, err := evidence.Decode(bytes)
//	result, err := attest.Verify(e, challenge, policy, time.Now(), roots)
//
// Evidence goes in, a Result comes out; nothing else makes a Result, and nothing but a Result tells which keys the guest
// holds. The package works offline, on any operating system and in a browser. It denies by default: the zero Policy, the
// zero Challenge and zero Roots accept nothing, and what a policy does not mention is refused.
//
// What travels is package evidence. APPRAISAL.md beside this file lists the checks of each platform, POLICY.md the rules.
//
// What a Result does not promise: that nobody with physical access has broken the hardware that signed. On the vtpm
// platform it proves measurement and protocol alone; the host runs that TPM and can read the guest's memory.
package attest
