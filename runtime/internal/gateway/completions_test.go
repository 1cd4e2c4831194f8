package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/receipt"
)

// completingEngine goes on with a text as llama-server does: usage comes with the end of it.
func completingEngine(w *engineWriter) {
	w.event(`{"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":null}],"prompt_progress":{"total":9,"cache":0,"processed":9}}`)
	for _, s := range []string{" ", "Os", "lo\"", "."} {
		w.goesOn(s)
	}
	w.event(`{"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"usage":{"completion_tokens":4,"prompt_tokens":9,"total_tokens":13}}`)
	w.event("[DONE]")
}

const completed = ` Oslo".`

// TestCompletionsAsk compares what the engine gets, and where, with the whole of what it must be.
func TestCompletionsAsk(t *testing.T) {
	const end = `,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`
	b := startBench(t, nil)
	b.engine.set(completingEngine)
	var want []string
	for _, tt := range [][2]string{
		{`{"model":"tiny","prompt":"The capital"}`, `{"prompt":"The capital","max_tokens":100`},
		{`{"model":"tiny","prompt":["a \"b\""],"max_tokens":7,"n":1,"best_of":1,"echo":false,"temperature":0,"stop":["\n"],"seed":3,"user":"u"}`,
			`{"prompt":"a \"b\"","max_tokens":7,"temperature":0,"seed":3,"stop":["\n"]`},
	} {
		if status, text := postTo(t, b, api.Completions, tt[0]); status != 200 {
			t.Fatalf("%s: status %d: %s", tt[0], status, text)
		}
		want = append(want, tt[1]+end)
	}
	if got := b.engine.asked(); strings.Join(got, "\n") != strings.Join(want, "\n") || b.engine.paths[0] != "/v1/completions" {
		t.Errorf("the engine was asked at %q\n%s\nwant\n%s", b.engine.paths, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCompletionsRefuses(t *testing.T) {
	b := startBench(t, nil)
	const x = `{"model":"tiny","prompt":"x",`
	for _, tt := range []struct{ body, param string }{
		{`{"model":"tiny"}`, "prompt"},
		{`{"model":"tiny","prompt":""}`, "prompt"},
		{`{"model":"tiny","prompt":[]}`, "prompt"},
		{`{"model":"tiny","prompt":[""]}`, "prompt"},
		{`{"model":"tiny","prompt":["a","b"]}`, "prompt"},
		{`{"model":"tiny","prompt":[1,2]}`, "prompt"},
		{`{"model":"tiny","prompt":[[1,2]]}`, "prompt"},
		{`{"model":"tiny","prompt":{"prompt_string":"x"}}`, "prompt"},
		{x + `"n":2}`, "n"},
		{x + `"best_of":2}`, "best_of"},
		{x + `"echo":true}`, "echo"},
		{x + `"suffix":"y"}`, "suffix"},
		{x + `"logprobs":1}`, "logprobs"},
		{x + `"stream_options":{"include_usage":true}}`, "stream_options"},
		{x + `"cache_prompt":true}`, "cache_prompt"},
		{x + `"id_slot":0}`, "id_slot"},
		{x + `"n_probs":5}`, "n_probs"},
		{x + `"messages":[]}`, "messages"},
		{x + `"tools":[]}`, "tools"},
	} {
		status, text := postTo(t, b, api.Completions, tt.body)
		if r := parseReply(t, text); status != 400 || r.Error == nil || r.Error.Param == nil || *r.Error.Param != tt.param {
			t.Errorf("%s: status %d: %s, want 400 for %s", tt.body, status, text, tt.param)
		}
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Errorf("the engine was asked %d times, want never", n)
	}
}

// TestCompletions: streamed and whole, in the clear and in an envelope, with usage, proof and receipt.
func TestCompletions(t *testing.T) {
	hash := receipt.NewResponseHash()
	hash.Content([]byte(completed))
	read := func(t *testing.T, b *bench, text string, streamed bool) {
		t.Helper()
		documents := []string{text}
		if streamed {
			events := answerEvents(t, text)
			if documents = events[:len(events)-1]; events[len(events)-1] != "[DONE]" {
				t.Errorf("the stream ends with %s", events[len(events)-1])
			}
		}
		said, finish, last := "", "", ""
		for _, document := range documents {
			var r struct {
				ID, Object, Model string
				Choices           []struct {
					Text   string
					Finish *string `json:"finish_reason"`
				}
				Usage     json.RawMessage
				Chrysalis *struct{ Receipt []byte }
			}
			if err := json.Unmarshal([]byte(document), &r); err != nil || r.Object != "text_completion" || !strings.HasPrefix(r.ID, "cmpl-") || r.Model != "tiny" {
				t.Fatalf("%v: %s", err, document)
			}
			for _, c := range r.Choices {
				said += c.Text
				if c.Finish != nil {
					finish += *c.Finish
				}
			}
			if last = string(r.Usage); r.Chrysalis != nil && len(r.Chrysalis.Receipt) != receipt.Size {
				t.Errorf("proof: %s", document)
			}
		}
		if said != completed || finish != "length" || last != `{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}` ||
			strings.Contains(text, "engine") || strings.Contains(text, "/model/") {
			t.Errorf("got %s", text)
		}
		if a := b.keeper.await(t); a.Response != hash.Sum() || a.Outcome != receipt.Complete || a.Usage != (receipt.Usage{Prompt: 9, Completion: 4}) {
			t.Errorf("recorded: %+v", a)
		}
	}
	for _, body := range []string{requests[api.Completions] + "}", requests[api.Completions] + `,"stream":true}`} {
		streamed := strings.Contains(body, "stream")
		b := startBench(t, nil)
		b.engine.set(completingEngine)
		status, text := postTo(t, b, api.Completions, body)
		if status != 200 {
			t.Fatalf("status %d: %s", status, text)
		}
		read(t, b, text, streamed)
		s := startSealed(t, nil)
		s.engine.set(completingEngine)
		opened, text, err := s.exchange(t, s.sealAs(t, envelope.Request{Method: "POST", Path: api.Completions, Body: []byte(body), Header: []envelope.Field{
			{Name: "chrysalis-client", Value: testClient}, {Name: "content-type", Value: "application/json"}}}))
		if err != nil || opened.Status != 200 {
			t.Fatalf("sealed: %v, status %d: %s", err, opened.Status, text)
		}
		read(t, s.bench, text, streamed)
	}
}

// TestCompletionsCut: a stream that the engine ends early has an error, the proof of what was said, and no end that looks whole.
func TestCompletionsCut(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) { w.goesOn("half"); w.conn() })
	_, stream := postTo(t, b, api.Completions, requests[api.Completions]+`,"stream":true}`)
	if !strings.Contains(stream, `"code":"engine_lost"`) || !strings.Contains(stream, `"chrysalis"`) || strings.Contains(stream, "[DONE]") {
		t.Errorf("got %s", stream)
	}
	if a := b.keeper.await(t); a.Outcome != receipt.Cut || a.Usage.Completion != 1 {
		t.Errorf("recorded %+v, want it cut after one token", a)
	}
}
