package acpi

import (
	"cmp"
	"fmt"
	"slices"

	"chrysalis/measure"
)

const gib = 1 << 30

// window returns where OVMF puts the 64-bit window of PCI devices. Source: EDK2, OvmfPkg/Library/PlatformInitLib/MemDetect.c,
// PlatformAddressWidthInitialization and what it calls.
func window(memory []measure.MapEntry, vendor string, physBits int) uint64 {
	const smallest = 32 * gib // PcdPciMmio64Size
	end := uint64(4 * gib)
	for _, e := range memory {
		if e.Memory {
			end = max(end, e.Start+e.Length)
		}
	}
	classic := alignUp(end, smallest)
	// 40 bits and fewer are QEMU's habit to say, and are believed of known processors alone.
	known := physBits > 40 || vendor == measure.VendorIntel && (physBits == 36 || physBits == 39) ||
		vendor == measure.VendorAMD && physBits == 40
	if !known {
		return classic
	}
	physBits = min(physBits, 46)
	space, size := uint64(1)<<physBits, uint64(1)<<(physBits-3)
	if smallest >= size || classic+size >= space {
		return classic
	}
	base := space - size
	for _, e := range memory {
		if start, end := max(e.Start, base), min(e.Start+e.Length, base+size); start < end {
			base = (e.Start - size) &^ (size - 1)
		}
	}
	return base
}

func alignUp(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }

// Registers of q35 that OVMF programs and whose values QEMU writes into tables. Sources: OVMF's
// Include/IndustryStandard/Q35MchIch9.h and the FixedPcds of its .dsc files.
const (
	pciAddress, pciData = 0xcf8, 0xcfc

	hostBridge   = 0x00 << 3
	pciexbar     = 0x60 // address of the PCI configuration space, with bit 0 to enable it
	pciexAddress = 0xe0000000

	lpcBridge  = 0x1f << 3
	pmBase     = 0x40 // I/O port of power management, with bit 0 that says it is one
	pmPort     = 0x600
	acpiCntl   = 0x44
	acpiEnable = 0x80
)

func (m *machine) config(function, register uint32) (uint32, error) {
	if err := m.port.Out32(pciAddress, 1<<31|function<<8|register); err != nil {
		return 0, err
	}
	return m.port.In32(pciData)
}

func (m *machine) setConfig(function, register, value uint32) error {
	if err := m.port.Out32(pciAddress, 1<<31|function<<8|register); err != nil {
		return err
	}
	return m.port.Out32(pciData, value)
}

// bar is a 64-bit prefetchable window of a device, the kind that OVMF puts above 4 GiB.
type bar struct {
	function, register uint32
	size               uint64
}

// programPCI gives bus 0 the addresses that OVMF gives it, as far as the tables show them.
func (m *machine) programPCI(window uint64) error {
	for _, r := range []struct{ function, register, value uint32 }{
		{hostBridge, pciexbar, pciexAddress | 1}, {hostBridge, pciexbar + 4, 0},
		{lpcBridge, pmBase, pmPort | 1}, {lpcBridge, acpiCntl, acpiEnable},
	} {
		if err := m.setConfig(r.function, r.register, r.value); err != nil {
			return err
		}
	}
	var bars []bar
	for device := range uint32(32) {
		for number := range uint32(8) {
			function := device<<3 | number
			id, err := m.config(function, 0)
			if err != nil {
				return err
			}
			if id == 0xffffffff {
				if number == 0 {
					break
				}
				continue
			}
			header, err := m.config(function, 0xc)
			if err != nil {
				return err
			}
			if kind := header >> 16 & 0x7f; kind != 0 {
				return fmt.Errorf("device %d.%d is of header type %d, want no bridges", device, number, kind)
			}
			found, err := m.bars(function)
			if err != nil {
				return err
			}
			bars = append(bars, found...)
			if number == 0 && header>>23&1 == 0 {
				break
			}
		}
	}
	return m.place(bars, window)
}

// bars returns the function's windows. It leaves all ones in them, which place overwrites.
func (m *machine) bars(function uint32) (bars []bar, err error) {
	const first, count = 0x10, 6
	for i := uint32(0); i < count; i++ {
		register := first + 4*i
		if err := m.setConfig(function, register, 0xffffffff); err != nil {
			return nil, err
		}
		low, err := m.config(function, register)
		if err != nil {
			return nil, err
		}
		if low&1 != 0 || low&4 == 0 {
			if err := m.setConfig(function, register, 0); err != nil {
				return nil, err
			}
			continue
		}
		i++
		if err := m.setConfig(function, register+4, 0xffffffff); err != nil {
			return nil, err
		}
		high, err := m.config(function, register+4)
		if err != nil {
			return nil, err
		}
		if low&8 == 0 {
			return nil, fmt.Errorf("function %#x has a 64-bit window that is not prefetchable", function)
		}
		bars = append(bars, bar{function, register, -(uint64(high)<<32 | uint64(low)&^0xf)})
	}
	return bars, nil
}

// place puts the windows one after the other, the largest first, and lets the devices answer there.
func (m *machine) place(bars []bar, at uint64) error {
	slices.SortStableFunc(bars, func(a, b bar) int { return cmp.Compare(b.size, a.size) })
	for _, b := range bars {
		at = alignUp(at, b.size)
		if err := m.setConfig(b.function, b.register, uint32(at)); err != nil {
			return err
		}
		if err := m.setConfig(b.function, b.register+4, uint32(at>>32)); err != nil {
			return err
		}
		const command, memory = 0x4, 1 << 1
		if err := m.setConfig(b.function, command, memory); err != nil {
			return err
		}
		at += b.size
	}
	return nil
}
