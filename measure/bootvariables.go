package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"chrysalis/measure/tdvf"
)

// GUIDs of EDK2: OVMF's DXE volume; MdeModulePkg's UiApp and BootManagerMenuApp and ShellPkg's Shell in it; and mBmAutoCreateBootOptionGuid of
// MdeModulePkg/Library/UefiBootManagerLib, which marks the options that the firmware makes for the devices it finds.
var (
	dxeVolume     = tdvf.ParseGUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1")
	uiApp         = tdvf.ParseGUID("462caa21-7614-4503-836e-8ab6f4662331")
	menuApp       = tdvf.ParseGUID("eec25bdc-67f2-4d95-b1d5-f81b2039d11d")
	internalShell = tdvf.ParseGUID("7c04a583-9e3e-4f1c-ad65-e05268d0b4d1")
	autoCreated   = tdvf.ParseGUID("8108ac4e-9f11-4d59-850e-e21a522c59b2")
)

// Attributes of a boot option: UEFI 2.10, section 3.1.3.
const (
	optionActive      = 0x1
	optionHidden      = 0x8
	optionApplication = 0x100
)

// bootVariables returns the contents of BootOrder and Boot0000 of OVMF with an empty variable store when it starts the
// kernel that QEMU hands over: the menu is the one boot option, and no other is looked for.
func bootVariables() []part { return []part{bootOrder(0), bootMenu()} }

// plainBootVariables are those of a firmware without UiApp, which has a plainer menu.
func plainBootVariables() []part {
	return []part{bootOrder(0), {InputBootVariables, "Boot0000",
		loadOption(optionActive|optionHidden|optionApplication, "BootManagerMenuApp", firmwareFile(menuApp))}}
}

// diskVariables returns those where QEMU's boot order names one disk: Boot0001 is that disk, the only device that the
// firmware connects, Boot0000 its menu, Boot0002 its shell.
func diskVariables(s Shape) ([]part, error) {
	slot, err := s.bootDisk()
	if err != nil {
		return nil, err
	}
	// UEFI 2.10, section 10.3: an ACPI node for the root bridge (PNP0A03, number 0), a PCI node (function, device), the end.
	disk := []byte{2, 1, 12, 0, 0xd0, 0x41, 0x03, 0x0a, 0, 0, 0, 0, 1, 1, 6, 0, 0, slot, 0x7f, 0xff, 4, 0}
	return []part{
		bootOrder(1, 0, 2),
		{InputBootVariables, "Boot0001", append(loadOption(optionActive, "UEFI Misc Device", disk), autoCreated[:]...)},
		bootMenu(),
		{InputBootVariables, "Boot0002", loadOption(optionActive, "EFI Internal Shell", firmwareFile(internalShell))},
	}, nil
}

func bootOrder(numbers ...uint16) part {
	var order []byte
	for _, n := range numbers {
		order = binary.LittleEndian.AppendUint16(order, n)
	}
	return part{InputBootVariables, "BootOrder", order}
}

func bootMenu() part {
	return part{InputBootVariables, "Boot0000", loadOption(optionActive|optionHidden|optionApplication, "UiApp", firmwareFile(uiApp))}
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
