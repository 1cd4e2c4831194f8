package uki

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"chrysalis/measure/pe/petest"
	"chrysalis/measure/register"
)

// extend is a PCR's: SHA-256(value, digest).
func extend(value register.Digest, digest [32]byte) register.Digest {
	return sha256.Sum256(append(value[:], digest[:]...))
}

// pcr11 is what the sections make of it.
func pcr11(i Image) (value register.Digest) {
	for _, s := range i.Measured() {
		value = extend(value, sha256.Sum256(s.Data))
	}
	return value
}

// withStub writes the version into the image's first section.
func withStub(image []byte, version string) []byte {
	petest.Put(image, 0, []byte("#### LoaderInfo: systemd-stub "+version+" ####"))
	return image
}

func TestReadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		image []byte
		want  string
	}{
		{"no image", []byte("MZ"), "without an MZ header"},
		{"no kernel", petest.Image(".text", ".osrel", ".cmdline", ".initrd"), "no section .linux"},
		{"no command line", petest.Image(".text", ".osrel", ".initrd", ".linux"), "no section .cmdline"},
		{"a profile", petest.Image(".osrel", ".cmdline", ".initrd", ".profile", ".linux"), `section ".profile"`},
		{"a device tree", petest.Image(".osrel", ".cmdline", ".initrd", ".dtb", ".linux"), `section ".dtb"`},
		{"two kernels", petest.Image(".osrel", ".cmdline", ".initrd", ".linux", ".linux"), "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Read(tt.image, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
	whole, err := Read(petest.Image(".text", ".osrel", ".cmdline", ".initrd", ".linux"), 0)
	if err != nil || len(whole.Section(".osrel")) != 0x180 {
		t.Errorf("a whole image: got %d bytes of .osrel (%v), want %d", len(whole.Section(".osrel")), err, 0x180)
	}
}

// TestStubDigests: the order is the stub's, whatever the image's, and a section that is not there does not count.
func TestMeasured(t *testing.T) {
	image, err := Read(petest.Image(".sbat", ".initrd", ".cmdline", ".osrel", ".linux"), 0)
	if err != nil {
		t.Fatal(err)
	}
	var want register.Digest
	for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd", ".sbat"} {
		want = extend(extend(want, sha256.Sum256([]byte(name+"\x00"))), sha256.Sum256(image.Section(name)))
	}
	if got := pcr11(image); got != want {
		t.Errorf("PCR 11: got %s, want %s", got, want)
	}
}

// TestSectionsInMemory: the stub measures a section as it lies in memory, and none that has no size there.
func TestSectionsInMemory(t *testing.T) {
	header := petest.Header
	const inMemory, inFile, at = 8, 16, 20
	for _, tt := range []struct {
		name  string
		edit  func(uki []byte)
		sizes map[string]int // those that differ from 0x180; 0: not measured
	}{
		{"as they are", func([]byte) {}, nil},
		{"empty in both", func(uki []byte) {
			for _, field := range []int{inMemory, inFile, at} {
				binary.LittleEndian.PutUint32(header(uki, 4)[field:], 0)
			}
		}, map[string]int{".uname": 0}},
		{"empty in memory alone", func(uki []byte) { binary.LittleEndian.PutUint32(header(uki, 4)[inMemory:], 0) }, map[string]int{".uname": 0}},
		{"larger in memory", func(uki []byte) { binary.LittleEndian.PutUint32(header(uki, 0)[inMemory:], 0x300) }, map[string]int{".osrel": 0x300}},
		{"in memory alone", func(uki []byte) {
			binary.LittleEndian.PutUint32(header(uki, 4)[inFile:], 0)
			binary.LittleEndian.PutUint32(header(uki, 4)[inMemory:], 0x40)
		}, map[string]int{".uname": 0x40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			uki := petest.Image(".osrel", ".cmdline", ".initrd", ".linux", ".uname")
			tt.edit(uki)
			image, err := Read(uki, 0)
			if err != nil {
				t.Fatal(err)
			}
			var want register.Digest
			for _, name := range []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname"} {
				size, told := tt.sizes[name]
				if !told {
					size = 0x180
				}
				if size == 0 {
					continue
				}
				memory := make([]byte, size)
				place := map[string]int{".osrel": 0, ".cmdline": 1, ".initrd": 2, ".linux": 3, ".uname": 4}[name]
				if from := petest.First + petest.Step*place; binary.LittleEndian.Uint32(header(uki, place)[inFile:]) > 0 {
					copy(memory, uki[from:from+min(size, 0x200)])
				}
				want = extend(extend(want, sha256.Sum256([]byte(name+"\x00"))), sha256.Sum256(memory))
			}
			if got := pcr11(image); got != want {
				t.Errorf("PCR 11: got %s, want %s", got, want)
			}
		})
	}
	vast := petest.Image(".osrel", ".cmdline", ".initrd", ".linux")
	binary.LittleEndian.PutUint32(header(vast, 0)[inMemory:], 0xffffffff)
	if _, err := Read(vast, 0); err == nil || !strings.Contains(err.Error(), "bytes in memory") {
		t.Errorf("a section of 4 GiB of zeros: got %v, want a refusal", err)
	}
}

// TestStubInitrd has a reader of archives look at what follows the initrd.
func TestInitrd(t *testing.T) {
	out := Image{sections: map[string][]byte{".initrd": []byte("initrd"), ".osrel": []byte("ID=x\n")}}.Initrd()
	if !bytes.HasPrefix(out, []byte("initrd\x00\x000707")) {
		t.Fatalf("starts with %q, want the initrd, padded, and an archive", out[:16])
	}
	r := cpio.NewReader(bytes.NewReader(out[8:]))
	var got []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+" "+h.Mode.String()+" "+string(data))
	}
	if want := ".extra 040555 |.extra/os-release 0100444 ID=x\n"; strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", strings.Join(got, "|"), want)
	}
}

func FuzzRead(f *testing.F) {
	versioned := withStub(petest.Image(".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux", ".profile", ".splash", ".profile"), "257.1")
	seeds := [][]byte{versioned, petest.Image(".text", ".osrel", ".cmdline", ".initrd", ".linux"), petest.Image(".sbat"), []byte("MZ")}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		for profile := range 3 {
			i, err := Read(image, profile)
			if err != nil {
				return
			}
			if len(i.Section(".linux")) == 0 || len(i.sections) > len(order) || profile >= i.Profiles || i.Profiles > MaxProfiles {
				t.Errorf("accepted %d sections for profile %d of %d", len(i.sections), profile, i.Profiles)
			}
			i.Measured()
			i.Initrd()
		}
	})
}

func TestVersions(t *testing.T) {
	all := []string{".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrsig", ".pcrpkey",
		".hwids", ".efifw", ".dtbauto"}
	for _, tt := range []struct {
		version, want string // the sections that are measured, or what the refusal says
		passed        string // files in the stub's archives
	}{
		{"252.39-1~deb12u2", "linux osrel cmdline initrd splash dtb pcrpkey", "tpm2-pcr-signature.json tpm2-pcr-public-key.pem"},
		{"254.26", "linux osrel cmdline initrd splash dtb uname sbat pcrpkey", "tpm2-pcr-signature.json tpm2-pcr-public-key.pem"},
		{"256", "linux osrel cmdline initrd ucode splash dtb uname sbat pcrpkey", "tpm2-pcr-signature.json tpm2-pcr-public-key.pem"},
		{"257.13-1~deb13u1", "linux osrel cmdline initrd ucode splash dtb uname sbat pcrpkey hwids",
			"tpm2-pcr-signature.json tpm2-pcr-public-key.pem os-release"},
		{"262.1-1", "linux osrel cmdline initrd ucode splash dtb uname sbat pcrpkey hwids",
			"tpm2-pcr-signature.json tpm2-pcr-public-key.pem os-release"},
		{"251.1", "systemd-stub 251.1, want one of 252 to 262, the newest that this build knows", ""},
		{"263~rc1", "systemd-stub 263~rc1, want one of 252", ""},
		{"next", "section .sdmagic is", ""},
	} {
		image, err := Read(withStub(petest.Image(all...), tt.version), 0)
		if err != nil {
			if tt.passed != "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %s", tt.version, err, tt.want)
			}
			continue
		}
		var got, files []string
		for _, s := range image.Measured() {
			if name, ok := strings.CutPrefix(s.Name, "name of ."); ok {
				got = append(got, name)
			}
		}
		for _, p := range passed {
			if bytes.Contains(image.Initrd(), []byte(".extra/"+p.file+"\x00")) {
				files = append(files, p.file)
			}
		}
		if strings.Join(got, " ") != tt.want || strings.Join(files, " ") != tt.passed || image.Stub.Text != tt.version {
			t.Errorf("%s: got %v with %q and %q, want %q and %q", tt.version, image.Stub, got, files, tt.want, tt.passed)
		}
		if got := image.Skipped(); !slices.Equal(got, []string{".dtbauto", ".efifw"}) {
			t.Errorf("%s: skipped %q, want the two that another machine has", tt.version, got)
		}
	}
}

// TestProfiles: a profile's sections stand in for those of all, and another's do not count.
func TestProfiles(t *testing.T) {
	file := withStub(petest.Image(".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux", ".profile", ".profile", ".cmdline", ".splash", ".profile"), "257")
	petest.Put(file, 5, []byte("ID=main\n"))
	petest.Put(file, 6, []byte("ID=other\n"))
	petest.Put(file, 7, []byte("other"))
	petest.Put(file, 9, []byte("ID=third\n"))
	for profile, want := range []struct{ id, cmdline, number string }{
		{"ID=main", ".cmdline", ""}, {"ID=other", "other", "1\x00\x00\x00"}, {"ID=third", ".cmdline", "2\x00\x00\x00"},
	} {
		image, err := Read(file, profile)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(image.Section(".profile"), []byte(want.id)) || !bytes.HasPrefix(image.Section(".cmdline"), []byte(want.cmdline)) ||
			(image.Section(".splash") != nil) != (profile == 1) || image.Profiles != 3 || string(image.ProfileNumber()) != want.number {
			t.Errorf("profile %d of %d: got %.10q, %.10q, splash %t and number %q, want %+v", profile, image.Profiles, image.Section(".profile"),
				image.Section(".cmdline"), image.Section(".splash") != nil, image.ProfileNumber(), want)
		}
	}
	for _, profile := range []int{-1, 3} {
		if _, err := Read(file, profile); err == nil || !strings.Contains(err.Error(), "the image has 3") {
			t.Errorf("profile %d: got %v, want a refusal", profile, err)
		}
	}
	if _, err := Read(withStub(petest.Image(append([]string{".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux"}, slices.Repeat([]string{".profile"}, MaxProfiles+1)...)...), "257"), 0); err == nil {
		t.Error("more profiles than the stub takes: got no error")
	}
}

// boot is one of testdata/boots.json: an image of ukify's, booted by QEMU, and the registers that the guest's kernel read from its TPM.
type boot struct {
	Name     string
	Stub     string
	Profile  int
	Direct   bool            // by QEMU's -kernel, which is how the profile was asked for
	Image    register.Digest // image hash
	Kernel   register.Digest // image hash of the kernel
	Sections []struct {      // of the profile, in the order of the image; the kernel by its SHA-256 alone
		Name   string
		Data   []byte
		SHA256 *register.Digest
	}
	PCRs map[uint8]register.Digest
}

// TestBoots compares with boots of images with the stubs of Debian's systemd 252, 254, 257 and 262.
func TestBoots(t *testing.T) {
	document, err := os.ReadFile("testdata/boots.json")
	if err != nil {
		t.Fatal(err)
	}
	var boots []boot
	if err := json.Unmarshal(document, &boots); err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{}
	for _, b := range boots {
		t.Run(b.Name, func(t *testing.T) {
			image := Image{Profile: b.Profile, sections: map[string][]byte{}}
			image.Stub.Text = b.Stub
			if _, err := fmt.Sscanf(b.Stub, "%d", &image.Stub.Major); err != nil {
				t.Fatal(err)
			}
			seen[image.Stub.Major]++
			var kernel register.Digest
			for _, s := range b.Sections {
				if s.SHA256 != nil {
					kernel = *s.SHA256
				}
				if !slices.Contains(chosen, s.Name) { // no machine of QEMU's is one that .hwids names
					image.sections[s.Name] = append([]byte{}, s.Data...)
				}
			}
			var got register.Digest
			for _, s := range image.Measured() {
				sum := sha256.Sum256(s.Data)
				if s.Name == ".linux" {
					sum = kernel
				}
				got = extend(got, sum)
			}
			if got != b.PCRs[11] {
				t.Errorf("PCR 11: got %s, want %s", got, b.PCRs[11])
			}
			var cmdline []byte
			for _, c := range append(image.sections[".cmdline"], 0) {
				cmdline = append(cmdline, c, 0)
			}
			got = extend(extend(register.Digest{}, sha256.Sum256(cmdline)), sha256.Sum256(image.Initrd()))
			_, unknown := image.Unknown()[9]
			if unknown != (image.Stub.Major == 262) {
				t.Errorf("PCR 9: unknown %t", unknown)
			}
			// With a source of random numbers the newest stub hands on a secret, and without a console it names one.
			secret := strings.Contains(b.Name, "random") || strings.Contains(b.Name, "console")
			if (got == b.PCRs[9]) == (unknown && secret) {
				t.Errorf("PCR 9: got %s, want %s", got, b.PCRs[9])
			}
			got = register.Digest{}
			if number := image.ProfileNumber(); number != nil {
				got = extend(got, sha256.Sum256(number))
			}
			if got != b.PCRs[12] {
				t.Errorf("PCR 12: got %s, want %s", got, b.PCRs[12])
			}
			// QEMU's -kernel has the image loaded before the firmware says that it will boot.
			loaded := [][32]byte{sha256.Sum256([]byte("Calling EFI Application from Boot Option")), sha256.Sum256(make([]byte, 4)), b.Image}
			if b.Direct {
				loaded = [][32]byte{loaded[2], loaded[0], loaded[1]}
			}
			got = register.Digest{}
			for _, digest := range loaded {
				got = extend(got, digest)
			}
			if image.LoadsKernel() {
				got = extend(got, b.Kernel)
			}
			if got != b.PCRs[4] {
				t.Errorf("PCR 4: got %s, want %s", got, b.PCRs[4])
			}
		})
	}
	for _, major := range booted[1:] {
		if seen[major] == 0 {
			t.Errorf("no boot of version %d", major)
		}
	}
}

// TestMutations: whatever byte of an image is changed, it is refused, or what the stub takes of it has changed, or the byte is one that
// the image hash alone covers: headers, the stub's own sections, and filling.
func TestMutations(t *testing.T) {
	good := withStub(petest.Image(".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux", ".pcrsig", ".profile", ".splash"), "257")
	taken := func(file []byte) (string, bool) {
		i, err := Read(file, 0)
		if err != nil {
			return "", false
		}
		initrd := sha256.Sum256(i.Initrd())
		return pcr11(i).String() + fmt.Sprintf("%x", initrd), true
	}
	want, ok := taken(good)
	if !ok {
		t.Fatal("the image is refused")
	}
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 0x15
		got, read := taken(bad)
		section := (at - petest.First) / petest.Step
		inData := at >= petest.First+petest.Step && (at-petest.First)%petest.Step < petest.Size
		if inData && read && got == want {
			t.Errorf("byte %d, in section %d: nothing changes", at, section)
		}
	}
}
