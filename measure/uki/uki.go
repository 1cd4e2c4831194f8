// Package uki reads unified kernel images (UAPI.5) as systemd's stub does: which sections it takes for a profile, what it extends of
// them into PCR 11, and the initrd that it hands to the kernel.
//
//	image, err := uki.Read(file, 0)
//	for _, p := range image.Measured() { … }
//
// The stub's version decides over all of that, and the image says which one it carries. What follows from more than the image is
// named by Unknown and not computed. Sources: systemd 252 to 262, src/fundamental/uki.h, src/boot/stub.c, pe.c and cpio.c; what they
// do was compared with boots (testdata/boots.json).
package uki

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"unicode/utf16"

	"chrysalis/measure/pe"
)

// MaxProfiles bounds the profiles of an image, as the stub does.
const MaxProfiles = 256

// Image is an image as the stub takes it for one profile.
type Image struct {
	Stub     Stub
	Profile  int
	Profiles int // how many the image has; one without a section .profile has 1

	sections map[string][]byte
	skipped  []string
}

// Section is what the stub measures of a section: its name, or its contents.
type Section struct {
	Name string
	Data []byte
}

// Stub is the version of systemd's stub, by the image's own word, which the image hash covers.
type Stub struct {
	Text  string // such as 257.13-1~deb13u1; empty where the image does not say
	Major int    // such as 257; 0 where the image does not say
}

func (s Stub) String() string {
	if s.Major == 0 {
		return "of no version"
	}
	return "systemd-stub " + s.Text
}

// unified is a section that the stub acts on.
type unified struct {
	name  string
	since int
}

// order is that of PCR 11. since is the first version that measures the section: systemd's NEWS, and src/fundamental/uki.h. A stub of
// no version is taken for one of all: then only sections are accepted that each version measures alike.
var order = []unified{
	{".linux", oldest}, {".osrel", oldest}, {".cmdline", oldest}, {".initrd", oldest}, {".ucode", 256}, {".splash", oldest}, {".dtb", oldest},
	{".uname", 253}, {".sbat", 253}, {".pcrsig", oldest}, {".pcrpkey", oldest}, {".profile", 257}, {".dtbauto", 257}, {".hwids", 257},
	{".efifw", 258},
}

// The versions of the stub that were read and booted.
const (
	oldest = 252
	newest = 262
)

// unversioned are the sections that are taken from an image that does not say which stub it has.
var unversioned = []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"}

// code are those of the stub itself, which only the image's hash covers.
var code = []string{".text", ".rodata", ".data", ".reloc", ".sdmagic", ".rdata", ".dynamic", ".rela", ".dynsym"}

// chosen are the sections that the stub takes where .hwids names the machine that it runs on, one of several. No machine of QEMU
// is named by the lists that distributions ship, and one that is has another PCR 11.
var chosen = []string{".dtbauto", ".efifw"}

// signature is measured nowhere but in the initrd: it signs what is measured.
const signature = ".pcrsig"

var magic = regexp.MustCompile(`^#### LoaderInfo: systemd-stub (([0-9]{3})[!-~]*) ####\x00*$`)

// Read reads an image for a profile, 0 being the one that boots where nothing asks for another. It refuses one with a section that
// its stub would act on and this package can't account for, and a stub that is older or newer than those known.
func Read(file []byte, profile int) (Image, error) {
	parsed, err := pe.Parse(file)
	if err != nil {
		return Image{}, err
	}
	i := Image{Profile: profile, sections: map[string][]byte{}}
	if i.Stub, err = stubOf(parsed.Sections); err != nil {
		return Image{}, err
	}
	parts := profiles(parsed.Sections)
	if i.Profiles = max(1, len(parts)-1); i.Profiles > MaxProfiles {
		return Image{}, fmt.Errorf("%d profiles, want at most %d", i.Profiles, MaxProfiles)
	}
	if profile < 0 || profile >= i.Profiles {
		return Image{}, fmt.Errorf("no profile %d, the image has %d", profile, i.Profiles)
	}
	taken := parts[:1]
	if len(parts) > 1 {
		taken = append(slices.Clone(taken), parts[1+profile])
	}
	for _, part := range parts {
		if err := i.known(part); err != nil {
			return Image{}, err
		}
	}
	for _, part := range taken { // a profile's sections stand in for those of all
		if err := i.take(part); err != nil {
			return Image{}, err
		}
	}
	for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd"} {
		if len(i.sections[name]) == 0 {
			return Image{}, fmt.Errorf("no section %s", name)
		}
	}
	return i, nil
}

// stubOf reads the version out of the section that the stub has for that.
func stubOf(sections []pe.Section) (Stub, error) {
	at := slices.IndexFunc(sections, func(s pe.Section) bool { return s.Name == ".sdmagic" })
	if at < 0 {
		return Stub{}, nil
	}
	found := magic.FindSubmatch(sections[at].Data)
	if found == nil {
		return Stub{}, fmt.Errorf("section .sdmagic is %.100q, want systemd's stub and its version", sections[at].Data)
	}
	s := Stub{Text: string(found[1])}
	s.Major, _ = strconv.Atoi(string(found[2])) // three digits
	if s.Major < oldest || s.Major > newest {
		return Stub{}, fmt.Errorf("%v, want one of %d to %d, the newest that this build knows", s, oldest, newest)
	}
	return s, nil
}

// profiles cuts the sections into those before the first .profile and those of each profile.
func profiles(sections []pe.Section) [][]pe.Section {
	var parts [][]pe.Section
	start := 0
	for at, s := range sections {
		if s.Name == ".profile" {
			parts, start = append(parts, sections[start:at]), at
		}
	}
	return append(parts, sections[start:])
}

// known refuses a section that is none of the stub's.
func (i Image) known(sections []pe.Section) error {
	for _, s := range sections {
		at := slices.IndexFunc(order, func(o unified) bool { return o.name == s.Name })
		switch {
		case slices.Contains(code, s.Name):
		case i.Stub.Major == 0 && !slices.Contains(unversioned, s.Name):
			return fmt.Errorf("section %q in an image that does not say which stub it has, want those of %q and %q", s.Name, unversioned, code)
		case at < 0:
			return fmt.Errorf("section %q, want those that %v knows and %q", s.Name, i.Stub, code)
		}
	}
	return nil
}

// take adds the sections of one part. The stub passes over one that has no size in memory, and takes the others as they lie there.
func (i *Image) take(sections []pe.Section) error {
	seen := map[string]bool{}
	for _, s := range sections {
		if slices.Contains(chosen, s.Name) {
			i.skipped = append(i.skipped, s.Name)
			continue
		}
		if seen[s.Name] {
			return fmt.Errorf("section %s stands there twice", s.Name)
		}
		seen[s.Name] = true
		if s.Size == 0 || slices.Contains(code, s.Name) {
			continue
		}
		var err error
		if i.sections[s.Name], err = s.Memory(); err != nil {
			return err
		}
	}
	return nil
}

// Section returns the contents of a section that the stub takes, or nil.
func (i Image) Section(name string) []byte { return i.sections[name] }

// Skipped names the sections that the stub takes on another machine alone, one that the image's .hwids names: a device tree or a
// firmware of the machine's own.
func (i Image) Skipped() []string { return slices.Compact(slices.Sorted(slices.Values(i.skipped))) }

// Measured returns, in order, what the stub extends into PCR 11: of each section its name, as text with a NUL, and its contents.
// Later userspace extends its phases there.
func (i Image) Measured() (all []Section) {
	for _, o := range order {
		data, there := i.sections[o.name]
		if !there || o.name == signature || !i.measures(o.name) {
			continue
		}
		all = append(all, Section{"name of " + o.name, []byte(o.name + "\x00")}, Section{o.name, data})
	}
	return all
}

// measures reports whether the image's stub knows the section.
func (i Image) measures(name string) bool {
	at := slices.IndexFunc(order, func(o unified) bool { return o.name == name })
	return i.Stub.Major == 0 || order[at].since <= i.Stub.Major
}

// ProfileNumber returns what the stub extends into PCR 12 of a profile that was asked for: its number, in UTF-16 with a NUL. Of the
// first it extends nothing.
func (i Image) ProfileNumber() (b []byte) {
	if i.Profile == 0 {
		return nil
	}
	for _, c := range utf16.Encode([]rune(strconv.Itoa(i.Profile) + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// LoadsKernel reports whether the stub has the firmware load the kernel, which extends the kernel's hash into PCR 4 too. Newer ones
// lay it into memory themselves where Secure Boot is off.
func (i Image) LoadsKernel() bool { return i.Stub.Major < ownLoader }

const (
	ownLoader   = 258 // lays the kernel into memory itself
	hidesInputs = 258 // the first of those that may take more for the kernel than the image
)

// booted are the versions of which a boot was compared. Of the others PCR 11 alone is said to be known, which follows from the list of
// sections.
var booted = []int{0, 252, 254, 257, 262}

// Unknown names the registers that do not follow from the image, and what decides over each.
func (i Image) Unknown() map[uint8]string {
	unknown := map[uint8]string{}
	if !slices.Contains(booted, i.Stub.Major) {
		reason := fmt.Sprintf("what %v does beyond PCR 11: no boot of it was compared", i.Stub)
		unknown[4], unknown[9] = reason, reason
	}
	if i.Stub.Major >= hidesInputs {
		unknown[9] = "a boot secret, which " + i.Stub.String() + " draws from the machine's random numbers, keeps in a variable of the firmware and hands " +
			"to the kernel in the initrd, and a console that it adds to a command line without one"
	}
	return unknown
}
