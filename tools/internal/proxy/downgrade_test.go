package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/api"
)

// frame is one of HTTP/2's. Source: RFC 9113 section 4.1.
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

const (
	dataFrame, headersFrame, resetFrame, settingsFrame, awayFrame = 0, 1, 3, 4, 7

	endStream, endHeaders = 1, 4
)

// literal is a field that no table knows, as its bytes are. Source: RFC 7541 section 6.2.2.
func literal(name, value string) (b []byte) {
	text := func(s string) {
		if len(s) < 127 {
			b = append(b, byte(len(s)))
		} else {
			b = binary.AppendUvarint(append(b, 127), uint64(len(s)-127))
		}
		b = append(b, s...)
	}
	b = append(b, 0)
	text(name)
	text(value)
	return b
}

// TestDowngrade sends over HTTP/2 what would be another request in HTTP/1.1: the proxy refuses it, or what reaches the guest is the one request with the
// body as it came.
func TestDowngrade(t *testing.T) {
	g := newGuest(t)
	r := start(t, nil, g)
	const path = "/v1/chat/completions"
	fields := func(more ...string) []string {
		return append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", r.address, "content-type", "application/json"}, more...)
	}
	replaced := func(name, value string) []string {
		all := fields()
		all[slices.Index(all, name)+1] = value
		return all
	}
	without := func(name string) []string {
		all := fields()
		at := slices.Index(all, name)
		return slices.Delete(all, at, at+2)
	}
	smuggled := " HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/models"
	for _, tt := range []struct {
		name    string
		fields  []string
		reaches bool
	}{
		{"a request", fields("authorization", "Bearer x"), true},
		{"its length", fields("content-length", fmt.Sprint(len(inOne))), true},
		{"a shorter length", fields("content-length", fmt.Sprint(len(inOne)-1)), false},
		{"a longer length", fields("content-length", fmt.Sprint(len(inOne)+1)), false},
		{"no body, it says", fields("content-length", "0"), false},
		{"two lengths", fields("content-length", fmt.Sprint(len(inOne)), "content-length", "5"), true}, // the first counts, and it is the body's
		{"two lengths the other way round", fields("content-length", "5", "content-length", fmt.Sprint(len(inOne))), false},
		{"a coding of the transfer", fields("transfer-encoding", "chunked"), false},
		{"a connection's header", fields("connection", "content-length"), false},
		{"an upgrade", fields("upgrade", "h2c"), false},
		{"a value of two lines", fields("x-a", "b\r\ntransfer-encoding: chunked"), false},
		{"a value with a line feed", fields("authorization", "Bearer x\nX-Api-Key: y"), false},
		{"a value with a NUL", fields("x-a", "b\x00"), false},
		{"a name of two lines", fields("x-a: b\r\ntransfer-encoding", "chunked"), false},
		{"a name with a colon", fields("x:a", "b"), false},
		{"a name in capitals", fields("Content-Length", "5"), false},
		{"a path with a request in it", replaced(":path", path+smuggled), false},
		{"a path with a space", replaced(":path", path+" /v1/models"), false},
		{"a path that is a URL", replaced(":path", "http://evil.example"+path), false},
		{"a path without its slash", replaced(":path", "v1/chat/completions"), false},
		{"no path", replaced(":path", ""), false},
		{"a method with a request in it", replaced(":method", "POST "+path+smuggled), false},
		{"a method in small letters", replaced(":method", "post"), false},
		{"a rebound name", replaced(":authority", "evil.example"), false},
		{"a rebound name, and this machine as host", append(replaced(":authority", "evil.example"), "host", r.address), false},
		{"this machine, and a rebound name as host", fields("host", "evil.example"), true}, // what a browser connects to is the authority
		{"a rebound name as host alone", append(without(":authority"), "host", "evil.example"), false},
		{"no name", without(":authority"), false},
		{"an authority with more", replaced(":authority", r.address+"\r\nx-a: b"), false},
		{"an authority with a user", replaced(":authority", "localhost@"+r.address), false},
		{"a pseudo field behind others", append(without(":path"), ":path", path), false},
		{"a pseudo field twice", append([]string{":path", "/v1/models"}, fields()...), false},
		{"a pseudo field that is none", append([]string{":x", "y"}, fields()...), false},
		{"what is another program's", fields("cookie", "a=b", "x-forwarded-for", "10.0.0.1", "te", "trailers", "x-http-method-override", "DELETE"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			var block []byte
			for i := 0; i < len(tt.fields); i += 2 {
				block = append(block, literal(tt.fields[i], tt.fields[i+1])...)
			}
			before := len(g.Prompts())
			c.Write(slices.Concat([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(settingsFrame, 0, 0, nil),
				frame(headersFrame, endHeaders, 1, block), frame(dataFrame, endStream, 1, []byte(inOne))))
			ended := false
			for !ended {
				head := make([]byte, 9)
				if _, err := io.ReadFull(c, head); err != nil {
					break // the proxy has had enough of the connection
				}
				payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
				if _, err := io.ReadFull(c, payload); err != nil {
					break
				}
				switch head[3] {
				case resetFrame, awayFrame:
					ended = true
				case headersFrame, dataFrame:
					ended = head[4]&endStream != 0
				}
			}
			c.Close()
			prompts := g.Prompts()[before:]
			if !tt.reaches && len(prompts) != 0 || tt.reaches && (len(prompts) != 1 || !bytes.Equal(prompts[0], []byte(inOne))) {
				t.Fatalf("the guest was asked %d times: %q; want it asked with the body: %t", len(prompts), prompts, tt.reaches)
			}
			if tt.reaches {
				heads := g.Heads()
				for name := range heads[len(heads)-1] {
					if !slices.Contains([]string{"Accept", "Authorization", "Content-Type", "Content-Length", http.CanonicalHeaderKey(api.ClientHeader)}, name) {
						t.Errorf("the guest got a header %s", name)
					}
				}
			}
			if strings.Contains(r.log.String(), "canary") {
				t.Error("the log has the prompt")
			}
		})
	}
}
