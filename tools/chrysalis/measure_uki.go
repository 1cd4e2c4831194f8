package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/measure/pe"
	"chrysalis/measure/register"
	"chrysalis/measure/uki"
)

// ukiReport is measure uki's JSON.
type ukiReport struct {
	Stub     string                     `json:"stub"` // version, or "" where the image does not say
	Profile  int                        `json:"profile"`
	Profiles int                        `json:"profiles"`
	SHA256   string                     `json:"image_sha256"` // image hashes, as firmware extends them
	SHA384   string                     `json:"image_sha384"`
	PCRs     map[string]register.Digest `json:"pcrs"`
	Unknown  map[string]string          `json:"unknown"` // registers that do not follow from the image, and what decides over each
	Skipped  []string                   `json:"skipped"` // sections that the stub takes on another machine alone
}

func newMeasureUKI() *cobra.Command {
	var in vtpmInputs
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "uki FILE [--profile N]",
		Short: "PCR 4, 9, 11 and 12 of a unified kernel image, whatever firmware boots it",
		Long: "Computes what systemd's stub makes of an image (UAPI.5), by the version that the image says it has: sections as they lie in\n" +
			"memory, one of several profiles, microcode, splash, device tree, signed PCR 11. They are those of a boot by firmware of EDK2\n" +
			"without Secure Boot, before userspace extends PCR 11. A register that does not follow from the image is named with what decides over it.",
		Example: "  chrysalis measure uki linux.efi --json\n  chrysalis measure uki linux.efi --profile 1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.uki = args[0]
			r, err := in.ukiReport()
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			r.print(cmd.OutOrStdout(), cmd.ErrOrStderr())
			return nil
		},
	}
	cmd.Flags().IntVar(&in.profile, "profile", 0, "the image's profile that is asked for")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (in vtpmInputs) ukiReport() (r ukiReport, err error) {
	b, err := in.diskBoot()
	if err != nil {
		return r, err
	}
	image, err := uki.Read(b.UKI, b.Profile)
	if err != nil {
		return r, err
	}
	sha256, sha384, err := pe.Hashes(b.UKI)
	if err != nil {
		return r, err
	}
	pcrs, err := b.ImagePCRs()
	if err != nil {
		return r, err
	}
	r = ukiReport{Stub: image.Stub.Text, Profile: image.Profile, Profiles: image.Profiles, SHA256: hex.EncodeToString(sha256[:]),
		SHA384: hex.EncodeToString(sha384[:]), PCRs: map[string]register.Digest{}, Unknown: map[string]string{},
		Skipped: append([]string{}, image.Skipped()...)}
	for pcr, value := range pcrs {
		r.PCRs[fmt.Sprintf("pcr%d", pcr)] = value
	}
	for pcr, reason := range image.Unknown() {
		r.Unknown[fmt.Sprintf("pcr%d", pcr)] = reason
	}
	return r, nil
}

func (r ukiReport) print(out, notes io.Writer) {
	stub := "systemd-stub " + r.Stub
	if r.Stub == "" {
		stub = "the image does not say"
	}
	fmt.Fprintf(out, "stub    %s\nprofile %d of %d\nsha256  %s\nsha384  %s\n", printable(stub), r.Profile, r.Profiles, r.SHA256, r.SHA384)
	for _, pcr := range []string{"pcr4", "pcr9", "pcr11", "pcr12"} {
		if value, known := r.PCRs[pcr]; known {
			fmt.Fprintf(out, "%-7s %s\n", pcr, value)
		}
	}
	for _, pcr := range slices.Sorted(maps.Keys(r.Unknown)) {
		fmt.Fprintf(notes, "chrysalis: note: %s is not known: it follows from %s\n", pcr, printable(r.Unknown[pcr]))
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintf(notes, "chrysalis: note: not measured: %s, which the stub takes on a machine that .hwids names, and there alone\n", strings.Join(r.Skipped, ", "))
	}
}

// sayUnknown notes which registers of a disk's boot are missing, and why, and which stub decided.
func (in vtpmInputs) sayUnknown(notes io.Writer) error {
	b, err := in.diskBoot()
	if err != nil {
		return err
	}
	image, err := uki.Read(b.UKI, b.Profile)
	if err != nil {
		return err
	}
	unknown, err := b.Unknown()
	if err != nil {
		return err
	}
	fmt.Fprintf(notes, "chrysalis: note: the image's stub is %s\n", printable(image.Stub.String()))
	for _, pcr := range slices.Sorted(maps.Keys(unknown)) {
		fmt.Fprintf(notes, "chrysalis: note: pcr%d is not known: it follows from %s\n", pcr, printable(unknown[pcr]))
	}
	return nil
}
