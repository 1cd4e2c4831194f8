package guest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/qemu"
)

var update = flag.Bool("update", false, "write testdata anew")

// hardwareShape is a machine of the platform over a file that stands for its firmware.
func hardwareShape(t *testing.T, p measure.Platform) measure.Shape {
	t.Helper()
	firmware := filepath.Join(t.TempDir(), "OVMF.fd")
	if err := os.WriteFile(firmware, []byte("firmware"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := HardwareShape("11.1.3", p, qemu.CPU{Vendor: measure.VendorIntel, PhysBits: 46}, firmware)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLines compares whole lines with those that the locked QEMU was seen to read to their end (tools/e2e, TestHardwareLines).
func TestLines(t *testing.T) {
	for name, tt := range map[string]struct {
		platform measure.Platform
		hardware Hardware
	}{
		"tdx":      {measure.TDX, Hardware{QuoteSocket: DefaultQuoteSocket}},
		"tdx-unix": {measure.TDX, Hardware{QuoteSocket: "unix:/run/tdx-qgs/qgs.socket"}},
		"sev-snp":  {measure.SEVSNP, Hardware{SNPPolicy: DefaultSNPPolicy}},
		"tdx-gpu":  {measure.TDX, Hardware{QuoteSocket: DefaultQuoteSocket, GPUs: twoGPUs}},
		"snp-gpu":  {measure.SEVSNP, Hardware{SNPPolicy: DefaultSNPPolicy, GPUs: twoGPUs[:1]}},
	} {
		shape := hardwareShape(t, tt.platform)
		if n := len(tt.hardware.GPUs); n > 0 {
			shape = WithGPUs(shape, n, GPUWindowMiB(uint64(n)*(256<<30)))
		}
		if err := shape.Check(); err != nil {
			t.Fatal(err)
		}
		args, err := arguments(shape, files{
			firmware: "OVMF.fd", kernel: "vmlinuz", initrd: "initrd", cmdline: "quiet", root: "root.img", config: "config.disk", journal: "journal.disk",
			volumes: []Volumes{{"engine.img", "model.img"}}, status: "status.log", proofs: "proofs.log", numbers: "numbers.log", qmp: "qmp.sock", pid: "qemu.pid",
			listen: loopback, hostPort: 8443, guestPort: guestPort, hardware: tt.hardware, measured: []byte("the config"),
		})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(args, "\n") + "\n"
		file := filepath.Join("testdata", name+".args")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || got != string(want) {
			t.Errorf("%s: got %q and error %v, want the lines of %s", name, got, err, file)
		}
	}
}

var twoGPUs = []string{"0000:41:00.0", "0000:c1:00.0"}

// TestGPUWindow: the window holds all of the devices' memory twice, and is one that a shape takes.
func TestGPUWindow(t *testing.T) {
	const gib = 1 << 30
	for bytes, want := range map[uint64]int{0: 64 << 10, 16 * gib: 64 << 10, 33 * gib: 128 << 10, 256*gib + 48<<20: 1 << 20, 8 * 256 * gib: 4 << 20} {
		if got := GPUWindowMiB(bytes); got != want {
			t.Errorf("%d GiB: got %d MiB, want %d", bytes/gib, got, want)
		}
	}
	s := hardwareShape(t, measure.TDX)
	if err := WithGPUs(s, 8, GPUWindowMiB(8*256*gib)).Check(); err != nil {
		t.Errorf("8 GPUs of 256 GiB: %v", err)
	}
	if len(s.GPUs) != 0 {
		t.Errorf("the machine itself became %+v", s)
	}
}

func TestGPUsRefused(t *testing.T) {
	s := WithGPUs(hardwareShape(t, measure.TDX), 2, 0)
	for name, tt := range map[string]struct {
		gpus []string
		want string
	}{
		"none named":           {nil, "0 of the host's devices are named, and the shape has 2"},
		"one named":            {twoGPUs[:1], "1 of the host's devices"},
		"one named twice":      {[]string{twoGPUs[0], twoGPUs[0]}, "named twice"},
		"no domain":            {[]string{twoGPUs[0], "41:00.0"}, "want an address"},
		"another property":     {[]string{twoGPUs[0], "0000:41:00.0,x-y=1"}, "want an address"},
		"a path":               {[]string{twoGPUs[0], "/sys/bus/pci"}, "want an address"},
		"a slot there is none": {[]string{twoGPUs[0], "0000:41:20.0"}, "want an address"},
	} {
		if err := (Hardware{GPUs: tt.gpus}).checkGPUs(s); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.want)
		}
	}
	if err := (Hardware{GPUs: twoGPUs}).checkGPUs(s); err != nil {
		t.Error(err)
	}
}

// TestConfidential: the config's hash is in the hardware's own field, and the machine names the object.
func TestConfidential(t *testing.T) {
	for _, p := range []measure.Platform{measure.TDX, measure.SEVSNP} {
		s := hardwareShape(t, p)
		seen := map[string]bool{}
		for _, measured := range []string{"the config", "another"} {
			machine, args, err := confidential(s, Hardware{SNPPolicy: DefaultSNPPolicy}, []byte(measured))
			if err != nil || len(args) != 2 || args[0] != "-object" || !strings.Contains(machine, "confidential-guest-support=tee") || seen[args[1]] {
				t.Errorf("%s: got %q, %q and error %v, want an object of its own for each config", p, machine, args, err)
			}
			seen[args[1]] = true
		}
	}
	if machine, args, err := confidential(measure.Shape{}, Hardware{}, nil); machine != "" || args != nil || err != nil {
		t.Errorf("a vtpm: got %q, %q and error %v, want nothing", machine, args, err)
	}
}

func TestHardwareRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		platform   measure.Platform
		hardware   Hardware
	}{
		{"a quoting service for a vtpm", "quoting service", "", Hardware{QuoteSocket: DefaultQuoteSocket}},
		{"a quoting port for SEV-SNP", "quoting service", measure.SEVSNP, Hardware{QuotingPort: 1, SNPPolicy: DefaultSNPPolicy}},
		{"a policy for a TD", "policy of SEV-SNP", measure.TDX, Hardware{SNPPolicy: DefaultSNPPolicy}},
		{"no policy", "bit 17", measure.SEVSNP, Hardware{}},
		{"a policy with debug", "debugging", measure.SEVSNP, Hardware{SNPPolicy: DefaultSNPPolicy | 1<<19}},
		{"a policy with migration", "migration", measure.SEVSNP, Hardware{SNPPolicy: DefaultSNPPolicy | 1<<18}},
		{"a socket of another kind", "want vsock", measure.TDX, Hardware{QuoteSocket: "tcp:127.0.0.1:4050"}},
		{"a socket without a port", "want vsock", measure.TDX, Hardware{QuoteSocket: "vsock:2"}},
		{"a path that is relative", "want vsock", measure.TDX, Hardware{QuoteSocket: "unix:qgs.socket"}},
	} {
		if err := tt.hardware.check(tt.platform); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
	for p, h := range map[measure.Platform]Hardware{"": {}, measure.TDX: {QuotingPort: 4050}, measure.SEVSNP: {SNPPolicy: DefaultSNPPolicy}} {
		if err := h.check(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestOffers: a guest is not started where KVM does not say that it can, and what emulation lacks a program plays.
func TestOffers(t *testing.T) {
	was := offers
	t.Cleanup(func() { offers = was })
	dir := t.TempDir()
	offers = map[measure.Platform]string{measure.TDX: filepath.Join(dir, "tdx"), measure.SEVSNP: filepath.Join(dir, "snp")}
	for file, word := range map[string]string{"tdx": "Y\n", "snp": "N\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(word), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		shape measure.Shape
		want  string
	}{
		{measure.Shape{Accelerator: measure.TCG}, ""},
		{measure.Shape{Accelerator: measure.KVM}, ""},
		{measure.Shape{Platform: measure.TDX, Accelerator: measure.KVM}, ""},
		{measure.Shape{Platform: measure.TDX, Accelerator: measure.TCG}, ""}, // software
		{measure.Shape{Platform: measure.SEVSNP, Accelerator: measure.KVM}, `says "N", want Y`},
		{measure.Shape{Platform: measure.SEVSNP, Accelerator: measure.TCG}, ""}, // the same
	} {
		if err := Offers(tt.shape); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s under %s: got error %v, want one with %q", tt.shape.Platform, tt.shape.Accelerator, err, tt.want)
		}
	}
	offers[measure.TDX] = filepath.Join(dir, "none")
	if err := Offers(measure.Shape{Platform: measure.TDX, Accelerator: measure.KVM}); err == nil {
		t.Error("a kernel without the parameter: got no error, want one")
	}
}

func TestPhysBits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpuinfo")
	for text, want := range map[string]int{"processor\t: 0\naddress sizes\t: 46 bits physical, 48 bits virtual\n": 46, "address sizes\t: many\n": 0, "processor: 0\n": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := physBits(file); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d and error %v, want %d", text, got, err, want)
		}
	}
	if _, err := physBits(file + ".none"); err == nil {
		t.Error("no file: got no error, want one")
	}
}

// TestDemoConfigs: each platform's demo is a config that its guests take.
func TestDemoConfigs(t *testing.T) {
	for p, want := range map[measure.Platform]config.Sealing{"": config.SealTPM, measure.TDX: config.SealNothing, measure.SEVSNP: config.SealSNP} {
		if got := DemoConfigOn(p).Identity.Sealing; got != want {
			t.Errorf("%q: sealing is %s, want %s", p, got, want)
		}
	}
}
