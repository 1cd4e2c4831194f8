package proof

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/runtime/api"
)

// form is how answers of a path read. An answer has one of its own, which knows where in it the reader is.
type form interface {
	// event takes an event of a stream, with its name, where it has one, and says whether it ends the answer. An error that wraps
	// errEarly says that the guest tells of an answer that broke off.
	event(s *stream, kind string, data []byte) (mark, error)
	// whole takes an answer in one piece.
	whole(s *stream, document []byte) error
}

// mark says how far an answer is after an event.
type mark int

const (
	goesOn mark = iota
	atProof
	atEnd
)

// formOf returns the form of a path's answers.
func formOf(path string) form {
	switch path {
	case api.ChatCompletions:
		return chatForm{}
	case api.Completions:
		return completionsForm{}
	case api.Embeddings:
		return embeddingsForm{}
	case api.Messages:
		return &messagesForm{}
	case api.Responses:
		return &responsesForm{}
	case api.Transcriptions:
		return transcriptionForm{}
	}
	panic("client: nothing is proven of the answers at " + path) // api.Answers has those that are
}

// decode reads JSON of an answer. What is wrong with it would quote it.
func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w: %d bytes are no JSON of an answer", check.ErrRejected, len(data))
	}
	return nil
}

// unlike refuses what a reader may take for the answer, and is another text than the one that was streamed.
func unlike(what string) error {
	return fmt.Errorf("%w: %s is not what was streamed before", check.ErrRejected, what)
}

// doneForm is a stream that ends with [DONE], and has no names of events.
func doneForm(s *stream, kind string, data []byte, take func() error) (mark, error) {
	if kind != "" {
		return goesOn, fmt.Errorf("%w: an event has a name of %d bytes", check.ErrRejected, len(kind))
	}
	if string(data) == "[DONE]" {
		return atEnd, nil
	}
	return goesOn, take()
}

// chatForm is chat completions.
type chatForm struct{}

func (chatForm) event(s *stream, kind string, data []byte) (mark, error) {
	return doneForm(s, kind, data, func() error { return s.take(string(data)) })
}

func (chatForm) whole(s *stream, text []byte) error {
	var document struct {
		Choices []struct {
			Message delta `json:"message"`
		} `json:"choices"`
		Chrysalis *proofs `json:"chrysalis"`
	}
	if err := decode(text, &document); err != nil {
		return err
	}
	if len(document.Choices) != 1 {
		return fmt.Errorf("%w: an answer has %d choices, want one", check.ErrRejected, len(document.Choices))
	}
	message := document.Choices[0].Message
	for i := range message.Calls {
		message.Calls[i].Index = i
	}
	if err := s.add(message); err != nil {
		return err
	}
	return s.prove(document.Chrysalis)
}

// completionsForm is completions: a stream's event and an answer in one piece read alike.
type completionsForm struct{}

func (f completionsForm) event(s *stream, kind string, data []byte) (mark, error) {
	return doneForm(s, kind, data, func() error { return f.read(s, data, 0) })
}

func (f completionsForm) whole(s *stream, document []byte) error { return f.read(s, document, 1) }

func (completionsForm) read(s *stream, data []byte, least int) error {
	var document struct {
		Choices []struct {
			Text string `json:"text"`
		} `json:"choices"`
		Chrysalis *proofs `json:"chrysalis"`
		Error     *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := decode(data, &document); err != nil {
		return err
	}
	if document.Error != nil {
		return s.broke(document.Error.Message, document.Chrysalis)
	}
	if n := len(document.Choices); n < least || n > 1 {
		return fmt.Errorf("%w: an answer has %d choices, want one", check.ErrRejected, n)
	}
	for _, c := range document.Choices {
		s.text.WriteString(c.Text)
	}
	return s.prove(document.Chrysalis)
}

// embeddingsForm is embeddings, of which there is no stream: what stands for their text is the JSON of each, and a line feed.
type embeddingsForm struct{}

func (embeddingsForm) event(*stream, string, []byte) (mark, error) {
	return goesOn, fmt.Errorf("%w: embeddings in a stream", check.ErrRejected)
}

func (embeddingsForm) whole(s *stream, text []byte) error {
	var document struct {
		Data []struct {
			Index     int            `json:"index"`
			Embedding jsontext.Value `json:"embedding"`
		} `json:"data"`
		Chrysalis *proofs `json:"chrysalis"`
	}
	if err := decode(text, &document); err != nil {
		return err
	}
	for i, d := range document.Data {
		if d.Index != i {
			return fmt.Errorf("%w: embedding %d stands where %d would", check.ErrRejected, d.Index, i)
		}
		s.text.Write(d.Embedding)
		s.text.WriteByte('\n')
	}
	return s.prove(document.Chrysalis)
}

// transcriptionForm is what was heard in audio, of which there is no stream: what stands for its text are the members that tell it, with their names, in
// this order, each with a line feed.
type transcriptionForm struct{}

func (transcriptionForm) event(*stream, string, []byte) (mark, error) {
	return goesOn, fmt.Errorf("%w: a transcription in a stream", check.ErrRejected)
}

func (transcriptionForm) whole(s *stream, text []byte) error {
	var document struct {
		Task      jsontext.Value `json:"task"`
		Language  jsontext.Value `json:"language"`
		Duration  jsontext.Value `json:"duration"`
		Text      jsontext.Value `json:"text"`
		Segments  jsontext.Value `json:"segments"`
		Words     jsontext.Value `json:"words"`
		Chrysalis *proofs        `json:"chrysalis"`
	}
	if err := decode(text, &document); err != nil {
		return err
	}
	for _, m := range []struct {
		name  string
		value jsontext.Value
	}{
		{"task", document.Task}, {"language", document.Language}, {"duration", document.Duration}, {"text", document.Text}, {"segments", document.Segments}, {"words", document.Words},
	} {
		if m.value == nil {
			continue
		}
		if slices.Contains(m.value, '\n') { // a line is one member
			return fmt.Errorf("%w: %s has more than one line", check.ErrRejected, m.name)
		}
		s.text.WriteString(`"` + m.name + `":`)
		s.text.Write(m.value)
		s.text.WriteByte('\n')
	}
	return s.prove(document.Chrysalis)
}

// messagesForm is Anthropic's messages: blocks, each opened, filled and closed.
type messagesForm struct{ blocks []messagesBlock }

type messagesBlock struct {
	Type     string         `json:"type"`
	Text     string         `json:"text"`
	Thinking string         `json:"thinking"`
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	Input    jsontext.Value `json:"input"`
}

func (f *messagesForm) event(s *stream, kind string, data []byte) (mark, error) {
	var e struct {
		Type    string `json:"type"`
		Index   int    `json:"index"`
		Message struct {
			Content []messagesBlock `json:"content"`
		} `json:"message"`
		Block messagesBlock `json:"content_block"`
		Delta struct {
			Type     string `json:"type"`
			Text     string `json:"text"`
			Thinking string `json:"thinking"`
			JSON     string `json:"partial_json"`
		} `json:"delta"`
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
		Chrysalis *proofs `json:"chrysalis"`
	}
	if err := decode(data, &e); err != nil {
		return goesOn, err
	}
	last := len(f.blocks) - 1
	switch {
	case e.Type != kind:
	case kind == "message_start" && last < 0 && len(e.Message.Content) == 0:
		return goesOn, nil
	case kind == "content_block_start" && e.Index == last+1 && slices.Contains([]string{"thinking", "text", "tool_use"}, e.Block.Type):
		f.blocks = append(f.blocks, e.Block)
		if e.Block.Text+e.Block.Thinking != "" || len(e.Block.Input) > 2 {
			return goesOn, unlike("the beginning of a block")
		}
		if e.Block.Type != "tool_use" {
			return goesOn, nil
		}
		if callOf(s, e.Block.ID) < 0 {
			return goesOn, s.call(len(s.untrusted.Calls), Call{ID: e.Block.ID, Name: e.Block.Name})
		}
		return goesOn, nil // it goes on with a call of before
	case kind == "content_block_delta" && last >= 0 && e.Index == last:
		switch block := f.blocks[last]; e.Delta.Type + " of " + block.Type {
		case "thinking_delta of thinking":
			s.thought.WriteString(e.Delta.Thinking)
			return goesOn, nil
		case "text_delta of text":
			s.text.WriteString(e.Delta.Text)
			return goesOn, nil
		case "input_json_delta of tool_use":
			return goesOn, s.call(callOf(s, block.ID), Call{Arguments: e.Delta.JSON})
		}
	case kind == "content_block_stop" && last >= 0 && e.Index == last:
		return goesOn, nil
	case kind == "message_delta":
		return atProof, s.prove(e.Chrysalis)
	case kind == "message_stop":
		return atEnd, nil
	case kind == "error":
		return goesOn, s.broke(e.Error.Message, e.Chrysalis)
	}
	return goesOn, fmt.Errorf("%w: an event named %.40q of type %.40q and index %d is none after %d blocks", check.ErrRejected, kind, e.Type, e.Index, last+1)
}

// callOf returns the number of a call of a tool by its id, less than 0 for one that is new.
func callOf(s *stream, id string) int {
	return slices.IndexFunc(s.untrusted.Calls, func(c Call) bool { return c.ID == id })
}

func (f *messagesForm) whole(s *stream, text []byte) error {
	var document struct {
		Content   []messagesBlock `json:"content"`
		Chrysalis *proofs         `json:"chrysalis"`
	}
	if err := decode(text, &document); err != nil {
		return err
	}
	for _, b := range document.Content {
		switch b.Type {
		case "thinking":
			s.thought.WriteString(b.Thinking)
		case "text":
			s.text.WriteString(b.Text)
		case "tool_use":
			if err := s.call(len(s.untrusted.Calls), Call{b.ID, b.Name, argumentsOf(b.Input)}); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: a block of type %.40q", check.ErrRejected, b.Type)
		}
	}
	return s.prove(document.Chrysalis)
}

// argumentsOf returns what the model wrote for a call's input: the object, or the text that is none and so stands in one. A model that
// writes such an object itself, around what is no object, is not told apart, and its answer is refused.
func argumentsOf(input jsontext.Value) string {
	var around struct {
		Arguments *string `json:"arguments"`
	}
	if json.Unmarshal(input, &around, json.RejectUnknownMembers(true)) == nil && around.Arguments != nil {
		if inside := jsontext.Value(*around.Arguments); !inside.IsValid() || inside.Kind() != '{' {
			return *around.Arguments
		}
	}
	return string(input)
}

// responsesForm is OpenAI's responses: items, each opened, filled, closed, and told again at the end.
type responsesForm struct{ items []responsesItem }

type responsesItem struct {
	Type    string `json:"type"`
	Content []struct {
		Text string `json:"text"`
	} `json:"content"`
	CallID    string `json:"call_id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`

	from, to int // of its text in what was streamed, but for calls
}

// text returns what an item says as an object.
func (it responsesItem) text() (text string) {
	for _, part := range it.Content {
		text += part.Text
	}
	return text + it.Arguments
}

// streamed returns what was streamed of an item.
func (it responsesItem) streamed(s *stream) string {
	switch i := callOf(s, it.CallID); {
	case it.Type == "reasoning":
		return s.thought.String()[it.from:it.to]
	case it.Type == "message":
		return s.text.String()[it.from:it.to]
	case it.Type == "function_call" && i >= 0:
		return s.untrusted.Calls[i].Arguments
	}
	return ""
}

// said adds what is streamed of an item.
func (it *responsesItem) said(s *stream, delta string) {
	of := &s.text
	if it.Type == "reasoning" {
		of = &s.thought
	}
	if it.to == 0 {
		it.from = of.Len()
	}
	of.WriteString(delta)
	it.to = of.Len()
}

func (f *responsesForm) event(s *stream, kind string, data []byte) (mark, error) {
	var e struct {
		Type  string        `json:"type"`
		Index int           `json:"output_index"`
		Item  responsesItem `json:"item"`
		Part  struct {
			Text string `json:"text"`
		} `json:"part"`
		Delta     string `json:"delta"`
		Text      string `json:"text"`
		Arguments string `json:"arguments"`
		Response  struct {
			Output []responsesItem `json:"output"`
		} `json:"response"`
		Message   string  `json:"message"`
		Chrysalis *proofs `json:"chrysalis"`
	}
	if err := decode(data, &e); err != nil {
		return goesOn, err
	}
	last := len(f.items) - 1
	here := last >= 0 && e.Index == last
	same := func(text, what string) (mark, error) {
		if text != f.items[last].streamed(s) {
			return goesOn, unlike(what)
		}
		return goesOn, nil
	}
	switch {
	case e.Type != kind:
	case (kind == "response.created" || kind == "response.in_progress") && last < 0 && len(e.Response.Output) == 0:
		return goesOn, nil
	case kind == "response.output_item.added" && e.Index == last+1 && e.Item.text() == "" &&
		slices.Contains([]string{"reasoning", "message", "function_call"}, e.Item.Type):
		f.items = append(f.items, e.Item)
		if e.Item.Type == "function_call" && callOf(s, e.Item.CallID) < 0 {
			return goesOn, s.call(len(s.untrusted.Calls), Call{ID: e.Item.CallID, Name: e.Item.Name})
		}
		return goesOn, nil
	case kind == "response.content_part.added" && here && e.Part.Text == "":
		return goesOn, nil
	case here && (kind == "response.reasoning_text.delta" && f.items[last].Type == "reasoning" ||
		kind == "response.output_text.delta" && f.items[last].Type == "message"):
		f.items[last].said(s, e.Delta)
		return goesOn, nil
	case kind == "response.function_call_arguments.delta" && here && f.items[last].Type == "function_call":
		return goesOn, s.call(callOf(s, f.items[last].CallID), Call{Arguments: e.Delta})
	case here && (kind == "response.reasoning_text.done" || kind == "response.output_text.done"):
		return same(e.Text, "the text of an item")
	case here && kind == "response.content_part.done":
		return same(e.Part.Text, "a part of an item")
	case here && kind == "response.function_call_arguments.done":
		return same(e.Arguments, "the arguments of a call")
	case here && kind == "response.output_item.done" && e.Item.Type == f.items[last].Type && e.Item.CallID == f.items[last].CallID && e.Item.Name == f.items[last].Name:
		return same(e.Item.text(), "an item")
	case kind == "response.completed" || kind == "response.incomplete":
		if !slices.EqualFunc(e.Response.Output, f.items, func(told, it responsesItem) bool {
			return told.Type == it.Type && told.CallID == it.CallID && told.Name == it.Name && told.text() == it.streamed(s)
		}) {
			return goesOn, unlike("the answer")
		}
		return atEnd, s.prove(e.Chrysalis)
	case kind == "error":
		return goesOn, s.broke(e.Message, e.Chrysalis)
	}
	return goesOn, fmt.Errorf("%w: an event named %.60q of type %.60q and index %d is none after %d items", check.ErrRejected, kind, e.Type, e.Index, last+1)
}

func (f *responsesForm) whole(s *stream, text []byte) error {
	var document struct {
		Output    []responsesItem `json:"output"`
		Chrysalis *proofs         `json:"chrysalis"`
	}
	if err := decode(text, &document); err != nil {
		return err
	}
	for _, it := range document.Output {
		switch it.Type {
		case "reasoning":
			s.thought.WriteString(it.text())
		case "message":
			s.text.WriteString(it.text())
		case "function_call":
			if err := s.call(len(s.untrusted.Calls), Call{it.CallID, it.Name, it.Arguments}); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: an item of type %.40q", check.ErrRejected, it.Type)
		}
	}
	return s.prove(document.Chrysalis)
}
