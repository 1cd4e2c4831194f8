package gateway

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// answerWriter writes one answer as the clients of a dialect read it: the events of a stream, or the whole. What it returns of a stream is
// valid until its next call.
type answerWriter interface {
	// chunk returns the events of a piece of the answer.
	chunk(p piece) []byte
	// end returns the last events of a whole stream.
	end(u receipt.Usage, p receipt.Proof) []byte
	// failure returns the last event of a stream that was cut. p is nil when nothing was recorded.
	failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte
	// whole returns an answer that is not streamed. The caller wipes it.
	whole(s *said, u receipt.Usage, p receipt.Proof) []byte
	// wipe overwrites what is left of the text.
	wipe()
}

// answerJSON writes one answer as OpenAI's clients read it: the events of a stream, or the whole. What it returns of a stream
// is valid until its next call.
type answerJSON struct {
	names    []byte // what every object begins with: the answer's id, its time, the model
	event    []byte // the event that is built
	roleSent bool
}

func newAnswerJSON(id [16]byte, began time.Time, model string, _ *said) answerWriter {
	return &answerJSON{
		names: quote([]byte(`"id":"chatcmpl-`+hex.EncodeToString(id[:])+`","created":`+strconv.FormatInt(began.Unix(), 10)+`,"model":`), model),
		event: make([]byte, 0, 4096),
	}
}

// start begins an event of the stream, with room for what an engine's event of so many bytes becomes.
func (j *answerJSON) start(size int) []byte {
	if want := len(j.names) + 1024 + 2*size; cap(j.event) < want { // grown by hand: what append leaves behind would not be wiped
		j.wipe()
		j.event = make([]byte, 0, want)
	}
	return append(append(j.event[:0], `data: {"object":"chat.completion.chunk",`...), j.names...)
}

// piece is what an event of a stream tells.
type piece struct {
	thought, text jsontext.Value
	calls         []callPiece
	logprobs      []tokenLogprob
	finish        string // the reason for which the answer ends here, or ""
	size          int    // bytes of the engine's event
}

// chunk returns one event with a piece of the answer.
func (j *answerJSON) chunk(p piece) []byte {
	b := append(j.start(p.size), `,"choices":[{"index":0,"delta":{`...)
	comma := func() {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
	}
	if !j.roleSent {
		j.roleSent = true
		b = append(b, `"role":"assistant"`...)
	}
	if isText(p.thought) {
		comma()
		b = append(append(b, `"reasoning_content":`...), p.thought...)
	}
	if isText(p.text) {
		comma()
		b = append(append(b, `"content":`...), p.text...)
	}
	if len(p.calls) > 0 {
		comma()
		b = append(b, `"tool_calls":[`...)
		for i, c := range p.calls {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendCallPiece(b, c)
		}
		b = append(b, ']')
	}
	b = append(b, '}')
	if len(p.logprobs) > 0 {
		b = append(appendLogprobs(append(b, `,"logprobs":{"content":[`...), p.logprobs), "]}"...)
	}
	b = append(b, `,"finish_reason":`...)
	if p.finish != "" {
		b = quote(b, p.finish)
	} else {
		b = append(b, "null"...)
	}
	j.event = append(b, "}]}\n\n"...)
	return j.event
}

func appendCallPiece(b []byte, c callPiece) []byte {
	b = strconv.AppendUint(append(b, `{"index":`...), uint64(c.Index), 10)
	if isText(c.ID) {
		b = append(append(append(b, `,"id":`...), c.ID...), `,"type":"function"`...)
	}
	b = append(b, `,"function":{`...)
	if isText(c.Function.Name) {
		b = append(append(b, `"name":`...), c.Function.Name...)
	}
	if c.Function.Arguments.Kind() == '"' {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(append(b, `"arguments":`...), c.Function.Arguments...)
	}
	return append(b, "}}"...)
}

// appendLogprobs appends tokens without the engine's numbers for them.
func appendLogprobs(b []byte, tokens []tokenLogprob) []byte {
	one := func(token, logprob, bytes jsontext.Value) {
		b = append(append(b, `{"token":`...), orNull(token)...)
		b = append(append(b, `,"logprob":`...), orNull(logprob)...)
		b = append(append(b, `,"bytes":`...), orNull(bytes)...)
	}
	for i, t := range tokens {
		if i > 0 {
			b = append(b, ',')
		}
		one(t.Token, t.Logprob, t.Bytes)
		b = append(b, `,"top_logprobs":[`...)
		for k, other := range t.Top {
			if k > 0 {
				b = append(b, ',')
			}
			one(other.Token, other.Logprob, other.Bytes)
			b = append(b, '}')
		}
		b = append(b, "]}"...)
	}
	return b
}

func orNull(v jsontext.Value) jsontext.Value {
	if len(v) == 0 {
		return jsontext.Value("null")
	}
	return v
}

// end returns the last event of a whole stream, and its [DONE].
func (j *answerJSON) end(u receipt.Usage, p receipt.Proof) []byte {
	b := appendEnd(append(j.start(0), `,"choices":[]`...), u, p)
	j.event = append(b, "}\n\ndata: [DONE]\n\n"...)
	return j.event
}

// failure returns the last event of a stream that was cut. p is nil when nothing was recorded.
func (j *answerJSON) failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte {
	b := append(append(j.event[:0], `data: {"error":`...), why.object(id)...)
	if p != nil {
		b = appendEnd(b, u, *p)
	}
	j.event = append(b, "}\n\n"...)
	return j.event
}

// whole returns an answer that is not streamed. The caller wipes it.
func (j *answerJSON) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	// Large enough for the text with each byte escaped: a copy that is left behind would not be wiped.
	size := 4096 + 6*(len(s.thoughts)+len(s.content)) + len(s.logprobs)
	for _, c := range s.calls {
		size += 128 + len(c.id) + len(c.name) + 6*len(c.arguments)
	}
	b := make([]byte, 0, size)
	b = append(append(append(b, `{"object":"chat.completion",`...), j.names...), `,"choices":[{"index":0,"message":{"role":"assistant"`...)
	if len(s.thoughts) > 0 {
		b = quote(append(b, `,"reasoning_content":`...), s.thoughts)
	}
	if b = append(b, `,"content":`...); len(s.content) == 0 && len(s.calls) > 0 {
		b = append(b, "null"...)
	} else {
		b = quote(b, s.content)
	}
	for i, c := range s.calls {
		if i == 0 {
			b = append(b, `,"tool_calls":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(append(b, `{"id":`...), c.id...)
		b = append(append(b, `,"type":"function","function":{"name":`...), c.name...)
		b = append(quote(append(b, `,"arguments":`...), c.arguments), "}}"...)
		if i == len(s.calls)-1 {
			b = append(b, ']')
		}
	}
	b = append(b, '}')
	if len(s.logprobs) > 0 {
		b = append(append(append(b, `,"logprobs":{"content":[`...), s.logprobs...), "]}"...)
	}
	b = append(quote(append(b, `,"finish_reason":`...), s.finish), '}')
	return append(appendEnd(append(b, ']'), u, p), "}\n"...)
}

// appendEnd appends usage and proof.
func appendEnd(b []byte, u receipt.Usage, p receipt.Proof) []byte {
	b = append(b, `,"usage":{"prompt_tokens":`...)
	b = strconv.AppendUint(b, uint64(u.Prompt), 10)
	b = strconv.AppendUint(append(b, `,"completion_tokens":`...), uint64(u.Completion), 10)
	b = strconv.AppendUint(append(b, `,"total_tokens":`...), uint64(u.Prompt)+uint64(u.Completion), 10)
	return appendProof(append(b, '}'), p)
}

// wipe overwrites what is left of the text.
func (j *answerJSON) wipe() { clear(j.event[:cap(j.event)]) }
