package gateway

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRefusesBodies(t *testing.T) {
	b := startBench(t, nil)
	for _, tt := range []struct {
		name, body, param string
		status            int
	}{
		{"empty", "", "", 400},
		{"no object", `[]`, "", 400},
		{"cut", ask("")[:30], "", 400},
		{"trailing", ask("") + "x", "", 400},
		{"cache_prompt", ask(`,"cache_prompt":true`), "cache_prompt", 400},
		{"id_slot", ask(`,"id_slot":0`), "id_slot", 400},
		{"n", ask(`,"n":3`), "n", 400},
		{"no model", `{"messages":[{"role":"user","content":"x"}]}`, "model", 400},
		{"model is null", `{"model":null,"messages":[{"role":"user","content":"x"}]}`, "model", 400},
		{"grammar", ask(`,"grammar":"root ::= x"`), "grammar", 400},
		{"cache_salt", ask(`,"cache_salt":"x"`), "cache_salt", 400},
		{"functions", ask(`,"functions":[]`), "functions", 400},
		{"a tool of no name", ask(`,"tools":[{"type":"function","function":{"description":"x"}}]`), "tools", 400},
		{"a tool's name", ask(`,"tools":[{"type":"function","function":{"name":"a b"}}]`), "tools", 400},
		{"a tool of another type", ask(`,"tools":[{"type":"code_interpreter","function":{"name":"a"}}]`), "tools", 400},
		{"a tool's own field", ask(`,"tools":[{"type":"function","function":{"name":"a","cache":1}}]`), "tools", 400},
		{"tools", ask(`,"tools":[` + strings.TrimSuffix(strings.Repeat(`{"type":"function","function":{"name":"a"}},`, 129), ",") + `]`), "", 413},
		{"tool_choice", ask(`,"tools":[],"tool_choice":"any"`), "tool_choice", 400},
		{"tool_choice of no name", ask(`,"tools":[],"tool_choice":{"type":"function"}`), "tool_choice", 400},
		{"tool_choice without tools", ask(`,"tool_choice":"auto"`), "tool_choice", 400},
		{"response_format", ask(`,"response_format":{"type":"regex"}`), "response_format", 400},
		{"response_format without its schema", ask(`,"response_format":{"type":"json_schema"}`), "response_format", 400},
		{"response_format of a schema of no name", ask(`,"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`), "response_format", 400},
		{"response_format with more", ask(`,"response_format":{"type":"json_object","schema":{}}`), "response_format", 400},
		{"logit_bias", ask(`,"logit_bias":{"1":101}`), "logit_bias", 400},
		{"logit_bias of a word", ask(`,"logit_bias":{"word":1}`), "logit_bias", 400},
		{"top_logprobs alone", ask(`,"top_logprobs":3`), "top_logprobs", 400},
		{"top_logprobs", ask(`,"logprobs":true,"top_logprobs":21`), "top_logprobs", 400},
		{"frequency_penalty", ask(`,"frequency_penalty":-2.5`), "frequency_penalty", 400},
		{"a number of many digits", ask(`,"temperature":1.` + strings.Repeat("0", 40)), "temperature", 400},
		{"a number beyond all", ask(`,"temperature":1e999`), "temperature", 400},
		{"seed is no whole number", ask(`,"seed":1.0`), "seed", 400},
		{"an image", `{"model":"tiny","messages":[{"role":"user","content":[{"image_url":{"url":"x"},"type":"image_url"}]}]}`, "messages", 400},
		{"no parts", `{"model":"tiny","messages":[{"role":"user","content":[]}]}`, "messages", 400},
		{"a part of no text", `{"model":"tiny","messages":[{"role":"user","content":[{"type":"text"}]}]}`, "messages", 400},
		{"a part with more", `{"model":"tiny","messages":[{"role":"user","content":[{"type":"text","text":"x","id":1}]}]}`, "messages", 400},
		{"no content", `{"model":"tiny","messages":[{"role":"assistant","content":null}]}`, "messages", 400},
		{"no role", `{"model":"tiny","messages":[{"content":"x"}]}`, "messages", 400},
		{"a message that is a text", `{"model":"tiny","messages":["x"]}`, "messages", 400},
		{"messages are a text", `{"model":"tiny","messages":"x"}`, "messages", 400},
		{"a user calls tools", `{"model":"tiny","messages":[{"role":"user","content":"x","tool_calls":[]}]}`, "tool_calls", 400},
		{"a call without arguments", `{"model":"tiny","messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f"}},{"id":"1"}]}]}`, "tool_calls", 400},
		{"a user's reasoning", `{"model":"tiny","messages":[{"role":"user","content":"x","reasoning_content":"y"}]}`, "reasoning_content", 400},
		{"a tool answers nothing", `{"model":"tiny","messages":[{"role":"tool","content":"x"}]}`, "tool_call_id", 400},
		{"a user answers a call", `{"model":"tiny","messages":[{"role":"user","content":"x","tool_call_id":"1"}]}`, "tool_call_id", 400},
		{"a name twice below", `{"model":"tiny","messages":[{"role":"user","role":"system","content":"x"}]}`, "role", 400},
		{"other letter case", ask(`,"Stream":true`), "Stream", 400},
		{"twice", ask(`,"stream":true,"stream":false`), "stream", 400},
		{"field of a message", `{"model":"tiny","messages":[{"role":"user","content":"x","weight":1}]}`, "weight", 400},
		{"role", `{"model":"tiny","messages":[{"role":"root","content":"x"}]}`, "role", 400},
		{"content is a list", `{"model":"tiny","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, "messages", 400},
		{"no messages", `{"model":"tiny","messages":[]}`, "messages", 400},
		{"another model", `{"model":"huge","messages":[{"role":"user","content":"x"}]}`, "model", 404},
		{"max_tokens zero", ask(`,"max_tokens":0`), "max_tokens", 400},
		{"max_tokens negative", ask(`,"max_tokens":-1`), "max_tokens", 400},
		{"max_tokens twice", ask(`,"max_tokens":1,"max_completion_tokens":1`), "max_tokens", 400},
		{"temperature", ask(`,"temperature":2.1`), "temperature", 400},
		{"temperature is text", ask(`,"temperature":"hot"`), "temperature", 400},
		{"top_p", ask(`,"top_p":0`), "top_p", 400},
		{"seed", ask(`,"seed":-1`), "seed", 400},
		{"stop is a number", ask(`,"stop":1`), "stop", 400},
		{"stops", ask(`,"stop":["1"` + strings.Repeat(`,"2"`, 32) + `]`), "stop", 400},
		{"a stop is a number", ask(`,"stop":[1]`), "stop", 400},
		{"stream_options alone", ask(`,"stream_options":{"include_usage":true}`), "stream_options", 400},
		{"field of stream_options", ask(`,"stream":true,"stream_options":{"x":1}`), "stream_options", 400},
		{"invalid UTF-8", ask(",\"stop\":\"\xff\""), "", 400},
		{"too large", ask(`,"stop":"` + strings.Repeat("x", 5000) + `"`), "", 413},
		{"deep", strings.Repeat(`[`, 4000), "", 400},
		{"deeper than the engine's reader may be", ask(`,"tools":[{"type":"function","function":{"name":"f","parameters":` +
			strings.Repeat(`{"a":`, 61) + "1" + strings.Repeat("}", 61) + `}}]`), "", 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, text := b.post(t, tt.body)
			r := parseReply(t, text)
			if status != tt.status || r.Error == nil || r.Error.Message == "" || r.Error.Type != "invalid_request_error" {
				t.Fatalf("status %d, want %d: %s", status, tt.status, text)
			}
			if tt.param != "" && (r.Error.Param == nil || *r.Error.Param != tt.param) {
				t.Errorf("want param %q: %s", tt.param, text)
			}
			if strings.Contains(text, "canary") || strings.Contains(text, "hot") {
				t.Errorf("the refusal repeats the client's text: %s", text)
			}
		})
	}
	if got := b.engine.asked(); len(got) != 0 {
		t.Errorf("the engine was asked %d times, want never", len(got))
	}
}

// TestNothingIsSmuggled: what stands behind a body of chunks, or in an extension of one, is no request: the connection ends with the refusal.
func TestNothingIsSmuggled(t *testing.T) {
	b := startBench(t, nil)
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nChrysalis-Client: " + testClient + "\r\n"
	const behind = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, request := range map[string]string{
		"TE.CL":                    head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + behind,
		"CL.TE":                    head + fmt.Sprintf("Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n", 5+len(behind)) + behind,
		"an extension":             head + "Transfer-Encoding: chunked\r\n\r\n2;x=" + strings.Repeat("y", 100) + "\r\n{}\r\n0\r\n\r\n" + behind,
		"an extension with a line": head + "Transfer-Encoding: chunked\r\n\r\n2;\n" + behind + "\r\n0\r\n\r\n" + behind,
		"a trailer":                head + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\nContent-Length: 40\r\n\r\n" + behind,
		"a coding with a tab":      head + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + behind,
		"another letter case":      head + "Transfer-Encoding: cHuNKed\r\n\r\n0\r\n\r\n" + behind,
		"a coding twice":           head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + behind,
	} {
		c := b.dial(t)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		go io.WriteString(c, request)
		answers, err := io.ReadAll(c)
		if n := strings.Count(string(answers), "HTTP/1.1 "); n != 1 || strings.HasPrefix(string(answers), "HTTP/1.1 2") {
			t.Errorf("%s: %d answers, want one refusal: %s (%v)", name, n, answers, err)
		}
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Errorf("the engine was asked %d times", n)
	}
}

// TestRefusesLargeBodies: what is deep, of two readings or no text is refused however large it is, in the client's own memory and time: the engine is not asked.
func TestRefusesLargeBodies(t *testing.T) {
	b := startBench(t, func(c *Config) { c.Models[0].RequestBytes, c.Models[0].ContextTokens = 2<<20, 2<<20 })
	const levels = 100_000
	tool := func(parameters string) string {
		return ask(`,"tools":[{"type":"function","function":{"name":"f","parameters":` + parameters + `}}]`)
	}
	said := func(text string) string {
		return `{"model":"tiny","messages":[{"role":"user","content":` + text + `}]}`
	}
	var bomb bytes.Buffer
	packed := gzip.NewWriter(&bomb)
	io.Copy(packed, io.LimitReader(zeros{}, 64<<20))
	packed.Close()
	for _, tt := range []struct {
		name, body string
		header     http.Header
		status     int
	}{
		{"100,000 lists", strings.Repeat("[", levels), nil, 400},
		{"100,000 lists that end", strings.Repeat("[", levels) + strings.Repeat("]", levels), nil, 400},
		{"100,000 objects in a field that is ignored", ask(`,"metadata":` + strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels)), nil, 400},
		{"100,000 objects in a tool", tool(strings.Repeat(`{"a":`, levels) + "1" + strings.Repeat("}", levels)), nil, 400},
		{"100,000 lists in a content", said(strings.Repeat("[", levels) + strings.Repeat("]", levels)), nil, 400},
		{"a name twice in a tool", tool(`{"type":"object","type":"array"}`), nil, 400},
		{"a name twice, once escaped", said(`"x"`)[:1] + `"m\u006fdel":"tiny",` + said(`"x"`)[1:], nil, 400},
		{"a name twice behind 10,000 others", ask(`,"metadata":{"a":1,` + manyNames(10_000) + `,"a":2}`), nil, 400},
		{"half a pair", said(`"\ud83d"`), nil, 400},
		{"the other half", said(`"\ude00"`), nil, 400},
		{"halves the wrong way round", said(`"\ude00\ud83d"`), nil, 400},
		{"half a pair in a name", ask(`,"metadata":{"\ud83d":"x"}`), nil, 400},
		{"half a pair as it would be in UTF-8", said("\"\xed\xa0\xbd\""), nil, 400},
		{"a byte of no text", said("\"\xff\""), nil, 400},
		{"a cut character", said("\"\xf0\x9f\x98\""), nil, 400},
		{"a character written too long", said("\"\xc0\xaf\""), nil, 400},
		{"beyond the last character", said("\"\xf4\x90\x80\x80\""), nil, 400},
		{"a NUL", said("\"\x00\""), nil, 400},
		{"a byte order mark", "\ufeff" + said(`"x"`), nil, 400},
		{"UTF-16", "\xff\xfe{\x00}\x00", nil, 400},
		{"a packed body that unpacks to 64 MiB", bomb.String(), http.Header{"Content-Encoding": {"gzip"}}, 415},
		{"the same, not said", bomb.String(), nil, 400},
		{"a whole pair", said(`"\ud83d\ude00"`), nil, 200},
	} {
		r := b.request(t, t.Context(), tt.body)
		for name, values := range tt.header {
			r.Header[name] = values
		}
		before := len(b.engine.asked())
		status, text := b.do(t, r)
		if status != tt.status || (status != 200) != (parseReply(t, text).Error != nil) {
			t.Errorf("%s: status %d, want %d: %.300s", tt.name, status, tt.status, text)
		}
		if asked := len(b.engine.asked()) > before; asked != (tt.status == 200) {
			t.Errorf("%s: the engine was asked: %t", tt.name, asked)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// manyNames are members of an object, each of another name.
func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"n%d":0`, i)
	}
	return b.String()[1:]
}

func TestClientHeader(t *testing.T) {
	b, free := startBench(t, nil), startBench(t, func(c *Config) { c.Charges = false })
	for _, tt := range []struct {
		name   string
		bench  *bench
		values []string
		status int
	}{
		{"named", b, []string{testClient}, 200},
		{"friendly form", b, []string{"EQCnLtuFKUoBIovVwWm5wssZozIgldXfTA8EDJXI4TLJ1N2Y"}, 400}, // wrong check sum
		{"missing", b, nil, 402},
		{"twice", b, []string{testClient, testClient}, 402},
		{"no address", b, []string{"0:12"}, 400},
		{"zero", b, []string{"0:" + strings.Repeat("0", 64)}, 400},
		{"free", free, nil, 200},
		{"named where nothing is charged", free, []string{testClient}, 400},
	} {
		r := tt.bench.request(t, t.Context(), ask(""))
		r.Header["Chrysalis-Client"] = tt.values
		response, err := tt.bench.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != tt.status {
			t.Errorf("%s: status %d, want %d", tt.name, response.StatusCode, tt.status)
		}
	}
}

// TestFraming sends what two readers could understand in two ways.
func TestFraming(t *testing.T) {
	b := startBench(t, nil)
	body := ask("")
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nChrysalis-Client: " + testClient + "\r\n"
	for _, tt := range []struct{ name, request, want string }{
		{"good", head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body), "200"},
		{"chunked", head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n", "411"},
		{"chunk with an extension", head + "Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n", "411"},
		{"chunk with an extension that ends its line for some", head + "Transfer-Encoding: chunked\r\n\r\n2;\nGET /v1/models HTTP/1.1\r\n{}\r\n0\r\n\r\n", "411"},
		{"chunks where nothing takes a body", "GET /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0;x\r\n\r\n", "411"},
		{"both", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"},
		{"other coding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
		{"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", "400"},
		{"length of letters", head + "Content-Length: +5\r\n\r\n{}   ", "400"},
		{"no length", head + "\r\n", "411"},
		{"one length twice", head + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"padded length", head + "Content-Length: 02\r\n\r\n{}", "400"},
		{"two lengths in one", head + "Content-Length: 2, 2\r\n\r\n{}", "400"},
		{"folded line", head + "X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"line folded by a tab", head + "X: a\r\n\tb\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"length behind a fold", head + "X: a\r\n Content-Length: 3\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"bare LF", head + "X: a\nContent-Length: 2\r\n\r\n{}", "400"},
		{"bare LF at the end", head + "Content-Length: 2\r\n\n{}", "400"},
		{"bare LF in the first line", "GET /v1/models HTTP/1.1\nHost: x\r\n\r\n", "400"},
		{"bare CR", head + "X: a\rb\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"empty line first", "\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		{"a line of no name", head + "X\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"NUL", head + "X: a\x00b\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"HTTP/1.9", "GET /v1/models HTTP/1.9\r\nHost: x\r\n\r\n", "505"},
		{"HTTP/1.0", "GET /v1/models HTTP/1.0\r\nHost: x\r\n\r\n", "200"},
		{"absolute target", "GET https://x/v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"absolute target of another host", "GET http://y/v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"coded path", "GET /v1/%6dodels HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"coded slash", "GET /v1%2fmodels HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"two slashes", "GET //v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"empty query", "GET /v1/models? HTTP/1.1\r\nHost: x\r\n\r\n", "400"},
		{"a length that is a promise", head + "Content-Length: 1000000000000\r\n\r\n{}", "413"},
		{"space before colon", head + "Content-Length : 2\r\n\r\n{}", "400"},
		{"coded body", head + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", "415"},
		{"upgrade", head + "Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"query", strings.Replace(head, "completions ", "completions?x=1 ", 1) + "Content-Length: 2\r\n\r\n{}", "400"},
		{"form", strings.Replace(head, "application/json", "text/plain", 1) + "Content-Length: 2\r\n\r\n{}", "415"},
		{"get", "GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n", "405"},
		{"get with a body", "GET /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", "400"},
		{"another path", "GET /slots HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"dots", "GET /v1/../v1/models HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		{"http2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "404"},
		{"large header", "GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", "431"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := b.dial(t)
			c.SetDeadline(time.Now().Add(10 * time.Second))
			go io.WriteString(c, tt.request)
			line := make([]byte, 12)
			if _, err := io.ReadFull(c, line); err != nil {
				t.Fatal(err)
			}
			if got := string(line[9:12]); got != tt.want {
				t.Errorf("status %s, want %s", got, tt.want)
			}
		})
	}
}
