package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	if err := authenticode(b.UKI, image); err != nil {
		return nil, fmt.Errorf("measuring unified kernel image: %v", err)
	}
	if err := authenticode(sections[".linux"], kernel); err != nil {
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

// stubSections are the sections that systemd's stub extends into PCR 11, in its order, of those that an image here may
// have. systemd 257, src/fundamental/uki.h.
var stubSections = []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"}

// codeSections are those of the stub itself, which only the image's hash covers.
var codeSections = []string{".text", ".rodata", ".data", ".reloc", ".sdmagic"}

// stubParts returns the name of each section, as text with a NUL, and its contents.
func stubParts(sections map[string][]byte) (parts []part) {
	for _, name := range stubSections {
		if data, ok := sections[name]; ok {
			parts = append(parts, part{InputSection, "name of " + name, []byte(name + "\x00")}, part{InputSection, name, data})
		}
	}
	return parts
}

// ukiSections returns the sections of a unified kernel image by name. It refuses one with a section that the stub would
// act on and this package can't account for, such as a device tree or a profile.
func ukiSections(image []byte) (map[string][]byte, error) {
	if _, err := parsePE(image); err != nil { // bounds everything that is read below
		return nil, err
	}
	le := binary.LittleEndian
	coff := int(le.Uint32(image[0x3c:]))
	count, table := int(le.Uint16(image[coff+6:])), coff+24+int(le.Uint16(image[coff+20:]))
	sections := map[string][]byte{}
	for i := range count {
		h := image[table+40*i:]
		name := string(bytes.TrimRight(h[:8], "\x00"))
		size, raw, at := le.Uint32(h[8:]), le.Uint32(h[16:]), le.Uint32(h[20:])
		if !slices.Contains(stubSections, name) && !slices.Contains(codeSections, name) {
			return nil, fmt.Errorf("section %q, want those of %q and %q", name, stubSections, codeSections)
		}
		if _, twice := sections[name]; twice {
			return nil, fmt.Errorf("section %s stands there twice", name)
		}
		if raw == 0 {
			sections[name] = nil
			continue
		}
		sections[name] = image[at : at+min(size, raw)]
	}
	for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd"} {
		if len(sections[name]) == 0 {
			return nil, fmt.Errorf("no section %s", name)
		}
	}
	return sections, nil
}

// stubInitrd returns the initrd as the stub hands it to the kernel, which measures it: the image's, and after it an archive
// of the stub's own that holds the image's os-release. systemd 257, src/boot/cpio.c.
func stubInitrd(initrd, osRelease []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	out := pad(bytes.Clone(initrd))
	for i, f := range []struct {
		mode uint32
		name string
		data []byte
	}{{0o040555, ".extra", nil}, {0o100444, ".extra/os-release", osRelease}} {
		out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%s%08x%08x%s\x00", i+1, f.mode, 0, 0, 1, 0, len(f.data), strings.Repeat("0", 32), len(f.name)+1, 0, f.name)
		out = pad(append(pad(out), f.data...))
	}
	return append(out, "070701"+strings.Repeat("0", 32)+"00000001"+strings.Repeat("0", 48)+"0000000B00000000TRAILER!!!\x00\x00\x00\x00"...)
}

// checkCmdline refuses a command line that would not reach the kernel as it is.
func checkCmdline(cmdline string) error {
	if len(cmdline) > maxCmdline {
		return fmt.Errorf("%d bytes, want at most %d", len(cmdline), maxCmdline)
	}
	for i := range len(cmdline) {
		if c := cmdline[i]; c < ' ' || c > '~' {
			return fmt.Errorf("byte %d is %#x, want printable ASCII", i, c)
		}
	}
	if strings.TrimSpace(cmdline) != cmdline {
		return errors.New("white space at an end: tools on the way to the kernel would drop it")
	}
	return nil
}
