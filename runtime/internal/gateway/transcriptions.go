package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// Bounds of a form, beside the measured limit of its bytes.
const (
	maxParts      = 16
	maxPartBytes  = 4096 // of a part that is text
	maxBoundary   = 70   // RFC 2046, section 5.1.1
	formHeadBytes = 8192 // room for what is written around audio, and behind it
)

// Audio counts as whisper's encoder divides it: a token each 20 ms.
const audioTokensPerSecond = 50

// transcriptionFields are the parts of a form for /v1/audio/transcriptions. The value of each is text, but for the audio.
var transcriptionFields = []field{
	{"file", taken, nil, "the audio, in one part: whatever the engine reads, such as WAV, Ogg with Opus, MP3, FLAC"},
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"language", taken, language, "the language that is spoken, two or three small letters; else the engine's own setting holds"},
	{"prompt", taken, text(maxPartBytes), "what was said before, or words that will be said, up to 4096 bytes"},
	{"response_format", taken, oneOf("json", "verbose_json"), `"json" or "verbose_json": an answer has its proof inside, which text, srt and vtt have no place for`},
	{"temperature", taken, numberText(0, 1), "a number from 0 to 1"},
	{"timestamp_granularities[]", taken, listed(2, oneOf("segment", "word")), `"segment", "word" or both, with verbose_json alone`},
	{"stream", taken, oneOf("false"), `"false": what is said comes in one piece`},
	{"include[]", refused, nil, "the engine tells no more"},
	{"known_speaker_names[]", refused, nil, "the engine tells no speakers apart"},
	{"known_speaker_references[]", refused, nil, "the engine tells no speakers apart"},
	{"chunking_strategy", ignored, nil, ""},
	{"user", ignored, nil, ""},
}

// language judges a code of ISO 639.
func language(v jsontext.Value) bool {
	code := word(v)
	return (len(code) == 2 || len(code) == 3) && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz") == ""
}

// numberText judges a string that is a number.
func numberText(from, to float64) judge {
	inside := number(from, to)
	return func(v jsontext.Value) bool {
		text := jsontext.Value(word(v))
		return v.Kind() == '"' && text.IsValid() && inside(text)
	}
}

// heard says how a request for what is said in audio is answered.
type heard struct{ verbose, words bool }

// parseForm reads a form strictly, as parseRequest reads an object: its parts are the members. Audio is copied once, into what the engine gets.
func parseForm(d *dialect, kind string, body []byte, all served) (r *request, err error) {
	_, parameters, err := mime.ParseMediaType(kind)
	if b := parameters["boundary"]; err != nil || b == "" || len(b) > maxBoundary {
		return nil, refuse("", "the header Content-Type names no boundary of the form's parts")
	}
	boundary := make([]byte, 16)
	rand.Read(boundary)
	r = &request{ask: make([]byte, 0, len(body)+formHeadBytes), boundary: "chrysalis-" + hex.EncodeToString(boundary), heard: new(heard)}
	members := make([]byte, 0, 4096)
	defer func() {
		clear(members[:cap(members)])
		if err != nil {
			r.wipe()
			r = nil
		}
	}()
	if members, err = r.parts(multipart.NewReader(bytes.NewReader(body), parameters["boundary"]), members); err != nil {
		return r, err
	}
	if err := onlyObject(members); err != nil {
		return r, err
	}
	p := parsing{all: all}
	if p.sorted, err = p.sort(d.fields, members, ""); err != nil {
		return r, err
	}
	if err := p.model(d, body); err != nil {
		return r, err
	}
	r.by = p.by
	err = d.build(&p, r)
	r.ignored, r.answer = p.ignored, p.answer
	return r, err
}

// parts reads the parts of a form: audio into what the engine gets, and the rest as the members of an object. A name that ends with [] is a list,
// whose parts follow one another.
func (r *request) parts(form *multipart.Reader, members []byte) ([]byte, error) {
	members = append(members, '{')
	last := ""
	for n := 0; ; n++ {
		part, err := form.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return members, refuse("", "the body is no form with the boundary that its Content-Type names")
		}
		name := part.FormName()
		list := strings.HasSuffix(name, "[]")
		if n == maxParts || len(name) > maxIDBytes {
			return members, refuse("", "the form has more than %d parts, or a name of more than %d bytes", maxParts, maxIDBytes)
		}
		members = room(members, 6*(maxPartBytes+maxIDBytes)+16)
		if list && name == last {
			members = append(members[:len(members)-1], ',')
		} else {
			if last != "" {
				members = append(members, ',')
			}
			if members, err = jsontext.AppendQuote(members, name); err != nil {
				return members, refuse("", "a name of the form's parts is no UTF-8")
			}
			members = append(members, ':')
			if list {
				members = append(members, '[')
			}
		}
		last = name
		if name == "file" {
			r.ask = r.partHead(r.ask, `file"; filename="audio`)
			if r.ask, err = readPart(part, r.ask, cap(r.ask)-formHeadBytes/2-len(r.ask)); err != nil {
				return members, err
			}
			r.ask = append(r.ask, "\r\n"...)
			members = append(members, "true"...)
		} else {
			var text [maxPartBytes]byte
			value, err := readPart(part, text[:0], maxPartBytes)
			if err == nil {
				if members, err = jsontext.AppendQuote(members, value); err != nil {
					err = refuse(name, "%.80q is no UTF-8", name)
				}
			}
			clear(text[:])
			if err != nil {
				return members, err
			}
		}
		if list {
			members = append(members, ']')
		}
	}
	return append(members, '}'), nil
}

// readPart appends a part's bytes, at most so many.
func readPart(part *multipart.Part, b []byte, most int) ([]byte, error) {
	most = min(most, cap(b)-len(b))
	n, err := io.ReadFull(part, b[len(b):len(b)+most])
	b = b[:len(b)+n]
	if err == nil {
		var more [1]byte
		if n, err = part.Read(more[:]); n > 0 {
			return b, refuse(part.FormName(), "%.80q has more than %d bytes", part.FormName(), most)
		}
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF || err == io.ErrUnexpectedEOF && !endOf(part) {
		return b, refuse("", "the form ends within a part")
	}
	return b, nil
}

// endOf reports whether a part's end was read: a body that stops before it says so again.
func endOf(part *multipart.Part) bool {
	_, err := part.Read(make([]byte, 1))
	return err == io.EOF
}

// partHead begins a part of the engine's form.
func (r *request) partHead(b []byte, name string) []byte {
	return fmt.Appendf(b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n", r.boundary, name)
}

// buildTranscription ends the engine's form.
func buildTranscription(p *parsing, r *request) error {
	if p.of("file") == nil {
		return refuse("file", `field "file" is missing: want the audio`)
	}
	r.heard.verbose = word(p.of("response_format")) == "verbose_json"
	if g := p.of("timestamp_granularities[]"); g != nil {
		if !r.heard.verbose {
			return refuse("timestamp_granularities[]", "timestamp_granularities[] is given without response_format verbose_json")
		}
		array(g, func(v jsontext.Value) { r.heard.words = r.heard.words || word(v) == "word" })
	}
	// It hears no more than there are tokens for: what a compressed file holds, nobody knows before.
	r.field("duration", []byte(strconv.FormatUint(uint64(p.by.ContextTokens)*1000/audioTokensPerSecond+1000, 10)))
	r.field("response_format", []byte("verbose_json"))
	for _, name := range []string{"language", "prompt", "temperature"} {
		if v := p.of(name); v != nil {
			text, err := jsontext.AppendUnquote(make([]byte, 0, len(v)), []byte(v))
			if err != nil {
				return badJSON(err)
			}
			r.field(name, text)
			clear(text[:cap(text)])
		}
	}
	r.ask = append(append(append(r.ask, "--"...), r.boundary...), "--\r\n"...)
	p.answer = p.by.AnswerTokens
	return nil
}

// field appends a part to the engine's form.
func (r *request) field(name string, value []byte) {
	r.ask = append(append(r.partHead(r.ask, name), value...), "\r\n"...)
}

// maxHeardBytes bounds what is read of the engine for one file.
const maxHeardBytes = 16 << 20

// errHeard says that the engine's answer is none for audio.
var errHeard = errors.New("reading what the engine heard: it is no transcription")

// hear reads what the engine heard, and counts. What is kept of it is the answer's members, a line each, which the receipt is over.
func (a *answering) hear(upstream io.Reader, how heard) error {
	a.record.Outcome = receipt.Cut
	b, err := readWhole(upstream, maxHeardBytes)
	defer clear(b[:cap(b)])
	if err != nil {
		return err
	}
	if v := jsontext.Value(b); !v.IsValid() || v.Kind() != '{' {
		return errHeard
	}
	duration, err := strconv.ParseFloat(string(at(b, "duration")), 64)
	if err != nil || !(duration >= 0 && duration < math.MaxUint32/audioTokensPerSecond) || at(b, "segments").Kind() != '[' {
		return errHeard
	}
	spoken := transcript{spoken: room(nil, len(b)+4), segments: room(nil, 2*len(b)+64), words: room(nil, len(b)+64)}
	defer spoken.wipe()
	array(at(b, "segments"), func(v jsontext.Value) { spoken.add(v) })
	if spoken.bad {
		return errHeard
	}
	a.said.content = room(a.said.content, 2*len(spoken.spoken)+len(spoken.segments)+len(spoken.words)+512)
	line := func(name string, value ...[]byte) {
		a.said.content = append(append(append(a.said.content, '"'), name...), `":`...)
		for _, v := range value {
			a.said.content = append(a.said.content, v...)
		}
		a.said.content = append(a.said.content, '\n')
	}
	if how.verbose {
		line("task", []byte(`"transcribe"`))
		if spoken := at(b, "language"); isText(spoken) && len(spoken) <= 64 {
			line("language", spoken)
		}
		line("duration", strconv.AppendFloat(nil, duration, 'f', -1, 64))
	}
	text, err := jsontext.AppendQuote(make([]byte, 0, 6*len(spoken.spoken)+2), bytes.TrimSpace(spoken.spoken))
	defer clear(text[:cap(text)])
	if err != nil {
		return errHeard
	}
	line("text", text)
	if how.verbose {
		line("segments", []byte("["), spoken.segments, []byte("]"))
	}
	if how.words {
		line("words", []byte("["), spoken.words, []byte("]"))
	}
	a.response.Content(a.said.content)
	a.record.Usage = receipt.Usage{Prompt: uint32(math.Ceil(duration * audioTokensPerSecond)), Completion: min(spoken.tokens, a.model.AnswerTokens)}
	a.record.Outcome = receipt.Complete
	return nil
}

// transcript is what is written of the engine's segments.
type transcript struct {
	spoken          []byte // text
	segments, words []byte // JSON, with commas between
	n               int
	tokens          uint32
	bad             bool
}

// add takes a segment as the engine writes it. What is no number where one should be spoils the whole.
func (t *transcript) add(v jsontext.Value) {
	text := at(v, "text")
	if text.Kind() != '"' {
		t.bad = true
		return
	}
	said, err := jsontext.AppendUnquote(t.spoken, []byte(text))
	if t.spoken = said; err != nil {
		t.bad = true
		return
	}
	t.segments = fmt.Appendf(comma(t.segments), `{"id":%d,"seek":0`, t.n)
	t.n++
	member := func(b []byte, name string, v jsontext.Value) []byte {
		if v.Kind() != '0' {
			t.bad = true
			return b
		}
		return appendMember(b, name, v)
	}
	t.segments = member(member(t.segments, "start", at(v, "start")), "end", at(v, "end"))
	t.segments = append(appendMember(t.segments, "text", text), `,"tokens":[`...)
	array(at(v, "tokens"), func(id jsontext.Value) {
		t.tokens++
		t.segments = append(comma(t.segments), id...)
		t.bad = t.bad || id.Kind() != '0'
	})
	t.segments = append(t.segments, ']')
	for _, name := range []string{"temperature", "avg_logprob", "no_speech_prob"} {
		if given := at(v, name); given != nil && given.Kind() != 'n' { // a logarithm of nothing is null
			t.segments = member(t.segments, name, given)
		}
	}
	t.segments = append(t.segments, '}')
	array(at(v, "words"), func(v jsontext.Value) {
		word := at(v, "word")
		t.bad = t.bad || word.Kind() != '"'
		t.words = append(append(comma(t.words), `{"word":`...), word...)
		t.words = append(member(member(t.words, "start", at(v, "start")), "end", at(v, "end")), '}')
	})
}

func (t *transcript) wipe() {
	for _, b := range [][]byte{t.spoken, t.segments, t.words} {
		clear(b[:cap(b)])
	}
}

// transcriptionAnswer writes what was heard. There is no stream of it.
type transcriptionAnswer struct {
	chatAnswer
	id string
}

func newTranscriptionAnswer(id string, _ time.Time, _ string, _ *said) answerWriter {
	return &transcriptionAnswer{id: id}
}

func (j *transcriptionAnswer) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	b := append(make([]byte, 0, eventHead+len(s.content)), '{')
	for line := range bytes.Lines(s.content) {
		b = append(append(b, bytes.TrimSuffix(line, []byte("\n"))...), ',')
	}
	b = fmt.Appendf(b, `"id":"%s","usage":{"type":"tokens","input_tokens":%d,"input_token_details":{"text_tokens":0,"audio_tokens":%d},"output_tokens":%d,"total_tokens":%d}`,
		j.id, u.Prompt, u.Prompt, u.Completion, u.Total())
	return append(appendProof(b, p), "}\n"...)
}
