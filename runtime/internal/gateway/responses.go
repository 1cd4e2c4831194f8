package gateway

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// responsesFields are those of /v1/responses, which keeps nothing here: each request brings the whole conversation.
var responsesFields = []field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"input", taken, nil, "a text, or 1 to 1024 items: messages, function_call, function_call_output; reasoning is left out"},
	{"instructions", taken, text(1 << 24), "a system message before the input"},
	{"max_output_tokens", taken, whole(1, 1<<32-1), "1 and up, cut to the measured limit"},
	{"stream", taken, boolean, "answer in events"},
	{"tools", taken, flatTools, `up to 128 {"type": "function", "name", "description", "parameters", "strict"}, of up to 64 KiB together`},
	{"tool_choice", taken, flatToolChoice, `"none", "auto", "required", or {"type": "function", "name"}`},
	{"text", taken, textFormat, `{"format": …} of type "text", "json_object", or "json_schema" with a name and a schema of up to 64 KiB`},
	{"temperature", passed, number(0, 2), "0 to 2"},
	{"top_p", passed, above(number(0, 1)), "above 0, to 1"},
	{"parallel_tool_calls", passed, boolean, "several calls in one answer"},
	{"background", taken, oneFalse, "false: nothing is kept here"},
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
	{"type", taken, oneOf("message", "function_call", "function_call_output", "reasoning"), "message, where there is none"},
	{"role", taken, oneOf("system", "developer", "user", "assistant"), "a message's"},
	{"content", taken, nil, "a message's: a text, or a list of parts of type input_text or output_text"},
	{"call_id", taken, text(128), "which call"},
	{"name", taken, func(v jsontext.Value) string {
		if functionName(v) {
			return ""
		}
		return "a function's name"
	}, "a call's"},
	{"arguments", taken, text(1 << 24), "a call's"},
	{"output", taken, text(1 << 24), "a call's: a text"},
	{"encrypted_content", ignored, nil, ""},
	{"id", ignored, nil, ""},
	{"phase", ignored, nil, ""},
	{"status", ignored, nil, ""},
	{"summary", ignored, nil, ""},
}

// flatFunction judges a function as this dialect has it, without an object of its own.
func flatFunction(v jsontext.Value, members ...string) bool {
	named, typed := false, false
	return shape(v, "no", func(name string, v jsontext.Value) bool {
		switch {
		case name == "type":
			typed = word(v) == "function"
			return typed
		case name == "name":
			named = functionName(v)
			return named
		case !slices.Contains(members, name):
			return false
		case name == "description":
			return v.Kind() == '"' || v.Kind() == 'n'
		case name == "strict":
			return v.Kind() == 'n' || boolean(v) == ""
		}
		return v.Kind() == '{' || v.Kind() == 'n' // parameters
	}) == "" && named && typed
}

func oneFalse(v jsontext.Value) string {
	if v.Kind() == 'f' {
		return ""
	}
	return "false: nothing is kept here"
}

func flatTools(v jsontext.Value) string {
	n, ok := 0, v.Kind() == '[' && len(v) <= maxSchemaBytes
	array(v, func(v jsontext.Value) {
		n++
		ok = ok && flatFunction(v, "description", "parameters", "strict")
	})
	if ok && n <= maxTools {
		return ""
	}
	return fmt.Sprintf(`a list of up to %d {"type": "function", "name", "description", "parameters", "strict"}, of %d bytes together`, maxTools, maxSchemaBytes)
}

func flatToolChoice(v jsontext.Value) string {
	if v.Kind() == '"' && toolChoice(v) == "" || flatFunction(v) {
		return ""
	}
	return `"none", "auto", "required", or {"type": "function", "name"}`
}

func textFormat(v jsontext.Value) string {
	const want = `{"format": {"type": "text"}}, or of type "json_object", or of type "json_schema" with a name and a schema of up to 64 KiB`
	if len(v) > maxSchemaBytes {
		return want
	}
	return shape(v, want, func(name string, v jsontext.Value) bool {
		switch name {
		case "verbosity":
			return v.Kind() == '"' || v.Kind() == 'n'
		case "format":
			kind, named, schema := "", false, false
			return shape(v, "no", func(name string, v jsontext.Value) bool {
				switch name {
				case "type":
					kind = word(v)
					return kind == "text" || kind == "json_object" || kind == "json_schema"
				case "name":
					named = functionName(v)
					return named
				case "description":
					return v.Kind() == '"' || v.Kind() == 'n'
				case "strict":
					return v.Kind() == 'n' || boolean(v) == ""
				case "schema":
					schema = true
					return v.Kind() == '{'
				}
				return false
			}) == "" && kind != "" && named == (kind == "json_schema") && schema == named
		}
		return false
	})
}

// buildResponses is /v1/responses.
func buildResponses(p *parsing, r *request) (err error) {
	if err := p.with("tools", "tool_choice", "parallel_tool_calls"); err != nil {
		return err
	}
	c := conversation{b: append(r.ask, `{"messages":[`...)}
	if v := p.value("instructions"); v != nil {
		c.says("system", v)
	}
	switch input := p.value("input"); input.Kind() {
	case '"':
		c.says("user", input)
	case '[':
		err = c.items(p, input)
	default:
		err = refuse("input", "input is a JSON %s, want a text or a list of items", input.Kind())
	}
	if err == nil && c.n == 0 {
		err = refuse("input", "the input has no message")
	}
	b := c.b
	if err != nil {
		r.ask = b
		return err
	}
	b = append(b, ']')
	if tools := p.value("tools"); tools != nil {
		b = append(b, `,"tools":[`...)
		first := true
		array(tools, func(v jsontext.Value) {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(b, `{"type":"function","function":`...)
			b = append(withoutType(b, v), '}')
		})
		b = append(b, ']')
	}
	if choice := p.value("tool_choice"); choice.Kind() == '"' {
		b = member(b, "tool_choice", choice)
	} else if choice != nil {
		b = append(withoutType(append(b, `,"tool_choice":{"type":"function","function":`...), choice), '}')
	}
	object(orEmpty(p.value("text")), func(name string, format jsontext.Value) {
		if name != "format" {
			return
		}
		kind := ""
		object(format, func(name string, v jsontext.Value) {
			if name == "type" {
				kind = word(v)
			}
		})
		b = append(append(append(b, `,"response_format":{"type":"`...), kind...), '"')
		if kind == "json_schema" {
			b = withoutType(append(b, `,"json_schema":`...), format)
		}
		b = append(b, '}')
	})
	r.ask = p.settings(b, p.value("max_output_tokens"))
	return nil
}

func orEmpty(v jsontext.Value) jsontext.Value {
	if v == nil {
		return jsontext.Value("{}")
	}
	return v
}

// withoutType writes an object's members but for its type, and for those that are null.
func withoutType(b []byte, v jsontext.Value) []byte {
	b = append(b, '{')
	first := true
	object(v, func(name string, v jsontext.Value) {
		if name == "type" || v.Kind() == 'n' {
			return
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(append(b, '"'), name...), `":`...), v...)
	})
	return append(b, '}')
}

// conversation is the engine's list of messages as it grows.
type conversation struct {
	b []byte
	n int
}

// begin begins a message.
func (c *conversation) begin(role string) {
	if c.n++; c.n > 1 {
		c.b = append(c.b, ',')
	}
	c.b = append(append(append(c.b, `{"role":"`...), role...), '"')
}

// says adds a message that is a text.
func (c *conversation) says(role string, v jsontext.Value) {
	c.begin(role)
	c.b = append(member(c.b, "content", v), '}')
}

// items adds the items of an input.
func (c *conversation) items(p *parsing, input jsontext.Value) (err error) {
	values := make([]jsontext.Value, len(itemFields))
	n := 0
	array(input, func(v jsontext.Value) {
		if n++; err != nil || n > maxMessages {
			return
		}
		clear(values)
		if v.Kind() != '{' {
			err = refuse("input", "item %d is a JSON %s, want an object", n-1, v.Kind())
		} else if err = p.sort(itemFields, v, "input.", values); err == nil {
			err = c.item(n-1, values)
		}
	})
	if err == nil && (n == 0 || n > maxMessages) {
		err = refuse("input", "%d items, want 1 to %d", n, maxMessages)
	}
	return err
}

// kinds are the members that an item of each type has, all of them.
var kinds = map[string][]string{
	"message":              {"role", "content"},
	"function_call":        {"call_id", "name", "arguments"},
	"function_call_output": {"call_id", "output"},
}

// item adds an item as a message.
func (c *conversation) item(i int, values []jsontext.Value) (err error) {
	of := func(name string) jsontext.Value { return valueOf(itemFields, values, name) }
	kind := word(of("type"))
	if kind == "reasoning" {
		return nil
	}
	if kind == "" {
		kind = "message"
	}
	for _, row := range itemFields {
		if row.does == taken && row.name != "type" && slices.Contains(kinds[kind], row.name) != (of(row.name) != nil) {
			return refuse("input", "item %d of type %s: want %q, all of them and no other", i, kind, kinds[kind])
		}
	}
	switch kind {
	case "function_call":
		c.begin("assistant")
		c.b = append(append(c.b, `,"content":null,"tool_calls":[{"id":`...), of("call_id")...)
		c.b = append(append(c.b, `,"type":"function","function":{"name":`...), of("name")...)
		c.b = append(member(c.b, "arguments", of("arguments")), "}}]}"...)
		return nil
	case "function_call_output":
		c.begin("tool")
		c.b = append(member(member(c.b, "content", of("output")), "tool_call_id", of("call_id")), '}')
		return nil
	}
	role := word(of("role"))
	if role == "developer" {
		role = "system"
	}
	switch content := of("content"); content.Kind() {
	case '"':
		c.says(role, content)
	case '[':
		c.begin(role)
		c.b, err = parts(append(c.b, `,"content":`...), i, content, "input_text", "output_text")
		c.b = append(c.b, '}')
	default:
		err = refuse("input", "content of item %d is a JSON %s, want a text or a list of parts", i, content.Kind())
	}
	return err
}

// responsesJSON writes an answer as the Responses API has it: items, each opened, filled and closed.
type responsesJSON struct {
	id    string // of the response, and in those of its items
	head  []byte // members that every response object begins with
	said  *said
	event []byte
	n     int // the events' sequence number
	items []responseItem
}

// responseItem is an item of the output.
type responseItem struct {
	kind       string // reasoning, message, function_call
	call       int    // which call
	start, end int    // of its text in what was said
}

// goesOn reports whether a piece says nothing but more of an item.
func (it responseItem) goesOn(p piece) bool {
	for _, c := range p.calls {
		if it.kind != "function_call" || it.call != int(c.Index) {
			return false
		}
	}
	return (!isText(p.thought) || it.kind == "reasoning") && (!isText(p.text) || it.kind == "message")
}

func newResponsesJSON(id [16]byte, began time.Time, model string, said *said) answerWriter {
	name := hex.EncodeToString(id[:])
	head := `"id":"resp_` + name + `","object":"response","created_at":` + strconv.FormatInt(began.Unix(), 10) + `,"model":`
	return &responsesJSON{id: name, head: quote([]byte(head), model), said: said, event: make([]byte, 0, 4096)}
}

// room makes room for events with n bytes of text in them.
func (j *responsesJSON) room(n int) []byte {
	if want := 8192 + 6*n; cap(j.event) < want { // grown by hand: what append leaves behind would not be wiped
		j.wipe()
		j.event = make([]byte, 0, want)
	}
	return j.event[:0]
}

// begin begins an event.
func (j *responsesJSON) begin(b []byte, kind string) []byte {
	b = append(append(append(b, "event: "...), kind...), "\ndata: {\"type\":\""...)
	b = strconv.AppendInt(append(append(b, kind...), `","sequence_number":`...), int64(j.n), 10)
	j.n++
	return b
}

// started is the first two events.
func (j *responsesJSON) started(b []byte) []byte {
	if j.n > 0 {
		return b
	}
	for _, kind := range []string{"response.created", "response.in_progress"} {
		b = append(append(j.begin(b, kind), `,"response":{`...), j.head...)
		b = append(b, `,"status":"in_progress","output":[]}}`+"\n\n"...)
	}
	return b
}

// at appends the names of an item.
func (j *responsesJSON) at(b []byte, i int) []byte {
	b = j.itemID(append(b, `,"item_id":`...), i)
	return strconv.AppendInt(append(b, `,"output_index":`...), int64(i), 10)
}

func (j *responsesJSON) itemID(b []byte, i int) []byte {
	prefix := map[string]string{"reasoning": "rs", "message": "msg", "function_call": "fc"}[j.items[i].kind]
	return fmt.Appendf(b, `"%s_%s_%d"`, prefix, j.id, i)
}

// text returns what an item says.
func (j *responsesJSON) text(i int) []byte {
	switch it := j.items[i]; it.kind {
	case "reasoning":
		return j.said.thoughts[it.start:it.end]
	case "message":
		return j.said.content[it.start:it.end]
	default:
		return j.said.calls[it.call].arguments
	}
}

// item appends an item as an object: as it is opened, or whole.
func (j *responsesJSON) item(b []byte, i int, whole bool) []byte {
	it := j.items[i]
	b = append(append(append(b, `{"type":"`...), it.kind...), `","id":`...)
	b = append(j.itemID(b, i), `,"status":"`...)
	if whole {
		b = append(b, `completed"`...)
	} else {
		b = append(b, `in_progress"`...)
	}
	switch it.kind {
	case "reasoning":
		b = append(b, `,"summary":[],"content":[`...)
		if whole {
			b = append(quote(append(b, `{"type":"reasoning_text","text":`...), j.text(i)), '}')
		}
		b = append(b, ']')
	case "message":
		b = append(b, `,"role":"assistant","content":[`...)
		if whole {
			b = j.part(b, i, true)
		}
		b = append(b, ']')
	case "function_call":
		call := j.said.calls[it.call]
		b = append(append(b, `,"call_id":`...), call.id...)
		b = append(append(b, `,"name":`...), call.name...)
		if b = append(b, `,"arguments":`...); whole {
			b = quote(b, j.text(i))
		} else {
			b = append(b, `""`...)
		}
	}
	return append(b, '}')
}

func (j *responsesJSON) part(b []byte, i int, whole bool) []byte {
	b = append(b, `{"type":"output_text","annotations":[],"logprobs":[],"text":`...)
	if whole {
		b = quote(b, j.text(i))
	} else {
		b = append(b, `""`...)
	}
	return append(b, '}')
}

// enter makes an item the one that is filled.
func (j *responsesJSON) enter(b []byte, it responseItem) []byte {
	if last := len(j.items) - 1; last >= 0 {
		if j.items[last].kind == it.kind && j.items[last].call == it.call {
			return b
		}
		b = j.leave(b)
	}
	j.items = append(j.items, it)
	i := len(j.items) - 1
	b = strconv.AppendInt(append(j.begin(b, "response.output_item.added"), `,"output_index":`...), int64(i), 10)
	b = append(j.item(append(b, `,"item":`...), i, false), "}\n\n"...)
	if it.kind == "message" {
		b = append(j.at(j.begin(b, "response.content_part.added"), i), `,"content_index":0,"part":`...)
		b = append(j.part(b, i, false), "}\n\n"...)
	}
	return b
}

// leave closes the item that is filled.
func (j *responsesJSON) leave(b []byte) []byte {
	i := len(j.items) - 1
	if i < 0 {
		return b
	}
	switch j.items[i].kind {
	case "reasoning":
		b = append(j.at(j.begin(b, "response.reasoning_text.done"), i), `,"content_index":0,"text":`...)
		b = append(quote(b, j.text(i)), "}\n\n"...)
	case "message":
		b = append(j.at(j.begin(b, "response.output_text.done"), i), `,"content_index":0,"logprobs":[],"text":`...)
		b = append(quote(b, j.text(i)), "}\n\n"...)
		b = append(j.at(j.begin(b, "response.content_part.done"), i), `,"content_index":0,"part":`...)
		b = append(j.part(b, i, true), "}\n\n"...)
	case "function_call":
		b = append(j.at(j.begin(b, "response.function_call_arguments.done"), i), `,"arguments":`...)
		b = append(quote(b, j.text(i)), "}\n\n"...)
	}
	b = strconv.AppendInt(append(j.begin(b, "response.output_item.done"), `,"output_index":`...), int64(i), 10)
	return append(j.item(append(b, `,"item":`...), i, true), "}\n\n"...)
}

// spoken counts what was said.
func (j *responsesJSON) spoken() (n int) {
	n = len(j.said.thoughts) + len(j.said.content)
	for _, c := range j.said.calls {
		n += 256 + len(c.arguments)
	}
	return n
}

func (j *responsesJSON) chunk(p piece) []byte {
	size := p.size
	if last := len(j.items) - 1; last >= 0 && !j.items[last].goesOn(p) {
		size += 3 * len(j.text(last)) // an item that ends is written three times
	}
	b := j.started(j.room(size))
	// What was said holds this piece already. An item ends where the next of its kind would begin.
	extend := func(whole []byte) {
		j.items[len(j.items)-1].end = len(whole)
	}
	if isText(p.thought) {
		b = j.enter(b, responseItem{kind: "reasoning", start: j.ended("reasoning"), end: j.ended("reasoning")})
		extend(j.said.thoughts)
		b = append(j.at(j.begin(b, "response.reasoning_text.delta"), len(j.items)-1), `,"content_index":0,"delta":`...)
		b = append(append(b, p.thought...), "}\n\n"...)
	}
	if isText(p.text) {
		b = j.enter(b, responseItem{kind: "message", start: j.ended("message"), end: j.ended("message")})
		extend(j.said.content)
		b = append(j.at(j.begin(b, "response.output_text.delta"), len(j.items)-1), `,"content_index":0,"logprobs":[],"delta":`...)
		b = append(append(b, p.text...), "}\n\n"...)
	}
	for _, c := range p.calls {
		b = j.enter(b, responseItem{kind: "function_call", call: int(c.Index)})
		if isText(c.Function.Arguments) {
			b = append(j.at(j.begin(b, "response.function_call_arguments.delta"), len(j.items)-1), `,"delta":`...)
			b = append(append(b, c.Function.Arguments...), "}\n\n"...)
		}
	}
	j.event = b
	return b
}

// ended returns where the last item of a kind ends in what was said.
func (j *responsesJSON) ended(kind string) (at int) {
	for _, it := range j.items {
		if it.kind == kind {
			at = it.end
		}
	}
	return at
}

func (j *responsesJSON) end(u receipt.Usage, p receipt.Proof) []byte {
	b := j.leave(j.started(j.room(5 * j.spoken())))
	kind := "response.completed"
	if j.said.finish == "length" {
		kind = "response.incomplete"
	}
	b = j.response(append(j.begin(b, kind), `,"response":{`...), u)
	j.event = append(appendProof(append(b, '}'), p), "}\n\n"...)
	return j.event
}

// response appends the members of the response object, whole.
func (j *responsesJSON) response(b []byte, u receipt.Usage) []byte {
	b = append(append(b, j.head...), `,"status":"`...)
	if j.said.finish == "length" {
		b = append(b, `incomplete","incomplete_details":{"reason":"max_output_tokens"}`...)
	} else {
		b = append(b, `completed","incomplete_details":null`...)
	}
	b = append(b, `,"error":null,"output":[`...)
	for i := range j.items {
		if i > 0 {
			b = append(b, ',')
		}
		b = j.item(b, i, true)
	}
	return append(fmt.Appendf(b, `],"usage":`), responsesUsage(u)...)
}

func responsesUsage(u receipt.Usage) string {
	return fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}`,
		u.Prompt, u.Cached, u.Completion, u.Reasoning, uint64(u.Prompt)+uint64(u.Completion))
}

func (j *responsesJSON) failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte {
	b := j.begin(j.room(0), "error")
	b = quote(append(b, `,"code":`...), why.code)
	b = quote(append(b, `,"message":`...), why.message)
	b = quote(append(b, `,"param":null,"request_id":`...), id)
	if p != nil {
		b = appendProof(append(append(b, `,"usage":`...), responsesUsage(u)...), *p)
	}
	j.event = append(b, "}\n\n"...)
	return j.event
}

func (j *responsesJSON) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	if len(s.thoughts) > 0 {
		j.items = append(j.items, responseItem{kind: "reasoning", end: len(s.thoughts)})
	}
	if len(s.content) > 0 || len(s.calls) == 0 {
		j.items = append(j.items, responseItem{kind: "message", end: len(s.content)})
	}
	for i := range s.calls {
		j.items = append(j.items, responseItem{kind: "function_call", call: i})
	}
	b := j.response(append(make([]byte, 0, 8192+6*j.spoken()), '{'), u)
	return append(appendProof(b, p), "}\n"...)
}

func (j *responsesJSON) wipe() { clear(j.event[:cap(j.event)]) }

// appendProof appends receipt and charge, as every dialect has them.
func appendProof(b []byte, p receipt.Proof) []byte {
	b = base64.StdEncoding.AppendEncode(append(b, `,"chrysalis":{"receipt":"`...), p.Receipt[:])
	b = append(b, '"')
	if p.Charge != nil {
		b = base64.StdEncoding.AppendEncode(append(b, `,"charge":"`...), p.Charge[:])
		b = append(b, '"')
	}
	return append(b, '}')
}
