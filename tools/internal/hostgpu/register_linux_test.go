package hostgpu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// TestReadRegister reads a word beyond the first page of a file.
func TestReadRegister(t *testing.T) {
	dir := t.TempDir()
	data := make([]byte, 3*os.Getpagesize())
	binary.LittleEndian.PutUint32(data[os.Getpagesize()+0x2cc:], 0x12345678)
	if err := os.WriteFile(filepath.Join(dir, "resource0"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRegister(os.DirFS(dir), "resource0", int64(os.Getpagesize())+0x2cc); err != nil || got != 0x12345678 {
		t.Errorf("got %#x and error %v, want 0x12345678", got, err)
	}
	if _, err := ReadRegister(os.DirFS(dir), "none", 0); err == nil {
		t.Error("no file: got no error")
	}
}
