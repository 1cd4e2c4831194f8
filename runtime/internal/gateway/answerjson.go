package gateway

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// answerJSON writes one answer as OpenAI's clients read it: the events of a stream, or the whole. What it returns of a stream
// is valid until its next call.
type answerJSON struct {
	names    []byte // what every object begins with: the answer's id, its time, the model
	event    []byte // the event that is built
	roleSent bool
}

func newAnswerJSON(id [16]byte, began time.Time, model string) *answerJSON {
	return &answerJSON{
		names: quote([]byte(`"id":"chatcmpl-`+hex.EncodeToString(id[:])+`","created":`+strconv.FormatInt(began.Unix(), 10)+`,"model":`), model),
		event: make([]byte, 0, 4096),
	}
}

// start begins an event of the stream.
func (j *answerJSON) start() []byte {
	return append(append(j.event[:0], `data: {"object":"chat.completion.chunk",`...), j.names...)
}

// chunk returns one event with a piece of the answer. finish is the reason for which the answer ends here, or "".
func (j *answerJSON) chunk(thought, text jsontext.Value, finish string) []byte {
	b := append(j.start(), `,"choices":[{"index":0,"delta":{`...)
	comma := func() {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
	}
	if !j.roleSent {
		j.roleSent = true
		b = append(b, `"role":"assistant"`...)
	}
	if isText(thought) {
		comma()
		b = append(append(b, `"reasoning_content":`...), thought...)
	}
	if isText(text) {
		comma()
		b = append(append(b, `"content":`...), text...)
	}
	b = append(b, `},"finish_reason":`...)
	if finish != "" {
		b = quote(b, finish)
	} else {
		b = append(b, "null"...)
	}
	j.event = append(b, "}]}\n\n"...)
	return j.event
}

// end returns the last event of a whole stream, and its [DONE].
func (j *answerJSON) end(u receipt.Usage, p receipt.Proof) []byte {
	b := appendEnd(append(j.start(), `,"choices":[]`...), u, p)
	j.event = append(b, "}\n\ndata: [DONE]\n\n"...)
	return j.event
}

// failure returns the last event of a stream that was cut. p is nil when nothing was recorded.
func (j *answerJSON) failure(why *refusal, u receipt.Usage, p *receipt.Proof) []byte {
	b := append(append(j.event[:0], `data: {"error":`...), why.object()...)
	if p != nil {
		b = appendEnd(b, u, *p)
	}
	j.event = append(b, "}\n\n"...)
	return j.event
}

// whole returns an answer that is not streamed. The caller wipes it.
func (j *answerJSON) whole(thoughts, content []byte, finish string, u receipt.Usage, p receipt.Proof) []byte {
	// Large enough for the text with each byte escaped: a copy that is left behind would not be wiped.
	b := make([]byte, 0, 4096+6*(len(thoughts)+len(content)))
	b = append(append(append(b, `{"object":"chat.completion",`...), j.names...), `,"choices":[{"index":0,"message":{"role":"assistant"`...)
	if len(thoughts) > 0 {
		b = quote(append(b, `,"reasoning_content":`...), thoughts)
	}
	b = quote(append(b, `,"content":`...), content)
	b = quote(append(b, `},"finish_reason":`...), finish)
	return append(appendEnd(append(b, "}]"...), u, p), "}\n"...)
}

// appendEnd appends usage and proof.
func appendEnd(b []byte, u receipt.Usage, p receipt.Proof) []byte {
	b = append(b, `,"usage":{"prompt_tokens":`...)
	b = strconv.AppendUint(b, uint64(u.Prompt), 10)
	b = strconv.AppendUint(append(b, `,"completion_tokens":`...), uint64(u.Completion), 10)
	b = strconv.AppendUint(append(b, `,"total_tokens":`...), uint64(u.Prompt)+uint64(u.Completion), 10)
	b = base64.StdEncoding.AppendEncode(append(b, `},"chrysalis":{"receipt":"`...), p.Receipt[:])
	b = append(b, '"')
	if p.Charge != nil {
		b = base64.StdEncoding.AppendEncode(append(b, `,"charge":"`...), p.Charge[:])
		b = append(b, '"')
	}
	return append(b, '}')
}

// wipe overwrites what is left of the text.
func (j *answerJSON) wipe() { clear(j.event[:cap(j.event)]) }
