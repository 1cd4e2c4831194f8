package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"chrysalis/measure/pe"
	"chrysalis/measure/register"
	"chrysalis/measure/tdvf"
)

// TDXBoot is a direct boot of a TDX guest.
type TDXBoot struct {
	Firmware []byte // whole image, code and variables
	Order    tdvf.Order
	Kernel   []byte    // nil: no RTMR1 and RTMR2
	Initrd   io.Reader // with Kernel
	Cmdline  string    // exactly the bytes of -append, with Kernel
	Shape    *Shape    // nil: no RTMR0, and RTMR1 as under QEMU 10 and newer
	Tables   Tables    // of Shape as TDX makes it, with Shape
}

// TDXRegisters are the registers that follow from files and the shape of the machine. RTMR3 is the guest's runtime log.
type TDXRegisters struct {
	MRTD  register.Digest384  `json:"mrtd"`
	RTMR0 *register.Digest384 `json:"rtmr0,omitempty"`
	RTMR1 *register.Digest384 `json:"rtmr1,omitempty"`
	RTMR2 *register.Digest384 `json:"rtmr2,omitempty"`
}

// tdxBuild says what a firmware build measures that can't be read off the file.
type tdxBuild struct {
	name        string
	settings    bool             // it measures settings before it believes them
	secureBoot  []byte           // the variable SecureBoot over an empty variable store
	bios        *biosInformation // what it adds to the machine's SMBIOS; nil: it measures none
	boot        []part           // the boot variables
	initrdFirst bool             // it puts the initrd's name before the command line
}

// tdxBuilds are the known builds by SHA-256 of the image without its variable store.
var tdxBuilds = map[string]tdxBuild{
	"c06fefe89e56dcce948f3c3a6756455ace2cfa7abb03fe5f641f1a616d9f49fb": {
		name: "Debian ovmf-inteltdx 2026.08+ds-2, OVMF.inteltdx.ms.fd", settings: true, secureBoot: []byte{0},
		bios: &biosInformation{"Debian distribution of EDK II", "2026.08+ds-2", "09/26/2026"},
		boot: plainBootVariables(), initrdFirst: true,
	},
}

// emptyVariables is the SHA-384 of OVMF's variable store of 528 KiB without variables.
const emptyVariables = "344bc51c980ba621aaa00da3ed7436f7d6e549197dfe699515dfa2c6583d95e6412af21c097d473155875ffd561d6790"

// Registers computes MRTD, with a shape RTMR0, and with a kernel RTMR1 and RTMR2. RTMR1 takes the kernel's image hash as the
// firmware loads it: QEMU from 10.0 on hands it over as the file is; older versions write into its setup header first.
func (b TDXBoot) Registers() (r TDXRegisters, err error) {
	mrtd, err := tdvf.MRTD(b.Firmware, b.Order)
	if err != nil {
		return r, err
	}
	r.MRTD = mrtd
	events, err := b.Events()
	if err != nil {
		return r, err
	}
	if b.Shape != nil {
		rtmr0 := replay384(events, 0)
		r.RTMR0 = &rtmr0
	}
	if b.Kernel != nil {
		rtmr1, rtmr2 := replay384(events, 1), replay384(events, 2)
		r.RTMR1, r.RTMR2 = &rtmr1, &rtmr2
	}
	return r, nil
}

// Events returns what firmware and kernel extend into RTMR0, with a shape, and into RTMR1 and RTMR2, with a kernel, in order
// within each. MRTD has no events.
func (b TDXBoot) Events() (events []RTMREvent, err error) {
	if b.Shape != nil {
		machine, err := b.rtmr0()
		if err != nil {
			return nil, fmt.Errorf("measuring machine: %w", err)
		}
		events = events384(0, machine...)
	}
	if b.Kernel == nil {
		return events, nil
	}
	options := LoadOptions
	if build, ok := tdxBuilds[codeHash(b.Firmware)]; ok && build.initrdFirst {
		options = LoadOptionsFirst
	}
	cmdline, err := options(b.Cmdline)
	if err != nil {
		return nil, fmt.Errorf("measuring command line: %v", err)
	}
	if b.Initrd == nil {
		return nil, errors.New("measuring initrd: none given")
	}
	initrd := sha512.New384()
	size, err := io.Copy(initrd, b.Initrd)
	if err != nil {
		return nil, fmt.Errorf("measuring initrd: %w", err)
	}
	image := b.Kernel
	if b.Shape != nil && !b.Shape.Newer(10) {
		if image, err = PatchKernel(image, size, b.Shape.MemoryMiB); err != nil {
			return nil, fmt.Errorf("measuring kernel: %w", err)
		}
	}
	kernel := sha512.New384()
	if err := pe.WriteHash(kernel, image); err != nil {
		return nil, fmt.Errorf("measuring kernel: %v", err)
	}
	events = append(events, RTMREvent{1, InputKernel, "", [48]byte(kernel.Sum(nil))})
	events = append(events, events384(1, callingApplication, separator, exitBootServices, exitedBootServices)...)
	return append(events, RTMREvent{2, InputCmdline, "", sha512.Sum384(cmdline)},
		RTMREvent{2, InputInitrd, "", [48]byte(initrd.Sum(nil))}), nil
}

// rtmr0 returns, in order: the memory that the hypervisor says there is, the variable store, settings, the Secure Boot
// variables and a separator, ACPI tables, SMBIOS, boot variables. Sources: EDK2, OvmfPkg/IntelTdx and OvmfPkg/Tcg/TdTcg2Dxe.
func (b TDXBoot) rtmr0() ([]part, error) {
	if err := errors.Join(b.Shape.Check(), b.Shape.isTDX()); err != nil {
		return nil, err
	}
	sections, err := tdvf.Sections(b.Firmware)
	if err != nil {
		return nil, err
	}
	build, variables, err := b.build(sections)
	if err != nil {
		return nil, err
	}
	memory, err := b.Tables.Memory()
	if err != nil {
		return nil, err
	}
	hob, err := tdvf.HOB(sections, memory)
	if err != nil {
		return nil, err
	}
	measured := []part{{InputMemory, "", hob}, {InputVariableStore, "", variables}}
	if build.settings {
		settings, err := b.Tables.tdxSettings()
		if err != nil {
			return nil, err
		}
		measured = append(measured, settings...)
	}
	tables, err := b.Tables.measured()
	if err != nil {
		return nil, err
	}
	measured = slices.Concat(measured, secureBootVariables(build.secureBoot), []part{separator}, tables)
	if build.bios != nil {
		smbios, err := b.Tables.smbios(*build.bios, *b.Shape)
		if err != nil {
			return nil, err
		}
		measured = append(measured, part{InputSMBIOS, "", smbios})
	}
	return append(measured, build.boot...), nil
}

// build returns what is known of the firmware, and its variable store, which must be empty.
func (b TDXBoot) build(sections []tdvf.Section) (tdxBuild, []byte, error) {
	i := slices.IndexFunc(sections, func(s tdvf.Section) bool { return s.Type == tdvf.SectionVariables })
	if i < 0 {
		return tdxBuild{}, nil, fmt.Errorf("firmware has no variable store among %d sections", len(sections))
	}
	start, end := sections[i].Offset, sections[i].Offset+sections[i].Size
	sum := codeHash(b.Firmware)
	build, ok := tdxBuilds[sum]
	if !ok {
		return build, nil, fmt.Errorf("firmware without its variable store has SHA-256 %s, which is no known build: what it measures into "+
			"RTMR0 can't be read off the file", sum)
	}
	variables := b.Firmware[start:end]
	if got := sha512.Sum384(variables); hex.EncodeToString(got[:]) != emptyVariables {
		return build, nil, fmt.Errorf("%s: variable store of %d bytes has SHA-384 %x, want the empty one, %s", build.name, len(variables), got,
			emptyVariables)
	}
	return build, variables, nil
}

// codeHash is the SHA-256 of a firmware image without its variable store, "" where it has none.
func codeHash(firmware []byte) string {
	sections, err := tdvf.Sections(firmware)
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(sections, func(s tdvf.Section) bool { return s.Type == tdvf.SectionVariables })
	if i < 0 {
		return ""
	}
	code := sha256.New()
	code.Write(firmware[:sections[i].Offset])
	code.Write(firmware[sections[i].Offset+sections[i].Size:])
	return hex.EncodeToString(code.Sum(nil))
}

// TDX returns the shape as QEMU makes it for a TDX guest, which has no system management mode and no legacy interrupt
// controller. Source: QEMU, target/i386/kvm/tdx.c, tdx_kvm_init.
func (s Shape) TDX() Shape {
	for _, name := range []string{"smm", "pic"} {
		if !strings.Contains(s.Machine, ","+name+"=") {
			s.Machine += "," + name + "=off"
		}
	}
	return s
}

// ForTD returns the shape as that of a TDX guest: TDX, no TPM, and no virtio device that reaches for private memory.
func (s Shape) ForTD() Shape {
	s = s.TDX().confidential()
	s.Platform, s.CPUVendor = TDX, VendorIntel
	return s
}

// confidential returns the shape without a TPM of the host's, and with devices that leave private memory alone.
func (s Shape) confidential() Shape {
	s.Devices = slices.DeleteFunc(slices.Clone(s.Devices), isTPM)
	for i, d := range s.Devices {
		if isVirtioPCI(d) && !strings.HasSuffix(d, shared) {
			s.Devices[i] += shared
		}
	}
	return s
}

func isTPM(device string) bool { return strings.HasPrefix(device, "tpm-") }

// isTDX reports what keeps QEMU from starting the shape as a TDX guest, or its registers from being known.
func (s Shape) isTDX() error {
	for _, name := range []string{"smm", "pic"} {
		if !strings.Contains(s.Machine+",", ","+name+"=off,") {
			return fmt.Errorf("machine is %q, want %s=off, as a TDX guest has it", s.Machine, name)
		}
	}
	if s.CPUVendor != VendorIntel {
		return fmt.Errorf("cpu_vendor is %q, want %q", s.CPUVendor, VendorIntel)
	}
	if i := slices.IndexFunc(s.Devices, isTPM); i >= 0 {
		return fmt.Errorf("device %q is a TPM of the host's, want none", s.Devices[i])
	}
	return nil
}
