package gateway

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/receipt"
)

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
	if status, text := b.post(t, ask("")); status != 503 || strings.Contains(text, `"42`) {
		t.Errorf("whole answer not recorded: status %d: %s", status, text)
	}
	_, text := b.post(t, ask(`,"stream":true`))
	events := answerEvents(t, text)
	if strings.Contains(text, "[DONE]") || parseReply(t, events[len(events)-1]).Error == nil {
		t.Errorf("streamed answer not recorded: %s", text)
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
	b := startBench(t, func(c *Config) { c.Models[0].Concurrent = 1 })
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
