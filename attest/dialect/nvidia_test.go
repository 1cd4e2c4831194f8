package dialect_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/dialect"
	"chrysalis/attest/nvidia"
)

// nvidiaFiles writes a board's devices as NVIDIA's SDK does.
func nvidiaFiles(e nvidia.Evidence, nonce []byte) (collection, array string) {
	wrap := func(media string, value []byte) string {
		return fmt.Sprintf("[%q,%q]", media, base64.RawURLEncoding.EncodeToString(value))
	}
	items, rows := []string{`"__cmwc_t":"tag:nvidia.com,2026:verifier-input/profiles/base/pre-1.0.0"`, `"nonce":` +
		wrap("application/octet-stream", nonce)}, []string{}
	for i, d := range e.GPUs {
		items = append(items,
			fmt.Sprintf(`"gpu_%d":{"__cmwc_t":"tag:nvidia.com,2026:evidence-item/v1","evidence":%s,"certificate":%s,`+
				`"hints":["application/json","e30"]}`, i,
				wrap("application/vnd.nvidia.spdm-measurement-transcript", d.Report), wrap("application/vnd.nvidia.pem-cert-chain", d.Chain)))
		rows = append(rows, fmt.Sprintf(`{"arch":"HOPPER","nonce":%q,"evidence":%q,"certificate":%q}`, hex.EncodeToString(nonce),
			base64.StdEncoding.EncodeToString(d.Report), base64.StdEncoding.EncodeToString(d.Chain)))
	}
	return "{" + strings.Join(items, ",") + "}", "[" + strings.Join(rows, ",") + "]"
}

func TestNVIDIA(t *testing.T) {
	b := attesttest.NewBlackwellBoard(2, time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	e, nonce := b.Evidence(), b.GPUs[0].Report.Nonce
	collection, array := nvidiaFiles(e, nonce[:])
	for name, file := range map[string]string{"collection": collection, "array": array} {
		devices, got, err := dialect.NVIDIA([]byte(file))
		if err != nil || !dialect.IsNVIDIA([]byte(file)) || !bytes.Equal(got, nonce[:]) || len(devices) != 2 {
			t.Errorf("%s: got %d devices, nonce %x, %v", name, len(devices), got, err)
			continue
		}
		for i, d := range devices {
			if !bytes.Equal(d.Report, e.GPUs[i].Report) || !bytes.Equal(d.Chain, e.GPUs[i].Chain) {
				t.Errorf("%s: device %d is not what was written", name, i)
			}
		}
	}
	for _, tt := range []struct{ name, of, from, to string }{
		{"another collection", collection, "pre-1.0.0", "2"},
		{"another item", collection, "evidence-item/v1", "evidence-item/v2"},
		{"another kind of report", collection, "spdm-measurement-transcript", "nvdaod"},
		{"another kind of chain", collection, "pem-cert-chain", "der"},
		{"no report", collection, `"evidence":`, `"hints":`},
		{"unknown member", collection, `"hints":`, `"certificates":`},
		{"member twice", collection, `"hints":["application/json","e30"]`, `"evidence":["",""]`},
		{"wrapper of three", collection, `["application/octet-stream",`, `["application/octet-stream","",`},
		{"base64 with padding", collection, `["application/octet-stream","`, `["application/octet-stream","A=`},
		{"nonce in words", array, `"nonce":"`, `"nonce":"x`},
		{"two nonces", array, `"nonce":"01`, `"nonce":"02`},
		{"no device", array, array, "[]"},
		{"not JSON", array, "[", "[["},
		{"cut short", collection, "}}", "}"},
	} {
		if !strings.Contains(tt.of, tt.from) {
			t.Fatalf("%s: nothing to replace", tt.name)
		}
		if devices, _, err := dialect.NVIDIA([]byte(strings.Replace(tt.of, tt.from, tt.to, 1))); err == nil {
			t.Errorf("%s: got %d devices, want a refusal", tt.name, len(devices))
		}
	}
	if _, _, err := dialect.NVIDIA([]byte("[" + strings.Repeat(" ", 1<<20))); err == nil {
		t.Error("a long file: not refused")
	}
}

// FuzzNVIDIA shows that nothing panics, and that no more devices come out than are judged.
func FuzzNVIDIA(f *testing.F) {
	b := attesttest.NewBoard(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	collection, array := nvidiaFiles(b.Evidence(), make([]byte, 32))
	for _, seed := range []string{collection, array} {
		if _, _, err := dialect.NVIDIA([]byte(seed)); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if !dialect.IsNVIDIA(file) {
			return
		}
		if devices, _, err := dialect.NVIDIA(file); err == nil && (len(devices) == 0 || len(devices) > 2*nvidia.MaxDevices) {
			t.Errorf("%d devices", len(devices))
		}
	})
}
