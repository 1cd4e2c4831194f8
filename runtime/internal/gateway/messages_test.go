package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"chrysalis/runtime/receipt"
)

// TestMessagesAsk compares what the engine gets with the whole of what it must be.
func TestMessagesAsk(t *testing.T) {
	const end = `,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`
	b := startBench(t, nil)
	var want []string
	for _, tt := range [][2]string{
		{`{"model":"tiny","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"metadata":{"user_id":"u"}}`,
			`{"messages":[{"role":"user","content":"hi"}],"max_tokens":5`},
		{`{"model":"tiny","max_tokens":500,"system":[{"type":"text","text":"be","cache_control":{"type":"ephemeral"}}],"temperature":0.5,"top_k":3,
			"stop_sequences":["x"],"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
			{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"text","text":"c"},
				{"type":"tool_use","id":"1","name":"f","input":{"k": "v\\\""}},{"type":"tool_use","id":"2","name":"g","input":{}}]},
			{"role":"user","content":[{"type":"text","text":"d"},{"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"r"}]},
				{"type":"tool_result","tool_use_id":"2","is_error":true}]}]}`,
			`{"messages":[{"role":"system","content":[{"type":"text","text":"be"}]},` +
				`{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},` +
				`{"role":"assistant","content":[{"type":"text","text":"c"}],"tool_calls":[` +
				`{"id":"1","type":"function","function":{"name":"f","arguments":"{\"k\": \"v\\\\\\\"\"}"}},{"id":"2","type":"function","function":{"name":"g","arguments":"{}"}}]},` +
				`{"role":"tool","content":[{"type":"text","text":"r"}],"tool_call_id":"1"},{"role":"tool","content":"","tool_call_id":"2"},` +
				`{"role":"user","content":[{"type":"text","text":"d"}]}],"stop":["x"],"max_tokens":100,"temperature":0.5,"top_k":3`},
		{`{"model":"tiny","max_tokens":5,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{}}]}],
			"tools":[{"name":"f","description":"d","input_schema":{"a":1},"type":"custom"},{"input_schema":{},"name":"g"}],"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true}}`,
			`{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}],` +
				`"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"a":1}}},{"type":"function","function":{"parameters":{},"name":"g"}}],` +
				`"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,"max_tokens":5`},
		{`{"model":"tiny","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"tools":[],"tool_choice":{"type":"any"}}`,
			`{"messages":[{"role":"user","content":"hi"}],"tools":[],"tool_choice":"required","max_tokens":5`},
	} {
		if status, text := postTo(t, b, "/v1/messages", tt[0]); status != 200 {
			t.Fatalf("%s: status %d: %s", tt[0], status, text)
		}
		want = append(want, tt[1]+end)
	}
	if got := b.engine.asked(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the engine was asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMessagesRefuses(t *testing.T) {
	b := startBench(t, nil)
	turn := func(role, blocks string) string {
		return `{"model":"tiny","max_tokens":1,"messages":[{"role":"` + role + `","content":[` + blocks + `]}]}`
	}
	const hi = `{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"hi"}]`
	for _, tt := range []struct{ body, param string }{
		{`{"model":"tiny","messages":[{"role":"user","content":"hi"}]}`, "max_tokens"},
		{`{"model":"tiny","max_tokens":1}`, "messages"},
		{`{"model":"tiny","max_tokens":1,"messages":[]}`, "messages"},
		{`{"model":"tiny","max_tokens":1,"messages":[{"role":"system","content":"hi"}]}`, "role"},
		{`{"model":"tiny","max_tokens":1,"messages":[{"content":"hi"}]}`, "messages"},
		{`{"model":"tiny","max_tokens":1,"messages":["hi"]}`, "messages"},
		{`{"model":"tiny","max_tokens":1,"messages":{}}`, "messages"},
		{`{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":"hi","name":"n"}]}`, "name"},
		{`{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":7}]}`, "messages"},
		{turn("user", ""), "messages"},
		{turn("user", `"x"`), "messages"},
		{turn("user", `{"type":"image","source":{}}`), "type"},
		{turn("user", `{"type":"image"}`), "type"},
		{turn("user", `{"type":"text"}`), "messages"},
		{turn("user", `{"type":"text","text":"x","id":"1"}`), "messages"},
		{turn("user", `{"type":"tool_use","id":"1","name":"f","input":{}}`), "messages"},
		{turn("assistant", `{"type":"tool_result","tool_use_id":"1"}`), "messages"},
		{turn("assistant", `{"type":"tool_use","id":"1","name":"f","input":"{}"}`), "input"},
		{turn("user", `{"type":"tool_result","tool_use_id":"1","content":[{"type":"image"}]}`), "messages"},
		{hi + `,"system":5}`, "system"},
		{hi + `,"temperature":1.5}`, "temperature"},
		{hi + `,"stop_sequences":"x"}`, "stop_sequences"},
		{hi + `,"tools":[{"name":"f"}]}`, "tools"},
		{hi + `,"tools":[{"type":"bash_20250124","name":"bash"}]}`, "tools"},
		{hi + `,"tool_choice":{"type":"auto"}}`, "tool_choice"},
		{hi + `,"tools":[],"tool_choice":{"type":"tool"}}`, "tool_choice"},
		{hi + `,"mcp_servers":[]}`, "mcp_servers"},
		{hi + `,"cache_prompt":true}`, "cache_prompt"},
	} {
		status, text := postTo(t, b, "/v1/messages", tt.body)
		if r := parseReply(t, text); status != 400 || r.Error == nil || r.Error.Param == nil || *r.Error.Param != tt.param {
			t.Errorf("%s: status %d: %s, want 400 for %s", tt.body, status, text, tt.param)
		}
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Errorf("the engine was asked %d times, want never", n)
	}
}

func TestMessagesStream(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(spokenEngine)
	_, stream := postTo(t, b, "/v1/messages", `{"model":"tiny","max_tokens":50,"messages":[{"role":"user","content":"hi"}],"stream":true}`)
	var order, kinds []string
	said := map[int]string{}
	var usage, proof string
	for block := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		name, data, _ := strings.Cut(block, "\ndata: ")
		var e struct {
			Type  string
			Index int
			Block struct{ Type, ID, Name string } `json:"content_block"`
			Delta struct {
				Type, Text, Thinking string
				JSON                 string `json:"partial_json"`
				Stop                 string `json:"stop_reason"`
			}
			Usage     json.RawMessage
			Chrysalis *struct{ Receipt []byte }
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil || name != "event: "+e.Type {
			t.Fatalf("%v: %s", err, block)
		}
		if len(order) == 0 || order[len(order)-1] != e.Type {
			order = append(order, e.Type)
		}
		if e.Block.Type != "" {
			kinds = append(kinds, e.Block.Type+e.Block.ID+e.Block.Name)
		}
		said[e.Index] += e.Delta.Text + e.Delta.Thinking + e.Delta.JSON
		if e.Type == "message_delta" {
			usage = e.Delta.Stop + string(e.Usage)
			if e.Chrysalis != nil && len(e.Chrysalis.Receipt) == receipt.Size {
				proof = "proof"
			}
		}
	}
	if got, want := strings.Join(order, " "), "message_start"+strings.Repeat(" content_block_start content_block_delta content_block_stop", 4)+
		" message_delta message_stop"; got != want {
		t.Errorf("events: got\n%s\nwant\n%s", got, want)
	}
	if strings.Join(kinds, " ") != "thinking text tool_usec1look text" || said[0] != `h"m` || said[1] != "Let me see" || said[2] != "{}" || said[3] != " again" {
		t.Errorf("blocks %q say %v", kinds, said)
	}
	if want := `tool_use{"input_tokens":9,"cache_read_input_tokens":0,"output_tokens":7}`; usage != want || proof == "" {
		t.Errorf("the end: got %s %s, want %s and a proof", usage, proof, want)
	}
}

func TestMessagesWhole(t *testing.T) {
	broken := func(w *engineWriter) {
		w.event(`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a"}}]}}]}`)
		w.event(`{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"usage":{"completion_tokens":1,"prompt_tokens":1}}`)
		w.event("[DONE]")
	}
	for name, tt := range map[string]struct {
		engine func(w *engineWriter)
		want   string
	}{
		"all": {spokenEngine, `"content":[{"type":"thinking","thinking":"h\"m","signature":""},{"type":"text","text":"Let me see again"},` +
			`{"type":"tool_use","id":"c1","name":"look","input":{}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":9,`},
		"nothing":    {func(w *engineWriter) { w.begin(1); w.end(1, 1) }, `"content":[{"type":"text","text":""}],"stop_reason":"end_turn"`},
		"a cut call": {broken, `{"type":"tool_use","id":"c","name":"f","input":{"arguments":"{\"a"}}],"stop_reason":"max_tokens"`},
	} {
		b := startBench(t, nil)
		b.engine.set(tt.engine)
		status, text := postTo(t, b, "/v1/messages", `{"model":"tiny","max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`)
		if status != 200 || !json.Valid([]byte(text)) || !strings.Contains(text, tt.want) || !strings.Contains(text, `"chrysalis":{"receipt":"`) {
			t.Errorf("%s: status %d: %s\nwant in it %s", name, status, text, tt.want)
		}
	}
}
