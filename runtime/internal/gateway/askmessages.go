package gateway

import (
	"github.com/go-json-experiment/json/jsontext"
)

// messagesFields are those of /v1/messages, Anthropic's form.
var messagesFields = []field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"messages", taken, nil, "1 to 1024 messages"},
	{"max_tokens", taken, whole(1, 1<<32-1), "a whole number from 1, cut to the measured limit"},
	{"system", taken, nil, "a text, or a list of blocks of type text"},
	{"stream", taken, boolean, "true or false: an answer in events"},
	{"stop_sequences", taken, stopList, "up to 32 texts of 256 bytes each"},
	{"tools", taken, short(maxSchemaBytes, listed(maxTools, shaped(must("name", functionName), must("input_schema", anObject),
		may("type", orNull(oneOf("custom"))), may("description", orNull(anyText)), may("cache_control", orNull(anObject))))),
		`up to 128 {"name", "description", "input_schema"}, of up to 64 KiB together`},
	{"tool_choice", taken, either(
		shaped(must("type", oneOf("auto", "any", "none")), may("disable_parallel_tool_use", boolean)),
		shaped(must("type", oneOf("tool")), must("name", functionName), may("disable_parallel_tool_use", boolean))),
		`{"type": "auto"}, of type "any" or "none", or {"type": "tool", "name"}`},
	{"temperature", passed, number(0, 1), "a number from 0 to 1"},
	{"top_p", passed, aboveZero(number(0, 1)), "a number above 0, to 1"},
	{"top_k", passed, whole(0, 1<<16), "a whole number from 0 to 65536"},
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

// turnFields are those of a message there.
var turnFields = []field{
	{"role", taken, oneOf("user", "assistant"), "user, assistant"},
	{"content", taken, nil, "a text, or a list of blocks"},
}

// blockFields are those of a block of a message's content.
var blockFields = []field{
	{"type", taken, oneOf("text", "tool_use", "tool_result", "thinking", "redacted_thinking"),
		"text, tool_use, tool_result; thinking and redacted_thinking are left out"},
	{"text", taken, text(maxTextBytes), "a text's: a text"},
	{"id", taken, text(maxIDBytes), "a tool_use's: up to 128 bytes"},
	{"name", taken, functionName, "a tool_use's: a function's name"},
	{"input", taken, anObject, "a tool_use's: an object"},
	{"tool_use_id", taken, text(maxIDBytes), "a tool_result's: up to 128 bytes"},
	{"content", taken, nil, "a tool_result's: a text, or a list of blocks of type text"},
	{"cache_control", ignored, nil, "no prompt is kept"},
	{"caller", ignored, nil, ""},
	{"citations", ignored, nil, ""},
	{"data", ignored, nil, ""},
	{"is_error", ignored, nil, "a tool's text says it"},
	{"signature", ignored, nil, ""},
	{"thinking", ignored, nil, ""},
}

// blockMembers are the members that a block of each type has. A tool may have had nothing to say.
var blockMembers = map[string]members{
	"text":              {must: []string{"text"}},
	"tool_use":          {must: []string{"id", "name", "input"}},
	"tool_result":       {must: []string{"tool_use_id"}, may: []string{"content"}},
	"thinking":          {},
	"redacted_thinking": {},
}

// choices are the types of tool_choice, as the engine has them.
var choices = map[string]string{"auto": `"auto"`, "any": `"required"`, "none": `"none"`}

// buildMessages is /v1/messages.
func buildMessages(p *parsing, r *request) error {
	if p.of("max_tokens") == nil {
		return refuse("max_tokens", "the field max_tokens is missing: want a whole number from 1")
	}
	if err := p.with("tools", "tool_choice"); err != nil {
		return err
	}
	c := newConversation(p, r)
	if system := p.of("system"); system != nil {
		c.begin("system")
		c.b = append(c.b, `,"content":`...)
		if err := c.texts("system", "system", system, "text"); err != nil {
			return err
		}
		c.b = append(c.b, '}')
	}
	if err := c.elements("messages", "message", turnFields, c.turn); err != nil {
		return err
	}
	c.b = append(c.b, ']')
	c.functions(p.of("tools"))
	if choice := p.of("tool_choice"); choice != nil {
		if word := choices[word(at(choice, "type"))]; word != "" {
			c.b = appendMember(c.b, "tool_choice", jsontext.Value(word))
		} else {
			c.choose(choice)
		}
		if at(choice, "disable_parallel_tool_use").Kind() == 't' {
			c.b = append(c.b, `,"parallel_tool_calls":false`...)
		}
	}
	if stop := p.of("stop_sequences"); stop != nil {
		c.b = appendMember(c.b, "stop", stop)
	}
	return c.end(r, "max_tokens")
}

// turn adds a message of a conversation.
func (c *conversation) turn(i int, m sorted) error {
	role, content := word(m.of("role")), m.of("content")
	switch {
	case role == "":
		return refuse("messages", "message %d has no role, want %s", i, m.fields[0].says)
	case content.Kind() == '"':
		c.says(role, content)
		return nil
	case content.Kind() != '[':
		return refuse("messages", "content of message %d is a JSON %s, want a text or a list of blocks", i, content.Kind())
	}
	blocks, err := c.blocks(i, role, content)
	if err != nil {
		return err
	}
	return c.turnOf(role, blocks)
}

// blocks are those of a message by their types, in their order.
func (c *conversation) blocks(i int, role string, list jsontext.Value) (of map[string][]sorted, err error) {
	of = map[string][]sorted{}
	n := 0
	array(list, func(v jsontext.Value) {
		if n++; err != nil {
			return
		}
		if v.Kind() != '{' {
			err = refuse("messages", "a block of message %d is a JSON %s, want an object", i, v.Kind())
			return
		}
		var b sorted
		if b, err = c.sort(blockFields, v, "messages.content."); err != nil {
			return
		}
		kind := word(b.of("type"))
		want, known := blockMembers[kind]
		if !known || !want.are(b) || kind == "tool_use" && role != "assistant" || kind == "tool_result" && role != "user" {
			err = refuse("messages",
				"a block of type %q of message %d of role %s: want %q, all of them and no other, and tool_use of an assistant, tool_result of a user",
				kind, i, role, want.must)
			return
		}
		of[kind] = append(of[kind], b)
	})
	if err == nil && n == 0 {
		err = refuse("messages", "content of message %d has no blocks", i)
	}
	return of, err
}

// turnOf adds a message of blocks: first the results of tools, each as a message of its own, then what was said with the calls of tools.
func (c *conversation) turnOf(role string, blocks map[string][]sorted) error {
	for _, b := range blocks["tool_result"] {
		c.begin("tool")
		c.b = append(c.b, `,"content":`...)
		if content := b.of("content"); content == nil {
			c.b = append(c.b, `""`...)
		} else if err := c.texts("messages", "content of a tool_result", content, "text"); err != nil {
			return err
		}
		c.b = append(appendMember(c.b, "tool_call_id", b.of("tool_use_id")), '}')
	}
	said, calls := blocks["text"], blocks["tool_use"]
	if len(said) == 0 && len(calls) == 0 {
		return nil
	}
	c.begin(role)
	c.b = append(c.b, `,"content":`...)
	if len(said) == 0 {
		c.b = append(c.b, "null"...)
	} else {
		c.b = append(c.b, '[')
		for _, b := range said {
			c.part(b.of("text"))
		}
		c.b = append(c.b, ']')
	}
	if len(calls) > 0 {
		c.b = append(c.b, `,"tool_calls":[`...)
		for _, b := range calls {
			c.call(b.of("id"), b.of("name"), b.of("input"))
		}
		c.b = append(c.b, ']')
	}
	c.b = append(c.b, '}')
	return nil
}
