// Package acpi asks QEMU for the ACPI tables that it makes for a shape of machine, and which the firmware measures into
// PCR 1 or RTMR0. No guest runs and none is asked: QEMU starts with its CPUs stopped, and this package does to the machine,
// over QEMU's test port, what the firmware does before it reads the tables, because QEMU writes addresses that the firmware
// has chosen into them.
//
//	tables, err := acpi.Read(ctx, tree, shape)
//	pcr1, err := tables.PCR1()
//
// It knows what OVMF does on q35 with the devices that a shape may hold. Machines with bridges or passed-through GPUs are
// refused. That the bytes are those that a firmware reads is shown by booted guests in tools/e2e.
package acpi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"chrysalis/measure"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// patience bounds how long QEMU may take for all of it.
const patience = 60 * time.Second

// Read returns the tables of the shape's machine as its firmware reads them.
func Read(ctx context.Context, tree toolstree.Tree, shape measure.Shape) (measure.Tables, error) {
	tables, err := read(ctx, tree, shape)
	if err != nil {
		return measure.Tables{}, fmt.Errorf("asking QEMU for ACPI tables: %w", err)
	}
	return tables, nil
}

func read(ctx context.Context, tree toolstree.Tree, shape measure.Shape) (tables measure.Tables, err error) {
	if err := shape.Check(); err != nil {
		return tables, err
	}
	if len(shape.GPUs) > 0 {
		return tables, fmt.Errorf("shape has %d GPUs, want none: where the firmware puts their windows can't be shown without them",
			len(shape.GPUs))
	}
	if shape.CPUVendor == measure.VendorAMD && shape.PhysBits < emulatedPhysBits {
		return tables, fmt.Errorf("phys_bits is %d on %s, want at least %d", shape.PhysBits, shape.CPUVendor, emulatedPhysBits)
	}
	tree, err = qemu.OfVersion(ctx, tree, shape.QEMU)
	if err != nil {
		return tables, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "acpi-")
	if err != nil {
		return tables, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := start(ctx, tree, shape, dir)
	if err != nil {
		return tables, err
	}
	defer m.stop()
	tables, err = m.tables(shape)
	if err != nil {
		return tables, m.qemu.Explain(err)
	}
	return tables, nil
}

// tables does what the firmware does: it looks at the memory map, gives PCI devices their addresses, then reads.
func (m *machine) tables(shape measure.Shape) (tables measure.Tables, err error) {
	files, err := m.port.Files()
	if err != nil {
		return tables, err
	}
	tables.Settings = make(map[string][]byte)
	if tables.Settings[measure.BootMenu], err = m.port.BootMenu(); err != nil {
		return tables, err
	}
	for _, name := range measure.SettingNames() {
		if f, ok := files[name]; ok && f.Size > 0 {
			if tables.Settings[name], err = m.file(files, name); err != nil {
				return tables, err
			}
		}
	}
	entries, err := measure.ParseMemoryMap(tables.Settings[measure.MemoryMap])
	if err != nil {
		return tables, err
	}
	if err := m.programPCI(window(entries, shape.CPUVendor, shape.PhysBits)); err != nil {
		return tables, fmt.Errorf("programming PCI: %w", err)
	}
	if tables.Loader, err = m.file(files, measure.LoaderFile); err != nil {
		return tables, err
	}
	names, err := measure.LoaderFiles(tables.Loader)
	if err != nil {
		return tables, err
	}
	tables.Files = make(map[string][]byte)
	for _, name := range names {
		if tables.Files[name], err = m.file(files, name); err != nil {
			return tables, err
		}
	}
	return tables, nil
}

func (m *machine) file(files map[string]qemu.File, name string) ([]byte, error) {
	f, ok := files[name]
	if !ok {
		var have []string
		for n := range files {
			have = append(have, n)
		}
		return nil, fmt.Errorf("no fw_cfg file %s among %d: %.300s", name, len(files), strings.Join(have, " "))
	}
	data, err := m.port.ReadFile(f)
	if err != nil {
		return nil, fmt.Errorf("reading fw_cfg file %s: %w", name, err)
	}
	return data, nil
}
