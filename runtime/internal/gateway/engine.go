package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// engine speaks HTTP/1.1 with the engine over its socket, one connection for each answer: llama-server closes a connection
// after a streamed answer although it promises to keep it.
type engine struct {
	dial func(ctx context.Context) (net.Conn, error)
	wait time.Duration // for the first byte of an answer, and then for each piece: a long prompt is computed first
}

// errEngineRefused says that the engine took the request and answered with an error of the 400s.
var (
	errEngineRefused = errors.New("the engine refused the request")
	errContextLength = errors.New("the prompt is longer than the context")
)

// maxEngineRefusal bounds what is read of an error's body.
const maxEngineRefusal = 4 << 10

// start sends a request and returns the stream of the answer. Closing it ends the engine's work on it; so does the end of
// ctx.
func (e engine) start(ctx context.Context, path string, body []byte) (io.ReadCloser, error) {
	conn, err := e.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the engine: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	stream := &engineStream{conn: conn, stop: stop, wait: e.wait}
	if err := stream.request(path, body); err != nil {
		stream.Close()
		return nil, err
	}
	return stream, nil
}

type engineStream struct {
	conn    net.Conn
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

func (s *engineStream) request(path string, body []byte) error {
	if err := s.patience(); err != nil {
		return err
	}
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, len(body))
	buffers := net.Buffers{head, body}
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
	case response.StatusCode/100 == 4:
		text, _ := io.ReadAll(io.LimitReader(response.Body, maxEngineRefusal))
		if bytes.Contains(text, []byte("exceed_context_size")) {
			return errContextLength
		}
		return errEngineRefused
	}
	return fmt.Errorf("asking the engine: status %d", response.StatusCode)
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
