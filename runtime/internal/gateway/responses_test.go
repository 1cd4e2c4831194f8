package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"chrysalis/runtime/receipt"
)

func postTo(t *testing.T, b *bench, path, body string) (int, string) {
	t.Helper()
	r := b.request(t, t.Context(), body)
	r.URL.Path = path
	return b.do(t, r)
}

// TestResponsesAsk compares what the engine gets with the whole of what it must be.
func TestResponsesAsk(t *testing.T) {
	const end = `,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`
	b := startBench(t, nil)
	var want []string
	for _, tt := range [][2]string{
		{`{"model":"tiny","input":"hi","store":true,"background":false}`, `{"messages":[{"role":"user","content":"hi"}],"max_tokens":100`},
		{`{"model":"tiny","instructions":"be","input":[{"role":"developer","content":"dev"},{"type":"message","id":"m","status":"completed","role":"assistant",` +
			`"content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]},{"type":"reasoning","id":"r","summary":[]},` +
			`{"type":"function_call","id":"x","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"o"}],` +
			`"max_output_tokens":7,"temperature":1,"top_p":0.5}`,
			`{"messages":[{"role":"system","content":"be"},{"role":"system","content":"dev"},{"role":"assistant","content":[{"type":"text","text":"a"}]},` +
				`{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
				`{"role":"tool","content":"o","tool_call_id":"c"}],"max_tokens":7,"temperature":1,"top_p":0.5`},
		{`{"model":"tiny","input":"x","tools":[{"type":"function","name":"f","description":null,"parameters":{"a":1},"strict":true},{"name":"g","type":"function"}],` +
			`"tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":true,"text":{"format":{"type":"json_schema","name":"s","schema":{},"strict":true},"verbosity":"low"}}`,
			`{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"a":1},"strict":true}},` +
				`{"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"function","function":{"name":"f"}},` +
				`"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{},"strict":true}},"max_tokens":100,"parallel_tool_calls":true`},
		{`{"model":"tiny","input":"x","tools":[],"tool_choice":"auto","text":{"format":{"type":"json_object"}}}`,
			`{"messages":[{"role":"user","content":"x"}],"tools":[],"tool_choice":"auto","response_format":{"type":"json_object"},"max_tokens":100`},
	} {
		if status, text := postTo(t, b, "/v1/responses", tt[0]); status != 200 {
			t.Fatalf("%s: status %d: %s", tt[0], status, text)
		}
		want = append(want, tt[1]+end)
	}
	if got := b.engine.asked(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the engine was asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestResponsesRefuses(t *testing.T) {
	b := startBench(t, nil)
	for _, tt := range []struct{ body, param string }{
		{`{"model":"tiny"}`, "input"},
		{`{"model":"tiny","input":[]}`, "input"},
		{`{"model":"tiny","input":5}`, "input"},
		{`{"model":"tiny","input":["x"]}`, "input"},
		{`{"model":"tiny","input":[{"type":"reasoning"}]}`, "input"},
		{`{"model":"tiny","input":[{"role":"user"}]}`, "input"},
		{`{"model":"tiny","input":[{"role":"user","content":"x","call_id":"c"}]}`, "input"},
		{`{"model":"tiny","input":[{"role":"tool","content":"x"}]}`, "role"},
		{`{"model":"tiny","input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}]}`, "messages"},
		{`{"model":"tiny","input":[{"role":"user","content":[{"type":"text","text":"x"}]}]}`, "messages"},
		{`{"model":"tiny","input":[{"type":"function_call","call_id":"c","name":"f"}]}`, "input"},
		{`{"model":"tiny","input":[{"type":"function_call_output","call_id":"c","output":["x"]}]}`, "output"},
		{`{"model":"tiny","input":[{"type":"item_reference","id":"x"}]}`, "type"},
		{`{"model":"tiny","input":"x","previous_response_id":"resp_1"}`, "previous_response_id"},
		{`{"model":"tiny","input":"x","background":true}`, "background"},
		{`{"model":"tiny","input":"x","tools":[{"type":"web_search"}]}`, "tools"},
		{`{"model":"tiny","input":"x","tools":[{"type":"function","name":"f","cache":1}]}`, "tools"},
		{`{"model":"tiny","input":"x","tools":[{"type":"function","function":{"name":"f"}}]}`, "tools"},
		{`{"model":"tiny","input":"x","tool_choice":"auto"}`, "tool_choice"},
		{`{"model":"tiny","input":"x","text":{"format":{"type":"grammar"}}}`, "text"},
		{`{"model":"tiny","input":"x","text":{"format":{"type":"json_schema","name":"s"}}}`, "text"},
		{`{"model":"tiny","input":"x","messages":[]}`, "messages"},
		{`{"model":"tiny","input":"x","cache_prompt":true}`, "cache_prompt"},
	} {
		status, text := postTo(t, b, "/v1/responses", tt.body)
		if r := parseReply(t, text); status != 400 || r.Error == nil || r.Error.Param == nil || *r.Error.Param != tt.param {
			t.Errorf("%s: status %d: %s, want 400 for %s", tt.body, status, text, tt.param)
		}
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Errorf("the engine was asked %d times, want never", n)
	}
}

// spokenEngine thinks, speaks, calls, and speaks again.
func spokenEngine(w *engineWriter) {
	w.begin(9)
	w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"reasoning_content":"h\"m"}}]}`)
	w.text("Let me ")
	w.text("see")
	w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{"}}]}}]}`)
	w.event(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}`)
	w.text(" again")
	w.event(`{"choices":[{"finish_reason":"tool_calls","index":0,"delta":{}}]}`)
	w.event(`{"choices":[],"usage":{"completion_tokens":7,"prompt_tokens":9,"completion_tokens_details":{"reasoning_tokens":2}}}`)
	w.event("[DONE]")
}

// TestResponsesStream reads a stream as a client does: by its events, each of which it can also rebuild the answer from.
func TestResponsesStream(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(spokenEngine)
	_, stream := postTo(t, b, "/v1/responses", `{"model":"tiny","input":"x","stream":true}`)
	type event struct {
		Type      string
		N         int    `json:"sequence_number"`
		ItemID    string `json:"item_id"`
		Index     int    `json:"output_index"`
		Delta     string
		Text      string
		Arguments string
		Item      json.RawMessage
		Response  struct {
			Status string
			Output []json.RawMessage
			Usage  json.RawMessage
		}
		Chrysalis *struct{ Receipt, Charge []byte }
	}
	var order []string
	deltas, done := map[string]string{}, map[string]string{}
	var last event
	for i, block := range strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		name, data, ok := strings.Cut(block, "\ndata: ")
		var e event
		if err := json.Unmarshal([]byte(data), &e); err != nil || !ok || name != "event: "+e.Type || e.N != i {
			t.Fatalf("event %d: %v: %s", i, err, block)
		}
		if len(order) == 0 || order[len(order)-1] != e.Type {
			order = append(order, e.Type)
		}
		deltas[e.ItemID] += e.Delta
		if e.Text+e.Arguments != "" {
			done[e.ItemID] = e.Text + e.Arguments
		}
		last = e
	}
	want := `response.created response.in_progress
		response.output_item.added response.reasoning_text.delta response.reasoning_text.done response.output_item.done
		response.output_item.added response.content_part.added response.output_text.delta response.output_text.done response.content_part.done response.output_item.done
		response.output_item.added response.function_call_arguments.delta response.function_call_arguments.done response.output_item.done
		response.output_item.added response.content_part.added response.output_text.delta response.output_text.done response.content_part.done response.output_item.done
		response.completed`
	if got := strings.Join(order, " "); got != strings.Join(strings.Fields(want), " ") {
		t.Errorf("events: got\n%s\nwant\n%s", got, want)
	}
	delete(deltas, "")
	if fmt.Sprint(deltas) != fmt.Sprint(done) || len(done) != 4 {
		t.Errorf("the pieces are %v, and the wholes %v", deltas, done)
	}
	if last.Response.Status != "completed" || len(last.Response.Output) != 4 || last.Chrysalis == nil || len(last.Chrysalis.Receipt) != receipt.Size ||
		string(last.Response.Usage) != `{"input_tokens":9,"input_tokens_details":{"cached_tokens":0},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":16}` {
		t.Errorf("the end: %+v", last)
	}
	for i, want := range []string{`"content":[{"type":"reasoning_text","text":"h\"m"}]`, `"text":"Let me see"`, `"call_id":"c1","name":"look","arguments":"{}"`, `"text":" again"`} {
		if !strings.Contains(string(last.Response.Output[i]), want) {
			t.Errorf("item %d: got %s, want %s in it", i, last.Response.Output[i], want)
		}
	}
	hash := receipt.NewResponseHash()
	hash.Reasoning([]byte(`h"m`))
	hash.Content([]byte("Let me see again"))
	hash.Call(0, []byte("c1"), []byte("look"), []byte("{}"))
	if a := b.keeper.await(t); a.Response != hash.Sum() {
		t.Error("the receipt is for something else")
	}
}

func TestResponsesWhole(t *testing.T) {
	for name, tt := range map[string]struct {
		engine func(w *engineWriter)
		want   []string
	}{
		"all":     {spokenEngine, []string{`"status":"completed"`, `"type":"reasoning"`, `"text":"Let me see again"`, `"arguments":"{}"`, `"chrysalis":{"receipt":"`}},
		"nothing": {func(w *engineWriter) { w.begin(1); w.end(1, 1) }, []string{`"output":[{"type":"message","id":"msg_`, `"text":""`}},
		"cut": {func(w *engineWriter) {
			w.text("a")
			w.event(`{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"usage":{"completion_tokens":1,"prompt_tokens":1}}`)
			w.event("[DONE]")
		}, []string{`"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}`}},
	} {
		b := startBench(t, nil)
		b.engine.set(tt.engine)
		status, text := postTo(t, b, "/v1/responses", `{"model":"tiny","input":"x"}`)
		if status != 200 || !json.Valid([]byte(text)) {
			t.Errorf("%s: status %d: %s", name, status, text)
		}
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: got %s, want %s in it", name, text, want)
			}
		}
	}
}

// TestResponsesCut: a stream that the engine ends early has an error, the proof of what was said, and no end that looks whole.
func TestResponsesCut(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) {
		w.begin(3)
		w.text("half")
		w.conn()
	})
	_, stream := postTo(t, b, "/v1/responses", `{"model":"tiny","input":"x","stream":true}`)
	if !strings.Contains(stream, `event: error`) || !strings.Contains(stream, `"code":"engine_lost"`) || !strings.Contains(stream, `"chrysalis"`) ||
		strings.Contains(stream, "response.completed") || strings.Contains(stream, "[DONE]") {
		t.Errorf("got %s", stream)
	}
	if a := b.keeper.await(t); a.Outcome != receipt.Cut {
		t.Errorf("recorded %s, want it cut", a.Outcome)
	}
}
