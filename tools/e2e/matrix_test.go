package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest"
	"chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/measure/snp"
	"chrysalis/measure/tdvf"
	"chrysalis/tools/internal/acpi"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

// matrixFile is written by make matrix.
const matrixFile = "../../measure/MATRIX.md"

// The machines of the table.
var (
	matrixMemoryMiB = []int{1024, 2048, 4096, 65536}
	matrixCPUs      = []int{1, 2, 8}
)

// TestMatrix computes registers over machines and compares them with the table in the document, or writes it.
func TestMatrix(t *testing.T) {
	write := os.Getenv("CHRYSALIS_MATRIX") != ""
	if !write {
		needsBuild(t)
	}
	data, err := os.ReadFile(filepath.Join(built, "release/manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	if m.Lock != measure.LockReleased {
		t.Skipf("built from an %s: the document is about the locks of the source tree", m.Lock)
	}
	x := newMatrix(t)
	var doc bytes.Buffer
	fmt.Fprintf(&doc, matrixHead, len(x.versions)*len(matrixMemoryMiB)*len(matrixCPUs))
	x.moves(&doc)
	doc.WriteString(matrixTable)
	x.table(&doc)
	if write {
		if err := os.WriteFile(matrixFile, doc.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(doc.Bytes(), want) {
		t.Errorf("measure/MATRIX.md is not what these locks give: run make matrix and review the difference; computed:\n%s", doc.Bytes())
	}
}

const matrixHead = `# Which input moves which register

Written by ` + "`make matrix`" + `, which asks both locked versions of QEMU for the tables of %d machines; a test keeps it true.
Computed from files; [SHAPE.md](SHAPE.md) says what a machine is. A TD under emulation has shown RTMR0 to RTMR2 of one machine whole
(TestTD); no machine here could show those of SEV-SNP. What stands behind each value is in the comments of ` + "`measure`" + ` and its tests.

Each row changes one thing of one guest: 2 CPUs, 2 GiB, QEMU of the newer lock. A cross is a register that moves.

`

const matrixTable = `
## Machines

Direct boot with the demo's devices: PCR 1 of a guest with plain OVMF and a TPM under emulation; RTMR0 of one with OVMF.inteltdx.fd,
46 address bits and a processor of family 6, model 207, stepping 8; the launch digest of one with OVMF.amdsev.fd, EPYC-v4 and no kernel hashes. First 16 digits.

`

type matrix struct {
	t        *testing.T
	versions []string // of QEMU, older first
	files    map[string][]byte
}

func newMatrix(t *testing.T) matrix {
	t.Helper()
	x := matrix{t: t, files: map[string][]byte{}}
	own := tree(t)
	newer, err := own.WithNewerQEMU()
	if err != nil {
		t.Fatal(err)
	}
	first, err := qemu.Version(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	second, err := qemu.Version(t.Context(), newer)
	if err != nil {
		t.Fatal(err)
	}
	x.versions = []string{first, second}
	for _, name := range []string{"OVMF_CODE.fd", "OVMF.inteltdx.fd", "OVMF.amdsev.fd", "vmlinuz", "initrd"} {
		if x.files[name], err = os.ReadFile(filepath.Join(built, "release", name)); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// machine is everything that a guest's registers follow from.
type machine struct {
	shape   measure.Shape // over plain OVMF
	old     bool          // the kernel as QEMU 9.2 hands it over
	kernel  []byte
	initrd  []byte
	cmdline string
}

func (x matrix) machine(version string, memory, cpus int) machine {
	x.t.Helper()
	s, err := guest.DefaultShape(version, nil, filepath.Join(built, "release/OVMF_CODE.fd"))
	if err != nil {
		x.t.Fatal(err)
	}
	s.MemoryMiB, s.CPUs = memory, cpus
	return machine{shape: s, kernel: x.files["vmlinuz"], initrd: x.files["initrd"], cmdline: "quiet"}
}

func (x matrix) tables(s measure.Shape) measure.Tables {
	x.t.Helper()
	tables, err := acpi.Cached(x.t.Context(), tree(x.t), s, filepath.Join(built, "cache/acpi"))
	if err != nil {
		x.t.Fatal(err)
	}
	return tables
}

func (x matrix) pcr1(m machine) string {
	x.t.Helper()
	pcr1, err := x.tables(m.shape).PCR1()
	if err != nil {
		x.t.Fatal(err)
	}
	return pcr1.String()
}

// tdx returns the shape as a TDX guest has it.
func (x matrix) tdx(m machine) measure.Shape {
	x.t.Helper()
	s := m.shape
	s.Machine, s.Accelerator, s.CPU, s.CPUVendor = s.Machine+",kernel-irqchip=split", measure.KVM, "host", measure.VendorIntel
	s.Processor = "f8060c00fffbeb0f" // of no machine here: family 6, model 207, stepping 8
	if s.PhysBits == 40 {
		s.PhysBits = 46
	}
	s.Devices = slices.DeleteFunc(slices.Clone(s.Devices), func(d string) bool { return strings.HasPrefix(d, "tpm-") })
	var err error
	if s.Firmware, err = guest.FirmwareFile(filepath.Join(built, "release/OVMF.inteltdx.fd")); err != nil {
		x.t.Fatal(err)
	}
	return s.TDX()
}

func (x matrix) registers(m machine) measure.TDXRegisters {
	x.t.Helper()
	s := x.tdx(m)
	tables := x.tables(s)
	if m.old {
		s.QEMU = "9.2.0"
	}
	r, err := measure.TDXBoot{Firmware: x.files["OVMF.inteltdx.fd"], Order: tdvf.SinglePass, Kernel: m.kernel,
		Initrd:  bytes.NewReader(m.initrd),
		Cmdline: m.cmdline, Shape: &s, Tables: tables}.Registers()
	if err != nil {
		x.t.Fatal(err)
	}
	return r
}

func (x matrix) launch(m machine, kernel bool) string {
	x.t.Helper()
	signature, err := snp.CPUSignature("EPYC-v4")
	if err != nil {
		x.t.Fatal(err)
	}
	l := snp.Launch{Firmware: x.files["OVMF.amdsev.fd"], VCPUs: m.shape.CPUs, Signature: signature, GuestFeatures: 1}
	if kernel {
		l.Kernel = &snp.Kernel{Kernel: m.kernel, Initrd: m.initrd, Cmdline: m.cmdline}
	}
	digest, err := snp.Digest(l)
	if err != nil {
		x.t.Fatal(err)
	}
	return hex.EncodeToString(digest[:])
}

var matrixRegisters = []string{"PCR 0", "PCR 1", "PCR 4", "PCR 9", "MRTD", "RTMR0", "RTMR1", "RTMR2", "launch digest"}

// all returns every register of a guest, in the order of matrixRegisters.
func (x matrix) all(m machine) []string {
	x.t.Helper()
	pcrs, err := measure.DirectBoot{Firmware: x.files["OVMF_CODE.fd"], Kernel: m.kernel, Initrd: bytes.NewReader(m.initrd),
		Cmdline: m.cmdline}.PCRs()
	if err != nil {
		x.t.Fatal(err)
	}
	r := x.registers(m)
	digits := func(r register.Digest384) string { return hex.EncodeToString(r[:]) }
	return []string{pcrs[0].String(), x.pcr1(m), pcrs[4].String(), pcrs[9].String(),
		digits(r.MRTD), digits(*r.RTMR0), digits(*r.RTMR1), digits(*r.RTMR2), x.launch(m, true)}
}

// moves writes a row for each input that is changed alone.
func (x matrix) moves(w *bytes.Buffer) {
	x.t.Helper()
	newer := x.versions[1]
	base := func() machine { return x.machine(newer, 2048, 2) }
	clean := x.all(base())
	fmt.Fprintf(w, "| changed | %s |\n|---|%s\n", strings.Join(matrixRegisters, " | "), strings.Repeat("---|", len(matrixRegisters)))
	for _, row := range []struct {
		what   string
		change func(*machine)
	}{
		{"QEMU " + newer + " to " + x.versions[0], func(m *machine) { m.shape.QEMU = x.versions[0] }},
		{"QEMU to 9.2, by how it hands the kernel over", func(m *machine) { m.old = true }},
		{"memory 2 GiB to 1 GiB", func(m *machine) { m.shape.MemoryMiB = 1024 }},
		{"memory 2 GiB to 64 GiB", func(m *machine) { m.shape.MemoryMiB = 65536 }},
		{"CPUs 2 to 4", func(m *machine) { m.shape.CPUs = 4 }},
		{"address bits and vendor: Intel of 39 bits", func(m *machine) { m.shape.CPUVendor, m.shape.PhysBits = measure.VendorIntel, 39 }},
		{"one device more", func(m *machine) { m.shape.Devices = append(slices.Clone(m.shape.Devices), "virtio-rng-pci") }},
		{"network before the disks", func(m *machine) {
			m.shape.Devices = slices.Clone(m.shape.Devices)
			i := slices.IndexFunc(m.shape.Devices, func(d string) bool { return strings.HasPrefix(d, "virtio-net-pci") })
			network := m.shape.Devices[i]
			m.shape.Devices = slices.Insert(slices.Delete(m.shape.Devices, i, i+1), 1, network)
		}},
		{"boot index of a disk", func(m *machine) {
			m.shape.Devices = slices.Clone(m.shape.Devices)
			for i, d := range m.shape.Devices {
				m.shape.Devices[i] = strings.TrimSuffix(d, ",bootindex=1")
			}
		}},
		{"machine: hpet=off", func(m *machine) { m.shape.Machine += ",hpet=off" }},
		{"kernel", func(m *machine) { m.kernel = bytes.Clone(m.kernel); m.kernel[1<<20]++ }},
		{"initrd", func(m *machine) { m.initrd = append(bytes.Clone(m.initrd), 0) }},
		{"command line", func(m *machine) { m.cmdline += " loud" }},
	} {
		m := base()
		row.change(&m)
		fmt.Fprintf(w, "| %s |", row.what)
		for i, value := range x.all(m) {
			if value != clean[i] {
				w.WriteString(" × |")
			} else {
				w.WriteString("  |")
			}
		}
		w.WriteByte('\n')
	}
}

// table writes a row for each machine.
func (x matrix) table(w *bytes.Buffer) {
	x.t.Helper()
	w.WriteString("| QEMU | MiB | CPUs | PCR 1 | RTMR0 | launch digest |\n|---|---|---|---|---|---|\n")
	for _, version := range x.versions {
		for _, memory := range matrixMemoryMiB {
			for _, cpus := range matrixCPUs {
				m := x.machine(version, memory, cpus)
				s := x.tdx(m)
				r, err := measure.TDXBoot{Firmware: x.files["OVMF.inteltdx.fd"], Order: tdvf.SinglePass, Shape: &s, Tables: x.tables(s)}.Registers()
				if err != nil {
					x.t.Fatal(err)
				}
				fmt.Fprintf(w, "| %s | %d | %d | %.16s | %x | %.16s |\n", version, memory, cpus, x.pcr1(m), r.RTMR0[:8], x.launch(m, false))
			}
		}
	}
}

// TestPolicyOfShapes makes a policy for an emulated machine and for a TDX guest, and compares it with what the measuring
// verbs print.
func TestPolicyOfShapes(t *testing.T) {
	needsBuild(t)
	folder, dir := filepath.Join(built, "release"), t.TempDir()
	plain, err := guest.DefaultShape(demoSpec(t).Shape.QEMU, nil, filepath.Join(folder, "OVMF_CODE.fd"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, s := range []measure.Shape{plain, matrix{t: t}.tdx(machine{shape: plain})} {
		data, err := measure.EncodeShape(s)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, s.Firmware.Name+".json"))
		if err := os.WriteFile(files[len(files)-1], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	trees := []string{"--tools-tree", filepath.Join(built, "tools-tree")}
	policy := func(shapes ...string) attest.Rules {
		t.Helper()
		args := slices.Concat([]string{"policy", "--json", "--manifest", filepath.Join(folder, "manifest.json"),
			"--engine", filepath.Join(built, "volumes/engine.img"), "--model", filepath.Join(built, "volumes/model.img"),
			"--min-tcb-evaluation", "0"}, trees)
		for _, s := range shapes {
			args = append(args, "--shape", s)
		}
		out, _ := chrysalis(t, 0, args...)
		var rules attest.Rules
		if err := json.Unmarshal([]byte(out), &rules); err != nil {
			t.Fatal(err)
		}
		return rules
	}
	boot := []string{"--kernel", filepath.Join(folder, "vmlinuz"), "--initrd", filepath.Join(folder, "initrd"), "--cmdline",
		"@" + filepath.Join(folder, "cmdline"), "--json"}
	out, _ := chrysalis(t, 0, slices.Concat([]string{"measure", "tdx", "--firmware", filepath.Join(folder, "OVMF.inteltdx.fd"), "--shape",
		files[1]}, boot, trees)...)
	var want release.TDXValues
	if err := json.Unmarshal([]byte(out), &want); err != nil {
		t.Fatal(err)
	}
	both := policy(files...)
	if r := both.Releases[0]; len(r.VTPM) != 1 || len(r.TDX) != 1 || r.TDX[0] != want ||
		!slices.Equal(both.Waive, []string{"confidentiality"}) {
		t.Errorf("both shapes: got %d and %+v, waived %q, want one each, %+v, and confidentiality", len(r.VTPM), r.TDX, both.Waive, want)
	}
	if alone := policy(files[1]); len(alone.Releases[0].VTPM) != 0 || len(alone.Waive) != 0 {
		t.Errorf("the TDX guest alone: got %d vtpm machines, waived %q, want none", len(alone.Releases[0].VTPM), alone.Waive)
	}
}
