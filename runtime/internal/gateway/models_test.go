package gateway

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/engines"
	"chrysalis/measure/register"
	"chrysalis/runtime/api"
	"chrysalis/runtime/numbers"
)

// startTwo starts a gateway of "tiny" on the bench's engine, "other" on one of its own, and "ear", which hears.
func startTwo(t *testing.T) (b *bench, other *fakeEngine) {
	t.Helper()
	other = startEngine(t)
	other.set(func(w *engineWriter) {
		w.begin(3)
		w.text("from the other")
		w.end(3, 2)
	})
	ear, _ := engines.Find("whisper-server")
	b = startBench(t, func(c *Config) {
		second := tinyOn(other)
		second.Name, second.Volume, second.RequestBytes, second.AnswerTokens, second.ContextTokens, second.Concurrent = "other", config.Volume{Root: register.Digest{3}, Blocks: 8}, 1024, 7, 300, 1
		third := tinyOn(startEngine(t))
		third.Name, third.Engine = "ear", ear
		c.Models = append(c.Models, second, third)
	})
	return b, other
}

func get(t *testing.T, b *bench, path string) string {
	t.Helper()
	response, err := b.http.Get(b.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// of asks for a model.
func of(model, more string) string {
	return strings.Replace(ask(more), `"model":"tiny"`, fmt.Sprintf(`"model":%q`, model), 1)
}

// TestTwoModels: each name is answered by its engine within its limits, the record says which, and a name that is not there is told which are.
func TestTwoModels(t *testing.T) {
	b, other := startTwo(t)
	for i, tt := range []struct {
		model, text string
		engine      *fakeEngine
		tokens      string
	}{{"tiny", wholeText, b.engine, `"max_tokens":100`}, {"other", "from the other", other, `"max_tokens":7`}} {
		status, text := b.post(t, of(tt.model, ""))
		r := parseReply(t, text)
		if status != 200 || r.Model != tt.model || r.Choices[0].Message.Content != tt.text {
			t.Errorf("%s: status %d: %s", tt.model, status, text)
		}
		if a := b.keeper.await(t); a.Model != uint8(i) {
			t.Errorf("%s: recorded as model %d, want %d", tt.model, a.Model, i)
		}
		if asked := tt.engine.asked(); len(asked) != 1 || !strings.Contains(asked[0], tt.tokens) {
			t.Errorf("%s: its engine was asked %q, want once, with %s", tt.model, asked, tt.tokens)
		}
		b.keeper.answers = nil
	}
	for _, tt := range []struct {
		name, path, body string
		status           int
		want             string
	}{
		{"a name that is not there", api.ChatCompletions, of("huge", ""), 404, `the models here are \"tiny\", \"other\", \"ear\"`},
		{"no name", api.ChatCompletions, strings.Replace(of("tiny", ""), `"model":"tiny",`, "", 1), 400, `the field model is missing: the models here are \"tiny\", \"other\", \"ear\"`},
		{"a body larger than the model takes", api.ChatCompletions, of("other", `,"user":"`+strings.Repeat("x", 1024)+`"`), 413, "want at most 1024"},
		{"a body that another takes", api.ChatCompletions, of("tiny", `,"user":"`+strings.Repeat("x", 1024)+`"`), 200, ""},
		{"text of what hears alone", api.ChatCompletions, of("ear", ""), 404, "no_text"},
	} {
		status, text := postTo(t, b, tt.path, tt.body)
		if status != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s: status %d, %s; want %d with %s", tt.name, status, text, tt.status, tt.want)
		}
	}
	if n := len(other.asked()); n != 1 {
		t.Errorf("the other's engine was asked %d times, want once", n)
	}
}

// TestModelsHaveTheirPlaces: who waits for one model does not wait for another's places, and each counts prompts by its own context and engine.
func TestModelsHaveTheirPlaces(t *testing.T) {
	b, other := startTwo(t)
	m, err := b.gateway.served.named("other")
	if err != nil {
		t.Fatal(err)
	}
	leave, err := m.places.enter(t.Context(), who{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.gateway.waits.queue = 0
	if status, text := b.post(t, of("other", "")); status != 429 {
		t.Errorf("the model whose one place is taken: status %d: %s", status, text)
	}
	if status, text := b.post(t, of("tiny", "")); status != 200 {
		t.Errorf("a model whose places are free: status %d: %s", status, text)
	}
	if v := b.gateway.Numbers(); v[numbers.Places] != 17 || v[numbers.Computing] != 1 {
		t.Errorf("numbers: %d places and %d computing, want 17 of all models and 1", v[numbers.Places], v[numbers.Computing])
	}
	leave()
	counts := func(path, body string) (int, string) {
		return 200, fmt.Sprintf(`{"input_tokens":%d}`, strings.Count(body, "word "))
	}
	other.counts = counts
	b.gateway.waits.queue = defaultWaits.queue
	long := func(model string) string {
		return strings.Replace(of(model, ""), `"canary-prompt?"`, `"`+strings.Repeat("word ", 120)+`"`, 1)
	}
	if !strings.Contains(long("other"), "word") {
		t.Fatal("the prompt is not in the request")
	}
	if status, text := b.post(t, long("other")); status != 200 {
		t.Errorf("a prompt of 120 tokens where 300 are the context: status %d: %s", status, text)
	}
	m.ContextTokens = 100
	if status, text := b.post(t, long("other")); status != 400 || !strings.Contains(text, "the prompt has 120 tokens, want at most 99") {
		t.Errorf("a prompt of 120 tokens where 100 are the context: status %d: %s", status, text)
	}
	if status, text := b.post(t, long("tiny")); status != 200 {
		t.Errorf("the same prompt to a model with a longer context: status %d: %s", status, text)
	}
}

// TestListOfModels: /v1/models lists all, with what each can do, and proofs name any of them.
func TestListOfModels(t *testing.T) {
	b, _ := startTwo(t)
	text := get(t, b, api.Models)
	for _, want := range []string{
		`{"id":"tiny","object":"model","created":0,"owned_by":"chrysalis","volume":{"root":"02`, `"blocks":9},"engine":"llama-server","context_tokens":8192,"answer_tokens":100,"request_bytes":4096,"paths":["/v1/chat/completions","/v1/completions","/v1/messages","/v1/responses"]},`,
		`{"id":"other",`, `"blocks":8},"engine":"llama-server","context_tokens":300,"answer_tokens":7,"request_bytes":1024,`,
		`{"id":"ear",`, `"engine":"whisper-server",`, `"paths":["/v1/audio/transcriptions"]}]}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the list is %s, want %s in it", text, want)
		}
	}
	_, answer := b.post(t, of("other", ""))
	id := parseReply(t, answer).ID
	for model, want := range map[string]string{"tiny": "signature", "other": "signature", "huge": "model_not_found"} {
		if got := get(t, b, api.Signatures+id+"?model="+model); !strings.Contains(got, want) {
			t.Errorf("model=%s: got %s, want %s", model, got, want)
		}
	}
}
