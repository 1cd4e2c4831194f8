// Package disk finds the guest's disks by serial number and opens dm-verity devices over them.
//
// A serial number is the host's word: it only says which bytes to look at. What they are worth is decided by a root hash
// that comes from the initrd or the measured config. Nothing on a disk says how to read it: no superblock, no partition
// table.
package disk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The serial numbers of the disks.
const (
	Root    = "chrysalis-root"
	Config  = "chrysalis-config"
	Journal = "chrysalis-journal"
	Engine  = "chrysalis-engine"
	Model   = "chrysalis-model"
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
	for {
		found, err := p.find(serial)
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
		dir := filepath.Dir(file)
		size, err := os.ReadFile(filepath.Join(dir, "size"))
		if err != nil {
			return nil, err
		}
		sectors, err := strconv.ParseInt(strings.TrimSpace(string(size)), 10, 64)
		if err != nil || sectors < 0 || sectors > 1<<53 {
			return nil, fmt.Errorf("size of %s is %q", filepath.Base(dir), size)
		}
		found = append(found, Disk{Path: filepath.Join(p.Dev, filepath.Base(dir)), Bytes: sectors * 512})
	}
	return found, nil
}
