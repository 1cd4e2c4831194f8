package gateway

// responsesFields are those of /v1/responses, which keeps nothing here: each request brings the whole conversation.
var responsesFields = []field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"input", taken, nil, "a text, or 1 to 1024 items: messages, function_call, function_call_output; reasoning is left out"},
	{"instructions", taken, text(maxTextBytes), "a text: a system message before the input"},
	{"max_output_tokens", taken, whole(1, 1<<32-1), "a whole number from 1, cut to the measured limit"},
	{"stream", taken, boolean, "true or false: an answer in events"},
	{"tools", taken, short(maxSchemaBytes, listed(maxTools, function(must("type", oneOf("function")), may("parameters", orNull(anObject))))),
		`up to 128 {"type": "function", "name", "description", "parameters", "strict"}, of up to 64 KiB together`},
	{"tool_choice", taken, either(oneOf("none", "auto", "required"), shaped(must("type", oneOf("function")), must("name", functionName))),
		`"none", "auto", "required", or {"type": "function", "name"}`},
	{"text", taken, short(maxSchemaBytes, shaped(may("verbosity", orNull(anyText)), may("format", either(
		shaped(must("type", oneOf("text", "json_object")), may("description", orNull(anyText)), may("strict", orNull(boolean))),
		function(must("type", oneOf("json_schema")), must("schema", anObject)))))),
		`{"format": …} of type "text", "json_object", or "json_schema" with a name and a schema of up to 64 KiB`},
	{"temperature", passed, number(0, 2), "a number from 0 to 2"},
	{"top_p", passed, aboveZero(number(0, 1)), "a number above 0, to 1"},
	{"parallel_tool_calls", passed, boolean, "true or false: several calls in one answer"},
	{"background", taken, isFalse, "false: nothing is kept here"},
	{"conversation", refused, nil, "nothing is kept here: send the whole conversation"},
	{"previous_response_id", refused, nil, "nothing is kept here: send the whole conversation"},
	{"prompt", refused, nil, "nothing is kept here: send the text"},
	{"top_logprobs", refused, nil, "use /v1/chat/completions"},
	{"include", ignored, nil, ""},
	{"max_tool_calls", ignored, nil, ""},
	{"metadata", ignored, nil, ""},
	{"prompt_cache_key", ignored, nil, ""},
	{"prompt_cache_retention", ignored, nil, ""},
	{"reasoning", ignored, nil, ""},
	{"safety_identifier", ignored, nil, ""},
	{"service_tier", ignored, nil, ""},
	{"store", ignored, nil, "nothing is stored"},
	{"stream_options", ignored, nil, ""},
	{"truncation", ignored, nil, "nothing is cut: a conversation that is too long is refused"},
	{"user", ignored, nil, ""},
}

// itemFields are those of an item of the input.
var itemFields = []field{
	{"type", taken, oneOf("message", "function_call", "function_call_output", "reasoning"),
		"message (where there is none), function_call, function_call_output, reasoning"},
	{"role", taken, oneOf("system", "developer", "user", "assistant"), "a message's: system, developer (the same), user, assistant"},
	{"content", taken, nil, "a message's: a text, or a list of parts of type input_text or output_text"},
	{"call_id", taken, text(maxIDBytes), "which call, up to 128 bytes"},
	{"name", taken, functionName, "a call's: a function's name"},
	{"arguments", taken, text(maxTextBytes), "a call's: a text"},
	{"output", taken, text(maxTextBytes), "a call's: a text"},
	{"encrypted_content", ignored, nil, ""},
	{"id", ignored, nil, ""},
	{"phase", ignored, nil, ""},
	{"status", ignored, nil, ""},
	{"summary", ignored, nil, ""},
}

// itemMembers are the members that an item of each type has.
var itemMembers = map[string]members{
	"message":              {must: []string{"role", "content"}},
	"function_call":        {must: []string{"call_id", "name", "arguments"}},
	"function_call_output": {must: []string{"call_id", "output"}},
}

// buildResponses is /v1/responses.
func buildResponses(p *parsing, r *request) error {
	if err := p.with("tools", "tool_choice", "parallel_tool_calls"); err != nil {
		return err
	}
	c := newConversation(p, r)
	if v := p.of("instructions"); v != nil {
		c.says("system", v)
	}
	if input := p.of("input"); input.Kind() == '"' {
		c.says("user", input)
	} else if err := c.elements("input", "item", itemFields, c.item); err != nil {
		return err
	}
	if c.n == 0 {
		return refuse("input", "the input has no message")
	}
	c.b = append(c.b, ']')
	c.functions(p.of("tools"))
	if choice := p.of("tool_choice"); choice.Kind() == '"' {
		c.b = appendMember(c.b, "tool_choice", choice)
	} else if choice != nil {
		c.choose(choice)
	}
	if format := at(p.of("text"), "format"); format != nil {
		c.b = appendMember(append(c.b, `,"response_format":{`...), "type", at(format, "type"))
		if at(format, "schema") != nil {
			c.b = appendFunction(append(c.b, `,"json_schema":`...), format)
		}
		c.b = append(c.b, '}')
	}
	return c.end(r, "max_output_tokens")
}

// item adds an item of the input as a message.
func (c *conversation) item(i int, m sorted) error {
	kind := word(m.of("type"))
	switch kind {
	case "reasoning":
		return nil
	case "":
		kind = "message"
	}
	if want := itemMembers[kind]; !want.are(m) {
		return refuse("input", "item %d of type %s: want %q, all of them and no other", i, kind, want.must)
	}
	switch kind {
	case "function_call":
		c.begin("assistant")
		c.b = append(c.b, `,"content":null,"tool_calls":[`...)
		c.call(m.of("call_id"), m.of("name"), m.of("arguments"))
		c.b = append(c.b, "]}"...)
		return nil
	case "function_call_output":
		c.begin("tool")
		c.b = append(appendMember(appendMember(c.b, "content", m.of("output")), "tool_call_id", m.of("call_id")), '}')
		return nil
	}
	role := word(m.of("role"))
	if role == "developer" {
		role = "system"
	}
	c.begin(role)
	c.b = append(c.b, `,"content":`...)
	err := c.texts("input", numbered("item", i), m.of("content"), "input_text", "output_text")
	c.b = append(c.b, '}')
	return err
}
