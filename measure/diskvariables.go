package measure

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/tdvf"
)

// internalShell and autoCreated are EDK2's: ShellPkg/Application/Shell, and mBmAutoCreateBootOptionGuid of
// MdeModulePkg/Library/UefiBootManagerLib, which marks the options that the firmware makes for the devices it finds.
var (
	internalShell = tdvf.ParseGUID("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1")
	autoCreated   = tdvf.ParseGUID("8108ac4e-9f11-4d59-850e-e21a522c59b2")
)

// DiskPCR1 returns PCR 1 of a boot from the shape's boot disk: the tables, and the boot options that the firmware makes.
func (a Tables) DiskPCR1(s Shape) (config.Digest, error) {
	blobs, err := a.measured()
	if err != nil {
		return config.Digest{}, err
	}
	variables, err := diskVariables(s)
	if err != nil {
		return config.Digest{}, fmt.Errorf("measuring boot options: %v", err)
	}
	var digests [][32]byte
	for _, b := range slices.Concat(blobs, variables, [][]byte{eventlog.SeparatorData()}) {
		digests = append(digests, sha256.Sum256(b))
	}
	return extend(digests...), nil
}

// diskVariables returns what the firmware measures of BootOrder and of the options in it, in their order, where QEMU's boot
// order names one disk: Boot0001 is that disk, the only device that the firmware connects, Boot0000 its own menu, Boot0002
// its shell.
func diskVariables(s Shape) ([][]byte, error) {
	slot, err := s.bootDisk()
	if err != nil {
		return nil, err
	}
	const active, hidden, application = 0x1, 0x8, 0x100 // UEFI 2.10, section 3.1.3
	// UEFI 2.10, section 10.3: an ACPI node for the root bridge (PNP0A03, number 0), a PCI node (function, device), the end.
	disk := []byte{2, 1, 12, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, slot, 0x7f, 0xff, 4, 0}
	return [][]byte{
		{1, 0, 0, 0, 2, 0},
		append(loadOption(active, "UEFI Misc Device", disk), autoCreated[:]...),
		loadOption(active|hidden|application, "UiApp", firmwareFile(uiApp)),
		loadOption(active, "EFI Internal Shell", firmwareFile(internalShell)),
	}, nil
}

// loadOption returns an EFI_LOAD_OPTION without data.
func loadOption(attributes uint32, description string, path []byte) []byte {
	option := binary.LittleEndian.AppendUint32(nil, attributes)
	option = binary.LittleEndian.AppendUint16(option, uint16(len(path)))
	return slices.Concat(option, utf16z(description), path)
}

// firmwareFile returns the path of a program in the firmware's own volume.
func firmwareFile(file [16]byte) []byte {
	path := append([]byte{4, 7, 20, 0}, dxeVolume[:]...)
	path = append(append(path, 4, 6, 20, 0), file[:]...)
	return append(path, 0x7f, 0xff, 4, 0)
}

// notPCI are the devices of a shape that take no place on the PCI bus.
var notPCI = []string{"tpm-crb", "virtserialport"}

// bootDisk returns the number of the PCI device that the shape boots from. QEMU gives PCI devices the numbers from 1 on, in
// their order.
func (s Shape) bootDisk() (slot uint8, err error) {
	next := uint8(1)
	for _, d := range s.Devices {
		kind, properties, _ := strings.Cut(d, ",")
		if slices.Contains(notPCI, kind) {
			continue
		}
		boots := false
		for _, p := range strings.Split(properties, ",") {
			name, _, _ := strings.Cut(p, "=")
			switch name {
			case "addr", "bus", "multifunction":
				return 0, fmt.Errorf("device is %.300q, want no place of its own on the bus", d)
			case "bootindex":
				boots = true
			}
		}
		if boots {
			if slot != 0 || kind != "virtio-blk-pci" {
				return 0, fmt.Errorf("device %.300q has a boot index, want one virtio-blk-pci alone to have one", d)
			}
			slot = next
		}
		next++
	}
	if len(s.GPUs) > 0 {
		return 0, fmt.Errorf("shape has %d GPUs, want none", len(s.GPUs))
	}
	if slot == 0 {
		return 0, errors.New("no device has a boot index")
	}
	return slot, nil
}
