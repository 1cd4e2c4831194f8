package receipts

import (
	"crypto/ed25519"
	"encoding/base64"
	"testing"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/ton"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/receipt"
)

// FuzzParse reads files that may be receipts. What is read as an archive is the same when it is bundled and read again.
func FuzzParse(f *testing.F) {
	signed, err := receipt.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), receipt.Receipt{Usage: receipt.Usage{Completion: 1}, Weighted: 1,
		Cumulative: 1, Price: ton.Price{CompletionWeight: ton.WeightOne}, Outcome: receipt.Complete})
	if err != nil {
		f.Fatal(err)
	}
	digits := base64.StdEncoding.EncodeToString(signed[:])
	kept, err := json.Marshal(Kept{Guest: "https://g", Receipt: digits})
	if err != nil {
		f.Fatal(err)
	}
	bundle, err := json.Marshal(Bundle{Object: proof.BundleObject, Receipts: []Kept{{Receipt: digits}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{signed[:], kept, bundle, []byte(`{"object":"chrysalis.receipt","id":"chatcmpl-1","receipt":"` + digits + `"}`)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := parse(text, "a")
		if err != nil {
			return
		}
		for i := range a.Entries {
			a.Entries[i].Evidence = "" // it would have to be there
		}
		whole, err := a.Bundle()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(whole, "b")
		if err != nil || len(again.Entries) != len(a.Entries) {
			t.Fatalf("bundled and read again: %d receipts (%v), want %d", len(again.Entries), err, len(a.Entries))
		}
		for i := range a.Entries {
			if again.Entries[i].Kept != a.Entries[i].Kept || again.Entries[i].Signed != a.Entries[i].Signed {
				t.Errorf("receipt %d is another one after it was bundled", i)
			}
		}
	})
}
