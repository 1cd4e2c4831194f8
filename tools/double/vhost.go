package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The side of a vhost-user device that is not QEMU: QEMU hands over the guest's memory and the device's rings, and what the guest puts
// there is answered here. Messages: QEMU, docs/interop/vhost-user.rst. Rings: Virtual I/O Device (VIRTIO) 1.3, section 2.7.

// The requests that QEMU makes of a device with these features.
const (
	vhostGetFeatures         = 1
	vhostSetFeatures         = 2
	vhostSetOwner            = 3
	vhostSetMemory           = 5
	vhostSetRingSize         = 8
	vhostSetRingAddress      = 9
	vhostSetRingBase         = 10
	vhostGetRingBase         = 11
	vhostSetKick             = 12
	vhostSetCall             = 13
	vhostSetErr              = 14
	vhostGetProtocolFeatures = 15
	vhostSetProtocolFeatures = 16
	vhostSetRingEnabled      = 18
	vhostGetConfig           = 24

	vhostVersion  = 1
	vhostReply    = 1 << 2
	vhostNoFile   = 1 << 8
	vhostMaxBytes = 4096
	vhostMaxFiles = 8

	// Features: protocol features, VIRTIO_F_VERSION_1; of the protocol: configuration. That the guest translates addresses for the device is
	// between it and QEMU: without an IOMMU they are the memory's.
	vhostFeatures         = 1<<30 | 1<<32
	vhostProtocolFeatures = 1 << 9
)

// vhost is a device of some rings, which QEMU describes over one connection.
type vhost struct {
	config []byte
	rings  []*ring
	memory []region
}

// region is a part of the guest's memory: at guest in the guest's addresses, at user in QEMU's.
type region struct {
	guest, user uint64
	bytes       []byte
}

// ring is a virtqueue. The methods that take from it and give back to it are for one caller at a time.
type ring struct {
	mu                sync.Mutex
	size              uint32
	desc, avail, used []byte
	next, done        uint16
	kick, call        *os.File
	kicked            func() // called when the guest has put something in, and at the start; may be nil
	stopped           sync.WaitGroup
}

func newVhost(rings int, config []byte) *vhost {
	d := &vhost{config: config}
	for range rings {
		d.rings = append(d.rings, &ring{})
	}
	return d
}

// serve answers QEMU until it ends.
func (d *vhost) serve(conn *net.UnixConn) error {
	defer func() {
		for _, r := range d.rings {
			r.stop()
		}
		for _, m := range d.memory {
			_ = unix.Munmap(m.bytes)
		}
	}()
	for {
		request, payload, files, err := receive(conn)
		if err != nil {
			return err
		}
		reply, err := d.answer(request, payload, &files)
		for _, f := range files { // what nobody took
			f.Close()
		}
		if err != nil {
			return fmt.Errorf("vhost-user request %d of %d bytes: %w", request, len(payload), err)
		}
		if reply == nil {
			continue
		}
		le := binary.LittleEndian
		head := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, request), vhostVersion|vhostReply), uint32(len(reply)))
		if _, err := conn.Write(append(head, reply...)); err != nil {
			return err
		}
	}
}

// receive reads one message: request, flags and size, each u32, the payload, and descriptors beside the head.
func receive(conn *net.UnixConn) (request uint32, payload []byte, files []*os.File, err error) {
	head, beside := make([]byte, 12), make([]byte, unix.CmsgSpace(4*vhostMaxFiles))
	n, besides, _, _, err := conn.ReadMsgUnix(head, beside)
	if err != nil {
		return 0, nil, nil, err
	}
	if n == 0 {
		return 0, nil, nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(beside[:besides])
	if err != nil {
		return 0, nil, nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return 0, nil, nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "vhost"))
		}
	}
	if _, err := io.ReadFull(conn, head[n:]); err != nil {
		return 0, nil, files, err
	}
	le := binary.LittleEndian
	size := le.Uint32(head[8:])
	if size > vhostMaxBytes {
		return 0, nil, files, fmt.Errorf("vhost-user message of %d bytes, want at most %d", size, vhostMaxBytes)
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(conn, payload)
	return le.Uint32(head), payload, files, err
}

func (d *vhost) answer(request uint32, payload []byte, files *[]*os.File) (reply []byte, err error) {
	le := binary.LittleEndian
	switch request {
	case vhostGetFeatures:
		return le.AppendUint64(nil, vhostFeatures), nil
	case vhostGetProtocolFeatures:
		return le.AppendUint64(nil, vhostProtocolFeatures), nil
	case vhostSetFeatures, vhostSetOwner, vhostSetProtocolFeatures, vhostSetRingEnabled, vhostSetErr:
		return nil, nil
	case vhostSetMemory:
		return nil, d.remember(payload, *files)
	case vhostGetConfig:
		// u32 offset, size, flags, and the bytes.
		if len(payload) < 12 || int64(le.Uint32(payload))+int64(le.Uint32(payload[4:])) > int64(len(d.config)) || len(payload) != 12+int(le.Uint32(payload[4:])) {
			return nil, fmt.Errorf("want a part of %d bytes", len(d.config))
		}
		return append(slices.Clone(payload[:12]), d.config[le.Uint32(payload):][:le.Uint32(payload[4:])]...), nil
	}
	if len(payload) < 8 || int(payload[0]) >= len(d.rings) {
		return nil, fmt.Errorf("unknown, or of no ring of %d", len(d.rings))
	}
	r, value := d.rings[payload[0]], le.Uint32(payload[4:])
	switch request {
	case vhostSetRingSize:
		if value == 0 || value > 1024 {
			return nil, fmt.Errorf("ring of %d, want 1 to 1024", value)
		}
		r.size = value
	case vhostSetRingBase:
		r.next = uint16(value)
	case vhostSetRingAddress:
		return nil, d.place(r, payload)
	case vhostGetRingBase:
		r.stop()
		return le.AppendUint32(le.AppendUint32(nil, uint32(payload[0])), uint32(r.next)), nil
	case vhostSetCall, vhostSetKick:
		if le.Uint64(payload)&vhostNoFile != 0 || len(*files) != 1 {
			return nil, fmt.Errorf("%d descriptors, want one", len(*files))
		}
		given := (*files)[0]
		*files = nil
		if request == vhostSetKick {
			return nil, r.start(given)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.call != nil {
			r.call.Close()
		}
		r.call = given
	default:
		return nil, errors.New("unknown")
	}
	return nil, nil
}

// remember maps the guest's memory: u32 count and padding, then guest address, size, QEMU's address and offset in the file, each u64.
func (d *vhost) remember(payload []byte, files []*os.File) error {
	le := binary.LittleEndian
	if len(payload) < 8 || len(payload) != 8+32*len(files) || int(le.Uint32(payload)) != len(files) {
		return fmt.Errorf("%d descriptors of memory", len(files))
	}
	for _, m := range d.memory {
		_ = unix.Munmap(m.bytes)
	}
	d.memory = nil
	for i, f := range files {
		p := payload[8+32*i:]
		size, offset := le.Uint64(p[8:]), le.Uint64(p[24:])
		mapped, err := unix.Mmap(int(f.Fd()), 0, int(size+offset), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		d.memory = append(d.memory, region{le.Uint64(p), le.Uint64(p[16:]), mapped[offset:]})
	}
	return nil
}

// find returns size bytes of the guest's memory at an address, of the guest's or of QEMU's.
func (d *vhost) find(address uint64, size uint64, base func(region) uint64) ([]byte, error) {
	for _, m := range d.memory {
		if at := address - base(m); address >= base(m) && at < uint64(len(m.bytes)) && size <= uint64(len(m.bytes))-at {
			return m.bytes[at:][:size:size], nil
		}
	}
	return nil, fmt.Errorf("%d bytes at %#x are no memory of the guest", size, address)
}

func guestAddress(m region) uint64 { return m.guest }
func userAddress(m region) uint64  { return m.user }

// place finds a ring's parts: u32 index and flags, then QEMU's addresses of descriptors, used and available, each u64.
func (d *vhost) place(r *ring, payload []byte) error {
	le := binary.LittleEndian
	if len(payload) < 32 || r.size == 0 {
		return errors.New("no ring")
	}
	size := uint64(r.size)
	var errs [3]error
	r.mu.Lock()
	defer r.mu.Unlock()
	r.desc, errs[0] = d.find(le.Uint64(payload[8:]), 16*size, userAddress)
	r.used, errs[1] = d.find(le.Uint64(payload[16:]), 4+8*size, userAddress)
	r.avail, errs[2] = d.find(le.Uint64(payload[24:]), 4+2*size, userAddress)
	return errors.Join(errs[:]...)
}

// start has the ring's owner told of each kick.
func (r *ring) start(kick *os.File) error {
	r.stop()
	if r.desc == nil {
		kick.Close()
		return errors.New("a kick for a ring that stands nowhere")
	}
	r.mu.Lock()
	r.kick, r.done = kick, uint16(r.head(r.used)>>16)
	r.mu.Unlock()
	r.stopped.Go(func() {
		var count [8]byte
		for {
			if r.kicked != nil {
				r.kicked()
			}
			if _, err := kick.Read(count[:]); err != nil {
				return
			}
		}
	})
	return nil
}

func (r *ring) stop() {
	r.mu.Lock()
	kick := r.kick
	r.kick = nil
	r.mu.Unlock()
	if kick != nil {
		kick.Close()
		r.stopped.Wait()
	}
}

// head is the word of flags and index before a ring's entries.
func (*ring) head(part []byte) uint32 { return atomic.LoadUint32((*uint32)(unsafe.Pointer(&part[0]))) }

// chain is what the guest has put into a ring: what it wants read, and where it wants an answer.
type chain struct {
	id              uint16
	reads, writable [][]byte
}

// take returns the next chain, or false where there is none.
func (d *vhost) take(r *ring) (c chain, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kick == nil || uint16(r.head(r.avail)>>16) == r.next {
		return c, false, nil
	}
	le := binary.LittleEndian
	c.id = le.Uint16(r.avail[4+2*(uint32(r.next)%r.size):])
	r.next++
	const more, writable = 1, 2
	at := c.id
	for range r.size {
		if uint32(at) >= r.size {
			return c, false, fmt.Errorf("descriptor %d of %d", at, r.size)
		}
		entry := r.desc[16*int(at):]
		part, err := d.find(le.Uint64(entry), uint64(le.Uint32(entry[8:])), guestAddress)
		if err != nil {
			return c, false, err
		}
		flags := le.Uint16(entry[12:])
		if flags&writable != 0 {
			c.writable = append(c.writable, part)
		} else {
			c.reads = append(c.reads, part)
		}
		if flags&more == 0 {
			return c, true, nil
		}
		at = le.Uint16(entry[14:])
	}
	return c, false, errors.New("descriptors in a circle")
}

// give hands a chain back with so many bytes written, and interrupts the guest.
func (r *ring) give(c chain, written int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kick == nil {
		return
	}
	le := binary.LittleEndian
	entry := r.used[4+8*(uint32(r.done)%r.size):]
	le.PutUint32(entry, uint32(c.id))
	le.PutUint32(entry[4:], uint32(written))
	r.done++
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&r.used[0])), uint32(r.done)<<16)
	if r.call != nil {
		_, _ = r.call.Write(le.AppendUint64(nil, 1))
	}
}
