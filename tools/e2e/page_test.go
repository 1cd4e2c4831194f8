package e2e

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/runtime/client/clienttest"
	"chrysalis/tools/internal/page"
	"chrysalis/tools/internal/page/pagetest"
)

// throughJavaScript has the SDK under Node, past a proxy at origin that only carries, and the page in each browser, from a file and through somebody
// who ends TLS, verify the guest and ask it, and wants the answer proven and charged.
func (c client) throughJavaScript(origin, prompt, want string) {
	root := filepath.Join(built, "..")
	c.t.Run("javascript", func(t *testing.T) {
		clients, saved := t.TempDir(), t.TempDir()
		if why := pagetest.Install(root, clients); why != "" {
			t.Skip(why)
		}
		var texts [2]string
		for i, file := range []string{c.policy, c.roots} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			texts[i] = string(text)
		}
		program, err := page.Build(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		input := struct {
			Browser                           pagetest.Browser
			URL, Policy, Roots, Payer, Prompt string
		}{URL: origin, Policy: texts[0], Roots: texts[1], Payer: "0:c11e47" + strings.Repeat("0", 58), Prompt: prompt}

		files, err := page.SDK(program, root, "0.0.0")
		if err != nil {
			t.Fatal(err)
		}
		pagetest.Write(t, filepath.Join(clients, "node_modules/chrysalis-sdk"), files)
		var proven struct {
			Text, Outcome, Platform string
			Back                    []string
			Charged                 uint64
		}
		said := pagetest.Node(t, clients, "ask.mjs", input)
		if err := json.Unmarshal([]byte(strings.TrimSuffix(said, "passed\n")), &proven); err != nil || strings.TrimSpace(proven.Text) != strings.TrimSpace(want) ||
			proven.Outcome != "complete" || proven.Platform != "vtpm" || len(proven.Back) > 0 || proven.Charged == 0 {
			t.Errorf("the SDK: got %s, want %q, proven and charged", said, want)
		}

		front := httptest.NewServer(clienttest.Forward(t, c.url, nil))
		defer front.Close()
		html, err := page.HTML(program, root, page.Settings{Guest: front.URL, Policy: texts[0], Roots: page.Roots{VTPM: texts[1]}})
		if err != nil {
			t.Fatal(err)
		}
		input.URL = pagetest.Save(t, saved, "page.html", html)
		for name, start := range map[string]func(testing.TB, string, string) pagetest.Browser{"Chromium": pagetest.Chromium, "Firefox": pagetest.Firefox} {
			input.Browser = start(t, root, saved)
			var got struct{ Text, Footer string }
			said := pagetest.Node(t, clients, "guest.mjs", input)
			if err := json.Unmarshal([]byte(strings.TrimSuffix(said, "passed\n")), &got); err != nil || strings.TrimSpace(got.Text) != strings.TrimSpace(want) ||
				!strings.Contains(got.Footer, "Proven: receipt") || !strings.Contains(got.Footer, "Charged") {
				t.Errorf("the page in %s: got %s, want %q, proven and charged", name, said, want)
			}
		}
	})
}

// TestBecomeFirefox is no test: it is the program that pagetest.Firefox writes.
func TestBecomeFirefox(t *testing.T) { pagetest.BecomeFirefox(t, filepath.Join(built, "..")) }
