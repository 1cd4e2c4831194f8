package measure

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"chrysalis/measure/pe"
	"chrysalis/measure/register"
)

// DirectBoot is what QEMU boots without a boot loader: firmware, kernel, initrd and command line.
type DirectBoot struct {
	Firmware []byte         // code file, without its variable store; the store must be empty at launch
	Build    *FirmwareBuild // of the firmware, where it is none of those known
	Kernel   []byte
	Initrd   io.Reader
	Cmdline  string // exactly the bytes of -append
}

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
	firmware, build, err := firmwareEvents(b.Firmware, b.Build)
	if err != nil {
		return nil, fmt.Errorf("measuring firmware: %v", err)
	}
	kernel := sha256.New()
	if err := pe.WriteHash(kernel, b.Kernel); err != nil {
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
	return directBoot(firmware, build, [32]byte(kernel.Sum(nil)), sha256.Sum256(cmdline), [32]byte(initrd.Sum(nil))), nil
}

// directBoot puts the digests into the order in which OVMF and the kernel's EFI stub extend them.
func directBoot(firmware []PCREvent, build FirmwareBuild, kernel, cmdline, initrd [32]byte) []PCREvent {
	boot := append([]PCREvent{{4, InputKernel, "", kernel}}, events256(4, callingApplication, separator)...)
	boot = append(boot, events256(5, separator, exitBootServices, exitedBootServices)...)
	return slices.Concat(commonEvents(firmware, build), boot, linuxEvents(cmdline, initrd))
}

// commonEvents are those of every boot of a firmware over an empty variable store.
func commonEvents(firmware []PCREvent, build FirmwareBuild) []PCREvent {
	var state []byte
	if build.SecureBoot {
		state = []byte{0}
	}
	return slices.Concat(firmware, events256(0, separator), events256(7, secureBootVariables(state)...), events256(7, separator),
		events256(2, separator), events256(3, separator))
}

// linuxEvents are those of the kernel's EFI stub.
func linuxEvents(cmdline, initrd [32]byte) []PCREvent {
	return []PCREvent{{9, InputCmdline, "", cmdline}, {9, InputInitrd, "", initrd}}
}
