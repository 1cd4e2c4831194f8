package differential

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	gce "github.com/google/gce-tcb-verifier/sev"

	"chrysalis/measure/snp"
	"chrysalis/tools/internal/toolstree"
)

// TestLaunchDigestAgainstGCE has Google's own program compute the digest of Compute Engine's guests.
func TestLaunchDigestAgainstGCE(t *testing.T) {
	end, err := os.ReadFile("../../measure/snp/testdata/ovmf_OvmfX64_suffix.bin")
	if err != nil {
		t.Fatal(err)
	}
	for pages := range 3 {
		body := make([]byte, pages*len(end))
		rand.NewChaCha8([32]byte{byte(pages)}).Read(body)
		firmware := append(body, end...)
		for _, vcpus := range []int{1, 2, 64} {
			options := gce.LaunchOptionsDefault()
			options.Vcpus = vcpus
			want, err := gce.LaunchDigest(options, firmware)
			if err != nil {
				t.Fatal(err)
			}
			got, err := snp.Digest(snp.Launch{Firmware: firmware, VMM: snp.GCE, VCPUs: vcpus, GuestFeatures: 1})
			if err != nil || hex.EncodeToString(got[:]) != hex.EncodeToString(want) {
				t.Errorf("%d pages before the end, %d vCPUs: got %x (%v), want %x", pages, vcpus, got, err, want)
			}
		}
	}
}

// TestVCPUTypesOfQEMU holds the list of vCPU types against those of the locked QEMU: each of its EPYC and Dhyana types is known, with
// the signature that its family, model and stepping give, and no other is.
func TestVCPUTypesOfQEMU(t *testing.T) {
	tree, err := toolstree.Open("../../build/tools-tree")
	if err == nil {
		tree, err = tree.WithNewerQEMU()
	}
	if err != nil {
		t.Skipf("no QEMU of the image's here: %v", err)
	}
	ask := func(commands ...string) []json.RawMessage {
		cmd := tree.Command(t.Context(), "qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio")
		cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}` + strings.Join(commands, "") + `{"execute":"quit"}`)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		var answers []json.RawMessage
		for line := range strings.Lines(string(out)) {
			var answer struct {
				Return json.RawMessage `json:"return"`
			}
			if err := json.Unmarshal([]byte(line), &answer); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if answer.Return != nil {
				answers = append(answers, answer.Return)
			}
		}
		return answers[1 : len(answers)-1] // without those of qmp_capabilities and quit
	}
	var definitions []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(ask(`{"execute":"query-cpu-definitions"}`)[0], &definitions); err != nil {
		t.Fatal(err)
	}
	var names, commands []string
	for _, d := range definitions {
		if strings.HasPrefix(d.Name, "EPYC") || strings.HasPrefix(d.Name, "Dhyana") {
			names = append(names, d.Name)
			commands = append(commands, `{"execute":"query-cpu-model-expansion","arguments":{"type":"full","model":{"name":"`+d.Name+`"}}}`)
		}
	}
	slices.Sort(names)
	if known := snp.CPUTypes(); !slices.Equal(names, known) {
		t.Errorf("QEMU has %q, want those known, %q", names, known)
	}
	for _, answer := range ask(commands...) {
		var expanded struct {
			Model struct {
				Name  string `json:"name"`
				Props struct {
					Family   uint32 `json:"family"`
					Model    uint32 `json:"model"`
					Stepping uint32 `json:"stepping"`
				} `json:"props"`
			} `json:"model"`
		}
		if err := json.Unmarshal(answer, &expanded); err != nil {
			t.Fatal(err)
		}
		p := expanded.Model.Props
		// AMD CPUID Specification, Fn0000_0001_EAX.
		want := (p.Family-0xf)<<20 | p.Model>>4<<16 | 0xf<<8 | p.Model&0xf<<4 | p.Stepping
		if got, err := snp.CPUSignature(expanded.Model.Name); err != nil || got != want {
			t.Errorf("%s: got %#x (%v), want %#x", expanded.Model.Name, got, err, want)
		}
	}
}
