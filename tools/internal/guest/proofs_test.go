package guest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/tools/internal/earned"
)

func proofLine(t *testing.T, sequence, tokens uint64) string {
	t.Helper()
	client := ton.Address{Account: [32]byte{1}}
	r := receipt.Receipt{Sequence: sequence, Instance: [16]byte{1}, Client: client, Usage: receipt.Usage{Completion: 1}, Weighted: 1, Cumulative: tokens,
		Price: ton.Price{NanotonPerToken: 20, CompletionWeight: ton.WeightOne}, Outcome: receipt.Complete}
	if sequence > 0 {
		r.Previous = [32]byte{1}
	}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	signed, err := receipt.Sign(key, r)
	if err != nil {
		t.Fatal(err)
	}
	charge, err := claim.Sign(key, claim.Message{Op: claim.ClientCharge, Tokens: tokens, Contract: client, Excesses: client})
	if err != nil {
		t.Fatal(err)
	}
	line, err := receipt.Proof{Receipt: signed, Charge: charge}.Line()
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// TestProofsOutliveGuests: starts keep the newest of each contract; a forgotten guest leaves what it has handed out, and nothing else.
func TestProofsOutliveGuests(t *testing.T) {
	g := Guest{Dir: filepath.Join(t.TempDir(), "guest")}
	if err := os.MkdirAll(g.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := g.tidyProofs(); err != nil {
		t.Fatal(err)
	}
	if err := g.Forget(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.Dir); !os.IsNotExist(err) {
		t.Errorf("a guest that has earned nothing: its folder is there still, %v", err)
	}
	if err := os.MkdirAll(g.Path("tpm"), 0o700); err != nil {
		t.Fatal(err)
	}
	newest := proofLine(t, 2, 30)
	file := strings.Join([]string{proofLine(t, 0, 10), proofLine(t, 1, 20), newest, "half a line"}, "\n")
	if err := os.WriteFile(g.Path(ProofsFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.tidyProofs(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(g.Path(ProofsFile)); err != nil || string(got) != newest+"\n" {
		t.Errorf("tidied: got %d bytes and error %v, want the newest line alone", len(got), err)
	}
	for range 2 {
		if err := g.rememberSigners(earned.Signers{Receipt: pubkey.Ed25519{1}, Claim: pubkey.Ed25519{2}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Forget(); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(g.Path("*"))
	if err != nil || len(left) != 2 {
		t.Errorf("forgotten: got %q and error %v, want %s and %s", left, err, ProofsFile, SignersFile)
	}
	if got, err := os.ReadFile(g.Path(SignersFile)); err != nil || strings.Count(string(got), "\n") != 1 {
		t.Errorf("signers: got %q and error %v, want one line", got, err)
	}
	if err := os.WriteFile(g.Path(SignersFile), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.rememberSigners(earned.Signers{}); err == nil {
		t.Error("a file of something else: got no error, want one")
	}
	if err := (Guest{Dir: filepath.Join(g.Dir, "none")}).Forget(); err != nil {
		t.Errorf("no folder: %v", err)
	}
}

// TestRememberSigners asks a guest over a connection as it serves.
func TestRememberSigners(t *testing.T) {
	measured, err := os.ReadFile("../../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	software := attesttest.New(measured, time.Now())
	server, err := guest.NewServer(func(r evidence.Request) (*evidence.Evidence, error) {
		return software.Attest(r.NonceRoot, r.TLSKey), nil
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", server.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); conn.(*tls.Conn).Handshake() }()
		}
	}()
	g := Guest{Dir: t.TempDir()}
	spec := Spec{Port: l.Addr().(*net.TCPAddr).Port}
	if err := g.RememberSigners(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s := software.Attest([32]byte{}, [32]byte{}).Statement
	got, err := os.ReadFile(g.Path(SignersFile))
	if want := (earned.Signers{Receipt: s.ReceiptKey, Claim: s.ClaimKey}).String() + "\n"; err != nil || string(got) != want {
		t.Errorf("got %q and error %v, want %q", got, err, want)
	}
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := g.RememberSigners(ctx, spec); err == nil {
		t.Error("nobody serves: got no error, want one")
	}
}
