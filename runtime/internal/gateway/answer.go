package gateway

import (
	"encoding/base64"

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

// piece is what an event of a stream tells.
type piece struct {
	thought, text jsontext.Value
	calls         []callPiece
	logprobs      []tokenLogprob
	finish        string // the reason for which the answer ends here, or ""
	size          int    // bytes of the engine's event
}

// said is what was said of an answer, as far as it is kept.
type said struct {
	content, thoughts []byte
	logprobs          []byte // JSON of the tokens, with commas between
	calls             []call
	finish            string
}

// call is a call of a tool, which is kept of a streamed answer too, but for its arguments.
type call struct {
	id, name  []byte // JSON strings
	arguments []byte // text
}

// size bounds what was said as JSON, with each byte escaped.
func (s *said) size() int {
	n := 6*(len(s.thoughts)+len(s.content)) + len(s.logprobs)
	for _, c := range s.calls {
		n += 512 + len(c.id) + len(c.name) + 6*len(c.arguments)
	}
	return n
}

// wipe overwrites what was said.
func (s *said) wipe() {
	for _, b := range [][]byte{s.content, s.thoughts, s.logprobs} {
		clear(b[:cap(b)])
	}
	for _, c := range s.calls {
		for _, b := range [][]byte{c.id, c.name, c.arguments} {
			clear(b[:cap(b)])
		}
	}
}

// eventHead is room for what stands in an answer beside what was said.
const eventHead = 8 << 10

// events is the memory in which the events of a stream are built.
type events struct{ buf []byte }

// room returns the memory, empty, with room for n bytes beside eventHead. It is grown by hand: what append leaves behind would not be
// wiped.
func (e *events) room(n int) []byte {
	if n += eventHead; cap(e.buf) < n {
		e.wipe()
		e.buf = make([]byte, 0, n)
	}
	return e.buf[:0]
}

// built returns an event, and keeps it to be wiped.
func (e *events) built(b []byte) []byte {
	e.buf = b
	return b
}

func (e *events) wipe() { clear(e.buf[:cap(e.buf)]) }

// typed begins an event that has its type in its name and in its data.
func typed(b []byte, kind string) []byte {
	b = append(append(append(b, "event: "...), kind...), "\ndata: {\"type\":\""...)
	return append(append(b, kind...), '"')
}

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
