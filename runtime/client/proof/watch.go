package proof

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/measure/ton"
)

// Watched is an answer that passes on to somebody else, and is judged on its way: the end mark of a streamed answer is not passed on, and
// nothing of one in a single piece, before the proof holds.
type Watched struct {
	guest    *attest.Result
	stream   stream
	form     form
	streamed bool
	body     *bufio.Reader
	read     int64
	proven   bool // the proof of a whole answer holds, and its end mark may come
	done     bool
	answer   *Answer
}

// Watch watches an answer to a request with this body at one of the paths of api.Answers, in the name of payer, by a guest.
func Watch(path string, body io.Reader, streamed bool, request []byte, payer ton.Address, guest *attest.Result) *Watched {
	return &Watched{guest: guest, form: formOf(path), streamed: streamed, body: bufio.NewReaderSize(body, maxEventBytes),
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
	kind := ""
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
		name, value, ok := strings.Cut(text, ": ")
		switch {
		case text == "" && kind == "":
			return event, nil
		case text != "" && text[0] == ':':
		case name == "event" && kind == "" && value != "":
			kind = value
		case name == "data" && ok:
			if err := w.take(kind, value); err != nil {
				return nil, err
			}
			kind = ""
		default:
			return nil, fmt.Errorf("reading answer: %w: a line of %d bytes is no event", check.ErrRejected, len(line))
		}
	}
}

// take judges an event, before it is passed on.
func (w *Watched) take(kind, data string) error {
	if w.done {
		return fmt.Errorf("reading answer: %w: an event after the end mark", check.ErrRejected)
	}
	mark, err := w.form.event(&w.stream, kind, []byte(data))
	switch {
	case err != nil && !errors.Is(err, errEarly):
		return fmt.Errorf("reading answer: %w", err)
	case w.proven && mark != atEnd:
		return fmt.Errorf("reading answer: %w: an event after the proof", check.ErrRejected)
	case mark == goesOn:
		return nil
	}
	if !w.proven {
		if err := w.judge(true); err != nil {
			return err
		}
		w.proven = true
	}
	w.done = mark == atEnd
	return nil
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
	if err := w.form.whole(&w.stream, text); err != nil {
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
