package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/evidence"
)

// TestHTML: the page is one file that loads nothing, and the same each time; its policy names its script and its style by their hashes.
func TestHTML(t *testing.T) {
	g := guestOn(t, evidence.VTPM, true)
	s := settingsOf(t, g, "https://guest.example")
	html := htmlOf(t, s)
	if again := htmlOf(t, s); !bytes.Equal(html, again) {
		t.Error("made twice, the pages differ")
	}
	const most = 3_600_000
	if len(html) > most {
		t.Errorf("the page has %d bytes, want at most %d", len(html), most)
	}
	policy := string(regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindSubmatch(html)[1])
	rules := map[string]string{}
	for rule := range strings.SplitSeq(policy, "; ") {
		name, value, _ := strings.Cut(rule, " ")
		rules[name] = value
	}
	for tag, rule := range map[string]string{"script": "script-src", "style": "style-src"} {
		_, rest, _ := bytes.Cut(html, []byte("<"+tag+">"))
		text, _, _ := bytes.Cut(rest, []byte("</"+tag+">"))
		sum := sha256.Sum256(text)
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; len(text) == 0 || strings.Fields(rules[rule])[0] != want {
			t.Errorf("%s is %s, want it to begin with %s", rule, rules[rule], want)
		}
	}
	if got, want := rules["connect-src"], "'self' https://guest.example"; got != want {
		t.Errorf("connect-src is %s, want %s", got, want)
	}
	for name, want := range map[string]string{"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "worker-src": "blob:", "img-src": "data:"} {
		if rules[name] != want {
			t.Errorf("%s is %q, want %q", name, rules[name], want)
		}
	}
	if strings.Contains(policy, "unsafe-inline") || strings.Contains(policy, "unsafe-eval'") && !strings.Contains(policy, "'wasm-unsafe-eval'") || len(rules) != 10 {
		t.Errorf("the policy is %s", policy)
	}
	markup := regexp.MustCompile(`(?s)<(script|style)[^>]*>.*?</(script|style)>`).ReplaceAll(html, nil)
	if found := regexp.MustCompile(`(?i)(src|href|action|srcset)="[^"]*"| on[a-z]+="|style="`).FindAllString(string(markup), -1); !slices.Equal(found, []string{`href="data:,"`}) {
		t.Errorf("the page's markup loads or runs %q, want nothing", found)
	}
	if len(bytes.Split(html, []byte("<script"))) != 4 {
		t.Error("the page has another number of scripts than the one, and two blocks of data")
	}
	bare := htmlOf(t, Settings{})
	if !bytes.Contains(bare, []byte("connect-src 'self' https: http://localhost:* http://127.0.0.1:* http://[::1]:*;")) {
		t.Error("a page without a guest reaches other addresses than HTTPS and this machine")
	}
	// Whatever stands in the settings ends no script and begins none.
	sly := s
	sly.Roots.VTPM = "</script><script>alert(1)</script><!--\u2028"
	if n := len(bytes.Split(htmlOf(t, sly), []byte("<script"))); n != 4 {
		t.Errorf("settings made %d scripts", n-1)
	}
	for name, bad := range map[string]Settings{
		"no address": {Guest: "guest"}, "a path": {Guest: "https://guest.example/x"}, "a word more in the policy": {Guest: "https://guest.example; script-src *"},
		"a policy that is none": {Policy: "{}"}, "roots alone": {Roots: Roots{VTPM: "x"}}, "a list that is none": {Policy: s.Policy, ReleaseList: "x"},
	} {
		if _, err := HTML(program(t), root, bad); err == nil {
			t.Errorf("%s: got a page", name)
		}
	}
}

// TestWords: each language says all, with the same places for numbers and names, and the page asks for no other word.
func TestWords(t *testing.T) {
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(root, "sdk", "page", name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var words map[string]map[string]string
	if err := json.Unmarshal(read("words.json"), &words, jsontext.AllowDuplicateNames(false)); err != nil || len(words) < 2 {
		t.Fatalf("%d languages (%v)", len(words), err)
	}
	places := regexp.MustCompile(`\{\d\}`)
	sorted := func(s string) []string { all := places.FindAllString(s, -1); slices.Sort(all); return all }
	for language, own := range words {
		if len(own) != len(words["en"]) {
			t.Errorf("%s has %d words, English %d", language, len(own), len(words["en"]))
		}
		for name, english := range words["en"] {
			if own[name] == "" || !slices.Equal(sorted(own[name]), sorted(english)) {
				t.Errorf("%s: %s is %q, and in English %q", language, name, own[name], english)
			}
		}
	}
	used := regexp.MustCompile(`data-word="(\w+)"|\bword\("(\w+)"`)
	for _, name := range []string{"page.html", "page.js"} {
		for _, m := range used.FindAllSubmatch(read(name), -1) {
			if word := string(m[1]) + string(m[2]); words["en"][word] == "" {
				t.Errorf("%s says %s, which is no word", name, word)
			}
		}
	}
}
