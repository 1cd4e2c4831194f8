// Package eventlog reads and replays the logs that stand behind measurement registers: the TCG2 log that firmware and
// boot loader write, and the runtime log that init writes from the measured config on.
//
// A log is untrusted until its replay equals a register that the hardware vouches for, and even then only as far as an
// event's data hashes to the event's digest. RUNTIME.md beside this file is the specification of the runtime log.
package eventlog
