package nvidia_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/nvidia"
)

// genuine returns a file of the folder that CHRYSALIS_NVIDIA_EVIDENCE names: public evidence of real devices, which is not part of this
// tree. GENUINE.md says where it comes from.
func genuine(t *testing.T, name string) []byte {
	t.Helper()
	folder := os.Getenv("CHRYSALIS_NVIDIA_EVIDENCE")
	if folder == "" {
		t.Skip("CHRYSALIS_NVIDIA_EVIDENCE names no folder with public evidence: see GENUINE.md")
	}
	b, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	tools = "go-nvattest-tools/testing/testdata/"
	sdk   = "attestation-sdk/nv-attestation-sdk-cpp/unit-tests/testdata/"
)

func decoded(t *testing.T, text []byte) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// h100 is one H100 with all of its collateral, and the time at which all of that held.
func h100(t *testing.T) (nvidia.Evidence, nvidia.Options, time.Time) {
	nonce := "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
	e := nvidia.Evidence{
		GPUs: []nvidia.Device{{Report: genuine(t, tools+"test_raw_gpu_attestation_report.dat"),
			Chain: genuine(t, tools+"test_gpu_attestation_certificate_chain.dat")}},
		RIMs: [][]byte{genuine(t, tools+"rim/NV_GPU_DRIVER_GH100_550.90.07.xml"),
			genuine(t, tools+"rim/NV_GPU_VBIOS_1010_0200_882_96009F0001.xml")},
	}
	o := nvidia.Options{GPUs: 1, AnyDevice: true, Architectures: []nvidia.Architecture{nvidia.Hopper}, Modes: []nvidia.Mode{nvidia.ModeSPT},
		MinDriver: "550.90.07", MinVBIOS: map[string]string{"GH100": "96.00.9F.00.01"}, RIMs: []string{"NV_GPU_DRIVER_GH100_550.90.07",
			"NV_GPU_VBIOS_1010_0200_882_96009F0001"}}
	if _, err := hex.Decode(o.Nonce[:], []byte(nonce)); err != nil {
		t.Fatal(err)
	}
	return e, o, time.Date(2025, 10, 24, 12, 0, 0, 0, time.UTC)
}

func TestGenuineH100(t *testing.T) {
	e, o, at := h100(t)
	_, err := nvidia.Verify(e, o, at, nvidia.NVIDIARoots())
	var refused *nvidia.Refused
	if !errors.As(err, &refused) || refused.Failed.Name != "gpu.0.device-ocsp" || !errors.Is(err, check.ErrUnavailable) {
		t.Fatalf("without answers: got %v, want them missed", err)
	}
	o.InsecureSkipRevocation = true
	result, err := nvidia.Verify(e, o, at, nvidia.NVIDIARoots())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", result.Devices())
}

// TestGenuineOCSP takes the answers of NVIDIA's responders, which were asked at two times: those about the device's certificates in August,
// those about the signers of reference values in October 2025.
func TestGenuineOCSP(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  []string
		at     time.Time
		missed string // of which chain none is there
	}{
		{"device", []string{"gpu_certificate_l2", "gpu_certificate_l3", "gpu_certificate_l4"}, time.Date(2025, 8, 21, 7, 0, 0, 0, time.UTC),
			"gpu.0.driver-rim-ocsp"},
		{"signers", []string{"gpu_driver_rim_l4", "gpu_vbios_l4", "gpu_driver_rim_l3", "gpu_rim_l2"},
			time.Date(2025, 10, 24, 12, 0, 0, 0, time.UTC),
			"gpu.0.device-ocsp"},
	} {
		e, o, _ := h100(t)
		for _, name := range tt.files {
			e.OCSP = append(e.OCSP, decoded(t, genuine(t, tools+"ocsp/test_"+name+"_base64encoded_ocsp_response.dat")))
		}
		var refused *nvidia.Refused
		if _, err := nvidia.Verify(e, o, tt.at, nvidia.NVIDIARoots()); !errors.As(err, &refused) || refused.Failed.Name != tt.missed {
			t.Errorf("%s: got %v, want %s alone missed", tt.name, err, tt.missed)
		}
		o.InsecureSkipRevocation = true
		result, err := nvidia.Verify(e, o, tt.at, nvidia.NVIDIARoots())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, waived := range result.Waived() {
			if strings.HasSuffix(waived, "-ocsp") && tt.name == "device" == (waived == "gpu.0.device-ocsp") {
				t.Errorf("%s: %s was waived", tt.name, waived)
			}
		}
		for _, at := range []time.Time{tt.at.Add(-8 * time.Hour), tt.at.Add(25 * time.Hour)} {
			if _, err := nvidia.Verify(e, o, at, nvidia.NVIDIARoots()); !errors.As(err, &refused) ||
				!strings.HasSuffix(refused.Failed.Name, "-ocsp-validity") {
				t.Errorf("%s at %s: got %v, want a refusal by their validity", tt.name, at, err)
			}
		}
	}
}

func TestGenuineHopperBoard(t *testing.T) {
	var set struct {
		GPUs, NVSwitches []struct {
			CertificateChains struct {
				GPUAttestationCertificateChain []struct{ PEM []byte }
			}
			AttestationReport struct {
				B64 []byte `json:"py/b64"`
			}
			SwitchChain  []struct{ PEM []byte } `json:"attestation_cert_chain"`
			SwitchReport struct {
				B64 []byte `json:"py/b64"`
			} `json:"attestation_report"`
		}
	}
	if err := json.Unmarshal(genuine(t, tools+"test_ppcie_data.json"), &set); err != nil {
		t.Fatal(err)
	}
	var e nvidia.Evidence
	for _, g := range set.GPUs {
		d := nvidia.Device{Report: g.AttestationReport.B64}
		for _, c := range g.CertificateChains.GPUAttestationCertificateChain {
			d.Chain = append(d.Chain, c.PEM...)
		}
		e.GPUs = append(e.GPUs, d)
	}
	for _, s := range set.NVSwitches {
		d := nvidia.Device{Report: s.SwitchReport.B64}
		for _, c := range s.SwitchChain {
			d.Chain = append(d.Chain, c.PEM...)
		}
		e.Switches = append(e.Switches, d)
	}
	o := nvidia.Options{GPUs: 8, Switches: 4, AnyDevice: true, AnyNonce: true, AnyArchitecture: true,
		Modes: []nvidia.Mode{nvidia.ModePPCIe}, InsecureSkipMinimum: true,
		AnyRIM: true, InsecureSkipRIM: true, InsecureSkipRevocation: true}
	result, err := nvidia.Verify(e, o, time.Now(), nvidia.NVIDIARoots())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range result.Devices() {
		if d.Kind == nvidia.GPU && (len(d.Claims.SwitchPDIs) != 4 || d.Claims.Driver != "570.124.06" || d.Architecture != nvidia.Hopper) ||
			d.Kind == nvidia.Switch && len(d.Claims.GPUPDIs) != 8 {
			t.Errorf("got %+v", d)
		}
	}
	e.Switches[3] = e.Switches[2]
	var refused *nvidia.Refused
	if _, err := nvidia.Verify(e, o, time.Now(), nvidia.NVIDIARoots()); !errors.As(err, &refused) || refused.Failed.Name != "distinct" {
		t.Errorf("one switch twice: got %v, want a refusal", err)
	}
}

// TestGenuineBlackwell takes a board of eight GB100 under the driver 590, which encrypts NVLink and has no switches in the guest.
func TestGenuineBlackwell(t *testing.T) {
	var set struct {
		GPUs []struct {
			CertificateChains struct {
				GPUAttestationCertificateChain []struct{ PEM []byte }
			}
			AttestationReport struct {
				B64 []byte `json:"py/b64"`
			}
		}
	}
	if err := json.Unmarshal(genuine(t, tools+"test_mpt_data.json"), &set); err != nil {
		t.Fatal(err)
	}
	var e nvidia.Evidence
	for _, g := range set.GPUs {
		e.GPUs = append(e.GPUs, nvidia.Device{Report: g.AttestationReport.B64, Chain: g.CertificateChains.GPUAttestationCertificateChain[0].PEM})
	}
	o := nvidia.Options{GPUs: 8, AnyDevice: true, AnyNonce: true, Architectures: []nvidia.Architecture{nvidia.Blackwell},
		Modes:     []nvidia.Mode{nvidia.ModeMPT},
		MinDriver: "590.48.01", MinVBIOS: map[string]string{"GB100": "97.00.D9.00.35"}, AnyRIM: true, InsecureSkipRIM: true,
		InsecureSkipRevocation: true}
	result, err := nvidia.Verify(e, o, time.Now(), nvidia.NVIDIARoots())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range result.Devices() {
		if got := d.Claims.DriverRIM(d.Architecture); d.Architecture != nvidia.Blackwell || got != "NV_GPU_CC_DRIVER_GB100_590.48.01" {
			t.Errorf("got %s, %s", d.Architecture, got)
		}
	}
}

// TestGenuineSwitch compares an LS10's measurements with the reference values of its BIOS.
func TestGenuineSwitch(t *testing.T) {
	var set []struct {
		Evidence, Certificate []byte
		Nonce                 string
	}
	if err := json.Unmarshal(genuine(t, "attestation-sdk/common-test-data/serialized_test_evidence/switch_evidence_ls10.json"),
		&set); err != nil {
		t.Fatal(err)
	}
	gpus, o, _ := h100(t)
	e := nvidia.Evidence{GPUs: gpus.GPUs, RIMs: [][]byte{genuine(t, sdk+"switchVBIOSRim_NV_SWITCH_BIOS_5612_0002_890_9610550001.xml")},
		Switches: []nvidia.Device{{Report: set[0].Evidence, Chain: set[0].Certificate}}}
	o.Switches, o.RIMs, o.AnyRIM, o.InsecureSkipRIM, o.InsecureSkipRevocation = 1, nil, true, true, true
	o.MinVBIOS["LS_10"] = "96.10.55.00.01"
	var refused *nvidia.Refused
	_, err := nvidia.Verify(e, o, time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), nvidia.NVIDIARoots())
	// The GPU is of another machine, and so the switch is none of its.
	if !errors.As(err, &refused) || refused.Failed.Name != "topology" {
		t.Fatalf("got %v, want a refusal by topology alone", err)
	}
	for _, d := range refused.Devices() {
		if d.Kind == nvidia.Switch && (d.Compared != 31 || d.RIMs[0].Name != "NV_SWITCH_BIOS_5612_0002_890_9610550001") {
			t.Errorf("got %d measurements, %v", d.Compared, d.RIMs)
		}
	}
}

// TestGenuineWrong takes reference values that NVIDIA made wrong for its own tests. xmlsec1 says of each the same: see GENUINE.md.
func TestGenuineWrong(t *testing.T) {
	for name, want := range map[string]string{
		"sample_rims/NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml": "digest of the document",
		"incorrect_signature_driver_rim.xml":                                        "signature",
		"incorrect_cert_chain_driver_rim.xml":                                       "certificate",
		"sample_rims/NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml":        "digest of the document",
	} {
		r, err := nvidia.ParseRIM(genuine(t, sdk+name))
		if err == nil {
			err = nvidia.SignatureOf(r)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a refusal for its %s", name, err, want)
		}
	}
	if _, err := nvidia.ParseRIM(genuine(t, sdk+"incorrect_cert_chain_driver_rim.xml")); err == nil ||
		!strings.Contains(err.Error(), "certificate") {
		t.Errorf("a chain of others: got %v, want a refusal", err)
	}
	for _, name := range []string{"NV_GPU_DRIVER_GH100_550.144.03.xml", "switchVBIOSRim_NV_SWITCH_BIOS_5612_0002_890_9610550001.xml",
		"sample_rims/NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml"} {
		r, err := nvidia.ParseRIM(genuine(t, sdk+name))
		if err != nil || nvidia.SignatureOf(r) != nil {
			t.Errorf("%s: %v, %v", name, err, nvidia.SignatureOf(r))
		}
	}
}
