package acpi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"chrysalis/measure"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// TestReadAgainstFirmware lets the firmware of TDX guests run under emulation until it has placed the PCI devices, and
// compares what it then reads with what Read says. There is no TDX here, so it measures nothing; it is the same code that
// places devices and asks QEMU.
func TestReadAgainstFirmware(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a firmware")
	}
	const firmware = "../../../build/release/OVMF.inteltdx.fd"
	tree, err := toolstree.Open("../../../build/tools-tree")
	if err == nil {
		tree, err = tree.WithNewerQEMU()
	}
	if _, missing := os.Stat(firmware); err != nil || missing != nil {
		t.Skipf("needs a build of the image: %v, %v", err, missing)
	}
	version, err := qemu.Version(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	shape := demoShape(version, 3072, 2)
	shape.Devices = shape.Devices[1:] // no TPM
	shape.Machine = "q35,smm=off,pic=off,hpet=off"
	want, err := Read(t.Context(), tree, shape)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "acpi-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	file, err := filepath.Abs(firmware)
	if err != nil {
		t.Fatal(err)
	}
	monitor := filepath.Join(dir, "qmp.sock")
	m, err := startWith(ctx, tree, shape, dir, append(qemu.Monitored(monitor), "-bios", file)...)
	if err != nil {
		t.Fatal(err)
	}
	defer m.stop()
	const last = 7 << 3 // the last device that Read places
	for {
		if err := qemu.Pause(monitor); err != nil {
			t.Fatal(m.qemu.Explain(err))
		}
		// The firmware may be between choosing a register and reading it.
		address, err := m.port.In32(pciAddress)
		if err != nil {
			t.Fatal(err)
		}
		id, err := m.config(last, 0)
		if err != nil || id&0xffff != 0x1af4 {
			t.Fatalf("device 7.0 is %#x, error %v, want one of virtio", id, err)
		}
		command, err := m.config(last, 4)
		if err != nil {
			t.Fatal(err)
		}
		if high, err := m.config(last, 0x24); err != nil || high != 0 && command&2 != 0 && ^high != 0 {
			break
		}
		if err := errors.Join(m.port.Out32(pciAddress, address), qemu.Resume(monitor)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			t.Fatal("the firmware places no devices")
		case <-time.After(time.Second):
		}
	}
	files, err := m.port.Files()
	if err != nil {
		t.Fatal(err)
	}
	got := measure.Tables{Files: map[string][]byte{}, Settings: want.Settings}
	if got.Loader, err = m.file(files, measure.LoaderFile); err != nil {
		t.Fatal(err)
	}
	for name := range want.Files {
		if got.Files[name], err = m.file(files, name); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("tables of %d files differ from those that the firmware reads", len(want.Files))
	}
	if order := string(want.Settings["bootorder"]); !strings.HasPrefix(order, "/rom@genroms/linuxboot_dma.bin\n") {
		t.Errorf("boot order is %q, want the kernel first", order)
	}
}
