package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"chrysalis/tools/internal/guest"
)

// recordedHost is a host of the files below /; nodes are the devices that open. "-" takes a file away.
func recordedHost(files map[string]string, nodes ...string) host {
	root := fstest.MapFS{}
	for name, text := range files {
		if text != "-" {
			root[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return host{
		files: root,
		opens: func(path string) error {
			for _, n := range nodes {
				if n == path {
					return nil
				}
				if n == "closed "+path {
					return &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
				}
			}
			return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		},
		qemu:   func(context.Context) (string, error) { return "11.1.3", nil },
		free:   func() (uint64, error) { return 100 << 30, nil },
		synced: func() (bool, error) { return true, nil },
	}
}

func with(files map[string]string, more ...string) map[string]string {
	all := map[string]string{}
	for name, text := range files {
		all[name] = text
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

// Hosts of each kind, as far as doctor looks at them. The rented one is recorded; those with TDX and SEV-SNP follow the kernel's
// documentation, for there was none to record.
var (
	rented = map[string]string{
		"/proc/cpuinfo":              "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu vme sse2 ht syscall nx hypervisor lahf_lm cmp_legacy\n",
		"/proc/meminfo":              "MemTotal:       24606940 kB\nMemFree:        18950148 kB\nMemAvailable:   23085268 kB\n",
		"/proc/sys/kernel/osrelease": "6.18.44-fc-v782\n",
	}
	laptop = with(rented, "/proc/cpuinfo", "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM)\nflags\t\t: fpu vmx\n")
	tdHost = with(laptop, guest.TDXSwitch, "Y\n", "/run/tdx-qgs/qgs.socket", "")
	snHost = with(rented, "/proc/cpuinfo", "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654\nflags\t\t: fpu svm sev_snp\n", guest.SNPSwitch, "Y\n")
)

// oneGPU is one as sysfs has it. What else can be with it is for tools/internal/hostgpu.
var oneGPU = []string{"/sys/bus/pci/devices/0000:41:00.0/vendor", "0x10de\n", "/sys/bus/pci/devices/0000:41:00.0/class", "0x030200\n",
	"/sys/bus/pci/devices/0000:41:00.0/device", "0x2335\n", "/sys/bus/pci/devices/0000:41:00.0/resource", "0x000000003c000000 0x000000003cffffff 0x000000000014220c\n"}

func TestExamine(t *testing.T) {
	td, sn := needs{platform: "tdx", memoryMiB: 1024, diskMiB: 1024}, needs{platform: "sev-snp", memoryMiB: 1024, diskMiB: 1024}
	vtpm := needs{platform: "vtpm", memoryMiB: 1024, diskMiB: 1024}
	gpu := td
	gpu.gpu = true
	tdNodes := []string{"/dev/kvm", "/dev/vhost-vsock"}
	older := recordedHost(tdHost, tdNodes...)
	older.qemu = func(context.Context) (string, error) { return "10.0.13", nil }
	none := recordedHost(laptop, "/dev/kvm")
	none.qemu = func(context.Context) (string, error) { return "", errors.New("no tree") }
	full := recordedHost(laptop, "/dev/kvm")
	full.free = func() (uint64, error) { return 1 << 30 / 2, nil }
	wild := recordedHost(laptop, "/dev/kvm")
	wild.synced = func() (bool, error) { return false, nil }
	for _, tt := range []struct {
		name string
		host host
		need needs
		want string // what is not well: NAME STATE, and a word of what mends it
	}{
		{"a laptop", recordedHost(laptop, "/dev/kvm"), vtpm, ""},
		{"a rented machine", recordedHost(rented), vtpm, "processor slow nested; kvm slow load kvm_intel"},
		{"KVM without rights", recordedHost(laptop, "closed /dev/kvm"), vtpm, "kvm slow usermod -aG kvm"},
		{"KVM without rights, for a TD", recordedHost(tdHost, "closed /dev/kvm", "/dev/vhost-vsock"), td, "kvm missing usermod -aG kvm"},
		{"a TDX host", recordedHost(tdHost, tdNodes...), td, ""},
		{"a TDX host asked for SEV-SNP", recordedHost(tdHost, tdNodes...), sn, "processor missing another --platform; sev-snp missing SNP memory coverage"},
		{"TDX off in the firmware", recordedHost(with(tdHost, guest.TDXSwitch, "N\n"), tdNodes...), td, "tdx missing SEAM loader"},
		{"no TDX in the kernel", recordedHost(with(tdHost, guest.TDXSwitch, "-"), tdNodes...), td, "tdx missing kvm_intel.tdx=1"},
		{"an old kernel", recordedHost(with(tdHost, "/proc/sys/kernel/osrelease", "6.12.41+deb13-amd64\n"), tdNodes...), td, "kernel missing trixie-backports"},
		{"no quoting service", recordedHost(with(tdHost, "/run/tdx-qgs/qgs.socket", "-"), tdNodes...), td, "quoting-service slow tdx-qgs"},
		{"no vsock", recordedHost(tdHost, "/dev/kvm"), td, "vsock slow modprobe"},
		{"an old QEMU", older, td, "qemu missing image build"},
		{"no QEMU", none, vtpm, "qemu missing image build"},
		{"an SEV-SNP host", recordedHost(snHost, "/dev/kvm", "/dev/sev"), sn, ""},
		{"an SEV-SNP host of root's", recordedHost(snHost, "/dev/kvm", "closed /dev/sev"), sn, "sev-snp missing as root"},
		{"a GPU that nothing has, on a kernel without iommufd", recordedHost(with(tdHost, oneGPU...), tdNodes...), gpu,
			"gpu-driver missing set-override 0000:41:00.0; gpu-iommu missing intel_iommu=on; iommufd missing modprobe iommufd; gpu-mode slow as root"},
		{"no GPU", recordedHost(tdHost, tdNodes...), gpu, "gpu missing lspci"},
		{"little memory", recordedHost(with(laptop, "/proc/meminfo", "MemAvailable:   1500000 kB\n"), "/dev/kvm"), vtpm, "memory missing --memory"},
		{"a full disk", full, vtpm, "disk missing make place"},
		{"nobody's clock", wild, vtpm, "clock slow timesyncd"},
	} {
		var got []finding
		for _, f := range examine(t.Context(), tt.host, tt.need) {
			if f.State != fine {
				got = append(got, f)
			} else if f.Mend != "" {
				t.Errorf("%s: %s is well, and is to be mended: %s", tt.name, f.Name, f.Mend)
			}
		}
		var want []string
		if tt.want != "" {
			want = strings.Split(tt.want, "; ")
		}
		for i := range max(len(got), len(want)) {
			if i >= len(got) || i >= len(want) {
				t.Errorf("%s: got %+v, want %q", tt.name, got, want)
				break
			}
			word := strings.SplitN(want[i], " ", 3)
			if f := got[i]; f.Name != word[0] || string(f.State) != word[1] || !strings.Contains(f.Mend, word[2]) {
				t.Errorf("%s: got %+v, want %s", tt.name, f, want[i])
			}
		}
	}
}
