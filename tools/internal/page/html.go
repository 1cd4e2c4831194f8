package page

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest"
	"chrysalis/runtime/client/exchange"
)

// Settings are what a page asks, and of whom. What is left out, whoever serves the page says, or the one who reads it.
type Settings struct {
	Guest  string `json:"guest,omitzero"`  // https://HOST[:PORT]: the only address that the page can reach, then
	Policy string `json:"policy,omitzero"` // what the guest must be
	Roots  Roots  `json:"roots,omitzero"`
	// ReleaseList is a signed list, for a policy that names its signers.
	ReleaseList string `json:"releaseList,omitzero"`
}

// Roots are PEM texts by the names of tools/wasm: none for a platform that the policy does not allow.
type Roots struct {
	VTPM   string `json:"vtpm,omitzero"`
	TDX    string `json:"tdx,omitzero"`
	SEVSNP string `json:"sevsnp,omitzero"`
}

// check refuses what no page could work with.
func (s Settings) check() error {
	if u, err := url.Parse(s.Guest); s.Guest != "" && (err != nil || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("guest %q, want https://HOST[:PORT]", s.Guest)
	}
	if s.Policy == "" {
		if s.Roots != (Roots{}) || s.ReleaseList != "" {
			return errors.New("roots or a list of releases without a policy")
		}
		return nil
	}
	policy, err := attest.ParsePolicy([]byte(s.Policy))
	if err != nil {
		return err
	}
	if s.ReleaseList != "" {
		_, _, err = exchange.WithReleases(policy, []byte(s.ReleaseList), time.Time{})
	}
	return err
}

// sources are the page's own parts.
const pageFolder = "sdk/page"

// exported is what makes a module of a script.
var exported = regexp.MustCompile(`(?m)^export (class|async function|function|const) `)

// HTML returns the page as one file, which loads nothing.
func HTML(p *Program, root string, s Settings) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("making page: %w", err)
	}
	parts := map[string]string{}
	for _, name := range []string{"page.html", "page.css", "page.js", "worker.js", "words.json", "../js/core.js"} {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(pageFolder), filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		parts[name] = string(text)
	}
	core := exported.ReplaceAllString(parts["../js/core.js"], "$1 ")
	if strings.Contains(core, "\nexport ") || strings.Contains(core, "\nimport ") {
		return nil, errors.New("making page: core.js imports, or exports in another form than its own")
	}
	settings, err := quoted(s)
	if err != nil {
		return nil, err
	}
	worker, err := quoted(string(p.Support) + "\n" + core + "\n" + parts["worker.js"])
	if err != nil {
		return nil, err
	}
	sum, err := quoted(p.SHA256)
	if err != nil {
		return nil, err
	}
	words := jsontext.Value(parts["words.json"])
	if err := words.Format(jsontext.EscapeForHTML(true), jsontext.Multiline(false)); err != nil {
		return nil, fmt.Errorf("making page: words: %w", err)
	}
	script := filled(parts["page.js"], "WORDS", string(words), "SHA256", sum, "WORKER", worker)
	style := parts["page.css"]
	for what, text := range map[string]string{"script": script, "style": style} {
		if strings.Contains(strings.ToLower(text), "</"+what) || strings.Contains(text, "<!--") {
			return nil, fmt.Errorf("making page: the %s would end early", what)
		}
	}
	reach := "'self' https: http://localhost:* http://127.0.0.1:* http://[::1]:*"
	if s.Guest != "" {
		reach = "'self' " + s.Guest
	}
	policy := strings.Join([]string{"default-src 'none'", "script-src " + hashOf(script) + " 'wasm-unsafe-eval'", "style-src " + hashOf(style), "worker-src blob:",
		"img-src data:", "connect-src " + reach, "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'", "trusted-types worker"}, "; ")
	return []byte(filled(parts["page.html"], "POLICY", policy, "STYLE", style, "SETTINGS", settings,
		"PROGRAM", base64.StdEncoding.EncodeToString(p.Packed), "SCRIPT", script)), nil
}

// quoted is a value as JSON that may stand in a script of a page.
func quoted(v any) (string, error) {
	b, err := json.Marshal(v, jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true), json.Deterministic(true))
	return string(b), err
}

// filled puts texts in the places of their names, once, and looks into none of them for more.
func filled(text string, pairs ...string) string {
	var named []string
	for i := 0; i < len(pairs); i += 2 {
		named = append(named, "{{"+pairs[i]+"}}", pairs[i+1])
	}
	return strings.NewReplacer(named...).Replace(text)
}

// hashOf names a script or a style in a content security policy (CSP level 3, section 2.3.1).
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
