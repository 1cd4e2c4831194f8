// Package status is what a host may know of a guest: lines of a closed vocabulary, which init writes to a virtio serial port
// and the tools read. STATUS.md beside this file is the specification.
//
//	line, err := status.Parse("end volume-corrupt")
//	fmt.Println(line.Code, line.Code.Hint())
//
// Every word is a constant of this package, so no text from outside can reach a line, and a reader refuses what init can't
// have written. It is the host's view: it proves nothing about a guest.
package status

// PortName is the name that the host gives to the port.
const PortName = "org.chrysalis.status"

// ProofsPortName is the name of the port on which a guest hands out what it has signed for its owner: lines of runtime/receipt, which
// prove themselves. It belongs to the vocabulary of this package's port as little as the answers to clients do.
const ProofsPortName = "org.chrysalis.proofs"

// Stage is a program of the boot that has begun.
type Stage uint8

// The stages.
const (
	Initrd Stage = iota + 1
	PID1

	endOfStages
)

// Step is a step of the boot. It is reported when it is done, and has a code for its failure.
type Step uint8

// The steps, in the order of a boot.
const (
	Mounts Step = iota + 1 // before there is a port: never reported
	Status                 // the same
	Cmdline
	Modules
	Root
	Hardening
	Entropy
	CorruptionWatch
	Platform
	Config
	EngineVolume
	ModelVolume
	GPU
	ModuleLock
	Handover
	Network
	Borrower // of a guest whose secret is borrowed
	Secret
	Custodian // of a custodian, which has no step after the lender
	Settle    // of a custodian that took its secret over from another
	Lender
	Containerd
	Fetch // of a guest whose charges are settled on chain
	Keeper
	Engine
	Gateway

	endOfSteps
)

// Event is something that happens beside the steps.
type Event uint8

// The events.
const (
	KernelUp Event = iota + 1
	EngineUp
	EngineDown
	SecretMoved
	QuoteLate
	QuoteBusy
	QuoteRefused
	QuoteForeign
	QuoteFailed

	endOfEvents
)

// Code says why a guest ended. The zero Code is none: the guest stopped without a word. The code of a failed step is that
// step's Failed.
type Code uint8

// The codes that are not those of a step.
const (
	ConfigForeign Code = iota + 1
	SealingUnfit
	IdentityUnfit
	EngineUnfit
	VolumeCorrupt
	GPUUnasked
	GPUNone
	GPUCount
	GPUReset
	GPUDriver
	GPUState
	GPUUnverified
	GPUReady
	GPULost
	UnsealRefused
	HandedOver
	HandoverRefused
	PlatformLost
	ContainerdExited
	KeeperExited
	EngineHostExited
	EngineHostFailed
	GatewayExited
	BorrowerExited
	CustodianExited
	LenderExited
	LoanRefused
	LoanHeld
	LoanLost
	SecretUnsettled
	FetchExited
	ParamsRefused
	ProxyOpen
	JournalTorn
	JournalForeign
	JournalOld
	JournalRolledBack
	JournalIO
	JournalFull
	JournalCorrupt
	JournalShort
	JournalRefused
	Broken

	endOfCodes
)

// firstFailed is where the codes of the steps begin.
const firstFailed Code = 128

// Codes returns every code that there is.
func Codes() (all []Code) {
	for c := range codes[1:] {
		all = append(all, Code(c+1))
	}
	for s := range steps[1:] {
		all = append(all, Step(s+1).Failed())
	}
	return all
}

// Failed returns the code of a guest that ended because the step failed.
func (s Step) Failed() Code { return firstFailed + Code(s) }

// of returns the step whose failure the code is.
func (c Code) of() (Step, bool) { return Step(c - firstFailed), c > firstFailed }

func (s Stage) String() string { return at(stages, int(s)) }
func (s Step) String() string  { return at(steps, int(s)).name }
func (e Event) String() string { return at(events, int(e)) }

func (c Code) String() string {
	if step, ok := c.of(); ok {
		return step.String() + failedSuffix
	}
	return at(codes, int(c)).name
}

// Hint says, to whoever runs the host, what to do about a guest that ended so.
func (c Code) Hint() string {
	if step, ok := c.of(); ok {
		return at(steps, int(step)).hint
	}
	return at(codes, int(c)).hint
}

// at returns a row of a table, and the zero row for a number that has none.
func at[T any](table []T, i int) (none T) {
	if i < 0 || i >= len(table) {
		return none
	}
	return table[i]
}
