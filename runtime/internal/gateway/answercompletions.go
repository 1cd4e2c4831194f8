package gateway

import (
	"time"

	"chrysalis/runtime/receipt"
)

// completionsAnswer writes an answer as completions have it: chat completions whose choices are texts.
type completionsAnswer struct{ chatAnswer }

func newCompletionsAnswer(id string, began time.Time, model string, _ *said) answerWriter {
	return &completionsAnswer{chatAnswer{names: objectNames(id, began, model), event: "text_completion"}}
}

func (j *completionsAnswer) chunk(p piece) []byte {
	b := append(j.start(p.size), `,"choices":[{"index":0`...)
	if p.text == nil {
		b = append(b, `,"text":""`...)
	} else {
		b = appendMember(b, "text", p.text)
	}
	return j.built(append(appendFinish(append(b, `,"logprobs":null`...), p.finish), "}]}\n\n"...))
}

func (j *completionsAnswer) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	b := append(append(make([]byte, 0, eventHead+s.size()), `{"object":"text_completion",`...), j.names...)
	b = quote(append(b, `,"choices":[{"index":0,"text":`...), s.content)
	b = append(appendFinish(append(b, `,"logprobs":null`...), s.finish), "}]"...)
	return append(appendEnd(b, u, p), "}\n"...)
}
