package sevsnp_test

import (
	"encoding/pem"
	"testing"
	"time"

	"chrysalis/attest/sevsnp"

	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"
)

func TestReal(t *testing.T) {
	ask, rest := pem.Decode(trust.AskArkMilanVcekBytes)
	ark, _ := pem.Decode(rest)
	e := sevsnp.Evidence{Report: testdata.AttestationBytes, Certificate: testdata.VcekBytes, Chain: [][]byte{ask.Bytes, ark.Bytes}}
	_, err := sevsnp.Verify(e, sevsnp.Options{}, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), sevsnp.AMDRoots())
	for _, c := range err.(*sevsnp.Refused).Checks() {
		t.Log(c)
	}
	t.Log(err)
}
