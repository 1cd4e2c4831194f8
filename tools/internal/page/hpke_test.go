package page

import (
	"crypto/hpke"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/evidence"
	envelope "chrysalis/runtime/envelope/guest"
	"chrysalis/tools/internal/page/pagetest"
)

// TestHPKEOracle has two other hands' HPKE open an envelope that was sealed here, and the answer to it, and seal one that is opened here.
func TestHPKEOracle(t *testing.T) {
	dir := clients(t)
	text, err := os.ReadFile(filepath.Join(root, "runtime", "envelope", "testdata", "vectors", "envelope.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Seed, OuterPath string
		Header          struct {
			KeyID, Instance string
			Epoch           uint64
		}
		Request struct{ Body string }
	}
	if err := json.Unmarshal(text, &v, json.MatchCaseInsensitiveNames(false)); err != nil {
		t.Fatal(err)
	}
	seed, err := hex.DecodeString(v.Seed)
	if err != nil {
		t.Fatal(err)
	}
	private, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	said := pagetest.Node(t, dir, "hpke.mjs", struct {
		Vector              jsontext.Value
		IDs                 []string
		NotBefore, NotAfter int64
	}{text, []string{strings.Repeat("ab", 16), strings.Repeat("cd", 16)}, now.Add(-time.Minute).Unix(), now.Add(time.Minute).Unix()})
	var id evidence.KeyID
	var instance [32]byte
	if _, err := hex.Decode(id[:], []byte(v.Header.KeyID)); err != nil {
		t.Fatal(err)
	}
	if _, err := hex.Decode(instance[:], []byte(v.Header.Instance)); err != nil {
		t.Fatal(err)
	}
	opener := envelope.NewOpener(func(evidence.KeyID) (envelope.Key, bool) {
		return envelope.Key{PrivateKey: private, Epoch: v.Header.Epoch, Instance: instance}, true
	}, time.Now)
	all := strings.Fields(strings.TrimSuffix(said, "passed\n"))
	if len(all) != 2 {
		t.Fatalf("%d envelopes, want one of each hand", len(all))
	}
	for i, text := range all {
		sealed, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		request, _, err := opener.Open(sealed, id, "POST", v.OuterPath)
		if err != nil || string(request.Body) != v.Request.Body {
			t.Errorf("what hand %d sealed: %v", i+1, err)
		}
	}
}
