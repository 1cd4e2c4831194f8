// Command fragile is an engine for tests: it answers every prompt with two words, and dies in the middle of its answer when
// the prompt asks it to fall over. It shows what a client of a real guest sees of a dying engine.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"chrysalis/measure/engines"
)

func main() {
	if err := os.RemoveAll(engines.Socket); err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("unix", engines.Socket)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"status":"ok"}`) })
	mux.HandleFunc("POST /v1/chat/completions", answer)
	log.Fatal(http.Serve(l, mux))
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	falls := bytes.Contains(body, []byte("fall over"))
	w.Header().Set("Content-Type", "text/event-stream")
	chunk := func(format string, args ...any) {
		fmt.Fprintf(w, "data: "+format+"\n\n", args...)
		w.(http.Flusher).Flush()
	}
	const head = `{"id":"x","object":"chat.completion.chunk","created":1,"model":"fragile"`
	for _, word := range []string{"still", " here"} {
		chunk(head+`,"choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`, word)
		if falls {
			time.Sleep(200 * time.Millisecond) // what was flushed reaches the gateway before the end
			os.Exit(1)
		}
	}
	chunk(head + `,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)
	chunk(head + `,"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}`)
	chunk("[DONE]")
}
