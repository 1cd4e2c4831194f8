package e2e

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/tools/internal/page"
	"chrysalis/tools/internal/page/pagetest"
)

// throughPage has the page verify the guest and ask it in each browser, from a file, through somebody who ends TLS, and wants the answer proven.
func (c client) throughPage(prompt, want string) {
	root := filepath.Join(built, "..")
	c.t.Run("page", func(t *testing.T) {
		clients, files := t.TempDir(), t.TempDir()
		if why := pagetest.Install(root, clients); why != "" {
			t.Skip(why)
		}
		guest, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(guest) }, Transport: transport, FlushInterval: -1})
		defer front.Close()
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
		html, err := page.HTML(program, root, page.Settings{Guest: front.URL, Policy: texts[0], Roots: page.Roots{VTPM: texts[1]}})
		if err != nil {
			t.Fatal(err)
		}
		input := struct {
			Browser            pagetest.Browser
			URL, Payer, Prompt string
		}{URL: pagetest.Save(t, files, "page.html", html), Payer: "0:c11e47" + strings.Repeat("0", 58), Prompt: prompt}
		for name, start := range map[string]func(testing.TB, string, string) pagetest.Browser{"Chromium": pagetest.Chromium, "Firefox": pagetest.Firefox} {
			input.Browser = start(t, root, files)
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
