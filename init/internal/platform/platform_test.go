package platform

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/init/internal/platform/sevsnp"
	"chrysalis/init/internal/platform/tdx"
	"chrysalis/init/internal/platform/vtpm"
	"chrysalis/init/internal/sealing"
	"chrysalis/measure/config"
)

// TestOrder: a machine is what its processor says, whatever TPM the host puts beside it.
func TestOrder(t *testing.T) {
	p := Paths{Dev: t.TempDir(), Sys: t.TempDir(), Proc: t.TempDir()}
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(p.Dev, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	touch("tpmrm0")
	for _, device := range []string{"sev-guest", "tdx_guest"} {
		touch(device)
		want := map[string]string{"sev-guest": "opening platform sev-snp", "tdx_guest": "opening platform tdx"}[device]
		if got, err := Open(p); got != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a TPM beside %s: got %v and error %v, want that one's alone", device, got, err)
		}
	}
}

// TestFits: each platform has its ways of sealing, and no other.
func TestFits(t *testing.T) {
	for name, tt := range map[string]struct {
		on  Platform
		has []config.Sealing
	}{
		"vtpm":    {&vtpm.TPM{}, []config.Sealing{config.SealTPM, config.SealNothing, config.SealCustodian}},
		"tdx":     {&tdx.TD{}, []config.Sealing{config.SealNothing, config.SealCustodian}},
		"sev-snp": {&sevsnp.Guest{}, []config.Sealing{config.SealSNP, config.SealNothing, config.SealCustodian}},
	} {
		for _, s := range append(config.Sealings(), "rot13") {
			err := Fits(tt.on, s)
			if fits := slices.Contains(tt.has, s); fits != (err == nil) || err != nil && !errors.Is(err, sealing.ErrUnfit) {
				t.Errorf("%s: sealing %q: got error %v, want it to fit: %v", name, s, err, fits)
			}
		}
	}
	for name, tt := range map[string]struct {
		on  Platform
		own config.Sealing
	}{"vtpm": {&vtpm.TPM{}, config.SealTPM}, "tdx": {&tdx.TD{}, config.SealNothing}, "sev-snp": {&sevsnp.Guest{}, config.SealSNP}} {
		if got := Own(tt.on); got != tt.own {
			t.Errorf("%s: a custodian's own secret: got %q, want %q", name, got, tt.own)
		}
	}
	for s, want := range map[config.Sealing]bool{config.SealTPM: false, config.SealSNP: true, config.SealNothing: false} {
		if got := InStore(s); got != want {
			t.Errorf("%s: a record on the journal's disk: got %v, want %v", s, got, want)
		}
	}
}

// TestOpen: a machine without a device of any platform is refused, and so is one whose device is none.
func TestOpen(t *testing.T) {
	p := Paths{Dev: t.TempDir(), Sys: t.TempDir()}
	if got, err := Open(p); got != nil || err == nil || !strings.Contains(err.Error(), "vtpm") {
		t.Errorf("no device: got %v and error %v, want one that says what was looked for", got, err)
	}
	if err := os.WriteFile(filepath.Join(p.Dev, "tpmrm0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Open(p); got != nil || err == nil || !strings.Contains(err.Error(), "opening platform vtpm") {
		t.Errorf("a file for a TPM: got %v and error %v, want a refusal", got, err)
	}
}
