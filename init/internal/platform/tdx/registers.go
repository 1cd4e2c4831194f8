package tdx

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"chrysalis/measure/register"
)

// registers are those of a TD, by their names in a release's values, and configID.
type registers interface {
	read(name string) ([registerBytes]byte, error)
	extend(name string, digest [registerBytes]byte) error
}

// sysfs is the kernel's folder of measurements.
type sysfs struct{ dir string }

// file returns the file of a register: those that something can extend, or did, have the algorithm in their names.
func (s sysfs) file(name string) string {
	file := strings.ReplaceAll(name, "-", "")
	if name != configID {
		file += ":sha384"
	}
	return filepath.Join(s.dir, file)
}

func (s sysfs) read(name string) (value [registerBytes]byte, err error) {
	f, err := os.Open(s.file(name))
	if err != nil {
		return value, fmt.Errorf("reading register: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, registerBytes+1))
	if err != nil {
		return value, fmt.Errorf("reading register %s: %v", name, err)
	}
	if len(b) != registerBytes {
		return value, fmt.Errorf("reading register %s: %d bytes, want %d", name, len(b), registerBytes)
	}
	return [registerBytes]byte(b), nil
}

// extend writes the digest in one call. The kernel extends with the first 48 bytes of a longer write, too, and then calls it an
// error; of a write that it took short nobody knows whether it has extended.
func (s sysfs) extend(name string, digest [registerBytes]byte) error {
	f, err := os.OpenFile(s.file(name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	n, err := f.Write(digest[:])
	if err == nil && n != len(digest) {
		err = io.ErrShortWrite
	}
	return errors.Join(err, f.Close())
}

// registersOfBody are the registers that say which TD a quote is of and what has become of it, by their places in a quote's body
// and in a TDINFO_STRUCT.
var registersOfBody = []struct {
	name       string
	body, info int
}{
	{register.MRTD, 136, 16},
	{configID, 184, 64},
	{register.RTMR(0), 328, 208}, {register.RTMR(1), 376, 256}, {register.RTMR(2), 424, 304}, {register.RTMR(3), 472, 352},
}
