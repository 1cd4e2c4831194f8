package release_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/attest/release"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

func exampleCard() release.Card {
	return release.Card{Format: release.CardFormat, Name: "tiny", Revision: "v1", Licence: "Apache-2.0", Quantisation: "Q8_0",
		Root: register.Digest{1}, Blocks: 300,
		Size: 30, Files: []release.CardFile{{Name: "config.json", Size: 10, SHA256: register.Digest{2}}, {Name: "tiny.gguf", Size: 20,
			SHA256: register.Digest{3}}}}
}

func signedCard(t testing.TB, c release.Card, seeds ...byte) []byte {
	t.Helper()
	signed, err := release.EncodeCard(c)
	for _, b := range seeds {
		if err == nil {
			signed, err = release.SignCard(signed, listKey(b))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestCardVector(t *testing.T) {
	got := signedCard(t, exampleCard(), 1)
	if os.Getenv("UPDATE_VECTORS") != "" {
		if err := os.WriteFile(filepath.Join("testdata", "vectors", "card.json"), got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := vectorFile(t, "card.json"); !bytes.Equal(got, want) {
		t.Fatalf("got %s, want %s", got, want)
	}
	c, signers, err := release.VerifyCard(got, publicKeys(1, 2), 1)
	if err != nil || c.ID() != "tiny@v1" || c.Files[1].SHA256 != (register.Digest{3}) || !slices.Equal(signers, publicKeys(1)) {
		t.Errorf("got %+v by %v, error %v", c, signers, err)
	}
}

// TestForgedCard: each part of a card is under its signature, and its signers are counted.
func TestForgedCard(t *testing.T) {
	good := signedCard(t, exampleCard(), 1, 2)
	payload := func(from, to string) func() []byte {
		return func() []byte {
			_, start, _ := bytes.Cut(good, []byte(`"payload":"`))
			text, _, _ := bytes.Cut(start, []byte(`"`))
			raw, err := base64.StdEncoding.DecodeString(string(text))
			if err != nil || !bytes.Contains(raw, []byte(from)) {
				t.Fatalf("the payload has no %s: %v", from, err)
			}
			return bytes.Replace(good, text, []byte(base64.StdEncoding.EncodeToString(bytes.Replace(raw, []byte(from), []byte(to), 1))), 1)
		}
	}
	for _, tt := range []struct {
		name      string
		card      func() []byte
		keys      []byte
		threshold int
		want      string
	}{
		{"another root", payload(`"root":"01`, `"root":"02`), []byte{1}, 1, "does not hold"},
		{"another name", payload(`"tiny"`, `"tony"`), []byte{1}, 1, "does not hold"},
		{"another licence", payload(`Apache-2.0`, `MIT`), []byte{1}, 1, "does not hold"},
		{"another file", payload(`"sha256":"03`, `"sha256":"04`), []byte{1}, 1, "does not hold"},
		{"a member more", payload(`"name":"tiny"`, `"extra":1,"name":"tiny"`), []byte{1}, 1, "unknown"},
		{"spaces", payload(`"name":"tiny"`, `"name": "tiny"`), []byte{1}, 1, "one encoding"},
		{"nobody's", func() []byte { return signedCard(t, exampleCard()) }, []byte{1}, 1, "0 of its 0 signatures"},
		{"a stranger's", func() []byte { return good }, []byte{3}, 1, "0 of its 2 signatures are by the 1 signers"},
		{"one of three where two are asked for", func() []byte { return signedCard(t, exampleCard(), 1) }, []byte{1, 2, 3}, 2, "want at least 2"},
		{"a key twice", func() []byte { return signedCard(t, exampleCard(), 1) }, []byte{1, 1}, 2, "want at least 2"},
		{"a list", func() []byte { return signedList(t, exampleReleases(t), 1) }, []byte{1}, 1, "payload type"},
		{"trailing bytes", func() []byte { return append(bytes.Clone(good), '\n') }, []byte{1}, 1, "one encoding"},
		{"empty", func() []byte { return nil }, []byte{1}, 1, "reading model card"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, signers, err := release.VerifyCard(tt.card(), publicKeys(tt.keys...), tt.threshold)
			if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.want) || c.Name != "" || signers != nil {
				t.Errorf("got %+v, error %v, want one with %q", c, err, tt.want)
			}
		})
	}
	for name, q := range map[string]struct {
		keys      []pubkey.Ed25519
		threshold int
	}{"no key": {nil, 1}, "no threshold": {publicKeys(1), 0}, "a threshold that nobody meets": {publicKeys(1),
		2}, "a zero key": {[]pubkey.Ed25519{{}}, 1}} {
		if _, _, err := release.VerifyCard(good, q.keys, q.threshold); err == nil || errors.Is(err, check.ErrRejected) {
			t.Errorf("%s: got error %v, want one that is no rejection", name, err)
		}
	}
}

func TestCardRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*release.Card)
		want   string
	}{
		"another format":        {func(c *release.Card) { c.Format = "v2" }, "format"},
		"no name":               {func(c *release.Card) { c.Name = "" }, "name"},
		"a name with @":         {func(c *release.Card) { c.Name = "a@b" }, "name"},
		"a name with a space":   {func(c *release.Card) { c.Name = "a b" }, "name"},
		"a long revision":       {func(c *release.Card) { c.Revision = strings.Repeat("a", 65) }, "revision"},
		"a coloured licence":    {func(c *release.Card) { c.Licence = "\x1b[31mMIT" }, "licence"},
		"no licence":            {func(c *release.Card) { c.Licence = "" }, "licence"},
		"a licence of spaces":   {func(c *release.Card) { c.Licence = " MIT" }, "licence"},
		"no quantisation":       {func(c *release.Card) { c.Quantisation = "" }, "quantisation"},
		"no root":               {func(c *release.Card) { c.Root = register.Digest{} }, "volume"},
		"no blocks":             {func(c *release.Card) { c.Blocks = 0 }, "volume"},
		"no files":              {func(c *release.Card) { c.Files = nil }, "0 files"},
		"files out of order":    {func(c *release.Card) { slices.Reverse(c.Files) }, "sorted"},
		"a file above":          {func(c *release.Card) { c.Files[0].Name = "../config.json" }, "file 0"},
		"a file without a hash": {func(c *release.Card) { c.Files[0].SHA256 = register.Digest{} }, "SHA-256"},
		"a negative size":       {func(c *release.Card) { c.Files[0].Size = -1 }, "file 0"},
		"another sum":           {func(c *release.Card) { c.Size++ }, "want the 30 of its files"},
		"too long":              {func(c *release.Card) { c.Files = longFiles(); c.Size = int64(len(c.Files)) }, "want at most 1048576"},
		"too many files":        {func(c *release.Card) { c.Files = make([]release.CardFile, 4097) }, "4097 files"},
	} {
		c := exampleCard()
		tt.change(&c)
		if _, err := release.EncodeCard(c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.want)
		}
	}
}

func longFiles() (files []release.CardFile) {
	for i := range 2000 {
		files = append(files, release.CardFile{Name: fmt.Sprintf("%04d%s", i, strings.Repeat("n", 1000)), Size: 1, SHA256: register.Digest{1}})
	}
	return files
}

func TestCatalogue(t *testing.T) {
	other := exampleCard()
	other.Revision = "v2"
	a, b := signedCard(t, exampleCard(), 1), signedCard(t, other, 1)
	k, err := release.ParseCatalogue(slices.Concat(a, b))
	if err != nil || !slices.Equal(k.Names(), []string{"tiny@v1", "tiny@v2"}) || !bytes.Equal(k.Bytes(), slices.Concat(a, b)) {
		t.Fatalf("got %v, error %v", k.Names(), err)
	}
	if card, err := k.Card("tiny@v2"); err != nil || !bytes.Equal(card, b) {
		t.Errorf("got %s, error %v", card, err)
	}
	if _, err := k.Card("tiny@v3"); err == nil || !strings.Contains(err.Error(), "the catalogue has tiny@v1, tiny@v2") {
		t.Errorf("a model that is not there: got error %v", err)
	}
	for name, data := range map[string][]byte{"twice": slices.Concat(a, a), "out of order": slices.Concat(b, a), "cut": slices.Concat(a,
		b[:len(b)-1]), "empty": nil,
		"a line of something": slices.Concat(a, []byte("x\n")), "an empty line": slices.Concat(a, []byte("\n"), b)} {
		if _, err := release.ParseCatalogue(data); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	again := signedCard(t, exampleCard(), 1, 2)
	if err := k.Add(again); err != nil {
		t.Fatal(err)
	}
	if card, err := k.Card("tiny@v1"); err != nil || !bytes.Equal(card, again) {
		t.Errorf("another signature on it: got %s, error %v", card, err)
	}
	moved := exampleCard()
	moved.Root[0]++
	if err := k.Add(signedCard(t, moved, 1)); err == nil || !strings.Contains(err.Error(), "the catalogue has 01") {
		t.Errorf("a revision with another volume: got error %v", err)
	}
	var fresh release.Catalogue
	if err := fresh.Add(a); err != nil || len(fresh.Names()) != 1 {
		t.Errorf("to a new one: got %v, error %v", fresh.Names(), err)
	}
}

func FuzzVerifyCard(f *testing.F) {
	for _, seed := range [][]byte{signedCard(f, exampleCard(), 1), signedCard(f, exampleCard(), 1, 2), signedCard(f, exampleCard())} {
		if _, _, err := release.DecodeCard(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := release.VerifyCard(data, publicKeys(1), 1)
		if err != nil {
			return
		}
		if again, _, err := release.DecodeCard(data); err != nil || again.ID() != c.ID() {
			t.Errorf("a card that was verified can't be read: %v", err)
		}
		// There is one encoding: what was signed alone is what is written again.
		if unsigned, err := release.EncodeCard(c); err != nil {
			t.Errorf("encoding again: %v", err)
		} else if signed, err := release.SignCard(unsigned, listKey(1)); err != nil || len(signed) > len(data) {
			t.Errorf("signing again: got %d bytes, error %v, want at most %d", len(signed), err, len(data))
		}
		if k, err := release.ParseCatalogue(data); err != nil || !bytes.Equal(k.Bytes(), data) {
			t.Errorf("as a catalogue: error %v", err)
		}
	})
}
