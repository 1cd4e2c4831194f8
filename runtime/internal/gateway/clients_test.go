package gateway

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestBodiesOfClients: what programs send that people use is answered. The bodies were written by hand after the programs' sources, which the file names, and are what each
// sends as it is set up first; what of them does nothing here is named, and told to the client.
func TestBodiesOfClients(t *testing.T) {
	text, err := os.ReadFile("testdata/clients.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Client, Version, Does, Path, Ignored string
		Sources                              []string
		Body                                 json.RawMessage
	}
	reader := json.NewDecoder(bytes.NewReader(text))
	reader.DisallowUnknownFields()
	if err := reader.Decode(&all); err != nil {
		t.Fatal(err)
	}
	var clients []string
	b := startBench(t, nil)
	for _, v := range all {
		clients = append(clients, v.Client)
		if v.Version == "" || len(v.Sources) == 0 {
			t.Errorf("%s, %s: it does not say where it is from", v.Client, v.Does)
		}
		b.engine.set(func(w *engineWriter) {
			w.begin(14)
			if v.Path == "/v1/completions" {
				w.goesOn("Oslo.")
			} else {
				w.text("Oslo.")
			}
			w.end(14, 1)
		})
		r := b.request(t, t.Context(), string(v.Body))
		r.URL.Path = v.Path
		response, err := b.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		answer.ReadFrom(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK || !strings.Contains(answer.String(), "Oslo.") {
			t.Errorf("%s, %s: status %d: %s", v.Client, v.Does, response.StatusCode, answer.String())
		}
		if got := response.Header.Get(ignoredHeader); got != v.Ignored {
			t.Errorf("%s, %s: ignored %q, want %q", v.Client, v.Does, got, v.Ignored)
		}
	}
	slices.Sort(clients)
	if got := slices.Compact(clients); !slices.Equal(got, []string{"Continue", "LibreChat", "Open WebUI", "aider"}) {
		t.Errorf("bodies of %q", got)
	}
	if n := len(b.engine.asked()); n != len(all) {
		t.Errorf("the engine was asked %d times, want %d", n, len(all))
	}
}
