package main

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/nvidia"
)

// TestGPURoots: each flag replaces its own root of GPUs, one file may serve for both, and a file that is none is refused.
func TestGPURoots(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	measured, err := os.ReadFile("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	guest := newSoftwareGuest(t, measured)
	if err := guest.files(dir); err != nil { // a policy among them
		t.Fatal(err)
	}
	certificate := attesttest.NewTDXGuest(measured, time.Now()).Roots().TDX
	own := write("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
	ours, theirs := []nvidia.Root{nvidia.RootOf(certificate)}, nvidia.NVIDIARoots()
	for _, tt := range []struct {
		name string
		f    remoteFlags
		want nvidia.Roots
	}{
		{"neither", remoteFlags{}, theirs},
		{"the devices'", remoteFlags{gpuRoot: own}, nvidia.Roots{Device: ours, RIM: theirs.RIM}},
		{"the reference values'", remoteFlags{gpuRIMRoot: own}, nvidia.Roots{Device: theirs.Device, RIM: ours}},
		{"one for both", remoteFlags{gpuRoot: own, gpuRIMRoot: own}, nvidia.Roots{Device: ours, RIM: ours}},
	} {
		tt.f.policy, tt.f.offline, tt.f.reach = filepath.Join(dir, "policy.json"), true, time.Second
		if got, err := tt.f.open(); err != nil || !reflect.DeepEqual(got.Roots.NVIDIA, tt.want) {
			t.Errorf("%s: got %v and error %v, want %v", tt.name, got.Roots.NVIDIA, err, tt.want)
		}
	}
	for _, f := range []remoteFlags{{gpuRoot: write("none.pem", []byte("none"))}, {gpuRIMRoot: filepath.Join(dir, "nowhere.pem")}} {
		f.policy, f.offline, f.reach = filepath.Join(dir, "policy.json"), true, time.Second
		if _, err := f.open(); err == nil || !strings.Contains(err.Error(), ".pem") {
			t.Errorf("%q and %q: got error %v, want one that names the file", f.gpuRoot, f.gpuRIMRoot, err)
		}
	}
}
