// Package measure computes the values that a guest's measurement registers must have, from the files of a release and the
// measured config alone. Nothing here is copied from a boot.
//
//	pcrs, err := measure.DirectBoot{Firmware: fw, Kernel: kernel, Initrd: initrd, Cmdline: cmdline}.PCRs()
//	config, err := measure.ConfigPCRs(measured)
//
// PCR 1 holds the ACPI tables, which QEMU makes for one shape of machine: whoever has asked QEMU for them computes it by
// Tables.PCR1.
package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf16"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// DirectBoot is what QEMU boots without a boot loader: firmware, kernel, initrd and command line.
type DirectBoot struct {
	Firmware []byte // code file, without its variable store; the store must be empty at launch
	Kernel   []byte
	Initrd   io.Reader
	Cmdline  string // exactly the bytes of -append
}

// maxCmdline is the kernel's COMMAND_LINE_SIZE on x86 without the NUL.
const maxCmdline = 2047

// fixedPCRs are the registers that follow from a release's files alone, before the guest extends any.
var fixedPCRs = []uint8{0, 2, 3, 4, 5, 7, 8, 9, 11, 12}

// PCRs returns the registers of a TPM after a direct boot, before the guest extends any: 0, 2, 3, 4, 5, 7, 8, 9, 11, 12.
func (b DirectBoot) PCRs() (register.PCRs, error) {
	events, err := b.Events()
	if err != nil {
		return nil, err
	}
	return replay256(events, fixedPCRs...), nil
}

// Events returns what firmware and kernel extend into those registers, in order within each.
func (b DirectBoot) Events() ([]PCREvent, error) {
	firmware, err := firmwareEvents(b.Firmware)
	if err != nil {
		return nil, fmt.Errorf("measuring firmware: %v", err)
	}
	kernel := sha256.New()
	if err := authenticode(b.Kernel, kernel); err != nil {
		return nil, fmt.Errorf("measuring kernel: %v", err)
	}
	cmdline, err := LoadOptions(b.Cmdline)
	if err != nil {
		return nil, fmt.Errorf("measuring command line: %v", err)
	}
	if b.Initrd == nil {
		return nil, errors.New("measuring initrd: none given")
	}
	initrd := sha256.New()
	if _, err := io.Copy(initrd, b.Initrd); err != nil {
		return nil, fmt.Errorf("measuring initrd: %w", err)
	}
	return directBoot(firmware, [32]byte(kernel.Sum(nil)), sha256.Sum256(cmdline), [32]byte(initrd.Sum(nil))), nil
}

// directBoot puts the digests into the order in which OVMF and the kernel's EFI stub extend them.
func directBoot(firmware []PCREvent, kernel, cmdline, initrd [32]byte) []PCREvent {
	boot := append([]PCREvent{{4, InputKernel, "", kernel}}, events256(4, callingApplication, separator)...)
	boot = append(boot, events256(5, separator, exitBootServices, exitedBootServices)...)
	return slices.Concat(commonEvents(firmware), boot, linuxEvents(cmdline, initrd))
}

// commonEvents are those of every boot of a firmware over an empty variable store.
func commonEvents(firmware []PCREvent) []PCREvent {
	return slices.Concat(firmware, events256(0, separator), events256(7, secureBootVariables(nil)...), events256(7, separator),
		events256(2, separator), events256(3, separator))
}

// linuxEvents are those of the kernel's EFI stub.
func linuxEvents(cmdline, initrd [32]byte) []PCREvent {
	return []PCREvent{{9, InputCmdline, "", cmdline}, {9, InputInitrd, "", initrd}}
}

// Events returns what the firmware extends into PCR 1 of a direct boot, in order: the machine's tables and the boot variables.
func (a Tables) Events() ([]PCREvent, error) { return a.events(bootVariables()) }

// DiskEvents returns the same of a boot from the shape's boot disk.
func (a Tables) DiskEvents(s Shape) ([]PCREvent, error) {
	variables, err := diskVariables(s)
	if err != nil {
		return nil, fmt.Errorf("measuring boot variables: %v", err)
	}
	return a.events(variables)
}

func (a Tables) events(variables []part) ([]PCREvent, error) {
	tables, err := a.measured()
	if err != nil {
		return nil, err
	}
	return events256(1, slices.Concat(tables, variables, []part{separator})...), nil
}

// PCR1 returns the register of a direct boot.
func (a Tables) PCR1() (register.Digest, error) {
	events, err := a.Events()
	if err != nil {
		return register.Digest{}, err
	}
	return replay256(events, 1)[1], nil
}

// DiskPCR1 returns the register of a boot from the shape's boot disk.
func (a Tables) DiskPCR1(s Shape) (register.Digest, error) {
	events, err := a.DiskEvents(s)
	if err != nil {
		return register.Digest{}, err
	}
	return replay256(events, 1)[1], nil
}

// LoadOptions returns the command line as the kernel's EFI stub sees and measures it: in UTF-16, after QEMU's loader has
// added the initrd's name.
func LoadOptions(cmdline string) ([]byte, error) {
	if err := checkCmdline(cmdline); err != nil {
		return nil, err
	}
	return utf16z(cmdline + " initrd=initrd"), nil
}

// secureBootVariables returns the UEFI_VARIABLE_DATA of each Secure Boot variable over an empty variable store; on is what
// the variable SecureBoot holds. TCG PC Client Platform Firmware Profile 1.06, section 3.3.4.8.
func secureBootVariables(on []byte) (all []part) {
	global := [16]byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	image := [16]byte{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	for _, v := range []struct {
		guid [16]byte
		name string
		data []byte
	}{{global, "SecureBoot", on}, {global, "PK", nil}, {global, "KEK", nil}, {image, "db", nil}, {image, "dbx", nil}} {
		data := binary.LittleEndian.AppendUint64(v.guid[:], uint64(len(v.name)))
		data = binary.LittleEndian.AppendUint64(data, uint64(len(v.data)))
		for _, c := range []byte(v.name) {
			data = append(data, c, 0)
		}
		all = append(all, part{InputSecureBoot, v.name, append(data, v.data...)})
	}
	return all
}

// ConfigPCRs returns PCR 13 and 14 of a guest that serves with these measured bytes.
func ConfigPCRs(measured []byte) (register.PCRs, error) {
	sequence, err := eventlog.SequenceOf(measured)
	if err != nil {
		return nil, fmt.Errorf("measuring config: %v", err)
	}
	records := sequence.Records(eventlog.InPCRs)
	return register.PCRs{
		13: eventlog.Replay256(records, eventlog.PCR13),
		14: eventlog.Replay256(records, eventlog.PCR14),
	}, nil
}

// utf16z returns s in UTF-16LE with a final NUL.
func utf16z(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
