package measure

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/register"
)

func testShape() Shape {
	return Shape{QEMU: "10.0.13", Machine: "q35", Accelerator: TCG, CPU: "max", CPUVendor: VendorAMD, PhysBits: 40, CPUs: 2, MemoryMiB: 1024,
		Devices: []string{"tpm-crb,tpmdev=tpm0", "virtio-blk-pci,drive=root,bootindex=1"}, GPUs: []string{},
		Firmware: File{"OVMF_CODE.fd", 3653632, register.Digest{1}}}
}

func TestShapeRoundTrip(t *testing.T) {
	data, err := EncodeShape(testShape())
	if err != nil {
		t.Fatal(err)
	}
	s, err := DecodeShape(data)
	if err != nil {
		t.Fatal(err)
	}
	again, err := EncodeShape(s)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("encoding again: got %s, error %v, want %s", again, err, data)
	}
}

// withGPU gives the shape a GPU behind a port of its own.
func withGPU(s *Shape) {
	s.Devices, s.GPUs, s.MMIO64MiB = append(s.Devices, "pcie-root-port,id=gpu0,chassis=1,hotplug=off"), []string{"vfio-pci,bus=gpu0,rombar=0"}, 64<<10
}

// TestShapeOfGPU: a machine with a GPU is one, with 31 and 33 GiB too.
func TestShapeOfGPU(t *testing.T) {
	for _, mib := range []int{1024, 31 << 10, 33 << 10, 64 << 10} {
		s := testShape()
		withGPU(&s)
		s.MemoryMiB = mib
		data, err := EncodeShape(s)
		if err != nil {
			t.Errorf("%d MiB: %v", mib, err)
		}
		if got, err := DecodeShape(data); err != nil || got.MMIO64MiB != 64<<10 || !slices.Equal(got.GPUs, s.GPUs) {
			t.Errorf("%d MiB: got %+v (error %v), want the same shape", mib, got, err)
		}
	}
}

// TestForTD makes the demo's machine one for a TD, and nothing else of it.
func TestForTD(t *testing.T) {
	s := testShape()
	s.Devices = append(s.Devices, "virtio-serial-pci", "virtserialport,chardev=status,name=x", "vhost-vsock-pci,guest-cid=3", "pvpanic-pci")
	td := s.ForTD()
	if err := td.Check(); err != nil {
		t.Fatal(err)
	}
	want := []string{"virtio-blk-pci,drive=root,bootindex=1" + shared, "virtio-serial-pci" + shared, "virtserialport,chardev=status,name=x",
		"vhost-vsock-pci,guest-cid=3" + shared, "pvpanic-pci"}
	if !slices.Equal(td.Devices, want) || td.Platform != TDX || td.Machine != "q35,smm=off,pic=off" {
		t.Errorf("got %+v, want the devices %q", td, want)
	}
	if again := td.ForTD(); !slices.Equal(again.Devices, want) {
		t.Errorf("again: got %q, want %q", again.Devices, want)
	}
	if s.Platform != "" || len(s.Devices) != 6 {
		t.Errorf("the machine itself became %+v", s)
	}
}

func TestShapeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Shape)
		want   string
	}{
		{"version", func(s *Shape) { s.QEMU = "10" }, "qemu is"},
		{"machine of another kind", func(s *Shape) { s.Machine = "pc" }, "machine is"},
		{"machine that writes a file", func(s *Shape) { s.Machine = "q35,dumpdtb=x" }, "machine is"},
		{"accelerator", func(s *Shape) { s.Accelerator = "hvf" }, "accelerator is"},
		{"cpu with a path", func(s *Shape) { s.CPU = "max,x=/etc" }, "cpu is"},
		{"vendor", func(s *Shape) { s.CPUVendor = "" }, "cpu_vendor is"},
		{"processor under emulation", func(s *Shape) { s.Processor = "f2060800ffffffff" }, "none under tcg"},
		{"processor", func(s *Shape) { s.Accelerator, s.Processor = KVM, "f206" }, "processor is"},
		{"address bits", func(s *Shape) { s.PhysBits = 64 }, "phys_bits is 64"},
		{"no CPU", func(s *Shape) { s.CPUs = 0 }, "cpus is 0"},
		{"too many CPUs", func(s *Shape) { s.CPUs = maxCPUs + 1 }, "cpus is 1025"},
		{"too little memory", func(s *Shape) { s.MemoryMiB = 255 }, "memory_mib is 255"},
		{"firmware", func(s *Shape) { s.Firmware.SHA256 = register.Digest{} }, "firmware has no"},
		{"firmware elsewhere", func(s *Shape) { s.Firmware.Name = "../OVMF.fd" }, "firmware has no"},
		{"device that reads a file", func(s *Shape) { s.Devices = []string{"loader,file=secret"} }, "device is"},
		{"device with a path", func(s *Shape) { s.Devices = []string{"virtio-net-pci,romfile=/etc/shadow"} }, "device is"},
		{"too many devices", func(s *Shape) { s.Devices = slices.Repeat([]string{"virtio-rng-pci"}, maxDevices+1) }, "65 devices"},
		{"platform", func(s *Shape) { s.Platform = "sgx" }, "platform is"},
		{"TD with a TPM", func(s *Shape) { *s = s.ForTD(); s.Devices = append(s.Devices, "tpm-crb,tpmdev=tpm0") }, "is a TPM"},
		{"TD with a device of private memory", func(s *Shape) { *s = s.ForTD(); s.Devices[0] = "virtio-blk-pci,drive=root,iommu_platform=on" },
			"disable-legacy=on"},
		{"TD with a socket of private memory", func(s *Shape) { *s = s.ForTD(); s.Devices[0] = "vhost-vsock-pci,guest-cid=3" }, "disable-legacy=on"},
		{"TD with system management mode", func(s *Shape) { *s = s.ForTD(); s.Machine = "q35,pic=off" }, "want smm=off"},
		{"gpu", func(s *Shape) { s.GPUs = []string{"virtio-rng-pci"} }, "gpu is"},
		{"32 GiB with a GPU", func(s *Shape) { withGPU(s); s.MemoryMiB = 32 << 10 }, "memory_mib is 32768"},
		{"a window without a GPU", func(s *Shape) { s.MMIO64MiB = 64 << 10 }, "mmio64_mib is 65536"},
		{"a window that is no power of two", func(s *Shape) { withGPU(s); s.MMIO64MiB = 96 << 10 }, "mmio64_mib is 98304"},
		{"a small window", func(s *Shape) { withGPU(s); s.MMIO64MiB = 16 << 10 }, "mmio64_mib is 16384"},
		{"a window beyond the processor's reach", func(s *Shape) { withGPU(s); s.MMIO64MiB = 128 << 10 }, "a sixteenth of what 40 address bits reach"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testShape()
			tt.change(&s)
			if _, err := EncodeShape(s); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
	good, err := EncodeShape(testShape())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "empty object": []byte("{}"), "trailing bytes": append(bytes.Clone(good), '{'),
		"unknown member":  bytes.Replace(good, []byte(`"cpus"`), []byte(`"x": 1, "cpus"`), 1),
		"repeated member": bytes.Replace(good, []byte(`"cpus"`), []byte(`"cpus": 2, "cpus"`), 1),
		"oversized":       append(bytes.Clone(good), bytes.Repeat([]byte(" "), MaxShapeBytes)...),
	} {
		if _, err := DecodeShape(data); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

func FuzzDecodeShape(f *testing.F) {
	good, err := EncodeShape(testShape())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeShape(data)
		if err != nil {
			return
		}
		first, err := EncodeShape(s)
		if err != nil {
			t.Fatalf("decoded, but encoding says %v", err)
		}
		again, err := DecodeShape(first)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := EncodeShape(again); err != nil || !bytes.Equal(first, second) {
			t.Errorf("got %s, error %v, want %s", second, err, first)
		}
	})
}
