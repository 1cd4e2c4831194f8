package proof

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
)

// recorded is an answer as the gateway writes it, which a test there holds.
func recorded(t *testing.T, path, how string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "answers", strings.ReplaceAll(strings.TrimPrefix(path, "/v1/"), "/", "-")+"-"+how))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readStream gives a form a stream, and returns what it has read of it, and how far it came.
func readStream(path, text string) (s *stream, reached mark, err error) {
	f := formOf(path)
	s = &stream{}
	kind := ""
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ": ")
		switch name {
		case "event":
			kind = value
		case "data":
			m, err := f.event(s, kind, []byte(value))
			if err != nil {
				return s, reached, err
			}
			reached, kind = max(reached, m), ""
		}
	}
	return s, reached, nil
}

// said is all that stands in an answer.
func (s *stream) said() string {
	all := s.thought.String() + "|" + s.text.String()
	for _, c := range s.untrusted.Calls {
		all += "|" + c.ID + c.Name + c.Arguments
	}
	return all
}

// spoken is what the recorded answers say.
var spoken = map[string]string{
	api.ChatCompletions: `h"m|Let me see again|c1look{}`, api.Messages: `h"m|Let me see again|c1look{}`, api.Responses: `h"m|Let me see again|c1look{}`,
	api.Completions: `| Oslo".`, api.Embeddings: "|[0.5,-1e-3]\n[1,2]\n",
	api.Transcriptions: "|" + `"task":"transcribe"` + "\n" + `"language":"english"` + "\n" + `"duration":1.51` + "\n" + `"text":"The \"capital\" of Norway."` + "\n" +
		`"segments":[{"id":0,"seek":0,"start":0.0,"end":0.8,"text":" The \"capital\"","tokens":[50364,440],"temperature":0.0,"avg_logprob":-0.5,"no_speech_prob":1e-3},` +
		`{"id":1,"seek":0,"start":0.8,"end":1.5,"text":" of Norway.","tokens":[295,24354,13],"temperature":0.0,"no_speech_prob":0.0}]` + "\n" +
		`"words":[{"word":" The","start":0.0,"end":0.4},{"word":" \"capital\"","start":0.4,"end":0.8}]` + "\n",
}

// inOnePiece are the paths whose answers are not streamed.
var inOnePiece = []string{api.Embeddings, api.Transcriptions}

// TestForms reads each form, streamed and whole, to its proof and its end.
func TestForms(t *testing.T) {
	for _, path := range api.Answers() {
		s := &stream{}
		if err := formOf(path).whole(s, []byte(recorded(t, path, "whole"))); err != nil || s.said() != spoken[path] || len(s.untrusted.Receipt) == 0 {
			t.Errorf("%s, whole: read %q (%v), want %q", path, s.said(), err, spoken[path])
		}
		if slices.Contains(inOnePiece, path) {
			if _, _, err := readStream(path, "data: {}\n\n"); !errors.Is(err, check.ErrRejected) {
				t.Errorf("%s in a stream: got %v, want a rejection", path, err)
			}
			continue
		}
		s, reached, err := readStream(path, recorded(t, path, "streamed"))
		if err != nil || reached != atEnd || s.said() != spoken[path] || len(s.untrusted.Receipt) == 0 || len(s.untrusted.Charge) == 0 {
			t.Errorf("%s, streamed: read %q to %d (%v), want %q", path, s.said(), reached, err, spoken[path])
		}
	}
}

// TestFormsTellOneText changes each text of a recorded answer in turn. Whatever a reader may take for the answer is in what is judged, or
// is refused: nothing that is changed reads as before.
func TestFormsTellOneText(t *testing.T) {
	for _, path := range api.Answers() {
		for _, how := range []string{"streamed", "whole"} {
			if slices.Contains(inOnePiece, path) && how == "streamed" {
				continue
			}
			text := recorded(t, path, how)
			changed := 0
			for _, swap := range [][2]string{{`h\"m`, `x\"m`}, {"Let me", "xet me"}, {"see", "xee"}, {"again", "xgain"}, {`"c1"`, `"x1"`}, {`"look"`, `"xook"`},
				{`"{"`, `"x"`}, {`"}"`, `"x"`}, {`"{}"`, `"x"`}, {`"input":{}}]`, `"input":{"x":1}}]`}, {"Os", "xs"}, {`lo\"`, `xo\"`},
				{"0.5", "0.6"}, {"1,2", "1,3"}, {"english", "Norwegian"}, {"1.51", "1.5"}, {"Norway", "Sweden"}, {"0.8", "0.9"}, {"24354", "1"}, {`\"capital`, `\"king`}, {`"words"`, `"wordz"`}} {
				parts := strings.Split(text, swap[0])
				for n := 1; n < len(parts); n++ {
					changed++
					spoiled := strings.Join(parts[:n], swap[0]) + swap[1] + strings.Join(parts[n:], swap[0])
					s, err := &stream{}, error(nil)
					if how == "streamed" {
						s, _, err = readStream(path, spoiled)
					} else {
						err = formOf(path).whole(s, []byte(spoiled))
					}
					if err == nil && s.said() == spoken[path] {
						t.Errorf("%s, %s: %s is changed, and the answer reads as before:\n%s", path, how, swap[0], spoiled)
					}
				}
			}
			if changed < 2 {
				t.Errorf("%s, %s: %d texts were changed, want all of them", path, how, changed)
			}
		}
	}
}

// TestFormsCut: of a stream without some of its events nothing reads as whole that is not.
func TestFormsCut(t *testing.T) {
	for _, path := range api.Answers() {
		if slices.Contains(inOnePiece, path) {
			continue
		}
		text := recorded(t, path, "streamed")
		events := strings.SplitAfter(strings.TrimSuffix(text, "\n\n"), "\n\n")
		for n := range events {
			if s, reached, err := readStream(path, strings.Join(events[:n], "")); err != nil || reached == atEnd {
				t.Errorf("%s: the first %d of %d events: read %q to %d (%v), want no end", path, n, len(events), s.said(), reached, err)
			}
			// A response tells all of it at its end, so that a missing piece is seen before the proof is looked at.
			s, reached, err := readStream(path, strings.Join(slices.Concat(events[:n], events[n+1:]), ""))
			if path == api.Responses && err == nil && reached == atEnd && s.said() != spoken[path] {
				t.Errorf("%s: without event %d it reads %q as whole", path, n, s.said())
			}
		}
	}
}

// TestFormsBroken: what a guest says of an answer that it could not end, in each form.
func TestFormsBroken(t *testing.T) {
	for path, event := range map[string]string{
		api.ChatCompletions: `data: {"error":{"message":"lost"},"usage":{},"chrysalis":{"receipt":"AAAA"}}`,
		api.Completions:     `data: {"error":{"message":"lost"},"usage":{},"chrysalis":{"receipt":"AAAA"}}`,
		api.Messages:        "event: error\n" + `data: {"type":"error","error":{"message":"lost"},"usage":{},"chrysalis":{"receipt":"AAAA"}}`,
		api.Responses:       "event: error\n" + `data: {"type":"error","sequence_number":0,"code":"engine_lost","message":"lost","chrysalis":{"receipt":"AAAA"}}`,
	} {
		s, _, err := readStream(path, event+"\n\n")
		if !errors.Is(err, errEarly) || s.says != "lost" || len(s.untrusted.Receipt) != 3 {
			t.Errorf("%s: got %v, %q and a receipt of %d bytes", path, err, s.says, len(s.untrusted.Receipt))
		}
	}
}

// TestWatchRefusesForms gives a watched answer what is none of its path.
func TestWatchRefusesForms(t *testing.T) {
	for _, tt := range []struct{ path, text, says string }{
		{api.ChatCompletions, "event: x\ndata: {}\n\n", "has a name"},
		{api.Completions, `data: {"choices":[{"text":"a"},{"text":"b"}]}` + "\n\n", "2 choices"},
		{api.Messages, "data: {\"type\":\"message_start\"}\n\n", "an event named"},
		{api.Messages, "event: message_start\ndata: {\"type\":\"ping\"}\n\n", "an event named"},
		{api.Messages, "event: message_start\n\n", "is no event"},
		{api.Messages, "event: a\nevent: b\n", "is no event"},
		{api.Messages, "event: content_block_start\ndata: " + `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"early"}}` + "\n\n", "was streamed before"},
		{api.Messages, "event: content_block_start\ndata: " + `{"type":"content_block_start","index":0,"content_block":{"type":"image"}}` + "\n\n", "an event named"},
		{api.Responses, "event: response.created\ndata: " + `{"type":"response.created","response":{"output":[{"type":"message"}]}}` + "\n\n", "an event named"},
		{api.Responses, "event: response.completed\ndata: " + `{"type":"response.completed","response":{"output":[{"type":"message","content":[{"text":"x"}]}]}}` + "\n\n", "the answer is not what was streamed"},
		{api.Responses, "event: response.output_text.delta\ndata: " + `{"type":"response.output_text.delta","output_index":0,"delta":"x"}` + "\n\n", "an event named"},
		{api.Responses, "data: {\n\n", "no JSON of an answer"},
	} {
		w := Watch(tt.path, strings.NewReader(tt.text), true, nil, ton.Address{}, nil)
		_, err := w.Next()
		if !errors.Is(err, check.ErrRejected) || !strings.Contains(err.Error(), tt.says) || errors.Is(err, io.EOF) {
			t.Errorf("%s %q: got %v, want a rejection that says %q", tt.path, tt.text, err, tt.says)
		}
	}
}
