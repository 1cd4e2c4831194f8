package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/client"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/receipt"
)

var payer = ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}

func dial(t testing.TB, g *clienttest.Guest) *client.Guest {
	t.Helper()
	guest, err := client.Dial(t.Context(), g.URL, ratls.Config{Policy: g.Policy(), Roots: g.Roots()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guest.Close)
	return guest
}

func question() client.Request {
	return client.Request{Messages: []client.Message{{Role: "user", Content: "What is the capital of Norway?"}}, Payer: payer}
}

func TestAsk(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	g.Spoil = func(_ []byte, r *clienttest.Reply) { r.Reasoning = []string{"Norway, ", "hm."} }
	guest := dial(t, g)
	var content, reasoning string
	request := question()
	zero := 0.0
	request.MaxTokens, request.Temperature, request.Stop = 5, &zero, []string{"x"}
	a, err := guest.Ask(t.Context(), request, func(p client.Piece) error { content += p.Content; reasoning += p.Reasoning; return nil })
	if err != nil {
		t.Fatal(err)
	}
	const text, thought = "The capital is \x1b[1mOslo.", "Norway, hm."
	if a.Content != text || content != text || a.Reasoning != thought || reasoning != thought {
		t.Errorf("got %q after %q, streamed %q after %q", a.Content, a.Reasoning, content, reasoning)
	}
	want := `{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}],` +
		`"max_tokens":5,"temperature":0,"stop":["x"],"stream":true}`
	if string(g.Prompts()[0]) != want || string(a.Request) != want {
		t.Errorf("request: got %s, kept %s, want %s", g.Prompts()[0], a.Request, want)
	}
	if a.Receipt.Usage != (receipt.Usage{Prompt: 7, Completion: 5}) || a.Charge.Tokens != 20 || a.Charge.Contract != payer ||
		a.Guest.ConfigBytes() == nil {
		t.Errorf("receipt %+v, charge %+v", a.Receipt, a.Charge)
	}
	again, err := client.Judge(client.Untrusted{Request: a.Request, Payer: payer, Content: a.Content, Reasoning: a.Reasoning,
		Receipt: a.Signed.Receipt[:], Charge: a.Signed.Charge[:], Whole: true}, guest.Result())
	if err != nil || *again.Receipt != *a.Receipt {
		t.Errorf("judged again from what was kept: got %v (%v)", again, err)
	}
}

// settled has charges settled on chain.
func settled(m *config.Measured) {
	m.Service.Chain = config.Chain{Params: register.Digest{4}, MaxAgeSeconds: 60, Anchor: config.Anchor{GlobalID: -217, Seqno: 3,
		RootHash: register.Digest{5}, FileHash: register.Digest{6}}}
}

var key = api.Key{Contract: payer.Account, Secret: [32]byte{7}}

// TestSettled: a guest that settles on chain is shown the key, and no other is; it may charge less than it counts, or nothing, and never more.
func TestSettled(t *testing.T) {
	for _, tt := range []struct {
		name, want string // want: what refuses
		config     func(*config.Measured)
		request    func(*client.Request)
		charge     func(*clienttest.Reply)
	}{
		{name: "all that is counted", config: settled},
		{name: "the key names the contract", config: settled, request: func(r *client.Request) { r.Payer = ton.Address{} }},
		{name: "less", config: settled, charge: func(r *clienttest.Reply) { r.Charge.Tokens-- }},
		{name: "nothing", config: settled, charge: func(r *clienttest.Reply) { r.Charge = claim.Message{} }},
		{name: "more", want: "want a client-charge of", config: settled, charge: func(r *clienttest.Reply) { r.Charge.Tokens++ }},
		{name: "another's", want: "contract is", config: settled, charge: func(r *clienttest.Reply) { r.Charge.Contract.Account[0]++ }},
		{name: "another message", want: "want a client-charge", config: settled, charge: func(r *clienttest.Reply) { r.Charge.Op = claim.ClientRefund }},
		{name: "no key", want: "settles on chain, and Key is none", config: settled, request: func(r *client.Request) { r.Key = api.Key{} }},
		{name: "the key of another contract", want: "and the key is of", config: settled, request: func(r *client.Request) { r.Key.Contract[0]++ }},
		{name: "a key where nothing is settled", want: "need not see a key", config: func(*config.Measured) {}},
		{name: "a key where nothing is charged", want: "charges nothing", config: clienttest.Free},
		{name: "less where nothing is settled", want: "want a client-charge of", config: func(*config.Measured) {},
			request: func(r *client.Request) { r.Key = api.Key{} }, charge: func(r *clienttest.Reply) { r.Charge.Tokens-- }},
		{name: "nothing where nothing is settled", want: "it has 0 bytes", config: func(*config.Measured) {},
			request: func(r *client.Request) { r.Key = api.Key{} }, charge: func(r *clienttest.Reply) { r.Charge = claim.Message{} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := clienttest.New(t, clienttest.Measured(t, tt.config))
			g.Spoil = func(_ []byte, r *clienttest.Reply) {
				if tt.charge != nil {
					tt.charge(r)
				}
			}
			request := question()
			request.Key = key
			if tt.request != nil {
				tt.request(&request)
			}
			a, err := dial(t, g).Ask(t.Context(), request, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			shown := g.Shown()
			if err == nil && (len(shown) != 1 || shown[0] != "Bearer "+key.String() || a.Receipt.Client != payer) {
				t.Errorf("the guest was shown %q, and counts for %s", shown, a.Receipt.Client)
			}
			if request.Key == (api.Key{}) && len(shown) == 1 && shown[0] != "" {
				t.Errorf("a guest that settles nothing was shown %q", shown)
			}
		})
	}
}

// TestCalls asks with a tool in an earlier turn, and gets calls of it, whose text the receipt covers.
func TestCalls(t *testing.T) {
	for _, tt := range []struct{ name, events, want string }{
		{"calls", `{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{"}}|{"index":0,"function":{"arguments":"}"}}`, ""},
		{"other arguments", `{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{ "}}|{"index":0,"function":{"arguments":"}"}}`, "response hash"},
		{"name moved to id", `{"index":0,"id":"c1look","function":{"arguments":"{}"}}`, "response hash"},
		{"no call", ``, "response hash"},
		{"one more", `{"index":0,"id":"c1","function":{"name":"look","arguments":"{}"}}|{"index":1,"id":"c2","function":{"name":"look","arguments":"{}"}}`, "response hash"},
		{"one left out", `{"index":1,"id":"c1","function":{"name":"look","arguments":"{}"}}`, "call 1 of a tool after 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := clienttest.New(t, clienttest.Measured(t))
			g.Spoil = func(_ []byte, r *clienttest.Reply) {
				text := receipt.NewResponseHash()
				text.Content([]byte(strings.Join(r.Content, "")))
				text.Call(0, []byte("c1"), []byte("look"), []byte("{}"))
				r.Receipt.Response = text.Sum()
				r.Events = func(events []string) []string {
					var calls []string
					for piece := range strings.SplitSeq(tt.events, "|") {
						if piece != "" {
							calls = append(calls, `data: {"choices":[{"delta":{"tool_calls":[`+piece+`]}}]}`)
						}
					}
					return append(calls, events...)
				}
			}
			request := question()
			request.Tools = []client.Tool{{Name: "look", Parameters: []byte(`{"type":"object"}`)}}
			request.Messages = append(request.Messages, client.Message{Role: "assistant", Calls: []client.Call{{ID: "c0", Name: "look", Arguments: "{}"}}},
				client.Message{Role: "tool", CallID: "c0", Content: "nothing"})
			a, err := dial(t, g).Ask(t.Context(), request, nil)
			if tt.want != "" {
				if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want it rejected for its %s", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := (client.Call{ID: "c1", Name: "look", Arguments: "{}"}); len(a.Calls) != 1 || a.Calls[0] != want {
				t.Errorf("calls: got %+v, want %+v", a.Calls, want)
			}
			const want = `{"role":"assistant","content":"","tool_calls":[{"id":"c0","type":"function","function":{"name":"look","arguments":"{}"}}]},` +
				`{"role":"tool","content":"nothing","tool_call_id":"c0"}],"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}],"stream":true}`
			if !strings.HasSuffix(string(a.Request), want) {
				t.Errorf("request: got %s, want at its end %s", a.Request, want)
			}
		})
	}
}

func TestFree(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t, clienttest.Free))
	guest, request := dial(t, g), question()
	_, err := guest.Ask(t.Context(), request, nil)
	if err == nil || !strings.Contains(err.Error(), "charges nothing") || len(g.Prompts()) != 0 {
		t.Errorf("a payer where nothing is charged: got %v and %d prompts, want an error and none", err, len(g.Prompts()))
	}
	request.Payer = ton.Address{}
	a, err := guest.Ask(t.Context(), request, nil)
	if err != nil || a.Charge != nil || a.Signed.Charge != nil {
		t.Errorf("got %+v (%v), want an answer without a charge", a, err)
	}
	g.Spoil = func(_ []byte, r *clienttest.Reply) {
		r.Events = func(events []string) []string {
			proof := events[len(events)-2]
			events[len(events)-2] = strings.TrimSuffix(proof, "}}") + `,"charge":"AAAA"}}`
			return events
		}
	}
	_, err = guest.Ask(t.Context(), request, nil)
	if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "the config charges nothing") {
		t.Errorf("a charge that nobody owes: got %v, want it rejected", err)
	}
}

// askSpoiled asks a guest of its own, which makes one quote a second, so that no test waits for another.
func askSpoiled(t *testing.T, spoil func(*clienttest.Reply)) (*client.Answer, error) {
	t.Helper()
	g := clienttest.New(t, clienttest.Measured(t))
	g.Spoil = func(_ []byte, r *clienttest.Reply) { spoil(r) }
	return dial(t, g).Ask(t.Context(), question(), nil)
}

// TestProofs changes one thing of an answer each, and names what must refuse it.
func TestProofs(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spoil      func(*clienttest.Reply)
	}{
		{"key of the receipt", "verifying receipt: rejected: signature", func(r *clienttest.Reply) { r.ReceiptKey = r.ClaimKey }},
		{"request", "its request hash is", func(r *clienttest.Reply) { r.Receipt.Request[0]++ }},
		{"response", "its response hash is", func(r *clienttest.Reply) { r.Receipt.Response = [32]byte{1} }},
		{"text", "its response hash is", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string {
				return append([]string{`data: {"choices":[{"delta":{"content":"x"}}]}`}, e...)
			}
		}},
		{"reasoning given as content", "its response hash is", func(r *clienttest.Reply) {
			r.Reasoning = []string{"x"}
			r.Events = func(e []string) []string {
				e[0] = strings.Replace(e[0], "reasoning_content", "content", 1)
				return e
			}
		}},
		{"service", "its service digest is", func(r *clienttest.Reply) { r.Receipt.Service[0]++ }},
		{"model", "its model is", func(r *clienttest.Reply) { r.Receipt.Model[0]++ }},
		{"engine", "its engine is", func(r *clienttest.Reply) { r.Receipt.Engine[0]++ }},
		{"price", "its price is", func(r *clienttest.Reply) { r.Receipt.Price.NanotonPerToken++ }},
		{"client", "its client is", func(r *clienttest.Reply) { r.Receipt.Client.Account[0]++ }},
		{"more tokens than the limit", "its usage is", func(r *clienttest.Reply) {
			r.Receipt.Usage.Completion, r.Receipt.Weighted, r.Receipt.Cumulative, r.Charge.Tokens = 129, 136, 136, 136
		}},
		{"longer prompt than the context", "its usage is", func(r *clienttest.Reply) {
			r.Receipt.Usage.Prompt, r.Receipt.Weighted, r.Receipt.Cumulative, r.Charge.Tokens = 513, 518, 518, 518
		}},
		{"a cut answer's receipt", "its outcome is", func(r *clienttest.Reply) { r.Receipt.Outcome = receipt.Cut }},
		{"key of the charge", "verifying charge: ", func(r *clienttest.Reply) { r.ClaimKey = r.ReceiptKey }},
		{"count of the charge", "of 21 tokens, want", func(r *clienttest.Reply) { r.Charge.Tokens++ }},
		{"another contract", "contract is", func(r *clienttest.Reply) { r.Charge.Contract.Account[0]++ }},
		{"operation", "it is a client-refund", func(r *clienttest.Reply) { r.Charge.Op = claim.ClientRefund }},
		{"no charge", "it has 0 bytes", func(r *clienttest.Reply) { r.Charge = claim.Message{} }},
		{"no receipt", "receipt has 0 bytes", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append(e[:2], "data: [DONE]") }
		}},
		{"receipt cut short", "receipt has 3 bytes", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string {
				return append(e[:2], `data: {"chrysalis":{"receipt":"AAAA"}}`, "data: [DONE]")
			}
		}},
		{"receipt in another alphabet", "receipt: illegal base64", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string {
				return append(e[:2], `data: {"chrysalis":{"receipt":"__8="}}`, "data: [DONE]")
			}
		}},
		{"two receipts", "a second receipt", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append(e[:3], e[2], e[3]) }
		}},
		{"two answers", "has 2 choices", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append([]string{`data: {"choices":[{},{}]}`}, e...) }
		}},
		{"an event after the end", "after the end mark", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append(e, "data: {}") }
		}},
		{"no event", "is no event", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append([]string{"event: x"}, e...) }
		}},
		{"no JSON", "is no JSON", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append([]string{"data: {"}, e...) }
		}},
		{"a name twice", "is no JSON", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append([]string{`data: {"choices":[],"choices":[]}`}, e...) }
		}},
		{"a long event", "more than 262144 bytes", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string {
				return append([]string{"data: " + strings.Repeat(" ", 256<<10) + "{}"}, e...)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := askSpoiled(t, tt.spoil)
			if a != nil || !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v (%v), want it rejected by %q", a, err, tt.want)
			}
		})
	}
}

// TestEndless has an answer that does not end: what is read of it does.
func TestEndless(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	guest := dial(t, g)
	g.Spoil = func(_ []byte, r *clienttest.Reply) {
		r.Events = func([]string) []string {
			comment := ": " + strings.Repeat("x", 200<<10)
			return append(make([]string, 0, 400), strings.Split(strings.Repeat(comment+"\n", 400), "\n")...)
		}
	}
	_, err := guest.Ask(t.Context(), question(), nil)
	if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "more than 67108864 bytes") {
		t.Errorf("got %v, want it rejected for its size", err)
	}
}

func TestCut(t *testing.T) {
	withError := func(event string) string {
		return strings.TrimSuffix(event, "}") + `,"error":{"message":"the engine ended"}}`
	}
	for _, tt := range []struct {
		name   string
		spoil  func(*clienttest.Reply)
		proven bool
		says   string
	}{
		{"before the proof", func(r *clienttest.Reply) { r.Events = func(e []string) []string { return e[:2] } }, false, ""},
		{"before the end mark", func(r *clienttest.Reply) { r.Events = func(e []string) []string { return e[:3] } }, true, ""},
		{"by the engine", func(r *clienttest.Reply) {
			r.Receipt.Outcome = receipt.Cut
			r.Events = func(e []string) []string { return append(e[:2], withError(e[2])) }
		}, true, "the engine ended"},
		{"by the engine, with nothing recorded", func(r *clienttest.Reply) {
			r.Events = func(e []string) []string { return append(e[:2], `data: {"error":{"message":"not recorded"}}`) }
		}, false, "not recorded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := askSpoiled(t, tt.spoil)
			var cut *client.Cut
			if a != nil || !errors.As(err, &cut) || !errors.Is(err, check.ErrUnavailable) || errors.Is(err, check.ErrRejected) {
				t.Fatalf("got %v (%v), want a cut answer", a, err)
			}
			if (cut.Answer != nil) != tt.proven || cut.Says != tt.says || !strings.Contains(err.Error(), "cut") {
				t.Errorf("got %+v, proven %t, want proven %t and %q", cut, cut.Answer != nil, tt.proven, tt.says)
			}
			if tt.proven && (cut.Answer.Content != "The capital is \x1b[1mOslo." || cut.Answer.Charge.Tokens != 20) {
				t.Errorf("the proven part is %+v", cut.Answer)
			}
		})
	}
	t.Run("with a wrong proof", func(t *testing.T) {
		var cut *client.Cut
		if _, err := askSpoiled(t, func(r *clienttest.Reply) {
			r.Charge.Tokens++
			r.Events = func(e []string) []string { return append(e[:2], withError(e[2])) }
		}); !errors.Is(err, check.ErrRejected) || errors.As(err, &cut) {
			t.Errorf("got %v, want it rejected", err)
		}
	})
}

func TestDeclined(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	g.Spoil = func(_ []byte, r *clienttest.Reply) { r.Refusal = "too \x1b[31mlong" }
	_, err := dial(t, g).Ask(t.Context(), question(), nil)
	var declined *client.Declined
	if want := (client.Declined{Status: http.StatusBadRequest, Code: "test", Message: "too \x1b[31mlong"}); !errors.As(err, &declined) || *declined != want {
		t.Errorf("got %v, want the guest's refusal", err)
	}
	if strings.Contains(err.Error(), "\x1b") || errors.Is(err, check.ErrRejected) {
		t.Errorf("got %q, want it quoted and of no class", err)
	}
}

func TestEnds(t *testing.T) {
	t.Run("by the caller", func(t *testing.T) {
		guest, full := dial(t, clienttest.New(t, clienttest.Measured(t))), errors.New("no room")
		if a, err := guest.Ask(t.Context(), question(), func(client.Piece) error { return full }); a != nil || !errors.Is(err, full) {
			t.Errorf("got %v (%v), want the caller's own error", a, err)
		}
	})
	t.Run("by the context", func(t *testing.T) {
		g := clienttest.New(t, clienttest.Measured(t))
		guest := dial(t, g)
		ctx, cancel := context.WithCancel(t.Context())
		pieces := 0
		release := make(chan struct{})
		defer close(release)
		g.Spoil = func(_ []byte, r *clienttest.Reply) {
			r.Events = func(e []string) []string { return e[:1] }
			r.Hold = release
		}
		a, err := guest.Ask(ctx, question(), func(client.Piece) error { pieces++; cancel(); return nil })
		if a != nil || pieces != 1 || !errors.Is(err, context.Canceled) || !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("got %v (%v) after %d pieces, want the context's end", a, err, pieces)
		}
	})
}

// TestSeveralModels: of a guest of several models one is asked by its name, and its proof is judged by its own volumes and limits: another's is none.
func TestSeveralModels(t *testing.T) {
	first, second := register.Digest{2}, register.Digest{4}
	for _, tt := range []struct {
		name, model, want string
		spoil             func(*clienttest.Reply)
	}{
		{"the first", "tiny", "", nil},
		{"the second", "other", "", nil},
		{"none named", "", `it names no model, and the guest has ["tiny" "other"]`, nil},
		{"answered by the other", "tiny", "its model's name is", func(r *clienttest.Reply) { r.Receipt.Model, r.Receipt.Engine = second, register.Digest{3} }},
		{"answered by the other, the other way", "other", "its model's name is", func(r *clienttest.Reply) { r.Receipt.Model, r.Receipt.Engine = first, register.Digest{1} }},
		{"by the other's engine", "other", "its engine is", func(r *clienttest.Reply) { r.Receipt.Engine = register.Digest{1} }},
		{"by a model that there is not", "other", "its model is", func(r *clienttest.Reply) { r.Receipt.Model = register.Digest{9} }},
		{"more tokens than its limit", "other", "its usage is", func(r *clienttest.Reply) {
			r.Receipt.Usage.Completion, r.Receipt.Weighted, r.Receipt.Cumulative, r.Charge.Tokens = 17, 24, 24, 24
		}},
		{"as many as another's limit", "tiny", "", func(r *clienttest.Reply) {
			r.Receipt.Usage.Completion, r.Receipt.Weighted, r.Receipt.Cumulative, r.Charge.Tokens = 17, 24, 24, 24
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := clienttest.New(t, clienttest.Measured(t, clienttest.Several))
			g.Spoil = func(_ []byte, r *clienttest.Reply) {
				if tt.spoil != nil {
					tt.spoil(r)
				}
			}
			q := question()
			q.Model = tt.model
			a, err := dial(t, g).Ask(t.Context(), q, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v (%v), want %q", a, err, tt.want)
			}
		})
	}
}

// TestUnverified shows that a guest which the policy refuses hears nothing of a prompt.
func TestUnverified(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	rules := g.Rules()
	rules.Config.Model.Name = "other"
	policy, err := rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Dial(t.Context(), g.URL, ratls.Config{Policy: policy, Roots: g.Roots()}); !errors.Is(err, check.ErrRejected) {
		t.Errorf("another model: got %v, want it rejected", err)
	}
	if _, err := client.Dial(t.Context(), g.URL, ratls.Config{Roots: g.Roots()}); !errors.Is(err, check.ErrRejected) {
		t.Errorf("the zero policy: got %v, want it rejected", err)
	}
	if _, err := client.Dial(t.Context(), g.URL, ratls.Config{Policy: g.Policy()}); !errors.Is(err, check.ErrRejected) {
		t.Errorf("no roots: got %v, want it rejected", err)
	}
	good := ratls.Config{Policy: g.Policy(), Roots: g.Roots()}
	nowhere := good
	nowhere.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
	if _, err := client.Dial(t.Context(), g.URL, nowhere); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("no route: got %v, want it unavailable", err)
	}
	for _, url := range []string{"", "http://127.0.0.1:1", "https://", "127.0.0.1:1", g.URL + "/v1", g.URL + "?x", g.URL + "/#x",
		strings.Replace(g.URL, "//", "//user@", 1)} {
		if _, err := client.Dial(t.Context(), url, good); err == nil || !strings.Contains(err.Error(), "want https://HOST") {
			t.Errorf("URL %q: got %v, want it refused", url, err)
		}
	}
	if len(g.Prompts()) != 0 {
		t.Errorf("the guest got %q, want nothing", g.Prompts())
	}
}

// TestAnotherConfig dials one guest and finds another behind the same address: both are accepted, but the request was made
// for the first.
func TestAnotherConfig(t *testing.T) {
	first := clienttest.New(t, clienttest.Measured(t))
	second := clienttest.New(t, clienttest.Measured(t, func(m *config.Measured) { m.Service.Price.NanotonPerToken++ }))
	rules := first.Rules()
	rules.Config.Price.NanotonPerToken = attest.Range{Max: 100}
	policy, err := rules.Policy()
	if err != nil {
		t.Fatal(err)
	}
	to := first.URL
	roots := first.Roots()
	roots.VTPM.AddCert(second.Hardware.(*attesttest.Guest).Root)
	redirected := func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, strings.TrimPrefix(to, "https://"))
	}
	guest, err := client.Dial(t.Context(), "https://guest.test", ratls.Config{Policy: policy, Roots: roots, Dial: redirected})
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	guest.Close() // the next request needs a new connection
	to = second.URL
	shown := false
	a, err := guest.Ask(t.Context(), question(), func(client.Piece) error { shown = true; return nil })
	if a != nil || shown || !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), "it now has the config") {
		t.Errorf("got %v (%v), shown %t, want it rejected and nothing shown", a, err, shown)
	}
}

// TestJudgeNeedsPayer: without a payer no charge can be judged, and that is the caller's mistake, not the guest's.
func TestJudgeNeedsPayer(t *testing.T) {
	g := clienttest.New(t, clienttest.Measured(t))
	request := question()
	request.Payer = ton.Address{}
	if _, err := dial(t, g).Ask(t.Context(), request, nil); err == nil || errors.Is(err, check.ErrRejected) || len(g.Prompts()) != 0 {
		t.Errorf("got %v and %d prompts, want an error about the request", err, len(g.Prompts()))
	}
}

// TestKeys: where charges are settled on chain the request shows a key, the charge is to its contract, and the coefficient is in the band and at
// most what was asked for.
func TestKeys(t *testing.T) {
	settles := func(m *config.Measured) {
		m.Service.Chain = config.Chain{Params: register.Digest{1}, MaxAgeSeconds: 60, Coefficient: config.Band{Min: 15_000, Max: 30_000},
			Anchor: config.Anchor{GlobalID: -217, Seqno: 1, RootHash: register.Digest{2}}}
	}
	key := api.Key{Contract: [32]byte{5}, Secret: [32]byte{6}}
	contract := ton.Address{Account: key.Contract}
	for _, tt := range []struct {
		name, want string
		change     func(*client.Request)
		spoil      func(*clienttest.Reply)
	}{
		{"a key", "", func(*client.Request) {}, nil},
		{"with its contract", "", func(r *client.Request) { r.Payer = contract }, nil},
		{"at most what it is", "", func(r *client.Request) { r.MaxCoefficient = 15_000 }, nil},
		{"with another contract", "and the key is of", func(r *client.Request) { r.Payer = payer }, nil},
		{"no key", "Key is none", func(r *client.Request) { r.Key, r.Payer = api.Key{}, contract }, nil},
		{"more than it takes", "its coefficient is 15000, want at most 14999", func(r *client.Request) { r.MaxCoefficient = 14_999 }, nil},
		{"below the band", "its coefficient is not", func(*client.Request) {}, func(r *clienttest.Reply) { r.Receipt.Coefficient = 14_999 }},
		{"above the band", "its coefficient is not", func(*client.Request) {}, func(r *clienttest.Reply) { r.Receipt.Coefficient = 30_001 }},
		{"none", "its coefficient is not", func(*client.Request) {}, func(r *clienttest.Reply) { r.Receipt.Coefficient = 0 }},
	} {
		g := clienttest.New(t, clienttest.Measured(t, settles))
		g.Spoil = func(_ []byte, r *clienttest.Reply) {
			if tt.spoil != nil {
				before := r.Receipt.Weighted
				tt.spoil(r)
				r.Receipt.Weighted, _ = r.Receipt.Usage.Charged(r.Receipt.Price, r.Receipt.Coefficient)
				r.Receipt.Cumulative += r.Receipt.Weighted - before
				r.Charge.Tokens = r.Receipt.Cumulative
			}
		}
		request := question()
		request.Payer, request.Key = ton.Address{}, key
		tt.change(&request)
		a, err := dial(t, g).Ask(t.Context(), request, nil)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		} else if err == nil && (a.Receipt.Client != contract || a.Receipt.Coefficient != 15_000) {
			t.Errorf("%s: charged to %s by %d", tt.name, a.Receipt.Client, a.Receipt.Coefficient)
		}
	}
	request := question()
	request.MaxCoefficient = 5
	if _, err := dial(t, clienttest.New(t, clienttest.Measured(t))).Ask(t.Context(), request, nil); err == nil || !strings.Contains(err.Error(), "has no coefficient") {
		t.Errorf("a maximum where nothing is settled: got %v", err)
	}
}
