package proxy

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
)

// TestKeys: a guest that settles on chain is shown the proxy's key, or where it has none the local program's; no other guest is shown what
// local programs send as a key.
func TestKeys(t *testing.T) {
	raw, err := os.ReadFile("../../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	m, err := config.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	m.Identity.Network = config.Local
	m.Service.Chain = config.Chain{Params: register.Digest{4}, MaxAgeSeconds: 60, Anchor: config.Anchor{GlobalID: -217, Seqno: 3,
		RootHash: register.Digest{5}, FileHash: register.Digest{6}}}
	settled, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	own, programs := api.Key{Contract: [32]byte{1}, Secret: [32]byte{2}}, api.Key{Contract: [32]byte{3}, Secret: [32]byte{4}}
	for _, tt := range []struct {
		name     string
		measured []byte
		key      api.Key
		sent     string
		shown    string // "": refused
		payer    ton.Address
	}{
		{"the proxy's", settled, own, "Bearer anything", "Bearer " + own.String(), ton.Address{Account: own.Contract}},
		{"the proxy's in the place of the program's", settled, own, "Bearer " + programs.String(), "Bearer " + own.String(), ton.Address{Account: own.Contract}},
		{"the program's", settled, api.Key{}, "Bearer " + programs.String(), "Bearer " + programs.String(), ton.Address{Account: programs.Contract}},
		{"no key", settled, api.Key{}, "Bearer anything", "", ton.Address{}},
		{"another scheme", settled, api.Key{}, "Basic " + programs.String(), "", ton.Address{}},
		{"nothing settled", raw, own, "Bearer " + programs.String(), "nothing", payer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := clienttest.New(t, tt.measured)
			p := start(t, func(c *Config) { c.Key = tt.key }, g)
			request := p.request(t, http.MethodPost, api.ChatCompletions, inOne)
			request.Header.Set("Authorization", tt.sent)
			response, text := do(t, request)
			shown := g.Shown()
			if tt.shown == "" {
				if response.StatusCode != http.StatusPaymentRequired || !strings.Contains(text, "--account") || len(shown) != 0 {
					t.Errorf("got status %d, %s, and the guest was shown %q", response.StatusCode, text, shown)
				}
				return
			}
			if len(shown) != 1 || shown[0] != strings.Replace(tt.shown, "nothing", "", 1) {
				t.Errorf("got status %d, %s; the guest was shown %q, want %q", response.StatusCode, text, shown, tt.shown)
			}
			if response.StatusCode != http.StatusOK {
				t.Errorf("got status %d, %s", response.StatusCode, text)
			}
		})
	}
}

// TestMaxCoefficient: the proxy's maximum goes with each request, and a program may ask for less.
func TestMaxCoefficient(t *testing.T) {
	key := api.Key{Contract: [32]byte{1}, Secret: [32]byte{2}}
	for _, tt := range []struct {
		most       uint32
		sent, want string
	}{
		{0, "", ""}, {0, "12000", "12000"}, {15_000, "", "15000"}, {15_000, "12000", "12000"}, {15_000, "16000", "15000"}, {15_000, "x", "15000"},
	} {
		p := &Proxy{config: Config{Key: key, MaxCoefficient: tt.most}}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://127.0.0.1"+api.ChatCompletions, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.sent != "" {
			request.Header.Set(api.MaxCoefficientHeader, tt.sent)
		}
		if _, err := p.keyed(request); err != nil {
			t.Fatal(err)
		}
		if got := request.Header.Get(api.MaxCoefficientHeader); got != tt.want {
			t.Errorf("at most %d, and the program says %q: got %q, want %q", tt.most, tt.sent, got, tt.want)
		}
	}
}
