package role

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"chrysalis/attest/evidence"
)

// The stream of quotes, on which the gateway asks init. init alone opens the platform's device; the gateway alone knows the nonces
// and its TLS key. So the gateway sends what it knows, and init adds the rest from its own state: the caller can't name a log
// head, a config or a key that is not the guest's.

// requestSize and the answer are specified in ROLES.md.
const requestSize = 3*32 + 2*8

const (
	statusEvidence = 0
	statusRefused  = 1
)

// ErrRefused says that init gives no quote: its log is broken, or the platform did not answer.
var ErrRefused = errors.New("quote refused")

func encodeRequest(r evidence.Request) []byte {
	b := make([]byte, 0, requestSize)
	b = append(append(append(b, r.NonceRoot[:]...), r.TLSKey[:]...), r.HPKEKey[:]...)
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, r.Epoch), r.NotAfter)
}

// readRequest reads one request. A stream that ends before its first byte is io.EOF.
func readRequest(r io.Reader) (evidence.Request, error) {
	var b [requestSize]byte
	if _, err := io.ReadFull(r, b[:]); err == io.EOF {
		return evidence.Request{}, io.EOF
	} else if err != nil {
		return evidence.Request{}, fmt.Errorf("reading quote request: %w", err)
	}
	return evidence.Request{
		NonceRoot: [32]byte(b[:]), TLSKey: [32]byte(b[32:]), HPKEKey: [32]byte(b[64:]),
		Epoch: binary.LittleEndian.Uint64(b[96:]), NotAfter: binary.LittleEndian.Uint64(b[104:]),
	}, nil
}

// AskQuote sends a request over conn and reads the answer. The caller adds each challenge's path to a copy of the evidence.
// After an error other than ErrRefused the stream is of no more use.
func AskQuote(conn io.ReadWriter, r evidence.Request) (*evidence.Evidence, error) {
	if _, err := conn.Write(encodeRequest(r)); err != nil {
		return nil, fmt.Errorf("asking for quote: %w", err)
	}
	return readAnswer(conn)
}

func readAnswer(r io.Reader) (*evidence.Evidence, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("asking for quote: reading answer: %w", err)
	}
	size := binary.LittleEndian.Uint32(head[1:])
	switch {
	case head[0] == statusRefused && size == 0:
		return nil, fmt.Errorf("asking for quote: %w", ErrRefused)
	case head[0] != statusEvidence:
		return nil, fmt.Errorf("asking for quote: answer has status %d and %d bytes", head[0], size)
	case size > evidence.MaxBytes:
		return nil, fmt.Errorf("asking for quote: answer has %d bytes, want at most %d", size, evidence.MaxBytes)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("asking for quote: reading answer: %w", err)
	}
	e, err := evidence.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("asking for quote: %w", err)
	}
	return e, nil
}

// quoteWait bounds the time of one quote, beyond what init waits for the platform: a TPM takes a part of a second, but a TD's host may
// keep the request before this one for its 30 seconds, this one as well, and both again when the log has moved. Whoever gives up
// before init does gives up for good.
const quoteWait = 3 * time.Minute

// QuoteStream asks init for quotes. One goroutine asks at a time.
type QuoteStream struct {
	conn   net.Conn
	broken error
}

// NewQuotes returns the asking end of a stream of quotes.
func NewQuotes(conn net.Conn) *QuoteStream { return &QuoteStream{conn: conn} }

// Ask is AskQuote that waits no longer than init does, and asks no more on a stream that has failed: an answer that comes late would be taken
// for the next one.
func (q *QuoteStream) Ask(r evidence.Request) (*evidence.Evidence, error) {
	if q.broken != nil {
		return nil, q.broken
	}
	if err := q.conn.SetDeadline(time.Now().Add(quoteWait)); err != nil {
		return nil, err
	}
	e, err := AskQuote(q.conn, r)
	if err != nil && !errors.Is(err, ErrRefused) {
		q.broken = err
	}
	return e, err
}

// ServeQuotes answers requests on conn until it ends. quote makes the evidence for a request; when it fails, the asker learns
// that it was refused and nothing more, and report, which may be nil, gets the reason.
func ServeQuotes(conn io.ReadWriter, quote func(evidence.Request) (*evidence.Evidence, error), report func(error)) error {
	for {
		request, err := readRequest(conn)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write(answer(request, quote, report)); err != nil {
			return fmt.Errorf("answering quote request: %w", err)
		}
	}
}

func answer(request evidence.Request, quote func(evidence.Request) (*evidence.Evidence, error), report func(error)) []byte {
	e, err := quote(request)
	if err == nil {
		var body []byte
		if body, err = e.Encode(); err == nil {
			return append(binary.LittleEndian.AppendUint32([]byte{statusEvidence}, uint32(len(body))), body...)
		}
	}
	if report != nil {
		report(fmt.Errorf("answering quote request: %w", err))
	}
	return binary.LittleEndian.AppendUint32([]byte{statusRefused}, 0)
}
