package gateway

import (
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// messagesAnswer writes an answer as the Messages API has it: blocks, each opened, filled and closed.
type messagesAnswer struct {
	events
	head  []byte // members that the message begins with
	begun bool
	open  string // kind of the block that is filled, "" before the first
	call  int    // which call
	n     int    // blocks so far
	said  *said
}

func newMessagesAnswer(id string, _ time.Time, model string, said *said) answerWriter {
	head := `"id":"` + id + `","type":"message","role":"assistant","model":`
	return &messagesAnswer{head: quote([]byte(head), model), said: said}
}

func (j *messagesAnswer) started(b []byte) []byte {
	if j.begun {
		return b
	}
	j.begun = true
	b = append(append(typed(b, "message_start"), `,"message":{`...), j.head...)
	return append(b, `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}`+"\n\n"...)
}

// ofBlock begins an event of the block that is filled.
func (j *messagesAnswer) ofBlock(b []byte, kind string) []byte {
	return strconv.AppendInt(append(typed(b, kind), `,"index":`...), int64(j.n-1), 10)
}

// enter makes a block the one that is filled.
func (j *messagesAnswer) enter(b []byte, kind string, call int) []byte {
	if j.open == kind && j.call == call {
		return b
	}
	b = j.leave(b)
	j.open, j.call = kind, call
	j.n++
	b = append(j.ofBlock(b, "content_block_start"), `,"content_block":`...)
	switch kind {
	case "thinking":
		b = append(b, `{"type":"thinking","thinking":"","signature":""}`...)
	case "text":
		b = append(b, `{"type":"text","text":""}`...)
	default:
		b = append(appendToolUse(b, j.said.calls[call]), "{}}"...)
	}
	return append(b, "}\n\n"...)
}

// appendToolUse begins a block that calls a tool, up to its input.
func appendToolUse(b []byte, c call) []byte {
	return append(appendMember(appendMember(append(b, `{"type":"tool_use"`...), "id", c.id), "name", c.name), `,"input":`...)
}

func (j *messagesAnswer) leave(b []byte) []byte {
	if j.open == "" {
		return b
	}
	return append(j.ofBlock(b, "content_block_stop"), "}\n\n"...)
}

func (j *messagesAnswer) delta(b []byte, kind, name string, v jsontext.Value) []byte {
	b = append(append(append(j.ofBlock(b, "content_block_delta"), `,"delta":{"type":"`...), kind...), '"')
	return append(appendMember(b, name, v), "}}\n\n"...)
}

func (j *messagesAnswer) chunk(p piece) []byte {
	b := j.started(j.room(2*p.size + 1024*len(p.calls)))
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
	return j.built(b)
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

func appendMessagesUsage(b []byte, u receipt.Usage) []byte {
	// The prompt's tokens are told without those that came from a cache.
	return fmt.Appendf(b, `,"usage":{"input_tokens":%d,"cache_read_input_tokens":%d,"output_tokens":%d}`,
		u.Prompt-u.Cached, u.Cached, u.Completion)
}

func (j *messagesAnswer) end(u receipt.Usage, p receipt.Proof) []byte {
	b := typed(j.leave(j.started(j.room(0))), "message_delta")
	b = fmt.Appendf(b, `,"delta":{"stop_reason":%q,"stop_sequence":null}`, stopReason(j.said.finish))
	b = append(appendProof(appendMessagesUsage(b, u), p), "}\n\n"...)
	return j.built(append(typed(b, "message_stop"), "}\n\n"...))
}

func (j *messagesAnswer) failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte {
	b := append(append(typed(j.room(0), "error"), `,"error":`...), why.object(id)...)
	if p != nil {
		b = appendProof(appendMessagesUsage(b, u), *p)
	}
	return j.built(append(b, "}\n\n"...))
}

func (j *messagesAnswer) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	b := append(append(append(make([]byte, 0, eventHead+s.size()), '{'), j.head...), `,"content":[`...)
	if len(s.thoughts) > 0 {
		b = append(quote(append(b, `{"type":"thinking","thinking":`...), s.thoughts), `,"signature":""}`...)
	}
	if len(s.content) > 0 || len(s.calls) == 0 {
		b = append(quote(append(comma(b), `{"type":"text","text":`...), s.content), '}')
	}
	for _, c := range s.calls {
		b = appendToolUse(comma(b), c)
		if v := jsontext.Value(c.arguments); v.IsValid() && v.Kind() == '{' {
			b = append(b, v...)
		} else { // what the model wrote is no object, as where it was cut
			b = append(quote(append(b, `{"arguments":`...), c.arguments), '}')
		}
		b = append(b, '}')
	}
	b = fmt.Appendf(b, `],"stop_reason":%q,"stop_sequence":null`, stopReason(s.finish))
	return append(appendProof(appendMessagesUsage(b, u), p), "}\n"...)
}
