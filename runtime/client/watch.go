package client

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/measure/ton"
)

// Watched is an answer of chat completions that passes on to somebody else, and is judged on its way: the end mark of a streamed
// answer is not passed on, and nothing of one in a single piece, before the proof holds.
type Watched struct {
	guest    *attest.Result
	stream   stream
	streamed bool
	body     *bufio.Reader
	read     int64
	done     bool
	answer   *Answer
}

// Watch watches an answer to a request with this body, in the name of payer, by a guest.
func Watch(body io.Reader, streamed bool, request []byte, payer ton.Address, guest *attest.Result) *Watched {
	return &Watched{guest: guest, streamed: streamed, body: bufio.NewReaderSize(body, maxEventBytes),
		stream: stream{untrusted: Untrusted{Request: request, Payer: payer}}}
}

// Next returns what may be passed on next: an event with the empty line behind it, or the whole of an answer that is not streamed. It
// is valid until the next call. The error is io.EOF at the end of an answer that is proven whole, and a *Cut at the end of one that
// is not whole, as with Ask; then all that came was passed on.
func (w *Watched) Next() ([]byte, error) {
	if !w.streamed {
		return w.whole()
	}
	var event []byte
	for {
		line, err := w.body.ReadSlice('\n')
		if w.read += int64(len(line)); errors.Is(err, bufio.ErrBufferFull) || len(event)+len(line) > maxEventBytes || w.read > maxAnswerBytes {
			return nil, fmt.Errorf("reading answer: %w: an event of more than %d bytes, or an answer of more than %d", check.ErrRejected, maxEventBytes, maxAnswerBytes)
		}
		if err == io.EOF && len(line) == 0 && len(event) == 0 {
			return nil, w.ended(nil)
		}
		if err != nil {
			return nil, w.ended(err)
		}
		event = append(event, line...)
		text := strings.TrimRight(string(line), "\r\n")
		data, ok := strings.CutPrefix(text, "data: ")
		switch {
		case text == "":
			return event, nil
		case text[0] == ':':
		case !ok:
			return nil, fmt.Errorf("reading answer: %w: a line of %d bytes is no event", check.ErrRejected, len(line))
		case w.done:
			return nil, fmt.Errorf("reading answer: %w: an event after the end mark", check.ErrRejected)
		case data == "[DONE]":
			w.done = true
			if err := w.judge(true); err != nil {
				return nil, err
			}
		default:
			if err := w.stream.take(data); err != nil && !errors.Is(err, errEarly) {
				return nil, fmt.Errorf("reading answer: %w", err)
			}
		}
	}
}

// ended tells how a stream has ended.
func (w *Watched) ended(broken error) error {
	if w.done && broken == nil {
		return io.EOF
	}
	cut := &Cut{Says: w.stream.says, err: errEarly}
	if broken != nil && broken != io.EOF {
		cut.err = fmt.Errorf("%w: %w", errEarly, broken)
	}
	if len(w.stream.untrusted.Receipt) != 0 && !w.done {
		if err := w.judge(false); err != nil {
			return err
		}
		cut.Answer = w.answer
	}
	return cut
}

func (w *Watched) judge(whole bool) (err error) {
	u := &w.stream.untrusted
	u.Content, u.Reasoning, u.Whole = w.stream.text.String(), w.stream.thought.String(), whole
	w.answer, err = Judge(*u, w.guest)
	return err
}

// whole reads and judges an answer in one piece.
func (w *Watched) whole() ([]byte, error) {
	if w.done {
		return nil, io.EOF
	}
	w.done = true
	text, err := io.ReadAll(io.LimitReader(w.body, maxAnswerBytes+1))
	if err != nil {
		return nil, &Cut{err: fmt.Errorf("%w: %w", errEarly, err)}
	}
	if len(text) > maxAnswerBytes {
		return nil, fmt.Errorf("reading answer: %w: it has more than %d bytes", check.ErrRejected, maxAnswerBytes)
	}
	var document struct {
		Choices []struct {
			Message delta `json:"message"`
		} `json:"choices"`
		Chrysalis *proofs `json:"chrysalis"`
	}
	if err := json.Unmarshal(text, &document); err != nil || len(document.Choices) != 1 {
		return nil, fmt.Errorf("reading answer: %w: %d bytes are no JSON of one answer", check.ErrRejected, len(text)) // err would quote it
	}
	for i := range document.Choices[0].Message.Calls {
		document.Choices[0].Message.Calls[i].Index = i
	}
	if err := w.stream.add(document.Choices[0].Message); err != nil {
		return nil, fmt.Errorf("reading answer: %w", err)
	}
	if err := w.stream.prove(document.Chrysalis); err != nil {
		return nil, fmt.Errorf("reading answer: %w", err)
	}
	if err := w.judge(true); err != nil {
		return nil, err
	}
	return bytes.Clone(text), nil
}

// Answer returns what is proven, once Next has returned its last: nil where nothing is.
func (w *Watched) Answer() *Answer { return w.answer }

// proofs is what a guest signs an answer with.
type proofs struct {
	Receipt string `json:"receipt"`
	Charge  string `json:"charge"`
}

// prove keeps a proof, of which an answer has one.
func (s *stream) prove(p *proofs) (err error) {
	if p == nil {
		return nil
	}
	if s.untrusted.Receipt != nil {
		return fmt.Errorf("%w: a second receipt", check.ErrRejected)
	}
	if s.untrusted.Receipt, err = base64.StdEncoding.DecodeString(p.Receipt); err != nil {
		return fmt.Errorf("%w: receipt: %v", check.ErrRejected, err)
	}
	if s.untrusted.Charge, err = base64.StdEncoding.DecodeString(p.Charge); err != nil {
		return fmt.Errorf("%w: charge: %v", check.ErrRejected, err)
	}
	return nil
}
