package snp

import (
	"encoding/hex"
	"os"
	"testing"
)

// TestVirtee computes the digests that virtee/sev-snp-measure states (testdata/README.md). Kernel and initrd are empty files there.
func TestVirtee(t *testing.T) {
	const amdSev, plain = "ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"
	cmdline, none := "console=ttyS0 loglevel=7", ""
	for _, tt := range []struct {
		name, firmware string
		vmm            VMM
		vcpus          int
		features       uint64
		cmdline        *string // nil: no kernel
		want           string
	}{
		{"default", amdSev, QEMU, 1, 0x21, &cmdline, "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977"},
		{"feature_snp_only", amdSev, QEMU, 1, 1, &cmdline, "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa"},
		{"ovmf_hash_gen_default", amdSev, QEMU, 1, 0x21, &none, "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198"},
		{"ovmf_hash_gen_feature_snp_only", amdSev, QEMU, 1, 1, &none, "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5"},
		{"with_multiple_vcpus_default", amdSev, QEMU, 4, 0x21, &none, "4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942"},
		{"with_multiple_vcpus_feature_snp_only", amdSev, QEMU, 4, 1, &none, "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5"},
		{"without_kernel_default", amdSev, QEMU, 1, 0x21, nil, "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b"},
		{"without_kernel_feature_snp_only", amdSev, QEMU, 1, 1, nil, "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d"},
		{"with_ovmfx64_without_default", plain, QEMU, 1, 0x21, nil, "28797ae0afaba4005a81e629acebfb59e6687949d6be44007cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385"},
		{"with_ovmfx64_without_kernel_feature_snp_only", plain, QEMU, 1, 1, nil, "da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005"},
		{"ec2_default", amdSev, EC2, 1, 0x21, &none, "0ce9ccc06bab55eebe8abc234f3df6514883977a68a591b71052498ab52b2f1aa415db338033946ef93aa8278c0d67fb"},
		{"ec2_feature_snp_only", amdSev, EC2, 1, 1, &none, "0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab985443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056"},
		{"gce_default", amdSev, GCE, 1, 1, &none, "5da7106cf14cf46b1725ebab123eb9e53bd46a1e9f400cd0c08e7827b04b688ea8b4e403c8404efed4397ea5d5d0722e"},
		{"gce_with_multiple_vcpus_default", amdSev, GCE, 4, 1, &none, "5c5debf100fc339f90276e761ee1f1658d08922c3b20e2a2e6c7a6c3370b2452a15a00eae11886a93d6fd1e7ab81e29d"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			firmware, err := os.ReadFile("testdata/" + tt.firmware)
			if err != nil {
				t.Fatal(err)
			}
			l := Launch{Firmware: firmware, VMM: tt.vmm, VCPUs: tt.vcpus, Signature: 0x800f12, GuestFeatures: tt.features}
			if tt.cmdline != nil {
				l.Kernel = &Kernel{Cmdline: *tt.cmdline}
			}
			got, err := Digest(l)
			if err != nil {
				t.Fatal(err)
			}
			if hex.EncodeToString(got[:]) != tt.want {
				t.Errorf("got %x, want %s", got, tt.want)
			}
		})
	}
}

// TestMonitorsDiffer: one firmware has another digest with each, and what a monitor does not look at does not count.
func TestMonitorsDiffer(t *testing.T) {
	seen := map[[48]byte]VMM{}
	for _, vmm := range VMMs() {
		l := example()
		l.VMM = vmm
		got, err := Digest(l)
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[got]; twice {
			t.Errorf("%s and %s: one digest", vmm, other)
		}
		seen[got] = vmm
		l.Signature++
		again, err := Digest(l)
		if err != nil || (again == got) == (vmm == QEMU) {
			t.Errorf("%s, another vCPU type: same digest %t (%v)", vmm, again == got, err)
		}
	}
	l := example()
	l.VMM = "xen"
	if _, err := Digest(l); err == nil {
		t.Error("an unknown monitor: got no error")
	}
}
