package measure

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"chrysalis/measure/pe"
	"chrysalis/measure/register"
)

// DiskBoot is what a firmware boots from a disk: a unified kernel image (UAPI.5) with systemd's stub.
type DiskBoot struct {
	Firmware []byte // code file, without its variable store; the store must be empty at launch
	UKI      []byte
	// Partitions is what the firmware measures of the disk's partition table, bootdisk.Disk.Partitions. Without it PCR 5 is
	// not computed.
	Partitions []byte
}

// PCRs returns the registers of a TPM after a boot from the disk, before the guest extends any: those of a direct boot.
// They are exact as long as nothing but the image speaks to the stub. What the host adds shows in them: text by SMBIOS or
// an add-on in 9 and 12, credentials in 9 and 12, extensions in 9 and 13.
func (b DiskBoot) PCRs() (register.PCRs, error) {
	events, err := b.Events()
	if err != nil {
		return nil, err
	}
	pcrs := replay256(events, fixedPCRs...)
	if b.Partitions == nil {
		delete(pcrs, 5)
	}
	return pcrs, nil
}

// Events returns what firmware, stub and kernel extend into those registers, in order within each. Without Partitions there
// are none of PCR 5.
func (b DiskBoot) Events() ([]PCREvent, error) {
	firmware, err := firmwareEvents(b.Firmware)
	if err != nil {
		return nil, fmt.Errorf("measuring firmware: %v", err)
	}
	sections, err := ukiSections(b.UKI)
	if err != nil {
		return nil, fmt.Errorf("measuring unified kernel image: %v", err)
	}
	image, kernel := sha256.New(), sha256.New()
	if err := pe.WriteHash(image, b.UKI); err != nil {
		return nil, fmt.Errorf("measuring unified kernel image: %v", err)
	}
	if err := pe.WriteHash(kernel, sections[".linux"]); err != nil {
		return nil, fmt.Errorf("measuring kernel in unified kernel image: %v", err)
	}
	cmdline := string(sections[".cmdline"])
	if err := checkCmdline(cmdline); err != nil {
		return nil, fmt.Errorf("measuring command line: %v", err)
	}
	initrd := stubInitrd(sections[".initrd"], sections[".osrel"])
	// The firmware extends an image when it loads it: the disk's after it has said that it will, and the kernel in it when
	// the stub has the firmware load that.
	boot := append(events256(4, callingApplication, separator),
		PCREvent{4, InputUKI, "", [32]byte(image.Sum(nil))}, PCREvent{4, InputKernel, "", [32]byte(kernel.Sum(nil))})
	if b.Partitions != nil {
		boot = append(boot, events256(5, separator, part{InputPartitions, "", b.Partitions}, exitBootServices, exitedBootServices)...)
	}
	boot = append(boot, events256(11, stubParts(sections)...)...)
	return slices.Concat(commonEvents(firmware), boot, linuxEvents(sha256.Sum256(utf16z(cmdline)), sha256.Sum256(initrd))), nil
}
