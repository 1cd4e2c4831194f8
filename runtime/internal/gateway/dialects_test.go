package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/engines"
	"chrysalis/runtime/api"
	"chrysalis/runtime/receipt"
)

// inDialect sets the engine's.
func inDialect(t *testing.T, name string) func(*Config) {
	t.Helper()
	d, known := engines.Find(name)
	if !known {
		t.Fatalf("no dialect %q", name)
	}
	return func(c *Config) { c.Engine = d }
}

// vllmEvent is an event of vLLM's stream: usage comes with each, and what is not there is left out or null.
func vllmEvent(w *engineWriter, delta string, finish string, prompt, completion int) {
	w.event(`{"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"/model","choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s,"token_ids":null}],`+
		`"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}`, delta, finish, prompt, prompt+completion, completion)
}

// vllmEngine thinks and answers as vLLM does, and stops before the end where it is told to.
func vllmEngine(before string) func(w *engineWriter) {
	return func(w *engineWriter) {
		vllmEvent(w, `"role":"assistant","content":""`, "null", 14, 0)
		vllmEvent(w, `"reasoning":"Hm."`, "null", 14, 1)
		vllmEvent(w, `"content":"Os"`, "null", 14, 2)
		if before == "end" {
			w.conn()
		}
		if before == "leave" {
			<-w.gone
			return
		}
		vllmEvent(w, `"content":"lo."`, "null", 14, 3)
		vllmEvent(w, `"content":""`, `"stop","stop_reason":null`, 14, 3)
		w.event(`{"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"/model","choices":[],"usage":{"prompt_tokens":14,"total_tokens":17,"completion_tokens":3,"prompt_tokens_details":null}}`)
		w.event("[DONE]")
	}
}

// TestDialectOfVLLM: answers, streamed and whole, with reasoning; the request says what vLLM reads and nothing of llama-server's; an answer that
// breaks off, or that a client leaves, counts its prompt all the same.
func TestDialectOfVLLM(t *testing.T) {
	for _, tt := range []struct {
		name, body, before string
		outcome            receipt.Outcome
		completion         uint32
		says, saysNot      string
	}{
		{"in one piece", ask(""), "", receipt.Complete, 3, `"content":"Oslo."`, "/model"},
		{"streamed", ask(`,"stream":true`), "", receipt.Complete, 3, "Hm.", "token_ids"},
		{"an engine that ends early", ask(`,"stream":true`), "end", receipt.Cut, 2, "engine_lost", "[DONE]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, inDialect(t, "vllm"))
			b.engine.set(vllmEngine(tt.before))
			_, text := b.post(t, tt.body)
			if !strings.Contains(text, tt.says) || strings.Contains(text, tt.saysNot) || !strings.Contains(text, `"chrysalis":`) {
				t.Errorf("got %s, want %q in it and %q not", text, tt.says, tt.saysNot)
			}
			if r := b.keeper.await(t); r.Outcome != tt.outcome || r.Usage != (receipt.Usage{Prompt: 14, Completion: tt.completion}) {
				t.Errorf("recorded: %+v", r)
			}
			var asked map[string]any
			if err := json.Unmarshal([]byte(b.engine.asked()[0]), &asked); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(asked["stream_options"]) != "map[continuous_usage_stats:true include_usage:true]" || asked["stream"] != true || asked["cache_prompt"] != nil || asked["return_progress"] != nil {
				t.Errorf("vLLM was asked: %v", asked)
			}
		})
	}
}

// TestVLLMIsLeft: of an answer that a client leaves, the prompt is counted too.
func TestVLLMIsLeft(t *testing.T) {
	b := startBench(t, inDialect(t, "vllm"))
	b.engine.set(vllmEngine("leave"))
	ctx, leave := context.WithCancel(t.Context())
	response, err := b.http.Do(b.request(t, ctx, ask(`,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	for read := ""; !strings.Contains(read, "Os"); {
		piece := make([]byte, 512)
		n, err := response.Body.Read(piece)
		if read += string(piece[:n]); err != nil {
			t.Fatalf("got %q, %v", read, err)
		}
	}
	leave()
	response.Body.Close()
	if r := b.keeper.await(t); r.Outcome != receipt.Cut || r.Usage != (receipt.Usage{Prompt: 14, Completion: 2}) {
		t.Errorf("recorded %+v", r)
	}
}

// TestRefusalsOfVLLM: what vLLM refuses is said in this service's words, and what it does not make is told apart.
func TestRefusalsOfVLLM(t *testing.T) {
	for _, tt := range []struct {
		name, path, body, says string
		engine                 int
		status                 int
		code                   string
	}{
		{"a long prompt", api.ChatCompletions, ask(""), "This model's maximum context length is 4096 tokens. However, you requested 100 output tokens and your prompt contains at least 4000 input tokens", 400, 400, "context_length_exceeded"},
		{"something else", api.ChatCompletions, ask(""), "the canary is unwell", 400, 400, ""},
		{"no embeddings", api.Embeddings, `{"model":"tiny","input":"x"}`, "The model does not support Embeddings API", 400, 404, "no_embeddings"},
		{"no such path", api.Embeddings, `{"model":"tiny","input":"x"}`, "Not Found", 404, 404, "no_embeddings"},
		{"a fault", api.ChatCompletions, ask(""), "canary", 500, 503, "engine_down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, inDialect(t, "vllm"))
			b.engine.set(func(w *engineWriter) {
				w.w.Header().Set("Content-Type", "application/json")
				w.w.WriteHeader(tt.engine)
				said, _ := json.Marshal(tt.says)
				fmt.Fprintf(w.w, `{"error":{"message":%s,"type":"BadRequestError","param":null,"code":%d}}`, said, tt.engine)
			})
			status, text := postTo(t, b, tt.path, tt.body)
			r := parseReply(t, text)
			if status != tt.status || r.Error == nil || tt.code != "" && *r.Error.Code != tt.code || strings.Contains(text, "canary") || strings.Contains(text, "4000") {
				t.Errorf("status %d: %s, want %d %s", status, text, tt.status, tt.code)
			}
		})
	}
}

// TestCountsOfVLLM: a prompt is counted by vLLM's own tokenizer before it takes a place, a chat and a text each as it stands.
func TestCountsOfVLLM(t *testing.T) {
	b := startBench(t, func(c *Config) { inDialect(t, "vllm")(c); c.ContextTokens = 300 })
	b.engine.set(vllmEngine(""))
	counted := ""
	b.engine.counts = func(path, body string) (int, string) {
		counted = path
		n := strings.Count(body, "word ")
		if !strings.Contains(body, `"messages":[`) && !strings.Contains(body, `"prompt":"`) {
			return 400, `{"error":{"message":"neither"}}`
		}
		return 200, fmt.Sprintf(`{"count":%d,"max_model_len":300,"tokens":[%s],"token_strs":null}`, n, strings.TrimSuffix(strings.Repeat("7,", n), ","))
	}
	for _, path := range []string{api.ChatCompletions, api.Completions, api.Messages, api.Responses} {
		counted = ""
		status, text := postTo(t, b, path, long(path, 300))
		if r := parseReply(t, text); status != 400 || *r.Error.Code != "context_length_exceeded" || r.Error.Message != "the prompt has 300 tokens, want at most 299" || counted != "/tokenize" {
			t.Errorf("%s: status %d: %s, counted at %q", path, status, text, counted)
		}
	}
	if n := len(b.keeper.recorded); n != 0 {
		t.Errorf("%d answers were recorded, want none", n)
	}
}

// TestEveryDialectEnds: whatever the engine is, the end of a client's connection is the end of the engine's.
func TestEveryDialectEnds(t *testing.T) {
	for _, name := range engines.Names() {
		t.Run(name, func(t *testing.T) {
			b := startBench(t, inDialect(t, name))
			begun, ended := make(chan struct{}), make(chan struct{})
			b.engine.set(func(w *engineWriter) {
				w.w.(http.Flusher).Flush()
				close(begun)
				<-w.gone
				close(ended)
			})
			ctx, leave := context.WithCancel(t.Context())
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				if response, err := b.http.Do(b.request(t, ctx, ask(`,"stream":true`))); err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			}()
			<-begun
			leave()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Error("the engine goes on")
			}
			<-asked
		})
	}
}
