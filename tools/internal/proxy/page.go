package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"

	"chrysalis/attest"
	"chrysalis/runtime/client"
)

// identity is what a guest is, in words that fit a header.
type identity struct{ Release, Platform, Machine, Config, Model string }

func identityOf(r *attest.Result) identity {
	if r == nil {
		return identity{}
	}
	sum := sha256.Sum256(r.ConfigBytes())
	return identity{r.Release(), r.Platform().String(), hex.EncodeToString(r.Machine()), hex.EncodeToString(sum[:]), strings.Join(r.Config().Service.Names(), ", ")}
}

func (i identity) attributes() []any {
	return []any{"release", i.Release, "platform", i.Platform, "machine", i.Machine, "config", i.Config}
}

// identityHeaders tell a client who answered, under which measurements: the policy's name of the release, whose registers were
// compared, and the SHA-256 of the measured config.
var identityHeaders = []string{"Chrysalis-Guest", "Chrysalis-Release", "Chrysalis-Platform", "Chrysalis-Machine", "Chrysalis-Config"}

func (i identity) head(h http.Header, url string) {
	for n, value := range []string{url, i.Release, i.Platform, i.Machine, i.Config} {
		h.Set(identityHeaders[n], value)
	}
}

// row is a guest in the table.
type row struct {
	Guest    string    `json:"guest"`
	State    string    `json:"state"` // accepted, busy, rejected, unavailable
	Why      string    `json:"why,omitzero"`
	Release  string    `json:"release,omitzero"`
	Platform string    `json:"platform,omitzero"`
	Machine  string    `json:"machine,omitzero"`
	Config   string    `json:"config,omitzero"`
	Model    string    `json:"model,omitzero"`
	Until    time.Time `json:"key_until,omitzero"`
	InFlight int       `json:"in_flight"`
	Answered uint64    `json:"answered"`
	Unproven uint64    `json:"unproven"`
	Notes    []string  `json:"notes,omitzero"` // what the acceptance does not cover
}

func (p *Proxy) rows() (rows []row) {
	for _, g := range p.guests {
		s := g.status()
		i := identityOf(s.result)
		r := row{Guest: g.url, State: "accepted", Release: i.Release, Platform: i.Platform, Machine: i.Machine, Config: i.Config, Model: i.Model,
			InFlight: s.inFlight, Answered: s.answered, Unproven: s.unproven}
		if s.result != nil {
			r.Until, r.Notes = s.result.NotAfter().UTC(), s.result.Weaknesses()
		}
		switch {
		case errors.Is(s.err, attest.ErrRejected):
			r.State, r.Why = "rejected", s.err.Error()
		case s.err != nil:
			r.State, r.Why = "unavailable", s.err.Error()
		case s.result == nil:
			r.State = "unavailable"
		case time.Now().Before(s.pause):
			r.State = "busy"
		}
		rows = append(rows, r)
	}
	return rows
}

// page shows the guests to a person.
func (p *Proxy) page(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	_ = page.Execute(w, p.rows()) // the client may be gone
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{"short": func(s string) string {
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}}).Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>chrysalis proxy</title>
<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em}table{border-collapse:collapse}th,td{text-align:left;padding:.3em 1em .3em 0;vertical-align:top;border-bottom:1px solid #ccc}
.accepted{color:#060}.busy{color:#850}.rejected,.unavailable{color:#a00}small{color:#555}code{font-size:13px}</style>
<h1>Who answers here</h1>
<table><tr><th>guest</th><th>verdict</th><th>release</th><th>platform</th><th>machine</th><th>config</th><th>model</th><th>key until</th><th>under way</th><th>proven answers</th></tr>
{{range .}}<tr><td>{{.Guest}}<td class="{{.State}}"><b>{{.State}}</b>{{with .Why}}<br><small>{{.}}</small>{{end}}<td>{{.Release}}<td>{{.Platform}}<td><code title="{{.Machine}}">{{short .Machine}}</code><td><code title="{{.Config}}">{{short .Config}}</code><td>{{.Model}}<td>{{if not .Until.IsZero}}{{.Until.Format "15:04:05 MST"}}{{end}}<td>{{.InFlight}}<td>{{.Answered}}{{if .Unproven}}, <b class="rejected">{{.Unproven}} refused</b>{{end}}</tr>
{{range .Notes}}<tr><td><td colspan="9"><small>{{.}}</small></tr>
{{end}}{{end}}</table>
<p><small>Requests to <code>/v1/…</code> go to an accepted guest in an envelope that only it opens. The same as JSON: <a href="/status.json">status.json</a>.</small>`))

// keep writes an answer's proof down.
func (p *Proxy) keep(a *client.Answer, url string) error {
	if p.receipts == nil {
		return nil
	}
	return p.receipts.Keep(url, time.Now(), a)
}
