package enrol

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"chrysalis/attest/vtpm/template"
)

// FuzzEnrolment throws public areas at an enrolment: none panics, and none that is not the template comes as far as the
// endorsement key. A real TPM's enrolment is tested where there is one.
func FuzzEnrolment(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	genuine := template.AK()
	genuine.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	seed := tpm2.Marshal(genuine)
	judge := func(public []byte) string {
		_, _, err := Enrolment{AK: public}.Challenge(nil, time.Now())
		return err.Error()
	}
	if got := judge(seed); !strings.Contains(got, "no maker is trusted") {
		f.Fatalf("the genuine key: got %s, want it to pass", got)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, public []byte) {
		if !strings.Contains(judge(public), "no maker is trusted") {
			return
		}
		again, _, err := parseAK(public)
		if err != nil || string(tpm2.Marshal(*again)) != string(public) {
			t.Errorf("read and written: %v", err)
		}
	})
}
