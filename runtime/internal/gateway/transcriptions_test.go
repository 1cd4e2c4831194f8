package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"
	"testing"

	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/receipt"
)

// part is one of a form.
type part struct{ name, value string }

const testBoundary = "form-of-a-client"

// form writes parts as clients do.
func form(t testing.TB, parts ...part) string {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.SetBoundary(testBoundary); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		h := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name="%s"`, p.name)}}
		if p.name == "file" {
			h.Set("Content-Disposition", `form-data; name="file"; filename="voice.ogg"`)
			h.Set("Content-Type", "audio/ogg")
		}
		part, err := w.CreatePart(h)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(part, p.value)
	}
	w.Close()
	return b.String()
}

// audioTest is audio whose bytes look like the end of a part, and like JSON.
const audioTest = "OggS\x00\xff\r\n--form-of-another\r\n\"}{\x00"

func shortForm(t testing.TB) string {
	return form(t, part{"file", audioTest}, part{"model", "tiny"})
}

const whisperSays = `{"task":"transcribe","language":"english","duration":1.51,"text":" The capital\n of Norway.\n","segments":[` +
	`{"id":0,"text":" The \"capital\"","start":0.0,"end":0.8,"tokens":[50364,440],"temperature":0.0,"avg_logprob":-0.5,"no_speech_prob":1e-3,` +
	`"words":[{"word":" The","start":0.0,"end":0.4,"t_dtw":-1,"probability":0.5},{"word":" \"capital\"","start":0.4,"end":0.8,"t_dtw":-1,"probability":0.5}]},` +
	`{"id":1,"text":" of Norway.","start":0.8,"end":1.5,"tokens":[295,24354,13],"temperature":0.0,"avg_logprob":null,"no_speech_prob":0.0}]}`

// hearingEngine answers as whisper-server does.
func hearingEngine(w *engineWriter) { io.WriteString(w.w, whisperSays) }

// postForm asks for what is said in audio.
func postForm(t testing.TB, b *bench, body string) (int, string) {
	t.Helper()
	r := b.request(t.(*testing.T), t.Context(), body)
	r.URL.Path = api.Transcriptions
	r.Header.Set("Content-Type", "multipart/form-data; boundary="+testBoundary)
	return b.do(t.(*testing.T), r)
}

// TestTranscriptions: what the engine is asked and heard, in the clear and in an envelope, with usage, receipt and signature.
func TestTranscriptions(t *testing.T) {
	const (
		text     = `"text":"The \"capital\" of Norway."`
		segments = `"segments":[{"id":0,"seek":0,"start":0.0,"end":0.8,"text":" The \"capital\"","tokens":[50364,440],"temperature":0.0,"avg_logprob":-0.5,"no_speech_prob":1e-3},` +
			`{"id":1,"seek":0,"start":0.8,"end":1.5,"text":" of Norway.","tokens":[295,24354,13],"temperature":0.0,"no_speech_prob":0.0}]`
		words = `"words":[{"word":" The","start":0.0,"end":0.4},{"word":" \"capital\"","start":0.4,"end":0.8}]`
		whole = `"task":"transcribe"` + "\n" + `"language":"english"` + "\n" + `"duration":1.51` + "\n" + text + "\n" + segments + "\n"
	)
	always := []part{{"duration", "164840"}, {"response_format", "verbose_json"}}
	for _, tt := range []struct {
		name    string
		parts   []part
		engine  []part // what it gets, beside the audio
		content string
		ignored string
	}{
		{"short", nil, always, text + "\n", ""},
		{"json", []part{{"response_format", "json"}, {"language", "en"}, {"prompt", "Norway, Oslo \"é"}, {"temperature", "0.25"}, {"user", "u"}, {"chunking_strategy", "auto"}},
			append(always[:2:2], part{"language", "en"}, part{"prompt", "Norway, Oslo \"é"}, part{"temperature", "0.25"}), text + "\n", "user, chunking_strategy"},
		{"verbose", []part{{"response_format", "verbose_json"}}, always, whole, ""},
		{"segments", []part{{"response_format", "verbose_json"}, {"timestamp_granularities[]", "segment"}}, always, whole, ""},
		{"words", []part{{"timestamp_granularities[]", "word"}, {"timestamp_granularities[]", "segment"}, {"response_format", "verbose_json"}}, always, whole + words + "\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, inDialect(t, "whisper-server"))
			b.engine.set(hearingEngine)
			status, answer := postForm(t, b, form(t, append([]part{{"file", audioTest}, {"model", "tiny"}}, tt.parts...)...))
			var r struct {
				ID        string
				Text      string
				Usage     json.RawMessage
				Chrysalis struct{ Receipt, Charge []byte }
			}
			if err := json.Unmarshal([]byte(answer), &r); err != nil || status != 200 || r.Text != `The "capital" of Norway.` || len(r.Chrysalis.Receipt) != receipt.Size ||
				string(r.Usage) != `{"type":"tokens","input_tokens":76,"input_token_details":{"text_tokens":0,"audio_tokens":76},"output_tokens":5,"total_tokens":81}` {
				t.Fatalf("status %d: %s", status, answer)
			}
			for line := range strings.Lines(tt.content) {
				if !strings.Contains(answer, strings.TrimSuffix(line, "\n")) {
					t.Errorf("got %s, want %s in it", answer, line)
				}
			}
			hash := receipt.NewResponseHash()
			hash.Content([]byte(tt.content))
			if a := b.keeper.await(t); a.Response != hash.Sum() || a.Outcome != receipt.Complete || a.Usage != (receipt.Usage{Prompt: 76, Completion: 5}) {
				t.Errorf("recorded: %+v", a)
			}
			if asked := b.engine.asked(); len(asked) != 1 || b.engine.paths[0] != "/inference" {
				t.Fatalf("the engine was asked %q at %q", asked, b.engine.paths)
			}
			got := partsOf(t, b.engine.kinds[0], b.engine.asked()[0])
			if want := append([]part{{"file", audioTest}}, tt.engine...); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the engine was asked %q, want %q", got, want)
			}
			if status, text := b.get(t, api.Signatures+r.ID); status != 200 {
				t.Errorf("signature: status %d: %s", status, text)
			}
		})
	}
	s := startSealed(t, inDialect(t, "whisper-server"))
	s.engine.set(hearingEngine)
	opened, answer, err := s.exchange(t, s.sealAs(t, envelope.Request{Method: "POST", Path: api.Transcriptions, Body: []byte(shortForm(t)), Header: []envelope.Field{
		{Name: "chrysalis-client", Value: testClient}, {Name: "content-type", Value: "multipart/form-data; boundary=" + testBoundary}}}))
	if err != nil || opened.Status != 200 || !strings.Contains(answer, text) {
		t.Errorf("sealed: %v, status %d: %s", err, opened.Status, answer)
	}
}

// partsOf reads a form as the engine would.
func partsOf(t *testing.T, kind, body string) (all []part) {
	t.Helper()
	_, parameters, err := mime.ParseMediaType(kind)
	if err != nil {
		t.Fatalf("%q: %v", kind, err)
	}
	r := multipart.NewReader(strings.NewReader(body), parameters["boundary"])
	for {
		p, err := r.NextPart()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		value, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.FormName() == "file" && p.FileName() != "audio" {
			t.Errorf("the engine is told that the file is %q", p.FileName())
		}
		all = append(all, part{p.FormName(), string(value)})
	}
}

// TestTranscriptionsRefuses: what is no form, or has what it must not have, never reaches the engine.
func TestTranscriptionsRefuses(t *testing.T) {
	b := startBench(t, func(c *Config) {
		inDialect(t, "whisper-server")(c)
		c.Models[0].RequestBytes = 64 << 10
	})
	file, model := part{"file", audioTest}, part{"model", "tiny"}
	whole := form(t, file, model)
	for _, tt := range []struct{ name, body, param, says string }{
		{"no file", form(t, model), "file", "missing"},
		{"no model", form(t, file), "model", "missing"},
		{"two files", form(t, file, model, file), "file", "given twice"},
		{"two models", form(t, file, model, model), "model", "given twice"},
		{"a list in two places", form(t, file, model, part{"timestamp_granularities[]", "word"}, part{"response_format", "verbose_json"}, part{"timestamp_granularities[]", "word"}),
			"timestamp_granularities[]", "given twice"},
		{"an unknown part", form(t, file, model, part{"offset_t", "1"}), "offset_t", "unknown field"},
		{"another model of the engine's", form(t, file, model, part{"load", "/etc"}), "load", "unknown field"},
		{"a part without a name", form(t, file, model, part{"", "x"}), "", "unknown field"},
		{"a format without a place for the proof", form(t, file, model, part{"response_format", "srt"}), "response_format", "no place for"},
		{"no language", form(t, file, model, part{"language", "English"}), "language", "two or three small letters"},
		{"no temperature", form(t, file, model, part{"temperature", "hot"}), "temperature", "from 0 to 1"},
		{"a temperature above", form(t, file, model, part{"temperature", "1.5"}), "temperature", "from 0 to 1"},
		{"a stream", form(t, file, model, part{"stream", "true"}), "stream", "one piece"},
		{"words in no place", form(t, file, model, part{"timestamp_granularities[]", "word"}), "timestamp_granularities[]", "without response_format verbose_json"},
		{"other times", form(t, file, model, part{"response_format", "verbose_json"}, part{"timestamp_granularities[]", "letter"}), "timestamp_granularities[]", "both"},
		{"speakers", form(t, file, model, part{"known_speaker_names[]", "x"}), "known_speaker_names[]", "not to be had"},
		{"a long prompt", form(t, file, model, part{"prompt", strings.Repeat("x", maxPartBytes+1)}), "prompt", "more than 4096 bytes"},
		{"a prompt of escapes", form(t, file, model, part{"prompt", strings.Repeat("\x01", maxPartBytes)}), "prompt", "up to 4096 bytes"},
		{"no UTF-8", form(t, file, model, part{"prompt", "\xff"}), "prompt", "no UTF-8"},
		{"a name of no UTF-8", form(t, file, model, part{"\xff", "x"}), "", "no UTF-8"},
		{"many parts", form(t, append([]part{file, model}, slicesOf(part{"user", "x"}, maxParts)...)...), "", "more than 16 parts"},
		{"a long name", form(t, file, model, part{strings.Repeat("n", maxIDBytes+1), "x"}), "", "more than 128 bytes"},
		{"an end in the audio", whole[:strings.Index(whole, "another")], "", "ends within a part"},
		{"an end in a text", whole[:strings.LastIndex(whole, "tiny")+2], "", "ends within a part"},
		{"no end", strings.TrimSuffix(whole, "--\r\n"), "", "no form"},
		{"JSON", `{"model":"tiny"}`, "", "no form"},
		{"nothing", "", "", "no form"},
		{"another boundary", strings.ReplaceAll(whole, testBoundary, "x"), "", "no form"},
	} {
		status, text := postForm(t, b, tt.body)
		r := parseReply(t, text)
		if status != 400 || r.Error == nil || tt.param != "" && (r.Error.Param == nil || *r.Error.Param != tt.param) || !strings.Contains(r.Error.Message, tt.says) {
			t.Errorf("%s: status %d: %s, want 400 for %q that says %q", tt.name, status, text, tt.param, tt.says)
		}
		if strings.Contains(text, "Ogg") {
			t.Errorf("%s: the refusal repeats the audio: %s", tt.name, text)
		}
	}
	for kind, want := range map[string]string{"application/json": "send multipart/form-data", "multipart/form-data": "no boundary", "multipart/form-data; boundary=" + strings.Repeat("x", 71): "no boundary",
		"multipart/mixed; boundary=x": "send multipart/form-data", "multipart/form-data; boundary=x; boundary=y": "send multipart/form-data"} {
		r := b.request(t, t.Context(), whole)
		r.URL.Path = api.Transcriptions
		r.Header.Set("Content-Type", kind)
		if status, text := b.do(t, r); status != 415 && status != 400 || !strings.Contains(text, want) {
			t.Errorf("%s: status %d: %s, want %q", kind, status, text, want)
		}
	}
	r := b.request(t, t.Context(), whole)
	r.Header.Set("Content-Type", "multipart/form-data; boundary="+testBoundary)
	if status, text := b.do(t, r); status != 415 {
		t.Errorf("a form for a chat: status %d: %s, want 415", status, text)
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Errorf("the engine was asked %d times, want never", n)
	}
	if status, text := postTo(t, b, api.ChatCompletions, requests[api.ChatCompletions]+"}"); status != 404 || !strings.Contains(text, "no_text") {
		t.Errorf("a chat: status %d: %s", status, text)
	}
	reads := startBench(t, nil)
	if status, text := postForm(t, reads, whole); status != 404 || !strings.Contains(text, "no_transcriptions") || len(reads.engine.asked()) != 0 {
		t.Errorf("an engine that hears nothing: status %d: %s", status, text)
	}
}

func slicesOf(p part, n int) []part {
	all := make([]part, n)
	for i := range all {
		all[i] = p
	}
	return all
}

// TestTranscriptionsOfEngine: what an engine that can't read audio, or answers something else, comes to. Nothing is recorded.
func TestTranscriptionsOfEngine(t *testing.T) {
	changed := func(old, new string) string { return strings.Replace(whisperSays, old, new, 1) }
	for _, tt := range []struct {
		name   string
		status int
		says   string
		want   int
		code   string
	}{
		{"no audio", 400, `{"error":"failed to read audio data"}`, 400, ""},
		{"a fault", 500, `{"error":"failed to process audio"}`, 503, "engine_down"},
		{"longer than there may be", 200, changed("1.51", "163.85"), 400, "context_length_exceeded"},
		{"no length", 200, changed(`"duration":1.51,`, ""), 502, "engine_lost"},
		{"a length of text", 200, changed("1.51", `"1.51"`), 502, "engine_lost"},
		{"a length below nothing", 200, changed("1.51", "-1"), 502, "engine_lost"},
		{"a length without end", 200, changed("1.51", "1e300"), 502, "engine_lost"},
		{"no segments", 200, changed("segments", "s"), 502, "engine_lost"},
		{"a text of a number", 200, changed(`" of Norway."`, "1"), 502, "engine_lost"},
		{"a token of text", 200, changed("24354", `"24354"`), 502, "engine_lost"},
		{"a time of text", 200, changed("0.8", `"0.8"`), 502, "engine_lost"},
		{"a word of a number", 200, changed(`" The"`, "1"), 502, "engine_lost"},
		{"no JSON", 200, whisperSays[:len(whisperSays)-1], 502, "engine_lost"},
		{"a list", 200, "[" + whisperSays + "]", 502, "engine_lost"},
	} {
		b := startBench(t, inDialect(t, "whisper-server"))
		b.engine.set(func(w *engineWriter) { w.w.WriteHeader(tt.status); fmt.Fprint(w.w, tt.says) })
		status, text := postForm(t, b, shortForm(t))
		if r := parseReply(t, text); status != tt.want || r.Error == nil || tt.code != "" && (r.Error.Code == nil || *r.Error.Code != tt.code) {
			t.Errorf("%s: status %d: %s, want %d %s", tt.name, status, text, tt.want, tt.code)
		}
		if answers, places := b.keeper.state(); len(answers) != 0 || places != 0 {
			t.Errorf("%s: %d answers were recorded and %d places are taken, want none", tt.name, len(answers), places)
		}
	}
}

// FuzzParseForm: what is taken has one reading, which is what the engine gets.
func FuzzParseForm(f *testing.F) {
	kind := "multipart/form-data; boundary=" + testBoundary
	all := tiny(9)
	for _, body := range []string{shortForm(f), form(f, part{"model", "tiny"}, part{"file", ""}, part{"prompt", "é"}, part{"timestamp_granularities[]", "word"},
		part{"timestamp_granularities[]", "segment"}, part{"response_format", "verbose_json"}, part{"temperature", "1"}), "", "--" + testBoundary + "--"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		r, err := parseForm(dialects[api.Transcriptions], kind, body, all)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if _, refused := err.(*refusal); !refused {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		if len(r.ask) > len(body)+formHeadBytes {
			t.Fatalf("a form of %d bytes became %d", len(body), len(r.ask))
		}
		parts := map[string]string{}
		for _, p := range partsOf(t, r.kind(), string(r.ask)) {
			if _, twice := parts[p.name]; twice {
				t.Fatalf("%q is told to the engine twice", p.name)
			}
			parts[p.name] = p.value
		}
		if parts["duration"] != "3000" || parts["response_format"] != "verbose_json" || len(parts) > 6 {
			t.Fatalf("the engine is told %q", parts)
		}
		if _, there := parts["file"]; !there {
			t.Fatal("the engine gets no audio")
		}
	})
}
