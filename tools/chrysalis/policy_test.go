package main

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

func TestReadPCRs(t *testing.T) {
	const digest = `"3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969"`
	for _, tt := range []struct{ name, text, want string }{
		{"two registers", `{"pcr4":` + digest + `,"pcr11":` + digest + `}`, ""},
		{"a number alone", `{"4":` + digest + `}`, `register "4"`},
		{"another spelling", `{"pcr04":` + digest + `}`, `register "pcr04"`},
		{"no register", `{"pcr256":` + digest + `}`, `register "pcr256"`},
		{"one twice", `{"pcr4":` + digest + `,"pcr4":` + digest + `}`, "duplicate"},
		{"a short digest", `{"pcr4":"00"}`, "registers.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "registers.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := readPCRs(file)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v (%v), want an error that says %q", got, err, tt.want)
				}
				return
			}
			if err != nil || len(got) != 2 || got[4] == (register.Digest{}) || got[4] != got[11] {
				t.Errorf("got %v (%v), want registers 4 and 11", got, err)
			}
		})
	}
}

// TestHeldByFlag: an earlier release is named by its manifest, or by its measurement.
func TestHeldByFlag(t *testing.T) {
	manifest, err := heldBy("../../measure/testdata/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	if digits, err := heldBy(manifest.String()); err != nil || digits != manifest {
		t.Errorf("got %s and error %v, want %s", digits, err, manifest)
	}
	for _, text := range []string{"nobody", strings.ToUpper(manifest.String()), manifest.String()[1:], "policy_test.go"} {
		if got, err := heldBy(text); err == nil {
			t.Errorf("%s: got %s, want an error", text, got)
		}
	}
	r := strictRules(measure.Manifest{Profile: "cpu", SecurityVersion: 1, PCRs: register.PCRs{0: {1}}}, config.Measured{})
	flags := valueFlags{heldBy: []string{manifest.String()}}
	if err := flags.apply(t.Context(), &r); err != nil || len(r.HeldBy) != 1 || r.HeldBy[0] != manifest {
		t.Errorf("got rules that accept %v and error %v, want %s", r.HeldBy, err, manifest)
	}
}

func TestPolicyValues(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	index := strings.Repeat("ab", 48)
	td := write("tdx.json", `{"mrtd":"`+index+`","rtmr0":"`+index+`","rtmr1":"`+index+`","rtmr2":"`+index+`"}`)
	firmwareAlone := write("mrtd.json", `{"mrtd":"`+index+`"}`)
	snp := write("snp.json", `{"launch_digest":"`+index+`"}`)
	key := strings.Repeat("01", 32)
	rules := func() attest.Rules {
		values := register.PCRs{}
		for _, n := range []uint8{0, 2, 3, 4, 5, 7, 8, 9, 11, 12} {
			values[n] = register.Digest{n}
		}
		r := strictRules(measure.Manifest{Profile: "cpu", SecurityVersion: 1, PCRs: values}, config.Measured{})
		return r
	}
	const tcb = "Genoa=bootloader:10,tee:0,snp:24,microcode:85"
	for _, tt := range []struct {
		name, want string
		flags      valueFlags
	}{
		{"nothing", "", valueFlags{}},
		{"TDX on two shapes", "", valueFlags{tdx: []string{td, td}}},
		{"TDX without RTMR0 to 2", "rtmr-0: pinned is false and waived is false", valueFlags{tdx: []string{firmwareAlone}}},
		{"TDX without them, waived", "", valueFlags{tdx: []string{firmwareAlone}, waive: []string{"rtmr-0", "rtmr-1", "rtmr-2"}}},
		{"SEV-SNP", "", valueFlags{snp: []string{snp}, minTCB: []string{tcb}, waive: []string{"acpi"}}},
		{"what an operator chooses on TDX", "", valueFlags{tdx: []string{td}, modules: []string{index}, serviceTDs: []string{index},
			minTCBDate: "2025-05-14", maxCollateralAge: "24h"}},
		{"a module of zeros", "want 96 lower-case hexadecimal digits", valueFlags{tdx: []string{td}, modules: []string{strings.Repeat("00", 48)}}},
		{"a day that is none", "want a day like", valueFlags{tdx: []string{td}, minTCBDate: "2025-13-14"}},
		{"an age that is none", "max_collateral_age is", valueFlags{tdx: []string{td}, maxCollateralAge: "week"}},
		{"what an operator chooses on SEV-SNP", "", valueFlags{snp: []string{snp}, minTCB: []string{tcb}, waive: []string{"acpi", "chip-masked"},
			idBlocks: []string{index, index + ":" + index}, minGuestSVN: 3, maxCRLAge: "100h"}},
		{"an id key that is none", "--id-block", valueFlags{snp: []string{snp}, minTCB: []string{tcb}, idBlocks: []string{index + ":" + index + ":" + index}}},
		{"SEV-SNP without patch levels", "min_tcb is empty", valueFlags{snp: []string{snp}}},
		{"unknown product", "min_tcb gives", valueFlags{snp: []string{snp}, minTCB: []string{"Naples=bootloader:1,tee:1,snp:1,microcode:1"}}},
		{"a part left out", "no level for microcode, tee", valueFlags{minTCB: []string{"Genoa=bootloader:10,snp:24"}}},
		{"Turin without its FMC", "no level for fmc", valueFlags{minTCB: []string{"Turin=bootloader:1,tee:1,snp:1,microcode:1"}}},
		{"an FMC that Genoa has not", "Genoa has no fmc", valueFlags{minTCB: []string{tcb + ",fmc:1"}}},
		{"a product twice", "Genoa is given twice", valueFlags{minTCB: []string{tcb, tcb}}},
		{"Turin", "", valueFlags{snp: []string{snp}, minTCB: []string{"Turin=fmc:1,bootloader:3,tee:2,snp:5,microcode:97"},
			waive: []string{"acpi"}}},
		{"unknown part", "want PRODUCT=PART:LEVEL", valueFlags{minTCB: []string{"Genoa=cache:1"}}},
		{"level too high", "want PRODUCT=PART:LEVEL", valueFlags{minTCB: []string{"Genoa=snp:256"}}},
		{"part twice", "want PRODUCT=PART:LEVEL", valueFlags{minTCB: []string{"Genoa=snp:1,snp:2"}}},
		{"no waiver's name", `waive names "everything"`, valueFlags{waive: []string{"everything"}}},
		{"registers of another kind", "--tdx: reading", valueFlags{tdx: []string{snp}}},
		{"signers", "", valueFlags{signers: []string{key}, threshold: 1, maxListAge: "168h", rebuilders: []string{key}, rebuildThreshold: 1}},
		{"more signatures than signers", "threshold is 2 of 1", valueFlags{signers: []string{key}, threshold: 2, maxListAge: "168h"}},
		{"no key", "--signer: open 01", valueFlags{signers: []string{"01"}, threshold: 1}},
		{"rebuilders alone", "--rebuilder without --signer", valueFlags{rebuilders: []string{key}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rules()
			tt.flags.maxCollateralAge, tt.flags.maxCRLAge = cmp.Or(tt.flags.maxCollateralAge, "168h"), cmp.Or(tt.flags.maxCRLAge, "9000h")
			if tt.flags.minEvaluation == "" && tt.flags.collateral == nil && tt.flags.sources.folder == "" {
				tt.flags.minEvaluation = "17"
			}
			err := tt.flags.apply(t.Context(), &r)
			if err == nil {
				_, err = r.Policy()
			}
			if len(r.Releases) > 0 && len(tt.flags.modules) > 0 && err == nil && (len(r.TDX.MRSEAM) != 1 || len(r.TDX.ServiceTDs) != 1 || r.TDX.MinTCBDate.IsZero()) {
				t.Errorf("got %+v, want the flags in it", r.TDX)
			}
			if len(tt.flags.idBlocks) == 2 && err == nil && (len(r.SEVSNP.IDBlocks) != 2 || r.SEVSNP.MinGuestSVN != 3 || r.SEVSNP.MaxCRLAge != "100h") {
				t.Errorf("got %+v, want the flags in it", r.SEVSNP)
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestPolicyOfGPUs: a config that asks for GPUs gets rules for them out of the flags, and no policy without.
func TestPolicyOfGPUs(t *testing.T) {
	vbios := []string{"GH100=96.00.9F.00.01", "LS_10=96.10.6D.00.01"}
	for _, tt := range []struct {
		name, want string
		rule       config.GPURule
		flags      valueFlags
	}{
		{"none asked for", "", config.GPUNone, valueFlags{}},
		{"rules for none", "asks for no GPUs", config.GPUNone, valueFlags{minDriver: "570.1"}},
		{"the lowest versions", "", "8 hopper ppcie 4 switches", valueFlags{minDriver: "570.1", minVBIOS: vbios}},
		{"devices and reference values", "", "1 hopper spt", valueFlags{minDriver: "570.1", minVBIOS: vbios, gpuDevices: []string{"GH100:41AA"}, gpuRIMs: []string{"x"}}},
		{"no versions", "want --min-driver and --min-vbios", "1 hopper spt", valueFlags{}},
		{"no VBIOS", "want --min-driver and --min-vbios", "1 hopper spt", valueFlags{minDriver: "570.1"}},
		{"a VBIOS of no chip", "want CHIP=VERSION", "1 hopper spt", valueFlags{minDriver: "570.1", minVBIOS: []string{"96"}}},
		{"a chip twice", "want CHIP=VERSION", "1 hopper spt", valueFlags{minDriver: "570.1", minVBIOS: []string{"A=1", "A=2"}}},
		{"a device that is none", "devices names", "1 hopper spt", valueFlags{minDriver: "570.1", minVBIOS: vbios, gpuDevices: []string{"GH100"}}},
	} {
		m := config.Measured{}
		m.Service.GPU = tt.rule
		pcrs := register.PCRs{}
		for _, index := range []uint8{0, 2, 3, 4, 5, 7, 8, 9, 11, 12} {
			pcrs[index] = register.Digest{1}
		}
		r := strictRules(measure.Manifest{Profile: "cpu", SecurityVersion: 1, PCRs: pcrs}, m)
		tt.flags.maxOCSPAge = "168h"
		err := tt.flags.apply(t.Context(), &r)
		if err == nil {
			_, err = r.Policy()
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
		if tt.want == "" && (r.GPU.AnyDevice != (tt.rule != config.GPUNone && tt.flags.gpuDevices == nil) || r.GPU.MinDriver != tt.flags.minDriver ||
			len(r.GPU.MinVBIOS) != len(tt.flags.minVBIOS)) {
			t.Errorf("%s: got %+v, want the flags in it", tt.name, r.GPU)
		}
	}
}

// TestPolicyOfPlatforms: one policy for several platforms accepts how each seals, and nothing else that differs.
func TestPolicyOfPlatforms(t *testing.T) {
	demos := []config.Measured{guest.DemoConfigOn(""), guest.DemoConfigOn(measure.TDX), guest.DemoConfigOn(measure.SEVSNP)}
	rules := attest.ExactConfig(demos[0])
	if err := sameButSealing(&rules, demos); err != nil {
		t.Fatal(err)
	}
	if want := []config.Sealing{config.SealTPM, config.SealNothing, config.SealSNP}; !slices.Equal(rules.Sealing, want) || !slices.Equal(rules.Stranding, []config.Stranding{config.StrandingAccepted}) {
		t.Errorf("got sealing %v and stranding %v, want %v and that it is accepted", rules.Sealing, rules.Stranding, want)
	}
	dearer := guest.DemoConfigOn(measure.TDX)
	dearer.Service.Price.NanotonPerToken++
	if err := sameButSealing(&rules, []config.Measured{demos[0], dearer}); err == nil || !strings.Contains(err.Error(), "config 2 is not the first") {
		t.Errorf("another price: got error %v, want a refusal", err)
	}
	for platforms, want := range map[string]string{"sgx": "want vtpm, tdx, sev-snp, or all", "vtpm,vtpm": "given twice", "all,tdx": `"all"`} {
		if _, err := policyMachines(t.Context(), nil, strings.Split(platforms, ","), "", t.TempDir(), t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--platform %s: got error %v, want one with %q", platforms, err, want)
		}
	}
}

// TestPolicyOfProcessors: a TDX machine that does not state its processor is one machine for each that is named, and no other changes.
func TestPolicyOfProcessors(t *testing.T) {
	td := guest.WithVsock(measure.Shape{Platform: measure.TDX, Accelerator: measure.KVM}, 3)
	whole, err := guest.HardwareShape("11.1.3", measure.TDX, qemu.CPU{Vendor: measure.VendorIntel, PhysBits: 52}, firmwareFile(t))
	if err != nil {
		t.Fatal(err)
	}
	stated := whole
	stated.Processor = "f8060800fffbebbf"
	snp := measure.Shape{Platform: measure.SEVSNP, Accelerator: measure.KVM}
	all, err := ofProcessors([]measure.Shape{snp, whole, stated}, []string{"f2060c00fffbebbf", "d1060a00fffbebbf"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range all {
		got = append(got, string(s.Platform)+" "+s.Processor)
	}
	if want := []string{"sev-snp ", "tdx f2060c00fffbebbf", "tdx d1060a00fffbebbf", "tdx f8060800fffbebbf"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if all, err := ofProcessors([]measure.Shape{td}, nil); err != nil || len(all) != 1 {
		t.Errorf("none named: got %v and error %v, want the machine as it is", all, err)
	}
	for name, tt := range map[string]struct {
		machine    measure.Shape
		processors []string
		want       string
	}{
		"for a machine of another platform": {snp, []string{"f2060c00fffbebbf"}, "no machine needs it"},
		"for one that states its own":       {stated, []string{"f2060c00fffbebbf"}, "no machine needs it"},
		"too short":                         {whole, []string{"f2060c00"}, "want 16 hexadecimal digits"},
	} {
		if _, err := ofProcessors([]measure.Shape{tt.machine}, tt.processors); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.want)
		}
	}
}

func firmwareFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), tdxFirmware)
	if err := os.WriteFile(file, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
