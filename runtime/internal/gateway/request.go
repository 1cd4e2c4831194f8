package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/api"
)

// dialect is one form in which clients ask and read answers. The engine is asked for a chat in one form for all of them, and for the rest
// of a text in another.
type dialect struct {
	fields []field
	// build checks what stands between fields, and writes the engine's request.
	build func(p *parsing, r *request) error
	// answer returns what writes the answer. said is kept up to date with what has been said, whole where keeps is set.
	answer func(id string, began time.Time, model string, said *said) answerWriter
	ids    string // what the ids of answers begin with
	prompt string // the field that the prompt is in
	engine string // the engine's path, as its dialect calls it where it is engineSpeech
	keeps  bool   // a streamed answer ends with the whole of what was said
	form   bool   // a request is a form, and not an object
}

// dialects are by path.
var dialects = map[string]*dialect{
	api.ChatCompletions: {chatFields, buildChat, newChatAnswer, "chatcmpl-", "messages", engineChat, false, false},
	api.Completions:     {completionsFields, buildCompletions, newCompletionsAnswer, "cmpl-", "prompt", engineText, false, false},
	api.Embeddings:      {embeddingsFields, buildEmbeddings, newEmbeddingsAnswer, "embd-", "input", engineEmbeddings, false, false},
	api.Messages:        {messagesFields, buildMessages, newMessagesAnswer, "msg_", "messages", engineChat, false, false},
	api.Responses:       {responsesFields, buildResponses, newResponsesAnswer, "resp_", "input", engineChat, true, false},
	api.Transcriptions:  {transcriptionFields, buildTranscription, newTranscriptionAnswer, "trsc-", "file", engineSpeech, false, true},
}

// The engine's paths, which every engine has that answers there.
const (
	engineChat       = "/v1/chat/completions"
	engineText       = "/v1/completions"
	engineEmbeddings = "/v1/embeddings"
	engineSpeech     = "speech"
)

// request is what a client asks for, by the tables of its dialect.
type request struct {
	by     *model // what is asked
	ask    []byte // what the engine gets, built anew
	stream bool
	answer uint32 // tokens of an answer at most
	inputs int    // texts of embeddings; 0 where an answer is said
	heard  *heard // of audio
	// boundary is between the parts of ask where that is a form, "" where it is an object.
	boundary string
	ignored  []string // names of fields that do nothing here
}

// parse reads a body of a content type. The body may be wiped afterwards.
func (d *dialect) parse(kind string, body []byte, all served) (*request, error) {
	if d.form {
		return parseForm(d, kind, body, all)
	}
	return parseRequest(d, body, all)
}

// kind is the content type of what the engine gets.
func (r *request) kind() string {
	if r.boundary != "" {
		return "multipart/form-data; boundary=" + r.boundary
	}
	return "application/json"
}

// askBytes bounds the engine's request for a body of n bytes: what is written around a value takes less than twice what the client wrote
// around it. A request is never grown, since a copy would not be wiped.
func askBytes(n int) int { return 2*n + 1024 }

// parseRequest reads a body strictly. What it refuses names the field.
func parseRequest(d *dialect, body []byte, all served) (*request, error) {
	if n := depth(body); n > maxDepth {
		return nil, refuse("", "the body nests %d levels deep, want at most %d", n, maxDepth)
	}
	if err := onlyObject(body); err != nil {
		return nil, err
	}
	p := parsing{all: all}
	var err error
	if p.sorted, err = p.sort(d.fields, body, ""); err != nil {
		return nil, err
	}
	if err := p.model(d, body); err != nil {
		return nil, err
	}
	r := &request{by: p.by, ask: make([]byte, 0, askBytes(len(body))), stream: p.of("stream").Kind() == 't'}
	err = d.build(&p, r)
	r.ignored, r.answer = p.ignored, p.answer
	if err != nil {
		r.wipe()
		return nil, err
	}
	return r, nil
}

// onlyObject reads a body as a whole: one object, no name twice, valid UTF-8, nothing behind it.
func onlyObject(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	kind := dec.PeekKind()
	err := dec.SkipValue()
	if err == nil && kind != '{' {
		return refuse("", "the body is a JSON %s, want an object", kind)
	}
	if err == nil {
		if _, err = dec.ReadToken(); err == io.EOF {
			return nil
		}
		return refuse("", "something stands behind the body's object")
	}
	return badJSON(err)
}

// badJSON turns a decoder's error into a refusal. It names the place and never quotes a value, which is the client's.
func badJSON(err error) error {
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return refuse(syntactic.JSONPointer.LastToken(), "field %.80q is given twice", string(syntactic.JSONPointer))
	case errors.As(err, &syntactic):
		return refuse("", "body is no JSON: error at byte %d", syntactic.ByteOffset)
	}
	return refuse("", "body is no JSON")
}

// parsing is a request on its way from the client's body to the engine's.
type parsing struct {
	sorted  // the request's fields
	all     served
	by      *model // that of them which is asked
	answer  uint32 // tokens that are asked for
	ignored []string
}

// sort puts the values of an object where their rows are. at names the object in what is ignored.
func (p *parsing) sort(fields []field, v jsontext.Value, at string) (s sorted, err error) {
	s = sorted{fields, make([]jsontext.Value, len(fields))}
	object(v, func(name string, v jsontext.Value) {
		if err != nil {
			return
		}
		row, i := field{}, find(fields, name)
		if i >= 0 {
			row = fields[i]
		}
		switch {
		case row.does == unknown:
			err = refuse(name, "unknown field %.80q: this service takes no such setting", at+name)
		case v.Kind() == 'n':
		case row.does == refused:
			err = refuse(name, "field %q is not to be had here: %s", at+name, row.says)
		case row.does == ignored:
			p.ignore(at + name)
		case row.judge != nil && !row.judge(v):
			err = refuse(name, "%s: want %s", at+name, row.says)
		default:
			s.values[i] = v
		}
	})
	return s, err
}

func (p *parsing) ignore(name string) {
	if !slices.Contains(p.ignored, name) {
		p.ignored = append(p.ignored, name)
	}
}

// model finds the model that a request names, and refuses one that has no means or no room for it.
func (p *parsing) model(d *dialect, body []byte) (err error) {
	model := p.of("model")
	if model == nil {
		return refuse("model", "the field model is missing: %s", p.all.says())
	}
	name, _ := jsontext.AppendUnquote(nil, []byte(model))
	if p.by, err = p.all.named(string(name)); err != nil {
		return err
	}
	if err := p.by.takes(body); err != nil {
		return err
	}
	return p.by.serves(d)
}

// with checks that fields which mean something beside another have it.
func (p *parsing) with(other string, names ...string) error {
	for _, name := range names {
		if p.of(name) != nil && p.of(other) == nil {
			return refuse(name, "%s is given without %s", name, other)
		}
	}
	return nil
}

// settings ends the engine's request: it always streams and always reports usage.
func (p *parsing) settings(b []byte, tokens jsontext.Value) []byte {
	n := uint64(p.by.AnswerTokens)
	if tokens != nil {
		asked, _ := strconv.ParseUint(string(tokens), 10, 64) // judged
		n = min(n, asked)
	}
	p.answer = uint32(n)
	b = fmt.Appendf(b, `,"max_tokens":%d`, n)
	for i, row := range p.fields {
		if v := p.values[i]; row.does == passed && v != nil {
			b = appendMember(b, row.name, v)
		}
	}
	b = append(append(b, ','), p.by.Engine.Stream...)
	return append(b, '}')
}

// wipe overwrites the client's text.
func (r *request) wipe() { clear(r.ask[:cap(r.ask)]) }
