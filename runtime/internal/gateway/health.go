package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// healthEvery is how long what the engines said of themselves is told to others: who asks often asks the engines no more often.
const healthEvery = time.Second

// health is what the engines said when they were asked last.
type health struct {
	mu    sync.Mutex
	asked time.Time
	down  []string // models whose engines do not answer
}

// of asks the engines, unless they were asked a moment ago. One asks at a time, and the others wait for it.
func (h *health) of(ctx context.Context, all served, patience time.Duration) (down []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.asked) < healthEvery {
		return h.down
	}
	h.down = nil
	for _, m := range all {
		if !(engine{m.DialEngine, patience, &m.Engine}).well(ctx) {
			h.down = append(h.down, strconv.Quote(m.Name))
		}
	}
	h.asked = time.Now()
	return h.down
}

// well reports whether the engine says that it computes.
func (e engine) well(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, e.wait)
	defer cancel()
	conn, err := e.dial(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n", e.dialect.Health); err != nil {
		return false
	}
	response, err := http.ReadResponse(bufio.NewReaderSize(conn, 4096), nil)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// well answers whether each model could be asked now. It proves nothing of the guest: that is evidence's to do.
func (g *Gateway) well(w http.ResponseWriter, _ *http.Request) error {
	// Whoever asks and leaves does not decide for the others.
	if down := g.health.of(context.Background(), g.served, g.waits.count); len(down) > 0 {
		return &refusal{status: http.StatusServiceUnavailable, code: errStart.code, message: "no engine answers for " + strings.Join(down, ", ")}
	}
	writeJSON(w, []byte(`{"status":"ok"}`+"\n"))
	return nil
}
