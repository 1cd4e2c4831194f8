package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Fields of the kernel's setup header: Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const (
	headerMagic     = 0x202
	headerVersion   = 0x206
	headerLoader    = 0x210
	headerLoadFlags = 0x211
	headerInitrd    = 0x218 // address, then size
	headerHeapEnd   = 0x224
	headerCmdline   = 0x228
	headerInitrdMax = 0x22c
	headerXLoad     = 0x236
	headerEnd       = 0x270

	loadedHigh      = 1 << 0
	canUseHeap      = 1 << 7
	initrdAbove4GiB = 1 << 1
)

// PatchKernel returns the kernel as QEMU before 10.0 hands it over on a machine of so much memory: with its own number as the
// loader, and with the places of command line and initrd in the setup header. Source: QEMU 9.2, hw/i386/x86-common.c, x86_load_linux.
func PatchKernel(kernel []byte, initrdBytes int64, memoryMiB int) ([]byte, error) {
	const (
		oldest      = 0x20c // whose header says whether an initrd may lie above 4 GiB
		qemu        = 0xb0
		realMode    = 0x10000
		cmdline     = 0x20000
		acpiBytes   = 0x28000 // what q35 keeps free below the end of low memory
		initrdAlign = 4096
	)
	if len(kernel) < headerEnd || string(kernel[headerMagic:headerMagic+4]) != "HdrS" {
		return nil, fmt.Errorf("%d bytes without a setup header", len(kernel))
	}
	le := binary.LittleEndian
	if version := le.Uint16(kernel[headerVersion:]); version < oldest {
		return nil, fmt.Errorf("setup header is of version %#x, want at least %#x", version, oldest)
	}
	if kernel[headerLoadFlags]&loadedHigh == 0 {
		return nil, fmt.Errorf("load flags are %#x, want a kernel that is loaded high", kernel[headerLoadFlags])
	}
	low := int64(memoryMiB) << 20
	// q35 gives 2 GiB to PCI once memory doesn't end below 2.75 GiB.
	if low >= 0xb0000000 {
		low = 0x80000000
	}
	most := int64(le.Uint32(kernel[headerInitrdMax:]))
	if le.Uint16(kernel[headerXLoad:])&initrdAbove4GiB != 0 {
		most = 1<<32 - 1
	}
	if most >= low-acpiBytes {
		most = low - acpiBytes - 1
	}
	if initrdBytes <= 0 || initrdBytes >= most {
		return nil, fmt.Errorf("initrd has %d bytes, want 1 to %d", initrdBytes, most-1)
	}
	k := bytes.Clone(kernel)
	k[headerLoader] = qemu
	k[headerLoadFlags] |= canUseHeap
	le.PutUint16(k[headerHeapEnd:], cmdline-realMode-0x200)
	le.PutUint32(k[headerCmdline:], cmdline)
	le.PutUint32(k[headerInitrd:], uint32((most-initrdBytes)&^(initrdAlign-1)))
	le.PutUint32(k[headerInitrd+4:], uint32(initrdBytes))
	return k, nil
}
