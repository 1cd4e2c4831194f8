package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// chat answers one request, from its first byte to the record of what it used.
func (g *Gateway) chat(w http.ResponseWriter, r *http.Request) error {
	client, err := g.client(r)
	if err != nil {
		return err
	}
	if !g.bodies.take(r.ContentLength) {
		return errBusy
	}
	defer g.bodies.give(r.ContentLength)
	body, hash, err := g.readBody(r)
	if err != nil {
		return err
	}
	// The request is here. A deadline for reading that stays would end the answer, since net/http goes on reading to see
	// whether the client leaves; one for writing counts from when there is something to write.
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
		return err
	}
	request, err := parseRequest(body, g.limits)
	clear(body)
	if err != nil {
		return err
	}
	ask := request.engineRequest(g.limits)
	defer clear(ask)
	request.wipe()
	leave, err := g.enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	reserving, cancel := context.WithTimeout(r.Context(), g.waits.record)
	defer cancel()
	place, err := g.config.Keeper.Reserve(reserving)
	if errors.Is(err, ErrFull) {
		return errFull
	}
	if err != nil {
		return errKeeper
	}
	defer place.Release()
	a := &answering{
		gateway: g, place: place, stream: request.Stream, began: time.Now(),
		record: receipt.Answer{Client: client, Request: hash}, response: receipt.NewResponseHash(), text: make([]byte, 0, 1024),
	}
	rand.Read(a.record.ID[:])
	a.json = newAnswerJSON(a.record.ID, a.began, g.config.Model)
	return a.run(w, r, ask)
}

// answering is one answer on its way.
type answering struct {
	gateway  *Gateway
	place    Place
	stream   bool
	began    time.Time
	record   receipt.Answer
	response *receipt.ResponseHash
	json     *answerJSON
	text     []byte // scratch: a piece of text without its JSON quotes
	content  []byte // not streamed: the whole text
	thoughts []byte // not streamed: the whole reasoning
	finish   string
	out      *clientStream
}

func (a *answering) run(w http.ResponseWriter, r *http.Request, ask []byte) error {
	upstream, err := engine{a.gateway.config.DialEngine, a.gateway.waits.engine}.start(r.Context(), ask)
	switch {
	case errors.Is(err, errContextLength):
		return &refusal{status: http.StatusBadRequest, code: "context_length_exceeded", param: "messages",
			message: "the messages are longer than the model's context"}
	case errors.Is(err, errEngineRefused):
		return refuse("", "the engine refused the request")
	case err != nil:
		a.gateway.config.Log.Warn("engine not reached", "error", err)
		return errStart
	}
	defer upstream.Close()
	defer a.wipe()
	events := newEngineEvents(upstream)
	defer events.wipe()
	if a.stream {
		a.out = newClientStream(w, a.gateway.waits.client)
		defer a.out.close()
	}
	err = a.relay(events)
	return a.finishUp(w, r, err)
}

// relay passes the engine's events on until its end, and counts. The error tells how the answer ended early.
func (a *answering) relay(events *engineEvents) error {
	var c chunk
	measured := false // the engine has reported usage, which counts instead of ours
	for {
		err := events.next(&c)
		if err == io.EOF && measured {
			a.record.Outcome = receipt.Complete
			return nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			a.record.Outcome = receipt.Cut
			return err
		}
		if c.Progress != nil {
			a.record.Usage.Prompt = c.Progress.Total
			continue
		}
		if c.Usage != nil {
			a.record.Usage = c.usage()
			measured = true
		}
		if len(c.Choices) == 0 {
			continue
		}
		choice := &c.Choices[0]
		thought, text := choice.Delta.Reasoning, choice.Delta.Content
		if !measured && (isText(thought) || isText(text)) {
			a.record.Usage.Completion++
			if isText(thought) {
				a.record.Usage.Reasoning++
			}
		}
		if isText(thought) {
			a.thoughts = a.take(a.thoughts, thought, a.response.Reasoning)
		}
		if isText(text) {
			a.content = a.take(a.content, text, a.response.Content)
		}
		finish := ""
		if choice.FinishReason != nil {
			finish = finishReason(*choice.FinishReason)
			a.finish = finish
		}
		if a.stream {
			if err := a.out.send(a.json.chunk(thought, text, finish), finish != ""); err != nil {
				a.record.Outcome = receipt.Cut
				return err
			}
		}
	}
}

// isText reports whether a delta's value is a string with something in it.
func isText(v jsontext.Value) bool { return len(v) > 2 && v[0] == '"' }

// take hashes a piece of text and, when the answer is not streamed, appends it to whole.
func (a *answering) take(whole []byte, piece jsontext.Value, hash func([]byte)) []byte {
	text, err := jsontext.AppendUnquote(a.text[:0], []byte(piece))
	if err != nil {
		panic("gateway: a decoded string can't be unquoted") // the decoder has read it
	}
	a.text = text
	hash(text)
	if a.stream {
		return whole
	}
	if len(whole)+len(text) > cap(whole) { // grown by hand: what append leaves behind would not be wiped
		grown := append(make([]byte, 0, max(4096, 2*cap(whole)+len(text))), whole...)
		clear(whole)
		whole = grown
	}
	return append(whole, text...)
}

// finishReason passes on the two reasons that there are here.
func finishReason(s string) string {
	if s == "length" {
		return s
	}
	return "stop"
}

// finishUp records the answer and only then lets it end.
func (a *answering) finishUp(w http.ResponseWriter, r *http.Request, relayed error) error {
	g := a.gateway
	left := r.Context().Err() != nil
	nothing := a.record.Usage.Completion == 0 && !left || a.record.Usage == receipt.Usage{}
	if relayed != nil && !left {
		g.config.Log.Warn("answer cut", "request", hex.EncodeToString(a.record.Request[:]), "error", relayed)
	}
	// An answer of which nothing reached a client who waits for it costs nothing.
	if relayed != nil && (nothing || !a.stream && !left) {
		if !a.stream || !a.out.started {
			return errEngine
		}
		a.sendError(errEngine, nil)
		return nil
	}
	a.record.Response = a.response.Sum()
	recording, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), g.waits.record)
	defer cancel()
	proof, err := a.place.Record(recording, a.record)
	if err != nil {
		g.config.Log.Error("answer not recorded", "request", hex.EncodeToString(a.record.Request[:]), "error", err)
		if a.stream && a.out.started {
			a.sendError(errKeeper, nil)
			return nil
		}
		return errKeeper
	}
	g.config.Log.Debug("answered", "request", hex.EncodeToString(a.record.Request[:]), "outcome", a.record.Outcome.String(),
		"prompt_tokens", a.record.Usage.Prompt, "completion_tokens", a.record.Usage.Completion,
		"took", time.Since(a.began).Round(time.Millisecond))
	switch {
	case relayed != nil && a.stream:
		a.sendError(errEngine, &proof)
	case relayed != nil: // the client is gone
	case a.stream:
		_ = a.out.send(a.json.end(a.record.Usage, proof), true) // it is recorded, whether the client still takes it or not
	default:
		a.writeWhole(w, proof)
	}
	return nil
}

// sendError ends a stream without its [DONE].
func (a *answering) sendError(why *refusal, proof *receipt.Proof) {
	_ = a.out.send(a.json.failure(why, a.record.Usage, proof), true) // the client may be gone
}

// writeWhole sends an answer that is not streamed.
func (a *answering) writeWhole(w http.ResponseWriter, p receipt.Proof) {
	b := a.json.whole(a.thoughts, a.content, a.finish, a.record.Usage, p)
	defer clear(b)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.gateway.waits.client))
	_, _ = w.Write(b) // it is recorded, whether the client still takes it or not
}

// wipe overwrites what is left of the text.
func (a *answering) wipe() {
	a.json.wipe()
	for _, b := range [][]byte{a.text, a.content, a.thoughts} {
		clear(b[:cap(b)])
	}
}
