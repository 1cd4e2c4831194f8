package gateway

import (
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// chatAnswer writes an answer as chat completions have it.
type chatAnswer struct {
	events
	names    []byte // what every object begins with: the answer's id, its time, the model
	event    string // what an event of a stream is called
	roleSent bool
}

func newChatAnswer(id string, began time.Time, model string, _ *said) answerWriter {
	return &chatAnswer{names: objectNames(id, began, model), event: "chat.completion.chunk"}
}

func objectNames(id string, began time.Time, model string) []byte {
	return quote([]byte(`"id":"`+id+`","created":`+strconv.FormatInt(began.Unix(), 10)+`,"model":`), model)
}

// start begins an event of the stream, with room for what an engine's event of so many bytes becomes.
func (j *chatAnswer) start(size int) []byte {
	return append(append(append(append(j.room(2*size), `data: {"object":"`...), j.event...), `",`...), j.names...)
}

func (j *chatAnswer) chunk(p piece) []byte {
	b := append(j.start(p.size), `,"choices":[{"index":0,"delta":{`...)
	if !j.roleSent {
		j.roleSent = true
		b = append(b, `"role":"assistant"`...)
	}
	if isText(p.thought) {
		b = appendMember(b, "reasoning_content", p.thought)
	}
	if isText(p.text) {
		b = appendMember(b, "content", p.text)
	}
	if len(p.calls) > 0 {
		b = append(comma(b), `"tool_calls":[`...)
		for _, c := range p.calls {
			b = appendCallPiece(comma(b), c)
		}
		b = append(b, ']')
	}
	b = append(b, '}')
	if len(p.logprobs) > 0 {
		b = append(appendLogprobs(append(b, `,"logprobs":{"content":[`...), p.logprobs), "]}"...)
	}
	return j.built(append(appendFinish(b, p.finish), "}]}\n\n"...))
}

// appendFinish appends the reason for which an answer ends, null where it goes on.
func appendFinish(b []byte, reason string) []byte {
	if b = append(b, `,"finish_reason":`...); reason == "" {
		return append(b, "null"...)
	}
	return quote(b, reason)
}

func appendCallPiece(b []byte, c callPiece) []byte {
	b = strconv.AppendUint(append(b, `{"index":`...), uint64(c.Index), 10)
	if isText(c.ID) {
		b = append(appendMember(b, "id", c.ID), `,"type":"function"`...)
	}
	b = append(b, `,"function":{`...)
	if isText(c.Function.Name) {
		b = appendMember(b, "name", c.Function.Name)
	}
	if c.Function.Arguments.Kind() == '"' {
		b = appendMember(b, "arguments", c.Function.Arguments)
	}
	return append(b, "}}"...)
}

// appendLogprobs appends tokens without the engine's numbers for them.
func appendLogprobs(b []byte, tokens []tokenLogprob) []byte {
	one := func(token, logprob, bytes jsontext.Value) {
		b = append(comma(b), '{')
		for _, m := range []struct {
			name string
			v    jsontext.Value
		}{{"token", token}, {"logprob", logprob}, {"bytes", bytes}} {
			if len(m.v) == 0 {
				m.v = jsontext.Value("null")
			}
			b = appendMember(b, m.name, m.v)
		}
	}
	for _, t := range tokens {
		one(t.Token, t.Logprob, t.Bytes)
		b = append(b, `,"top_logprobs":[`...)
		for _, other := range t.Top {
			one(other.Token, other.Logprob, other.Bytes)
			b = append(b, '}')
		}
		b = append(b, "]}"...)
	}
	return b
}

func (j *chatAnswer) end(u receipt.Usage, p receipt.Proof) []byte {
	b := appendEnd(append(j.start(0), `,"choices":[]`...), u, p)
	return j.built(append(b, "}\n\ndata: [DONE]\n\n"...))
}

func (j *chatAnswer) failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte {
	b := append(append(j.room(0), `data: {"error":`...), why.object(id)...)
	if p != nil {
		b = appendEnd(b, u, *p)
	}
	return j.built(append(b, "}\n\n"...))
}

func (j *chatAnswer) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	b := make([]byte, 0, eventHead+s.size())
	b = append(append(append(b, `{"object":"chat.completion",`...), j.names...), `,"choices":[{"index":0,"message":{"role":"assistant"`...)
	if len(s.thoughts) > 0 {
		b = quote(append(b, `,"reasoning_content":`...), s.thoughts)
	}
	if b = append(b, `,"content":`...); len(s.content) == 0 && len(s.calls) > 0 {
		b = append(b, "null"...)
	} else {
		b = quote(b, s.content)
	}
	if len(s.calls) > 0 {
		b = append(b, `,"tool_calls":[`...)
		for _, c := range s.calls {
			b = append(appendMember(append(comma(b), '{'), "id", c.id), `,"type":"function","function":{`...)
			b = append(quote(append(appendMember(b, "name", c.name), `,"arguments":`...), c.arguments), "}}"...)
		}
		b = append(b, ']')
	}
	b = append(b, '}')
	if len(s.logprobs) > 0 {
		b = append(append(append(b, `,"logprobs":{"content":[`...), s.logprobs...), "]}"...)
	}
	b = append(appendFinish(b, s.finish), '}')
	return append(appendEnd(append(b, ']'), u, p), "}\n"...)
}

// appendEnd appends usage and proof.
func appendEnd(b []byte, u receipt.Usage, p receipt.Proof) []byte {
	b = fmt.Appendf(b, `,"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, u.Prompt, u.Completion, u.Total())
	return appendProof(b, p)
}
