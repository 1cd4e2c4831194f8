package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// requestLimits are the measured limits that bound a request.
type requestLimits struct {
	model        string
	answerTokens uint32
}

// request is what a client asks for, by the tables of fields.go.
type request struct {
	ask     []byte // what the engine gets, built anew
	stream  bool
	ignored []string // names of fields that do nothing here
}

// parseRequest reads a body strictly. What it refuses names the field. The body may be wiped afterwards.
func parseRequest(body []byte, limits requestLimits) (*request, error) {
	if d := depth(body); d > maxDepth {
		return nil, refuse("", "the body nests %d levels deep, want at most %d", d, maxDepth)
	}
	if err := onlyObject(body); err != nil {
		return nil, err
	}
	p := parsing{limits: limits, values: make([]jsontext.Value, len(chatFields))}
	if err := p.sort(chatFields, body, "", p.values); err != nil {
		return nil, err
	}
	r := &request{ask: make([]byte, 0, len(body)+512), stream: p.value("stream").Kind() == 't'} // never grown: a copy would not be wiped
	err := p.build(r)
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
	limits  requestLimits
	values  []jsontext.Value // by row of chatFields; they point into the body
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
func (p *parsing) value(name string) jsontext.Value { return valueOf(chatFields, p.values, name) }

func valueOf(fields []field, values []jsontext.Value, name string) jsontext.Value {
	for i := range fields {
		if fields[i].name == name {
			return values[i]
		}
	}
	panic("gateway: no field " + name)
}

// build checks what stands between fields, and writes the engine's request. It always streams and always reports usage.
func (p *parsing) build(r *request) (err error) {
	model := p.value("model")
	if model == nil {
		return refuse("model", "the field model is missing: the model here is %q", p.limits.model)
	}
	if name, _ := jsontext.AppendUnquote(nil, []byte(model)); string(name) != p.limits.model {
		return &refusal{status: 404, code: "model_not_found", param: "model", message: fmt.Sprintf("the model here is %q", p.limits.model)}
	}
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
	for _, name := range []string{"tool_choice", "parallel_tool_calls"} {
		if p.value(name) != nil && p.value("tools") == nil {
			return refuse(name, "%s is given without tools", name)
		}
	}
	b := append(r.ask, `{"messages":[`...)
	if b, err = p.messages(b, p.value("messages")); err != nil {
		r.ask = b
		return err
	}
	n := uint64(p.limits.answerTokens)
	if tokens != nil {
		asked, _ := strconv.ParseUint(string(tokens), 10, 64) // judged
		n = min(n, asked)
	}
	b = fmt.Appendf(b, `],"max_tokens":%d`, n)
	for i, row := range chatFields {
		if v := p.values[i]; row.does == passed && v != nil {
			b = append(append(append(append(b, `,"`...), row.name...), `":`...), v...)
		}
	}
	r.ask = append(b, `,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`...)
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
		if b, err = parts(b, i, content); err != nil {
			return b, err
		}
	default:
		return b, refuse("messages", "content of message %d is a JSON %s, want a text or a list of parts", i, content.Kind())
	}
	for _, name := range []string{"reasoning_content", "tool_calls", "tool_call_id"} {
		if v := of(name); v != nil {
			b = append(append(append(append(b, `,"`...), name...), `":`...), v...)
		}
	}
	return append(b, '}'), nil
}

// parts writes content that is a list of parts, as a list.
func parts(b []byte, i int, list jsontext.Value) (_ []byte, err error) {
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
			case "annotations", "cache_control", "prompt_cache_breakpoint": // of other services
			default:
				other = true
			}
			return true
		})
		if other || kind != "text" || said.Kind() != '"' {
			if kind == "text" || kind == "" || strings.ContainsFunc(kind, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') }) {
				kind = "unknown"
			}
			err = refuse("messages", "part %d of message %d is of type %s: this model takes parts {\"type\": \"text\", \"text\"} alone", n-1, i, kind)
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
