package attest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// GPURules judges the GPUs of a guest whose config asks for some: how many, of which architecture and in which mode is the config's own
// word, which ConfigRules judges. The zero GPURules accept no GPU.
type GPURules struct {
	// MinDriver is the lowest version of the driver, MinVBIOS the lowest firmware of each chip, such as GH100, a switch's included; a chip
	// without an entry is refused. AnyVersion stands in for both. Danger: versions with published weaknesses are then accepted.
	MinDriver  string            `json:"min_driver,omitzero"`
	MinVBIOS   map[string]string `json:"min_vbios,omitzero"`
	AnyVersion bool              `json:"any_version,omitzero"`
	// RIMs are the names or tags of documents of reference values that are accepted. AnyRIM accepts all that a root vouches for.
	RIMs   []string `json:"rims,omitzero"`
	AnyRIM bool     `json:"any_rim,omitzero"`
	// Devices are chip and serial number of those that are accepted, such as GH100:41…. AnyDevice accepts all that a root vouches for.
	// Danger: the keys of one device that its owner has broken forge evidence for all.
	Devices   []string `json:"devices,omitzero"`
	AnyDevice bool     `json:"any_device,omitzero"`
	// MaxOCSPAge is how long after its making a responder's answer is believed, such as "168h".
	MaxOCSPAge string `json:"max_ocsp_age,omitzero"`
}

// said reports whether the policy says anything of GPUs.
func (r GPURules) said() bool { return r.MaxOCSPAge != "" }

// validateGPU wants rules for GPUs wherever a config that asks for some is accepted, and each of them given or done without by name.
func (r *Rules) validateGPU() error {
	asked := false
	for _, rule := range r.Config.GPU {
		gpus, err := rule.GPUs() // what is no rule, no config has
		asked = asked || err == nil && gpus.Count > 0
	}
	g := r.GPU
	if !asked && reflect.ValueOf(g).IsZero() {
		return nil
	}
	minimum := g.MinDriver != "" && len(g.MinVBIOS) > 0
	switch {
	case minimum == g.AnyVersion || !minimum && (g.MinDriver != "" || len(g.MinVBIOS) > 0):
		return fmt.Errorf("gpu: min_driver is %q, min_vbios has %d chips and any_version is %t, want either both minima or any_version", g.MinDriver,
			len(g.MinVBIOS), g.AnyVersion)
	case (len(g.RIMs) > 0) == g.AnyRIM:
		return fmt.Errorf("gpu: rims has %d names and any_rim is %t, want either", len(g.RIMs), g.AnyRIM)
	case (len(g.Devices) > 0) == g.AnyDevice:
		return fmt.Errorf("gpu: devices has %d names and any_device is %t, want either", len(g.Devices), g.AnyDevice)
	}
	for _, text := range g.Devices {
		if _, err := deviceID(text); err != nil {
			return fmt.Errorf("gpu: %w", err)
		}
	}
	if err := validAge("max_ocsp_age", g.MaxOCSPAge); err != nil {
		return fmt.Errorf("gpu: %w", err)
	}
	return nil
}

func deviceID(text string) (nvidia.ID, error) {
	chip, serial, ok := strings.Cut(text, ":")
	if !ok || chip == "" || serial == "" || strings.ToUpper(serial) != serial {
		return nvidia.ID{}, fmt.Errorf("devices names %.80q, want chip and serial number as verdicts print them, such as GH100:41…", text)
	}
	return nvidia.ID{Chip: chip, Serial: serial}, nil
}

// nvidiaCheck judges the GPUs: those that the config asks for, over a nonce that follows from the statement. What it saw of them is what
// the log's event must say.
var nvidiaCheck = step{Name: "nvidia", Proof: true, Judge: func(a *appraisal) check.Finding {
	shown := a.evidence.GPUs
	got := fmt.Sprintf("%d devices and %d documents about some", len(shown.Devices), len(shown.RIMs)+len(shown.OCSP)+len(shown.Authorities))
	asks, err := a.config.Service.GPU.GPUs()
	if err != nil {
		panic("attest: a config was decoded that has no GPU rule: " + err.Error())
	}
	if asks.Count == 0 {
		const want = "none asked for, and none shown"
		if len(shown.Devices)+len(shown.RIMs)+len(shown.OCSP)+len(shown.Authorities) > 0 {
			return check.Found(got, want, false)
		}
		return check.Found(want, want, true)
	}
	if !a.rules.GPU.said() {
		return check.Found("a config that asks for "+string(a.config.Service.GPU), "no GPUs: the policy says nothing of any", false)
	}
	result, err := nvidia.Verify(devicesOf(shown), a.gpuOptions(asks), a.now, a.roots.NVIDIA)
	if err != nil {
		return refused(err)
	}
	found := eventlog.Found{Rule: a.config.Service.GPU}
	found.Driver, found.VBIOS, found.BIOS = result.Versions()
	if a.sequence.GPU, err = found.Text(); err != nil {
		return check.Found(err.Error(), "versions that a log can have", false)
	}
	a.gpus = result
	return check.Finding{OK: true, Lines: result.Lines()}
}}

func devicesOf(shown evidence.GPUs) nvidia.Evidence {
	e := nvidia.Evidence{RIMs: shown.RIMs, OCSP: shown.OCSP, Authorities: shown.Authorities}
	for _, d := range shown.Devices {
		if d.Kind == evidence.KindSwitch {
			e.Switches = append(e.Switches, nvidia.Device{Report: d.Report, Chain: d.Chain})
		} else {
			e.GPUs = append(e.GPUs, nvidia.Device{Report: d.Report, Chain: d.Chain})
		}
	}
	return e
}

// gpuOptions says what config and policy want of the GPUs.
func (a *appraisal) gpuOptions(asks config.GPUs) nvidia.Options {
	r := a.rules.GPU
	o := nvidia.Options{
		Facts: a.roots.Facts, GPUs: asks.Count, Switches: asks.Switches, Nonce: evidence.GPUNonce(a.evidence.Statement),
		Architectures: []nvidia.Architecture{nvidia.Architecture(asks.Architecture)}, Modes: []nvidia.Mode{nvidia.Mode(asks.Mode)},
		MinDriver: r.MinDriver, MinVBIOS: r.MinVBIOS, InsecureSkipMinimum: r.AnyVersion, RIMs: r.RIMs, AnyRIM: r.AnyRIM, AnyDevice: r.AnyDevice,
	}
	o.MaxOCSPAge, _ = time.ParseDuration(r.MaxOCSPAge) // validate has parsed it
	for _, text := range r.Devices {
		id, _ := deviceID(text) // the same
		o.Devices = append(o.Devices, id)
	}
	return o
}

// gpuWeaknesses says what an acceptance of GPUs does not cover.
func (a *appraisal) gpuWeaknesses() (all []string) {
	if a.gpus == nil {
		return nil
	}
	if slices.ContainsFunc(slices.Concat(a.roots.NVIDIA.Device, a.roots.NVIDIA.RIM), func(r nvidia.Root) bool { return !nvidia.IsNVIDIARoot(r) }) {
		all = append(all, "a root for these GPUs is not NVIDIA's but software's: it proves the protocol, not confidentiality")
	}
	if a.rules.GPU.AnyDevice {
		all = append(all, "any GPU is accepted: the keys of one that its owner has broken forge the evidence of this one")
	}
	if a.rules.GPU.AnyVersion {
		all = append(all, "any version of the GPUs' driver and firmware is accepted, also those with published weaknesses")
	}
	return all
}

// GPU is a verified device, for people and for JSON.
type GPU struct {
	Kind         nvidia.Kind         `json:"kind"` // gpu or switch
	ID           string              `json:"id"`   // as in a policy's gpu.devices
	Architecture nvidia.Architecture `json:"architecture,omitzero"`
	Mode         nvidia.Mode         `json:"mode,omitzero"`
	Driver       string              `json:"driver,omitzero"`
	VBIOS        string              `json:"vbios"` // of a switch its BIOS
	RIMs         []string            `json:"rims"`  // names of the reference values that it was compared with
	Measurements int                 `json:"measurements"`
}

// GPUs returns the verified devices, GPUs first: none where the config asks for none.
func (r *Result) GPUs() (all []GPU) {
	for _, d := range r.gpus {
		g := GPU{Kind: d.Kind, ID: d.ID.String(), Architecture: d.Architecture, Mode: d.Claims.Mode, Driver: d.Claims.Driver, VBIOS: d.Claims.VBIOS,
			RIMs: []string{}, Measurements: d.Compared}
		for _, rim := range d.RIMs {
			g.RIMs = append(g.RIMs, cmp.Or(rim.Name, rim.Tag))
		}
		all = append(all, g)
	}
	return all
}
