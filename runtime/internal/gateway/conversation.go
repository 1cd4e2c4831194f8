package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// conversation is the engine's request as it grows: first its list of messages.
type conversation struct {
	*parsing
	b []byte
	n int // messages so far
}

// newConversation begins the engine's request, in the memory of r.
func newConversation(p *parsing, r *request) *conversation {
	return &conversation{parsing: p, b: append(r.ask, `{"messages":[`...)}
}

// begin begins a message.
func (c *conversation) begin(role string) {
	c.n++
	c.b = append(append(append(comma(c.b), `{"role":"`...), role...), '"')
}

// says adds a message that is a text.
func (c *conversation) says(role string, v jsontext.Value) {
	c.begin(role)
	c.b = append(appendMember(c.b, "content", v), '}')
}

// elements calls each for the objects of a list, sorted by their table. param is the list's field, and element what one of it is called.
func (c *conversation) elements(param, element string, fields []field, each func(i int, s sorted) error) (err error) {
	list, n := c.of(param), 0
	if list == nil {
		list = jsontext.Value("[]")
	}
	if list.Kind() != '[' {
		return refuse(param, "%s is a JSON %s, want a list", param, list.Kind())
	}
	array(list, func(v jsontext.Value) {
		if n++; err != nil || n > maxMessages {
			return
		}
		var s sorted
		if v.Kind() != '{' {
			err = refuse(param, "%s %d is a JSON %s, want an object", element, n-1, v.Kind())
		} else if s, err = c.sort(fields, v, param+"."); err == nil {
			err = each(n-1, s)
		}
	})
	if err == nil && (n == 0 || n > maxMessages) {
		err = refuse(param, "%d %ss, want 1 to %d", n, element, maxMessages)
	}
	return err
}

// texts writes a text, or a list of parts of text that have one of some types, as the engine has it. param and of name it in a refusal.
func (c *conversation) texts(param, of string, v jsontext.Value, types ...string) (err error) {
	switch v.Kind() {
	case '"':
		c.b = append(c.b, v...)
		return nil
	case '[':
	default:
		return refuse(param, "%s is a JSON %s, want a text or a list of parts of type %s", of, v.Kind(), strings.Join(types, " or "))
	}
	c.b = append(c.b, '[')
	n := 0
	array(v, func(v jsontext.Value) {
		if err != nil {
			return
		}
		n++
		kind, said, other := "", jsontext.Value(nil), v.Kind() != '{'
		object(v, func(name string, v jsontext.Value) {
			switch name {
			case "type":
				kind = word(v)
			case "text":
				said = v
			case "annotations", "logprobs", "cache_control", "prompt_cache_breakpoint": // of other services
			default:
				other = true
			}
		})
		if other || !slices.Contains(types, kind) || said.Kind() != '"' {
			if slices.Contains(types, kind) || !isPlainWord(kind) {
				kind = "unknown"
			}
			err = refuse(param, "part %d of %s is of type %s: this model takes parts of type %s with a text alone",
				n-1, of, kind, strings.Join(types, " or "))
			return
		}
		c.part(said)
	})
	if err == nil && n == 0 {
		err = refuse(param, "%s has no parts", of)
	}
	c.b = append(c.b, ']')
	return err
}

// isPlainWord reports whether a client's word may stand in a refusal.
func isPlainWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') })
}

// part adds a part of a message's content.
func (c *conversation) part(v jsontext.Value) {
	c.b = append(appendMember(append(comma(c.b), `{"type":"text"`...), "text", v), '}')
}

// call adds a call of a tool. arguments is a JSON string, or what becomes one.
func (c *conversation) call(id, name, arguments jsontext.Value) {
	c.b = append(appendMember(append(comma(c.b), '{'), "id", id), `,"type":"function","function":{`...)
	c.b = append(appendMember(c.b, "name", name), `,"arguments":`...)
	if arguments.Kind() == '"' {
		c.b = append(c.b, arguments...)
	} else {
		c.b = quote(c.b, arguments)
	}
	c.b = append(c.b, "}}"...)
}

// functions adds the tools, which a dialect has without an object of their own around what they are.
func (c *conversation) functions(list jsontext.Value) {
	if list == nil {
		return
	}
	c.b = append(comma(c.b), `"tools":[`...)
	array(list, func(v jsontext.Value) { c.function(comma(c.b), v) })
	c.b = append(c.b, ']')
}

// choose adds which function must be called.
func (c *conversation) choose(v jsontext.Value) {
	c.function(append(comma(c.b), `"tool_choice":`...), v)
}

func (c *conversation) function(b []byte, v jsontext.Value) {
	c.b = append(appendFunction(append(b, `{"type":"function","function":`...), v), '}')
}

// engineNames are what the engine calls the members of a function, or of an answer's form. The others are the dialect's alone.
var engineNames = map[string]string{
	"name": "name", "description": "description", "strict": "strict",
	"parameters": "parameters", "input_schema": "parameters", "schema": "schema",
}

// appendFunction appends the members of a function that the engine knows, but for those that are null.
func appendFunction(b []byte, v jsontext.Value) []byte {
	b = append(b, '{')
	object(v, func(name string, v jsontext.Value) {
		if named := engineNames[name]; named != "" && v.Kind() != 'n' {
			b = appendMember(b, named, v)
		}
	})
	return append(b, '}')
}

// end ends the engine's request.
func (c *conversation) end(r *request, tokens string) error {
	r.ask = c.settings(c.b, c.of(tokens))
	return nil
}

// numbered names the content of a message or an item in a refusal.
func numbered(element string, i int) string { return fmt.Sprintf("content of %s %d", element, i) }
