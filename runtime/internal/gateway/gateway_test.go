package gateway

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/session"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

type reply struct {
	ID      string
	Object  string
	Model   string
	Choices []struct {
		Message struct{ Role, Content string }
		Delta   struct {
			Role, Content    string
			ReasoningContent string `json:"reasoning_content"`
		}
		FinishReason *string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
	Chrysalis *struct{ Receipt, Charge []byte }
	Error     *struct {
		Message string
		Type    string
		Param   *string
		Code    *string
	}
}

func parseReply(t testing.TB, text string) (r reply) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return r
}

const wholeText = "The answer is \"42\"\n."

func TestStreamed(t *testing.T) {
	b := startBench(t, nil)
	body := ask(`,"stream":true`)
	status, text := b.post(t, body)
	events := answerEvents(t, text)
	if status != 200 || len(events) < 4 || events[len(events)-1] != "[DONE]" {
		t.Fatalf("status %d, events %q", status, events)
	}
	content, roles := "", 0
	for _, e := range events[:len(events)-1] {
		r := parseReply(t, e)
		if r.Object != "chat.completion.chunk" || r.Model != "tiny" || !strings.HasPrefix(r.ID, "chatcmpl-") {
			t.Errorf("chunk %s", e)
		}
		for _, c := range r.Choices {
			content += c.Delta.Content
			if c.Delta.Role != "" {
				roles++
			}
		}
	}
	if content != wholeText || roles != 1 {
		t.Errorf("text %q with %d roles, want %q with one", content, roles, wholeText)
	}
	last := parseReply(t, events[len(events)-2])
	if last.Usage == nil || last.Usage.Prompt != 14 || last.Usage.Completion != 5 || last.Usage.Total != 19 {
		t.Errorf("last chunk: %s", events[len(events)-2])
	}
	if last.Chrysalis == nil || len(last.Chrysalis.Receipt) != receipt.Size || len(last.Chrysalis.Charge) != claim.BodySize {
		t.Errorf("last chunk has no proof: %s", events[len(events)-2])
	}
	if strings.Contains(text, "timings") || strings.Contains(text, "engine\"") || strings.Contains(text, "/model/") || strings.Contains(text, "cached") {
		t.Errorf("something of the engine's own is in the answer: %s", text)
	}
	a := b.keeper.await(t)
	hash := receipt.NewResponseHash()
	hash.Content([]byte(wholeText))
	if a.Request != sha256.Sum256([]byte(body)) || a.Response != hash.Sum() || a.Outcome != receipt.Complete ||
		a.Usage != (receipt.Usage{Prompt: 14, Completion: 5}) || a.Client.String() != testClient {
		t.Errorf("recorded: %+v", a)
	}
	if _, places := b.keeper.state(); places != 0 {
		t.Errorf("%d places are still taken, want none", places)
	}
}

func TestWhole(t *testing.T) {
	b := startBench(t, nil)
	status, text := b.post(t, ask(""))
	r := parseReply(t, text)
	if status != 200 || r.Object != "chat.completion" || len(r.Choices) != 1 || r.Choices[0].Message.Content != wholeText ||
		r.Choices[0].Message.Role != "assistant" || *r.Choices[0].FinishReason != "stop" || r.Usage.Total != 19 || r.Chrysalis == nil {
		t.Errorf("status %d: %s", status, text)
	}
	b.keeper.await(t)
}

func TestReasoning(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) {
		w.event(`{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}`)
		w.text("yes")
		w.event(`{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"usage":{"completion_tokens":3,"prompt_tokens":9,"completion_tokens_details":{"reasoning_tokens":2}}}`)
		w.event("[DONE]")
	})
	_, text := b.post(t, ask(""))
	if !strings.Contains(text, `"reasoning_content":"hm","content":"yes"`) || !strings.Contains(text, `"finish_reason":"length"`) {
		t.Errorf("answer: %s", text)
	}
	if a := b.keeper.await(t); a.Usage != (receipt.Usage{Prompt: 9, Completion: 3, Reasoning: 2}) {
		t.Errorf("usage is %+v", a.Usage)
	}
}

// callingEngine calls two tools, as llama-server's stream does.
func callingEngine(w *engineWriter) {
	w.begin(9)
	w.text("Let me see")
	w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{"}}]}}]}`)
	w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\":1}"}}]}}]}`)
	w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":1,"id":"c2","type":"function","function":{"name":"go","arguments":"{}"}}]}}]}`)
	w.event(`{"choices":[{"finish_reason":"tool_calls","index":0,"delta":{}}]}`)
	w.event(`{"choices":[],"usage":{"completion_tokens":7,"prompt_tokens":9}}`)
	w.event("[DONE]")
}

func TestToolCalls(t *testing.T) {
	hash := receipt.NewResponseHash()
	hash.Content([]byte("Let me see"))
	hash.Call(0, []byte("c1"), []byte("look"), []byte(`{"a":1}`))
	hash.Call(1, []byte("c2"), []byte("go"), []byte(`{}`))
	for _, tt := range []struct{ name, ask, want string }{
		{"whole", "", `"content":"Let me see","tool_calls":[{"id":"c1","type":"function","function":{"name":"look","arguments":"{\"a\":1}"}},` +
			`{"id":"c2","type":"function","function":{"name":"go","arguments":"{}"}}]},"finish_reason":"tool_calls"`},
		{"first piece", `,"stream":true`, `"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{"}}]},"finish_reason":null`},
		{"further piece", `,"stream":true`, `"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\":1}"}}]},"finish_reason":null`},
		{"end", `,"stream":true`, `"delta":{},"finish_reason":"tool_calls"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, nil)
			b.engine.set(callingEngine)
			if _, got := b.post(t, ask(`,"tools":[]`+tt.ask)); !strings.Contains(got, tt.want) {
				t.Errorf("got %s\nwant in it %s", got, tt.want)
			}
			if a := b.keeper.await(t); a.Response != hash.Sum() || a.Usage != (receipt.Usage{Prompt: 9, Completion: 7}) {
				t.Errorf("recorded %+v, want the hash of text and calls", a)
			}
		})
	}
}

// TestToolCallsThatAreNone: an engine whose calls could be followed in two ways has ended early.
func TestToolCallsThatAreNone(t *testing.T) {
	for name, calls := range map[string]string{
		"first without name":  `{"index":0,"id":"c1","function":{"arguments":"{}"}}`,
		"first without id":    `{"index":0,"function":{"name":"f","arguments":"{}"}}`,
		"one is left out":     `{"index":1,"id":"c1","function":{"name":"f"}}`,
		"a name twice":        `{"index":0,"id":"c1","function":{"name":"f"}},{"index":0,"function":{"name":"g"}}`,
		"arguments no string": `{"index":0,"id":"c1","function":{"name":"f","arguments":{}}}`,
		"a long name":         `{"index":0,"id":"c1","function":{"name":"` + strings.Repeat("f", 200) + `"}}`,
	} {
		b := startBench(t, nil)
		b.engine.set(func(w *engineWriter) {
			w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[%s]}}]}`, calls)
			w.end(1, 1)
		})
		if status, got := b.post(t, ask("")); status != 502 || !strings.Contains(got, "engine_lost") {
			t.Errorf("%s: got %d %s, want 502 engine_lost", name, status, got)
		}
	}
}

func TestLogprobs(t *testing.T) {
	const (
		engine = `{"id":3,"token":"a","bytes":[97],"logprob":-0.5,"top_logprobs":[{"id":3,"token":"a","bytes":[97],"logprob":-0.5},{"id":4,"token":"b","logprob":-1}]}`
		want   = `{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},{"token":"b","logprob":-1,"bytes":null}]}`
	)
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) {
		for range 2 {
			w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"content":"a"},"logprobs":{"content":[%s]}}]}`, engine)
		}
		w.end(1, 2)
	})
	if _, got := b.post(t, ask(`,"logprobs":true`)); !strings.Contains(got, `"content":"aa"},"logprobs":{"content":[`+want+","+want+`]},"finish_reason":"stop"`) {
		t.Errorf("whole: %s", got)
	}
	if _, got := b.post(t, ask(`,"logprobs":true,"stream":true`)); strings.Count(got, `"content":"a"},"logprobs":{"content":[`+want+`]},"finish_reason":null`) != 2 {
		t.Errorf("streamed: %s", got)
	}
}

// TestIgnoredFieldsAreTold asks with fields that do nothing here.
func TestIgnoredFieldsAreTold(t *testing.T) {
	b := startBench(t, nil)
	for body, want := range map[string]string{
		ask(""):                              "",
		ask(`,"user":null`):                  "",
		ask(`,"user":"u","store":true`):      "user, store",
		ask(`,"metadata":{"a":{"b":["c"]}}`): "metadata",
		`{"model":"tiny","messages":[{"role":"user","content":"x","name":"a"},{"role":"user","content":"x","name":"b"}]}`: "messages.name",
	} {
		response, err := b.http.Do(b.request(t, t.Context(), body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := response.Header.Get("Chrysalis-Ignored"); response.StatusCode != 200 || got != want {
			t.Errorf("%s: status %d, ignored %q, want 200 and %q", body, response.StatusCode, got, want)
		}
	}
}

// TestEngineGetsOnlyTheAllowList compares the rebuilt request with the whole of what it must be.
func TestEngineGetsOnlyTheAllowList(t *testing.T) {
	b := startBench(t, nil)
	b.post(t, `{"seed":7,"stop":["a","b"],"top_p":0.5,"temperature":0,"max_tokens":100000,"stream":true,"stream_options":{"include_usage":false},
		"messages":[{"role":"system","content":"be \u00e9"},{"content":"hi\n","role":"user"}],"model":"tiny"}`)
	b.post(t, ask(`,"max_completion_tokens":3`))
	const more = `"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":null}}],` +
		`"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false`
	b.post(t, `{"user":"u","store":false,"metadata":{"a":"b"},"n":1,"stop":null,`+more+`,"model":"tiny","logprobs":true,"top_logprobs":2,
		"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}},"logit_bias":{"7":-100},"top_k":4,
		"messages":[{"role":"developer","content":[{"type":"text","text":"a"},{"text":"b","type":"text"}],"name":"n"},
		{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"1","content":"r"},{"role":"assistant","content":"c","reasoning_content":"t","parsed":null}]}`)
	want := []string{
		`{"messages":[{"role":"system","content":"be \u00e9"},{"role":"user","content":"hi\n"}],"max_tokens":100,"temperature":0,"top_p":0.5,"seed":7,"stop":["a","b"],"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`,
		`{"messages":[{"role":"user","content":"canary-prompt?"}],"max_tokens":3,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`,
		`{"messages":[{"role":"system","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},` +
			`{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
			`{"role":"tool","content":"r","tool_call_id":"1"},{"role":"assistant","content":"c","reasoning_content":"t"}],"max_tokens":100,` +
			`"top_k":4,"logit_bias":{"7":-100},"logprobs":true,"top_logprobs":2,` +
			`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}},` + more +
			`,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`,
	}
	if got := b.engine.asked(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the engine was asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTLS(t *testing.T) {
	b := startBench(t, nil)
	c := b.dial(t)
	state := c.ConnectionState()
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("version %x, protocol %q", state.Version, state.NegotiatedProtocol)
	}
	if _, ok := state.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey); !ok {
		t.Errorf("key is a %T", state.PeerCertificates[0].PublicKey)
	}
	if state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("key exchange is %s, want X25519MLKEM768", state.CurveID)
	}
	if c, err := tls.Dial("tcp", b.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

// TestFirstEventIsNotHeldBack reads the first token while the engine is silent.
func TestFirstEventIsNotHeldBack(t *testing.T) {
	b := startBench(t, nil)
	release := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		w.begin(1)
		w.text("first")
		<-release
		w.end(1, 1)
	})
	response, err := b.http.Do(b.request(t, t.Context(), ask(`,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	piece := make([]byte, 4096)
	n, err := response.Body.Read(piece)
	if err != nil || !strings.Contains(string(piece[:n]), "first") {
		t.Errorf("got %q, %v; want the first token", piece[:n], err)
	}
	close(release)
	if rest, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(rest), "[DONE]") {
		t.Errorf("rest: %q, %v", rest, err)
	}
}

func TestEvidence(t *testing.T) {
	b := startBench(t, nil)
	nonce := strings.Repeat("5a", 32)
	get := func(query string) (*tls.ConnectionState, int, []byte) {
		response, err := b.http.Get(b.url + "/v1/evidence" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.TLS, response.StatusCode, body
	}
	state, status, body := get("?nonce=" + nonce)
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	e, err := evidence.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	exported, err := state.ExportKeyingMaterial(evidence.ExporterLabel, nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	leaf := evidence.Leaf([32]byte([]byte(strings.Repeat("\x5a", 32))), [32]byte(exported))
	root, err := e.Path.Root(leaf)
	if err != nil || root != e.Statement.NonceRoot {
		t.Errorf("the path leads to %x, %v; want %x", root, err, e.Statement.NonceRoot)
	}
	if want := session.KeyHash(state.PeerCertificates[0]); e.Statement.TLSKey != want || e.Statement.Epoch != 1 {
		t.Errorf("statement names key %x of epoch %d, want %x of 1", e.Statement.TLSKey, e.Statement.Epoch, want)
	}
	for _, query := range []string{"", "?nonce=" + nonce[:62], "?nonce=" + strings.ToUpper(nonce), "?nonce=" + nonce + "&x=1", "?x=" + nonce} {
		if _, status, _ := get(query); status != 400 {
			t.Errorf("%q: status %d, want 400", query, status)
		}
	}
	b.quoter.err = errTest
	if _, status, _ := get("?nonce=" + nonce); status != 503 {
		t.Errorf("no quote: status %d, want 503", status)
	}
}

func TestModels(t *testing.T) {
	b := startBench(t, nil)
	response, err := b.http.Get(b.url + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if want := `{"object":"list","data":[{"id":"tiny","object":"model","created":0,"owned_by":"chrysalis","volume":{"root":"02` + strings.Repeat("00", 31) + `","blocks":9},"engine":"llama-server","context_tokens":8192,"answer_tokens":100,` +
		`"request_bytes":4096,"paths":["/v1/chat/completions","/v1/completions","/v1/messages","/v1/responses"]}]}` + "\n"; string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
}

// TestBase64 pins the alphabet of receipts and charges in answers.
func TestBase64(t *testing.T) {
	var signed receipt.Signed
	for i := range signed {
		signed[i] = 0xff
	}
	got := string(appendEnd(nil, receipt.Usage{}, receipt.Proof{Receipt: &signed, Charge: &claim.Body{0xff, 0xfe}}))
	for _, want := range []string{`"receipt":"` + base64.StdEncoding.EncodeToString(signed[:]) + `"`, `"receipt":"////`, `"charge":"//4AAAAA`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
	var _ http.Handler = (&Gateway{}).handler()
}
