package role

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"chrysalis/attest/evidence"
)

func example() evidence.Request {
	return evidence.Request{NonceRoot: [32]byte{1}, TLSKey: [32]byte{2}, HPKEKey: [32]byte{3}, Epoch: 4, NotAfter: 5}
}

func TestAskAndServeQuotes(t *testing.T) {
	gateway, owner := net.Pipe()
	var reported []string
	done := make(chan error, 1)
	go func() {
		done <- ServeQuotes(owner, func(r evidence.Request) (*evidence.Evidence, error) {
			if r.Epoch == 0 {
				return nil, errors.New("the log is broken")
			}
			return &evidence.Evidence{Platform: evidence.VTPM, Quote: r.NonceRoot[:], Statement: evidence.Statement{NonceRoot: r.NonceRoot, TLSKey: r.TLSKey,
				HPKEKey: r.HPKEKey, Epoch: r.Epoch, NotAfter: r.NotAfter}}, nil
		}, func(err error) { reported = append(reported, err.Error()) })
	}()
	for range 2 {
		e, err := AskQuote(gateway, example())
		if err != nil {
			t.Fatal(err)
		}
		s := e.Statement
		got := evidence.Request{NonceRoot: s.NonceRoot, TLSKey: s.TLSKey, HPKEKey: s.HPKEKey, Epoch: s.Epoch, NotAfter: s.NotAfter}
		if got != example() {
			t.Errorf("request: got %+v, want %+v", got, example())
		}
	}
	// A refusal says nothing about its reason, and the stream goes on.
	if _, err := AskQuote(gateway, evidence.Request{}); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v, want ErrRefused without a reason", err)
	}
	if _, err := AskQuote(gateway, example()); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	gateway.Close()
	if err := <-done; err != nil {
		t.Errorf("at the end of the stream: got %v, want nil", err)
	}
	if want := []string{"answering quote request: the log is broken"}; !reflect.DeepEqual(reported, want) {
		t.Errorf("reported: got %q, want %q", reported, want)
	}
}

// answers is a connection on which any request gets the same bytes.
type answers struct{ io.Reader }

func (answers) Write(p []byte) (int, error) { return len(p), nil }

func TestAskRefuses(t *testing.T) {
	frame := func(status byte, size uint32, body string) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{status}, size), body...)
	}
	for _, tt := range []struct {
		name   string
		answer []byte
		want   string
	}{
		{"nothing", nil, "EOF"},
		{"half a head", []byte{0, 0}, "EOF"},
		{"unknown status", frame(2, 0, ""), "status 2"},
		{"refusal with a body", frame(1, 1, "x"), "status 1 and 1 bytes"},
		{"huge", frame(0, evidence.MaxBytes+1, ""), "want at most"},
		{"half a body", frame(0, 400, "x"), "EOF"},
		{"no evidence", frame(0, 4, "abcd"), "decoding evidence"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := AskQuote(answers{bytes.NewReader(tt.answer)}, example())
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrRefused) {
				t.Errorf("got %v, want an error with %q that is no refusal", err, tt.want)
			}
		})
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(encodeRequest(example()))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRequest(bytes.NewReader(b))
		if err != nil {
			if len(b) >= requestSize {
				t.Errorf("%d bytes: %v", len(b), err)
			}
			return
		}
		if got := encodeRequest(r); !bytes.Equal(got, b[:requestSize]) {
			t.Errorf("read and encoded: got %x, want %x", got, b[:requestSize])
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	body, err := (&evidence.Evidence{Platform: evidence.VTPM, Quote: []byte("q")}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(binary.LittleEndian.AppendUint32([]byte{statusEvidence}, uint32(len(body))), body...))
	f.Add([]byte{statusRefused, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := readAnswer(bytes.NewReader(b)); err == nil {
			if again, err := e.Encode(); err != nil || !bytes.Equal(again, b[5:5+len(again)]) {
				t.Errorf("read and encoded: got %x (%v), want %x", again, err, b[5:])
			}
		}
	})
}
