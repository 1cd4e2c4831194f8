package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/tools/internal/guest"
)

// TestBoots boots the release again and again on each platform, with the power taken away after each boot: each must serve, be accepted,
// and go on with the key where the platform keeps one. What fails one time in twenty shows here, so nothing is tried twice. It takes
// minutes, and is for whoever changes kernel, firmware or QEMU: make boots.
func TestBoots(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("CHRYSALIS_BOOTS"))
	if err != nil {
		t.Skip("for whoever changes what boots: make boots")
	}
	if n < 2 {
		t.Fatalf("CHRYSALIS_BOOTS is %d, want 2 at least", n)
	}
	for _, p := range []struct {
		name  string
		spec  func(*testing.T) guest.Spec
		keeps bool
	}{{"vtpm", demoSpec, true}, {"tdx", tdSpec, false}, {"sev-snp", snpSpec, true}} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			g, spec := newGuest(t), p.spec(t)
			var key string
			for i := range n {
				began := time.Now()
				if !p.keeps {
					g = newGuest(t) // a journal is its guest's, and each boot is another's
				}
				if err := boot(t, g, spec); err != nil {
					t.Fatalf("boot %d of %d: %v", i+1, n, err)
				}
				served := time.Since(began)
				c := newClient(t, g, spec)
				if v := c.verify(0); v.Verdict != "accepted" {
					t.Fatalf("boot %d of %d: got %+v, want it accepted", i+1, n, v)
				}
				got := c.ask(question)
				if got.text != oslo {
					t.Fatalf("boot %d of %d: got the answer %q, want %q", i+1, n, got.text, oslo)
				}
				if i > 0 && (got.key == key) != p.keeps {
					t.Fatalf("boot %d of %d: the claim key is %s after %s; kept is %t, want %t", i+1, n, got.key, key, got.key == key, p.keeps)
				}
				key = got.key
				g.Cut()
				fmt.Printf("%s: boot %d of %d served after %.1f s\n", p.name, i+1, n, served.Seconds())
			}
		})
	}
}

// boot starts g once and waits until it serves.
func boot(t *testing.T, g guest.Guest, spec guest.Spec) error {
	t.Helper()
	if err := g.Start(t.Context(), spec); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	return g.Wait(ctx, func(status.Line) {})
}
