package gateway

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// messagesFields are those of /v1/messages, Anthropic's form.
var messagesFields = []field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"messages", taken, nil, "1 to 1024 messages"},
	{"max_tokens", taken, whole(1, 1<<32-1), "1 and up, cut to the measured limit"},
	{"system", taken, nil, "a text, or a list of blocks of type text"},
	{"stream", taken, boolean, "answer in events"},
	{"stop_sequences", taken, stopList, "up to 4 texts of 256 bytes each"},
	{"tools", taken, blockTools, `up to 128 {"name", "description", "input_schema"}, of up to 64 KiB together`},
	{"tool_choice", taken, blockToolChoice, `{"type": "auto"}, of type "any" or "none", or {"type": "tool", "name"}`},
	{"temperature", passed, number(0, 1), "0 to 1"},
	{"top_p", passed, above(number(0, 1)), "above 0, to 1"},
	{"top_k", passed, whole(0, 1<<16), "0 to 65536"},
	{"container", refused, nil, "nothing is kept here"},
	{"mcp_servers", refused, nil, "nothing in this guest reaches a network"},
	{"betas", ignored, nil, ""},
	{"cache_control", ignored, nil, "no prompt is kept"},
	{"context_management", ignored, nil, "nothing is cut: a conversation that is too long is refused"},
	{"metadata", ignored, nil, ""},
	{"output_config", ignored, nil, ""},
	{"service_tier", ignored, nil, ""},
	{"thinking", ignored, nil, ""},
}

// blockFields are those of a block of a message's content.
var blockFields = []field{
	{"type", taken, oneOf("text", "tool_use", "tool_result", "thinking", "redacted_thinking"), "text, tool_use, tool_result; thinking is left out"},
	{"text", taken, text(1 << 24), "a text's"},
	{"id", taken, text(128), "a tool_use's"},
	{"name", taken, functionNamed, "a tool_use's"},
	{"input", taken, func(v jsontext.Value) string {
		if v.Kind() == '{' {
			return ""
		}
		return "an object"
	}, "a tool_use's"},
	{"tool_use_id", taken, text(128), "a tool_result's"},
	{"content", taken, nil, "a tool_result's: a text, or a list of blocks of type text"},
	{"cache_control", ignored, nil, "no prompt is kept"},
	{"caller", ignored, nil, ""},
	{"citations", ignored, nil, ""},
	{"data", ignored, nil, ""},
	{"is_error", ignored, nil, "a tool's text says it"},
	{"signature", ignored, nil, ""},
	{"thinking", ignored, nil, ""},
}

func functionNamed(v jsontext.Value) string {
	if functionName(v) {
		return ""
	}
	return "a function's name"
}

func stopList(v jsontext.Value) string {
	if v.Kind() == '[' {
		return stops(v)
	}
	return fmt.Sprintf("a list of up to %d texts, of %d bytes each", maxStops, maxStopBytes)
}

func blockTools(v jsontext.Value) string {
	n, ok := 0, v.Kind() == '[' && len(v) <= maxSchemaBytes
	array(v, func(v jsontext.Value) {
		n++
		named, schema := false, false
		ok = ok && shape(v, "no", func(name string, v jsontext.Value) bool {
			switch name {
			case "name":
				named = functionName(v)
				return named
			case "input_schema":
				schema = true
				return v.Kind() == '{'
			case "type":
				return v.Kind() == 'n' || word(v) == "custom"
			case "description":
				return v.Kind() == '"' || v.Kind() == 'n'
			case "cache_control":
				return v.Kind() == '{' || v.Kind() == 'n'
			}
			return false
		}) == "" && named && schema
	})
	if ok && n <= maxTools {
		return ""
	}
	return fmt.Sprintf(`a list of up to %d {"name", "description", "input_schema"}, of %d bytes together`, maxTools, maxSchemaBytes)
}

// choiceKinds are the kinds of tool_choice, as the engine has them.
var choiceKinds = map[string]string{"auto": "auto", "any": "required", "none": "none", "tool": ""}

func blockToolChoice(v jsontext.Value) string {
	kind, named := "", false
	if w := shape(v, "no", func(name string, v jsontext.Value) bool {
		switch name {
		case "type":
			kind = word(v)
			_, ok := choiceKinds[kind]
			return ok
		case "name":
			named = functionName(v)
			return named
		case "disable_parallel_tool_use":
			return boolean(v) == ""
		}
		return false
	}); w != "" || kind == "" || named != (kind == "tool") {
		return `{"type": "auto"}, of type "any" or "none", or {"type": "tool", "name"}`
	}
	return ""
}

// buildMessages is /v1/messages.
func buildMessages(p *parsing, r *request) (err error) {
	if p.value("max_tokens") == nil {
		return refuse("max_tokens", "the field max_tokens is missing: want a whole number from 1")
	}
	if err := p.with("tools", "tool_choice"); err != nil {
		return err
	}
	c := conversation{b: append(r.ask, `{"messages":[`...)}
	if system := p.value("system"); system != nil {
		c.begin("system")
		if c.b, err = blocksOfText(append(c.b, `,"content":`...), "system", system); err != nil {
			r.ask = c.b
			return err
		}
		c.b = append(c.b, '}')
	}
	err = c.turns(p, p.value("messages"))
	b := append(c.b, ']')
	if err != nil {
		r.ask = b
		return err
	}
	if tools := p.value("tools"); tools != nil {
		b = append(b, `,"tools":[`...)
		n := 0
		array(tools, func(v jsontext.Value) {
			if n++; n > 1 {
				b = append(b, ',')
			}
			b = append(b, `{"type":"function","function":{`...)
			object(v, func(name string, v jsontext.Value) {
				switch {
				case name == "name":
					b = append(append(b, `"name":`...), v...)
				case v.Kind() == 'n':
					return
				case name == "description":
					b = append(append(b, `"description":`...), v...)
				case name == "input_schema":
					b = append(append(b, `"parameters":`...), v...)
				default:
					return
				}
				b = append(b, ',')
			})
			b = append(b[:len(b)-1], "}}"...)
		})
		b = append(b, ']')
	}
	if choice := p.value("tool_choice"); choice != nil {
		kind, named, alone := "", jsontext.Value(nil), false
		object(choice, func(name string, v jsontext.Value) {
			switch name {
			case "type":
				kind = word(v)
			case "name":
				named = v
			case "disable_parallel_tool_use":
				alone = v.Kind() == 't'
			}
		})
		if named != nil {
			b = append(append(append(b, `,"tool_choice":{"type":"function","function":{"name":`...), named...), "}}"...)
		} else {
			b = append(append(append(b, `,"tool_choice":"`...), choiceKinds[kind]...), '"')
		}
		if alone {
			b = append(b, `,"parallel_tool_calls":false`...)
		}
	}
	if stop := p.value("stop_sequences"); stop != nil {
		b = member(b, "stop", stop)
	}
	r.ask = p.settings(b, p.value("max_tokens"))
	return nil
}

// blocksOfText writes a text, or a list of blocks of text, as the engine has it.
func blocksOfText(b []byte, of string, v jsontext.Value) (_ []byte, err error) {
	switch v.Kind() {
	case '"':
		return append(b, v...), nil
	case '[':
		return parts(b, of, of, v, "text")
	}
	return b, refuse(of, "%s is a JSON %s, want a text or a list of blocks of type text", of, v.Kind())
}

// turns adds the messages.
func (c *conversation) turns(p *parsing, list jsontext.Value) (err error) {
	if list.Kind() != '[' {
		return refuse("messages", "messages is a JSON %s, want a list", list.Kind())
	}
	n := 0
	array(list, func(v jsontext.Value) {
		if n++; err != nil || n > maxMessages {
			return
		}
		role, content, other := "", jsontext.Value(nil), v.Kind() != '{'
		shape(v, "", func(name string, v jsontext.Value) bool {
			switch name {
			case "role":
				role = word(v)
			case "content":
				content = v
			default:
				other = true
			}
			return true
		})
		switch {
		case other || role != "user" && role != "assistant":
			err = refuse("messages", `message %d: want {"role": "user" or "assistant", "content"}`, n-1)
		case content.Kind() == '"':
			c.says(role, content)
		case content.Kind() == '[':
			err = c.turn(p, n-1, role, content)
		default:
			err = refuse("messages", "content of message %d is a JSON %s, want a text or a list of blocks", n-1, content.Kind())
		}
	})
	if err == nil && (n == 0 || n > maxMessages) {
		err = refuse("messages", "%d messages, want 1 to %d", n, maxMessages)
	}
	return err
}

// blockKinds are the members that a block of each type has.
var blockKinds = map[string][]string{
	"text": {"text"}, "tool_use": {"id", "name", "input"}, "tool_result": {"tool_use_id", "content"},
	"thinking": nil, "redacted_thinking": nil,
}

// block is one block of a turn.
type block struct {
	kind   string
	values []jsontext.Value
}

func (b block) of(name string) jsontext.Value { return valueOf(blockFields, b.values, name) }

// turn adds a message of blocks: first the results of tools, each as a message of its own, then what was said with the calls of tools.
func (c *conversation) turn(p *parsing, i int, role string, list jsontext.Value) (err error) {
	var blocks []block
	array(list, func(v jsontext.Value) {
		if err != nil {
			return
		}
		b := block{values: make([]jsontext.Value, len(blockFields))}
		if v.Kind() != '{' {
			err = refuse("messages", "a block of message %d is a JSON %s, want an object", i, v.Kind())
			return
		}
		if err = p.sort(blockFields, v, "messages.content.", b.values); err != nil {
			return
		}
		b.kind = word(b.of("type"))
		members, known := blockKinds[b.kind]
		for _, row := range blockFields {
			if row.does == taken && row.name != "type" && slices.Contains(members, row.name) != (b.of(row.name) != nil) &&
				!(b.kind == "tool_result" && row.name == "content") { // a tool may have had nothing to say
				known = false
			}
		}
		if !known || b.kind == "tool_use" && role != "assistant" || b.kind == "tool_result" && role != "user" {
			err = refuse("messages", "a block of type %q of message %d of role %s: want %q, all of them and no other, and tool_use of an assistant, tool_result of a user",
				b.kind, i, role, members)
			return
		}
		blocks = append(blocks, b)
	})
	if err != nil {
		return err
	}
	said, calls := 0, 0
	for _, b := range blocks {
		switch b.kind {
		case "text":
			said++
		case "tool_use":
			calls++
		case "tool_result":
			c.begin("tool")
			c.b = append(c.b, `,"content":`...)
			if content := b.of("content"); content == nil {
				c.b = append(c.b, `""`...)
			} else if c.b, err = blocksOfText(c.b, "messages", content); err != nil {
				return err
			}
			c.b = append(member(c.b, "tool_call_id", b.of("tool_use_id")), '}')
		}
	}
	if said == 0 && calls == 0 {
		if len(blocks) == 0 {
			return refuse("messages", "content of message %d has no blocks", i)
		}
		return nil
	}
	c.begin(role)
	c.b = append(c.b, `,"content":`...)
	if said == 0 {
		c.b = append(c.b, "null"...)
	} else {
		c.list(blocks, "text", func(b block) {
			c.b = append(append(append(c.b, `{"type":"text","text":`...), b.of("text")...), '}')
		})
	}
	if calls > 0 {
		c.b = append(c.b, `,"tool_calls":`...)
		c.list(blocks, "tool_use", func(b block) {
			c.b = append(append(c.b, `{"id":`...), b.of("id")...)
			c.b = append(append(c.b, `,"type":"function","function":{"name":`...), b.of("name")...)
			c.b = append(quote(append(c.b, `,"arguments":`...), b.of("input")), "}}"...)
		})
	}
	c.b = append(c.b, '}')
	return nil
}

// list writes the blocks of a kind as a list.
func (c *conversation) list(blocks []block, kind string, write func(block)) {
	c.b = append(c.b, '[')
	first := true
	for _, b := range blocks {
		if b.kind != kind {
			continue
		}
		if !first {
			c.b = append(c.b, ',')
		}
		first = false
		write(b)
	}
	c.b = append(c.b, ']')
}

// messagesJSON writes an answer as the Messages API has it: blocks, each opened, filled and closed.
type messagesJSON struct {
	head  []byte // members that the message begins with
	event []byte
	begun bool
	open  string // kind of the block that is filled, "" before the first
	call  int    // which call
	n     int    // blocks so far
	said  *said
}

func newMessagesJSON(id [16]byte, _ time.Time, model string, said *said) answerWriter {
	head := `"id":"msg_` + hex.EncodeToString(id[:]) + `","type":"message","role":"assistant","model":`
	return &messagesJSON{head: quote([]byte(head), model), event: make([]byte, 0, 4096), said: said}
}

// room makes room for events with n bytes of text in them.
func (j *messagesJSON) room(n int) []byte {
	if want := 4096 + 6*n; cap(j.event) < want { // grown by hand: what append leaves behind would not be wiped
		j.wipe()
		j.event = make([]byte, 0, want)
	}
	return j.event[:0]
}

func beginMessageEvent(b []byte, kind string) []byte {
	return append(append(append(append(append(b, "event: "...), kind...), "\ndata: {\"type\":\""...), kind...), '"')
}

func (j *messagesJSON) started(b []byte) []byte {
	if j.begun {
		return b
	}
	j.begun = true
	b = append(append(beginMessageEvent(b, "message_start"), `,"message":{`...), j.head...)
	return append(b, `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}`+"\n\n"...)
}

// enter makes a block the one that is filled.
func (j *messagesJSON) enter(b []byte, kind string, call int) []byte {
	if j.open == kind && j.call == call {
		return b
	}
	b = j.leave(b)
	j.open, j.call = kind, call
	b = strconv.AppendInt(append(beginMessageEvent(b, "content_block_start"), `,"index":`...), int64(j.n), 10)
	b = append(b, `,"content_block":`...)
	switch kind {
	case "thinking":
		b = append(b, `{"type":"thinking","thinking":"","signature":""}`...)
	case "text":
		b = append(b, `{"type":"text","text":""}`...)
	default:
		c := j.said.calls[call]
		b = append(append(b, `{"type":"tool_use","id":`...), c.id...)
		b = append(append(append(b, `,"name":`...), c.name...), `,"input":{}}`...)
	}
	j.n++
	return append(b, "}\n\n"...)
}

func (j *messagesJSON) leave(b []byte) []byte {
	if j.open == "" {
		return b
	}
	b = strconv.AppendInt(append(beginMessageEvent(b, "content_block_stop"), `,"index":`...), int64(j.n-1), 10)
	return append(b, "}\n\n"...)
}

func (j *messagesJSON) delta(b []byte, kind, name string, v jsontext.Value) []byte {
	b = strconv.AppendInt(append(beginMessageEvent(b, "content_block_delta"), `,"index":`...), int64(j.n-1), 10)
	b = append(append(append(b, `,"delta":{"type":"`...), kind...), `","`...)
	b = append(append(append(b, name...), `":`...), v...)
	return append(b, "}}\n\n"...)
}

func (j *messagesJSON) chunk(p piece) []byte {
	b := j.started(j.room(p.size))
	if isText(p.thought) {
		b = j.delta(j.enter(b, "thinking", 0), "thinking_delta", "thinking", p.thought)
	}
	if isText(p.text) {
		b = j.delta(j.enter(b, "text", 0), "text_delta", "text", p.text)
	}
	for _, c := range p.calls {
		b = j.enter(b, "tool_use", int(c.Index))
		if isText(c.Function.Arguments) {
			b = j.delta(b, "input_json_delta", "partial_json", c.Function.Arguments)
		}
	}
	j.event = b
	return b
}

// stopReason is the reason for which an answer ended, in this form's words.
func stopReason(finish string) string {
	switch finish {
	case "length":
		return "max_tokens"
	case "tool_calls":
		return "tool_use"
	}
	return "end_turn"
}

func messagesUsage(u receipt.Usage) string {
	// The prompt's tokens are told without those that came from a cache.
	return fmt.Sprintf(`{"input_tokens":%d,"cache_read_input_tokens":%d,"output_tokens":%d}`, u.Prompt-u.Cached, u.Cached, u.Completion)
}

func (j *messagesJSON) end(u receipt.Usage, p receipt.Proof) []byte {
	b := j.leave(j.started(j.room(0)))
	b = append(append(beginMessageEvent(b, "message_delta"), `,"delta":{"stop_reason":"`...), stopReason(j.said.finish)...)
	b = append(append(b, `","stop_sequence":null},"usage":`...), messagesUsage(u)...)
	b = append(appendProof(b, p), "}\n\n"...)
	j.event = append(beginMessageEvent(b, "message_stop"), "}\n\n"...)
	return j.event
}

func (j *messagesJSON) failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte {
	b := append(append(beginMessageEvent(j.room(0), "error"), `,"error":`...), why.object(id)...)
	if p != nil {
		b = appendProof(append(append(b, `,"usage":`...), messagesUsage(u)...), *p)
	}
	j.event = append(b, "}\n\n"...)
	return j.event
}

func (j *messagesJSON) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	size := 4096 + 6*(len(s.thoughts)+len(s.content))
	for _, c := range s.calls {
		size += 512 + 6*len(c.arguments)
	}
	b := append(append(append(make([]byte, 0, size), '{'), j.head...), `,"content":[`...)
	comma := func() {
		if b[len(b)-1] != '[' {
			b = append(b, ',')
		}
	}
	if len(s.thoughts) > 0 {
		b = append(quote(append(b, `{"type":"thinking","thinking":`...), s.thoughts), `,"signature":""}`...)
	}
	if len(s.content) > 0 || len(s.calls) == 0 {
		comma()
		b = append(quote(append(b, `{"type":"text","text":`...), s.content), '}')
	}
	for _, c := range s.calls {
		comma()
		b = append(append(b, `{"type":"tool_use","id":`...), c.id...)
		b = append(append(append(b, `,"name":`...), c.name...), `,"input":`...)
		if v := jsontext.Value(c.arguments); v.IsValid() && v.Kind() == '{' {
			b = append(b, v...)
		} else { // what the model wrote is no object, as where it was cut
			b = append(quote(append(b, `{"arguments":`...), c.arguments), '}')
		}
		b = append(b, '}')
	}
	b = append(append(b, `],"stop_reason":"`...), stopReason(s.finish)...)
	b = append(append(b, `","stop_sequence":null,"usage":`...), messagesUsage(u)...)
	return append(appendProof(b, p), "}\n"...)
}

func (j *messagesJSON) wipe() { clear(j.event[:cap(j.event)]) }
