package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"chrysalis/measure/register"
	"chrysalis/measure/tdvf"
)

// Tables holds what a hypervisor hands the firmware of one shape of machine: ACPI tables, as a script and the files that it
// names, and settings. QEMU makes them anew for each shape; tools ask QEMU itself, never a guest's log.
type Tables struct {
	Loader   []byte            // the script, QEMU's fw_cfg file etc/table-loader
	Files    map[string][]byte // by the name in fw_cfg
	Settings map[string][]byte // the files of SettingNames that there are
}

// Names of the settings.
const (
	MemoryMap = "etc/e820"
	BootMenu  = "BootMenu" // has a number in fw_cfg (0x0e) and no name
)

// tdxSettings are what the firmware of a TDX guest measures before it believes it, in its order, with the size that it
// insists on. Source: EDK2, OvmfPkg/Library/QemuFwCfgLib/QemuFwCfgCacheInit.c.
var tdxSettings = []struct {
	name string
	size int // 0: any
}{
	{"etc/extra-pci-roots", 8}, {BootMenu, 2}, {"etc/boot-menu-wait", 2}, {"etc/reserved-memory-end", 8}, {"opt/ovmf/X-PciMmio64Mb", 0},
	{"bootorder", 0},
}

// SettingNames returns the names of the settings that firmware goes by or measures.
func SettingNames() []string {
	names := []string{MemoryMap, SMBIOSTables}
	for _, s := range tdxSettings {
		names = append(names, s.name)
	}
	return names
}

// LoaderFile is the script's name in fw_cfg.
const LoaderFile = "etc/table-loader"

// The script is made of entries of fixed size: command, then its operands. Source: QEMU, hw/acpi/bios-linker-loader.c.
const (
	loaderEntry    = 128
	loaderName     = 56 // bytes of a file's name
	loaderAllocate = 1

	maxLoaderBytes = 64 << 10
	// MaxACPIFileBytes bounds each file: QEMU's tables are 128 KiB, and grow with the number of CPUs.
	MaxACPIFileBytes = 8 << 20
)

// LoaderFiles returns the names of the files that a script asks the firmware to load, in order.
func LoaderFiles(loader []byte) ([]string, error) {
	if len(loader) == 0 || len(loader) > maxLoaderBytes || len(loader)%loaderEntry != 0 {
		return nil, fmt.Errorf("reading ACPI loader: %d bytes, want entries of %d, at most %d bytes", len(loader), loaderEntry, maxLoaderBytes)
	}
	var names []string
	for at := 0; at < len(loader); at += loaderEntry {
		entry := loader[at : at+loaderEntry]
		if binary.LittleEndian.Uint32(entry) != loaderAllocate {
			continue
		}
		name, rest, ok := bytes.Cut(entry[4:4+loaderName], []byte{0})
		if !ok || len(name) == 0 || len(bytes.Trim(rest, "\x00")) > 0 {
			return nil, fmt.Errorf("reading ACPI loader: entry %d has the name %q, want one with zeros after it", at/loaderEntry,
				entry[4:4+loaderName])
		}
		if slices.Contains(names, string(name)) {
			return nil, fmt.Errorf("reading ACPI loader: %q is loaded twice", name)
		}
		names = append(names, string(name))
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("reading ACPI loader: %d entries load no file", len(loader)/loaderEntry)
	}
	return names, nil
}

// measured returns what the firmware measures, in its order: the script, then each file as the script loads it.
func (a Tables) measured() ([]part, error) {
	names, err := LoaderFiles(a.Loader)
	if err != nil {
		return nil, err
	}
	parts := []part{{InputACPI, LoaderFile, a.Loader}}
	for _, name := range names {
		file, ok := a.Files[name]
		if !ok || len(file) == 0 || len(file) > MaxACPIFileBytes {
			return nil, fmt.Errorf("measuring ACPI: file %s has %d bytes, want 1 to %d", name, len(file), MaxACPIFileBytes)
		}
		parts = append(parts, part{InputACPI, name, file})
	}
	if len(names) != len(a.Files) {
		return nil, fmt.Errorf("measuring ACPI: %d files, want the %d that the script loads", len(a.Files), len(names))
	}
	return parts, nil
}

// tdxSettings returns the settings that the firmware of a TDX guest measures.
func (a Tables) tdxSettings() (parts []part, err error) {
	for _, s := range tdxSettings {
		data := a.Settings[s.name]
		if s.size != 0 && len(data) != s.size {
			if s.name == BootMenu {
				return nil, fmt.Errorf("setting %s has %d bytes, want %d", s.name, len(data), s.size)
			}
			continue
		}
		if len(data) > 0 {
			parts = append(parts, part{InputSetting, s.name, data})
		}
	}
	return parts, nil
}

// Kinds of a range in the memory map.
const (
	e820Bytes    = 20
	e820Memory   = 1
	e820Reserved = 2
	maxE820      = 128
)

// MapEntry is a range of the memory map that QEMU hands the firmware.
type MapEntry struct {
	tdvf.Range
	Memory bool // memory, or reserved
}

// ParseMemoryMap reads the setting MemoryMap: start, length and kind of each range.
func ParseMemoryMap(b []byte) ([]MapEntry, error) {
	if len(b) == 0 || len(b)%e820Bytes != 0 || len(b) > maxE820*e820Bytes {
		return nil, fmt.Errorf("reading memory map: %d bytes, want entries of %d, at most %d", len(b), e820Bytes, maxE820)
	}
	var entries []MapEntry
	for ; len(b) > 0; b = b[e820Bytes:] {
		le := binary.LittleEndian
		e := MapEntry{tdvf.Range{Start: le.Uint64(b), Length: le.Uint64(b[8:])}, le.Uint32(b[16:]) == e820Memory}
		if kind := le.Uint32(b[16:]); e.Length == 0 || e.Start+e.Length < e.Start || kind != e820Memory && kind != e820Reserved {
			return nil, fmt.Errorf("reading memory map: %#x bytes of kind %d at %#x, want memory or reserved", e.Length, kind, e.Start)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Memory returns the ranges of memory in the machine's map.
func (a Tables) Memory() ([]tdvf.Range, error) {
	entries, err := ParseMemoryMap(a.Settings[MemoryMap])
	if err != nil {
		return nil, err
	}
	var memory []tdvf.Range
	for _, e := range entries {
		if e.Memory {
			memory = append(memory, e.Range)
		}
	}
	return memory, nil
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
