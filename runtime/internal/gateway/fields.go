package gateway

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// treatment is what becomes of a field.
type treatment uint8

const (
	unknown treatment = iota // the zero value: refused like every name that is in no table
	taken                    // read here, and written anew
	passed                   // to the engine as the client wrote it, once it is judged
	ignored                  // does nothing to the answer, and is told in the header Chrysalis-Ignored
	refused                  // known, and not to be had here
)

// field is one name that an object of a request may have. These tables are what the parser goes by; API.md lists them, held by a test.
type field struct {
	name string
	does treatment
	// judge returns what a value should have been, or "" for one that is. Of ignored fields it is nil.
	judge func(v jsontext.Value) string
	says  string // what the field may be, or why it is not to be had
}

// null for a known field is the same as no field: several SDKs write it for what was not set.

// chatFields are those of /v1/chat/completions.
var chatFields = []field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"messages", taken, nil, "1 to 1024 messages"},
	{"max_tokens", taken, whole(1, 1<<32-1), "1 and up, cut to the measured limit"},
	{"max_completion_tokens", taken, whole(1, 1<<32-1), "the newer name of max_tokens: one of both"},
	{"stream", taken, boolean, "answer in events"},
	{"stream_options", taken, streamOptions, "with stream alone; include_usage, include_obfuscation: the last event carries usage in any case"},
	{"n", taken, whole(1, 1), "1: one answer a request"},
	{"temperature", passed, number(0, 2), "0 to 2"},
	{"top_p", passed, above(number(0, 1)), "above 0, to 1"},
	{"top_k", passed, whole(0, 1<<16), "0 to 65536"},
	{"min_p", passed, number(0, 1), "0 to 1"},
	{"seed", passed, whole(0, 1<<32-1), "0 to 4294967295"},
	{"stop", passed, stops, "a text or up to 4 of them, of 256 bytes each"},
	{"frequency_penalty", passed, number(-2, 2), "-2 to 2"},
	{"presence_penalty", passed, number(-2, 2), "-2 to 2"},
	{"logit_bias", passed, logitBias, "an object of up to 300 token ids, each with -100 to 100"},
	{"logprobs", passed, boolean, "each token's probability"},
	{"top_logprobs", passed, whole(0, 20), "0 to 20, with logprobs alone"},
	{"response_format", passed, responseFormat, `an object of type "text", "json_object", or "json_schema" with a name and a schema of up to 64 KiB`},
	{"tools", passed, tools, "up to 128 functions with a name, a description and a schema, of up to 64 KiB together"},
	{"tool_choice", passed, toolChoice, `"none", "auto", "required", or {"type": "function", "function": {"name"}}`},
	{"parallel_tool_calls", passed, boolean, "several calls in one answer"},
	{"audio", refused, nil, "answers are text"},
	{"cache_prompt", refused, nil, "it reaches the engine's cache: another's prompt could be told from its time"},
	{"cache_salt", refused, nil, "it reaches the engine's cache"},
	{"chat_template", refused, nil, "the model's own is the one that is measured"},
	{"chat_template_kwargs", refused, nil, "the model's own template is the one that is measured"},
	{"function_call", refused, nil, "superseded: use tool_choice"},
	{"functions", refused, nil, "superseded: use tools"},
	{"grammar", refused, nil, "use response_format"},
	{"id_slot", refused, nil, "it names a place in the engine that may hold another client's state"},
	{"json_schema", refused, nil, "use response_format"},
	{"lora", refused, nil, "the model is the one that is measured"},
	{"n_keep", refused, nil, "it reaches the engine's context"},
	{"web_search_options", refused, nil, "nothing in this guest reaches a network"},
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
}

// messageFields are those of a message.
var messageFields = []field{
	{"role", taken, oneOf("system", "developer", "user", "assistant", "tool"), "system, developer (the same), user, assistant, tool"},
	{"content", taken, nil, "a text, or a list of parts of type text; none where an assistant called tools"},
	{"reasoning_content", taken, text(1 << 24), "an assistant's, as it came"},
	{"tool_calls", taken, toolCalls, "an assistant's, as they came"},
	{"tool_call_id", taken, text(128), "a tool's: which call it answers"},
	{"audio", refused, nil, "this model takes text"},
	{"function_call", refused, nil, "superseded: use tool_calls"},
	{"annotations", ignored, nil, ""},
	{"name", ignored, nil, ""},
	{"parsed", ignored, nil, "what OpenAI's SDK adds to an answer"},
	{"refusal", ignored, nil, ""},
}

// Bounds of a body beside the measured limit of its bytes.
const (
	maxMessages    = 1024
	maxDepth       = 64
	maxStops       = 4
	maxStopBytes   = 256
	maxSchemaBytes = 64 << 10
	maxTools       = 128
	maxBias        = 300
)

// find returns the row of a name, the zero field for one that is in no table.
func find(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return &field{}
}

// judges

func boolean(v jsontext.Value) string {
	if k := v.Kind(); k == 't' || k == 'f' {
		return ""
	}
	return "true or false"
}

// text judges a string of at most n bytes, as it is written.
func text(n int) func(jsontext.Value) string {
	return func(v jsontext.Value) string {
		if v.Kind() == '"' && len(v) <= n+2 {
			return ""
		}
		return fmt.Sprintf("a text of at most %d bytes", n)
	}
}

func number(from, to float64) func(jsontext.Value) string {
	return func(v jsontext.Value) string {
		if f, err := strconv.ParseFloat(string(v), 64); v.Kind() == '0' && len(v) <= 32 && err == nil && f >= from && f <= to {
			return ""
		}
		return fmt.Sprintf("a number from %g to %g", from, to)
	}
}

// above narrows a judge of numbers to those above zero.
func above(judge func(jsontext.Value) string) func(jsontext.Value) string {
	return func(v jsontext.Value) string {
		want := judge(v)
		if f, _ := strconv.ParseFloat(string(v), 64); want == "" && f == 0 {
			return "a number above 0"
		}
		return want
	}
}

func whole(from, to uint64) func(jsontext.Value) string {
	return func(v jsontext.Value) string {
		if n, err := strconv.ParseUint(string(v), 10, 64); v.Kind() == '0' && err == nil && n >= from && n <= to {
			return ""
		}
		return fmt.Sprintf("a whole number from %d to %d", from, to)
	}
}

func oneOf(words ...string) func(jsontext.Value) string {
	return func(v jsontext.Value) string {
		if slices.Contains(words, word(v)) {
			return ""
		}
		return fmt.Sprintf("one of %q", words)
	}
}

// word returns a short string, "" for everything else.
func word(v jsontext.Value) string {
	if v.Kind() != '"' || len(v) > 2+6*64 {
		return ""
	}
	s, err := jsontext.AppendUnquote(nil, []byte(v))
	if err != nil {
		return ""
	}
	return string(s)
}

func stops(v jsontext.Value) string {
	want := fmt.Sprintf("a text or up to %d of them, of %d bytes each", maxStops, maxStopBytes)
	if v.Kind() == '"' && len(v) <= maxStopBytes {
		return ""
	}
	n, ok := 0, v.Kind() == '['
	array(v, func(s jsontext.Value) {
		n++
		ok = ok && s.Kind() == '"' && len(s) <= maxStopBytes
	})
	if ok && n <= maxStops {
		return ""
	}
	return want
}

func logitBias(v jsontext.Value) string {
	n := 0
	return shape(v, fmt.Sprintf("an object of up to %d token ids, each with -100 to 100", maxBias), func(name string, v jsontext.Value) bool {
		n++
		_, err := strconv.ParseUint(name, 10, 31)
		return n <= maxBias && err == nil && number(-100, 100)(v) == ""
	})
}

func streamOptions(v jsontext.Value) string {
	return shape(v, "an object of include_usage and include_obfuscation, each true or false", func(name string, v jsontext.Value) bool {
		return (name == "include_usage" || name == "include_obfuscation") && boolean(v) == ""
	})
}

func responseFormat(v jsontext.Value) string {
	const want = `{"type": "text"}, {"type": "json_object"}, or {"type": "json_schema", "json_schema": {"name", "schema"}} of up to 64 KiB`
	kind, schema := "", false
	if w := shape(v, want, func(name string, v jsontext.Value) bool {
		switch name {
		case "type":
			kind = word(v)
			return kind == "text" || kind == "json_object" || kind == "json_schema"
		case "json_schema":
			return function(v, &schema, "schema")
		}
		return false
	}); w != "" || len(v) > maxSchemaBytes || kind == "" || schema != (kind == "json_schema") {
		return want
	}
	return ""
}

// function judges what has a name, a description, a strictness and a schema, which is told to be there.
func function(v jsontext.Value, schema *bool, schemaName string) bool {
	named := false
	return shape(v, "no", func(name string, v jsontext.Value) bool {
		switch name {
		case "name":
			named = functionName(v)
			return named
		case "description":
			return v.Kind() == '"' || v.Kind() == 'n'
		case "strict":
			return v.Kind() == 'n' || boolean(v) == ""
		case schemaName:
			*schema = true
			return v.Kind() == '{'
		}
		return false
	}) == "" && named
}

// functionName judges a name as OpenAI has them.
func functionName(v jsontext.Value) bool {
	name := word(v)
	for _, c := range []byte(name) {
		if !(c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func tools(v jsontext.Value) string {
	n, ok := 0, v.Kind() == '[' && len(v) <= maxSchemaBytes
	array(v, func(v jsontext.Value) {
		n++
		typed, there, schema := false, false, false
		ok = ok && shape(v, "no", func(name string, v jsontext.Value) bool {
			switch name {
			case "type":
				typed = word(v) == "function"
				return typed
			case "function":
				there = true
				return function(v, &schema, "parameters")
			}
			return false
		}) == "" && typed && there
	})
	if ok && n <= maxTools {
		return ""
	}
	return fmt.Sprintf(`a list of up to %d {"type": "function", "function": {"name", "description", "parameters", "strict"}}, of %d bytes together`,
		maxTools, maxSchemaBytes)
}

func toolChoice(v jsontext.Value) string {
	const want = `"none", "auto", "required", or {"type": "function", "function": {"name"}}`
	if v.Kind() == '"' {
		if oneOf("none", "auto", "required")(v) != "" {
			return want
		}
		return ""
	}
	there := false
	if w := shape(v, want, func(name string, v jsontext.Value) bool {
		switch name {
		case "type":
			return word(v) == "function"
		case "function":
			schema := false
			there = function(v, &schema, "")
			return there
		}
		return false
	}); w != "" || !there {
		return want
	}
	return ""
}

// toolCalls judges an assistant's calls of an earlier turn.
func toolCalls(v jsontext.Value) string {
	ok := v.Kind() == '['
	array(v, func(v jsontext.Value) {
		have := 0
		ok = ok && shape(v, "no", func(name string, v jsontext.Value) bool {
			have++
			switch name {
			case "id":
				return text(128)(v) == ""
			case "type":
				return word(v) == "function"
			case "function":
				return shape(v, "no", func(name string, v jsontext.Value) bool {
					return name == "name" && functionName(v) || name == "arguments" && v.Kind() == '"'
				}) == ""
			case "index":
				have--
				return whole(0, maxTools)(v) == ""
			}
			return false
		}) == "" && have == 3
	})
	if ok {
		return ""
	}
	return `a list of {"id", "type": "function", "function": {"name", "arguments"}}`
}

// shape judges an object by its members.
func shape(v jsontext.Value, want string, each func(name string, v jsontext.Value) bool) string {
	ok := v.Kind() == '{'
	if ok {
		object(v, func(name string, v jsontext.Value) { ok = ok && each(name, v) })
	}
	if !ok {
		return want
	}
	return ""
}

// object calls each for the members of an object that has been read once as a whole. What each is given points into v.
func object(v jsontext.Value, each func(name string, v jsontext.Value)) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(v))
	dec.ReadToken()
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return
		}
		name := token.String()
		each(name, next(dec, v))
	}
}

// array calls each for the elements of an array that has been read once as a whole, and for none of anything else.
func array(v jsontext.Value, each func(v jsontext.Value)) {
	if v.Kind() != '[' {
		return
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(v))
	dec.ReadToken()
	for k := dec.PeekKind(); k != ']' && k != jsontext.KindInvalid; k = dec.PeekKind() {
		each(next(dec, v))
	}
}

// next returns the decoder's next value, as a part of v, which it reads.
func next(dec *jsontext.Decoder, v jsontext.Value) jsontext.Value {
	start := dec.InputOffset()
	if dec.SkipValue() != nil {
		return nil
	}
	return jsontext.Value(bytes.TrimLeft(v[start:dec.InputOffset()], " \t\r\n:,"))
}

// depth returns how deep JSON nests.
func depth(v []byte) (deepest int) {
	level, inText := 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}
