package explain

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/tdx"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/tdvf"
)

func demoMachine(t *testing.T, r Release, firmware string) measure.Shape {
	t.Helper()
	file, err := r.Manifest.File(firmware)
	if err != nil {
		t.Fatal(err)
	}
	s := measure.Shape{QEMU: "10.0.13", Machine: "q35", Accelerator: measure.KVM, CPU: "host", CPUVendor: measure.VendorIntel, Processor: "f2060800fffbeb0f", PhysBits: 46,
		CPUs: 2, MemoryMiB: 2048,
		Devices: []string{"virtio-blk-pci,drive=root,bootindex=1", "virtio-net-pci,netdev=net0,romfile="}, GPUs: []string{}, Firmware: file}
	return s
}

// booted are a boot's inputs. A test changes one.
type booted struct {
	release        Release
	shape          measure.Shape
	cmdline        string
	initrd, kernel []byte
	tables         func(*measure.Tables)
}

func (b *booted) made(t *testing.T, s measure.Shape) measure.Tables {
	t.Helper()
	tables, err := imagined{}.Tables(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if b.tables != nil {
		b.tables(&tables)
	}
	return tables
}

// directBoots keeps what takes long: a firmware is unpacked for each.
var directBoots = map[string][]measure.PCREvent{}

// vtpm returns the events that a guest with a TPM logs.
func (b *booted) vtpm(t *testing.T) (boot []attesttest.BootEvent) {
	t.Helper()
	machine, errMachine := b.made(t, b.shape).Events()
	key := fmt.Sprintf("%x %x %s", sha256.Sum256(b.kernel), sha256.Sum256(b.initrd), b.cmdline)
	events, ok := directBoots[key]
	var err error
	if !ok {
		events, err = measure.DirectBoot{Firmware: b.release.Files[plainFirmware], Kernel: b.kernel, Initrd: bytes.NewReader(b.initrd),
			Cmdline: b.cmdline}.Events()
		directBoots[key] = events
	}
	if errMachine != nil || err != nil {
		t.Fatal(errMachine, err)
	}
	for _, e := range slices.Concat(machine, events) {
		boot = append(boot, attesttest.BootEvent{Register: e.Register, Type: 0x0d, Digest: e.Digest[:]})
	}
	return boot
}

// td returns the events that a TDX guest logs.
func (b *booted) td(t *testing.T) (boot []attesttest.BootEvent) {
	t.Helper()
	s := b.shape.TDX()
	events, err := measure.TDXBoot{Firmware: b.release.Files[tdxFirmware], Order: tdvf.SinglePass, Kernel: b.kernel,
		Initrd: bytes.NewReader(b.initrd), Cmdline: b.cmdline,
		Shape: &s, Tables: b.made(t, s)}.Events()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		boot = append(boot, attesttest.BootEvent{Register: e.Register + 1, Type: 0x0d, Digest: e.Digest[:]})
	}
	return boot
}

// bootCauses are changes of a boot with the causes that must be named, on both platforms.
var bootCauses = []struct {
	name   string
	change func(*booted)
	want   []string
	says   string
}{
	{"nothing", func(*booted) {}, nil, ""},
	{"memory", func(b *booted) { b.shape.MemoryMiB = 1024 }, []string{"memory"}, "are those of 1024 MiB, expected 2048 MiB"},
	{"CPUs", func(b *booted) { b.shape.CPUs = 3 }, []string{"cpus"}, "are those of 3 CPUs, expected 2 CPUs"},
	{"CPUs and memory", func(b *booted) { b.shape.CPUs, b.shape.MemoryMiB = 1, 1024 }, []string{"cpus+memory"},
		"are those of 1 CPU and 1024 MiB, expected 2 CPUs and 2048 MiB"},
	{"QEMU", func(b *booted) { b.shape.QEMU = "11.1.3" }, []string{"qemu"}, "QEMU 11.1.3, expected QEMU 10.0.13"},
	{"QEMU and CPUs", func(b *booted) { b.shape.QEMU, b.shape.CPUs = "11.1.3", 8 }, []string{"qemu+cpus"}, "QEMU 11.1.3 and 8 CPUs"},
	{"a device", func(b *booted) { b.shape.Devices = append(slices.Clone(b.shape.Devices), "virtio-rng-pci") }, []string{"devices"},
		"1 device more"},
	{"machine option", func(b *booted) { b.shape.Machine = "q35,hpet=off" }, []string{"machine-options"}, "machine q35,hpet=off"},
	{"address bits", func(b *booted) { b.shape.PhysBits = 39 }, []string{"cpu"}, "39 address bits"},
	{"an ACPI table", func(b *booted) {
		b.tables = func(t *measure.Tables) {
			old := uint32(t.Files[rsdpFile][rsdpRoot]) | uint32(t.Files[rsdpFile][rsdpRoot+1])<<8
			t.Files[rsdpFile][rsdpRoot] += 42
			t.Files[tablesFile] = append(t.Files[tablesFile], "EVIL"...)
			t.Loader = script(old+42, 4)
		}
	}, []string{"acpi-table"}, "1 ACPI table more, of 42 bytes in all"},
	{"bytes of a table", func(b *booted) { b.tables = func(t *measure.Tables) { t.Files[tablesFile][0]++ } }, []string{"machine"}, "none of"},
	{"command line", func(b *booted) { b.cmdline += " console=ttyS0" }, []string{"command-line"}, `"console=ttyS0" stands after it`},
	{"command line without a word", func(b *booted) { b.cmdline = strings.Replace(b.cmdline, " debugfs=off", "", 1) },
		[]string{"command-line"}, `"debugfs=off" is missing`},
	{"command line of another kind", func(b *booted) { b.cmdline = "other" }, []string{"command-line"}, "another than the release's"},
	{"initrd", func(b *booted) { b.initrd = []byte("initrd") }, []string{"initrd"}, "initrd is another"},
	{"kernel header", func(b *booted) {
		b.kernel, _ = measure.PatchKernel(b.kernel, int64(len(b.initrd)), 2048)
	}, []string{"kernel-header"}, "a QEMU before 10.0 writes it on a machine of 2048 MiB"},
	{"kernel and command line", func(b *booted) {
		b.kernel = bytes.Clone(b.kernel)
		b.kernel[1<<20]++
		b.cmdline += " debug"
	}, []string{"kernel", "command-line"}, "kernel is another"},
}

// TestBoots changes each input of a boot, on both platforms, and wants its name.
func TestBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes kernel and firmware for each cause")
	}
	release := smallRelease(t)
	measured := measuredConfig(t, nil)
	guest, td := attesttest.New(measured, time.Now()), attesttest.NewTDXGuest(measured, time.Now())
	mrtd, err := tdvf.MRTD(release.Files[tdxFirmware], tdvf.SinglePass)
	if err != nil {
		t.Fatal(err)
	}
	td.Machine.Body.MRTD = mrtd
	for _, tt := range bootCauses {
		change := func(firmware string) (*booted, measure.Shape) {
			s := demoMachine(t, release, firmware)
			b := &booted{release: release, shape: s, cmdline: string(release.Files[cmdlineFile]), initrd: release.Files[initrdFile],
				kernel: release.Files[kernelFile]}
			tt.change(b)
			return b, s
		}
		check := func(t *testing.T, e *evidence.Evidence, s measure.Shape, want []string) {
			t.Helper()
			r := wants(t, Inputs{Evidence: e, Release: release, Shape: &s, Machines: imagined{}, Config: measured}, want...)
			if len(want) > 0 && !strings.Contains(r.Causes[0].Says, tt.says) {
				t.Errorf("it says %q, want %q in it", r.Causes[0].Says, tt.says)
			}
		}
		t.Run("vtpm "+tt.name, func(t *testing.T) {
			b, s := change(plainFirmware)
			guest.Boot = b.vtpm(t)
			check(t, evidenceOf(guest), s, tt.want)
		})
		t.Run("tdx "+tt.name, func(t *testing.T) {
			b, s := change(tdxFirmware)
			td.SetBoot(b.td(t))
			check(t, evidenceOf(td), s, tt.want)
		})
	}
}

// TestTDXWithoutLog has registers alone to go by.
func TestTDXWithoutLog(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes kernel and firmware")
	}
	release := smallRelease(t)
	measured := measuredConfig(t, nil)
	s := demoMachine(t, release, tdxFirmware)
	for _, tt := range []struct {
		name   string
		change func(*booted)
		order  tdvf.Order
		want   []string
	}{
		{"nothing", func(*booted) {}, tdvf.SinglePass, nil},
		{"page order", func(*booted) {}, tdvf.TwoPass, []string{"page-order"}},
		{"CPUs", func(b *booted) { b.shape.CPUs = 4 }, tdvf.SinglePass, []string{"cpus"}},
		{"command line", func(b *booted) { b.cmdline += " debug" }, tdvf.SinglePass, []string{"command-line"}},
		{"initrd", func(b *booted) { b.initrd = []byte("x") }, tdvf.SinglePass, []string{"release"}},
		{"kernel header", func(b *booted) { b.kernel, _ = measure.PatchKernel(b.kernel, int64(len(b.initrd)), 1024) }, tdvf.SinglePass,
			[]string{"kernel-header"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &booted{release: release, shape: s, cmdline: string(release.Files[cmdlineFile]), initrd: release.Files[initrdFile],
				kernel: release.Files[kernelFile]}
			tt.change(b)
			td := attesttest.NewTDXGuest(measured, time.Now())
			td.SetBoot(b.td(t))
			td.BootLog = nil
			mrtd, err := tdvf.MRTD(release.Files[tdxFirmware], tt.order)
			if err != nil {
				t.Fatal(err)
			}
			td.Machine.Body.MRTD = mrtd
			wants(t, Inputs{Evidence: evidenceOf(td), Release: release, Shape: &s, Machines: imagined{}, Config: measured}, tt.want...)
		})
	}
	td := attesttest.NewTDXGuest(measured, time.Now())
	td.SetBoot((&booted{release: release, shape: s, cmdline: "quiet", initrd: []byte("x"), kernel: release.Files[kernelFile]}).td(t))
	td.Machine.Body.RTMR[0][0]++
	td.Machine.Body.RTMR[3] = [48]byte{1}
	td.Follow = false
	r := wants(t, Inputs{Evidence: evidenceOf(td), Release: release, Config: measured}, "log", "log", "firmware", "config",
		"command-line", "initrd")
	if !strings.Contains(r.Causes[0].Says, "RTMR0") {
		t.Errorf("it says %q, want RTMR0 in it", r.Causes[0].Says)
	}
	td.Machine.Body.RTMR[3] = [48]byte{}
	if r := wants(t, Inputs{Evidence: evidenceOf(td), Release: release, Config: measured}, "log", "rtmr-3", "firmware", "config",
		"command-line", "initrd"); !strings.Contains(r.Causes[1].Says, "never extended") {
		t.Errorf("it says %q, want that RTMR3 was never extended", r.Causes[1].Says)
	}
}

// TestPublicIdentity: under COCOON's public identity no register has log or config, and what differs in them is named all the same.
func TestPublicIdentity(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes kernel and firmware")
	}
	release := smallRelease(t)
	plain := measuredConfig(t, nil)
	of := func(change func(*config.Measured)) []byte {
		return measuredConfig(t, func(m *config.Measured) {
			m.Identity.Cocoon, m.Identity.Sealing, m.Identity.Stranding = true, config.SealNothing, config.StrandingAccepted
			change(m)
		})
	}
	public := of(func(*config.Measured) {})
	s := demoMachine(t, release, tdxFirmware)
	b := &booted{release: release, shape: s, cmdline: string(release.Files[cmdlineFile]), initrd: release.Files[initrdFile], kernel: release.Files[kernelFile]}
	mrtd, err := tdvf.MRTD(release.Files[tdxFirmware], tdvf.SinglePass)
	if err != nil {
		t.Fatal(err)
	}
	guest := func(measured []byte) *attesttest.TDXGuest {
		td := attesttest.NewTDXGuest(measured, time.Now())
		td.SetBoot(b.td(t))
		td.Machine.Body.MRTD = mrtd
		return td
	}
	edited := func(change func(*evidence.Evidence)) *evidence.Evidence {
		e := evidenceOf(guest(public))
		change(e)
		return e
	}
	for _, tt := range []struct {
		name     string
		evidence *evidence.Evidence
		expected []byte
		says     string
		want     []string
	}{
		{"nothing", evidenceOf(guest(public)), public, "", nil},
		{"another price", evidenceOf(guest(of(func(m *config.Measured) { m.Service.Price.NanotonPerToken = 31 }))), public, "nanoton_per_token 31", []string{"config"}},
		{"a guest with it, and none expected", evidenceOf(guest(public)), measuredConfig(t, func(m *config.Measured) {
			m.Identity.Sealing, m.Identity.Stranding = config.SealNothing, config.StrandingAccepted
		}), "identity.cocoon true, expected false", []string{"config"}},
		{"a guest without it", evidenceOf(guest(plain)), public, "identity.cocoon false, expected true", []string{"config"}},
		{"RTMR3 that is not of that identity", func() *evidence.Evidence {
			td := guest(public)
			td.Body = func(b *tdx.Body) { b.RTMR[3] = [48]byte{1} }
			return evidenceOf(td)
		}(), public, "COCOON's public identity", []string{"config"}},
		{"a statement that the key did not sign", edited(func(e *evidence.Evidence) { e.Statement.Epoch++ }), public, "another statement", []string{"statement"}},
		{"a log that the statement does not have", edited(func(e *evidence.Evidence) {
			e.RuntimeLog = eventlog.Record{Number: 7, Register: eventlog.RTMR3, Kind: eventlog.KindGPULost}.Append(e.RuntimeLog)
		}), public, "the head of another log", []string{"log", "gpu-lost"}},
	} {
		r := wants(t, Inputs{Evidence: tt.evidence, Release: release, Shape: &s, Machines: imagined{}, Config: tt.expected}, tt.want...)
		if tt.says != "" && !strings.Contains(r.Causes[0].Says, tt.says) {
			t.Errorf("%s: it says %q, want %q in it", tt.name, r.Causes[0].Says, tt.says)
		}
	}
}

// TestSettings are what the firmware measures of its own: boots that the machine's shape does not decide over.
func TestSettings(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes kernel and firmware")
	}
	release := smallRelease(t)
	measured := measuredConfig(t, nil)
	s := demoMachine(t, release, plainFirmware)
	b := &booted{release: release, shape: s, cmdline: string(release.Files[cmdlineFile]), initrd: release.Files[initrdFile],
		kernel: release.Files[kernelFile]}
	clean := b.vtpm(t)
	hash := func(text string) []byte { sum := sha256.Sum256([]byte(text)); return sum[:] }
	on := []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c, 10, 0, 0, 0, 0, 0, 0, 0, 1,
		0, 0, 0, 0, 0, 0, 0}
	for _, c := range "SecureBoot" {
		on = append(on, byte(c), 0)
	}
	on = append(on, 1)
	for _, tt := range []struct {
		name string
		boot func([]attesttest.BootEvent) []attesttest.BootEvent
		want []string
		says string
	}{
		{"Secure Boot on", func(boot []attesttest.BootEvent) []attesttest.BootEvent {
			i := slices.IndexFunc(boot, func(e attesttest.BootEvent) bool { return e.Register == 7 })
			boot[i] = attesttest.BootEvent{Register: 7, Type: 0x80000001, Data: on}
			return boot
		}, []string{"secure-boot"}, "SecureBoot holds 1 byte"},
		{"option ROM", func(boot []attesttest.BootEvent) []attesttest.BootEvent {
			return slices.Insert(boot, 0, attesttest.BootEvent{Register: 2, Type: 0x80000004, Digest: hash("iPXE")})
		}, []string{"option-rom"}, "option ROM"},
		{"firmware's version", func(boot []attesttest.BootEvent) []attesttest.BootEvent {
			i := slices.IndexFunc(boot, func(e attesttest.BootEvent) bool { return e.Register == 0 })
			boot[i] = attesttest.BootEvent{Register: 0, Type: 8, Data: []byte("9\x00.\x009\x00\x00\x00")}
			return boot
		}, []string{"firmware"}, `calls itself "9.9"`},
		{"another version, and no initrd", func(boot []attesttest.BootEvent) []attesttest.BootEvent {
			i := slices.IndexFunc(boot, func(e attesttest.BootEvent) bool { return e.Register == 0 })
			boot[i].Digest = hash("another")
			last := len(boot) - 1
			if boot[last].Register != 9 {
				t.Fatalf("the last event is of PCR %d, want the initrd's", boot[last].Register)
			}
			return boot[:last]
		}, []string{"firmware", "initrd"}, "another build"},
		{"boot variable", func(boot []attesttest.BootEvent) []attesttest.BootEvent {
			i := slices.IndexFunc(boot, func(e attesttest.BootEvent) bool { return e.Register == 1 })
			boot[i+3].Digest = hash("another order")
			return boot
		}, []string{"boot-variables"}, "would boot something else"},
		{"a unified kernel image", func(boot []attesttest.BootEvent) []attesttest.BootEvent {
			boot = append(boot, attesttest.BootEvent{Register: 11, Type: 0x0d, Data: []byte(".linux\x00")})
			i := slices.IndexFunc(boot, func(e attesttest.BootEvent) bool { return e.Register == 4 })
			boot = slices.Insert(boot, i, attesttest.BootEvent{Register: 4, Type: 0x80000003, Digest: hash("image")})
			return append(boot, attesttest.BootEvent{Register: 5, Type: 0x80000006, Data: []byte("partitions")})
		}, []string{"boot-from-disk"}, "from a disk, expected a direct boot; the kernel in the image is the release's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			guest := attesttest.New(measured, time.Now())
			guest.Boot = tt.boot(slices.Clone(clean))
			r := wants(t, Inputs{Evidence: evidenceOf(guest), Release: release, Shape: &s, Machines: imagined{}, Config: measured}, tt.want...)
			if !strings.Contains(r.Causes[0].Says, tt.says) {
				t.Errorf("it says %q, want %q in it", r.Causes[0].Says, tt.says)
			}
		})
	}
}

// TestRecordedGuest explains what a real guest showed. Its initrd is older than the release here.
func TestRecordedGuest(t *testing.T) {
	encoded, err := os.ReadFile("../../../attest/testdata/guest/evidence.bin")
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Explain(t.Context(), Inputs{Evidence: e, Release: releaseFolder(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, register := range r.Registers {
		want := Expected
		switch register.Name {
		case "pcr-1":
			want = NotCompared
		case "pcr-9", "pcr-4":
			continue
		}
		if register.State != want {
			t.Errorf("%s is %s, want %s", register.Name, register.State, want)
		}
	}
}

func TestReadReleaseRefuses(t *testing.T) {
	release := releaseFolder(t)
	dir := t.TempDir()
	manifest, err := measure.EncodeManifest(release.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "manifest.json")
	if err := os.WriteFile(file, manifest, 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := ReadRelease(file); err != nil || len(r.Files) != 0 {
		t.Errorf("a manifest alone: got %d files, error %v, want none", len(r.Files), err)
	}
	if err := os.WriteFile(filepath.Join(dir, cmdlineFile), []byte("quiet"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadRelease(file); err == nil || !strings.Contains(err.Error(), "want the manifest's") {
		t.Errorf("another command line: got %v, want a refusal", err)
	}
}
