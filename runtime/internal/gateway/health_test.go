package gateway

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
)

// TestHealth: what is told is what the engines say, each of them, and they are asked once for all who ask at a time.
func TestHealth(t *testing.T) {
	b := startBench(t, func(c *Config) {
		second := c.Models[0]
		second.Name = "other"
		c.Models = append(c.Models, second)
	})
	// again has the engines asked anew.
	again := func() {
		b.gateway.health.mu.Lock()
		b.gateway.health.asked = time.Time{}
		b.gateway.health.mu.Unlock()
	}
	for range 5 {
		if status, text := b.get(t, api.Health); status != 200 || text != `{"status":"ok"}`+"\n" {
			t.Errorf("well: got %d %s", status, text)
		}
	}
	if n := b.engine.asks.Load(); n != 2 && n != 4 { // a slow machine may need more than a second
		t.Errorf("two engines were asked %d times for five who asked at once, want once each", n)
	}
	again()
	b.engine.sick.Store(true)
	if status, text := b.get(t, api.Health); status != 503 || !strings.Contains(text, `engine_down`) || !strings.Contains(text, `tiny`) || !strings.Contains(text, `other`) {
		t.Errorf("loading: got %d %s", status, text)
	}
	again()
	b.engine.sick.Store(false)
	b.gateway.served[1].DialEngine = func(context.Context) (net.Conn, error) { return nil, errTest }
	if status, text := b.get(t, api.Health); status != 503 || strings.Contains(text, `tiny`) || !strings.Contains(text, `other`) {
		t.Errorf("one is gone: got %d %s", status, text)
	}
	again()
	silent, far := net.Pipe()
	defer silent.Close()
	defer far.Close()
	go func() { // takes what it is asked, and says nothing
		for buf := make([]byte, 256); ; {
			if _, err := far.Read(buf); err != nil {
				return
			}
		}
	}()
	b.gateway.served[1].DialEngine = func(context.Context) (net.Conn, error) { return silent, nil }
	b.gateway.waits.count = 50 * time.Millisecond
	if status, text := b.get(t, api.Health); status != 503 || !strings.Contains(text, `other`) {
		t.Errorf("one hangs: got %d %s", status, text)
	}
	if len(b.engine.asked()) != 0 || len(b.keeper.answers) != 0 {
		t.Error("who asks for health asked for an answer")
	}
	s := startSealed(t, nil)
	if opened, text, err := s.exchange(t, s.sealAs(t, envelope.Request{Method: "GET", Path: api.Health})); err != nil || opened.Status != 200 || !strings.Contains(text, "ok") {
		t.Errorf("sealed: %v, %s", err, text)
	}
}
