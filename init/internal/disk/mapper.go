package disk

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"chrysalis/measure/verity"
)

// Requests of the device mapper: _IOWR(0xfd, n, struct dm_ioctl), linux/dm-ioctl.h.
const (
	dmHeaderBytes = 312 // sizeof(struct dm_ioctl)
	dmNameBytes   = 128
	dmSpecBytes   = 40 // sizeof(struct dm_target_spec)

	dmDevCreate   = 0xc138fd03
	dmDevSuspend  = 0xc138fd06
	dmTableLoad   = 0xc138fd09
	dmTableStatus = 0xc138fd0c

	dmReadOnlyFlag = 1 << 0
)

// controlPath is the device mapper's control node in devtmpfs.
const controlPath = "/dev/mapper/control"

// OpenVerity maps the volume at d under name, read-only, and returns the path of the mapped device. Every later read is
// checked against root. options are those of the dm-verity target, such as panic_on_corruption. No read happens here:
// opening costs the same for a small and a large volume.
func OpenVerity(d Disk, name string, root [32]byte, blocks uint64, options ...string) (string, error) {
	if max := uint64(d.Bytes) / verity.BlockSize; blocks == 0 || blocks > max {
		return "", fmt.Errorf("opening volume %s: %d data blocks, but %s has %d blocks", name, blocks, d.Path, max)
	}
	path, err := activate(name, target(blocks, "verity", verity.TableParams(d.Path, blocks, root, options...)), dmReadOnlyFlag)
	if err != nil {
		return "", fmt.Errorf("opening volume %s: %v", name, err)
	}
	return path, nil
}

// OpenAfter maps what of d lies behind its first skipped bytes under name, to be read and written.
func OpenAfter(d Disk, name string, skipped int64) (Disk, error) {
	rest := (d.Bytes - skipped) / verity.BlockSize
	if skipped%512 != 0 || rest <= 0 {
		return Disk{}, fmt.Errorf("opening %s: %d bytes of %s are to be skipped, which has %d", name, skipped, d.Path, d.Bytes)
	}
	path, err := activate(name, target(uint64(rest), "linear", fmt.Sprintf("%s %d", d.Path, skipped/512)), 0)
	if err != nil {
		return Disk{}, fmt.Errorf("opening %s: %v", name, err)
	}
	return Disk{Path: path, Bytes: rest * verity.BlockSize}, nil
}

// activate makes a device of one target and returns its path.
func activate(name string, table []byte, flags uint32) (string, error) {
	control, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("%s: %v", controlPath, err)
	}
	defer unix.Close(control)
	reply, err := dmCall(control, dmDevCreate, name, 0, nil, 0)
	if err != nil {
		return "", fmt.Errorf("creating device: %v", err)
	}
	if _, err := dmCall(control, dmTableLoad, name, flags, table, 1); err != nil {
		return "", fmt.Errorf("loading table %q: %v", table[dmSpecBytes:], err)
	}
	// DM_DEV_SUSPEND without the suspend flag resumes.
	if _, err := dmCall(control, dmDevSuspend, name, flags, nil, 0); err != nil {
		return "", fmt.Errorf("activating: %v", err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(binary.LittleEndian.Uint64(reply[40:]))), nil
}

// Intact reports whether the mapped volume has seen no block that fails its check.
func Intact(name string) (bool, error) {
	control, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("asking for the state of volume %s: %v", name, err)
	}
	defer unix.Close(control)
	reply, err := dmCall(control, dmTableStatus, name, 0, make([]byte, 512), 0)
	if err != nil {
		return false, fmt.Errorf("asking for the state of volume %s: %v", name, err)
	}
	intact, err := verityIntact(reply[dmHeaderBytes+dmSpecBytes:])
	if err != nil {
		return false, fmt.Errorf("asking for the state of volume %s: %v", name, err)
	}
	return intact, nil
}

// verityIntact reads the status of a dm-verity target: V or C, and from kernel 7 on a second word about error correction.
func verityIntact(status []byte) (bool, error) {
	text, _, _ := strings.Cut(string(status), "\x00")
	word, _, _ := strings.Cut(text, " ")
	switch word {
	case "V":
		return true, nil
	case "C":
		return false, nil
	}
	return false, fmt.Errorf("status is %q, want V or C", text)
}

// target encodes one struct dm_target_spec that covers blocks data blocks, with its parameters.
func target(blocks uint64, kind, params string) []byte {
	spec := make([]byte, dmSpecBytes)
	binary.LittleEndian.PutUint64(spec[8:], blocks*verity.BlockSize/512)
	copy(spec[24:40], kind)
	spec = append(append(spec, params...), 0)
	for len(spec)%8 != 0 {
		spec = append(spec, 0)
	}
	return spec
}

func dmCall(control int, request uintptr, name string, flags uint32, payload []byte, targets uint32) ([]byte, error) {
	if len(name) >= dmNameBytes {
		return nil, fmt.Errorf("name has %d bytes, want less than %d", len(name), dmNameBytes)
	}
	b := make([]byte, dmHeaderBytes+len(payload))
	le := binary.LittleEndian
	le.PutUint32(b[0:], 4) // interface version 4.0.0
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint32(b[16:], dmHeaderBytes) // data_start
	le.PutUint32(b[20:], targets)
	le.PutUint32(b[28:], flags)
	copy(b[48:], name)
	copy(b[dmHeaderBytes:], payload)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(control), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return nil, errno
	}
	return b, nil
}
