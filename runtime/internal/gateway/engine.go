package gateway

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/engines"
)

// engine speaks HTTP/1.1 with the engine over its socket, one connection for each answer: llama-server closes a connection
// after a streamed answer although it promises to keep it, and every engine ends its work when the connection does.
type engine struct {
	dial    func(ctx context.Context) (net.Conn, error)
	wait    time.Duration // for the first byte of an answer, and then for each piece: a long prompt is computed first
	dialect *engines.Dialect
}

// errEngineRefused says that the engine took the request and answered with an error of the 400s.
var errEngineRefused = errors.New("the engine refused the request")

// errNotServed says that the engine has no means for what it was asked.
var errNotServed = errors.New("the engine does not serve this")

// tooLong says that a prompt is longer than the context, with what it has and what there may be, in tokens; zeros where the engine did not
// tell.
type tooLong struct{ got, most uint64 }

func (e *tooLong) Error() string {
	return fmt.Sprintf("the prompt has %d tokens, want at most %d", e.got, e.most)
}

// maxEngineRefusal bounds what is read of an error's body.
const maxEngineRefusal = 4 << 10

// start sends a request and returns the stream of the answer. Closing it ends the engine's work on it; so does the end of
// ctx.
func (e engine) start(ctx context.Context, path, kind string, body []byte) (io.ReadCloser, error) {
	conn, err := e.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the engine: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	stream := &engineStream{conn: conn, stop: stop, wait: e.wait, dialect: e.dialect}
	if err := stream.request(path, kind, body); err != nil {
		stream.Close()
		return nil, err
	}
	return stream, nil
}

type engineStream struct {
	conn    net.Conn
	dialect *engines.Dialect
	stop    func() bool
	body    io.ReadCloser
	wait    time.Duration
	waiting time.Time // when the deadline was last put off
}

// patience puts the deadline off, not at every call: a deadline costs as much as a read.
func (s *engineStream) patience() error {
	now := time.Now()
	if now.Sub(s.waiting) < s.wait/100 {
		return nil
	}
	s.waiting = now
	return s.conn.SetDeadline(now.Add(s.wait))
}

// request sends a body of a content type, which may be in pieces.
func (s *engineStream) request(path, kind string, body ...[]byte) error {
	if err := s.patience(); err != nil {
		return err
	}
	size := 0
	for _, piece := range body {
		size += len(piece)
	}
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"+
		"Content-Type: %s\r\nContent-Length: %d\r\n\r\n", path, kind, size)
	buffers := append(net.Buffers{head}, body...)
	if _, err := buffers.WriteTo(s.conn); err != nil {
		return fmt.Errorf("asking the engine: %w", err)
	}
	response, err := http.ReadResponse(bufio.NewReaderSize(s.conn, 4096), nil)
	if err != nil {
		return fmt.Errorf("asking the engine: %w", err)
	}
	s.body = response.Body
	switch {
	case response.StatusCode == http.StatusOK:
		return nil
	case path == engineEmbeddings && (response.StatusCode == http.StatusNotImplemented || response.StatusCode == http.StatusNotFound):
		return errNotServed
	case response.StatusCode/100 == 4 || path == engineEmbeddings && response.StatusCode == http.StatusInternalServerError:
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxEngineRefusal))
		if err := refusalOfEngine(s.dialect, text); response.StatusCode/100 == 4 || !errors.Is(err, errEngineRefused) {
			return err
		}
	}
	return fmt.Errorf("asking the engine: status %d", response.StatusCode)
}

// refusalOfEngine reads an error that the engine answers with.
func refusalOfEngine(d *engines.Dialect, text []byte) error {
	var document struct {
		Error struct {
			Message string `json:"message"`
			Type    string `json:"type"`
			Prompt  uint64 `json:"n_prompt_tokens"`
			Context uint64 `json:"n_ctx"`
		} `json:"error"`
		Message string `json:"message"` // SGLang's stands alone
	}
	if json.Unmarshal(text, &document) != nil {
		return errEngineRefused
	}
	said := cmp.Or(document.Error.Message, document.Message)
	switch {
	case d.LongType != "" && strings.Contains(document.Error.Type, d.LongType), slices.ContainsFunc(d.Long, func(s string) bool { return strings.Contains(said, s) }):
		return &tooLong{document.Error.Prompt, max(document.Error.Context, 1) - 1} // one is for the answer
	case d.NoEmbeddings != "" && strings.Contains(said, d.NoEmbeddings):
		return errNotServed
	}
	return errEngineRefused
}

// count has the engine count a prompt's tokens with its own tokenizer, and its own template where it puts one around. An engine that can't
// has not counted, which is no refusal.
func (e engine) count(ctx context.Context, path string, body ...[]byte) (tokens uint64, counted bool) {
	conn, err := e.dial(ctx)
	if err != nil {
		return 0, false
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	stream := &engineStream{conn: conn, stop: stop, wait: e.wait, dialect: e.dialect}
	defer stream.Close()
	if stream.request(path, "application/json", body...) != nil {
		return 0, false
	}
	size := 0
	for _, piece := range body {
		size += len(piece)
	}
	return countTokens(io.LimitReader(stream, int64(16*size+maxEngineRefusal))) // a token has a byte at least, and a number fewer than 16
}

// countTokens reads {"input_tokens": n} or {"tokens": [one number each]}, whatever stands beside it.
func countTokens(r io.Reader) (tokens uint64, counted bool) {
	dec := jsontext.NewDecoder(r)
	if token, err := dec.ReadToken(); err != nil || token.Kind() != '{' {
		return 0, false
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return 0, false
		}
		switch name.String() {
		case "input_tokens":
			value, err := dec.ReadValue()
			if err != nil {
				return 0, false
			}
			n, err := strconv.ParseUint(string(value), 10, 32)
			return n, err == nil
		case "tokens":
			if token, err := dec.ReadToken(); err != nil || token.Kind() != '[' {
				return 0, false
			}
			n := uint64(0)
			for dec.PeekKind() == '0' {
				if dec.SkipValue() != nil {
					return 0, false
				}
				n++
			}
			return n, dec.PeekKind() == ']'
		}
		if dec.SkipValue() != nil {
			return 0, false
		}
	}
	return 0, false
}

// Read reads the answer.
func (s *engineStream) Read(p []byte) (int, error) {
	if err := s.patience(); err != nil {
		return 0, err
	}
	return s.body.Read(p)
}

func (s *engineStream) Close() error {
	s.stop()
	return s.conn.Close()
}
