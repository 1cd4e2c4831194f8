package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
)

// questions are one of each path, without their end.
var questions = map[string]string{
	api.ChatCompletions: `{"model":"tiny","messages":[{"role":"user","content":"canary"}]`,
	api.Completions:     `{"model":"tiny","prompt":"canary"`,
	api.Messages:        `{"model":"tiny","max_tokens":50,"messages":[{"role":"user","content":"canary"}]`,
	api.Responses:       `{"model":"tiny","input":"canary"`,
}

// endMarks are what a whole stream of each path has.
var endMarks = map[string]string{
	api.ChatCompletions: "[DONE]", api.Completions: "[DONE]", api.Messages: "message_stop", api.Responses: "response.completed",
}

// middle stands between a proxy and a guest, and ends what is sealed after so many bytes, as if that were all of it.
type middle struct {
	url string

	mu      sync.Mutex
	after   int    // less than 0 cuts nothing
	last    []byte // what passed of the last answer
	missing bool   // something of it did not
	pause   time.Duration
}

func (m *middle) cut(after int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after = after
}

// startMiddle returns one in front of a guest.
func startMiddle(t *testing.T, guest string) *middle {
	t.Helper()
	m := &middle{after: -1}
	server := httptest.NewServer(clienttest.Forward(t, guest, func(r *http.Response) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if r.Request.Method == http.MethodPost {
			m.last, m.missing = nil, false
			r.Body = &cutBody{ReadCloser: r.Body, of: m, left: m.after}
			if m.after >= 0 {
				r.ContentLength = -1
				r.Header.Del("Content-Length")
			}
		}
		return nil
	}))
	t.Cleanup(server.Close)
	m.url = server.URL
	return m
}

// cutBody ends before its time.
type cutBody struct {
	io.ReadCloser
	of   *middle
	left int
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		n, _ := b.ReadCloser.Read(make([]byte, 1))
		b.of.mu.Lock()
		defer b.of.mu.Unlock()
		b.of.missing = n > 0
		return 0, io.EOF
	}
	if b.left > 0 && len(p) > b.left {
		p = p[:b.left]
	}
	time.Sleep(b.of.pause)
	n, err := b.ReadCloser.Read(p)
	if b.left > 0 {
		b.left -= n
	}
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.of.last = append(b.of.last, p[:n]...)
	return n, err
}

// cutIt says whether anything of the last answer was kept back.
func (m *middle) cutIt() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.missing
}

// frames are where the frames of a sealed answer begin and end (ENVELOPE.md): a nonce, chunks with their lengths before them, and the last,
// whose length is zero, to the end.
func (m *middle) frames(t *testing.T) (at []int, whole int) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	at = []int{0, 32}
	for i := 32; i < len(m.last); {
		width := 1 << (m.last[i] >> 6)
		length := int(m.last[i] & 0x3f)
		for _, c := range m.last[i+1 : i+width] {
			length = length<<8 | int(c)
		}
		if length == 0 {
			return at, len(m.last)
		}
		i += width + length
		at = append(at, i)
	}
	t.Fatalf("an answer of %d bytes has no final chunk", len(m.last))
	return nil, 0
}

// through runs a proxy that reaches a real gateway by way of the middle.
func (s *service) through(t *testing.T, m *middle) *running {
	t.Helper()
	return startAt(t, Config{Guests: []string{m.url}, Attest: ratls.Config{Policy: s.Policy(), Roots: s.Roots()},
		Payer: func(config.Measured) (ton.Address, error) { return payer, nil }})
}

func (r *running) ask(t *testing.T, path, body string) (int, string) {
	t.Helper()
	response, text := do(t, r.request(t, http.MethodPost, path, body))
	return response.StatusCode, text
}

// TestEveryDialectIsProven: the answers of each path of a real gateway pass whole, are judged, and their proofs are kept.
func TestEveryDialectIsProven(t *testing.T) {
	s := startService(t)
	r := s.local(t, s.url)
	asked := uint64(0)
	for path, question := range questions {
		for _, more := range []string{"}", `,"stream":true}`} {
			status, text := r.ask(t, path, question+more)
			if status != 200 || !strings.Contains(strings.ReplaceAll(text, " it", ""), "Oslo") || strings.Contains(text, endMarks[path]) != strings.Contains(more, "stream") ||
				!strings.Contains(text, `"charge"`) {
				t.Errorf("%s: got %d %s", path, status, text)
			}
			asked++
		}
	}
	for path, tools := range map[string]string{
		api.ChatCompletions: `,"tools":[{"type":"function","function":{"name":"look"}}]`,
		api.Messages:        `,"tools":[{"name":"look","input_schema":{}}]`,
		api.Responses:       `,"tools":[{"type":"function","name":"look"}]`,
	} {
		for _, more := range []string{"}", `,"stream":true}`} {
			if status, text := r.ask(t, path, questions[path]+tools+more); status != 200 || !strings.Contains(text, `look`) {
				t.Errorf("%s: got %d %s", path, status, text)
			}
			asked++
		}
	}
	if status, text := r.ask(t, api.Embeddings, `{"model":"tiny","input":"canary"}`); status != 200 || !strings.Contains(text, "[0.25,-1]") {
		t.Errorf("embeddings: got %d %s", status, text)
	}
	asked++
	if st := r.guests[0].status(); st.answered != asked || st.unproven != 0 {
		t.Errorf("%d proven answers and %d that were not, want %d", st.answered, st.unproven, asked)
	}
	if files, err := filepath.Glob(filepath.Join(r.receipts, "*", "*.json")); err != nil || uint64(len(files)) != asked {
		t.Errorf("%d proofs were kept (%v), want %d", len(files), err, asked)
	}
}

// TestCutAtEveryFrame ends the sealed answer of a real gateway at each frame of it, and a byte before and behind, as if it were whole: what
// comes of it never looks whole, in any form.
func TestCutAtEveryFrame(t *testing.T) {
	s := startService(t)
	m := startMiddle(t, s.url)
	r := s.through(t, m)
	for path, question := range questions {
		for _, more := range []string{"}", `,"stream":true}`} {
			streamed := more != "}"
			m.cut(-1)
			if status, text := r.ask(t, path, question+more); status != 200 || strings.Contains(text, endMarks[path]) != streamed {
				t.Fatalf("%s, not cut: got %d %s", path, status, text)
			}
			frames, whole := m.frames(t)
			cuts := 0
			for _, at := range append(frames, whole-1) {
				for after := max(at-1, 0); after <= at+1 && after < whole; after++ {
					m.cut(after)
					cuts++
					status, text := r.ask(t, path, question+more)
					if !m.cutIt() {
						cuts-- // a busy machine gathers more in a frame: this answer was shorter, and whole
						continue
					}
					switch {
					case streamed && status == 200:
						if strings.Contains(text, endMarks[path]) || !strings.Contains(text, `"answer_cut"`) || !strings.HasSuffix(text, "\n\n") {
							t.Errorf("%s, after %d of %d bytes: got %s", path, after, whole, text)
						}
					case status != 502 || strings.Contains(text, "Oslo") || strings.Contains(text, "chrysalis\":"):
						t.Errorf("%s, after %d of %d bytes: got %d %s", path, after, whole, status, text)
					}
				}
			}
			if least := map[bool]int{false: 6, true: 9}[streamed]; cuts < least {
				t.Errorf("%s: cut %d times at %v, want at each frame, %d times or more", path, cuts, frames, least) // a busy machine streams all of it in one
			}
		}
	}
	m.cut(-1)
	if response, text := do(t, r.request(t, http.MethodGet, api.Models, "")); response.StatusCode != 200 {
		t.Fatalf("models: got %d %s", response.StatusCode, text)
	}
	frames, whole := m.frames(t)
	for _, after := range append(frames, whole-1) {
		m.cut(after)
		response, err := http.DefaultClient.Do(r.request(t, http.MethodGet, api.Models, ""))
		if err != nil {
			continue // the connection has ended
		}
		text, err := io.ReadAll(response.Body)
		if response.Body.Close(); err == nil && response.StatusCode == 200 {
			t.Errorf("models, after %d of %d bytes: got %s as if it were whole", after, whole, text)
		}
	}
	if st := r.guests[0].status(); st.unproven != 0 {
		t.Errorf("%d answers count as not proven, want none: they were cut", st.unproven)
	}
}

// TestSlowReaders: who reads slowly gets all of it, and who stops reading holds nobody up but himself.
func TestSlowReaders(t *testing.T) {
	s := startService(t)
	m := startMiddle(t, s.url)
	m.pause = 20 * time.Millisecond
	r := s.through(t, m)
	for path, question := range questions {
		response, err := http.DefaultClient.Do(r.request(t, http.MethodPost, path, question+`,"stream":true}`))
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for piece := make([]byte, 64); ; time.Sleep(time.Millisecond) {
			n, err := response.Body.Read(piece)
			text.Write(piece[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		response.Body.Close()
		if !strings.Contains(text.String(), endMarks[path]) {
			t.Errorf("%s: got %s", path, text.String())
		}
	}
	m.pause = 0
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	stuck := r.request(t, http.MethodPost, api.ChatCompletions, strings.Replace(streamed, "canary", "endless", 1)).WithContext(ctx)
	response, err := http.DefaultClient.Do(stuck)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() // nothing of it is read
	for path, question := range questions {
		if status, text := r.ask(t, path, question+"}"); status != 200 {
			t.Errorf("%s, beside one who does not read: got %d %s", path, status, text)
		}
	}
	leave()
	select {
	case <-s.gone:
	case <-time.After(20 * time.Second):
		t.Error("the engine goes on for one who has left")
	}
}
