package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/receipt"
)

// asked returns what answers requests of a dialect.
func (g *Gateway) asked(d *dialect) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error { return g.chat(d, w, r) }
}

// chat answers one request, from its first byte to the record of what it used.
func (g *Gateway) chat(d *dialect, w http.ResponseWriter, r *http.Request) error {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		c.texts.Store(true)
	}
	payer, err := g.payer(r)
	if err != nil {
		return err
	}
	memory := g.bodies.of(r)
	defer memory.give()
	body, err := readBody(r, g.served.requestBytes(), memory)
	if err != nil {
		return err
	}
	hash, arrived := sha256.Sum256(body), time.Now()
	// The request is here. A deadline for reading that stays would end the answer, since net/http goes on reading to see
	// whether the client leaves; one for writing counts from when there is something to write.
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
		return err
	}
	request, err := d.parse(r.Header.Get("Content-Type"), body, g.served)
	clear(body)
	if err != nil {
		return err
	}
	defer request.wipe()
	m := request.by
	if len(request.ignored) > 0 {
		w.Header().Set(ignoredHeader, strings.Join(request.ignored, ", "))
	}
	client := payer.Contract
	var place Place
	if g.config.Settles {
		// Who shows no key, or can't pay, takes neither a place nor the engine's time.
		payer.Most = most(request)
		if payer.Coefficient, err = g.coefficient(m, r); err != nil {
			return err
		}
		if place, err = g.reserve(r, payer); err != nil {
			return err
		}
		defer place.Release()
	}
	if !m.turns.alone() {
		if err := g.countInTurn(m, d, r, client, request.ask); err != nil {
			return err
		}
	}
	leave, err := m.places.enter(r.Context(), who{addressOfRequest(r), client}, g.waits.queue)
	if err != nil {
		return err
	}
	defer leave()
	done, err := m.turns.enter(r.Context(), client, g.waits.queue)
	if err != nil {
		return err
	}
	defer done()
	if m.turns.alone() {
		if err := g.bound(m, d, r, client, request.ask); err != nil {
			return err
		}
	}
	if place == nil {
		if place, err = g.reserve(r, payer); err != nil {
			return err
		}
		defer place.Release()
	}
	a := &answering{
		gateway: g, model: m, place: place, id: w.Header().Get(requestIDHeader), stream: request.stream,
		keeps: d.keeps || !request.stream, arrived: arrived, began: time.Now(),
		most: receipt.Usage{Prompt: m.ContextTokens, Completion: request.answer}, record: receipt.Answer{Model: m.at, Client: client, Request: hash, Coefficient: payer.Coefficient}, response: receipt.NewResponseHash(), text: make([]byte, 0, 1024),
		body: newBodyHash(),
	}
	a.dialect = d
	rand.Read(a.record.ID[:])
	a.name = d.ids + hex.EncodeToString(a.record.ID[:])
	a.json = d.answer(a.name, a.began, m.Name, &a.said)
	return a.run(w, r, request)
}

// reserve takes a place in the journal.
func (g *Gateway) reserve(r *http.Request, by Payer) (Place, error) {
	ctx, cancel := context.WithTimeout(r.Context(), g.waits.record)
	defer cancel()
	place, err := g.config.Keeper.Reserve(ctx, by)
	if err != nil {
		return nil, unreserved(err)
	}
	return place, nil
}

// templateTokens is room for what the engine's template writes around a prompt.
const templateTokens = 1024

// coefficient is what a request's tokens are multiplied by: by the queue as it is now, and no more than the client says.
func (g *Gateway) coefficient(m *model, r *http.Request) (uint32, error) {
	_, _, waiting := m.places.stand()
	now := g.config.Coefficient.At(waiting, m.places.most)
	named := r.Header.Values(api.MaxCoefficientHeader)
	if len(named) == 0 {
		return now, nil
	}
	most, err := strconv.ParseUint(named[0], 10, 32)
	if err != nil || len(named) != 1 || strconv.FormatUint(most, 10) != named[0] {
		return 0, refuse(api.MaxCoefficientHeader, "%s is no number, want parts of 10000", api.MaxCoefficientHeader)
	}
	if uint64(now) > most {
		return 0, &refusal{status: http.StatusPaymentRequired, code: "price_above_maximum", param: api.MaxCoefficientHeader,
			message: fmt.Sprintf("the coefficient is %d now, and the request takes %d at most: nothing was computed", now, most)}
	}
	return now, nil
}

// most returns the tokens that a request may take: no token is shorter than a byte.
func most(r *request) receipt.Usage {
	prompt := uint64(r.by.ContextTokens)
	if r.heard == nil {
		prompt = min(prompt, uint64(len(r.ask))+templateTokens)
	}
	return receipt.Usage{Prompt: uint32(prompt), Completion: r.answer}
}

// unreserved is the refusal of a request for which there is no place.
func unreserved(err error) *refusal {
	switch {
	case errors.Is(err, ErrFull):
		return errFull
	case errors.Is(err, ErrKey):
		return errKey
	case errors.Is(err, ErrFunds):
		return errFunds
	case errors.Is(err, ErrChain):
		return errChain
	}
	return errKeeper
}

// countInTurn is bound, in a turn of its own where the engine is asked.
func (g *Gateway) countInTurn(m *model, d *dialect, r *http.Request, client ton.Address, ask []byte) error {
	if len(ask) <= int(m.ContextTokens) {
		return nil
	}
	done, err := m.turns.enter(r.Context(), client, g.waits.queue)
	if err != nil {
		return err
	}
	defer done()
	return g.bound(m, d, r, client, ask)
}

// bound refuses a prompt that is longer than the context, before it takes a place unless processes compute for one alone. It has the engine count where a prompt has more bytes than
// the context has tokens; the engine itself refuses what is not counted.
func (g *Gateway) bound(m *model, d *dialect, r *http.Request, client ton.Address, ask []byte) error {
	if len(ask) <= int(m.ContextTokens) || d.engine == engineSpeech {
		return nil
	}
	leave, err := m.counts.enter(r.Context(), who{addressOfRequest(r), client}, g.waits.queue)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(r.Context(), g.waits.count)
	defer cancel()
	e := engine{m.DialEngine, g.waits.count, &m.Engine}
	path, asks := e.dialect.CountText, [][]byte{ask}
	if d.engine == engineChat {
		path = e.dialect.CountChat
	} else if begin := e.dialect.TextBegin; begin != "" {
		asks = [][]byte{[]byte(begin), at(ask, d.prompt), []byte("}")}
	}
	if path == "" {
		return nil
	}
	tokens, counted := e.count(ctx, path, asks...)
	if most := uint64(m.ContextTokens) - 1; counted && tokens > most { // one is for the answer
		return (&tooLong{tokens, most}).refusal(d)
	}
	return nil
}

// refusal is for a client of a dialect.
func (e *tooLong) refusal(d *dialect) *refusal {
	message := e.Error()
	if e.got == 0 {
		message = "the prompt is longer than the model's context"
	}
	return &refusal{status: http.StatusBadRequest, code: "context_length_exceeded", param: d.prompt, message: message}
}

// answering is one answer on its way.
type answering struct {
	gateway  *Gateway
	model    *model
	place    Place
	id       string // the request's
	name     string // the answer's id, as its client reads it
	dialect  *dialect
	stream   bool
	keeps    bool      // what was said is kept whole
	arrived  time.Time // its request, whole
	began    time.Time
	most     receipt.Usage // that an engine can have had for it
	spoken   bool          // the first words were sent
	record   receipt.Answer
	response *receipt.ResponseHash
	body     bodyHash
	json     answerWriter
	text     []byte // scratch: a piece of text without its JSON quotes
	said     said
	out      *clientStream
}

// ignoredHeader names the fields of a request that do nothing here.
const ignoredHeader = "Chrysalis-Ignored"

func (a *answering) run(w http.ResponseWriter, r *http.Request, request *request) error {
	e := engine{a.model.DialEngine, a.gateway.waits.engine, &a.model.Engine}
	path := a.dialect.engine
	if path == engineSpeech {
		path = e.dialect.Speech
	}
	upstream, err := e.start(r.Context(), path, request.kind(), request.ask)
	var long *tooLong
	switch {
	case errors.As(err, &long):
		return long.refusal(a.dialect)
	case errors.Is(err, errNotServed):
		return errNoEmbeddings
	case errors.Is(err, errEngineRefused) && request.heard != nil:
		return refuse("file", "the engine can't read this as audio")
	case errors.Is(err, errEngineRefused):
		return refuse("", "the engine refused the request")
	case err != nil:
		a.gateway.config.Log.Warn("engine not reached", "error", err)
		return errStart
	}
	defer upstream.Close()
	defer a.wipe()
	if request.inputs > 0 || request.heard != nil {
		if request.heard != nil {
			err = a.hear(upstream, *request.heard)
		} else {
			err = a.embed(upstream, request.inputs)
		}
		if most := a.model.ContextTokens; err == nil && a.record.Usage.Prompt > most {
			return (&tooLong{uint64(a.record.Usage.Prompt), uint64(most)}).refusal(a.dialect) // no receipt is for more
		}
		return a.finishUp(w, r, err)
	}
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
			if c.Progress.Total > a.most.Prompt {
				a.record.Outcome = receipt.Cut
				return errEngineUsage
			}
			a.record.Usage.Prompt = c.Progress.Total
			continue
		}
		if c.Usage != nil {
			u, before := c.usage(), a.record.Usage
			if u.Prompt > a.most.Prompt || u.Completion > a.most.Completion || measured && (u.Prompt != before.Prompt || u.Completion < before.Completion) {
				a.record.Outcome = receipt.Cut
				return errEngineUsage
			}
			a.record.Usage, measured = u, true
		}
		if len(c.Choices) == 0 {
			continue
		}
		choice := &c.Choices[0]
		p := piece{thought: c.thought(), text: *c.text(), calls: choice.Delta.Calls, size: c.size}
		if choice.Logprobs != nil {
			p.logprobs = choice.Logprobs.Content
		}
		if !measured && (isText(p.thought) || isText(p.text) || len(p.calls) > 0) {
			a.record.Usage.Completion++
			if isText(p.thought) {
				a.record.Usage.Reasoning++
			}
		}
		if isText(p.thought) {
			a.said.thoughts = a.take(a.said.thoughts, p.thought, a.response.Reasoning)
		}
		if isText(p.text) {
			a.said.content = a.take(a.said.content, p.text, a.response.Content)
		}
		for _, c := range p.calls {
			if err := a.call(c); err != nil {
				a.record.Outcome = receipt.Cut
				return err
			}
		}
		if r := choice.FinishReason; r != nil && (*r == "abort" || *r == "error") { // vLLM and SGLang gave it up
			a.record.Outcome = receipt.Cut
			return errEngineEvent
		}
		if choice.FinishReason != nil {
			p.finish = finishReason(*choice.FinishReason)
			a.said.finish = p.finish
		}
		if a.stream {
			if err := a.send(a.json.chunk(p), p.finish != ""); err != nil {
				a.record.Outcome = receipt.Cut
				return err
			}
			if !a.spoken && (isText(p.thought) || isText(p.text) || len(p.calls) > 0) {
				a.spoken = true
				a.gateway.counted.spoke(time.Since(a.arrived))
			}
		} else if len(p.logprobs) > 0 {
			a.said.logprobs = room(a.said.logprobs, 2*c.size+1)
			a.said.logprobs = appendLogprobs(a.said.logprobs, p.logprobs)
		}
	}
}

// errEngineUsage says that the engine counts what it can't have had: more than the request and the context allow, fewer tokens than before, or another prompt. What
// the gateway has counted itself stands then.
var errEngineUsage = errors.New("reading the engine's answer: its usage can't be this answer's")

// isText reports whether a delta's value is a string with something in it.
func isText(v jsontext.Value) bool { return len(v) > 2 && v[0] == '"' }

// take hashes a piece of text and, where the answer is kept, appends it to whole.
func (a *answering) take(whole []byte, piece jsontext.Value, hash func([]byte)) []byte {
	text := a.unquote(piece)
	hash(text)
	if !a.keeps {
		return whole
	}
	return append(room(whole, len(text)), text...)
}

// unquote returns the text of a JSON string, until the next call.
func (a *answering) unquote(v jsontext.Value) []byte {
	a.text = room(a.text[:0], len(v))
	text, err := jsontext.AppendUnquote(a.text, []byte(v))
	if err != nil {
		panic("gateway: a decoded string can't be unquoted") // the decoder has read it
	}
	a.text = text
	return text
}

// room returns b with room for n bytes more. It grows by hand: what append leaves behind would not be wiped.
func room(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	grown := append(make([]byte, 0, max(4096, 2*cap(b)+n)), b...)
	clear(b[:cap(b)])
	return grown
}

// errEngineCall says that the engine's answer calls tools in a way that nobody could follow.
var errEngineCall = errors.New("reading the engine's answer: a call of a tool that is none")

// call hashes a piece of a call of a tool, and keeps it where the answer is kept.
func (a *answering) call(c callPiece) error {
	calls := &a.said.calls
	first := int(c.Index) == len(*calls)
	for _, v := range []jsontext.Value{c.ID, c.Function.Name, c.Function.Arguments} {
		if k := v.Kind(); k != '"' && k != 'n' && k != jsontext.KindInvalid {
			return errEngineCall
		}
	}
	// The name and id of a call come with its first piece, or a client could be told two.
	if first != (isText(c.ID) && isText(c.Function.Name)) || !first && (isText(c.ID) || isText(c.Function.Name)) ||
		len(c.ID) > 128 || len(c.Function.Name) > 128 {
		return errEngineCall
	}
	add := func(v jsontext.Value, part int) bool {
		var of [3][]byte
		if isText(v) {
			of[part] = a.unquote(v)
		}
		return a.response.Call(int(c.Index), of[0], of[1], of[2])
	}
	if !add(c.ID, 0) || !add(c.Function.Name, 1) || !add(c.Function.Arguments, 2) {
		return errEngineCall
	}
	if first {
		*calls = append(*calls, call{id: slices.Clone([]byte(c.ID)), name: slices.Clone([]byte(c.Function.Name))})
	}
	if kept := &(*calls)[c.Index]; a.keeps && isText(c.Function.Arguments) {
		text := a.unquote(c.Function.Arguments)
		kept.arguments = append(room(kept.arguments, len(text)), text...)
	}
	return nil
}

// finishReason passes on the reasons that there are here.
func finishReason(s string) string {
	if s == "length" || s == "tool_calls" {
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
		g.counted.refused(errEngine)
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
			g.counted.refused(errKeeper)
			a.sendError(errKeeper, nil)
			return nil
		}
		return errKeeper
	}
	g.counted.recorded(a.record)
	g.config.Log.Debug("answered", "request", hex.EncodeToString(a.record.Request[:]), "outcome", a.record.Outcome.String(),
		"prompt_tokens", a.record.Usage.Prompt, "completion_tokens", a.record.Usage.Completion,
		"took", time.Since(a.began).Round(time.Millisecond))
	switch {
	case relayed != nil && a.stream:
		a.remember(proof, nil)
		a.sendError(errEngine, &proof)
	case relayed != nil: // the client is gone
	case a.stream:
		event := a.json.end(a.record.Usage, proof)
		a.remember(proof, event)
		_ = a.out.send(event, true) // it is recorded, whether the client still takes it or not
	default:
		a.writeWhole(w, proof)
	}
	return nil
}

// sendError ends a stream without its [DONE].
func (a *answering) sendError(why *refusal, proof *receipt.Proof) {
	_ = a.out.send(a.json.failure(why, a.id, a.record.Usage, proof), true) // the client may be gone
}

// writeWhole sends an answer that is not streamed.
func (a *answering) writeWhole(w http.ResponseWriter, p receipt.Proof) {
	b := a.json.whole(&a.said, a.record.Usage, p)
	defer clear(b)
	a.remember(p, b)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(a.gateway.waits.client))
	_, _ = w.Write(b) // it is recorded, whether the client still takes it or not
}

// wipe overwrites what is left of the text.
func (a *answering) wipe() {
	a.json.wipe()
	clear(a.text[:cap(a.text)])
	a.said.wipe()
}
