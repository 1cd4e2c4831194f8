package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// maxCmdline is the kernel's COMMAND_LINE_SIZE on x86 without the NUL.
const maxCmdline = 2047

// initrdName is what the firmware adds to the command line of a kernel that QEMU hands over with an initrd.
const initrdName = "initrd=initrd"

// LoadOptions returns the command line as the kernel's EFI stub sees and measures it: in UTF-16, after the firmware has added the
// initrd's name behind it.
func LoadOptions(cmdline string) ([]byte, error) {
	if err := checkCmdline(cmdline); err != nil {
		return nil, err
	}
	return utf16z(cmdline + " " + initrdName), nil
}

// LoadOptionsFirst is LoadOptions under the firmware of TDX guests that releases have: it puts the name in front.
func LoadOptionsFirst(cmdline string) ([]byte, error) {
	if err := checkCmdline(cmdline); err != nil {
		return nil, err
	}
	return utf16z(initrdName + " " + cmdline), nil
}

// checkCmdline refuses a command line that would not reach the kernel as it is.
func checkCmdline(cmdline string) error {
	if len(cmdline) > maxCmdline {
		return fmt.Errorf("%d bytes, want at most %d", len(cmdline), maxCmdline)
	}
	for i := range len(cmdline) {
		if c := cmdline[i]; c < ' ' || c > '~' {
			return fmt.Errorf("byte %d is %#x, want printable ASCII", i, c)
		}
	}
	if strings.TrimSpace(cmdline) != cmdline {
		return errors.New("white space at an end: tools on the way to the kernel would drop it")
	}
	return nil
}

// utf16z returns s in UTF-16LE with a final NUL.
func utf16z(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
