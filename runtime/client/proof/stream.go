package proof

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/runtime/receipt"
)

// event is one chunk of a streamed answer. Members that are not here belong to the API and are of no use here.
type event struct {
	Choices []struct {
		Delta delta `json:"delta"`
	} `json:"choices"`
	Chrysalis *proofs `json:"chrysalis"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// delta is a piece of an answer, or the whole of it.
type delta struct {
	Content   string `json:"content"`
	Reasoning string `json:"reasoning_content"`
	Calls     []struct {
		Index    int    `json:"index"`
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// Piece is a part of an answer as it comes. It is the guest's word: only the Answer is proven.
type Piece struct {
	Content   string
	Reasoning string // before the answer, from models that think aloud
}

// Read reads a streamed chat that answers u, calls each for every piece as it comes (each may be nil), and returns the answer once receipt
// and charge are verified. An error of each ends the answer and is in the chain of what Read returns. A *Cut tells of an answer that ended
// early, with what is proven of its beginning.
func Read(body io.Reader, u Untrusted, guest *attest.Result, each func(Piece) error) (*Answer, error) {
	s := stream{each: each, untrusted: u}
	ended := s.read(body)
	if ended != nil && (!errors.Is(ended, errEarly) || len(s.untrusted.Receipt) == 0) {
		if errors.Is(ended, errEarly) {
			return nil, &Cut{Says: s.says, err: ended}
		}
		return nil, fmt.Errorf("reading answer: %w", ended)
	}
	s.untrusted.Whole = ended == nil
	answer, err := Judge(s.untrusted, guest)
	if err != nil {
		return nil, err
	}
	if ended != nil {
		return nil, &Cut{Answer: answer, Says: s.says, err: ended}
	}
	return answer, nil
}

// Cut is an answer that ended early: the engine or the guest died, or the connection did.
type Cut struct {
	// Answer is what is proven of the text until then, and was charged for it. Nil when no proof came: what the guest has
	// recorded is then not known here.
	Answer *Answer
	Says   string // the guest's words: untrusted text; "" when it said nothing
	err    error
}

func (c *Cut) Error() string {
	if c.Says != "" {
		return fmt.Sprintf("the answer was cut: the guest says %q", c.Says)
	}
	return c.err.Error()
}

// Unwrap makes errors.Is find check.ErrUnavailable and what broke the connection.
func (c *Cut) Unwrap() error { return c.err }

// Bounds of what is read of a guest.
const (
	maxEventBytes  = 256 << 10
	maxAnswerBytes = 64 << 20
)

// stream collects an answer.
type stream struct {
	each          func(Piece) error
	untrusted     Untrusted
	text, thought strings.Builder
	says          string
}

// errEarly is in the chain of every error that says that the answer ended before its end mark.
var errEarly = fmt.Errorf("%w: the answer ended without its end mark: it was cut", check.ErrUnavailable)

// read reads server-sent events to the answer's end mark, and wants the end of the body behind it.
func (s *stream) read(body io.Reader) error {
	defer func() { s.untrusted.Content, s.untrusted.Reasoning = s.text.String(), s.thought.String() }()
	limited := &io.LimitedReader{R: body, N: maxAnswerBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 4096), maxEventBytes)
	done := false
	for lines.Scan() {
		line := lines.Text()
		data, ok := strings.CutPrefix(line, "data: ")
		switch {
		case line == "" || line[0] == ':':
			continue // what stands between events
		case !ok:
			return fmt.Errorf("%w: a line of %d bytes is no event", check.ErrRejected, len(line))
		case done:
			return fmt.Errorf("%w: an event after the end mark", check.ErrRejected)
		case data == "[DONE]":
			done = true
			continue
		}
		if err := s.take(data); err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%w: an event has more than %d bytes", check.ErrRejected, maxEventBytes)
	case limited.N == 0:
		return fmt.Errorf("%w: the answer has more than %d bytes", check.ErrRejected, maxAnswerBytes)
	case err != nil:
		return fmt.Errorf("%w: %w", errEarly, err)
	case !done:
		return errEarly
	}
	return nil
}

func (s *stream) take(data string) error {
	var e event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("%w: an event of %d bytes is no JSON of a chunk", check.ErrRejected, len(data)) // err would quote it
	}
	if len(e.Choices) > 1 {
		return fmt.Errorf("%w: an event has %d choices, want one answer", check.ErrRejected, len(e.Choices))
	}
	for _, choice := range e.Choices {
		if err := s.add(choice.Delta); err != nil {
			return err
		}
		if s.each != nil && (choice.Delta.Content != "" || choice.Delta.Reasoning != "") {
			if err := s.each(Piece{Content: choice.Delta.Content, Reasoning: choice.Delta.Reasoning}); err != nil {
				return err
			}
		}
	}
	if e.Error != nil {
		return s.broke(e.Error.Message, e.Chrysalis)
	}
	return s.prove(e.Chrysalis)
}

// add adds a piece of the answer to what there is.
func (s *stream) add(d delta) error {
	s.thought.WriteString(d.Reasoning)
	s.text.WriteString(d.Content)
	for _, c := range d.Calls {
		if err := s.call(c.Index, Call{c.ID, c.Function.Name, c.Function.Arguments}); err != nil {
			return err
		}
	}
	return nil
}

// call adds a piece of a call of a tool.
func (s *stream) call(index int, piece Call) error {
	calls := &s.untrusted.Calls
	if index < 0 || index > len(*calls) || index >= receipt.MaxCalls {
		return fmt.Errorf("%w: call %d of a tool after %d of them", check.ErrRejected, index, len(*calls))
	}
	if index == len(*calls) {
		*calls = append(*calls, Call{})
	}
	call := &(*calls)[index]
	call.ID, call.Name, call.Arguments = call.ID+piece.ID, call.Name+piece.Name, call.Arguments+piece.Arguments
	return nil
}

// broke keeps what a guest says of an answer that it could not end.
func (s *stream) broke(says string, p *proofs) error {
	if err := s.prove(p); err != nil {
		return err
	}
	s.says = says
	return errEarly
}
