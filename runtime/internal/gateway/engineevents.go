package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// chunk is what is read of an engine's event. Everything else in it (timings, its ids, its own name of the model) tells of
// the machine and of other clients, and goes no further.
type chunk struct {
	Choices []struct {
		Text  jsontext.Value `json:"text"` // in place of delta, where a text goes on
		Delta struct {
			Content   jsontext.Value `json:"content"`
			Reasoning jsontext.Value `json:"reasoning_content"`
			Thought   jsontext.Value `json:"reasoning"` // the same, as newer engines call it
			Calls     []callPiece    `json:"tool_calls"`
		} `json:"delta"`
		Logprobs *struct {
			Content []tokenLogprob `json:"content"`
		} `json:"logprobs"`
		FinishReason *string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt        uint32 `json:"prompt_tokens"`
		Completion    uint32 `json:"completion_tokens"`
		PromptDetails *struct {
			Cached uint32 `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
		CompletionDetails *struct {
			Reasoning uint32 `json:"reasoning_tokens"`
		} `json:"completion_tokens_details"`
		Reasoning uint32 `json:"reasoning_tokens"` // in that place of SGLang's
	} `json:"usage"`
	// Progress is llama-server's: it tells the prompt's tokens before the first one of the answer.
	Progress *struct {
		Total uint32 `json:"total"`
	} `json:"prompt_progress"`
	Error jsontext.Value `json:"error"`

	size int // bytes of the event
}

// callPiece is a piece of a call of a tool: its first one has id and name, the others more of the arguments.
type callPiece struct {
	Index    uint8          `json:"index"`
	ID       jsontext.Value `json:"id"`
	Function struct {
		Name      jsontext.Value `json:"name"`
		Arguments jsontext.Value `json:"arguments"`
	} `json:"function"`
}

// tokenLogprob is a token with its probability, and those that were likely in its place.
type tokenLogprob struct {
	Token   jsontext.Value `json:"token"`
	Logprob jsontext.Value `json:"logprob"`
	Bytes   jsontext.Value `json:"bytes"`
	Top     []struct {
		Token   jsontext.Value `json:"token"`
		Logprob jsontext.Value `json:"logprob"`
		Bytes   jsontext.Value `json:"bytes"`
	} `json:"top_logprobs"`
}

// text returns where the first choice has its text.
func (c *chunk) text() *jsontext.Value {
	if choice := &c.Choices[0]; choice.Text != nil {
		return &choice.Text
	}
	return &c.Choices[0].Delta.Content
}

// thought returns what the first choice has of reasoning.
func (c *chunk) thought() jsontext.Value {
	if d := &c.Choices[0].Delta; !isText(d.Reasoning) {
		return d.Thought
	}
	return c.Choices[0].Delta.Reasoning
}

func (c *chunk) usage() receipt.Usage {
	u := receipt.Usage{Prompt: c.Usage.Prompt, Completion: c.Usage.Completion}
	if d := c.Usage.PromptDetails; d != nil {
		u.Cached = min(d.Cached, u.Prompt)
	}
	u.Reasoning = min(c.Usage.Reasoning, u.Completion)
	if d := c.Usage.CompletionDetails; d != nil {
		u.Reasoning = min(d.Reasoning, u.Completion)
	}
	return u
}

// errEngineEvent says that the engine itself reported an error in its stream.
var errEngineEvent = errors.New("the engine reported an error")

// maxEventBytes bounds one line of the engine's stream.
const maxEventBytes = 64 << 10

// engineEvents reads an engine's stream of server-sent events. It has a buffer of its own, so that the answer can be wiped.
type engineEvents struct {
	r          io.Reader
	buf        []byte
	start, end int // what has been read and not yet been taken
	seen       int // of that, what is known to hold no line's end
	used       int // of buf, what was ever written to
	// An engine's chunks of one answer differ in a short piece of text alone. What stands around that piece in a chunk
	// that was parsed whole is kept, and a chunk with the same surroundings and a valid string between them is not parsed
	// again.
	before, after []byte
}

// eventBuffers are wiped before they come here.
var eventBuffers = sync.Pool{New: func() any { return new([maxEventBytes]byte) }}

func newEngineEvents(r io.Reader) *engineEvents {
	return &engineEvents{r: r, buf: eventBuffers.Get().(*[maxEventBytes]byte)[:]}
}

var (
	dataPrefix = []byte("data: ")
	doneEvent  = []byte("[DONE]")
)

// next reads one event into c, whose values point into the buffer until the next call. It returns io.EOF at the stream's
// proper end alone; a stream that just stops is io.ErrUnexpectedEOF.
func (e *engineEvents) next(c *chunk) error {
	for {
		line, err := e.line()
		if err != nil {
			return err
		}
		data, ok := bytes.CutPrefix(line, dataPrefix)
		switch {
		case len(line) == 0 || line[0] == ':':
			continue
		case bytes.HasPrefix(line, []byte("error: ")):
			return errEngineEvent
		case !ok:
			return fmt.Errorf("reading the engine's answer: a line of %d bytes is no event", len(line))
		case bytes.Equal(data, doneEvent):
			return io.EOF
		}
		if e.again(data, c) {
			c.size = len(data)
			return nil
		}
		*c = chunk{Choices: c.Choices[:0], size: len(data)}
		if err := json.Unmarshal(data, c); err != nil {
			return errors.New("reading the engine's answer: an event is no JSON of a chunk") // err would quote it
		}
		if c.Error != nil {
			return errEngineEvent
		}
		e.remember(data, c)
		return nil
	}
}

var contentName, textName = []byte(`"content":`), []byte(`"text":`)

// remember keeps the surroundings of the text if nothing else is in the chunk that could differ.
func (e *engineEvents) remember(data []byte, c *chunk) {
	e.before, e.after = e.before[:0], e.after[:0]
	if len(c.Choices) != 1 || c.Usage != nil || c.Progress != nil || c.Choices[0].FinishReason != nil ||
		c.Choices[0].Logprobs != nil || len(c.Choices[0].Delta.Calls) != 0 || len(c.Choices[0].Delta.Reasoning) != 0 || len(c.Choices[0].Delta.Thought) != 0 {
		return
	}
	name, said := contentName, *c.text()
	if c.Choices[0].Text != nil {
		name = textName
	}
	if said.Kind() != '"' || bytes.Count(data, name) != 1 {
		return
	}
	text := bytes.Index(data, name) + len(name)
	if rest, ok := bytes.CutPrefix(data[text:], said); ok {
		e.before, e.after = append(e.before, data[:text]...), append(e.after, rest...)
	}
}

// again puts the text of a chunk into c, which holds the parsed chunk before, if everything else is the same.
func (e *engineEvents) again(data []byte, c *chunk) bool {
	if len(e.before) == 0 || !bytes.HasPrefix(data, e.before) || !bytes.HasSuffix(data, e.after) || len(data) < len(e.before)+len(e.after) {
		return false
	}
	text := jsontext.Value(data[len(e.before) : len(data)-len(e.after)])
	if len(text) < 2 || text[0] != '"' || !text.IsValid() {
		return false
	}
	*c.text() = text
	return true
}

// line returns the next line without its end.
func (e *engineEvents) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(e.buf[e.start+e.seen:e.end], '\n'); i >= 0 {
			line := e.buf[e.start : e.start+e.seen+i]
			e.start, e.seen = e.start+e.seen+i+1, 0
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		e.seen = e.end - e.start
		if e.start > 0 {
			copy(e.buf, e.buf[e.start:e.end])
			e.start, e.end = 0, e.end-e.start
		}
		if e.end == len(e.buf) {
			return nil, fmt.Errorf("reading the engine's answer: a line has more than %d bytes", len(e.buf))
		}
		n, err := e.r.Read(e.buf[e.end:])
		e.end += n
		e.used = max(e.used, e.end)
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("reading the engine's answer: %w", err)
		}
	}
}

// wipe overwrites what the buffer holds of the answer and gives it to the next one.
func (e *engineEvents) wipe() {
	clear(e.buf[:e.used])
	eventBuffers.Put((*[maxEventBytes]byte)(e.buf))
	e.buf = nil
}
