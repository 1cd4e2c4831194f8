package tdx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	quotes "chrysalis/attest/tdx"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/init/internal/platform/tsm/tsmtest"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// machine is a TDX module with a quoting enclave: registers, TD reports and quotes over what the registers are.
type machine struct {
	tdx       *attesttest.TDX
	extends   int
	short     bool // an extend fails after it reached the register
	lost      bool // an extend does not reach the register, and says nothing
	readFails error
}

func newMachine() *machine {
	m := &machine{tdx: attesttest.NewTDX(now, 5, true)}
	m.tdx.Body.MRTD, m.tdx.Body.MRCONFIGID, m.tdx.Body.RTMR[3] = [48]byte{1}, config.SHA384(measured), [48]byte{}
	for i := range 3 {
		m.tdx.Body.RTMR[i] = [48]byte{2, byte(i)}
	}
	return m
}

var measured = []byte("the config")

func (m *machine) read(name string) ([48]byte, error) {
	b := m.tdx.Body
	return map[string][48]byte{register.MRTD: b.MRTD, configID: b.MRCONFIGID, register.RTMR(0): b.RTMR[0], register.RTMR(1): b.RTMR[1],
		register.RTMR(2): b.RTMR[2], register.RTMR(3): b.RTMR[3]}[name], m.readFails
}

func (m *machine) extend(name string, digest [48]byte) error {
	if name != register.RTMR(3) {
		return fmt.Errorf("%s is not to be extended", name)
	}
	m.extends++
	if m.lost {
		return nil
	}
	m.tdx.Body.RTMR[3] = eventlog.Extend384(m.tdx.Body.RTMR[3], digest)
	if m.short {
		return io.ErrShortWrite
	}
	return nil
}

// report makes a TDREPORT of the registers as they are.
func (m *machine) report(_ string, data [64]byte) (r [reportBytes]byte, err error) {
	copy(r[reportReportData:], data[:])
	for _, place := range registersOfBody {
		value, _ := m.read(place.name)
		copy(r[reportInfo+place.info:], value[:])
	}
	return r, nil
}

func (m *machine) quote(data [64]byte) []byte {
	m.tdx.Body.ReportData = data
	return m.tdx.Quote()
}

func open(t *testing.T, m *machine) *TD {
	t.Helper()
	kernel := &tsmtest.Kernel{Provider: provider, Answer: func(data [64]byte) ([]byte, []byte, error) { return m.quote(data), nil, nil }}
	td := &TD{registers: m, reports: tsm.Reports{Dir: "/reports", Provider: provider, Files: kernel}, describe: m.report}
	if err := td.untouched(); err != nil {
		t.Fatal(err)
	}
	return td
}

func record(kind eventlog.Kind) eventlog.Record {
	return eventlog.Record{Register: eventlog.RTMR3, Kind: kind, Data: []byte{byte(kind)}}
}

func TestExtend(t *testing.T) {
	m := newMachine()
	td := open(t, m)
	log := []eventlog.Record{record(eventlog.KindConfig), record(eventlog.KindEngine)}
	for _, r := range log {
		if err := td.Extend(r); err != nil {
			t.Fatal(err)
		}
	}
	if want := eventlog.Replay384(log, eventlog.RTMR3); m.tdx.Body.RTMR[3] != want || m.extends != 2 {
		t.Errorf("RTMR3 is %x after %d extends, want %x after 2", m.tdx.Body.RTMR[3], m.extends, want)
	}
	if err := td.Extend(eventlog.Record{Register: eventlog.PCR13, Kind: eventlog.KindModel}); err == nil || m.extends != 2 {
		t.Errorf("an event for a PCR: got error %v and %d extends, want a refusal before any", err, m.extends-2)
	}
}

// TestExtendRefuses: an extend that is not whole, or that leaves the register as something else would, is an error.
func TestExtendRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*machine){
		"taken short":                func(m *machine) { m.short = true },
		"lost":                       func(m *machine) { m.lost = true },
		"not to be read back":        func(m *machine) { m.readFails = unix.EIO },
		"somebody extended meantime": func(m *machine) { m.tdx.Body.RTMR[3] = [48]byte{9} },
	} {
		m := newMachine()
		td := open(t, m)
		spoil(m)
		if err := td.Extend(record(eventlog.KindConfig)); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
	m := newMachine()
	m.tdx.Body.RTMR[3] = [48]byte{1}
	if err := (&TD{registers: m}).untouched(); err == nil || !strings.Contains(err.Error(), "before process 1") {
		t.Errorf("a register that was extended before: got error %v, want a refusal", err)
	}
}

// TestPublicIdentity: RTMR3 holds what a guest of COCOON's reference has there, and no event changes it.
func TestPublicIdentity(t *testing.T) {
	m := newMachine()
	td := open(t, m)
	if err := td.TakePublicIdentity(); err != nil {
		t.Fatal(err)
	}
	if err := td.Extend(record(eventlog.KindConfig)); err != nil {
		t.Fatal(err)
	}
	if want := cocoon.RTMR3(cocoon.NoTree()); m.tdx.Body.RTMR[3] != want || m.extends != 2 {
		t.Errorf("RTMR3 is %x after %d extends, want %x after 2", m.tdx.Body.RTMR[3], m.extends, want)
	}
	m = newMachine()
	td = open(t, m)
	m.lost = true
	if err := td.TakePublicIdentity(); err == nil {
		t.Error("extends that are lost: got no error, want one")
	}

	identity := `{"cocoon":true,"network":"local"}`
	public := append(append(binary.LittleEndian.AppendUint32(nil, uint32(len(identity))), identity...), 0, 0, 0, 0)
	for name, tt := range map[string]struct {
		given [48]byte
		good  bool
	}{"zeros": {[48]byte{}, true}, "the config's hash": {config.SHA384(public), false}, "another": {[48]byte{1}, false}} {
		m.tdx.Body.MRCONFIGID = tt.given
		if err := td.Launched(public); (err == nil) != tt.good {
			t.Errorf("launched with %s: got error %v, want one: %v", name, err, !tt.good)
		}
	}
}

// TestSysfs: each register has the kernel's file, and an extend is one write of its digest.
func TestSysfs(t *testing.T) {
	s := sysfs{t.TempDir()}
	for i, file := range []string{"mrtd:sha384", "mrconfigid", "rtmr0:sha384", "rtmr1:sha384", "rtmr2:sha384", "rtmr3:sha384"} {
		if err := os.WriteFile(filepath.Join(s.dir, file), bytes.Repeat([]byte{byte(i + 1)}, 48), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.read(registersOfBody[i].name); err != nil || got[0] != byte(i+1) {
			t.Errorf("%s: got %x and error %v, want the bytes of %s", registersOfBody[i].name, got, err, file)
		}
	}
	if err := s.extend(register.RTMR(3), [48]byte{0xab}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.read(register.RTMR(3)); err != nil || got != ([48]byte{0xab}) {
		t.Errorf("written: got %x and error %v, want the digest", got, err)
	}
	for name, size := range map[string]int{"short": 47, "long": 49} {
		if err := os.WriteFile(s.file(register.MRTD), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.read(register.MRTD); err == nil {
			t.Errorf("a %s register: got no error, want one", name)
		}
	}
	if err := (sysfs{filepath.Join(s.dir, "none")}).extend(register.RTMR(3), [48]byte{}); err == nil {
		t.Error("no such register: got no error, want one")
	}
}

func TestPresent(t *testing.T) {
	for _, tt := range []struct {
		name, cpuinfo string
		device        bool
		want          bool
	}{
		{"a device", "", true, true},
		{"the processor's word, and no driver", "processor\t: 0\nflags\t\t: fpu tdx_guest sse\n", false, true},
		{"a plain machine", "processor\t: 0\nflags\t\t: fpu sse\nbugs\t\t: tdx_guest\n", false, false},
		{"a flag that begins so", "flags\t\t: tdx_guest_not\n", false, false},
	} {
		dev, proc := t.TempDir(), t.TempDir()
		if err := os.WriteFile(filepath.Join(proc, "cpuinfo"), []byte(tt.cpuinfo), 0o600); err != nil {
			t.Fatal(err)
		}
		if tt.device {
			if err := os.WriteFile(filepath.Join(dev, deviceName), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := Present(dev, proc); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestLaunched(t *testing.T) {
	m := newMachine()
	td := open(t, m)
	if err := td.Launched(measured); err != nil {
		t.Errorf("the config: %v", err)
	}
	if err := td.Launched([]byte("another")); err == nil || !strings.Contains(err.Error(), "MRCONFIGID is") {
		t.Errorf("another config: got error %v, want a refusal with both values", err)
	}
	m.tdx.Body.MRCONFIGID = [48]byte{}
	if err := td.Launched(measured); err != nil {
		t.Errorf("none given at launch: got %v, want it left to the clients", err)
	}
	m.readFails = unix.EIO
	if err := td.Launched(measured); err == nil {
		t.Error("a register that can't be read: got no error, want one")
	}
}

// TestQuote takes both ways to a quote, which the verifier's own parser reads.
func TestQuote(t *testing.T) {
	for _, way := range []string{"kernel", "service"} {
		for _, version := range []uint16{4, 5} {
			m := newMachine()
			m.tdx.Version, m.tdx.Body.TDX15 = version, version == 5
			td := open(t, m)
			host := config.Host{Endorsements: config.Endorsements{Collateral: []byte("collateral")}}
			if way == "service" {
				host.QuotingPort = 4050
				td.reports.Files = &tsmtest.Kernel{} // no provider: only the service is left
				td.dial = serve(t, func(conn net.Conn, report [reportBytes]byte) {
					conn.Write(answer(m.quote([64]byte(report[reportReportData:])), nil))
				})
			}
			if err := td.UseHost(host); err != nil {
				t.Fatal(err)
			}
			got, err := td.Quote([64]byte{7})
			if err != nil {
				t.Fatalf("%s, version %d: %v", way, version, err)
			}
			q, err := quotes.Parse(got.Quote)
			if err != nil || q.Body.ReportData != [64]byte{7} || got.Platform != evidence.TDX || string(got.Collateral) != "collateral" {
				t.Errorf("%s, version %d: got %+v of %s and error %v, want the TD's quote and the host's collateral", way, version, q, got.Platform, err)
			}
		}
	}
}

// TestForeignQuote: a quote of another TD, of another time or of another shape is refused whichever way it came.
func TestForeignQuote(t *testing.T) {
	for name, spoil := range map[string]func(m *machine, genuine []byte) []byte{
		"another TD's": func(m *machine, genuine []byte) []byte {
			other := *m.tdx
			other.Body.MRTD[0]++
			return other.Quote()
		},
		"of another config": func(m *machine, genuine []byte) []byte {
			other := *m.tdx
			other.Body.MRCONFIGID[0]++
			return other.Quote()
		},
		"with another boot": func(m *machine, genuine []byte) []byte {
			other := *m.tdx
			other.Body.RTMR[1][0]++
			return other.Quote()
		},
		"yesterday's": func(m *machine, genuine []byte) []byte {
			other := *m.tdx
			other.Body.RTMR[3][0]++
			return other.Quote()
		},
		"for another challenge": func(m *machine, genuine []byte) []byte {
			other := *m.tdx
			other.Body.ReportData[0]++
			return other.Quote()
		},
		"cut":                func(_ *machine, genuine []byte) []byte { return genuine[:600] },
		"cut after its type": func(_ *machine, genuine []byte) []byte { return genuine[:headerBytes+bodyBytes] },
		"grown":              func(_ *machine, genuine []byte) []byte { return append(genuine, make([]byte, maxQuoteBytes)...) },
		"garbage":            func(_ *machine, genuine []byte) []byte { return bytes.Repeat([]byte{0xa5}, len(genuine)) },
		"an SGX enclave's": func(_ *machine, genuine []byte) []byte {
			b := slices.Clone(genuine)
			binary.LittleEndian.PutUint32(b[4:], 0)
			return b
		},
		"of another version": func(_ *machine, genuine []byte) []byte {
			b := slices.Clone(genuine)
			b[0] = 3
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine()
			td := open(t, m)
			spoiled := func(data [64]byte) []byte { return spoil(m, m.quote(data)) }
			td.reports.Files = &tsmtest.Kernel{Provider: provider, Answer: func(data [64]byte) ([]byte, []byte, error) { return spoiled(data), nil, nil }}
			if got, err := td.Quote([64]byte{7}); !errors.Is(err, tsm.ErrForeign) || got.Quote != nil {
				t.Errorf("by the kernel: got %d bytes and error %v, want %v", len(got.Quote), err, tsm.ErrForeign)
			}
			td.dial = serve(t, func(conn net.Conn, report [reportBytes]byte) {
				conn.Write(answer(spoiled([64]byte(report[reportReportData:])), nil))
			})
			if err := td.UseHost(config.Host{QuotingPort: 1}); err != nil {
				t.Fatal(err)
			}
			if got, err := td.Quote([64]byte{7}); !errors.Is(err, tsm.ErrForeign) || got.Quote != nil {
				t.Errorf("by the service: got %d bytes and error %v, want %v", len(got.Quote), err, tsm.ErrForeign)
			}
		})
	}
}

// answer frames a quote as the service does; change edits the message without its length.
func answer(quote []byte, change func(message []byte)) []byte {
	le := binary.LittleEndian
	message := le.AppendUint16(le.AppendUint16(nil, qgsMajor), qgsMinor)
	for _, word := range []uint32{typeResponse, uint32(qgsHead + len(quote)), 0, 0, uint32(len(quote))} {
		message = le.AppendUint32(message, word)
	}
	message = append(message, quote...)
	length := uint32(len(message))
	if change != nil {
		change(message)
	}
	return append(binary.BigEndian.AppendUint32(nil, length), message...)
}

// serve plays the host's service: it reads a request, holds it against the protocol, and answers.
func serve(t *testing.T, reply func(conn net.Conn, report [reportBytes]byte)) dialer {
	return func(port uint32, deadline time.Time) (io.ReadWriteCloser, error) {
		ours, theirs := net.Pipe()
		if err := ours.SetDeadline(deadline); err != nil {
			return nil, err
		}
		go func() {
			defer theirs.Close()
			var request [lengthBytes + qgsHead + reportBytes]byte
			if _, err := io.ReadFull(theirs, request[:]); err != nil {
				return
			}
			want := append([]byte{0, 0, 4, 24, 1, 0, 1, 0, 0, 0, 0, 0, 24, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0}, request[28:]...)
			if !bytes.Equal(request[:], want) {
				t.Errorf("request begins with %x, want %x", request[:28], want[:28])
			}
			reply(theirs, [reportBytes]byte(request[28:]))
		}()
		return ours, nil
	}
}

// TestServiceRefuses has the host's service fail in every way that its protocol has.
func TestServiceRefuses(t *testing.T) {
	le := binary.LittleEndian
	send := func(change func(message []byte)) func(*machine, net.Conn, [reportBytes]byte) {
		return func(m *machine, conn net.Conn, report [reportBytes]byte) {
			conn.Write(answer(m.quote([64]byte(report[reportReportData:])), change))
		}
	}
	for _, tt := range []struct {
		name  string
		want  error
		reply func(m *machine, conn net.Conn, report [reportBytes]byte)
	}{
		{"hangs", tsm.ErrTimeout, func(_ *machine, conn net.Conn, _ [reportBytes]byte) { io.Copy(io.Discard, conn) }},
		{"answers late", tsm.ErrTimeout, func(m *machine, conn net.Conn, report [reportBytes]byte) {
			time.Sleep(serviceLimit + time.Second)
			conn.Write(answer(m.quote([64]byte(report[reportReportData:])), nil))
		}},
		{"drips", tsm.ErrTimeout, func(m *machine, conn net.Conn, report [reportBytes]byte) {
			for _, b := range answer(m.quote([64]byte(report[reportReportData:])), nil) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"goes away", io.EOF, func(*machine, net.Conn, [reportBytes]byte) {}},
		{"goes away in the middle", io.ErrUnexpectedEOF, func(m *machine, conn net.Conn, report [reportBytes]byte) {
			b := answer(m.quote([64]byte(report[reportReportData:])), nil)
			conn.Write(b[:len(b)/2])
		}},
		{"refuses", tsm.ErrRefused, send(func(b []byte) { le.PutUint32(b[12:], 0x12001) })},
		{"another major version", tsm.ErrForeign, send(func(b []byte) { b[0] = 2 })},
		{"another message", tsm.ErrForeign, send(func(b []byte) { b[4] = 3 })},
		{"another size", tsm.ErrForeign, send(func(b []byte) { b[8]++ })},
		{"an id of ours", tsm.ErrForeign, send(func(b []byte) { b[16] = 1 })},
		{"a longer quote than there is", tsm.ErrForeign, send(func(b []byte) { b[20]++ })},
		{"a shorter quote than there is", tsm.ErrForeign, send(func(b []byte) { b[20]-- })},
		{"a size beyond all bounds", tsm.ErrForeign, func(_ *machine, conn net.Conn, _ [reportBytes]byte) {
			b := answer(make([]byte, 8), nil)
			binary.BigEndian.PutUint32(b, 1<<30)
			le.PutUint32(b[lengthBytes+8:], 1<<30)
			conn.Write(b)
		}},
		{"a size below its head", tsm.ErrForeign, func(_ *machine, conn net.Conn, _ [reportBytes]byte) {
			b := answer(nil, nil)
			binary.BigEndian.PutUint32(b, qgsHead-1)
			le.PutUint32(b[lengthBytes+8:], qgsHead-1)
			conn.Write(b)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMachine()
				td := open(t, m)
				td.dial = serve(t, func(conn net.Conn, report [reportBytes]byte) { tt.reply(m, conn, report) })
				if err := td.UseHost(config.Host{QuotingPort: 1}); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				got, err := td.Quote([64]byte{7})
				if !errors.Is(err, tt.want) || got.Quote != nil {
					t.Errorf("got %d bytes and error %v, want %v", len(got.Quote), err, tt.want)
				}
				if took := time.Since(began); took > serviceLimit+time.Second {
					t.Errorf("took %s, want at most %s", took, serviceLimit)
				}
				time.Sleep(2 * serviceLimit) // until the service has given up, too
			})
		})
	}
	td := open(t, newMachine())
	td.dial = func(uint32, time.Time) (io.ReadWriteCloser, error) { return nil, unix.ETIMEDOUT }
	if err := td.UseHost(config.Host{QuotingPort: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := td.Quote([64]byte{7}); !errors.Is(err, tsm.ErrTimeout) {
		t.Errorf("nobody listens: got error %v, want %v", err, tsm.ErrTimeout)
	}
	td.describe = func(string, [64]byte) (r [reportBytes]byte, err error) { return r, unix.EIO }
	if _, err := td.Quote([64]byte{7}); !errors.Is(err, unix.EIO) {
		t.Errorf("no TD report: got error %v, want %v", err, unix.EIO)
	}
}

// TestDialVsock goes over the real family of sockets as far as this kernel has it: to itself, or to nobody.
func TestDialVsock(t *testing.T) {
	conn, err := dialVsock(1, time.Now().Add(2*time.Second))
	if err == nil {
		conn.Close()
		t.Fatal("connected to port 1 of the host, want nobody there")
	}
	t.Logf("nobody there: %v", err)
}

func TestBootLog(t *testing.T) {
	guest := attesttest.NewTDXGuest(config1(t), now)
	guest.SetBoot([]attesttest.BootEvent{{Register: 1, Type: 4, Data: []byte{0, 0, 0, 0xff}}})
	sys := t.TempDir()
	td := &TD{sys: sys}
	if log, err := td.BootLog(); log != nil || err != nil {
		t.Errorf("no table: got %d bytes and error %v, want nothing", len(log), err)
	}
	file := filepath.Join(sys, bootLog)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		area []byte
		want []byte
	}{
		{"an area", append(slices.Clone(guest.BootLog), bytes.Repeat([]byte{0xff}, 64<<10-len(guest.BootLog))...), guest.BootLog},
		{"a full area", guest.BootLog, guest.BootLog},
		{"none of ours", []byte("not a log\xff\xff"), []byte("not a log")},
	} {
		if err := os.WriteFile(file, tt.area, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := td.BootLog(); err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("%s: got %x and error %v, want %x", tt.name, got, err, tt.want)
		}
	}
	if err := os.WriteFile(file, make([]byte, maxBootLogBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := td.BootLog(); err == nil {
		t.Error("an area without end: got no error, want one")
	}
}

// config1 returns the encoding of a config.
func config1(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("../../../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestUninterrupted: a call that a signal interrupts is made again, and no other.
func TestUninterrupted(t *testing.T) {
	for _, tt := range []struct {
		errs []error
		want error
	}{
		{[]error{nil}, nil}, {[]error{unix.EIO}, unix.EIO}, {[]error{unix.EINTR, unix.EINTR, nil}, nil}, {[]error{fmt.Errorf("connecting: %w", unix.EINTR), unix.EAGAIN}, unix.EAGAIN},
	} {
		calls := 0
		err := uninterrupted(func() error { calls++; return tt.errs[calls-1] })
		if err != tt.want || calls != len(tt.errs) {
			t.Errorf("%v: got error %v after %d calls, want %v after %d", tt.errs, err, calls, tt.want, len(tt.errs))
		}
	}
	if _, err := dialVsock(1, time.Now().Add(-time.Second)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: got error %v, want %v", err, os.ErrDeadlineExceeded)
	}
}
