package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// The host's end of a guest's vsock: VIRTIO 1.3, section 5.10. The kernel of a real host has it (vhost-vsock); here it is this program, so
// that a TD under emulation asks the quoting service as it does on hardware. Streams go from the guest to one port; nothing dials the guest.

// A packet's head: source and destination CID (u64), ports (u32), length (u32), type and operation (u16), flags, room and count of what was
// taken (u32).
const (
	vsockHead = 44
	hostCID   = 2
	vsockRoom = 64 << 10 // that each stream has here

	vsockStream = 1 // type

	vsockRequest       = 1
	vsockResponse      = 2
	vsockReset         = 3
	vsockShutdown      = 4
	vsockData          = 5
	vsockCreditUpdate  = 6
	vsockCreditRequest = 7

	maxStreams = 16
)

// vsock is a guest's vsock.
type vsock struct {
	*vhost
	cid    uint64
	port   uint32
	accept func(io.ReadWriter) // called for each stream; the stream is reset when it returns

	mu      sync.Mutex
	changed *sync.Cond // room in the guest's ring, bytes or credit of a stream, or the end
	streams map[uint32]*stream
	ended   bool
}

// stream is one that the guest has opened, from a port of its.
type stream struct {
	v    *vsock
	from uint32
	// in is what the guest has sent and nobody has read; taken counts what was. sent, room and drained are of what goes to the guest.
	in                         []byte
	taken, sent, room, drained uint32
	closed                     bool
}

func newVsock(cid uint64, port uint32, accept func(io.ReadWriter)) *vsock {
	v := &vsock{vhost: newVhost(2, binary.LittleEndian.AppendUint64(nil, cid)), cid: cid, port: port, accept: accept, streams: map[uint32]*stream{}}
	v.changed = sync.NewCond(&v.mu)
	v.rings[0].kicked = v.wake
	v.rings[1].kicked = v.drain
	return v
}

func (v *vsock) wake() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changed.Broadcast()
}

// run takes QEMU's connection and serves until it ends.
func (v *vsock) run(ctx context.Context, l *net.UnixListener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	conn, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	err = v.serve(conn)
	v.mu.Lock()
	v.ended = true
	v.changed.Broadcast()
	v.mu.Unlock()
	return err
}

// drain takes what the guest has sent.
func (v *vsock) drain() {
	for {
		c, ok, err := v.take(v.rings[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "double: vsock:", err)
		}
		if !ok {
			return
		}
		packet := slices.Concat(c.reads...)
		v.rings[1].give(c, 0)
		if err := v.received(packet); err != nil {
			fmt.Fprintln(os.Stderr, "double: vsock:", err)
		}
	}
}

func (v *vsock) received(packet []byte) error {
	le := binary.LittleEndian
	if len(packet) < vsockHead {
		return fmt.Errorf("packet of %d bytes, want %d at least", len(packet), vsockHead)
	}
	from, to, size := le.Uint32(packet[16:]), le.Uint32(packet[20:]), le.Uint32(packet[24:])
	kind, op, data := le.Uint16(packet[28:]), le.Uint16(packet[30:]), packet[vsockHead:]
	if uint64(size) > uint64(len(data)) {
		return fmt.Errorf("packet says %d bytes and has %d", size, len(data))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.streams[from]
	switch {
	case op == vsockReset:
		v.forget(s)
		return nil
	case kind != vsockStream || to != v.port || le.Uint64(packet) != v.cid || le.Uint64(packet[8:]) != hostCID,
		op == vsockRequest && (s != nil || len(v.streams) >= maxStreams), op != vsockRequest && s == nil:
		go v.send(&stream{v: v, from: from}, to, vsockReset, nil)
		return nil
	case op == vsockRequest:
		s = &stream{v: v, from: from}
		v.streams[from] = s
		go s.live()
	}
	s.room, s.drained = le.Uint32(packet[36:]), le.Uint32(packet[40:])
	switch op {
	case vsockData:
		if len(s.in)+int(size) > vsockRoom {
			return fmt.Errorf("a guest that sends %d bytes more than there is room", len(s.in)+int(size)-vsockRoom)
		}
		s.in = append(s.in, data[:size]...)
	case vsockShutdown:
		s.closed = true
	case vsockCreditRequest:
		go v.send(s, v.port, vsockCreditUpdate, nil)
	}
	v.changed.Broadcast()
	return nil
}

// forget drops a stream. v.mu is held.
func (v *vsock) forget(s *stream) {
	if s != nil {
		s.closed = true
		delete(v.streams, s.from)
		v.changed.Broadcast()
	}
}

// live answers a stream, and resets it at its end.
func (s *stream) live() {
	if err := s.v.send(s, s.v.port, vsockResponse, nil); err == nil {
		s.v.accept(s)
	}
	_ = s.v.send(s, s.v.port, vsockReset, nil)
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	s.v.forget(s)
}

// send sends one packet, in as many as the guest's buffers need.
func (v *vsock) send(s *stream, port uint32, op uint16, data []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for {
		c, err := v.buffer()
		if err != nil {
			return err
		}
		room := 0
		for _, part := range c.writable {
			room += len(part)
		}
		n := min(len(data), room-vsockHead)
		if n < 0 {
			return fmt.Errorf("guest's buffer has %d bytes, want %d at least", room, vsockHead)
		}
		le := binary.LittleEndian
		packet := le.AppendUint64(le.AppendUint64(nil, hostCID), v.cid)
		for _, word := range []uint32{port, s.from, uint32(n), uint32(op)<<16 | vsockStream, 0, vsockRoom, s.taken} {
			packet = le.AppendUint32(packet, word)
		}
		packet = append(packet, data[:n]...)
		left := packet
		for _, part := range c.writable {
			left = left[copy(part, left):]
		}
		v.rings[0].give(c, len(packet))
		s.sent += uint32(n)
		if data = data[n:]; len(data) == 0 {
			return nil
		}
	}
}

// buffer waits for one of the guest's. v.mu is held.
func (v *vsock) buffer() (chain, error) {
	for {
		c, ok, err := v.take(v.rings[0])
		if ok || err != nil {
			return c, err
		}
		if v.ended {
			return c, net.ErrClosed
		}
		v.changed.Wait()
	}
}

func (s *stream) Read(b []byte) (n int, err error) {
	s.v.mu.Lock()
	for len(s.in) == 0 && !s.closed && !s.v.ended {
		s.v.changed.Wait()
	}
	n = copy(b, s.in)
	s.in = s.in[n:]
	s.taken += uint32(n)
	s.v.mu.Unlock()
	if n == 0 {
		return 0, io.EOF
	}
	return n, s.v.send(s, s.v.port, vsockCreditUpdate, nil)
}

func (s *stream) Write(b []byte) (n int, err error) {
	for n < len(b) {
		s.v.mu.Lock()
		for s.room == s.sent-s.drained && !s.closed && !s.v.ended {
			s.v.changed.Wait()
		}
		most, closed := int(s.room-(s.sent-s.drained)), s.closed || s.v.ended
		s.v.mu.Unlock()
		if closed {
			return n, net.ErrClosed
		}
		part := b[n:min(len(b), n+most)]
		if err := s.v.send(s, s.v.port, vsockData, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// Intel's quote generation service, qgs_msg_lib.h of DCAP 1.23: a length (u32, big-endian), then a header of versions (u16), type, size
// and error (u32, little-endian), then the sizes of two parts, and the parts.
const (
	qgsHead       = 24
	qgsRequest    = 0
	qgsResponse   = 1
	qgsErrorQuote = 0x12001 // QGS_MSG_ERROR_UNEXPECTED
)

// quotes answers the requests of one stream.
func (s *server) quotesOver(ctx context.Context, stream io.ReadWriter) error {
	le := binary.LittleEndian
	for {
		var length [4]byte
		if _, err := io.ReadFull(stream, length[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		message := make([]byte, qgsHead+reportBytes)
		if got := binary.BigEndian.Uint32(length[:]); int(got) != len(message) {
			return fmt.Errorf("request of %d bytes, want %d", got, len(message))
		}
		if _, err := io.ReadFull(stream, message); err != nil {
			return err
		}
		if le.Uint32(message[4:]) != qgsRequest || le.Uint32(message[16:]) != reportBytes || le.Uint32(message[20:]) != 0 {
			return fmt.Errorf("request begins with %x, want one for a quote", message[:qgsHead])
		}
		began := time.Now()
		answer, err := s.quote(ctx, message[qgsHead:])
		if err != nil {
			return err
		}
		quote, code := answer[8:], uint32(0)
		if le.Uint64(answer) != quoteDone {
			code = qgsErrorQuote
		}
		reply := binary.BigEndian.AppendUint32(nil, uint32(qgsHead+len(quote)))
		reply = le.AppendUint16(le.AppendUint16(reply, 1), 1)
		for _, word := range []uint32{qgsResponse, uint32(qgsHead + len(quote)), code, 0, uint32(len(quote))} {
			reply = le.AppendUint32(reply, word)
		}
		fmt.Fprintf(os.Stderr, "%s%.3f ms\n", quotedIn, float64(time.Since(began).Microseconds())/1000)
		if _, err := stream.Write(append(reply, quote...)); err != nil {
			return err
		}
	}
}

// quotedIn is said of each quote over vsock, with the time that the service itself took.
const quotedIn = "double: quote over vsock: "
