package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/receipt"
)

// embeddingEngine makes two embeddings as llama-server does.
func embeddingEngine(w *engineWriter) {
	io.WriteString(w.w, `{"model":"/model/x","object":"list","usage":{"prompt_tokens":6,"total_tokens":6},"data":[`+
		`{"embedding":[0.5,-1e-3],"index":0,"object":"embedding"},{"embedding":[1,2],"index":1,"object":"embedding"}]}`)
}

// TestEmbeddings: what the engine is asked and answers, in the clear and in an envelope, with usage, receipt and signature.
func TestEmbeddings(t *testing.T) {
	hash := receipt.NewResponseHash()
	hash.Content([]byte("[0.5,-1e-3]\n[1,2]\n"))
	for _, tt := range [][2]string{
		{`{"model":"tiny","input":["a","b"],"user":"u","encoding_format":"float"}`, `{"input":["a","b"],"encoding_format":"float"}`},
		{`{"model":"tiny","input":["a","b"],"encoding_format":"base64"}`, `{"input":["a","b"],"encoding_format":"base64"}`},
		{`{"model":"tiny","input":["a","b"]}`, `{"input":["a","b"],"encoding_format":"float"}`},
	} {
		b := startBench(t, nil)
		b.engine.set(embeddingEngine)
		status, text := postTo(t, b, api.Embeddings, tt[0])
		var r struct {
			ID, Object, Model string
			Data              []struct {
				Object    string
				Index     int
				Embedding []float64
			}
			Usage     json.RawMessage
			Chrysalis struct{ Receipt, Charge []byte }
		}
		if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 || r.Object != "list" || r.Model != "tiny" || len(r.Data) != 2 ||
			r.Data[0].Embedding[1] != -0.001 || r.Data[1].Index != 1 || string(r.Usage) != `{"prompt_tokens":6,"total_tokens":6}` || len(r.Chrysalis.Receipt) != receipt.Size {
			t.Fatalf("status %d: %s", status, text)
		}
		if asked := b.engine.asked(); len(asked) != 1 || asked[0] != tt[1] || b.engine.paths[0] != "/v1/embeddings" {
			t.Errorf("the engine was asked %q at %q, want %s", asked, b.engine.paths, tt[1])
		}
		if a := b.keeper.await(t); a.Response != hash.Sum() || a.Outcome != receipt.Complete || a.Usage != (receipt.Usage{Prompt: 6}) {
			t.Errorf("recorded: %+v", a)
		}
		if status, text := b.get(t, api.Signatures+r.ID); status != 200 {
			t.Errorf("signature: status %d: %s", status, text)
		}
	}
	s := startSealed(t, nil)
	s.engine.set(embeddingEngine)
	opened, text, err := s.exchange(t, s.sealAs(t, envelope.Request{Method: "POST", Path: api.Embeddings, Body: []byte(requests[api.Embeddings] + "}"), Header: []envelope.Field{
		{Name: "chrysalis-client", Value: testClient}, {Name: "content-type", Value: "application/json"}}}))
	if err != nil || opened.Status != 200 || !strings.Contains(text, "[0.5,-1e-3]") {
		t.Errorf("sealed: %v, status %d: %s", err, opened.Status, text)
	}
}

func TestEmbeddingsRefuses(t *testing.T) {
	b := startBench(t, nil)
	many := `["x"` + strings.Repeat(`,"x"`, maxInputs) + "]"
	for _, tt := range []struct{ body, param string }{
		{`{"model":"tiny"}`, "input"},
		{`{"model":"tiny","input":""}`, "input"},
		{`{"model":"tiny","input":[]}`, "input"},
		{`{"model":"tiny","input":["a",""]}`, "input"},
		{`{"model":"tiny","input":[1,2]}`, "input"},
		{`{"model":"tiny","input":[[1],[2]]}`, "input"},
		{`{"model":"tiny","input":` + many + `}`, "input"},
		{`{"model":"tiny","input":"x","encoding_format":"int8"}`, "encoding_format"},
		{`{"model":"tiny","input":"x","dimensions":3}`, "dimensions"},
		{`{"model":"tiny","input":"x","stream":true}`, "stream"},
		{`{"model":"tiny","input":"x","embd_normalize":1}`, "embd_normalize"},
		{`{"model":"tiny","input":"x","content":"y"}`, "content"},
	} {
		status, text := postTo(t, b, api.Embeddings, tt.body)
		if r := parseReply(t, text); status != 400 || r.Error == nil || r.Error.Param == nil || *r.Error.Param != tt.param {
			t.Errorf("%.80s: status %d: %s, want 400 for %s", tt.body, status, text, tt.param)
		}
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Errorf("the engine was asked %d times, want never", n)
	}
}

// TestEmbeddingsOfEngine: what an engine that can't, or answers something else, comes to. Nothing is recorded.
func TestEmbeddingsOfEngine(t *testing.T) {
	one := `{"embedding":[1],"index":0}`
	for _, tt := range []struct {
		name   string
		status int
		says   string
		want   int
		code   string
	}{
		{"no means", 501, `{"error":{"code":501,"message":"This server does not support embeddings. Start it with --embeddings","type":"not_supported_error"}}`, 404, "no_embeddings"},
		{"no such path", 404, `{"error":{"code":404}}`, 404, "no_embeddings"},
		{"a long text", 500, `{"error":{"code":500,"message":"input (9002 tokens) is too large to process. increase it","type":"server_error"}}`, 400, "context_length_exceeded"},
		{"another fault", 500, `{"error":{"code":500,"message":"x"}}`, 503, "engine_down"},
		{"one of two", 200, `{"data":[` + one + `],"usage":{"prompt_tokens":1}}`, 502, "engine_lost"},
		{"three of two", 200, `{"data":[` + one + `,{"embedding":[1],"index":1},{"embedding":[1],"index":2}]}`, 502, "engine_lost"},
		{"another order", 200, `{"data":[{"embedding":[1],"index":1},` + one + `]}`, 502, "engine_lost"},
		{"no vector", 200, `{"data":[` + one + `,{"embedding":{"x":1},"index":1}]}`, 502, "engine_lost"},
		{"lines in a vector", 200, `{"data":[` + one + ",{\"embedding\":[1,\n2],\"index\":1}]}", 502, "engine_lost"},
		{"no JSON", 200, `{"data":[` + one, 502, "engine_lost"},
		{"more tokens than there may be", 200, `{"data":[` + one + `,{"embedding":[1],"index":1}],"usage":{"prompt_tokens":8193}}`, 400, "context_length_exceeded"},
		{"without end", 200, `{"x":"` + strings.Repeat("x", 4*maxEmbeddingBytes) + `"}`, 502, "engine_lost"},
	} {
		b := startBench(t, nil)
		b.engine.set(func(w *engineWriter) { w.w.WriteHeader(tt.status); fmt.Fprint(w.w, tt.says) })
		status, text := postTo(t, b, api.Embeddings, requests[api.Embeddings]+"}")
		if r := parseReply(t, text); status != tt.want || r.Error == nil || *r.Error.Code != tt.code {
			t.Errorf("%s: status %d: %s, want %d %s", tt.name, status, text, tt.want, tt.code)
		}
		if answers, places := b.keeper.state(); len(answers) != 0 || places != 0 {
			t.Errorf("%s: %d answers were recorded, and %d places are taken", tt.name, len(answers), places)
		}
	}
}
