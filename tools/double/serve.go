package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"chrysalis/attest/tdx"
)

// What the plugin asks. The protocol is tdx.c's: u8 operation, u32 length, bytes; u32 status, u32 length, bytes; little-endian.
const (
	opReport = 1 + iota
	opExtend
	opQuote
	opLaunch
	opMessage
	opCertificates
)

// maxRequestBytes bounds what the plugin sends: a message of an SEV-SNP guest is the longest.
const maxRequestBytes = pageBytes

// server answers the plugin of one QEMU: over one connection what the TDX module does, over another each quote.
type server struct {
	td     *td
	snp    *snpGuest // in the place of td
	quotes string    // file that says how the quoting service behaves

	vsockSocket string // where QEMU connects for the guest's vsock; empty: it has none
	cid         uint64 // the guest's address there
	port        uint32 // and the quoting service's port

	mu    sync.Mutex
	first []byte // quote that it made
}

// serve listens, says so by writing its process's number to pid, and ends when QEMU does.
func (s *server) serve(ctx context.Context, socket, pid string) error {
	l, err := listen(socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if s.vsockSocket != "" {
		vl, err := listen(s.vsockSocket)
		if err != nil {
			return err
		}
		v := newVsock(s.cid, s.port, func(stream io.ReadWriter) {
			if err := s.quotesOver(ctx, stream); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "double: quoting over vsock:", err)
			}
		})
		conns.Go(func() {
			if err := v.run(ctx, vl.(*net.UnixListener)); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "double: vsock:", err)
			}
		})
	}
	if err := os.WriteFile(pid, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return err
	}
	_ = l.(*net.UnixListener).SetDeadline(time.Now().Add(patience))
	for first := true; ; first = false {
		conn, err := l.Accept()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("waiting for QEMU: %w", err)
		case first:
			_ = l.(*net.UnixListener).SetDeadline(time.Time{})
		}
		conns.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			if err := s.answerAll(ctx, conn); ctx.Err() == nil && !errors.Is(err, io.EOF) {
				fmt.Fprintln(os.Stderr, "double:", err)
			}
			if first {
				cancel() // the module's connection ends with QEMU
			}
		})
	}
}

func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", socket)
}

// answerAll answers until the connection ends, and says how it did.
func (s *server) answerAll(ctx context.Context, conn io.ReadWriter) error {
	for {
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(head[1:])
		if n > maxRequestBytes {
			return fmt.Errorf("request of %d bytes, want at most %d", n, maxRequestBytes)
		}
		in := make([]byte, n)
		if _, err := io.ReadFull(conn, in); err != nil {
			return err
		}
		out, err := s.answer(ctx, head[0], in)
		status := uint32(0)
		if err != nil {
			fmt.Fprintf(os.Stderr, "double: operation %d: %v\n", head[0], err)
			status, out = 1, nil
		}
		reply := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, status), uint32(len(out)))
		if _, err := conn.Write(append(reply, out...)); err != nil {
			return err
		}
	}
}

func (s *server) answer(ctx context.Context, op uint8, in []byte) ([]byte, error) {
	if s.snp != nil {
		return s.snp.respond(op, in)
	}
	switch {
	case op == opLaunch && len(in) == 0:
		return s.td.launched(), nil
	case op == opReport && len(in) == 64:
		return s.td.report([64]byte(in)), nil
	case op == opExtend && len(in) == 49:
		return nil, s.td.extend(in[0], [48]byte(in[1:]))
	case op == opQuote && len(in) == reportBytes:
		return s.quote(ctx, in)
	}
	return nil, fmt.Errorf("operation %d with %d bytes", op, len(in))
}

// The status of a quote: Intel TDX Guest-Hypervisor Communication Interface, table of GetQuote's status codes.
const (
	quoteDone    = 0
	quoteRefused = 0x8000000000000000
)

// ways are what a quoting service may do that a guest has to live with. Each makes something of an honest quote and of the first
// that this service made.
var ways = map[string]func(quote, first []byte) []byte{
	"garbage":   func(quote, _ []byte) []byte { b := make([]byte, len(quote)); _, _ = rand.Read(b); return b },
	"long":      func(quote, _ []byte) []byte { return append(quote, bytes.Repeat([]byte{1}, 16<<10)...) },
	"short":     func(quote, _ []byte) []byte { return quote[:len(quote)/2] },
	"yesterday": func(_, first []byte) []byte { return first },
}

// wayHang answers once the file says something else, wayOther with the quote of another TD, or with certificates of another chip,
// wayRefuse with none. wayThrottle has the hypervisor of an SEV-SNP guest say that it is busy.
const (
	wayHang     = "hang"
	wayOther    = "other"
	wayRefuse   = "refuse"
	wayThrottle = "throttle"
)

// otherWays are those that make nothing of an honest quote.
var otherWays = []string{wayHang, wayOther, wayRefuse, wayThrottle}

func waysText() string {
	return strings.Join(append(slices.Sorted(maps.Keys(ways)), otherWays...), ", ") + ", or nothing"
}

// way reads how to behave now.
func (s *server) way() (string, error) {
	if s.quotes == "" {
		return "", nil
	}
	text, err := os.ReadFile(s.quotes)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	way := strings.TrimSpace(string(text))
	if _, known := ways[way]; err == nil && !known && way != "" && !slices.Contains(otherWays, way) {
		err = fmt.Errorf("%s says %.40q, want one of %s", s.quotes, way, waysText())
	}
	return way, err
}

// quote answers as the quoting service: a status, then the quote.
func (s *server) quote(ctx context.Context, report []byte) ([]byte, error) {
	way, err := s.way()
	for err == nil && way == wayHang {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if way, err = s.way(); way != wayHang {
			way = "" // late, and honest
		}
	}
	if err != nil {
		return nil, err
	}
	if way == wayRefuse {
		return binary.LittleEndian.AppendUint64(nil, quoteRefused), nil
	}
	var change func(*tdx.Body)
	if way == wayOther {
		change = func(b *tdx.Body) { b.MRTD[0] ^= 1 }
	}
	quote, err := s.td.quote(report, change)
	if err != nil {
		return binary.LittleEndian.AppendUint64(nil, quoteRefused), nil
	}
	s.mu.Lock()
	if s.first == nil {
		s.first = slices.Clone(quote)
	}
	first := slices.Clone(s.first)
	s.mu.Unlock()
	if make := ways[way]; make != nil {
		quote = make(quote, first)
	}
	return append(binary.LittleEndian.AppendUint64(nil, quoteDone), quote...), nil
}
