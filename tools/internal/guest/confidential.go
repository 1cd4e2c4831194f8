package guest

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// Hardware is what QEMU is told about a machine beside its shape. None of it is measured but the policy of an SEV-SNP
// guest, which every report states.
type Hardware struct {
	// QuoteSocket is where QEMU reaches the host's quoting service for a TD: vsock:CID:PORT or unix:PATH; empty: there is none, and
	// the guest asks by itself over QuotingPort.
	QuoteSocket string `json:"quote_socket,omitzero"`
	// QuotingPort is the vsock port on which a TD asks the host's quoting service itself; 0: it asks by way of QEMU.
	QuotingPort uint32 `json:"quoting_port,omitzero"`
	// SNPPolicy is POLICY of an SEV-SNP guest.
	SNPPolicy uint64 `json:"snp_policy,omitzero"`
	// GPUs are the addresses on this machine's PCI of the devices that the shape's GPUs are, in their order. They are bound to vfio-pci.
	GPUs []string `json:"gpus,omitzero"`
	// Endorsements go to clients with the guest's evidence.
	Endorsements config.Endorsements `json:"endorsements,omitzero"`
}

const (
	// DefaultSNPPolicy allows sibling threads and nothing else: bit 17 must be one. SEV-SNP Firmware ABI, section 4.3.
	DefaultSNPPolicy = 1<<17 | 1<<16
	// DefaultQuoteSocket is where Intel's quoting service listens for QEMU.
	DefaultQuoteSocket = "vsock:2:4050"
	// DefaultQuotingPort is that service's port there.
	DefaultQuotingPort uint32 = 4050
	// UnixQuoteSocket is where it listens on the machine itself.
	UnixQuoteSocket = "unix:/var/run/tdx-qgs/qgs.socket"

	// The bit of a page's address that says that it is encrypted, and by how many bits addresses get shorter: those of every
	// processor with SEV-SNP so far. QEMU compares them with the processor's.
	cBitPosition, reducedPhysBits = 51, 1

	teeObject = "tee" // QEMU's name for it
)

// confidential returns what QEMU is told beside a plain machine: words for -machine, and the object that they name. A config's hash goes
// into the hardware's own field.
func confidential(s measure.Shape, h Hardware, measured []byte) (machine string, args []string, err error) {
	var object string
	switch s.Platform {
	case measure.TDX:
		id := config.MRConfigID(measured)
		tdx := map[string]any{"qom-type": "tdx-guest", "id": teeObject, "sept-ve-disable": true, "mrconfigid": base64.StdEncoding.EncodeToString(id[:])}
		if h.QuoteSocket != "" {
			if tdx["quote-generation-socket"], err = socketAddress(h.QuoteSocket); err != nil {
				return "", nil, err
			}
		}
		data, err := json.Marshal(tdx, json.Deterministic(true))
		if err != nil {
			return "", nil, err
		}
		object, machine = string(data), ",kernel-irqchip=split"
	case measure.SEVSNP:
		data := config.SHA256(measured)
		object = fmt.Sprintf("sev-snp-guest,id=%s,cbitpos=%d,reduced-phys-bits=%d,policy=%#x,kernel-hashes=on,host-data=%s", teeObject, cBitPosition,
			reducedPhysBits, h.SNPPolicy, base64.StdEncoding.EncodeToString(data[:]))
	default:
		return "", nil, nil
	}
	return machine + ",confidential-guest-support=" + teeObject, []string{"-object", object}, nil
}

// socketAddress is a socket as QEMU's JSON names it.
func socketAddress(text string) (map[string]string, error) {
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case "unix":
		if strings.HasPrefix(rest, "/") {
			return map[string]string{"type": "unix", "path": rest}, nil
		}
	case "vsock":
		cid, port, _ := strings.Cut(rest, ":")
		_, badCID := strconv.ParseUint(cid, 10, 32)
		_, badPort := strconv.ParseUint(port, 10, 32)
		if badCID == nil && badPort == nil {
			return map[string]string{"type": "vsock", "cid": cid, "port": port}, nil
		}
	}
	return nil, fmt.Errorf("socket is %.100q, want vsock:CID:PORT or unix:/PATH", text)
}

// check refuses what no guest of the platform starts with.
func (h Hardware) check(p measure.Platform) error {
	if h.QuoteSocket != "" {
		if _, err := socketAddress(h.QuoteSocket); err != nil {
			return err
		}
	}
	const always, debug, migration = 1 << 17, 1 << 19, 1 << 18
	switch {
	case p != measure.TDX && (h.QuoteSocket != "" || h.QuotingPort != 0):
		return fmt.Errorf("a quoting service is named, and the platform is %q: want %s", p, measure.TDX)
	case p != measure.SEVSNP && h.SNPPolicy != 0:
		return fmt.Errorf("a policy of SEV-SNP is named, and the platform is %q: want %s", p, measure.SEVSNP)
	case p == measure.SEVSNP && h.SNPPolicy&always == 0:
		return fmt.Errorf("policy is %#x, want bit 17 set, which the firmware asks for", h.SNPPolicy)
	case p == measure.SEVSNP && h.SNPPolicy&(debug|migration) != 0:
		return fmt.Errorf("policy is %#x, which allows debugging or a migration agent: no client accepts that", h.SNPPolicy)
	}
	return nil
}

// Simulated reports whether a program plays the hardware of the machine: emulation has none.
func Simulated(s measure.Shape) bool { return s.Platform != "" && s.Accelerator == measure.TCG }

// offers are the files in which KVM says that it starts guests of a platform.
var offers = map[measure.Platform]string{measure.TDX: TDXSwitch, measure.SEVSNP: SNPSwitch}

// Where KVM says whether it starts guests of a platform.
const (
	TDXSwitch = "/sys/module/kvm_intel/parameters/tdx"
	SNPSwitch = "/sys/module/kvm_amd/parameters/sev_snp"
)

// Offers says why this machine starts no guest of the shape, where it does not.
func Offers(s measure.Shape) error {
	file, confidential := offers[s.Platform]
	if !confidential || Simulated(s) {
		return nil
	}
	word, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("this machine's KVM starts no guest of %s: %w", s.Platform, err)
	}
	if got := strings.TrimSpace(string(word)); got != "Y" && got != "1" {
		return fmt.Errorf("this machine's KVM starts no guest of %s: %s says %q, want Y: look at the firmware's settings and the kernel's parameters",
			s.Platform, file, got)
	}
	return nil
}

// HardwareShape is the machine of a guest on hardware of the platform: the demo's, over the release's firmware for it.
func HardwareShape(qemuVersion string, p measure.Platform, here qemu.CPU, firmware string) (measure.Shape, error) {
	s, err := DefaultShape(qemuVersion, &here, firmware)
	if err != nil {
		return s, err
	}
	switch p {
	case measure.TDX:
		s = s.ForTD()
	case measure.SEVSNP:
		s = s.ForSNP(snpCPU)
	default:
		return s, fmt.Errorf("platform is %q, want %s or %s", p, measure.TDX, measure.SEVSNP)
	}
	return s, s.Check()
}

// vsock is the device by which a guest reaches the host's quoting service itself.
const vsock = "vhost-vsock-pci"

// WithVsock returns the shape of a TD with a vsock of that address.
func WithVsock(s measure.Shape, cid uint32) measure.Shape {
	s.Devices = append(slices.Clone(s.Devices), fmt.Sprintf("%s,guest-cid=%d", vsock, cid))
	return s.ForTD()
}

// vsockCID is the guest's address on it.
func vsockCID(s measure.Shape) string {
	for _, d := range s.Devices {
		if rest, has := strings.CutPrefix(d, vsock+",guest-cid="); has {
			cid, _, _ := strings.Cut(rest, ",")
			return cid
		}
	}
	return ""
}

// inEmulation is a device of the shape as QEMU's emulation has it: the kernel's vsock is one of a program's, with the same registers.
func inEmulation(device string) string {
	rest, has := strings.CutPrefix(device, vsock+",")
	if !has {
		return device
	}
	_, rest, _ = strings.Cut(rest, ",")
	return strings.TrimSuffix("vhost-user-vsock-pci,chardev=vsock,"+rest, ",")
}

// HasVsock reports whether the machine has one.
func HasVsock(s measure.Shape) bool {
	return slices.ContainsFunc(s.Devices, func(d string) bool { return strings.HasPrefix(d, vsock+",") })
}

// StrictSNPPolicy allows nothing that a guest can do without: one socket, AES-256, no energy counters, no ciphertext in the host's sight, no
// moving of pages, no sibling threads; and asks for the firmware's interface of version 1.55.
const StrictSNPPolicy = 1<<8 | 55 | 1<<17 | 1<<20 | 1<<22 | 1<<23 | 1<<24 | 1<<25

// snpCPU is a type that every processor with SEV-SNP can be, and that the launch digest is known of.
const snpCPU = "EPYC-v4"

// HardwareShapeHere is HardwareShape under the QEMU beside the tools tree, which is the first that starts TDs, over this machine's
// processor.
func HardwareShapeHere(ctx context.Context, tree toolstree.Tree, p measure.Platform, firmware string) (measure.Shape, error) {
	newer, err := tree.WithNewerQEMU()
	if err != nil {
		return measure.Shape{}, err
	}
	version, err := qemu.Version(ctx, newer)
	if err != nil {
		return measure.Shape{}, err
	}
	bits, err := physBits("/proc/cpuinfo")
	if err != nil {
		return measure.Shape{}, err
	}
	return HardwareShape(version, p, qemu.CPU{Vendor: measure.VendorIntel, PhysBits: bits}, firmware)
}

// physBits is how many bits an address of this processor has.
func physBits(cpuinfo string) (int, error) {
	text, err := os.ReadFile(cpuinfo)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "address sizes" {
			var bits int
			_, err := fmt.Sscanf(value, " %d bits physical", &bits)
			return bits, err
		}
	}
	return 0, fmt.Errorf("%s has no line with the address sizes of the processor", cpuinfo)
}
