package gateway

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// chatFields are those of /v1/chat/completions.
var chatFields = slices.Concat([]field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"messages", taken, nil, "1 to 1024 messages"},
	{"max_tokens", taken, whole(1, 1<<32-1), "a whole number from 1, cut to the measured limit"},
	{"max_completion_tokens", taken, whole(1, 1<<32-1), "the newer name of max_tokens: one of both"},
	{"stream", taken, boolean, "true or false: an answer in events"},
	{"stream_options", taken, streamOptions, "with stream alone; include_usage, include_obfuscation: the last event carries usage in any case"},
	{"n", taken, whole(1, 1), "1: one answer a request"},
}, sampling, []field{
	{"logprobs", passed, boolean, "true or false: each token's probability"},
	{"top_logprobs", passed, whole(0, 20), "a whole number from 0 to 20, with logprobs alone"},
	{"response_format", passed, short(maxSchemaBytes, either(
		shaped(must("type", oneOf("text", "json_object"))),
		shaped(must("type", oneOf("json_schema")), must("json_schema", function(must("schema", anObject)))))),
		`an object of type "text", "json_object", or "json_schema" with a name and a schema of up to 64 KiB`},
	{"tools", passed, short(maxSchemaBytes, listed(maxTools,
		shaped(must("type", oneOf("function")), must("function", function(may("parameters", anObject)))))),
		`up to 128 {"type": "function", "function": {"name", "description", "parameters", "strict"}}, of up to 64 KiB together`},
	{"tool_choice", passed, either(oneOf("none", "auto", "required"),
		shaped(must("type", oneOf("function")), must("function", shaped(must("name", functionName))))),
		`"none", "auto", "required", or {"type": "function", "function": {"name"}}`},
	{"parallel_tool_calls", passed, boolean, "true or false: several calls in one answer"},
	{"audio", refused, nil, "answers are text"},
	{"chat_template", refused, nil, "the model's own is the one that is measured"},
	{"chat_template_kwargs", refused, nil, "the model's own template is the one that is measured"},
	{"function_call", refused, nil, "superseded: use tool_choice"},
	{"functions", refused, nil, "superseded: use tools"},
	{"web_search_options", refused, nil, "nothing in this guest reaches a network"},
}, engineOwn, []field{
	{"chat_id", ignored, nil, "Open WebUI's"},
	{"metadata", ignored, nil, ""},
	{"modalities", ignored, nil, "answers are text"},
	{"prediction", ignored, nil, ""},
	{"prompt_cache_key", ignored, nil, ""},
	{"prompt_cache_retention", ignored, nil, ""},
	{"reasoning_effort", ignored, nil, ""},
	{"safety_identifier", ignored, nil, ""},
	{"service_tier", ignored, nil, ""},
	{"session_id", ignored, nil, "Open WebUI's"},
	{"store", ignored, nil, "nothing is stored"},
	{"user", ignored, nil, ""},
	{"verbosity", ignored, nil, ""},
})

// sampling is how the engine picks tokens.
var sampling = []field{
	{"temperature", passed, number(0, 2), "a number from 0 to 2"},
	{"top_p", passed, aboveZero(number(0, 1)), "a number above 0, to 1"},
	{"top_k", passed, whole(0, 1<<16), "a whole number from 0 to 65536"},
	{"min_p", passed, number(0, 1), "a number from 0 to 1"},
	{"seed", passed, whole(0, 1<<32-1), "a whole number from 0 to 4294967295"},
	{"stop", passed, either(text(maxStopBytes), stopList), "a text or up to 32 of them, of 256 bytes each"},
	{"frequency_penalty", passed, number(-2, 2), "a number from -2 to 2"},
	{"presence_penalty", passed, number(-2, 2), "a number from -2 to 2"},
	{"logit_bias", passed, keyed(maxBias, isTokenID, number(-100, 100)), "an object of up to 300 token ids, each with -100 to 100"},
}

// engineOwn are settings of the engine that no client has.
var engineOwn = []field{
	{"cache_prompt", refused, nil, "it reaches the engine's cache: another's prompt could be told from its time"},
	{"cache_salt", refused, nil, "it reaches the engine's cache"},
	{"grammar", refused, nil, "use response_format of /v1/chat/completions"},
	{"id_slot", refused, nil, "it names a place in the engine that may hold another client's state"},
	{"json_schema", refused, nil, "use response_format of /v1/chat/completions"},
	{"lora", refused, nil, "the model is the one that is measured"},
	{"n_keep", refused, nil, "it reaches the engine's context"},
}

// streamOptions judges what else a stream may be.
var streamOptions = shaped(may("include_usage", boolean), may("include_obfuscation", boolean))

// stopList judges a list of texts that end an answer.
var stopList = listed(maxStops, text(maxStopBytes))

// chatMessageFields are those of a message there.
var chatMessageFields = []field{
	{"role", taken, oneOf("system", "developer", "user", "assistant", "tool"), "system, developer (the same), user, assistant, tool"},
	{"content", taken, nil, "a text, or a list of parts of type text; none where an assistant called tools"},
	{"reasoning_content", taken, text(maxTextBytes), "an assistant's text, as it came"},
	{"tool_calls", taken, listed(maxTools, shaped(must("id", text(maxIDBytes)), must("type", oneOf("function")),
		may("index", whole(0, maxTools)), must("function", shaped(must("name", functionName), must("arguments", anyText))))),
		`an assistant's, as they came: up to 128 {"id", "type": "function", "function": {"name", "arguments"}}`},
	{"tool_call_id", taken, text(maxIDBytes), "a tool's: which call it answers, up to 128 bytes"},
	{"audio", refused, nil, "this model takes text"},
	{"function_call", refused, nil, "superseded: use tool_calls"},
	{"annotations", ignored, nil, ""},
	{"name", ignored, nil, ""},
	{"parsed", ignored, nil, "what OpenAI's SDK adds to an answer"},
	{"refusal", ignored, nil, ""},
}

// buildChat is /v1/chat/completions.
func buildChat(p *parsing, r *request) error {
	tokens := "max_tokens"
	if p.of("max_completion_tokens") != nil {
		if p.of(tokens) != nil {
			return refuse("max_tokens", "max_tokens and max_completion_tokens are given both")
		}
		tokens = "max_completion_tokens"
	}
	if p.of("stream_options") != nil && !r.stream {
		return refuse("stream_options", "stream_options is given without stream")
	}
	if p.of("top_logprobs") != nil && p.of("logprobs").Kind() != 't' {
		return refuse("top_logprobs", "top_logprobs is given without logprobs")
	}
	if err := p.with("tools", "tool_choice", "parallel_tool_calls"); err != nil {
		return err
	}
	c := newConversation(p, r)
	if err := c.elements("messages", "message", chatMessageFields, c.chatMessage); err != nil {
		return err
	}
	c.b = append(c.b, ']')
	return c.end(r, tokens)
}

// chatMessage adds one message.
func (c *conversation) chatMessage(i int, m sorted) error {
	role, content, calls, call := word(m.of("role")), m.of("content"), m.of("tool_calls"), m.of("tool_call_id")
	switch {
	case role == "":
		return refuse("messages", "message %d has no role, want %s", i, m.fields[0].says)
	case calls != nil && role != "assistant":
		return refuse("tool_calls", "message %d calls tools as %s, want assistant", i, role)
	case m.of("reasoning_content") != nil && role != "assistant":
		return refuse("reasoning_content", "message %d has reasoning as %s, want assistant", i, role)
	case (call != nil) != (role == "tool"):
		return refuse("tool_call_id", "message %d: a tool's message has a tool_call_id, and no other has", i)
	case content == nil && calls == nil:
		return refuse("messages", "message %d has no content", i)
	}
	if role == "developer" {
		role = "system"
	}
	c.begin(role)
	c.b = append(c.b, `,"content":`...)
	if content.Kind() == jsontext.KindInvalid {
		c.b = append(c.b, "null"...)
	} else if err := c.texts("messages", numbered("message", i), content, "text"); err != nil {
		return err
	}
	for _, name := range []string{"reasoning_content", "tool_calls", "tool_call_id"} {
		if v := m.of(name); v != nil {
			c.b = appendMember(c.b, name, v)
		}
	}
	c.b = append(c.b, '}')
	return nil
}
