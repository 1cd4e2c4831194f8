package attest_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// recordedGuest is what a guest of the cpu profile answered: QEMU under emulation, OVMF, swtpm, a release built from the
// lock, and the policy that chrysalis policy made of that release's manifest. The key of its TPM's maker is gone.
func recordedGuest(t testing.TB) (e *evidence.Evidence, c attest.Challenge, p attest.Policy, at time.Time, roots attest.Roots) {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "guest", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	e, err := evidence.Decode(read("evidence.bin"))
	if err != nil {
		t.Fatal(err)
	}
	var challenge struct {
		Nonce    register.Digest `json:"nonce"`
		Exporter register.Digest `json:"exporter"`
		TLSKey   register.Digest `json:"tls_key"`
		Time     time.Time       `json:"time"`
	}
	if err := json.Unmarshal(read("challenge.json"), &challenge); err != nil {
		t.Fatal(err)
	}
	if p, err = attest.ParsePolicy(read("policy.json")); err != nil {
		t.Fatal(err)
	}
	roots.VTPM = x509.NewCertPool()
	if !roots.VTPM.AppendCertsFromPEM(read("tpm-maker.pem")) {
		t.Fatal("no root in tpm-maker.pem")
	}
	return e, attest.Challenge{Nonce: challenge.Nonce, Exporter: challenge.Exporter, TLSKey: challenge.TLSKey}, p, challenge.Time, roots
}

// TestRecordedGuest is the second opinion on the software platform: a real TPM's and a real guest's bytes.
func TestRecordedGuest(t *testing.T) {
	e, c, p, at, roots := recordedGuest(t)
	r, err := attest.Verify(e, c, p, at, roots)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Config(); m.Service.Model.Name != "tiny" || m.Identity.Network != config.Local {
		t.Errorf("config: got model %q on %q, want tiny on local", m.Service.Model.Name, m.Identity.Network)
	}
	refused := func(name, want string, e *evidence.Evidence, c attest.Challenge, at time.Time) {
		t.Helper()
		var rejected *attest.Refused
		if _, err := attest.Verify(e, c, p, at, roots); !errors.As(err, &rejected) || rejected.Failed.Name != want {
			t.Errorf("%s: got %v, want %s to refuse", name, err, want)
		}
	}
	later := *e
	later.Statement.NotAfter += 60
	refused("a statement given a minute more", "report-data", &later, c, at)
	refused("two hours later", "not-after", e, c, at.Add(2*time.Hour))
	other := c
	other.Exporter[0]++
	refused("over another connection", "challenge", e, other, at)
	dear := *e
	dear.Config = bytes.Replace(e.Config, []byte(`"nanoton_per_token":20`), []byte(`"nanoton_per_token":19`), 1)
	refused("a config with another price", "event-config", &dear, c, at)
}

func BenchmarkVerifyVTPM(b *testing.B) {
	e, c, p, at, roots := recordedGuest(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := attest.Verify(e, c, p, at, roots); err != nil {
			b.Fatal(err)
		}
	}
}
