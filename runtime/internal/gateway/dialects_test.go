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
	return func(c *Config) { c.Models[0].Engine = d }
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
	b := startBench(t, func(c *Config) { inDialect(t, "vllm")(c); c.Models[0].ContextTokens = 300 })
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

// sglangEvent is an event of SGLang's stream: usage comes with each, its tokens of reasoning beside the others, and what is not there is null.
func sglangEvent(w *engineWriter, delta, finish string, completion, reasoning int) {
	w.event(`{"id":"9","object":"chat.completion.chunk","created":1,"model":"default","choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s,"matched_stop":null}],`+
		`"usage":{"prompt_tokens":14,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":null,"reasoning_tokens":%d}}`, delta, finish, 14+completion, completion, reasoning)
}

// sglangEngine thinks and answers as SGLang does, and ends for a reason.
func sglangEngine(reason string) func(w *engineWriter) {
	return func(w *engineWriter) {
		sglangEvent(w, `"role":"assistant","content":"","reasoning_content":null,"tool_calls":null`, "null", 0, 0)
		sglangEvent(w, `"role":null,"content":null,"reasoning_content":"Hm.","tool_calls":null`, "null", 1, 1)
		sglangEvent(w, `"role":null,"content":"Oslo.","reasoning_content":null,"tool_calls":null`, "null", 3, 1)
		if reason == "in an event" {
			w.event(`{"error":{"object":"error","message":"canary","type":"ServiceUnavailableError","param":null,"code":503}}`)
			w.event("[DONE]")
			return
		}
		sglangEvent(w, `"role":null,"content":null,"reasoning_content":null,"tool_calls":null`, `"`+reason+`"`, 3, 1)
		w.event(`{"id":"9","object":"chat.completion.chunk","created":1,"model":"default","choices":[],"usage":{"prompt_tokens":14,"total_tokens":17,"completion_tokens":3,"prompt_tokens_details":null,"reasoning_tokens":1}}`)
		w.event("[DONE]")
	}
}

// TestDialectOfSGLang: answers, streamed and whole, with reasoning; what it gives up is not whole.
func TestDialectOfSGLang(t *testing.T) {
	for _, tt := range []struct {
		name, body, reason string
		outcome            receipt.Outcome
		says, saysNot      string
	}{
		{"in one piece", ask(""), "stop", receipt.Complete, `"content":"Oslo."`, "default"},
		{"streamed", ask(`,"stream":true`), "stop", receipt.Complete, "Hm.", "matched_stop"},
		{"at its longest", ask(`,"stream":true`), "length", receipt.Complete, `"finish_reason":"length"`, "matched_stop"},
		{"given up", ask(`,"stream":true`), "abort", receipt.Cut, "engine_lost", "[DONE]"},
		{"given up in words", ask(`,"stream":true`), "in an event", receipt.Cut, "engine_lost", "canary"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, inDialect(t, "sglang"))
			b.engine.set(sglangEngine(tt.reason))
			_, text := b.post(t, tt.body)
			if !strings.Contains(text, tt.says) || strings.Contains(text, tt.saysNot) || !strings.Contains(text, `"chrysalis":`) {
				t.Errorf("got %s, want %q in it and %q not", text, tt.says, tt.saysNot)
			}
			if r := b.keeper.await(t); r.Outcome != tt.outcome || r.Usage != (receipt.Usage{Prompt: 14, Completion: 3, Reasoning: 1}) {
				t.Errorf("recorded: %+v", r)
			}
			if asked := b.engine.asked()[0]; !strings.HasSuffix(asked, `"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`) {
				t.Errorf("SGLang was asked: %s", asked)
			}
		})
	}
}

// TestRefusalsOfSGLang: its errors stand alone, not in an object of that name.
func TestRefusalsOfSGLang(t *testing.T) {
	for _, tt := range []struct {
		name, path, body, says string
		status                 int
		code                   string
	}{
		{"a long prompt", api.ChatCompletions, ask(""), "The input (4000 tokens) is longer than the model's context length (300 tokens).", 400, "context_length_exceeded"},
		{"a long prompt with its answer", api.ChatCompletions, ask(""), "Requested token count exceeds the model's maximum context length of 300 tokens. You requested a total of 4000 tokens", 400, "context_length_exceeded"},
		{"no embeddings", api.Embeddings, `{"model":"tiny","input":"x"}`, "This model does not appear to be an embedding model by default. Please add `--is-embedding`", 404, "no_embeddings"},
		{"something else", api.ChatCompletions, ask(""), "the canary is unwell", 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, inDialect(t, "sglang"))
			b.engine.set(func(w *engineWriter) {
				w.w.Header().Set("Content-Type", "application/json")
				w.w.WriteHeader(400)
				said, _ := json.Marshal(tt.says)
				fmt.Fprintf(w.w, `{"object":"error","message":%s,"type":"BadRequestError","param":null,"code":400}`, said)
			})
			status, text := postTo(t, b, tt.path, tt.body)
			r := parseReply(t, text)
			if status != tt.status || r.Error == nil || tt.code != "" && *r.Error.Code != tt.code || strings.Contains(text, "canary") || strings.Contains(text, "4000") {
				t.Errorf("status %d: %s, want %d %s", status, text, tt.status, tt.code)
			}
		})
	}
}

// TestCountsOfSGLang: a text is counted before it takes a place; a chat, whose template SGLang does not say, it refuses itself.
func TestCountsOfSGLang(t *testing.T) {
	b := startBench(t, func(c *Config) { inDialect(t, "sglang")(c); c.Models[0].ContextTokens = 300 })
	b.engine.set(sglangEngine("stop"))
	b.engine.counts = func(path, body string) (int, string) {
		n := strings.Count(body, "word ")
		if !strings.HasPrefix(body, `{"prompt":"`) || path != "/v1/tokenize" {
			return 400, `{"message":"neither"}`
		}
		return 200, fmt.Sprintf(`{"tokens":[%s],"count":%d,"max_model_len":300}`, strings.TrimSuffix(strings.Repeat("7,", n), ","), n)
	}
	status, text := postTo(t, b, api.Completions, long(api.Completions, 300))
	if r := parseReply(t, text); status != 400 || *r.Error.Code != "context_length_exceeded" || r.Error.Message != "the prompt has 300 tokens, want at most 299" {
		t.Errorf("a text: status %d: %s", status, text)
	}
	if status, text := postTo(t, b, api.ChatCompletions, long(api.ChatCompletions, 300)); status != 200 || len(b.engine.paths) != 2 || b.engine.paths[1] != "/v1/chat/completions" {
		t.Errorf("a chat: status %d: %s, asked at %q", status, text, b.engine.paths)
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
				request := b.request(t, ctx, ask(`,"stream":true`))
				if b.gateway.served[0].Engine.Stream == "" {
					request = b.request(t, ctx, shortForm(t))
					request.URL.Path = api.Transcriptions
					request.Header.Set("Content-Type", "multipart/form-data; boundary="+testBoundary)
				}
				if response, err := b.http.Do(request); err == nil {
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
