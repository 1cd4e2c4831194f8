package sevsnp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/platform/tsm"
)

// deriver has the firmware derive a key for a patch level.
type deriver func(device string, tcb uint64) (key [32]byte, err error)

// Fields of MSG_KEY_REQ: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860), revision 1.58, section 7.2; the form in
// which the kernel takes it is struct snp_derived_key_req of linux/sev-guest.h.
const (
	keyRequestBytes  = 32
	keyResponseBytes = 64
	keyOffset        = 32 // in the response, after its status and what is reserved

	rootVCEK = 0 // derived from the chip's own key, which no cloud or other chip has

	// What the key is mixed from: GUEST_FIELD_SELECT.
	mixPolicy      = 1 << 0
	mixMeasurement = 1 << 3
	mixTCB         = 1 << 5

	getDerivedKey = 0xc0205301 // SNP_GET_DERIVED_KEY
	vmmErrorShift = 32
)

// CommittedTCB is the patch level that the host's firmware can't go below any more, as it was when the guest started.
func (g *Guest) CommittedTCB() uint64 { return g.launch.committedTCB }

// Derive returns the key that this launch, under this guest policy, on this chip gets at the patch level. One above the
// committed level is refused by the firmware.
func (g *Guest) Derive(tcb uint64) ([32]byte, error) { return g.derive(g.device, tcb) }

func keyRequest(tcb uint64) (b [keyRequestBytes]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], rootVCEK)
	le.PutUint64(b[8:], mixPolicy|mixMeasurement|mixTCB)
	le.PutUint32(b[16:], 0) // VMPL 0
	le.PutUint64(b[24:], tcb)
	return b
}

func readKey(response [keyResponseBytes]byte) (key [32]byte, err error) {
	if status := binary.LittleEndian.Uint32(response[:]); status != 0 {
		return key, fmt.Errorf("deriving key: firmware says %#x", status)
	}
	key = [32]byte(response[keyOffset:])
	if key == ([32]byte{}) {
		return key, errors.New("deriving key: every byte is zero")
	}
	return key, nil
}

// deriveKey asks the kernel's device.
func deriveKey(device string, tcb uint64) (key [32]byte, err error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return key, fmt.Errorf("deriving key: %v", err)
	}
	defer f.Close()
	request := keyRequest(tcb)
	var response [keyResponseBytes]byte
	defer clear(response[:])
	call := struct {
		version  uint8
		request  uint64
		response uint64
		firmware uint64 // firmware's error, and the host's above it
	}{version: 1, request: uint64(uintptr(unsafe.Pointer(&request[0]))), response: uint64(uintptr(unsafe.Pointer(&response[0])))}
	var pinner runtime.Pinner
	pinner.Pin(&request)
	pinner.Pin(&response)
	defer pinner.Unpin()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getDerivedKey, uintptr(unsafe.Pointer(&call)))
	if errno == unix.ENOTTY {
		return key, fmt.Errorf("deriving key: %w: %w", tsm.ErrEnded, errno)
	}
	if errno != 0 {
		return key, fmt.Errorf("deriving key: %w: firmware says %#x, the host %#x", errno, uint32(call.firmware), call.firmware>>vmmErrorShift)
	}
	return readKey(response)
}
