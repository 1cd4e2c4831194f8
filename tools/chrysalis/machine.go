package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

// platformVTPM is what a shape that names no platform is of.
const platformVTPM = "vtpm"

// snpFirmware is the release's firmware for SEV-SNP guests, with a page for the hashes of kernel, initrd and command line.
const snpFirmware = "OVMF.amdsev.fd"

// machineFlags say which machine a guest gets, beside its size.
type machineFlags struct {
	platform, accelerator string
	quoteSocket           string
	quotingPort           uint32
	guestCID              uint32
	snpPolicy             uint64
	certificates          []string
	collateral            string
	rims, ocsp            []string

	slow error // why the machine that shape returned is emulated, where nobody asked for that
}

func (f *machineFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.platform, "platform", "", "vtpm, tdx or sev-snp (default: the shape's, or vtpm)")
	flags.StringVar(&f.accelerator, "accelerator", "", "kvm or tcg, which emulates (default: kvm where it runs a guest of the platform; under tcg the hardware of tdx and sev-snp is software)")
	flags.StringVar(&f.quoteSocket, "quote-socket", guest.DefaultQuoteSocket, "TDX: where QEMU reaches the host's quoting service, as vsock:CID:PORT or unix:PATH; none: nowhere")
	flags.Uint32Var(&f.quotingPort, "quoting-port", 0, "TDX: vsock port on which the guest asks that service itself, which is faster; a shape of a file needs a vhost-vsock-pci device for it")
	flags.Uint32Var(&f.guestCID, "guest-cid", 3, "TDX, with --quoting-port: the guest's vsock address, another for each guest of this machine")
	flags.Uint64Var(&f.snpPolicy, "snp-policy", 0, "SEV-SNP: guest policy (default: sibling threads are allowed on hardware, nothing is in software)")
	flags.StringArrayVar(&f.certificates, "certificate", nil, "SEV-SNP: DER certificate of the machine's key, then the one that certifies it, for clients; may stand several times")
	flags.StringVar(&f.collateral, "collateral", "", "file with what clients judge the machine by: Intel's collateral as collateral fetch writes it, AMD's revocation list in DER")
	flags.StringArrayVar(&f.rims, "rim", nil, "with GPUs in the shape: file of reference values of their driver or firmware, which the guest and its clients judge them by (collateral fetch writes them); once for each")
	flags.StringArrayVar(&f.ocsp, "ocsp", nil, "with GPUs in the shape: file of a responder's answer about one of their certificates, for clients; once for each")
	cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions([]string{platformVTPM, string(measure.TDX), string(measure.SEVSNP)}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("accelerator", cobra.FixedCompletions([]string{string(measure.KVM), string(measure.TCG)}, cobra.ShellCompDirectiveNoFileComp))
}

// shape returns the shape in the file, or the demo's of the platform: that of a vtpm where none is named.
func (f *machineFlags) shape(ctx context.Context, g guest.Guest, file, release string) (s measure.Shape, err error) {
	accelerator := measure.Accelerator(f.accelerator)
	if accelerator != "" && accelerator != measure.KVM && accelerator != measure.TCG {
		return s, fmt.Errorf("--accelerator is %q, want %s or %s", accelerator, measure.KVM, measure.TCG)
	}
	if file != "" {
		if s, err = guest.ReadShape(file); err != nil {
			return s, err
		}
		if want := cmp.Or(string(s.Platform), platformVTPM); f.platform != "" && f.platform != want {
			return s, fmt.Errorf("--platform is %s, and %s is of %s: want --platform %s", f.platform, file, want, want)
		}
		if accelerator != "" && accelerator != s.Accelerator {
			return s, fmt.Errorf("--accelerator is %s, and %s is of %s: want --accelerator %s", accelerator, file, s.Accelerator, s.Accelerator)
		}
		return s, nil
	}
	switch f.platform {
	case "", platformVTPM:
		return f.vtpmShape(ctx, g, filepath.Join(release, "OVMF_CODE.fd"), accelerator)
	case string(measure.TDX), string(measure.SEVSNP):
		p := measure.Platform(f.platform)
		firmware := filepath.Join(release, map[measure.Platform]string{measure.TDX: tdxFirmware, measure.SEVSNP: snpFirmware}[p])
		offers := guest.Offers(measure.Shape{Platform: p, Accelerator: measure.KVM})
		if accelerator == measure.KVM || accelerator == "" && offers == nil {
			s, err = guest.HardwareShapeHere(ctx, g.Tree, p, firmware)
		} else {
			if accelerator == "" {
				f.slow = offers
			}
			s, err = guest.SoftwareHere(ctx, g.Tree, p, firmware)
		}
		if err == nil && p == measure.TDX && f.quotingPort != 0 {
			s = guest.WithVsock(s, f.guestCID)
		}
		return s, err
	}
	return s, fmt.Errorf("platform %q, want %s, %s or %s", f.platform, platformVTPM, measure.TDX, measure.SEVSNP)
}

// vtpmShape is the demo's machine with a TPM of the host's.
func (f *machineFlags) vtpmShape(ctx context.Context, g guest.Guest, firmware string, accelerator measure.Accelerator) (s measure.Shape, err error) {
	if accelerator == "" {
		s, f.slow, err = guest.MachineShape(ctx, g.Tree, firmware)
		return s, err
	}
	version, err := qemu.Version(ctx, g.Tree)
	if err != nil {
		return measure.Shape{}, err
	}
	if accelerator == measure.TCG {
		return guest.DefaultShape(version, nil, firmware)
	}
	seen, err := qemu.Accelerated(ctx, g.Tree, firmware)
	if err != nil {
		return measure.Shape{}, fmt.Errorf("--accelerator %s: %w", accelerator, err)
	}
	return guest.DefaultShape(version, &seen, firmware)
}

// speed says what runs the machine, and why.
func (f *machineFlags) speed(s measure.Shape, given bool) string {
	switch {
	case given:
		return fmt.Sprintf("%s, as the shape says", s.Accelerator)
	case s.Accelerator == measure.KVM:
		return "kvm, this machine's own virtualisation"
	case f.slow != nil:
		return fmt.Sprintf("tcg, which emulates and takes many times as long: %v", f.slow)
	}
	return "tcg, which emulates, as --accelerator says"
}

// hardware is what QEMU and the guest are told beside the shape. What is for another platform than the shape's is left out where it is
// a flag's default, and refused where somebody gave it.
func (f *machineFlags) hardware(s measure.Shape) (h guest.Hardware, err error) {
	switch {
	case f.quotingPort != 0 && s.Platform != measure.TDX:
		return h, fmt.Errorf("--quoting-port is for %s, and this machine is a %s", measure.TDX, cmp.Or(string(s.Platform), platformVTPM))
	case f.quotingPort != 0 && !guest.HasVsock(s):
		return h, errors.New("--quoting-port needs a vhost-vsock-pci device, and the shape has none")
	case f.snpPolicy != 0 && s.Platform != measure.SEVSNP:
		return h, fmt.Errorf("--snp-policy is for %s, and this machine is a %s", measure.SEVSNP, cmp.Or(string(s.Platform), platformVTPM))
	}
	h.QuotingPort = f.quotingPort
	if s.Platform == measure.TDX && s.Accelerator == measure.KVM && f.quoteSocket != "none" {
		h.QuoteSocket = f.quoteSocket
	}
	if s.Platform == measure.SEVSNP {
		if h.SNPPolicy = f.snpPolicy; h.SNPPolicy == 0 {
			h.SNPPolicy = guest.DefaultSNPPolicy
			if guest.Simulated(s) {
				h.SNPPolicy = guest.StrictSNPPolicy
			}
		}
	}
	for _, file := range f.certificates {
		der, err := readInput(file)
		if err != nil {
			return h, err
		}
		h.Endorsements.Certificates = append(h.Endorsements.Certificates, der)
	}
	if f.collateral != "" {
		if h.Endorsements.Collateral, err = readInput(f.collateral); err != nil {
			return h, err
		}
	}
	for _, of := range []struct {
		files []string
		to    *[][]byte
	}{{f.rims, &h.Endorsements.RIMs}, {f.ocsp, &h.Endorsements.OCSP}} {
		for _, file := range of.files {
			document, err := readInput(file)
			if err != nil {
				return h, err
			}
			*of.to = append(*of.to, document)
		}
	}
	if len(s.GPUs) == 0 && len(f.rims)+len(f.ocsp) > 0 {
		return h, errors.New("--rim and --ocsp are for GPUs, and the shape has none")
	}
	if s.Platform == "" && (len(f.certificates) > 0 || f.collateral != "") {
		return h, fmt.Errorf("--certificate and --collateral are for %s and %s, and this machine is a %s", measure.TDX, measure.SEVSNP, platformVTPM)
	}
	return h, nil
}
