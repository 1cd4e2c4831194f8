package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
)

func TestGroupOf(t *testing.T) {
	for check, want := range map[string]string{
		"nonce": "session", "statement-gpu": "session", "sev-snp.report-data": "session", "quote-signature": "hardware", "sev-snp.chip": "hardware",
		"confidentiality": "hardware", "tdx.tcb-status": "hardware", "a name of tomorrow's": "hardware", "pcr-1": "image", "rtmr-2": "image",
		"sev-snp.measurement": "image", "release-rebuilt": "image", "boot-log-data": "image", "config.service.wipe": "config", "event-model": "config",
		"host-data": "config", "nvidia": "gpu", "nvidia.gpu.0.device-ocsp": "gpu", "event-gpu": "config", "mr-config-id": "config", "config.service.price.payment": "price",
	} {
		if got := groupOf(check); got != want {
			t.Errorf("%s: got %s, want %s", check, got, want)
		}
	}
}

// TestPrintGPUs: an acceptance says of each device what it is, and a refusal which check of which device refused.
func TestPrintGPUs(t *testing.T) {
	measured, err := os.ReadFile("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	g := attesttest.New(measured, at)
	g.Holds(attesttest.NewPPCIeBoard(2, 1, at))
	c := attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: [32]byte{3}}
	verify := func() (out string) {
		t.Helper()
		result, err := attest.Verify(g.Evidence(c), c, g.Policy(), at, g.Roots())
		var text, notes bytes.Buffer
		printVerification(&text, &notes, result, err, false, nil)
		return text.String() + notes.String()
	}
	out := verify()
	for _, want := range []string{"\ngpu: GH100:411122334455666700, hopper in the mode ppcie, driver 570.124.06, VBIOS 96.00.9F.00.01, ",
		"\ngpu: GH100:411122334455666701, ", "\nswitch: LS_10:411122334455667300, BIOS 96.10.6D.00.01, ", "\ngpu       ", "not NVIDIA's but software's"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %q, want %q in it", out, want)
		}
	}
	g.GPUNonce = func(s evidence.Statement) [32]byte { return s.NonceRoot }
	if out := verify(); !strings.Contains(out, "nvidia.gpu.1.nonce") || !strings.Contains(out, "rejected") {
		t.Errorf("over another nonce: got %q, want the check that refused", out)
	}
}
