package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"chrysalis/runtime/api"
)

func TestCountTokens(t *testing.T) {
	for _, tt := range []struct {
		text    string
		tokens  uint64
		counted bool
	}{
		{`{"input_tokens":9005,"object":"response.input_tokens"}`, 9005, true},
		{`{"object":"x","input_tokens":4}`, 4, true},
		{`{"tokens":[1,22,333]}`, 3, true},
		{`{"tokens":[]}`, 0, true},
		{`{"x":{"tokens":[1]},"tokens":[7]}`, 1, true},
		{`{"tokens":[1,2`, 0, false},
		{`{"tokens":[1,"x"]}`, 0, false},
		{`{"tokens":[{"id":1,"piece":"x"}]}`, 0, false},
		{`{"tokens":5}`, 0, false},
		{`{"input_tokens":-1}`, 0, false},
		{`{"input_tokens":"4"}`, 0, false},
		{`{"input_tokens":99999999999}`, 0, false},
		{`{"error":{"code":404}}`, 0, false},
		{`[1,2]`, 0, false},
		{``, 0, false},
	} {
		if tokens, counted := countTokens(strings.NewReader(tt.text)); counted != tt.counted || counted && tokens != tt.tokens {
			t.Errorf("%s: got %d, %t, want %d, %t", tt.text, tokens, counted, tt.tokens, tt.counted)
		}
	}
}

// long is a request at a path with a prompt of so many words.
func long(path string, words int) string {
	text := strings.Repeat("word ", words)
	switch path {
	case api.Completions:
		return `{"model":"tiny","prompt":"` + text + `"}`
	case api.Responses, api.Embeddings:
		return `{"model":"tiny","input":"` + text + `"}`
	}
	return `{"model":"tiny","max_tokens":9,"messages":[{"role":"user","content":"` + text + `"}]}`
}

// TestLongPrompts: a prompt that is longer than the context is refused with what it has and what it may have, in each dialect, while every
// place to compute in is taken, and the engine computes nothing. One that fits is computed, and a short one is not counted.
func TestLongPrompts(t *testing.T) {
	b := startBench(t, func(c *Config) { c.Models[0].ContextTokens, c.Models[0].Concurrent = 300, 1 })
	asked := slices.DeleteFunc(api.Answers(), func(path string) bool { return path == api.Transcriptions }) // nobody knows how long audio is
	params := map[string]string{api.ChatCompletions: "messages", api.Completions: "prompt", api.Messages: "messages", api.Responses: "input", api.Embeddings: "input"}
	b.engine.counts = func(path, body string) (int, string) {
		n := strings.Count(body, "word ")
		if path == llama.CountText {
			if !strings.HasPrefix(body, `{"add_special":true,"parse_special":true,"content":`) {
				return 400, body
			}
			return 200, `{"tokens":[` + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]}"
		}
		return 200, fmt.Sprintf(`{"input_tokens":%d}`, n)
	}
	leave, err := b.gateway.served[0].places.enter(t.Context(), who{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range asked {
		status, text := postTo(t, b, path, long(path, 300))
		r := parseReply(t, text)
		if status != 400 || *r.Error.Code != "context_length_exceeded" || *r.Error.Param != params[path] || r.Error.Message != "the prompt has 300 tokens, want at most 299" {
			t.Errorf("%s: status %d: %s", path, status, text)
		}
	}
	if answers, places := b.keeper.state(); len(answers) != 0 || places != 0 || len(b.gateway.served[0].counts.of) != 0 {
		t.Errorf("%d answers were recorded, %d places are taken in the journal and %d to count in, want none", len(answers), places, len(b.gateway.served[0].counts.of))
	}
	leave()
	counted := 0
	for _, path := range b.engine.paths {
		if path != llama.CountChat && path != llama.CountText {
			t.Errorf("the engine was asked at %s", path)
		}
		counted++
	}
	for _, path := range asked {
		if path == api.Embeddings {
			b.engine.set(func(w *engineWriter) {
				fmt.Fprint(w.w, `{"data":[{"embedding":[1],"index":0}],"usage":{"prompt_tokens":299}}`)
			})
		} else {
			b.engine.set(spokenEngine)
		}
		if status, text := postTo(t, b, path, long(path, 299)); status != 200 {
			t.Errorf("%s, as long as it may be: status %d: %s", path, status, text)
		}
	}
	if n := len(b.engine.paths); n != counted+2*len(asked) {
		t.Errorf("the engine was asked %d times more, want each to be counted and computed", n-counted)
	}
	before := len(b.engine.paths)
	if status, _ := postTo(t, b, api.Completions, `{"model":"tiny","prompt":"x"}`); status != 200 || len(b.engine.paths) != before+1 {
		t.Errorf("a short prompt: status %d, and the engine was asked %d times, want once", status, len(b.engine.paths)-before)
	}
}

// TestUncounted: an engine that does not count, or says what is no count, computes, and refuses for itself.
func TestUncounted(t *testing.T) {
	b := startBench(t, func(c *Config) { c.Models[0].ContextTokens = 300 })
	for _, counts := range []func(string, string) (int, string){
		nil,
		func(string, string) (int, string) { return 500, `{"input_tokens":9999}` },
		func(string, string) (int, string) { return 200, `{"input_tokens":"many"}` },
		func(string, string) (int, string) { return 200, "" },
	} {
		b.engine.counts = counts
		if status, text := b.post(t, long(api.ChatCompletions, 400)); status != 200 {
			t.Errorf("status %d: %s", status, text)
		}
	}
	for _, tt := range []struct{ says, want string }{
		{`{"error":{"code":400,"message":"canary","type":"exceed_context_size_error","n_prompt_tokens":205,"n_ctx":128}}`, "the prompt has 205 tokens, want at most 127"},
		{`{"error":{"code":400,"type":"exceed_context_size_error"}}`, "the prompt is longer than the model's context"},
		{`{"error":{"code":400,"message":"exceed_context_size","type":"other"}}`, "the engine refused the request"},
		{`exceed_context_size`, "the engine refused the request"},
	} {
		b.engine.set(func(w *engineWriter) { w.w.WriteHeader(400); fmt.Fprint(w.w, tt.says) })
		status, text := b.post(t, long(api.ChatCompletions, 400))
		if r := parseReply(t, text); status != 400 || r.Error.Message != tt.want {
			t.Errorf("%s: status %d: %s, want %q", tt.says, status, text, tt.want)
		}
	}
}
