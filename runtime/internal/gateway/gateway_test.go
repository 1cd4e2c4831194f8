package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/ratls"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

type reply struct {
	ID      string
	Object  string
	Model   string
	Choices []struct {
		Message struct{ Role, Content string }
		Delta   struct {
			Role, Content    string
			ReasoningContent string `json:"reasoning_content"`
		}
		FinishReason *string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
	Chrysalis *struct{ Receipt, Charge []byte }
	Error     *struct {
		Message string
		Type    string
		Param   *string
		Code    *string
	}
}

func parseReply(t testing.TB, text string) (r reply) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return r
}

const wholeText = "The answer is \"42\"\n."

func TestStreamed(t *testing.T) {
	b := startBench(t, nil)
	body := ask(`,"stream":true`)
	status, text := b.post(t, body)
	events := answerEvents(t, text)
	if status != 200 || len(events) < 4 || events[len(events)-1] != "[DONE]" {
		t.Fatalf("status %d, events %q", status, events)
	}
	content, roles := "", 0
	for _, e := range events[:len(events)-1] {
		r := parseReply(t, e)
		if r.Object != "chat.completion.chunk" || r.Model != "tiny" || !strings.HasPrefix(r.ID, "chatcmpl-") {
			t.Errorf("chunk %s", e)
		}
		for _, c := range r.Choices {
			content += c.Delta.Content
			if c.Delta.Role != "" {
				roles++
			}
		}
	}
	if content != wholeText || roles != 1 {
		t.Errorf("text %q with %d roles, want %q with one", content, roles, wholeText)
	}
	last := parseReply(t, events[len(events)-2])
	if last.Usage == nil || last.Usage.Prompt != 14 || last.Usage.Completion != 5 || last.Usage.Total != 19 {
		t.Errorf("last chunk: %s", events[len(events)-2])
	}
	if last.Chrysalis == nil || len(last.Chrysalis.Receipt) != receipt.Size || len(last.Chrysalis.Charge) != claim.BodySize {
		t.Errorf("last chunk has no proof: %s", events[len(events)-2])
	}
	if strings.Contains(text, "timings") || strings.Contains(text, "engine\"") || strings.Contains(text, "/model/") || strings.Contains(text, "cached") {
		t.Errorf("something of the engine's own is in the answer: %s", text)
	}
	a := b.keeper.await(t)
	hash := receipt.NewResponseHash()
	hash.Content([]byte(wholeText))
	if a.Request != sha256.Sum256([]byte(body)) || a.Response != hash.Sum() || a.Outcome != receipt.Complete ||
		a.Usage != (receipt.Usage{Prompt: 14, Completion: 5}) || claim.Address(a.Client).String() != testClient {
		t.Errorf("recorded: %+v", a)
	}
	if _, places := b.keeper.state(); places != 0 {
		t.Errorf("%d places are still taken, want none", places)
	}
}

func TestWhole(t *testing.T) {
	b := startBench(t, nil)
	status, text := b.post(t, ask(""))
	r := parseReply(t, text)
	if status != 200 || r.Object != "chat.completion" || len(r.Choices) != 1 || r.Choices[0].Message.Content != wholeText ||
		r.Choices[0].Message.Role != "assistant" || *r.Choices[0].FinishReason != "stop" || r.Usage.Total != 19 || r.Chrysalis == nil {
		t.Errorf("status %d: %s", status, text)
	}
	b.keeper.await(t)
}

func TestReasoning(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) {
		w.event(`{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}`)
		w.text("yes")
		w.event(`{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"usage":{"completion_tokens":3,"prompt_tokens":9,"completion_tokens_details":{"reasoning_tokens":2}}}`)
		w.event("[DONE]")
	})
	_, text := b.post(t, ask(""))
	if !strings.Contains(text, `"reasoning_content":"hm","content":"yes"`) || !strings.Contains(text, `"finish_reason":"length"`) {
		t.Errorf("answer: %s", text)
	}
	if a := b.keeper.await(t); a.Usage != (receipt.Usage{Prompt: 9, Completion: 3, Reasoning: 2}) {
		t.Errorf("usage is %+v", a.Usage)
	}
}

// TestEngineGetsOnlyTheAllowList compares the rebuilt request with the whole of what it must be.
func TestEngineGetsOnlyTheAllowList(t *testing.T) {
	b := startBench(t, nil)
	b.post(t, `{"seed":7,"stop":["a","b"],"top_p":0.5,"temperature":0,"max_tokens":100000,"stream":true,"stream_options":{"include_usage":false},
		"messages":[{"role":"system","content":"be \u00e9"},{"content":"hi\n","role":"user"}],"model":"tiny"}`)
	b.post(t, ask(`,"max_completion_tokens":3`))
	want := []string{
		`{"messages":[{"role":"system","content":"be \u00e9"},{"role":"user","content":"hi\n"}],"max_tokens":100,"temperature":0,"top_p":0.5,"seed":7,"stop":["a","b"],"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`,
		`{"messages":[{"role":"user","content":"canary-prompt?"}],"max_tokens":3,"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false}`,
	}
	if got := b.engine.asked(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the engine was asked\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

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
		{"tools", ask(`,"tools":[]`), "tools", 400},
		{"other letter case", ask(`,"Stream":true`), "Stream", 400},
		{"twice", ask(`,"stream":true,"stream":false`), "stream", 400},
		{"field of a message", `{"model":"tiny","messages":[{"role":"user","content":"x","name":"y"}]}`, "name", 400},
		{"role", `{"model":"tiny","messages":[{"role":"tool","content":"x"}]}`, "messages", 400},
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
		{"stops", ask(`,"stop":["1","2","3","4","5"]`), "stop", 400},
		{"a stop is a number", ask(`,"stop":[1]`), "stop", 400},
		{"stream_options alone", ask(`,"stream_options":{"include_usage":true}`), "stream_options", 400},
		{"field of stream_options", ask(`,"stream":true,"stream_options":{"x":1}`), "x", 400},
		{"invalid UTF-8", ask(",\"stop\":\"\xff\""), "", 400},
		{"too large", ask(`,"stop":"` + strings.Repeat("x", 5000) + `"`), "", 413},
		{"deep", strings.Repeat(`[`, 4000), "", 400},
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
		{"both", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"},
		{"other coding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
		{"two lengths", head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", "400"},
		{"length of letters", head + "Content-Length: +5\r\n\r\n{}   ", "400"},
		{"no length", head + "\r\n", "400"},
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

func TestTLS(t *testing.T) {
	b := startBench(t, nil)
	c := b.dial(t)
	state := c.ConnectionState()
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("version %x, protocol %q", state.Version, state.NegotiatedProtocol)
	}
	if _, ok := state.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey); !ok {
		t.Errorf("key is a %T", state.PeerCertificates[0].PublicKey)
	}
	if state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("key exchange is %s, want X25519MLKEM768", state.CurveID)
	}
	if c, err := tls.Dial("tcp", b.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

// TestEngineDies cuts the engine's answer at each event: the client is told, nothing says that the answer is whole, and
// what was streamed is recorded once.
func TestEngineDies(t *testing.T) {
	for tokens := range 4 {
		for _, how := range []string{"cut", "proper end without usage", "error event"} {
			t.Run(fmt.Sprintf("%s after %d tokens", how, tokens), func(t *testing.T) {
				b := startBench(t, nil)
				b.engine.set(func(w *engineWriter) {
					w.begin(14)
					for range tokens {
						w.text("word ")
					}
					switch how {
					case "cut":
						w.conn()
					case "proper end without usage":
						w.event("[DONE]")
					case "error event":
						w.event(`{"error":{"message":"canary","code":500}}`)
					}
				})
				status, text := b.post(t, ask(`,"stream":true`))
				if strings.Contains(text, "[DONE]") || strings.Contains(text, "canary") {
					t.Fatalf("status %d: %s", status, text)
				}
				if tokens == 0 {
					if r := parseReply(t, text); status != 502 || *r.Error.Code != "engine_lost" {
						t.Errorf("status %d: %s", status, text)
					}
					if answers, places := b.keeper.state(); len(answers) != 0 || places != 0 {
						t.Errorf("%d answers recorded and %d places taken, want none: nothing reached the client", len(answers), places)
					}
					return
				}
				events := answerEvents(t, text)
				last := parseReply(t, events[len(events)-1])
				if last.Error == nil || *last.Error.Code != "engine_lost" || last.Usage.Completion != tokens || last.Chrysalis == nil {
					t.Errorf("last event: %s", events[len(events)-1])
				}
				if a := b.keeper.await(t); a.Outcome != receipt.Cut || a.Usage != (receipt.Usage{Prompt: 14, Completion: uint32(tokens)}) {
					t.Errorf("recorded: %+v", a)
				}
				b.engine.set(func(w *engineWriter) { w.text("up again"); w.end(1, 2) })
				if status, _ := b.post(t, ask("")); status != 200 {
					t.Errorf("after the engine's restart: status %d", status)
				}
			})
		}
	}
}

func TestEngineDiesBeforeWholeAnswer(t *testing.T) {
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) { w.begin(14); w.text("word"); w.conn() })
	status, text := b.post(t, ask(""))
	if r := parseReply(t, text); status != 502 || *r.Error.Code != "engine_lost" {
		t.Errorf("status %d: %s", status, text)
	}
	if answers, places := b.keeper.state(); len(answers) != 0 || places != 0 {
		t.Errorf("%d answers recorded and %d places taken, want none: nothing reached the client", len(answers), places)
	}
}

func TestEngineDown(t *testing.T) {
	b := startBench(t, nil)
	b.engine.path += ".gone"
	if status, text := b.post(t, ask(`,"stream":true`)); status != 503 || *parseReply(t, text).Error.Code != "engine_down" {
		t.Errorf("status %d: %s", status, text)
	}
}

// TestClientLeaves: what was computed for a client who is gone is recorded, and the engine stops.
func TestClientLeaves(t *testing.T) {
	b := startBench(t, nil)
	stopped := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		w.begin(14)
		w.text("one")
		w.text("two")
		<-w.gone
		close(stopped)
	})
	ctx, cancel := context.WithCancel(t.Context())
	response, err := b.http.Do(b.request(t, ctx, ask(`,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	seen := ""
	for !strings.Contains(seen, "two") {
		piece := make([]byte, 1024)
		n, err := response.Body.Read(piece)
		if err != nil {
			t.Fatal(err)
		}
		seen += string(piece[:n])
	}
	cancel()
	if a := b.keeper.await(t); a.Outcome != receipt.Cut || a.Usage != (receipt.Usage{Prompt: 14, Completion: 2}) {
		t.Errorf("recorded: %+v", a)
	}
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Error("the engine goes on")
	}
}

// TestNothingWithoutRecord: an answer that can't be recorded does not end, or does not begin.
func TestNothingWithoutRecord(t *testing.T) {
	b := startBench(t, nil)
	b.keeper.onTake = fmt.Errorf("taking: %w", ErrFull)
	if status, text := b.post(t, ask("")); status != 507 || *parseReply(t, text).Error.Code != "journal_full" {
		t.Errorf("full journal: status %d: %s", status, text)
	}
	b.keeper.onTake = errTest
	if status, _ := b.post(t, ask("")); status != 503 {
		t.Errorf("keeper gone: status %d", status)
	}
	if n := len(b.engine.asked()); n != 0 {
		t.Fatalf("the engine was asked %d times, want never", n)
	}
	b.keeper.onTake, b.keeper.onRecord = nil, errTest
	if status, text := b.post(t, ask("")); status != 503 || strings.Contains(text, "42") {
		t.Errorf("whole answer not recorded: status %d: %s", status, text)
	}
	_, text := b.post(t, ask(`,"stream":true`))
	events := answerEvents(t, text)
	if strings.Contains(text, "[DONE]") || parseReply(t, events[len(events)-1]).Error == nil {
		t.Errorf("streamed answer not recorded: %s", text)
	}
}

// TestFirstEventIsNotHeldBack reads the first token while the engine is silent.
func TestFirstEventIsNotHeldBack(t *testing.T) {
	b := startBench(t, nil)
	release := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		w.begin(1)
		w.text("first")
		<-release
		w.end(1, 1)
	})
	response, err := b.http.Do(b.request(t, t.Context(), ask(`,"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	piece := make([]byte, 4096)
	n, err := response.Body.Read(piece)
	if err != nil || !strings.Contains(string(piece[:n]), "first") {
		t.Errorf("got %q, %v; want the first token", piece[:n], err)
	}
	close(release)
	if rest, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(rest), "[DONE]") {
		t.Errorf("rest: %q, %v", rest, err)
	}
}

// TestSlowAnswers: an answer may take longer than a request may take to arrive, and than a client may take for a piece.
func TestSlowAnswers(t *testing.T) {
	b := startBench(t, nil, func(g *Gateway) { g.waits.request, g.waits.client = 300*time.Millisecond, 300*time.Millisecond })
	b.engine.set(func(w *engineWriter) {
		w.begin(1)
		for range 8 {
			time.Sleep(100 * time.Millisecond)
			w.text("slow ")
		}
		time.Sleep(400 * time.Millisecond)
		w.end(1, 8)
	})
	if status, text := b.post(t, ask("")); status != 200 || !strings.Contains(text, strings.Repeat("slow ", 8)) {
		t.Errorf("whole: status %d: %s", status, text)
	}
	if status, text := b.post(t, ask(`,"stream":true`)); status != 200 || !strings.Contains(text, "[DONE]") {
		t.Errorf("streamed: status %d: %s", status, text)
	}
}

// TestSlowClients: who does not send or does not take is not waited for.
func TestSlowClients(t *testing.T) {
	b := startBench(t, nil, func(g *Gateway) { g.waits.request, g.waits.client = 200*time.Millisecond, 200*time.Millisecond })
	c := b.dial(t)
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nChrysalis-Client: %s\r\nContent-Length: 100\r\n\r\n{", testClient)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if all, err := io.ReadAll(c); err != nil || !strings.Contains(string(all), "400 Bad Request") {
		t.Errorf("half a body: got %q, %v", all, err)
	}
	b.engine.set(func(w *engineWriter) {
		for {
			select {
			case <-w.gone:
				return
			default:
				w.text(strings.Repeat("x", 10_000))
			}
		}
	})
	c = b.dial(t)
	body := ask(`,"stream":true`)
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nChrysalis-Client: %s\r\nContent-Length: %d\r\n\r\n%s", testClient, len(body), body)
	if a := b.keeper.await(t); a.Outcome != receipt.Cut { // nothing is read of the answer
		t.Errorf("recorded: %+v", a)
	}
}

func TestEngineHangs(t *testing.T) {
	b := startBench(t, nil, func(g *Gateway) { g.waits.engine = 100 * time.Millisecond })
	b.engine.set(func(w *engineWriter) { w.begin(3); w.text("one"); <-w.gone })
	_, text := b.post(t, ask(`,"stream":true`))
	events := answerEvents(t, text)
	if last := parseReply(t, events[len(events)-1]); last.Error == nil || last.Usage.Completion != 1 {
		t.Errorf("answer: %s", text)
	}
}

func TestBusy(t *testing.T) {
	b := startBench(t, func(c *Config) { c.Concurrent = 1 })
	release := make(chan struct{})
	b.engine.set(func(w *engineWriter) { <-release; w.text("x"); w.end(1, 1) })
	results := make(chan int, 10)
	for range 7 {
		go func() {
			response, err := b.http.Do(b.request(t, t.Context(), ask("")))
			if err != nil {
				results <- 0
				return
			}
			response.Body.Close()
			results <- response.StatusCode
		}()
	}
	for range 2 { // one is computed, four wait
		if status := <-results; status != 429 {
			t.Errorf("status %d, want 429", status)
		}
	}
	close(release)
	for range 5 {
		if status := <-results; status != 200 {
			t.Errorf("status %d, want 200", status)
		}
	}
}

// TestLogsKeepQuiet looks for the client's text in every line, after good and bad requests.
func TestLogsKeepQuiet(t *testing.T) {
	b := startBench(t, nil)
	b.post(t, ask(`,"stream":true`))
	b.post(t, ask(`,"canary-field":1`))
	b.engine.set(func(w *engineWriter) { w.text("canary-answer"); w.event(`{"canary-broken`); w.conn() })
	b.post(t, ask(`,"stream":true`))
	b.engine.path += "canary-less"
	b.post(t, ask(""))
	log := b.log.String()
	if !strings.Contains(log, "answered") || !strings.Contains(log, "answer cut") {
		t.Errorf("the log lacks its lines: %s", log)
	}
	if strings.Contains(strings.ReplaceAll(log, "canary-less", ""), "canary") || strings.Contains(log, "42") && strings.Contains(log, "The answer") {
		t.Errorf("the client's text is in the log: %s", log)
	}
}

func TestEvidence(t *testing.T) {
	b := startBench(t, nil)
	nonce := strings.Repeat("5a", 32)
	get := func(query string) (*tls.ConnectionState, int, []byte) {
		response, err := b.http.Get(b.url + "/v1/evidence" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.TLS, response.StatusCode, body
	}
	state, status, body := get("?nonce=" + nonce)
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	e, err := attest.DecodeEvidence(body)
	if err != nil {
		t.Fatal(err)
	}
	exported, err := state.ExportKeyingMaterial(attest.ExporterLabel, nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	leaf := attest.Leaf([32]byte([]byte(strings.Repeat("\x5a", 32))), [32]byte(exported))
	root, err := e.Path.Root(leaf)
	if err != nil || root != e.Statement.NonceRoot {
		t.Errorf("the path leads to %x, %v; want %x", root, err, e.Statement.NonceRoot)
	}
	if want := ratls.KeyHash(state.PeerCertificates[0]); e.Statement.TLSKey != want || e.Statement.Epoch != 1 {
		t.Errorf("statement names key %x of epoch %d, want %x of 1", e.Statement.TLSKey, e.Statement.Epoch, want)
	}
	for _, query := range []string{"", "?nonce=" + nonce[:62], "?nonce=" + strings.ToUpper(nonce), "?nonce=" + nonce + "&x=1", "?x=" + nonce} {
		if _, status, _ := get(query); status != 400 {
			t.Errorf("%q: status %d, want 400", query, status)
		}
	}
	b.quoter.err = errTest
	if _, status, _ := get("?nonce=" + nonce); status != 503 {
		t.Errorf("no quote: status %d, want 503", status)
	}
}

func TestModels(t *testing.T) {
	b := startBench(t, nil)
	response, err := b.http.Get(b.url + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	if want := `{"object":"list","data":[{"id":"tiny","object":"model","created":0,"owned_by":"chrysalis"}]}` + "\n"; string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
}

func TestPanicIsQuiet(t *testing.T) {
	b := startBench(t, nil)
	b.gateway.config.Keeper = nil // a bug: the handler will use it
	if response, err := b.http.Do(b.request(t, t.Context(), ask(""))); err == nil {
		response.Body.Close()
		t.Errorf("status %d, want the connection to end", response.StatusCode)
	}
	if log := b.log.String(); !strings.Contains(log, "handler panicked") || !strings.Contains(log, ".go:") || strings.Contains(log, "canary") {
		t.Errorf("log: %s", log)
	}
}

func FuzzParseRequest(f *testing.F) {
	limits := requestLimits{model: "tiny", answerTokens: 100}
	for _, seed := range []string{ask(""), ask(`,"stream":true,"stop":["a"],"seed":1`), ask(`,"cache_prompt":true`), `{}`, `[`} {
		f.Add([]byte(seed))
	}
	allowed := map[string]bool{"messages": true, "max_tokens": true, "temperature": true, "top_p": true, "seed": true, "stop": true,
		"stream": true, "stream_options": true, "return_progress": true, "cache_prompt": true}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body, limits)
		if err != nil {
			return
		}
		var got map[string]json.RawMessage
		if err := json.Unmarshal(r.engineRequest(limits), &got); err != nil {
			t.Fatalf("rebuilt request is no JSON: %v", err)
		}
		for name := range got {
			if !allowed[name] {
				t.Fatalf("the engine would get %q", name)
			}
		}
		if string(got["cache_prompt"]) != "false" || string(got["stream"]) != "true" {
			t.Fatal("the engine would get another cache_prompt or stream")
		}
	})
}

func FuzzEvents(f *testing.F) {
	f.Add("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n")
	f.Add(": ping\n\ndata: {\"usage\":{\"prompt_tokens\":1}}\n")
	f.Add("error: x\n")
	f.Fuzz(func(t *testing.T, stream string) {
		e := newEvents(strings.NewReader(stream))
		var c chunk
		for range 1000 {
			if err := e.next(&c); err != nil {
				return
			}
		}
	})
}

// TestBase64 pins the alphabet of receipts and charges in answers.
func TestBase64(t *testing.T) {
	if got, want := base64Of([]byte{0xff, 0xfe}), base64.StdEncoding.EncodeToString([]byte{0xff, 0xfe}); got != want || got != "//4=" {
		t.Errorf("got %s, want %s", got, want)
	}
	var _ http.Handler = (&Gateway{}).handler()
}
