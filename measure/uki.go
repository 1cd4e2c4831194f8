package measure

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"chrysalis/measure/pe"
)

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
	parsed, err := pe.Parse(image)
	if err != nil {
		return nil, err
	}
	sections := map[string][]byte{}
	for _, s := range parsed.Sections {
		if !slices.Contains(stubSections, s.Name) && !slices.Contains(codeSections, s.Name) {
			return nil, fmt.Errorf("section %q, want those of %q and %q", s.Name, stubSections, codeSections)
		}
		if _, twice := sections[s.Name]; twice {
			return nil, fmt.Errorf("section %s stands there twice", s.Name)
		}
		// The stub passes over a section that has no size in memory, and takes the others as they lie there.
		if s.Size == 0 {
			continue
		}
		if sections[s.Name], err = s.Memory(); err != nil {
			return nil, err
		}
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
		out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%s%08x%08x%s\x00", i+1, f.mode, 0, 0, 1, 0, len(f.data),
			strings.Repeat("0", 32), len(f.name)+1, 0, f.name)
		out = pad(append(pad(out), f.data...))
	}
	return append(out, "070701"+strings.Repeat("0", 32)+"00000001"+strings.Repeat("0", 48)+"0000000B00000000TRAILER!!!\x00\x00\x00\x00"...)
}
