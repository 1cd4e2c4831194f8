package gateway

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"chrysalis/runtime/api"
)

// fuzzSeeds are requests that are good, or nearly.
func fuzzSeeds(f *testing.F) {
	for _, seed := range []string{ask(""), ask(`,"stream":true,"stop":["a"],"seed":1`), ask(`,"cache_prompt":true`), `{}`, `[`,
		ask(`,"tools":[{"type":"function","function":{"name":"f","parameters":{"a":[1]}}}],"tool_choice":"auto","logit_bias":{"1":-1}`),
		`{"model":"tiny","messages":[{"role":"developer","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":null,` +
			`"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}]}`} {
		f.Add(api.ChatCompletions, []byte(seed))
	}
	for _, seed := range []string{`{"model":"tiny","input":"x"}`, `{"model":"tiny","input":[{"type":"function_call","call_id":"1","name":"f","arguments":""}]}`,
		`{"model":"tiny","input":[{"role":"user","content":[{"type":"input_text","text":"x"}]}],"text":{"format":{"type":"json_object"}},` +
			`"tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"f"}}`} {
		f.Add(api.Responses, []byte(seed))
	}
	for _, seed := range []string{`{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`,
		`{"model":"tiny","max_tokens":1,"system":[{"type":"text","text":"x"}],"messages":[{"role":"assistant","content":[{"type":"text","text":"a"},` +
			`{"type":"tool_use","id":"1","name":"f","input":{"\\n":"\""}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"1"},{"type":"thinking"}]}],` +
			`"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"}}`} {
		f.Add(api.Messages, []byte(seed))
	}
	for _, seed := range []string{`{"model":"tiny","prompt":"x","stream":true,"stop":["\n"],"echo":false}`, `{"model":"tiny","prompt":["x"],"max_tokens":1}`, `{"model":"tiny","prompt":[]}`} {
		f.Add(api.Completions, []byte(seed))
	}
	f.Add(api.Embeddings, []byte(`{"model":"tiny","input":["x","y"],"encoding_format":"base64"}`))
}

func FuzzParseRequest(f *testing.F) {
	all := tiny(100)
	fuzzSeeds(f)
	allowed := map[string]bool{"messages": true, "prompt": true, "input": true, "encoding_format": true, "max_tokens": true, "stream": true, "stream_options": true, "return_progress": true,
		"cache_prompt": true}
	for _, row := range chatFields {
		if row.does == passed {
			allowed[row.name] = true
		}
	}
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		sent := bytes.Clone(body)
		d := dialects[path]
		if d == nil {
			return
		}
		r, err := parseRequest(d, body, all)
		if !bytes.Equal(sent, body) {
			t.Fatal("reading the body changed it")
		}
		if err != nil {
			return
		}
		if cap(r.ask) != askBytes(len(body)) {
			t.Fatalf("the engine's request has grown: a copy of it was left behind (%d bytes of a body of %d)", len(r.ask), len(body))
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(r.ask, &got); err != nil {
			t.Fatalf("rebuilt request is no JSON: %v", err)
		}
		for name := range got {
			if !allowed[name] {
				t.Fatalf("the engine would get %q", name)
			}
		}
		if path != api.Embeddings && (string(got["cache_prompt"]) != "false" || string(got["stream"]) != "true") {
			t.Fatal("the engine would get another cache_prompt or stream")
		}
	})
}

func FuzzEngineEvents(f *testing.F) {
	f.Add("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n")
	f.Add(": ping\n\ndata: {\"usage\":{\"prompt_tokens\":1}}\n")
	f.Add("error: x\n")
	f.Fuzz(func(t *testing.T, stream string) {
		e := newEngineEvents(strings.NewReader(stream))
		var c chunk
		for range 1000 {
			if err := e.next(&c); err != nil {
				return
			}
		}
	})
}
