package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

func FuzzParseRequest(f *testing.F) {
	limits := requestLimits{model: "tiny", answerTokens: 100}
	for _, seed := range []string{ask(""), ask(`,"stream":true,"stop":["a"],"seed":1`), ask(`,"cache_prompt":true`), `{}`, `[`} {
		f.Add([]byte(seed))
	}
	allowed := map[string]bool{"messages": true, "max_tokens": true, "temperature": true, "top_p": true, "seed": true, "stop": true,
		"stream": true, "stream_options": true, "return_progress": true, "cache_prompt": true}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body, limits)
		if err != nil {
			return
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(r.engineRequest(limits), &got); err != nil {
			t.Fatalf("rebuilt request is no JSON: %v", err)
		}
		for name := range got {
			if !allowed[name] {
				t.Fatalf("the engine would get %q", name)
			}
		}
		if string(got["cache_prompt"]) != "false" || string(got["stream"]) != "true" {
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
