package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/guest"
)

// TestMachineOfFile: a shape in a file is the machine, and a flag that says something else is refused.
func TestMachineOfFile(t *testing.T) {
	firmware := filepath.Join(t.TempDir(), "OVMF.fd")
	if err := os.WriteFile(firmware, []byte("firmware"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := guest.DefaultShape("11.1.3", nil, firmware)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "shape.json")
	for _, tt := range []struct {
		shape measure.Shape
		flags machineFlags
		want  string // empty: it is taken
	}{
		{s, machineFlags{}, ""},
		{s, machineFlags{platform: "vtpm", accelerator: "tcg"}, ""},
		{s, machineFlags{platform: "tdx"}, "want --platform vtpm"},
		{s, machineFlags{accelerator: "kvm"}, "want --accelerator tcg"},
		{s, machineFlags{accelerator: "hvf"}, "want kvm or tcg"},
		{s.ForTD(), machineFlags{platform: "tdx"}, ""},
		{s.ForTD(), machineFlags{platform: "sev-snp"}, "want --platform tdx"},
		{s.ForSNP("EPYC-v4"), machineFlags{platform: "sev-snp"}, ""},
	} {
		b, err := measure.EncodeShape(tt.shape)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := tt.flags.shape(t.Context(), guest.Guest{}, file, "")
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || err == nil && got.Platform != tt.shape.Platform {
			t.Errorf("%+v over %q: got %+v and error %v, want %q", tt.flags, tt.shape.Platform, got, err, tt.want)
		}
	}
	for flags, want := range map[string]string{"sgx": "want vtpm, tdx or sev-snp"} {
		if _, err := (&machineFlags{platform: flags}).shape(t.Context(), guest.Guest{}, "", ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--platform %s: got error %v, want one with %q", flags, err, want)
		}
	}
	if _, err := (&machineFlags{platform: "sev-snp", accelerator: "tcg"}).shape(t.Context(), guest.Guest{}, "", ""); err == nil {
		t.Error("an emulated SEV-SNP guest: got no error, want one")
	}
}

// TestHardwareOfFlags: what a platform does not have is left out, and refused where it was given.
func TestHardwareOfFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vcek.der")
	if err := os.WriteFile(file, []byte("certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	defaults := machineFlags{quoteSocket: guest.DefaultQuoteSocket}
	given := defaults
	given.certificates, given.collateral, given.quotingPort = []string{file, file}, file, 4050
	td := measure.Shape{Platform: measure.TDX, Accelerator: measure.KVM}
	snp := measure.Shape{Platform: measure.SEVSNP, Accelerator: measure.KVM}
	if h, err := defaults.hardware(measure.Shape{}); err != nil || h.QuoteSocket != "" || h.SNPPolicy != 0 {
		t.Errorf("a vtpm: got %+v and error %v, want nothing", h, err)
	}
	if _, err := given.hardware(measure.Shape{}); err == nil {
		t.Error("certificates for a vtpm: got no error, want one")
	}
	if _, err := given.hardware(td); err == nil || !strings.Contains(err.Error(), "vhost-vsock-pci") {
		t.Errorf("a quoting port without a vsock: got error %v, want one that names the device", err)
	}
	td = guest.WithVsock(td, 7)
	if h, err := given.hardware(td); err != nil || h.QuoteSocket != guest.DefaultQuoteSocket || h.QuotingPort != 4050 || h.SNPPolicy != 0 {
		t.Errorf("a TD: got %+v and error %v", h, err)
	}
	none := defaults
	none.quoteSocket = "none"
	if h, err := none.hardware(td); err != nil || h.QuoteSocket != "" {
		t.Errorf("a TD without a service: got %+v and error %v", h, err)
	}
	for name, tt := range map[string]struct {
		flags machineFlags
		on    measure.Shape
		want  string
	}{
		"a quoting port for SEV-SNP":     {machineFlags{quotingPort: 1}, snp, "--quoting-port"},
		"a quoting port without a vsock": {machineFlags{quotingPort: 1}, measure.Shape{Platform: measure.TDX, Accelerator: measure.TCG}, "--quoting-port"},
		"a policy of SEV-SNP for a TD":   {machineFlags{snpPolicy: 1 << 17}, td, "--snp-policy"},
		"a policy of SEV-SNP for a vtpm": {machineFlags{snpPolicy: 1 << 17}, measure.Shape{}, "--snp-policy"},
	} {
		if _, err := tt.flags.hardware(tt.on); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.want)
		}
	}
	given.quotingPort = 0
	h, err := given.hardware(snp)
	if err != nil || h.SNPPolicy != guest.DefaultSNPPolicy || len(h.Endorsements.Certificates) != 2 || string(h.Endorsements.Collateral) != "certificate" || h.QuotingPort != 0 {
		t.Errorf("an SEV-SNP guest: got %+v and error %v", h, err)
	}
	board := machineFlags{rims: []string{file, file}, ocsp: []string{file}}
	if _, err := board.hardware(td); err == nil || !strings.Contains(err.Error(), "--rim and --ocsp are for GPUs") {
		t.Errorf("reference values for no GPU: got error %v", err)
	}
	withGPU := td
	withGPU.GPUs = []string{"vfio-pci,host=01:00.0"}
	if h, err := board.hardware(withGPU); err != nil || len(h.Endorsements.RIMs) != 2 || string(h.Endorsements.OCSP[0]) != "certificate" {
		t.Errorf("with a GPU: got %+v and error %v, want the files", h.Endorsements, err)
	}
	given.collateral = file + ".none"
	if _, err := given.hardware(snp); err == nil {
		t.Error("a file that is not there: got no error, want one")
	}
}

// TestPrintLine: a shell gets every argument as it is.
func TestPrintLine(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"cmdline": "quiet it's", "OVMF.fd": "firmware"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := guest.DefaultShape("11.1.3", nil, filepath.Join(dir, "OVMF.fd"))
	if err != nil {
		t.Fatal(err)
	}
	spec := guest.Spec{Release: dir, Engine: "engine.img", Model: "model.img", Shape: s, Config: guest.DemoConfig(), Port: 1}
	spec.Config.Service.Engine.Volume.Root, spec.Config.Service.Engine.Volume.Blocks = register.Digest{1}, 1
	spec.Config.Service.Model.Volume = spec.Config.Service.Engine.Volume
	var out bytes.Buffer
	if err := printLine(&out, guest.Guest{Dir: dir}, spec, []string{""}, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"qemu-system-x86_64 -nodefaults ", ` -append 'quiet it'\''s' `, " ''\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q in it", out.String(), want)
		}
	}
	out.Reset()
	if err := printLine(&out, guest.Guest{Dir: dir}, spec, nil, true); err != nil || !strings.Contains(out.String(), `"argv": [`) {
		t.Errorf("as JSON: got %q and error %v", out.String(), err)
	}
	spec.Hardware.SNPPolicy = 1
	if err := printLine(&out, guest.Guest{Dir: dir}, spec, nil, false); err == nil {
		t.Error("a policy of SEV-SNP on a vtpm: got no error, want one")
	}
}
