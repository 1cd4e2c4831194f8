package measure

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/tdvf"
)

// Register384 is MRTD or an RTMR. In JSON 96 lower-case hexadecimal digits.
type Register384 [48]byte

// MarshalText returns the digits.
func (r Register384) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(r[:])), nil }

// UnmarshalText accepts exactly the digits.
func (r *Register384) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(r) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("register is %.100q, want %d lower-case hexadecimal digits", text, hex.EncodedLen(len(r)))
	}
	*r = Register384(b)
	return nil
}

// TDXBoot is a direct boot of a TDX guest.
type TDXBoot struct {
	Firmware []byte // whole image, code and variables
	Order    tdvf.Order
	Kernel   []byte    // nil: MRTD alone
	Initrd   io.Reader // with Kernel
	Cmdline  string    // exactly the bytes of -append, with Kernel
}

// TDXRegisters are the registers that follow from files. RTMR0 is not among them: it holds the memory map, the boot
// variables and the ACPI tables that QEMU makes for one shape of machine. RTMR3 is the guest's runtime log.
type TDXRegisters struct {
	MRTD  Register384  `json:"mrtd"`
	RTMR1 *Register384 `json:"rtmr1,omitempty"`
	RTMR2 *Register384 `json:"rtmr2,omitempty"`
}

// Registers computes MRTD and, with a kernel, RTMR1 and RTMR2. RTMR1 takes the kernel's image hash as the firmware loads
// it: QEMU from 10.0 on hands it over as the file is; older versions patch its setup header first.
func (b TDXBoot) Registers() (r TDXRegisters, err error) {
	mrtd, err := tdvf.MRTD(b.Firmware, b.Order)
	if err != nil {
		return r, err
	}
	r.MRTD = mrtd
	if b.Kernel == nil {
		return r, nil
	}
	kernel := sha512.New384()
	if err := authenticode(b.Kernel, kernel); err != nil {
		return r, fmt.Errorf("measuring kernel: %v", err)
	}
	cmdline, err := loadOptions(b.Cmdline)
	if err != nil {
		return r, fmt.Errorf("measuring command line: %v", err)
	}
	if b.Initrd == nil {
		return r, errors.New("measuring initrd: none given")
	}
	initrd := sha512.New384()
	if _, err := io.Copy(initrd, b.Initrd); err != nil {
		return r, fmt.Errorf("measuring initrd: %w", err)
	}
	text := func(s string) [48]byte { return sha512.Sum384([]byte(s)) }
	rtmr1 := extend384([48]byte(kernel.Sum(nil)), text("Calling EFI Application from Boot Option"),
		sha512.Sum384(eventlog.SeparatorData()), text("Exit Boot Services Invocation"), text("Exit Boot Services Returned with Success"))
	rtmr2 := extend384(sha512.Sum384(cmdline), [48]byte(initrd.Sum(nil)))
	r.RTMR1, r.RTMR2 = &rtmr1, &rtmr2
	return r, nil
}

func extend384(digests ...[48]byte) (value Register384) {
	for _, d := range digests {
		value = sha512.Sum384(append(value[:], d[:]...))
	}
	return value
}
