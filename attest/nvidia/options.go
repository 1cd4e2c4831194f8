package nvidia

import (
	"time"

	"chrysalis/attest/check"
)

// Options is what a client accepts. The zero value accepts nothing. A field that is absent is the strictest; whatever makes an appraisal
// accept more has a name that says so. An Any… or InsecureSkip… field counts only where the field that it stands in for is not set.
type Options struct {
	// Facts remembers signatures of certificates, reference values and answers of responders between calls; nil remembers nothing. What it
	// remembers never changes a verdict.
	Facts *check.Facts

	// NoGPU says that none is asked for: evidence of one is then refused. Otherwise GPUs is how many there must be, 1 at least, and Switches
	// how many NVSwitches.
	NoGPU          bool
	GPUs, Switches int

	// Nonce is what each device must have signed, zeros when it is not set; AnyNonce accepts every one. Danger: the report may then be
	// of another time.
	Nonce    [32]byte
	AnyNonce bool

	// Devices are those that are accepted; AnyDevice accepts all that a root vouches for. Danger: the keys of one device that its owner has
	// broken forge evidence for all.
	Devices   []ID
	AnyDevice bool
	// Architectures are those of GPUs that are accepted; AnyArchitecture accepts all that this build knows.
	Architectures   []Architecture
	AnyArchitecture bool
	// Modes are the confidential modes that are accepted; AnyMode accepts all.
	Modes   []Mode
	AnyMode bool

	// MinDriver is the lowest version of the driver, such as 550.90.07. MinVBIOS has the lowest version of each chip's VBIOS, or of a switch's
	// BIOS, such as 96.00.9F.00.01; a chip without an entry is refused. InsecureSkipMinimum accepts every version that has
	// reference values. Danger: also those with published weaknesses.
	MinDriver           string
	MinVBIOS            map[string]string
	InsecureSkipMinimum bool

	// RIMs are the names, or the tags, of the documents of reference values that are accepted; AnyRIM accepts all that a root vouches for.
	RIMs   []string
	AnyRIM bool
	// InsecureSkipRIM does without reference values where there are none. Danger: then nothing says which firmware and driver run.
	InsecureSkipRIM bool

	// AllowMissingFWID accepts a GPU's report that does not name the firmware that holds its key, as drivers before 550 make them.
	// A switch's never does.
	AllowMissingFWID bool

	// InsecureSkipRevocation does without a responder's answer; one that is given is judged all the same.
	InsecureSkipRevocation bool
	// AllowHold accepts a certificate that is on hold. Danger: its issuer has a reason.
	AllowHold bool
	// OCSPNonce is what the answers must have; nil wants none. An answer without it is as old as its age says.
	OCSPNonce []byte
	// MaxOCSPAge is how long after its making an answer is believed; default as long as it says itself, and then it must say so.
	MaxOCSPAge time.Duration
}
