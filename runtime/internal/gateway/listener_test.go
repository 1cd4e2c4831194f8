package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// from dials from an address of this host's own, so that a test can be several clients.
func (b *bench) from(t testing.TB, address string) *tls.Conn {
	t.Helper()
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
	c, err := tls.DialWithDialer(d, "tcp", b.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// says sends a request's bytes and returns the answer's status.
func says(t testing.TB, c net.Conn, request string) int {
	t.Helper()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

func post(body string) string {
	return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nChrysalis-Client: %s\r\n"+
		"Content-Length: %d\r\n\r\n%s", testClient, len(body), body)
}

const models = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"

// ended reports whether the other side has closed a connection.
func ended(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return !(errors.As(err, &timeout) && timeout.Timeout())
}

// TestIdleConnectionsGiveWay: idle connections of two addresses take every place. The next client is served, and the idlest is gone.
func TestIdleConnectionsGiveWay(t *testing.T) {
	b := startBench(t, nil, func(g *Gateway) { g.connections = 6 })
	var idle []*tls.Conn
	for i := range 6 {
		c := b.from(t, fmt.Sprintf("127.0.0.%d", 2+i%2))
		if status := says(t, c, models); status != 200 {
			t.Fatalf("connection %d: status %d, want 200", i, status)
		}
		idle = append(idle, c)
	}
	if status := says(t, b.from(t, "127.0.0.9"), models); status != 200 {
		t.Errorf("one more: status %d, want 200", status)
	}
	if !ended(idle[0]) {
		t.Error("the idlest connection is still open")
	}
	if status := says(t, idle[5], models); status != 200 {
		t.Errorf("the least idle: status %d, want 200", status)
	}
}

// TestConnectionsOfOneAddress: one address takes half of the places, and its own idlest gives way to its next.
func TestConnectionsOfOneAddress(t *testing.T) {
	b := startBench(t, nil, func(g *Gateway) { g.connections = 8 })
	other := b.from(t, "127.0.0.3")
	says(t, other, models) // idle before all the others
	var mine []*tls.Conn
	for range 5 {
		c := b.from(t, "127.0.0.2")
		says(t, c, models)
		mine = append(mine, c)
	}
	if !ended(mine[0]) {
		t.Error("the address has five places of eight, want four")
	}
	if status := says(t, other, models); status != 200 {
		t.Errorf("another address: status %d, want 200", status)
	}
	// Requests that have begun do not give way: then the address gets no more.
	var busy []net.Conn
	for range 4 {
		c := b.from(t, "127.0.0.4")
		io.WriteString(c, "P")
		busy = append(busy, c)
	}
	time.Sleep(200 * time.Millisecond) // for the bytes to be read
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.4")}}
	if c, err := tls.DialWithDialer(d, "tcp", b.address, &tls.Config{InsecureSkipVerify: true}); err == nil {
		c.Close()
		t.Error("a fifth connection of an address whose four are busy was taken")
	}
	for i, c := range busy {
		if status := says(t, c, strings.TrimPrefix(post(ask("")), "P")); status != 200 {
			t.Errorf("busy connection %d: status %d, want 200", i, status)
		}
	}
}

// TestAnAnswerDoesNotGiveWay: a request that is being answered is not idle, whether it has a body or not.
func TestAnAnswerDoesNotGiveWay(t *testing.T) {
	b := startBench(t, nil, func(g *Gateway) { g.connections = 2 })
	hold := make(chan struct{})
	b.engine.set(func(w *engineWriter) {
		w.text("slow")
		<-hold
		w.end(1, 1)
	})
	c := b.from(t, "127.0.0.2")
	var wait sync.WaitGroup
	wait.Go(func() {
		if status := says(t, c, post(ask(""))); status != 200 {
			t.Errorf("the slow answer: status %d, want 200", status)
		}
	})
	for len(b.engine.asked()) == 0 {
		time.Sleep(time.Millisecond)
	}
	for i := range 4 {
		if status := says(t, b.from(t, fmt.Sprintf("127.0.0.%d", 3+i)), models); status != 200 {
			t.Errorf("connection %d beside it: status %d, want 200", i, status)
		}
	}
	close(hold)
	wait.Wait()
}

// TestPromisesTakeNoMemory: many connections promise whole bodies and send a byte each. Everybody else is answered.
func TestPromisesTakeNoMemory(t *testing.T) {
	const bodies, promises = 1 << 20, 200
	b := startBench(t, func(c *Config) { c.Models[0].RequestBytes = 256 << 10 }, func(g *Gateway) { g.bodies = newBudget(bodies) })
	for i := range promises {
		c := b.from(t, fmt.Sprintf("127.0.1.%d", 1+i%100))
		whole := post(strings.Repeat(" ", 256<<10))
		if _, err := io.WriteString(c, whole[:len(whole)-256<<10+1]); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	if status := says(t, b.from(t, "127.0.0.2"), post(ask(`,"stop":"`+strings.Repeat(" ", 200)+`"`))); status != 200 {
		t.Errorf("beside %d promises: status %d, want 200", promises, status)
	}
	b.gateway.bodies.mu.Lock()
	taken := bodies - b.gateway.bodies.left
	b.gateway.bodies.mu.Unlock()
	if taken == 0 || taken > promises*bodyStep {
		t.Errorf("%d promises of one byte took %d bytes, want some and at most %d", promises, taken, promises*bodyStep)
	}
}

// TestBodiesOfOneAddress: what one address sends takes half of the memory for bodies, and the other half is for others.
func TestBodiesOfOneAddress(t *testing.T) {
	b := startBench(t, func(c *Config) { c.Models[0].RequestBytes = 64 << 10 }, func(g *Gateway) { g.bodies = newBudget(128 << 10) })
	whole := post(ask(strings.Repeat(" ", 60<<10)))
	if _, err := io.WriteString(b.from(t, "127.0.0.2"), whole[:len(whole)-1]); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		b.gateway.bodies.mu.Lock()
		taken := 128<<10 - b.gateway.bodies.left
		b.gateway.bodies.mu.Unlock()
		if taken >= 60<<10 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are taken, want 60 KiB", taken)
		}
	}
	if status := says(t, b.from(t, "127.0.0.2"), whole); status != 429 {
		t.Errorf("the same address: status %d, want 429", status)
	}
	if status := says(t, b.from(t, "127.0.0.3"), whole); status != 200 {
		t.Errorf("another address: status %d, want 200", status)
	}
}

// TestRefusalKeepsTheConnection: a refusal that has read the whole body leaves a connection that goes on, another does not.
func TestRefusalKeepsTheConnection(t *testing.T) {
	b := startBench(t, nil)
	c := b.dial(t)
	for _, tt := range []struct {
		request string
		status  int
	}{{post(`{}`), 400}, {post(ask(`,"n":2`)), 400}, {"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404}, {models, 200}, {post(ask("")), 200}} {
		if status := says(t, c, tt.request); status != tt.status {
			t.Errorf("status %d, want %d", status, tt.status)
		}
	}
	if status := says(t, c, post(strings.Repeat(" ", 5000))); status != 413 {
		t.Errorf("too large: status %d, want 413", status)
	}
	if !ended(c) {
		t.Error("the connection goes on behind a body that was not read")
	}
}

// TestEveryAnswerHasAnID: answers and refusals of each kind name the request, refusals in the object too.
func TestEveryAnswerHasAnID(t *testing.T) {
	b := startBench(t, nil)
	seen := map[string]bool{}
	for name, request := range map[string]string{"answer": post(ask("")), "refused": post("{}"), "no path": "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"framing": "GET / HTTP/1.1\nHost: x\r\n\r\n"} {
		c := b.dial(t)
		io.WriteString(c, request)
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, _ := io.ReadAll(response.Body)
		id := response.Header.Get("X-Request-Id")
		if !strings.HasPrefix(id, "req-") || seen[id] || response.StatusCode != 200 && !strings.Contains(string(body), `"request_id":"`+id+`"`) {
			t.Errorf("%s: id %q in %s", name, id, body)
		}
		seen[id] = true
	}
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7/32", "[::ffff:192.0.2.7]:80": "192.0.2.7/32", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1": "fe80::/64",
	} {
		if got := addressOf(remote(in)); got.Masked() != netip.MustParsePrefix(want) || got != got.Masked() {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

type remote string

func (r remote) RemoteAddr() net.Addr { return r }
func (r remote) Network() string      { return "tcp" }
func (r remote) String() string       { return string(r) }

// FuzzFraming cuts a stream of requests anywhere: what is passed on does not depend on the cut, and is a part of what came.
func FuzzFraming(f *testing.F) {
	for _, seed := range []string{post(ask("")) + models, models + "\r\n", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "\n", "P / H\r\nContent-Length: 3\r\n\r\nab"} {
		f.Add([]byte(seed), uint(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut uint) {
		var whole, cutUp framing
		n, err := whole.take(stream)
		if n < 0 || n > len(stream) || (err == nil) != (n == len(stream)) {
			t.Fatalf("%d bytes of %d are passed on, and %v", n, len(stream), err)
		}
		m, size := 0, int(cut%64)+1
		for m < len(stream) {
			end := min(m+size, len(stream))
			k, bad := cutUp.take(stream[m:end])
			if m += k; bad != nil {
				break
			}
		}
		if m != n {
			t.Fatalf("in pieces of %d: %d bytes are passed on, want %d", size, m, n)
		}
	})
}

// TestFramingOfTwoRequests: a second request on a connection is held to the same as the first.
func TestFramingOfTwoRequests(t *testing.T) {
	b := startBench(t, nil)
	for name, first := range map[string]string{"behind an answer": models, "behind a body": post(ask(""))} {
		for _, at := range []string{"GET", "GET /v1/models HTTP/1.1\r\nX: a\r\n"} { // where the first write ends
			c := b.dial(t)
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, first)
			r := bufio.NewReader(c)
			for i, want := range []int{200, 400} {
				response, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				io.Copy(io.Discard, response.Body)
				if response.StatusCode != want {
					t.Errorf("%s: answer %d has status %d, want %d", name, i, response.StatusCode, want)
				}
				if i == 0 {
					io.WriteString(c, at)
					io.WriteString(c, strings.TrimPrefix("GET /v1/models HTTP/1.1\r\nX: a\r\n b\r\n\r\n", at))
				}
			}
			if !ended(c) {
				t.Errorf("%s: the connection goes on", name)
			}
		}
	}
}
