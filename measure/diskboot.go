package measure

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"chrysalis/measure/pe"
	"chrysalis/measure/register"
	"chrysalis/measure/uki"
)

// DiskBoot is what a firmware boots from a disk: a unified kernel image (UAPI.5) with systemd's stub.
type DiskBoot struct {
	Firmware []byte         // code file, without its variable store; the store must be empty at launch
	Build    *FirmwareBuild // of the firmware, where it is none of those known
	UKI      []byte
	// Profile is the one of the image's profiles that is asked for; 0 boots where nothing asks.
	Profile int
	// Partitions is what the firmware measures of the disk's partition table, bootdisk.Disk.Partitions. Without it PCR 5 is
	// not computed.
	Partitions []byte
}

// PCRs returns the registers of a TPM after a boot from the disk, before the guest extends any: those of a direct boot but the
// ones that Unknown names. They are exact as long as nothing but the image speaks to the stub. What the host adds shows in them: text
// by SMBIOS or an add-on in 9 and 12, credentials in 9 and 12, extensions in 9 and 13.
func (b DiskBoot) PCRs() (register.PCRs, error) {
	events, err := b.Events()
	if err != nil {
		return nil, err
	}
	unknown, err := b.Unknown()
	if err != nil {
		return nil, err
	}
	pcrs := replay256(events, fixedPCRs...)
	for index := range unknown {
		delete(pcrs, index)
	}
	return pcrs, nil
}

// Unknown names the registers that do not follow from the image, each with what decides over it.
func (b DiskBoot) Unknown() (map[uint8]string, error) {
	image, err := uki.Read(b.UKI, b.Profile)
	if err != nil {
		return nil, fmt.Errorf("measuring unified kernel image: %v", err)
	}
	unknown := image.Unknown()
	if b.Partitions == nil {
		unknown[5] = "the disk's partition table, and no disk was given"
	}
	return unknown, nil
}

// Events returns what firmware, stub and kernel extend into those registers, in order within each. Of a register that Unknown names
// there are none.
func (b DiskBoot) Events() ([]PCREvent, error) {
	firmware, build, err := firmwareEvents(b.Firmware, b.Build)
	if err != nil {
		return nil, fmt.Errorf("measuring firmware: %v", err)
	}
	boot, err := b.ImageEvents()
	if err != nil {
		return nil, err
	}
	return slices.Concat(commonEvents(firmware, build), boot), nil
}

// imagePCRs are the registers that follow from a unified kernel image, whatever firmware of EDK2 boots it.
var imagePCRs = []uint8{4, 9, 11, 12}

// ImageEvents returns those of Events that do not follow from the firmware's build: of PCR 4, 9, 11 and 12, and with Partitions of PCR 5.
func (b DiskBoot) ImageEvents() ([]PCREvent, error) {
	stub, err := uki.Read(b.UKI, b.Profile)
	if err != nil {
		return nil, fmt.Errorf("measuring unified kernel image: %v", err)
	}
	image, kernel := sha256.New(), sha256.New()
	if err := pe.WriteHash(image, b.UKI); err != nil {
		return nil, fmt.Errorf("measuring unified kernel image: %v", err)
	}
	if err := pe.WriteHash(kernel, stub.Section(".linux")); err != nil {
		return nil, fmt.Errorf("measuring kernel in unified kernel image: %v", err)
	}
	cmdline := string(stub.Section(".cmdline"))
	if err := checkCmdline(cmdline); err != nil {
		return nil, fmt.Errorf("measuring command line: %v", err)
	}
	boot := loadedImages([32]byte(image.Sum(nil)), [32]byte(kernel.Sum(nil)), stub.LoadsKernel())
	if b.Partitions != nil {
		boot = append(boot, events256(5, separator, part{InputPartitions, "", b.Partitions}, exitBootServices, exitedBootServices)...)
	}
	for _, s := range stub.Measured() {
		boot = append(boot, events256(11, part{InputSection, s.Name, s.Data})...)
	}
	if number := stub.ProfileNumber(); number != nil {
		boot = append(boot, events256(12, part{InputProfile, "", number})...)
	}
	boot = append(boot, linuxEvents(sha256.Sum256(utf16z(cmdline)), sha256.Sum256(stub.Initrd()))...)
	unknown := stub.Unknown()
	return slices.DeleteFunc(boot, func(e PCREvent) bool { return unknown[e.Register] != "" }), nil
}

// ImagePCRs returns the registers that follow from the image alone, but those that Unknown names.
func (b DiskBoot) ImagePCRs() (register.PCRs, error) {
	events, err := b.ImageEvents()
	if err != nil {
		return nil, err
	}
	unknown, err := b.Unknown()
	if err != nil {
		return nil, err
	}
	pcrs := replay256(events, imagePCRs...)
	for index := range unknown {
		delete(pcrs, index)
	}
	return pcrs, nil
}

// loadedImages are the events of PCR 4. The firmware extends an image when it loads it: the disk's after it has said that it will, and
// the kernel in it where the stub has the firmware load that.
func loadedImages(image, kernel [32]byte, loadsKernel bool) []PCREvent {
	events := append(events256(4, callingApplication, separator), PCREvent{4, InputUKI, "", image})
	if loadsKernel {
		events = append(events, PCREvent{4, InputKernel, "", kernel})
	}
	return events
}
