package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/api"
)

// requestLimits are the measured limits that bound a request.
type requestLimits struct {
	model        string
	answerTokens uint32
}

// dialect is one form in which clients ask and read answers. The engine is asked in one form for all of them.
type dialect struct {
	fields []field
	// build checks what stands between fields, and writes the engine's request.
	build func(p *parsing, r *request) error
	// answer returns what writes the answer. said is kept up to date with what has been said, whole where keeps is set.
	answer func(id [16]byte, began time.Time, model string, said *said) answerWriter
	keeps  bool // a streamed answer ends with the whole of what was said
}

// dialects are by path.
var dialects = map[string]*dialect{
	api.ChatCompletions: {chatFields, buildChat, newAnswerJSON, false},
	api.Responses:       {responsesFields, buildResponses, newResponsesJSON, true},
}

// request is what a client asks for, by the tables of fields.go.
type request struct {
	ask     []byte // what the engine gets, built anew
	stream  bool
	ignored []string // names of fields that do nothing here
}

// askBytes bounds the engine's request for a body of n bytes: what is written around a value takes less than twice what the client wrote
// around it. A request is never grown, since a copy would not be wiped.
func askBytes(n int) int { return 2*n + 1024 }

// parseRequest reads a body strictly. What it refuses names the field. The body may be wiped afterwards.
func parseRequest(d *dialect, body []byte, limits requestLimits) (*request, error) {
	if n := depth(body); n > maxDepth {
		return nil, refuse("", "the body nests %d levels deep, want at most %d", n, maxDepth)
	}
	if err := onlyObject(body); err != nil {
		return nil, err
	}
	p := parsing{dialect: d, limits: limits, values: make([]jsontext.Value, len(d.fields))}
	if err := p.sort(d.fields, body, "", p.values); err != nil {
		return nil, err
	}
	if err := p.model(); err != nil {
		return nil, err
	}
	r := &request{ask: make([]byte, 0, askBytes(len(body))), stream: p.value("stream").Kind() == 't'}
	err := d.build(&p, r)
	r.ignored = p.ignored
	if err != nil {
		r.wipe()
		return nil, err
	}
	return r, nil
}

// onlyObject reads a body as a whole: one object, no name twice, valid UTF-8, nothing behind it.
func onlyObject(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	kind := dec.PeekKind()
	err := dec.SkipValue()
	if err == nil && kind != '{' {
		return refuse("", "the body is a JSON %s, want an object", kind)
	}
	if err == nil {
		if _, err = dec.ReadToken(); err == io.EOF {
			return nil
		}
		return refuse("", "something stands behind the body's object")
	}
	return badJSON(err)
}

// badJSON turns a decoder's error into a refusal. It names the place and never quotes a value, which is the client's.
func badJSON(err error) error {
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return refuse(syntactic.JSONPointer.LastToken(), "field %.80q is given twice", string(syntactic.JSONPointer))
	case errors.As(err, &syntactic):
		return refuse("", "body is no JSON: error at byte %d", syntactic.ByteOffset)
	}
	return refuse("", "body is no JSON")
}

// parsing is a request on its way from the client's body to the engine's.
type parsing struct {
	dialect *dialect
	limits  requestLimits
	values  []jsontext.Value // by row of the dialect's fields; they point into the body
	ignored []string
}

// sort puts the values of an object where their rows are. at names the object in what is ignored.
func (p *parsing) sort(fields []field, v jsontext.Value, at string, values []jsontext.Value) (err error) {
	object(v, func(name string, v jsontext.Value) {
		if err != nil {
			return
		}
		row := find(fields, name)
		switch {
		case row.does == unknown:
			err = refuse(name, "unknown field %.80q: this service takes no such setting", at+name)
		case v.Kind() == 'n':
		case row.does == refused:
			err = refuse(name, "field %q is not to be had here: %s", at+name, row.says)
		case row.does == ignored:
			p.ignore(at + name)
		default:
			if row.judge != nil {
				if want := row.judge(v); want != "" {
					err = refuse(name, "%s: want %s", at+name, want)
					return
				}
			}
			for i := range fields {
				if fields[i].name == name {
					values[i] = v
				}
			}
		}
	})
	return err
}

func (p *parsing) ignore(name string) {
	for _, known := range p.ignored {
		if known == name {
			return
		}
	}
	p.ignored = append(p.ignored, name)
}

// value returns a field of the request, nil when it was not set.
func (p *parsing) value(name string) jsontext.Value { return valueOf(p.dialect.fields, p.values, name) }

func valueOf(fields []field, values []jsontext.Value, name string) jsontext.Value {
	for i := range fields {
		if fields[i].name == name {
			return values[i]
		}
	}
	panic("gateway: no field " + name)
}

// model judges the model's name.
func (p *parsing) model() error {
	model := p.value("model")
	if model == nil {
		return refuse("model", "the field model is missing: the model here is %q", p.limits.model)
	}
	if name, _ := jsontext.AppendUnquote(nil, []byte(model)); string(name) != p.limits.model {
		return &refusal{status: 404, code: "model_not_found", param: "model", message: fmt.Sprintf("the model here is %q", p.limits.model)}
	}
	return nil
}

// with checks that a field which means something beside others has them.
func (p *parsing) with(other string, names ...string) error {
	for _, name := range names {
		if p.value(name) != nil && p.value(other) == nil {
			return refuse(name, "%s is given without %s", name, other)
		}
	}
	return nil
}

// settings ends the engine's request: it always streams and always reports usage.
func (p *parsing) settings(b []byte, tokens jsontext.Value) []byte {
	n := uint64(p.limits.answerTokens)
	if tokens != nil {
		asked, _ := strconv.ParseUint(string(tokens), 10, 64) // judged
		n = min(n, asked)
	}
	b = fmt.Appendf(b, `,"max_tokens":%d`, n)
	for i, row := range p.dialect.fields {
		if v := p.values[i]; row.does == passed && v != nil {
			b = member(b, row.name, v)
		}
	}
	return append(b, `,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`...)
}

// member appends a further member of an object.
func member(b []byte, name string, v jsontext.Value) []byte {
	return append(append(append(append(b, `,"`...), name...), `":`...), v...)
}

// buildChat is /v1/chat/completions.
func buildChat(p *parsing, r *request) (err error) {
	tokens := p.value("max_tokens")
	if newer := p.value("max_completion_tokens"); tokens != nil && newer != nil {
		return refuse("max_tokens", "max_tokens and max_completion_tokens are given both")
	} else if newer != nil {
		tokens = newer
	}
	if p.value("stream_options") != nil && !r.stream {
		return refuse("stream_options", "stream_options is given without stream")
	}
	if p.value("top_logprobs") != nil && p.value("logprobs").Kind() != 't' {
		return refuse("top_logprobs", "top_logprobs is given without logprobs")
	}
	if err := p.with("tools", "tool_choice", "parallel_tool_calls"); err != nil {
		return err
	}
	b := append(r.ask, `{"messages":[`...)
	if b, err = p.messages(b, p.value("messages")); err != nil {
		r.ask = b
		return err
	}
	r.ask = p.settings(append(b, ']'), tokens)
	return nil
}

// messages writes the messages.
func (p *parsing) messages(b []byte, list jsontext.Value) (_ []byte, err error) {
	if list != nil && list.Kind() != '[' {
		return b, refuse("messages", "messages is a JSON %s, want a list", list.Kind())
	}
	n := 0
	values := make([]jsontext.Value, len(messageFields))
	array(list, func(v jsontext.Value) {
		if n++; err != nil || n > maxMessages {
			return
		}
		clear(values)
		if v.Kind() != '{' {
			err = refuse("messages", "message %d is a JSON %s, want an object", n-1, v.Kind())
		} else if err = p.sort(messageFields, v, "messages.", values); err == nil {
			if n > 1 {
				b = append(b, ',')
			}
			b, err = p.message(b, n-1, values)
		}
	})
	if err == nil && (n == 0 || n > maxMessages) {
		err = refuse("messages", "%d messages, want 1 to %d", n, maxMessages)
	}
	return b, err
}

// message writes one message.
func (p *parsing) message(b []byte, i int, values []jsontext.Value) (_ []byte, err error) {
	of := func(name string) jsontext.Value { return valueOf(messageFields, values, name) }
	role, content, calls, call := word(of("role")), of("content"), of("tool_calls"), of("tool_call_id")
	switch {
	case role == "":
		return b, refuse("messages", "message %d has no role, want %s", i, oneOf("system", "developer", "user", "assistant", "tool")(nil))
	case calls != nil && role != "assistant":
		return b, refuse("tool_calls", "message %d calls tools as %s, want assistant", i, role)
	case of("reasoning_content") != nil && role != "assistant":
		return b, refuse("reasoning_content", "message %d has reasoning as %s, want assistant", i, role)
	case (call != nil) != (role == "tool"):
		return b, refuse("tool_call_id", "message %d: a tool's message has a tool_call_id, and no other has", i)
	case content == nil && calls == nil:
		return b, refuse("messages", "message %d has no content", i)
	}
	if role == "developer" {
		role = "system"
	}
	b = append(append(append(b, `{"role":"`...), role...), `","content":`...)
	switch content.Kind() {
	case '"':
		b = append(b, content...)
	case jsontext.KindInvalid:
		b = append(b, "null"...)
	case '[':
		if b, err = parts(b, i, content, "text"); err != nil {
			return b, err
		}
	default:
		return b, refuse("messages", "content of message %d is a JSON %s, want a text or a list of parts", i, content.Kind())
	}
	for _, name := range []string{"reasoning_content", "tool_calls", "tool_call_id"} {
		if v := of(name); v != nil {
			b = member(b, name, v)
		}
	}
	return append(b, '}'), nil
}

// parts writes content that is a list of parts of text, which have one of some types, as a list.
func parts(b []byte, i int, list jsontext.Value, types ...string) (_ []byte, err error) {
	b = append(b, '[')
	n := 0
	array(list, func(v jsontext.Value) {
		if err != nil {
			return
		}
		if n++; n > 1 {
			b = append(b, ',')
		}
		kind, said, other := "", jsontext.Value(nil), v.Kind() != '{'
		shape(v, "", func(name string, v jsontext.Value) bool {
			switch name {
			case "type":
				kind = word(v)
			case "text":
				said = v
			case "annotations", "logprobs", "cache_control", "prompt_cache_breakpoint": // of other services
			default:
				other = true
			}
			return true
		})
		if other || !slices.Contains(types, kind) || said.Kind() != '"' {
			if slices.Contains(types, kind) || kind == "" || strings.ContainsFunc(kind, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
				kind = "unknown"
			}
			err = refuse("messages", "part %d of message %d is of type %s: this model takes parts of type %s with a text alone", n-1, i, kind, strings.Join(types, " or "))
			return
		}
		b = append(append(append(b, `{"type":"text","text":`...), said...), '}')
	})
	if err == nil && n == 0 {
		err = refuse("messages", "content of message %d has no parts", i)
	}
	return append(b, ']'), err
}

// wipe overwrites the client's text.
func (r *request) wipe() { clear(r.ask[:cap(r.ask)]) }
