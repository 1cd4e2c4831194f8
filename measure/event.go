package measure

import (
	"crypto/sha256"
	"crypto/sha512"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// Event is one measurement that a boot must make. The registers that this package computes are replays of such lists, so that
// whoever compares a guest's log with a list compares it with the registers themselves.
type Event[D [32]byte | [48]byte] struct {
	Register uint8  // number of the PCR or RTMR
	Input    Input  // what the digest follows from
	Name     string // which one of them: of a file, a variable, a section; may be empty
	Digest   D
}

// Events by the kind of register.
type (
	PCREvent  = Event[[32]byte]
	RTMREvent = Event[[48]byte]
)

// Input is what an event's digest follows from: whoever changes it moves the register.
type Input string

// The inputs. Those of the machine follow from its shape.
const (
	InputFirmware      Input = "firmware"        // version and volumes
	InputSecureBoot    Input = "secure-boot"     // a Secure Boot variable
	InputVariableStore Input = "variable-store"  // the firmware's settings, which must be empty
	InputBootVariables Input = "boot-variable"   // what the firmware may boot, and in which order
	InputMemory        Input = "memory"          // of the machine: the hypervisor's list of memory
	InputSetting       Input = "machine-setting" // of the machine: what the hypervisor tells the firmware
	InputACPI          Input = "acpi"            // of the machine: tables
	InputSMBIOS        Input = "smbios"          // of the machine: what it says of its parts
	InputKernel        Input = "kernel"          // image hash
	InputInitrd        Input = "initrd"          //
	InputCmdline       Input = "command-line"    //
	InputUKI           Input = "boot-image"      // image hash of a unified kernel image
	InputSection       Input = "boot-section"    // a section of it
	InputProfile       Input = "boot-profile"    // number of one of its profiles
	InputPartitions    Input = "partition-table" // of a boot disk
	InputStep          Input = "boot-step"       // that the boot has come so far
	InputSeparator     Input = "boot-separator"  // that what belongs to the firmware ends here
)

// OfMachine reports whether the input follows from the shape of the machine.
func (i Input) OfMachine() bool {
	return i == InputMemory || i == InputSetting || i == InputACPI || i == InputSMBIOS
}

// part is what is hashed for an event.
type part struct {
	input Input
	name  string
	data  []byte
}

var (
	separator          = part{InputSeparator, "", eventlog.SeparatorData()}
	callingApplication = part{InputStep, "", []byte("Calling EFI Application from Boot Option")}
	exitBootServices   = part{InputStep, "", []byte("Exit Boot Services Invocation")}
	exitedBootServices = part{InputStep, "", []byte("Exit Boot Services Returned with Success")}
)

func events256(index uint8, parts ...part) (events []PCREvent) {
	for _, p := range parts {
		events = append(events, PCREvent{index, p.input, p.label(), sha256.Sum256(p.data)})
	}
	return events
}

func events384(index uint8, parts ...part) (events []RTMREvent) {
	for _, p := range parts {
		events = append(events, RTMREvent{index, p.input, p.label(), sha512.Sum384(p.data)})
	}
	return events
}

// label returns the part's name; a step's is its text.
func (p part) label() string {
	if p.input == InputStep {
		return string(p.data)
	}
	return p.name
}

// replay256 returns the named registers as the events leave them.
func replay256(events []PCREvent, registers ...uint8) register.PCRs {
	pcrs := register.PCRs{}
	for _, index := range registers {
		var value register.Digest
		for _, e := range events {
			if e.Register == index {
				value = eventlog.Extend256(value, e.Digest)
			}
		}
		pcrs[index] = value
	}
	return pcrs
}

// replay384 returns an RTMR as the events leave it.
func replay384(events []RTMREvent, index uint8) (value register.Digest384) {
	for _, e := range events {
		if e.Register == index {
			value = eventlog.Extend384(value, e.Digest)
		}
	}
	return value
}
