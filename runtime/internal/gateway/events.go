package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// chunk is what is read of an engine's event. Everything else in it (timings, its ids, its own name of the model) tells of
// the machine and of other clients, and goes no further.
type chunk struct {
	Choices []struct {
		Delta struct {
			Content   jsontext.Value `json:"content"`
			Reasoning jsontext.Value `json:"reasoning_content"`
		} `json:"delta"`
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
	} `json:"usage"`
	// Progress is llama-server's: it tells the prompt's tokens before the first one of the answer.
	Progress *struct {
		Total uint32 `json:"total"`
	} `json:"prompt_progress"`
	Error jsontext.Value `json:"error"`
}

func (c *chunk) usage() receipt.Usage {
	u := receipt.Usage{Prompt: c.Usage.Prompt, Completion: c.Usage.Completion}
	if d := c.Usage.PromptDetails; d != nil {
		u.Cached = min(d.Cached, u.Prompt)
	}
	if d := c.Usage.CompletionDetails; d != nil {
		u.Reasoning = min(d.Reasoning, u.Completion)
	}
	return u
}

// errEngineEvent says that the engine itself reported an error in its stream.
var errEngineEvent = errors.New("the engine reported an error")

// maxEventBytes bounds one line of the engine's stream.
const maxEventBytes = 64 << 10

// events reads an engine's stream of server-sent events. It has a buffer of its own, so that the answer can be wiped.
type events struct {
	r          io.Reader
	buf        []byte
	start, end int // what has been read and not yet been taken
	seen       int // of that, what is known to hold no line's end
}

func newEvents(r io.Reader) *events { return &events{r: r, buf: make([]byte, maxEventBytes)} }

var (
	dataPrefix = []byte("data: ")
	doneEvent  = []byte("[DONE]")
)

// next reads one event into c, whose values point into the buffer until the next call. It returns io.EOF at the stream's
// proper end alone; a stream that just stops is io.ErrUnexpectedEOF.
func (e *events) next(c *chunk) error {
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
		*c = chunk{Choices: c.Choices[:0]}
		if err := json.Unmarshal(data, c); err != nil {
			return errors.New("reading the engine's answer: an event is no JSON of a chunk") // err would quote it
		}
		if c.Error != nil {
			return errEngineEvent
		}
		return nil
	}
}

// line returns the next line without its end.
func (e *events) line() ([]byte, error) {
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
		if n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("reading the engine's answer: %w", err)
		}
	}
}

// waiting reports whether a whole line has been read ahead.
func (e *events) waiting() bool { return bytes.IndexByte(e.buf[e.start:e.end], '\n') >= 0 }

// wipe overwrites what the buffer holds of the answer.
func (e *events) wipe() { clear(e.buf) }
