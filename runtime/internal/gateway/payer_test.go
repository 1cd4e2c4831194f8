package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/receipt"
)

// settling makes a bench's charges settled on chain, by a band of coefficients.
func settling(band config.Band) func(*Config) {
	return func(c *Config) { c.Settles, c.Coefficient = true, band }
}

// askWith asks with headers, and returns the status and the error's code.
func (b *bench) askWith(t *testing.T, headers http.Header) (int, string) {
	t.Helper()
	r := b.request(t, t.Context(), ask(`,"max_tokens":7`))
	r.Header.Del(api.ClientHeader)
	for name, values := range headers {
		r.Header[name] = values
	}
	response, err := b.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var document struct{ Error struct{ Code string } }
	_ = json.Unmarshal(body, &document) // a stream of events is none
	return response.StatusCode, document.Error.Code
}

// TestKeys: where charges are settled on chain, a request shows one key, and the keeper is asked for what it may come to.
func TestKeys(t *testing.T) {
	b := startBench(t, settling(config.Band{Min: 10_000, Max: 10_000}))
	key := api.Key{Contract: [32]byte{1}, Secret: [32]byte{2}}
	contract := ton.Address{Account: key.Contract}
	other := ton.Address{Account: [32]byte{3}}
	for _, tt := range []struct {
		name    string
		headers http.Header
		status  int
		code    string
	}{
		{"bearer", http.Header{"Authorization": {"Bearer " + key.String()}}, 200, ""},
		{"bearer in small letters", http.Header{"Authorization": {"bearer " + key.String()}}, 200, ""},
		{"another SDK's header", http.Header{"X-Api-Key": {key.String()}}, 200, ""},
		{"with its contract", http.Header{"X-Api-Key": {key.String()}, "Chrysalis-Client": {contract.String()}}, 200, ""},
		{"with another contract", http.Header{"X-Api-Key": {key.String()}, "Chrysalis-Client": {other.String()}}, 400, ""},
		{"the contract alone", http.Header{"Chrysalis-Client": {contract.String()}}, 401, "invalid_api_key"},
		{"two keys", http.Header{"X-Api-Key": {key.String()}, "Authorization": {"Bearer " + key.String()}}, 401, "invalid_api_key"},
		{"one twice", http.Header{"Authorization": {"Bearer " + key.String(), "Bearer " + key.String()}}, 401, "invalid_api_key"},
		{"another scheme", http.Header{"Authorization": {"Basic " + key.String()}}, 401, "invalid_api_key"},
		{"another service's", http.Header{"Authorization": {"Bearer sk-abc"}}, 401, "invalid_api_key"},
		{"none", nil, 401, "invalid_api_key"},
	} {
		b.keeper.payer = Payer{}
		if status, code := b.askWith(t, tt.headers); status != tt.status || code != tt.code {
			t.Errorf("%s: status %d, %q, want %d, %q", tt.name, status, code, tt.status, tt.code)
		}
		by := b.keeper.payer
		if asked := by != (Payer{}); asked != (tt.status == 200) {
			t.Errorf("%s: the keeper is asked: %t", tt.name, asked)
		} else if asked && (by.Contract != contract || by.Secret != key.SecretHash() || by.Coefficient != 10_000 || by.Most.Completion != 7 || by.Most.Prompt < templateTokens) {
			t.Errorf("%s: the keeper is asked for %+v", tt.name, by)
		}
	}
	if free := b.keeper.places; free != 0 {
		t.Errorf("%d places are not given back", free)
	}
	for err, want := range map[error]string{ErrKey: "invalid_api_key", ErrFunds: "insufficient_funds", ErrChain: "chain_unknown", ErrFull: "journal_full"} {
		b.keeper.onTake = err
		asked := len(b.engine.asked())
		if status, code := b.askWith(t, http.Header{"X-Api-Key": {key.String()}}); code != want || len(b.engine.asked()) != asked {
			t.Errorf("%v: status %d, %q, want %q and nothing computed", err, status, code, want)
		}
	}
}

// TestMaxCoefficient: a request is not computed by more than it takes.
func TestMaxCoefficient(t *testing.T) {
	b := startBench(t, settling(config.Band{Min: 12_000, Max: 30_000}))
	key := api.Key{Contract: [32]byte{1}}
	for _, tt := range []struct {
		max    []string
		status int
		code   string
	}{
		{nil, 200, ""}, {[]string{"12000"}, 200, ""}, {[]string{"50000"}, 200, ""}, {[]string{"11999"}, 402, "price_above_maximum"}, {[]string{"0"}, 402, "price_above_maximum"},
		{[]string{"1.2"}, 400, ""}, {[]string{"012000"}, 400, ""}, {[]string{"-1"}, 400, ""}, {[]string{"12000", "12000"}, 400, ""}, {[]string{"99999999999"}, 400, ""},
	} {
		headers := http.Header{"X-Api-Key": {key.String()}}
		if tt.max != nil {
			headers[api.MaxCoefficientHeader] = tt.max
		}
		if status, code := b.askWith(t, headers); status != tt.status || code != tt.code {
			t.Errorf("at most %q: status %d, %q, want %d, %q", tt.max, status, code, tt.status, tt.code)
		}
	}
	for _, a := range b.keeper.answers {
		if a.Coefficient != 12_000 || a.Client != (ton.Address{Account: key.Contract}) {
			t.Errorf("recorded %+v, want by 12,000", a)
		}
	}
	if len(b.keeper.answers) != 3 {
		t.Errorf("%d answers are recorded, want 3", len(b.keeper.answers))
	}
	free := startBench(t, nil)
	free.keeper.payer = Payer{Most: receipt.Usage{Prompt: 1}}
	if status, _ := free.askWith(t, http.Header{"Chrysalis-Client": {testClient}}); status != 200 || free.keeper.payer.Most != (receipt.Usage{}) || free.keeper.payer.Coefficient != 0 {
		t.Errorf("where nothing is settled: status %d, the keeper is asked for %+v", status, free.keeper.payer)
	}
}

// TestKeyRequests: who shows a contract's own key has others made and revoked; what is no such request reaches no keeper.
func TestKeyRequests(t *testing.T) {
	b, free := startBench(t, settling(config.Band{Min: 10_000, Max: 10_000})), startBench(t, nil)
	own := api.Key{Contract: [32]byte{1}, Secret: [32]byte{2}}
	post := func(b *bench, shown, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url+api.Keys, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", shown)
		return b.do(t, r)
	}
	bearer, ci := "Bearer "+own.String(), own.Derive("ci")
	for _, tt := range []struct {
		name, shown, body string
		status            int
	}{
		{"made", bearer, `{"name":"ci","cap":9007199254740993}`, 200},
		{"revoked", bearer, `{"name":"ci","cap":0}`, 200},
		{"no key shown", "Bearer x", `{"name":"ci","cap":1}`, 401},
		{"no cap", bearer, `{"name":"ci"}`, 400},
		{"no name", bearer, `{"cap":1}`, 400},
		{"a long name", bearer, `{"name":"abcdefghijklmnopq","cap":1}`, 400},
		{"a name of other characters", bearer, `{"name":"a\u0000","cap":1}`, 400},
		{"more", bearer, `{"name":"ci","cap":1,"key":"x"}`, 400},
		{"a name twice", bearer, `{"name":"ci","name":"cd","cap":1}`, 400},
		{"less than nothing", bearer, `{"name":"ci","cap":-1}`, 400},
		{"beyond 64 bits", bearer, `{"name":"ci","cap":18446744073709551616}`, 400},
		{"no object", bearer, `[]`, 400},
		{"a long body", bearer, `{"name":"ci","cap":1` + strings.Repeat(" ", maxKeyBody) + `}`, 413},
	} {
		b.keeper.keys = nil
		status, text := post(b, tt.shown, tt.body)
		if status != tt.status || (len(b.keeper.keys) == 1) != (tt.status == 200) {
			t.Errorf("%s: status %d, %s, and the keeper is told of %d; want %d", tt.name, status, text, len(b.keeper.keys), tt.status)
		} else if status == 200 {
			k := b.keeper.keys[0]
			if k.shown != own.SecretHash() || k.hash != ci.SecretHash() || k.contract.Account != own.Contract || string(k.name[:3]) != "ci\x00" || !strings.Contains(text, ci.String()) ||
				!strings.Contains(text, fmt.Sprintf(`"cap":%d,"used":5`, k.most)) {
				t.Errorf("%s: the keeper is told %+v, and the client %s", tt.name, k, text)
			}
		}
	}
	b.keeper.onTake = ErrKey
	if status, text := post(b, bearer, `{"name":"ci","cap":1}`); status != 401 || strings.Contains(text, "ck-A") {
		t.Errorf("another secret than the contract's: status %d, %s", status, text)
	}
	if status, _ := post(free, bearer, `{"name":"ci","cap":1}`); status != 404 {
		t.Errorf("where nothing is settled: status %d, want 404", status)
	}
}
