package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// pciGPU is a GPU on a guest's PCI bus, as far as a guest looks at it before it has a driver: numbers and class in its configuration
// space, a function-level reset, and memory that holds what a driver of disks wants to see (gpuDriver). QEMU is told of it over a socket:
// docs/interop/vfio-user.rst.
type pciGPU struct {
	socket string

	mu     sync.Mutex
	config [pciConfigBytes]byte
	gone   bool // it has fallen off the bus
	resets int  // by the guest, each for itself
	failed error
}

const (
	pciConfigBytes = 4096
	pciCommand     = 0x04
	pciExpress     = 0x40 // its capability
	pciControl     = pciExpress + 8
	pciMSI         = 0x80
	pciResetNow    = 1 << 15 // in the control register

	gpuVendor = 0x10de
	// gpuDevice is no GPU's number but one that gpuDriver takes.
	gpuDevice    = 0x0d8f
	registersBAR = 5
	barBytes     = 8 << 10

	// Commands and flags of vfio-user, and what VFIO counts of a PCI device.
	vfioVersion, vfioMapDMA, vfioUnmapDMA, vfioDevice, vfioRegion = 1, 2, 3, 4, 5
	vfioInterrupts, vfioSetInterrupts, vfioRead, vfioWrite        = 7, 8, 9, 10
	vfioReset                                                     = 13
	vfioReply, vfioNoReply, vfioError                             = 1, 1 << 4, 1 << 5
	vfioHeadBytes                                                 = 16
	vfioMaxBytes                                                  = 64 << 10
	vfioConfigRegion, vfioRegions                                 = 7, 9
	vfioMSI, vfioInterruptKinds                                   = 1, 5
)

// newPCIGPU listens for one QEMU, until the test ends. A GPU that can't be reset says so.
func newPCIGPU(t *testing.T, socket string, resets bool) *pciGPU {
	t.Helper()
	g := &pciGPU{socket: socket}
	le := binary.LittleEndian
	le.PutUint16(g.config[0:], gpuVendor)
	le.PutUint16(g.config[2:], gpuDevice)
	le.PutUint16(g.config[6:], 1<<4)       // it has capabilities
	le.PutUint32(g.config[8:], 0x030200a1) // class: a 3D controller
	le.PutUint16(g.config[0x2c:], gpuVendor)
	g.config[0x34] = pciExpress
	copy(g.config[pciExpress:], []byte{0x10, pciMSI, 2, 0}) // PCI Express, version 2, an endpoint
	if resets {
		le.PutUint32(g.config[pciExpress+4:], 1<<28)
	}
	copy(g.config[pciExpress+12:], []byte{0x11})
	copy(g.config[pciExpress+18:], []byte{0x11})
	copy(g.config[pciMSI:], []byte{5, 0, 1 << 7, 0}) // MSI, with addresses of 64 bits
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if err := g.serve(conn); err != nil {
				g.mu.Lock()
				g.failed = err
				g.mu.Unlock()
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended // QEMU is gone before: what made the guest came later
		if g.failed != nil {
			t.Errorf("the GPU on the bus: %v", g.failed)
		}
	})
	return g
}

// argument is QEMU's for the device.
func (g *pciGPU) argument() []string {
	return []string{"-device", fmt.Sprintf(`{"driver":"vfio-user-pci","socket":{"type":"unix","path":%q}}`, g.socket)}
}

// withdraw takes the GPU from the bus, where every read of it is all ones from now on.
func (g *pciGPU) withdraw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = true
}

func (g *pciGPU) wasReset() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.resets
}

// serve answers QEMU until it ends.
func (g *pciGPU) serve(conn *net.UnixConn) error {
	for {
		head, beside := make([]byte, vfioHeadBytes), make([]byte, unix.CmsgSpace(4*16))
		n, besides, _, _, err := conn.ReadMsgUnix(head, beside)
		if errors.Is(err, io.EOF) || n == 0 || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		closeFiles(beside[:besides])
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, head[n:]); err != nil {
			return err
		}
		le := binary.LittleEndian
		size := le.Uint32(head[4:])
		if size < vfioHeadBytes || size > vfioMaxBytes {
			return fmt.Errorf("message has %d bytes, want %d to %d", size, vfioHeadBytes, vfioMaxBytes)
		}
		body := make([]byte, size-vfioHeadBytes)
		if _, err := io.ReadFull(conn, body); err != nil {
			return err
		}
		command := le.Uint16(head[2:])
		answer, err := g.answer(command, body)
		if err != nil {
			return fmt.Errorf("command %d of %d bytes: %w", command, len(body), err)
		}
		if le.Uint32(head[8:])&vfioNoReply != 0 {
			continue
		}
		flags := uint32(vfioReply)
		if answer == nil {
			flags |= vfioError
			le.PutUint32(head[12:], uint32(unix.EINVAL))
		}
		le.PutUint32(head[4:], uint32(vfioHeadBytes+len(answer)))
		le.PutUint32(head[8:], flags)
		if _, err := conn.Write(append(head, answer...)); err != nil {
			return nil // QEMU is gone
		}
	}
}

// closeFiles closes the descriptors that came beside a message: interrupts that nobody makes, and memory that nobody reads.
func closeFiles(beside []byte) {
	messages, err := unix.ParseSocketControlMessage(beside)
	if err != nil {
		return
	}
	for _, m := range messages {
		files, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, f := range files {
			os.NewFile(uintptr(f), "vfio-user").Close()
		}
	}
}

var errShort = errors.New("too short")

// answer returns the body of a reply, and nil for what the device has not.
func (g *pciGPU) answer(command uint16, body []byte) ([]byte, error) {
	le := binary.LittleEndian
	least := map[uint16]int{vfioVersion: 4, vfioRegion: 32, vfioInterrupts: 16, vfioRead: 16, vfioWrite: 16}
	if len(body) < least[command] {
		return nil, errShort
	}
	switch command {
	case vfioVersion:
		return append(slices.Clone(body[:4]), `{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":32768}}`+"\x00"...), nil
	case vfioMapDMA, vfioUnmapDMA, vfioSetInterrupts:
		return body, nil
	case vfioReset:
		return body, nil
	case vfioDevice:
		// Size, flags (a PCI device that can be reset), and how many regions and interrupts there are.
		return words(16, 1<<0|1<<1, vfioRegions, vfioInterruptKinds), nil
	case vfioRegion:
		index := le.Uint32(body[8:])
		size := map[uint32]uint64{registersBAR: barBytes, vfioConfigRegion: pciConfigBytes}[index]
		flags := uint32(0)
		if size > 0 {
			flags = 1<<0 | 1<<1 // it is read and written
		}
		return le.AppendUint64(le.AppendUint64(words(32, flags, index, 0), size), 0), nil
	case vfioInterrupts:
		index, count := le.Uint32(body[8:]), uint32(0)
		if index == vfioMSI {
			count = 1
		}
		return words(16, 1<<0|1<<3, index, count), nil // it takes descriptors, and never grows
	case vfioRead, vfioWrite:
		return g.access(command == vfioWrite, body)
	}
	return nil, nil
}

func words(all ...uint32) (b []byte) {
	for _, w := range all {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// access reads or writes: offset (u64), region (u32), count (u32), and the bytes of a write.
func (g *pciGPU) access(write bool, body []byte) ([]byte, error) {
	le := binary.LittleEndian
	offset, region, count := le.Uint64(body), le.Uint32(body[8:]), le.Uint32(body[12:])
	data := body[16:]
	size := uint64(barBytes)
	if region == vfioConfigRegion {
		size = pciConfigBytes
	}
	if count > 4096 || offset > size || offset+uint64(count) > size || write && uint32(len(data)) < count {
		return nil, fmt.Errorf("%d bytes at %d of region %d, want them within %d", count, offset, region, size)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if write {
		if region == vfioConfigRegion && !g.gone {
			g.write(offset, data[:count])
		}
		return body[:16], nil
	}
	got := make([]byte, count)
	switch {
	case g.gone:
		for i := range got {
			got[i] = 0xff
		}
	case region == vfioConfigRegion:
		copy(got, g.config[offset:])
	case offset <= 7 && offset+uint64(count) > 7:
		got[7-offset] = 1 << 7 // AHCI is on, and there is nothing else
	}
	return append(slices.Clone(body[:16]), got...), nil
}

// write keeps what a guest writes into registers that are its own to write. The caller holds mu.
func (g *pciGPU) write(offset uint64, data []byte) {
	for i, b := range data {
		switch at := offset + uint64(i); {
		case at == pciCommand, at == pciCommand+1, at >= pciMSI+2 && at < pciMSI+16, at == pciControl:
			g.config[at] = b
		case at == pciControl+1:
			if b&(pciResetNow>>8) != 0 {
				g.resets++
				clear(g.config[pciCommand : pciCommand+2])
			}
			g.config[at] = b &^ (pciResetNow >> 8)
		}
	}
}
