package measure

import (
	"fmt"
	"slices"
	"strings"

	"chrysalis/measure/snp"
)

// ForSNP returns the shape as that of an SEV-SNP guest whose CPUs are of one of QEMU's types: no TPM, no system management mode, and no
// virtio device that reaches for private memory.
func (s Shape) ForSNP(cpuType string) Shape {
	s = s.confidential()
	if !strings.Contains(s.Machine, ",smm=") {
		s.Machine += ",smm=off"
	}
	s.Platform, s.CPUVendor, s.CPU, s.Processor = SEVSNP, VendorAMD, cpuType, ""
	return s
}

// isSNP reports what keeps QEMU from starting the shape as an SEV-SNP guest, or its launch digest from being known.
func (s Shape) isSNP() error {
	if !strings.Contains(s.Machine+",", ",smm=off,") {
		return fmt.Errorf("machine is %q, want smm=off, as an SEV-SNP guest has it", s.Machine)
	}
	if s.CPUVendor != VendorAMD {
		return fmt.Errorf("cpu_vendor is %q, want %q", s.CPUVendor, VendorAMD)
	}
	if _, err := snp.CPUSignature(s.cpuType()); err != nil {
		return fmt.Errorf("cpu is %q, want one whose signature is known, for the launch digest covers it: %w", s.CPU, err)
	}
	if i := slices.IndexFunc(s.Devices, isTPM); i >= 0 {
		return fmt.Errorf("device %q is a TPM of the host's, want none", s.Devices[i])
	}
	return nil
}

// cpuType is the CPU's name without its switches.
func (s Shape) cpuType() string {
	name, _, _ := strings.Cut(s.CPU, ",")
	return name
}

// snpFeatures are SEV_FEATURES as QEMU starts a guest that asks for no more: SEV-SNP.
const snpFeatures = 1

// SNPLaunch is what decides over the launch digest of a guest of the shape, that boots the kernel directly with its hashes in the
// firmware's page. It refuses another platform's shape.
func (s Shape) SNPLaunch(firmware []byte, kernel *snp.Kernel) (snp.Launch, error) {
	if s.Platform != SEVSNP {
		return snp.Launch{}, fmt.Errorf("platform is %q, want %q", s.Platform, SEVSNP)
	}
	if err := s.Check(); err != nil {
		return snp.Launch{}, err
	}
	signature, err := snp.CPUSignature(s.cpuType())
	if err != nil {
		return snp.Launch{}, err
	}
	return snp.Launch{Firmware: firmware, VCPUs: s.CPUs, Signature: signature, GuestFeatures: snpFeatures, Kernel: kernel}, nil
}
