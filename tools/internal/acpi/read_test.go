package acpi

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// demoShape is the machine of the recorded boots.
func demoShape(version string, memory, cpus int) measure.Shape {
	return measure.Shape{QEMU: version, Machine: "q35", Accelerator: measure.TCG, CPU: "max", CPUVendor: measure.VendorAMD, PhysBits: 40,
		CPUs: cpus, MemoryMiB: memory,
		Devices: []string{
			"tpm-crb,tpmdev=tpm0",
			"virtio-blk-pci,drive=root,serial=chrysalis-root,bootindex=1",
			"virtio-blk-pci,drive=config,serial=chrysalis-config",
			"virtio-blk-pci,drive=journal,serial=chrysalis-journal",
			"virtio-blk-pci,drive=engine,serial=chrysalis-engine",
			"virtio-blk-pci,drive=model,serial=chrysalis-model",
			"virtio-net-pci,netdev=net0,romfile=",
			"virtio-serial-pci",
			"virtserialport,chardev=status,name=org.chrysalis.status",
		},
		GPUs: []string{}, Firmware: measure.File{Name: "OVMF_CODE.fd", Size: 1, SHA256: register.Digest{1}}}
}

// TestReadAgainstBoots compares with what OVMF measured into PCR 1 in boots of these machines, each read off its log: the
// second opinion that these bytes are the firmware's. make test boots more.
func TestReadAgainstBoots(t *testing.T) {
	tree, err := toolstree.Open("../../../build/tools-tree")
	if err != nil {
		t.Skipf("needs the tools tree's QEMU: %v", err)
	}
	version, err := qemu.Version(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		version      string
		memory, cpus int
		want         []string // script, then the files as it loads them
	}{
		{"10.0.13", 1024, 2, []string{"d4bf976a4761d9f307a24ba3a6e3af72b307e397491430761538a40192c05a09",
			"3e96f49c82015cd969854e7d280952c67998dda586a3f81f40d44e999db4d975",
			"de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31", "81fd3171cf3c218461bba1bd51b59d9c23c1d6c9081fdc1d94c5248b37fc14d7"}},
		{"10.0.13", 4096, 1, []string{"a1da0a65656edc59ff19f67deecd6c2def660a1ec4a29ad4a269eaa8143c1f26",
			"71033e2a94157866aa31623b52e0a0006447550c610e837dfb742c8ee2b9d6a8",
			"de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31", "c6d8d2e9b16dcfef79f27ed8568f42f5bed65b43dbdd284d47219a40f51c4cd4"}},
	} {
		if tt.version != version {
			t.Skipf("recorded with QEMU %s, the tools tree has %s", tt.version, version)
		}
		tables, err := Read(t.Context(), tree, demoShape(version, tt.memory, tt.cpus))
		if err != nil {
			t.Fatal(err)
		}
		names, err := measure.LoaderFiles(tables.Loader)
		if err != nil {
			t.Fatal(err)
		}
		digest := func(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }
		got := []string{digest(tables.Loader)}
		for _, name := range names {
			got = append(got, digest(tables.Files[name]))
		}
		for i := range tt.want {
			if i >= len(got) || got[i] != tt.want[i] {
				t.Errorf("%d MiB, %d CPUs: got %v, want %v", tt.memory, tt.cpus, got, tt.want)
				break
			}
		}
		pcr1, err := tables.PCR1()
		t.Logf("PCR 1 %s, error %v", pcr1, err)
	}
}

// TestReadRefuses asks for machines whose tables can't be known.
// TestPortsAreInNoTable: a port more on the serial bus is in none of the tables that firmware measures, so that a guest with another set of
// ports has the registers that it had.
func TestPortsAreInNoTable(t *testing.T) {
	tree, err := toolstree.Open("../../../build/tools-tree")
	if err != nil {
		t.Skipf("needs the tools tree: %v", err)
	}
	version, err := qemu.Version(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	var all []measure.Tables
	for _, more := range [][]string{nil, {"virtserialport,chardev=numbers,name=org.chrysalis.numbers"}, {"virtio-rng-pci"}} {
		s := demoShape(version, 1024, 2)
		s.Devices = append(slices.Clone(s.Devices), more...)
		tables, err := Read(t.Context(), tree, s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, tables)
	}
	if !reflect.DeepEqual(all[0], all[1]) {
		t.Error("a port more changes the tables")
	}
	if reflect.DeepEqual(all[0], all[2]) {
		t.Error("a device more on the PCI bus changes nothing: the test looked at the wrong thing")
	}
}

func TestReadRefuses(t *testing.T) {
	gpu := demoShape("10.0.13", 1024, 1)
	gpu.GPUs = []string{"vfio-pci,host=01:00.0"}
	amd := demoShape("10.0.13", 1024, 1)
	amd.PhysBits = 39
	none := demoShape("10.0.13", 1024, 0)
	for want, s := range map[string]measure.Shape{"shape has 1 GPUs, want none": gpu, "phys_bits is 39": amd, "cpus is 0": none} {
		if _, err := read(t.Context(), toolstree.Tree{}, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one that says %q", err, want)
		}
	}
}
