package gateway

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// chatRequest is the whole of what a client may ask for. A name that is not here is refused: an engine reads names of its
// own from a request (cache_prompt, id_slot), with which one client could look at what another left behind.
type chatRequest struct {
	Model               string          `json:"model"`
	Messages            []chatMessage   `json:"messages"`
	MaxTokens           *uint32         `json:"max_tokens"`
	MaxCompletionTokens *uint32         `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	TopP                *float64        `json:"top_p"`
	Seed                *uint32         `json:"seed"`
	Stop                jsontext.Value  `json:"stop"`
	Stream              bool            `json:"stream"`
	StreamOptions       *streamSettings `json:"stream_options"`
}

// chatMessage keeps its text as the JSON string that the client wrote: the bytes can be overwritten, a string's can't.
type chatMessage struct {
	Role    string         `json:"role"`
	Content jsontext.Value `json:"content"`
}

type streamSettings struct {
	IncludeUsage bool `json:"include_usage"` // the last chunk carries usage in any case
}

const (
	maxMessages  = 1024
	maxStops     = 4
	maxStopBytes = 256
)

// requestLimits are the measured limits that bound a request.
type requestLimits struct {
	model        string
	answerTokens uint32
}

// parseRequest reads a body strictly. What it refuses names the field.
func parseRequest(body []byte, limits requestLimits) (*chatRequest, error) {
	var r chatRequest
	if err := json.Unmarshal(body, &r, json.RejectUnknownMembers(true)); err != nil {
		r.wipe()
		return nil, badJSON(err)
	}
	if err := r.validate(limits); err != nil {
		r.wipe()
		return nil, err
	}
	return &r, nil
}

// badJSON turns a decoder's error into a refusal. It names the place and never quotes a value, which is the client's.
func badJSON(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return refuse(semantic.JSONPointer.LastToken(), "unknown field %.80q: this service takes no such setting", string(semantic.JSONPointer))
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		return refuse(syntactic.JSONPointer.LastToken(), "field %.80q is given twice", string(syntactic.JSONPointer))
	case errors.As(err, &semantic):
		return refuse(semantic.JSONPointer.LastToken(), "field %.80q can't be a JSON %s", string(semantic.JSONPointer), semantic.JSONKind)
	case errors.As(err, &syntactic):
		return refuse("", "body is no JSON: error at byte %d", syntactic.ByteOffset)
	}
	return refuse("", "body is no JSON")
}

func (r *chatRequest) validate(limits requestLimits) error {
	if r.Model != limits.model {
		return &refusal{status: 404, code: "model_not_found", param: "model", message: fmt.Sprintf("the model here is %q", limits.model)}
	}
	if len(r.Messages) == 0 || len(r.Messages) > maxMessages {
		return refuse("messages", "%d messages, want 1 to %d", len(r.Messages), maxMessages)
	}
	for i, m := range r.Messages {
		if m.Role != "system" && m.Role != "user" && m.Role != "assistant" {
			return refuse("messages", "role of message %d: want system, user or assistant", i)
		}
		if m.Content.Kind() != '"' {
			return refuse("messages", "content of message %d is a JSON %s, want a string", i, m.Content.Kind())
		}
	}
	if r.MaxTokens != nil && r.MaxCompletionTokens != nil {
		return refuse("max_tokens", "max_tokens and max_completion_tokens are given both")
	}
	if n := r.maxTokens(); n != nil && *n == 0 {
		return refuse("max_tokens", "max_tokens is 0, want 1 or more")
	}
	if t := r.Temperature; t != nil && !(*t >= 0 && *t <= 2) {
		return refuse("temperature", "temperature is out of range, want 0 to 2")
	}
	if p := r.TopP; p != nil && !(*p > 0 && *p <= 1) {
		return refuse("top_p", "top_p is out of range, want above 0, to 1")
	}
	if err := validateStop(r.Stop); err != nil {
		return err
	}
	if r.StreamOptions != nil && !r.Stream {
		return refuse("stream_options", "stream_options is given without stream")
	}
	return nil
}

func validateStop(stop jsontext.Value) error {
	switch stop.Kind() {
	case jsontext.KindInvalid, 'n':
		return nil
	case '"':
		if len(stop) > maxStopBytes {
			return refuse("stop", "stop has more than %d bytes", maxStopBytes)
		}
		return nil
	case '[':
		var list []jsontext.Value
		if err := json.Unmarshal(stop, &list); err != nil || len(list) > maxStops {
			return refuse("stop", "stop has %d entries, want at most %d", len(list), maxStops)
		}
		for _, s := range list {
			if s.Kind() != '"' || len(s) > maxStopBytes {
				return refuse("stop", "an entry of stop: want a string of at most %d bytes", maxStopBytes)
			}
		}
		return nil
	}
	return refuse("stop", "stop can't be a JSON %s", stop.Kind())
}

func (r *chatRequest) maxTokens() *uint32 {
	if r.MaxTokens != nil {
		return r.MaxTokens
	}
	return r.MaxCompletionTokens
}

// engineRequest returns the body that the engine gets, built anew. It always streams and always reports usage.
func (r *chatRequest) engineRequest(limits requestLimits) []byte {
	tokens := limits.answerTokens
	if n := r.maxTokens(); n != nil {
		tokens = min(tokens, *n)
	}
	size := 512
	for _, m := range r.Messages {
		size += len(m.Content) + len(m.Role) + 32
	}
	b := append(make([]byte, 0, size+len(r.Stop)), `{"messages":[`...) // never grown: a copy would not be wiped
	for i, m := range r.Messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"role":"`...), m.Role...), `","content":`...)
		b = append(append(b, m.Content...), '}')
	}
	b = fmt.Appendf(b, `],"max_tokens":%d`, tokens)
	if r.Temperature != nil {
		b = fmt.Appendf(b, `,"temperature":%g`, *r.Temperature)
	}
	if r.TopP != nil {
		b = fmt.Appendf(b, `,"top_p":%g`, *r.TopP)
	}
	if r.Seed != nil {
		b = fmt.Appendf(b, `,"seed":%d`, *r.Seed)
	}
	if k := r.Stop.Kind(); k == '"' || k == '[' {
		b = append(append(b, `,"stop":`...), r.Stop...)
	}
	return append(b, `,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`...)
}

// wipe overwrites the client's text in the request's own copies.
func (r *chatRequest) wipe() {
	for _, m := range r.Messages {
		clear(m.Content)
	}
	clear(r.Stop)
}
