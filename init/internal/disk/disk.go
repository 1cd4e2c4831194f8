// Package disk finds the guest's disks by serial number and opens dm-verity devices over them.
//
// A serial number is the host's word: it only says which bytes to look at. What they are worth is decided by a root hash
// that comes from the initrd or the measured config. Nothing on a disk says how to read it: no superblock. The kernel has
// read a partition table where there is one; the root may lie in a partition, whose UUID is believed as much as a serial number.
package disk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"chrysalis/init/disks"
	"chrysalis/measure/bootdisk"
)

// Paths is where block devices are looked for; tests point it at a folder of their own.
type Paths struct{ Sys, Dev string }

// Disk is a block device.
type Disk struct {
	Path  string // device node
	Bytes int64
}

// Find waits for the disk with the serial number until ctx ends. Two disks with one serial number are refused.
func (p Paths) Find(ctx context.Context, serial string) (Disk, error) {
	return wait(ctx, serial, func() ([]Disk, error) { return p.find(serial) })
}

// FindRoot waits for the disk with the serial number disks.Root, or for the partition that the root hash gives its name to, until
// ctx ends. More than one such place is refused.
func (p Paths) FindRoot(ctx context.Context, root [32]byte) (Disk, error) {
	return wait(ctx, disks.Root, func() ([]Disk, error) {
		found, err := p.find(disks.Root)
		if err != nil {
			return nil, err
		}
		partitions, err := p.partitions(bootdisk.RootPartition(root))
		return append(found, partitions...), err
	})
}

func wait(ctx context.Context, serial string, find func() ([]Disk, error)) (Disk, error) {
	for {
		found, err := find()
		if err != nil || len(found) > 1 {
			return Disk{}, fmt.Errorf("looking for disk %s: found %d, want 1: %w", serial, len(found), orMany(err))
		}
		if len(found) == 1 {
			return found[0], nil
		}
		select {
		case <-ctx.Done():
			return Disk{}, fmt.Errorf("looking for disk %s: none appeared: %w", serial, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func orMany(err error) error {
	if err == nil {
		return fmt.Errorf("the serial number is ambiguous")
	}
	return err
}

func (p Paths) find(serial string) ([]Disk, error) {
	files, err := filepath.Glob(filepath.Join(p.Sys, "class/block/*/serial"))
	if err != nil {
		return nil, err
	}
	var found []Disk
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(text)) != serial {
			continue
		}
		d, err := p.device(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, nil
}

// partitions returns the partitions with the UUID.
func (p Paths) partitions(uuid string) ([]Disk, error) {
	files, err := filepath.Glob(filepath.Join(p.Sys, "class/block/*/uevent"))
	if err != nil {
		return nil, err
	}
	var found []Disk
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(text), "\n"), "PARTUUID="+uuid) {
			continue
		}
		d, err := p.device(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, nil
}

// device returns the block device of a folder of sysfs.
func (p Paths) device(dir string) (Disk, error) {
	size, err := os.ReadFile(filepath.Join(dir, "size"))
	if err != nil {
		return Disk{}, err
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(size)), 10, 64)
	if err != nil || sectors < 0 || sectors > 1<<53 {
		return Disk{}, fmt.Errorf("size of %s is %q", filepath.Base(dir), size)
	}
	return Disk{Path: filepath.Join(p.Dev, filepath.Base(dir)), Bytes: sectors * 512}, nil
}
