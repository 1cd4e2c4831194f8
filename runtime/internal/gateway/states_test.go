package gateway

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/receipt"
)

// TestEngineLies: usage that can't be this answer's ends it as cut, with what the gateway has counted itself, and once.
func TestEngineLies(t *testing.T) {
	usage := func(prompt, completion string) string {
		return fmt.Sprintf(`{"choices":[],"usage":{"prompt_tokens":%s,"completion_tokens":%s}}`, prompt, completion)
	}
	for _, tt := range []struct {
		name  string
		usage []string // the first of them before the last word
		want  receipt.Usage
		cut   bool
	}{
		{"the truth", []string{usage("14", "1"), usage("14", "3")}, receipt.Usage{Prompt: 14, Completion: 3}, false},
		{"as many as the limits have", []string{usage("200", "10")}, receipt.Usage{Prompt: 200, Completion: 10}, false},
		{"a longer answer than was asked for", []string{usage("14", "11")}, receipt.Usage{Prompt: 14, Completion: 2}, true},
		{"a prompt longer than the context", []string{usage("201", "2")}, receipt.Usage{Prompt: 14, Completion: 2}, true},
		{"more than a number holds", []string{usage("14", "4294967296")}, receipt.Usage{Prompt: 14, Completion: 2}, true},
		{"fewer than nothing", []string{usage("14", "-1")}, receipt.Usage{Prompt: 14, Completion: 2}, true},
		{"a fraction", []string{usage("14", "1.5")}, receipt.Usage{Prompt: 14, Completion: 2}, true},
		{"fewer than before", []string{usage("14", "3"), usage("14", "2")}, receipt.Usage{Prompt: 14, Completion: 3}, true},
		{"another prompt than before", []string{usage("14", "3"), usage("13", "3")}, receipt.Usage{Prompt: 14, Completion: 3}, true},
		{"more of the prompt cached than there is", []string{`{"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":99}}}`},
			receipt.Usage{Prompt: 14, Completion: 2, Cached: 14}, false},
		{"more thought than said", []string{`{"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":99}}}`},
			receipt.Usage{Prompt: 14, Completion: 2, Reasoning: 2}, false},
		{"none", nil, receipt.Usage{Prompt: 14, Completion: 3}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := startBench(t, func(c *Config) { c.Models[0].ContextTokens = 200 })
			b.engine.set(func(w *engineWriter) {
				w.begin(14)
				w.text("one ")
				w.text("two ")
				for i, u := range tt.usage {
					w.event("%s", u)
					if i == 0 {
						w.text("three")
					}
				}
				if tt.usage == nil {
					w.text("three")
				}
				w.event("[DONE]")
			})
			_, text := b.post(t, ask(`,"stream":true,"max_tokens":10`))
			outcome := receipt.Complete
			if tt.cut {
				outcome = receipt.Cut
			}
			if whole := strings.Contains(text, "[DONE]"); whole == tt.cut {
				t.Errorf("the answer says that it is whole: %t: %s", whole, text)
			}
			if a := b.keeper.await(t); a.Outcome != outcome || a.Usage != tt.want {
				t.Errorf("recorded %v with %+v, want %v with %+v", a.Outcome, a.Usage, outcome, tt.want)
			}
			// A whole answer that is not streamed costs nothing where it is not given.
			status, text := b.post(t, ask(`,"max_tokens":10`))
			answers, places := b.keeper.state()
			if tt.cut && (status != 502 || len(answers) != 1) || !tt.cut && (status != 200 || len(answers) != 2) || places != 0 {
				t.Errorf("not streamed: status %d with %d records and %d places: %s", status, len(answers), places, text)
			}
		})
	}
	t.Run("a prompt longer than the context, before its first word", func(t *testing.T) {
		b := startBench(t, func(c *Config) { c.Models[0].ContextTokens = 200 })
		b.engine.set(func(w *engineWriter) { w.begin(201); w.text("one"); w.end(201, 1) })
		for _, extra := range []string{"", `,"stream":true`} {
			if status, text := b.post(t, ask(extra)); status != 502 || *parseReply(t, text).Error.Code != "engine_lost" {
				t.Errorf("status %d: %s", status, text)
			}
		}
		if answers, places := b.keeper.state(); len(answers) != 0 || places != 0 {
			t.Errorf("%d answers recorded and %d places taken, want none", len(answers), places)
		}
	})
}

// TestEngineAtEachState kills the engine, and has it hang, in each state of an answer: the client is told, nothing says that the answer is whole, what was
// streamed is recorded once, and no place stays taken.
func TestEngineAtEachState(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
	const begun = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"prompt_progress":{"total":14,"cache":0}}` + "\n\n"
	const word = `data: {"choices":[{"index":0,"finish_reason":null,"delta":{"content":"word"}}]}` + "\n\n"
	const usage = `data: {"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":1}}` + "\n\n"
	for _, tt := range []struct {
		state, says string
		status      int // of a whole answer
		words       int
	}{
		{"connected", "", 503, 0},
		{"in its first line", head[:10], 503, 0},
		{"in its header", head[:40], 503, 0},
		{"before its first event", head, 502, 0},
		{"reading the prompt", head + begun, 502, 0},
		{"in the first word", head + begun + word[:30], 502, 0},
		{"after a word", head + begun + word, 502, 1},
		{"in the second word", head + begun + word + word[:30], 502, 1},
		{"before the end", head + begun + word + usage, 502, 1},
		{"in the end", head + begun + word + usage + "data: [DO", 502, 1},
	} {
		for _, hangs := range []bool{false, true} {
			for _, streams := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, hangs %t, streams %t", tt.state, hangs, streams), func(t *testing.T) {
					engine, err := net.Listen("unix", t.TempDir()+"/e.sock")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { engine.Close() })
					go func() {
						for {
							c, err := engine.Accept()
							if err != nil {
								return
							}
							go func() {
								defer c.Close()
								request := make([]byte, 64<<10)
								for n, at := 0, 0; !strings.Contains(string(request[:at]), "\r\n\r\n{"); at += n {
									if n, err = c.Read(request[at:]); err != nil {
										return
									}
								}
								io.WriteString(c, tt.says)
								if hangs {
									io.Copy(io.Discard, c) // until the gateway has had enough
								}
							}()
						}
					}()
					b := startBench(t, func(c *Config) {
						c.Models[0].DialEngine = func(ctx context.Context) (net.Conn, error) {
							return new(net.Dialer).DialContext(ctx, "unix", engine.Addr().String())
						}
					}, func(g *Gateway) { g.waits.engine = 100 * time.Millisecond })
					extra, status := "", tt.status
					if streams {
						extra = `,"stream":true`
						if tt.words > 0 {
							status = 200
						}
					}
					got, text := b.post(t, ask(extra))
					if got != status || strings.Contains(text, "[DONE]") || !strings.Contains(text, `"error"`) {
						t.Errorf("status %d, want %d with an error: %s", got, status, text)
					}
					recorded := 0
					if streams {
						recorded = tt.words
					}
					answers, places := b.keeper.state()
					if len(answers) != recorded || places != 0 {
						t.Fatalf("%d answers recorded and %d places taken, want %d and none", len(answers), places, recorded)
					}
					if recorded > 0 && (answers[0].Outcome != receipt.Cut || answers[0].Usage != receipt.Usage{Prompt: 14, Completion: 1}) {
						t.Errorf("recorded %+v", answers[0])
					}
					if _, taken, waiting := b.gateway.served[0].places.stand(); taken != 0 || waiting != 0 {
						t.Errorf("%d places are taken and %d wait, want none", taken, waiting)
					}
				})
			}
		}
	}
}

// TestClientAtEachState has the client go in each state of a request, as a process does that is killed: what was computed for it is recorded once, with the
// count as of then, what was not costs nothing, the engine stops, and no place stays taken.
func TestClientAtEachState(t *testing.T) {
	head := func(extra string) string {
		body := ask(extra)
		return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nChrysalis-Client: %s\r\nContent-Length: %d\r\n\r\n%s",
			testClient, len(body), body)
	}
	streamed, whole := head(`,"stream":true`), head("")
	for _, tt := range []struct {
		state, sends string
		queued       bool                // behind another request
		reads        string              // what the client waits for before it goes
		until        string              // or what the engine, or the keeper, waits in when it goes
		script       func(*engineWriter) // of the engine; it waits for the gateway to leave at the end
		want         *receipt.Usage
		outcome      receipt.Outcome
	}{
		{state: "in its header", sends: streamed[:60]},
		{state: "before the body", sends: streamed[:strings.Index(streamed, "{")]},
		{state: "in the body", sends: streamed[:len(streamed)-10]},
		{state: "queued", sends: streamed, queued: true, until: "queued"},
		{state: "while the prompt is read", sends: streamed, until: "engine", script: func(w *engineWriter) { w.begin(14) }, want: &receipt.Usage{Prompt: 14}, outcome: receipt.Cut},
		{state: "before anything is known of it", sends: streamed, until: "engine", script: func(*engineWriter) {}},
		{state: "after two words", sends: streamed, reads: "two", script: func(w *engineWriter) { w.begin(14); w.text("one"); w.text("two") },
			want: &receipt.Usage{Prompt: 14, Completion: 2}, outcome: receipt.Cut},
		{state: "after two words of a whole answer", sends: whole, until: "engine", script: func(w *engineWriter) { w.begin(14); w.text("one"); w.text("two") },
			want: &receipt.Usage{Prompt: 14, Completion: 2}, outcome: receipt.Cut},
		{state: "before the receipt", sends: streamed, reads: "one", until: "record", script: func(w *engineWriter) { w.begin(14); w.text("one"); w.end(14, 1) },
			want: &receipt.Usage{Prompt: 14, Completion: 1}, outcome: receipt.Complete},
	} {
		t.Run(tt.state, func(t *testing.T) {
			b := startBench(t, func(c *Config) { c.Models[0].Concurrent = 1 })
			atEngine, atKeeper, gone, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
			if tt.until == "record" {
				b.keeper.before = func() { close(atKeeper); <-gone }
			}
			var first chan struct{}
			if tt.queued {
				first = make(chan struct{})
				release := make(chan struct{})
				b.engine.set(func(w *engineWriter) { close(atEngine); <-release; w.text("x"); w.end(1, 1) })
				go func() {
					defer close(first)
					b.post(t, ask(""))
				}()
				<-atEngine
				defer func() {
					close(release)
					<-first
				}()
			} else {
				b.engine.set(func(w *engineWriter) {
					defer close(stopped)
					w.event(`{"choices":[]}`)
					tt.script(w)
					close(atEngine)
					if tt.until != "record" {
						<-w.gone
					}
				})
			}
			c := b.dial(t)
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(c, tt.sends); err != nil {
				t.Fatal(err)
			}
			seen := ""
			for piece := make([]byte, 4096); !strings.Contains(seen, tt.reads); {
				n, err := c.Read(piece)
				if err != nil {
					t.Fatal(err)
				}
				seen += string(piece[:n])
			}
			switch tt.until {
			case "engine":
				<-atEngine
				time.Sleep(50 * time.Millisecond) // what it has written is on its way
			case "record":
				<-atKeeper
			case "queued":
				waitUntil(t, "the request waits", func() bool { _, _, waiting := b.gateway.served[0].places.stand(); return waiting == 1 })
			}
			c.NetConn().(*net.TCPConn).SetLinger(0) // as the kernel does for a process that is killed with something unread
			c.NetConn().Close()
			close(gone)
			if tt.want != nil {
				if a := b.keeper.await(t); a.Outcome != tt.outcome || a.Usage != *tt.want {
					t.Errorf("recorded %v with %+v, want %v with %+v", a.Outcome, a.Usage, tt.outcome, *tt.want)
				}
			}
			if tt.script != nil {
				<-stopped
			}
			taken := 0
			if tt.queued {
				taken = 1 // the other's
			}
			waitUntil(t, "what it took is given back", func() bool {
				_, now, waiting := b.gateway.served[0].places.stand()
				_, inJournal := b.keeper.state()
				return now == taken && inJournal == taken && waiting == 0
			})
			recorded := 0
			if tt.want != nil {
				recorded = 1
			}
			if answers, _ := b.keeper.state(); len(answers) != recorded {
				t.Errorf("%d answers were recorded, want %d", len(answers), recorded)
			}
		})
	}
}

// waitUntil waits for something that is on its way.
func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s", what)
		}
	}
}
