package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/hostgpu"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// host is a machine that is looked at. Tests have recorded ones.
type host struct {
	files  fs.FS                                          // its root
	opens  func(path string) error                        // for reading and writing
	qemu   func(context.Context) (newest string, _ error) // version of the newest QEMU that up can start
	free   func() (bytes uint64, err error)               // on the disk of the work folder
	synced func() (bool, error)                           // whether something keeps its clock
	// register reads a word of a device's memory, as hostgpu.ReadRegister does.
	register func(files fs.FS, name string, offset int64) (uint32, error)
}

// needs are what the guest needs of a host.
type needs struct {
	platform  string // of allPlatforms
	gpu       bool
	memoryMiB int
	diskMiB   int
}

// severity is how much a finding weighs.
type severity string

const (
	fine   severity = "ok"
	slow   severity = "slow"    // a guest starts, and is slow, or what it shows is weaker
	absent severity = "missing" // a guest of what was asked for does not start, or proves nothing
)

// finding is one thing about a host.
type finding struct {
	Name  string   `json:"name"`
	State severity `json:"state"`
	Found string   `json:"found"`
	Need  string   `json:"need"`
	Mend  string   `json:"mend,omitempty"` // what to do, where something is to be done
}

// examinations are all that is looked at, in the order in which one thing rests on another. One returns no finding where the question
// does not arise.
var examinations = []struct {
	name string
	look func(context.Context, host, needs) *finding
}{
	{"processor", lookProcessor},
	{"kvm", lookKVM},
	{"kernel", lookKernel},
	{"tdx", lookTDX},
	{"quoting-service", lookQuotes},
	{"sev-snp", lookSNP},
	{"vsock", lookVsock},
	{"qemu", lookQEMU},
	{"gpu", nil}, // several findings: lookGPUs
	{"memory", lookMemory},
	{"disk", lookDisk},
	{"clock", lookClock},
}

// read returns a small file of the host as text.
func (h host) read(name string) (string, error) {
	const most = 1 << 20
	f, err := h.files.Open(strings.TrimPrefix(name, "/"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	return strings.TrimSpace(string(data)), err
}

func (h host) has(name string) bool {
	_, err := fs.Stat(h.files, strings.TrimPrefix(name, "/"))
	return err == nil
}

// lookProcessor looks for virtualisation, and for a processor of the platform's maker.
func lookProcessor(_ context.Context, h host, n needs) *finding {
	text, err := h.read("/proc/cpuinfo")
	if err != nil {
		return &finding{State: absent, Found: err.Error(), Need: "/proc/cpuinfo"}
	}
	value := map[string]string{}
	for line := range strings.Lines(text) {
		name, v, _ := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); value[name] == "" {
			value[name] = strings.TrimSpace(v)
		}
	}
	flags := strings.Fields(value["flags"])
	f := &finding{State: fine, Found: value["model name"], Need: "virtualisation (vmx or svm)"}
	maker := map[string]string{string(measure.TDX): measure.VendorIntel, string(measure.SEVSNP): measure.VendorAMD}[n.platform]
	switch {
	case maker != "" && value["vendor_id"] != maker:
		f.State, f.Need, f.Mend = absent, maker, "choose another --platform: this processor has none of "+n.platform
	case !slices.Contains(flags, "vmx") && !slices.Contains(flags, "svm"):
		f.State, f.Found = slow, f.Found+", without virtualisation"
		f.Mend = "switch VT-x or SVM on in the machine's firmware; on a rented machine ask for nested virtualisation"
		if n.platform != platformVTPM {
			f.State = absent
		}
	}
	return f
}

func lookKVM(_ context.Context, h host, n needs) *finding {
	f := &finding{State: fine, Found: "/dev/kvm opens", Need: "/dev/kvm, open to this user"}
	if err := h.opens("/dev/kvm"); err != nil {
		f.State, f.Found, f.Mend = slow, "a guest would be emulated, many times slower", qemu.Mended(err).Error()
		if n.platform != platformVTPM {
			f.State, f.Found = absent, "a guest of "+n.platform+" would have no hardware"
		}
	}
	return f
}

// oldestKernels are the first kernels whose KVM starts guests of a platform.
var oldestKernels = map[string][2]int{string(measure.TDX): {6, 16}, string(measure.SEVSNP): {6, 11}}

func lookKernel(_ context.Context, h host, n needs) *finding {
	oldest, asked := oldestKernels[n.platform]
	if !asked {
		return nil
	}
	release, err := h.read("/proc/sys/kernel/osrelease")
	f := &finding{State: fine, Found: release, Need: fmt.Sprintf("%d.%d or newer", oldest[0], oldest[1])}
	var major, minor int
	if _, scan := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || scan != nil || major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		f.State, f.Mend = absent, "install a newer kernel (trixie-backports has one)"
	}
	return f
}

// lookSwitch looks at a parameter of a module of KVM's that says Y.
func lookSwitch(h host, parameter, mend string) *finding {
	f := &finding{State: fine, Need: parameter + " says Y"}
	word, err := h.read(parameter)
	if f.Found = "it says " + word; err != nil {
		f.Found = "it is not there"
	}
	if word != "Y" && word != "1" {
		f.State, f.Mend = absent, mend
	}
	return f
}

func lookTDX(_ context.Context, h host, n needs) *finding {
	if n.platform != string(measure.TDX) {
		return nil
	}
	return lookSwitch(h, guest.TDXSwitch, "firmware: TME, TME-MT, TDX, SEAM loader on, a key id split of 1 at least; kernel: kvm_intel.tdx=1; then dmesg | grep -i tdx")
}

func lookQuotes(_ context.Context, h host, n needs) *finding {
	if n.platform != string(measure.TDX) {
		return nil
	}
	socket := strings.TrimPrefix(guest.UnixQuoteSocket, "unix:")
	f := &finding{State: fine, Found: socket, Need: "Intel's quoting service at " + guest.DefaultQuoteSocket + " or " + socket}
	if !h.has(strings.TrimPrefix(socket, "/var")) && !h.has(socket) {
		f.State, f.Found = slow, "no socket at "+socket+"; whether one answers by vsock shows at the first quote"
		f.Mend = "install tdx-qgs and register the platform (PCCS), or name it with --quote-socket; without one no client accepts the guest"
	}
	return f
}

func lookSNP(_ context.Context, h host, n needs) *finding {
	if n.platform != string(measure.SEVSNP) {
		return nil
	}
	f := lookSwitch(h, guest.SNPSwitch, "firmware: SMEE, SEV-SNP, SNP memory coverage (RMP) on, SEV ASID limit above 1; kernel: kvm_amd.sev_snp=1, no iommu=off; then dmesg | grep -i sev")
	if err := h.opens("/dev/sev"); f.State == fine && err != nil {
		f.State, f.Found, f.Need, f.Mend = absent, err.Error(), "/dev/sev, open to this user", "start as root, or give the user's group the device"
	}
	return f
}

func lookVsock(_ context.Context, h host, n needs) *finding {
	if n.platform != string(measure.TDX) {
		return nil
	}
	f := &finding{State: fine, Found: "/dev/vhost-vsock opens", Need: "/dev/vhost-vsock, for --quoting-port, with which quotes take milliseconds and not a second"}
	if err := h.opens("/dev/vhost-vsock"); err != nil {
		f.State, f.Found, f.Mend = slow, err.Error(), "modprobe vhost_vsock"
	}
	return f
}

func lookQEMU(ctx context.Context, h host, n needs) *finding {
	f := &finding{State: fine, Need: "a QEMU of the tools tree"}
	version, err := h.qemu(ctx)
	if f.Found = "QEMU " + version; err != nil {
		f.State, f.Found, f.Mend = absent, err.Error(), "chrysalis image build, as root in a clone of the source, makes it"
		return f
	}
	if n.platform != platformVTPM {
		f.Need = "QEMU 10.1 or newer"
		var major, minor int
		if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil || major < 10 || major == 10 && minor < 1 {
			f.State, f.Mend = absent, "chrysalis image build brings one that starts guests of "+n.platform
		}
	}
	return f
}

// lookGPUs looks at the GPUs that a guest can be given.
func lookGPUs(h host, n needs) (all []finding) {
	if !n.gpu {
		return nil
	}
	for _, f := range hostgpu.Look(h.gpus(), nil, n.platform != platformVTPM) {
		all = append(all, finding{Name: f.Name, State: severity(f.Weight), Found: f.Found, Need: f.Need, Mend: f.Mend})
	}
	return all
}

func (h host) gpus() hostgpu.Host {
	return hostgpu.Host{Files: h.files, Opens: h.opens, Read: h.register}
}

func lookMemory(_ context.Context, h host, n needs) *finding {
	want := n.memoryMiB + 512 // what QEMU takes beside
	f := &finding{State: absent, Need: fmt.Sprintf("%d MiB free", want), Mend: "end other programs, or give the guest less (--memory)"}
	text, err := h.read("/proc/meminfo")
	if err != nil {
		f.Found = err.Error()
		return f
	}
	for line := range strings.Lines(text) {
		var kib int
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			if f.Found = fmt.Sprintf("%d MiB free", kib>>10); kib>>10 >= want {
				f.State, f.Mend = fine, ""
			}
		}
	}
	return f
}

func lookDisk(_ context.Context, h host, n needs) *finding {
	f := &finding{State: absent, Need: fmt.Sprintf("%d MiB free", n.diskMiB), Mend: "make place on the disk of this folder"}
	free, err := h.free()
	if f.Found = fmt.Sprintf("%d MiB free", free>>20); err != nil {
		f.Found = err.Error()
	} else if free>>20 >= uint64(n.diskMiB) {
		f.State, f.Mend = fine, ""
	}
	return f
}

func lookClock(_ context.Context, h host, _ needs) *finding {
	f := &finding{State: fine, Found: "kept by a time service", Need: "a clock that is right: certificates and collateral have dates"}
	if synced, err := h.synced(); err != nil || !synced {
		f.State, f.Found, f.Mend = slow, "nothing keeps the clock", "apt-get install systemd-timesyncd, or chrony"
	}
	return f
}

// examine returns what is found of the host, in the order of examinations.
func examine(ctx context.Context, h host, n needs) (all []finding) {
	for _, x := range examinations {
		if x.look == nil {
			all = append(all, lookGPUs(h, n)...)
		} else if f := x.look(ctx, h, n); f != nil {
			f.Name = x.name
			all = append(all, *f)
		}
	}
	return all
}

// thisHost is the machine that this program runs on.
func thisHost(tree string) host {
	return host{
		files: os.DirFS("/"),
		opens: func(path string) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return f.Close()
		},
		qemu: func(ctx context.Context) (string, error) {
			t, err := toolstree.Open(tree)
			if err != nil {
				return "", err
			}
			if newer, err := t.WithNewerQEMU(); err == nil {
				t = newer
			}
			return qemu.Version(ctx, t)
		},
		free:     freeHere,
		synced:   clockIsKept,
		register: hostgpu.ReadRegister,
	}
}

func newDoctor() *cobra.Command {
	var n needs
	var tree string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say whether this machine can run a guest, and what to do where it can't", Args: cobra.NoArgs,
		Long: "Looks at processor, kernel, KVM and its rights, TDX or SEV-SNP and what serves quotes, QEMU, memory, disk and clock, and with --gpu at the GPUs:\n" +
			"what has them, their IOMMU groups, iommufd, windows, confidential mode (by their registers, as root) and VBIOS. Of each it says\n" +
			"what was found, what is needed, and the setting or command that mends it. It changes nothing, and works without root as far as it can.\n" +
			"Exit code 0: a guest runs. 1: something is missing. What is slow, or weaker, does not count.",
		Example: "  chrysalis doctor\n  chrysalis doctor --platform tdx --gpu\n  chrysalis doctor --platform sev-snp --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(allPlatforms, n.platform) {
				return exitError{exitUsage, fmt.Errorf("--platform is %.40q, want %s", n.platform, strings.Join(allPlatforms, ", "))}
			}
			found := examine(cmd.Context(), thisHost(tree), n)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), found); err != nil {
					return err
				}
			} else {
				printFindings(cmd.OutOrStdout(), found)
			}
			if missing := slices.ContainsFunc(found, func(f finding) bool { return f.State == absent }); missing {
				return rejected(errors.New("this machine lacks what a guest of " + n.platform + " needs"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&n.platform, "platform", platformVTPM, "platform of the guest: vtpm, tdx or sev-snp")
	cmd.Flags().BoolVar(&n.gpu, "gpu", false, "the guest gets GPUs")
	cmd.Flags().IntVar(&n.memoryMiB, "memory", 1024, "MiB of memory of the guest")
	cmd.Flags().IntVar(&n.diskMiB, "disk", 1024, "MiB that the guest's folder, release and volumes take in this folder")
	cmd.Flags().StringVar(&tree, "tools-tree", "build/tools-tree", "tools tree with QEMU")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions(allPlatforms, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func printFindings(w io.Writer, found []finding) {
	for _, f := range found {
		say(w, "%-8s %-16s  %s\n", f.State, f.Name, printable(f.Found))
		if f.State != fine {
			say(w, "%-8s %-16s  want %s\n", "", "", f.Need)
		}
		if f.Mend != "" {
			say(w, "%-8s %-16s  do:  %s\n", "", "", f.Mend)
		}
	}
}
