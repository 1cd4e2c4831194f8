package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// driver is QEMU and the guest's driver in one: it hands over a memory and two rings, and sends and takes packets.
type driver struct {
	t      *testing.T
	conn   *net.UnixConn
	memory []byte
	kicks  [2]*os.File
	call   *os.File
	put    [2]uint16
	taken  uint16
}

// Where things are in the memory: a page for each part of each ring, then buffers of a page. QEMU's addresses are others than the guest's.
const (
	driverRing   = 8
	driverMemory = 64 * pageBytes
	guestBase    = 0x100000
	qemuBase     = 0x7f0000000000
)

func ringPart(ring, part int) uint64 { return uint64(3*ring+part) * pageBytes }
func ringBuffer(ring, i int) uint64  { return uint64(8+ring*driverRing+i) * pageBytes }

func newDriver(t *testing.T, v *vsock) *driver {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- v.run(context.WithoutCancel(t.Context()), l) }()
	d := &driver{t: t}
	if d.conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, driverMemory); err != nil {
		t.Fatal(err)
	}
	if d.memory, err = unix.Mmap(fd, 0, driverMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	event := func() *os.File {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "event")
	}
	le := binary.LittleEndian
	words := func(values ...uint64) (b []byte) {
		for _, v := range values {
			b = le.AppendUint64(b, v)
		}
		return b
	}
	pair := func(a, b uint32) []byte { return le.AppendUint32(le.AppendUint32(nil, a), b) }
	d.say(vhostSetFeatures, words(vhostFeatures))
	d.say(vhostSetMemory, append(pair(1, 0), words(guestBase, driverMemory, qemuBase, 0)...), fd)
	d.call = event()
	for i := range uint32(2) {
		d.kicks[i] = event()
		d.say(vhostSetRingSize, pair(i, driverRing))
		d.say(vhostSetRingBase, pair(i, 0))
		at := func(part int) uint64 { return qemuBase + ringPart(int(i), part) }
		d.say(vhostSetRingAddress, append(pair(i, 0), words(at(0), at(1), at(2), 0)...))
		d.say(vhostSetCall, words(uint64(i)), int(d.call.Fd()))
		d.say(vhostSetKick, words(uint64(i)), int(d.kicks[i].Fd()))
	}
	for range driverRing {
		d.offer(0, true, pageBytes)
	}
	t.Cleanup(func() {
		d.conn.Close()
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("the device ended with %v, want it to end with QEMU", err)
		}
		_ = unix.Munmap(d.memory)
	})
	return d
}

// say sends a vhost-user message.
func (d *driver) say(request uint32, payload []byte, fds ...int) {
	d.t.Helper()
	le := binary.LittleEndian
	head := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, request), vhostVersion), uint32(len(payload)))
	var beside []byte
	if len(fds) > 0 {
		beside = unix.UnixRights(fds...)
	}
	if _, _, err := d.conn.WriteMsgUnix(append(head, payload...), beside, nil); err != nil {
		d.t.Fatal(err)
	}
}

// offer puts the ring's next buffer into it.
func (d *driver) offer(ring int, writable bool, size int) {
	le := binary.LittleEndian
	i := int(d.put[ring]) % driverRing
	entry := d.memory[ringPart(ring, 0)+uint64(16*i):]
	le.PutUint64(entry, guestBase+ringBuffer(ring, i))
	le.PutUint32(entry[8:], uint32(size))
	le.PutUint16(entry[12:], map[bool]uint16{true: 2}[writable])
	avail := d.memory[ringPart(ring, 2):]
	le.PutUint16(avail[4+2*i:], uint16(i))
	d.put[ring]++
	le.PutUint16(avail[2:], d.put[ring])
	if _, err := d.kicks[ring].Write(le.AppendUint64(nil, 1)); err != nil {
		d.t.Fatal(err)
	}
}

// send sends a packet of the guest's.
func (d *driver) send(from, to uint32, op uint16, data []byte) {
	le := binary.LittleEndian
	packet := le.AppendUint64(le.AppendUint64(nil, 3), hostCID)
	for _, word := range []uint32{from, to, uint32(len(data)), uint32(op)<<16 | vsockStream, 0, 1 << 20, 0} {
		packet = le.AppendUint32(packet, word)
	}
	packet = append(packet, data...)
	copy(d.memory[ringBuffer(1, int(d.put[1])%driverRing):], packet)
	d.offer(1, false, len(packet))
}

// next is the next packet for the guest that is not about credit.
func (d *driver) next() (op uint16, data []byte) {
	d.t.Helper()
	le := binary.LittleEndian
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		used := d.memory[ringPart(0, 1):]
		if le.Uint16(used[2:]) == d.taken {
			continue
		}
		entry := used[4+8*(int(d.taken)%driverRing):]
		id, n := le.Uint32(entry), le.Uint32(entry[4:])
		packet := bytes.Clone(d.memory[ringBuffer(0, int(id)):][:n])
		d.taken++
		d.offer(0, true, pageBytes)
		if op = le.Uint16(packet[30:]); op != vsockCreditUpdate {
			return op, packet[vsockHead:]
		}
	}
	d.t.Fatal("no packet came in ten seconds")
	return 0, nil
}

// TestVsock: a stream of the guest's reaches the port, is answered in as many packets as its buffers need, and ends; anything else is reset.
func TestVsock(t *testing.T) {
	answer := bytes.Repeat([]byte("quote"), 4000)
	v := newVsock(3, 4050, func(s io.ReadWriter) {
		asked := make([]byte, 6)
		if _, err := io.ReadFull(s, asked); err != nil || string(asked) != "please" {
			t.Errorf("got %q and error %v", asked, err)
		}
		if _, err := s.Write(answer); err != nil {
			t.Error(err)
		}
	})
	d := newDriver(t, v)
	wants := func(what string, want uint16) {
		t.Helper()
		if op, _ := d.next(); op != want {
			t.Errorf("%s: got operation %d, want %d", what, op, want)
		}
	}
	d.send(77, 1, vsockRequest, nil)
	wants("another port", vsockReset)
	d.send(77, 4050, vsockData, []byte("stray"))
	wants("bytes of no stream", vsockReset)
	for _, from := range []uint32{1000, 1001} { // one after the other: places are given back
		d.send(from, 4050, vsockRequest, nil)
		wants("a request", vsockResponse)
		d.send(from, 4050, vsockData, []byte("ple"))
		d.send(from, 4050, vsockData, []byte("ase"))
		var got []byte
		for {
			op, data := d.next()
			if op == vsockReset {
				break
			}
			got = append(got, data...)
		}
		if !bytes.Equal(got, answer) {
			t.Errorf("got %d bytes, want the %d that were written", len(got), len(answer))
		}
	}
}

// TestVsockShutdown: a stream that the guest shuts down ends, and its place is another's.
func TestVsockShutdown(t *testing.T) {
	d := newDriver(t, newVsock(3, 4050, func(s io.ReadWriter) {
		if got, err := io.ReadAll(s); err != nil || string(got) != "please" {
			t.Errorf("got %q and error %v", got, err)
		}
	}))
	for i := range uint32(2 * maxStreams) {
		d.send(1000+i, 4050, vsockRequest, nil)
		if op, _ := d.next(); op != vsockResponse {
			t.Fatalf("stream %d: got operation %d, want %d", i, op, vsockResponse)
		}
		d.send(1000+i, 4050, vsockData, []byte("please"))
		d.send(1000+i, 4050, vsockShutdown, nil)
		if op, _ := d.next(); op != vsockReset {
			t.Fatalf("stream %d: got operation %d, want %d", i, op, vsockReset)
		}
	}
}

// TestVhostRefuses: messages that describe no device end the connection.
func TestVhostRefuses(t *testing.T) {
	le := binary.LittleEndian
	for name, tt := range map[string]struct {
		request uint32
		payload []byte
	}{
		"an unknown request":             {99, make([]byte, 8)},
		"a third ring":                   {vhostSetRingSize, append([]byte{2, 0, 0, 0}, le.AppendUint32(nil, 8)...)},
		"a ring of nothing":              {vhostSetRingSize, make([]byte, 8)},
		"memory without descriptors":     {vhostSetMemory, append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 32)...)},
		"a kick for a ring of nowhere":   {vhostSetKick, make([]byte, 8)},
		"more than the configuration":    {vhostGetConfig, append(append(make([]byte, 4), 9, 0, 0, 0, 0, 0, 0, 0), make([]byte, 9)...)},
		"addresses before a ring's size": {vhostSetRingAddress, make([]byte, 40)},
	} {
		d := newVhost(2, make([]byte, 8))
		var none []*os.File
		if _, err := d.answer(tt.request, tt.payload, &none); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// TestVsockRoom: a guest that sends more than there is room for is not kept, and what it may send is.
func TestVsockRoom(t *testing.T) {
	v := newVsock(3, 4050, nil)
	s := &stream{v: v, from: 7}
	v.streams[s.from] = s
	packet := func(size int) []byte {
		le := binary.LittleEndian
		p := le.AppendUint64(le.AppendUint64(nil, 3), hostCID)
		for _, word := range []uint32{7, 4050, uint32(size), vsockData<<16 | vsockStream, 0, 0, 0} {
			p = le.AppendUint32(p, word)
		}
		return append(p, make([]byte, size)...)
	}
	if err := v.received(packet(vsockRoom)); err != nil || len(s.in) != vsockRoom {
		t.Errorf("what there is room for: %d bytes are kept (error %v), want %d", len(s.in), err, vsockRoom)
	}
	if err := v.received(packet(1)); err == nil || len(s.in) != vsockRoom {
		t.Errorf("a byte more: %d bytes are kept (error %v), want %d and an error", len(s.in), err, vsockRoom)
	}
}
