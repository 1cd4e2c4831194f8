package measure

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"

	"chrysalis/measure/varstore"
)

func variablesOf(t *testing.T, name string) []varstore.Variable {
	t.Helper()
	packed, err := os.ReadFile("varstore/testdata/" + name + ".fd.gz")
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	file, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	variables, err := varstore.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	return variables
}

// TestPCR7 has the values that guests' TPMs had after boots on QEMU 10.0 with Debian's OVMF 2025.02-8+deb13u1: OVMF_CODE_4M.fd, which
// does not know Secure Boot, and OVMF_CODE_4M.secboot.fd, over these variable stores; the last with an image that snakeoil's key signed.
func TestPCR7(t *testing.T) {
	certificate, err := os.ReadFile("varstore/testdata/snakeoil.der")
	if err != nil {
		t.Fatal(err)
	}
	ms, snakeoil := variablesOf(t, "ms"), variablesOf(t, "snakeoil")
	for _, tt := range []struct {
		name string
		boot SecureBoot
		want string
	}{
		{"no Secure Boot, no variables", SecureBoot{}, "b5710bf57d25623e4019027da116821fa99f5c81e9e38b87671cc574f9281439"},
		{"no Secure Boot, Microsoft's keys", SecureBoot{Variables: ms}, "404cc2e8408182b10eba63c4c2f05a66ff28c6a21d04a37307e5437dcdf6df19"},
		{"no Secure Boot, snakeoil's keys", SecureBoot{Variables: snakeoil}, "511e17e232ae5da98ea0cdc40d846634cdc08d522960aed6fc3c532725b06c79"},
		{"Secure Boot, no variables", SecureBoot{State: Enforced(nil)}, "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068"},
		{"Secure Boot, snakeoil's keys", SecureBoot{State: Enforced(snakeoil), Variables: snakeoil, Verified: [][]byte{certificate}},
			"df473f69e2c57f805be51fde5edf7b254a588f3e4bb30b661a87fcb6ad8af24c"},
	} {
		got, err := tt.boot.PCR7()
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: got %s (%v), want %s", tt.name, got, err, tt.want)
		}
	}
	if _, err := (SecureBoot{Variables: ms, Verified: [][]byte{certificate}}).PCR7(); err == nil {
		t.Error("a certificate that is not in db: got no error")
	}
	off := append([]varstore.Variable{{Name: "SecureBootEnable", Data: []byte{0}}}, ms...)
	if got := Enforced(off); !bytes.Equal(got, []byte{0}) {
		t.Errorf("turned off by its store: got %v, want off", got)
	}
}
