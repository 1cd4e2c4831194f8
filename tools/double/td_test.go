package main

import (
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chrysalis/attest/tdx"
	"chrysalis/measure"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/tdvf"
)

// plugged is a double and the connections that a plugin has.
type plugged struct {
	t      *testing.T
	dir    string
	module net.Conn
	ended  chan error
}

func plug(t *testing.T, td *td) *plugged {
	t.Helper()
	dir, err := os.MkdirTemp("", "double-") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &plugged{t: t, dir: dir, ended: make(chan error, 1)}
	s := &server{td: td, quotes: filepath.Join(dir, "quotes")}
	go func() { p.ended <- s.serve(t.Context(), filepath.Join(dir, "socket"), filepath.Join(dir, "pid")) }()
	for range 500 {
		if _, err = os.Stat(filepath.Join(dir, "pid")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.module = p.dial()
	return p
}

func (p *plugged) dial() net.Conn {
	p.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(p.dir, "socket"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

// ask says whether the double refuses, and what it answers otherwise.
func ask(t *testing.T, conn net.Conn, op uint8, in []byte) (out []byte, refused bool) {
	t.Helper()
	message := binary.LittleEndian.AppendUint32([]byte{op}, uint32(len(in)))
	if _, err := conn.Write(append(message, in...)); err != nil {
		t.Fatal(err)
	}
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatal(err)
	}
	out = make([]byte, binary.LittleEndian.Uint32(head[4:]))
	if _, err := io.ReadFull(conn, out); err != nil {
		t.Fatal(err)
	}
	return out, binary.LittleEndian.Uint32(head[:]) != 0
}

// TestServe does over the sockets what a TD does, has the quotes judged by the verifier of clients, and makes the service behave in
// each way that it can.
func TestServe(t *testing.T) {
	configID := [48]byte{0xc0, 1}
	td, err := newTD(time.Now(), configID, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := td.load([48]byte{0x71}, []tdvf.Section{{Type: tdvf.SectionHOB, Address: 0x809000}}, []byte("list")); err != nil {
		t.Fatal(err)
	}
	root, collateral, err := td.publish()
	if err != nil {
		t.Fatal(err)
	}
	p := plug(t, td)
	launched, refused := ask(t, p.module, opLaunch, nil)
	if want := append([]byte{0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x90, 0x80, 0, 0, 0, 0, 0}, "list\xff\xff\x08\x00\x00\x00\x00\x00"...); refused || !bytes.Equal(launched, want) {
		t.Errorf("launch: got %x, want %x", launched, want)
	}
	digest := sha512.Sum384([]byte("event"))
	if _, refused := ask(t, p.module, opExtend, append([]byte{3}, digest[:]...)); refused {
		t.Error("extending RTMR3 was refused")
	}
	if _, refused := ask(t, p.module, opExtend, append([]byte{4}, digest[:]...)); !refused {
		t.Error("RTMR4 was extended, want a refusal")
	}
	data := [64]byte{1: 0xda}
	report, refused := ask(t, p.module, opReport, data[:])
	if refused || len(report) != reportBytes {
		t.Fatalf("report of %d bytes, refused %t", len(report), refused)
	}
	verify := func(quote []byte) (*tdx.Result, error) {
		t.Helper()
		c, err := tdx.ParseCollateral(collateral)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(root)
		if err != nil {
			t.Fatal(err)
		}
		return tdx.Verify(quote, c, tdx.Options{}, time.Now(), certificate)
	}
	good, refused := ask(t, p.dial(), opQuote, report)
	if refused || binary.LittleEndian.Uint64(good) != quoteDone {
		t.Fatalf("an honest quote: got %.32x, refused %t", good, refused)
	}
	result, err := verify(good[8:])
	if err != nil {
		t.Fatal(err)
	}
	body := result.Body()
	if want := eventlog.Extend384([48]byte{}, digest); body.RTMR[3] != want || body.MRTD != [48]byte{0x71} || body.MRCONFIGID != configID ||
		body.ReportData != data {
		t.Errorf("the quote says %+v, want RTMR3 %x and what was loaded", body, want)
	}

	// What the module did not sign, no enclave quotes.
	for _, at := range []int{dataAt, tcbAt + 8, infoAt + 16, macBytes} {
		forged := bytes.Clone(report)
		forged[at] ^= 1
		if got, _ := ask(t, p.dial(), opQuote, forged); binary.LittleEndian.Uint64(got) != quoteRefused || len(got) != 8 {
			t.Errorf("a report changed at %d: got a quote of %d bytes, want a refusal", at, len(got)-8)
		}
	}

	behave := func(way string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(p.dir, "quotes"), []byte(way), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	later := [64]byte{2: 1}
	report, _ = ask(t, p.module, opReport, later[:])
	for _, way := range []string{"garbage", "short", "long"} {
		behave(way)
		got, refused := ask(t, p.dial(), opQuote, report)
		if _, err := verify(got[8:]); refused || err == nil {
			t.Errorf("%s: got accepted (refused %t), want no valid quote", way, refused)
		}
	}
	behave("other")
	got, _ := ask(t, p.dial(), opQuote, report)
	if result, err := verify(got[8:]); err != nil || result.Body().MRTD == body.MRTD || result.Body().ReportData != later {
		t.Errorf("another TD's: got error %v, want a valid quote of another MRTD", err)
	}
	behave("yesterday")
	if got, _ = ask(t, p.dial(), opQuote, report); !bytes.Equal(got, good) {
		t.Error("yesterday's: got another quote, want the first")
	}
	behave("refuse")
	if got, _ = ask(t, p.dial(), opQuote, report); binary.LittleEndian.Uint64(got) != quoteRefused {
		t.Errorf("a refusal: got %.16x", got)
	}
	behave("sulk")
	if _, refused := ask(t, p.dial(), opQuote, report); !refused {
		t.Error("a way that nobody knows was answered")
	}

	// It hangs on one connection, and the module goes on beside it.
	behave(wayHang)
	hung := p.dial()
	answered := make(chan []byte, 1)
	go func() {
		message := append(binary.LittleEndian.AppendUint32([]byte{opQuote}, uint32(len(report))), report...)
		_, _ = hung.Write(message)
		b := make([]byte, 16)
		_, _ = io.ReadFull(hung, b)
		answered <- b
	}()
	if _, refused := ask(t, p.module, opReport, data[:]); refused {
		t.Error("a report beside a quote in flight was refused")
	}
	select {
	case b := <-answered:
		t.Errorf("a service that hangs answered %x", b)
	case <-time.After(300 * time.Millisecond):
	}
	behave("")
	if b := <-answered; binary.LittleEndian.Uint64(b[8:]) != quoteDone {
		t.Errorf("late: got status %x, want a quote", b[8:])
	}

	// QEMU ends, and so does the double, with a quote in flight.
	behave(wayHang)
	message := append(binary.LittleEndian.AppendUint32([]byte{opQuote}, uint32(len(report))), report...)
	if _, err := p.dial().Write(message); err != nil {
		t.Fatal(err)
	}
	p.module.Close()
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the double outlives QEMU")
	}
}

// TestDebug shows the attribute of a TD that its host can read.
func TestDebug(t *testing.T) {
	td, err := newTD(time.Now(), [48]byte{}, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := td.launched()[0]; got != attributeDebug {
		t.Errorf("attributes begin with %#x, want %#x", got, attributeDebug)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	td, err := newTD(time.Now(), [48]byte{}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	dir, err := os.MkdirTemp("", "double-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ended := make(chan error, 1)
	go func() {
		ended <- (&server{td: td}).serve(ctx, filepath.Join(dir, "socket"), filepath.Join(dir, "pid"))
	}()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// TestKeptRoot: two machines under one root that was kept are vouched for by one certificate, byte for byte.
func TestKeptRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "root.pem")
	if err := runRoot([]string{"-o", file}); err != nil {
		t.Fatal(err)
	}
	var roots [2][]byte
	for i := range roots {
		under, err := readRoot(file, measure.TDX)
		if err != nil {
			t.Fatal(err)
		}
		machine, err := newTD(time.Now(), [48]byte{}, false, under)
		if err != nil {
			t.Fatal(err)
		}
		if roots[i], _, err = machine.publish(); err != nil {
			t.Fatal(err)
		}
		built := machine.machine.Build()
		if _, err := tdx.Verify(machine.machine.Quote(), built.Collateral, tdx.Options{AcceptStatus: []tdx.Status{tdx.UpToDate}, MaxCollateralAge: 24 * time.Hour},
			time.Now(), under.certificate); err != nil {
			t.Errorf("machine %d: %v", i, err)
		}
	}
	if !bytes.Equal(roots[0], roots[1]) {
		t.Error("two machines under one file have two roots")
	}
	if got, err := readRoot("", measure.TDX); got != nil || err != nil {
		t.Errorf("no file: got %v and error %v, want none", got, err)
	}
	if got, err := readRoot(file, measure.SEVSNP); err == nil {
		t.Errorf("a root of TDX for SEV-SNP: got %v, want an error", got)
	}
	if err := os.WriteFile(file, []byte("no root"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readRoot(file, measure.TDX); err == nil {
		t.Errorf("a file of something else: got %v, want an error", got)
	}
}
