package gateway

import (
	"fmt"
	"io"
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
