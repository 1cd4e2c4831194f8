package receipts

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/receipt"
)

var payer = ton.Address{Account: [32]byte{0xc1}}

// kept is a folder with so many proofs of a software guest's answers.
func kept(t *testing.T, answers int) (dir string, g *clienttest.Guest) {
	t.Helper()
	measured, err := os.ReadFile("../../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	g = clienttest.New(t, measured)
	sealed, err := client.NewSealed(g.URL, ratls.Config{Policy: g.Policy(), Roots: g.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	defer sealed.Close()
	dir = t.TempDir()
	folder := NewFolder(dir)
	for range answers {
		const body = `{"model":"tiny","messages":[{"role":"user","content":"canary"}]}`
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+api.ChatCompletions, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set(api.ClientHeader, payer.String())
		response, result, err := sealed.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		watched := proof.Watch(api.ChatCompletions, response.Body, false, []byte(body), payer, result)
		for err = nil; err == nil; {
			_, err = watched.Next()
		}
		response.Body.Close()
		if err != io.EOF {
			t.Fatal(err)
		}
		if err := folder.Keep(g.URL, time.Now(), watched.Answer()); err != nil {
			t.Fatal(err)
		}
	}
	return dir, g
}

func read(t *testing.T, path string) *Archive {
	t.Helper()
	a, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// by appraises as the guest's own policy and roots have it.
func by(g *clienttest.Guest) Appraise {
	return func(e *evidence.Evidence, nonce [32]byte, at time.Time) (*attest.Result, error) {
		return attest.VerifyDetached(e, nonce, g.Policy(), at, g.Roots())
	}
}

// edit changes each kept file.
func edit(t *testing.T, dir string, change func(k *Kept)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var k Kept
		if err := json.Unmarshal(text, &k); err != nil {
			t.Fatal(err)
		}
		change(&k)
		if text, err = json.Marshal(k); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestArchive: what was kept is accepted in each form that it is read in, by evidence and policy, and makes a chain.
func TestArchive(t *testing.T) {
	dir, g := kept(t, 3)
	shown, err := filepath.Glob(filepath.Join(dir, evidenceDir, "*.evidence"))
	if err != nil || len(shown) != 1 {
		t.Fatalf("evidence: %q, %v; want it once", shown, err)
	}
	bundle, err := read(t, dir).Bundle()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(bundle), "canary") || strings.Contains(string(bundle), "Oslo") {
		t.Error("text of an answer was kept")
	}
	file := filepath.Join(t.TempDir(), "bundle.json")
	if err := os.WriteFile(file, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	one, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
	if err != nil || len(one) != 3 {
		t.Fatalf("kept %q, %v", one, err)
	}
	for path, count := range map[string]int{dir: 3, file: 3, one[0]: 1} {
		a := read(t, path)
		for i, err := range a.Judge(by(g)) {
			if err != nil {
				t.Errorf("%s: %s: %v", path, a.Entries[i].File, err)
			}
		}
		chains, err := Chains(a.Entries)
		if err != nil || len(chains) != 1 || chains[0].Count != count || chains[0].Missing != 0 {
			t.Errorf("%s: got %+v (%v), want one chain of %d", path, chains, err, count)
		}
	}
	// A day that is gone leaves a gap, which is counted and no fault.
	for _, f := range one {
		if read(t, f).Entries[0].Receipt.Sequence == 2 {
			os.Remove(f)
		}
	}
	if chains, err := Chains(read(t, dir).Entries); err != nil || chains[0].Missing != 1 || chains[0].First != 1 || chains[0].Last != 3 {
		t.Errorf("with one gone: got %+v (%v)", chains, err)
	}
}

// TestOneReceipt: a receipt alone is judged by a key, and by nothing else.
func TestOneReceipt(t *testing.T) {
	dir, g := kept(t, 1)
	e := read(t, dir).Entries[0]
	for name, text := range map[string][]byte{
		"bytes": e.Signed[:],
		"told":  []byte(`{"object":"chrysalis.receipt","id":"chatcmpl-1","receipt":"` + base64.StdEncoding.EncodeToString(e.Signed[:]) + `"}`),
	} {
		file := filepath.Join(t.TempDir(), "r")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		a := read(t, file)
		if err := a.Signed(pubkey.Of(g.ReceiptKey))[0]; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := a.Signed(pubkey.Of(g.ClaimKey))[0]; !errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: by another key: got %v, want a rejection", name, err)
		}
		if err := a.Judge(by(g))[0]; !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: by evidence that is not there: got %v", name, err)
		}
	}
}

// TestJudgeRefuses changes one thing each.
func TestJudgeRefuses(t *testing.T) {
	rejected, unavailable := check.ErrRejected, check.ErrUnavailable
	stranger := ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize)))
	for _, tt := range []struct {
		name   string
		change func(dir string, k *Kept)
		want   error
		says   string
	}{
		{"another receipt key", func(_ string, k *Kept) { k.ReceiptKey = pubkey.Of(stranger).String() }, rejected, "receipt key"},
		{"another claim key", func(_ string, k *Kept) { k.ClaimKey = pubkey.Of(stranger).String() }, rejected, "claim key"},
		{"another machine", func(_ string, k *Kept) { k.Machine = strings.Repeat("0", 64) }, rejected, "machine"},
		{"another platform", func(_ string, k *Kept) { k.Platform = "tdx" }, rejected, "platform"},
		{"another payer", func(_ string, k *Kept) { k.Contract = ton.Address{Account: [32]byte{1}}.String() }, rejected, "client"},
		{"no charge", func(_ string, k *Kept) { k.Charge = "" }, rejected, "verifying charge"},
		{"a later time", func(_ string, k *Kept) { k.Time = k.Time.Add(3 * time.Hour) }, rejected, "not-after"},
		{"an earlier time", func(_ string, k *Kept) { k.Time = k.Time.Add(-3 * time.Hour) }, rejected, "not-after"},
		{"another nonce", func(_ string, k *Kept) { k.Nonce = strings.Repeat("5a", 32) }, rejected, "challenge"},
		{"a short nonce", func(_ string, k *Kept) { k.Nonce = "5a" }, rejected, "nonce has 2 digits"},
		{"no evidence named", func(_ string, k *Kept) { k.Evidence = "" }, unavailable, "no evidence is kept"},
		{"evidence that is not there", func(_ string, k *Kept) { k.Evidence = strings.Repeat("0", 32) }, unavailable, "no such file"},
		{"a name that leads elsewhere", func(_ string, k *Kept) { k.Evidence = "../" + k.Evidence }, rejected, "want 32 hexadecimal digits"},
		{"changed evidence", func(dir string, k *Kept) {
			file := filepath.Join(dir, evidenceDir, k.Evidence+".evidence")
			encoded, _ := os.ReadFile(file)
			encoded[100]++
			os.WriteFile(file, encoded, 0o600)
		}, rejected, "evidence hashes to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, g := kept(t, 1)
			edit(t, dir, func(k *Kept) { tt.change(dir, k) })
			err := read(t, dir).Judge(by(g))[0]
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v that says %q", err, tt.want, tt.says)
			}
		})
	}
	t.Run("evidence of one day beside a receipt of another", func(t *testing.T) {
		dir, g := kept(t, 2)
		first := true
		edit(t, dir, func(k *Kept) {
			if !first {
				k.Time = k.Time.Add(24 * time.Hour)
			}
			first = false
		})
		verdicts := read(t, dir).Judge(by(g))
		if verdicts[0] != nil || !errors.Is(verdicts[1], check.ErrRejected) || !strings.Contains(verdicts[1].Error(), "its evidence is good until") {
			t.Errorf("got %v", verdicts)
		}
	})
}

func TestReadRefuses(t *testing.T) {
	dir, _ := kept(t, 1)
	e := read(t, dir).Entries[0]
	good, err := json.Marshal(e.Kept)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no JSON": "x", "more behind": string(good) + "x", "an unknown member": `{"x":1,` + string(good[1:]),
		"a member twice":      `{"receipt":"",` + string(good[1:]),
		"a receipt cut short": strings.Replace(string(good), e.Kept.Receipt, e.Kept.Receipt[:100], 1),
		"another base64":      strings.Replace(string(good), e.Kept.Receipt, e.Kept.Receipt[:50]+`\n`+e.Kept.Receipt[50:], 1),
		"a charge cut short":  strings.Replace(string(good), e.Kept.Charge, e.Kept.Charge[:100], 1),
		"no contract":         strings.Replace(string(good), e.Contract, "x", 1),
		"another object":      `{"object":"chrysalis.receipt"}`,
		"a bundle of nothing": `{"object":"chrysalis.receipts","x":1}`,
	} {
		file := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if a, err := Read(file); err == nil {
			t.Errorf("%s: got %d receipts, want an error", name, len(a.Entries))
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "large.json"), make([]byte, maxKeptBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "more than 16384 bytes") {
		t.Errorf("a large file: got %v", err)
	}
}

// TestChains lays receipts that can't all be one guest's.
func TestChains(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	make := func(sequence uint64, previous [32]byte, count uint64, request byte) Entry {
		r := receipt.Receipt{Sequence: sequence, Previous: previous, Request: [32]byte{request}, Client: payer, Usage: receipt.Usage{Completion: 10},
			Weighted: 10, Cumulative: count, Price: ton.Price{CompletionWeight: ton.WeightOne}, Outcome: receipt.Complete}
		signed, err := receipt.Sign(key, r)
		if err != nil {
			t.Fatal(err)
		}
		return Entry{File: "a file", Signed: *signed, Receipt: &r}
	}
	first := make(0, [32]byte{}, 10, 1)
	second := make(1, first.Signed.Hash(), 20, 2)
	other := second
	other.Receipt = new(receipt.Receipt)
	*other.Receipt = *second.Receipt
	other.Receipt.Instance[0] = 9
	for _, tt := range []struct {
		name    string
		entries []Entry
		says    string // "" is accepted
	}{
		{"in order", []Entry{first, second, make(2, second.Signed.Hash(), 30, 3)}, ""},
		{"in another order", []Entry{second, first}, ""},
		{"kept twice", []Entry{first, second, second}, ""},
		{"with others between", []Entry{first, make(9, [32]byte{9}, 20, 2)}, ""},
		{"two guests", []Entry{first, other}, ""},
		{"two in one place", []Entry{first, second, make(1, first.Signed.Hash(), 20, 4)}, "two receipts numbered 1"},
		{"another before it", []Entry{first, make(1, [32]byte{9}, 20, 2)}, "names 09"},
		{"a count that falls", []Entry{first, make(9, [32]byte{9}, 10, 2)}, "counts to 10 with 10 of its own, after 10"},
	} {
		chains, err := Chains(tt.entries)
		if tt.says == "" && (err != nil || len(chains) == 0) || tt.says != "" && (!errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: got %+v, %v; want %q", tt.name, chains, err, tt.says)
		}
	}
}
