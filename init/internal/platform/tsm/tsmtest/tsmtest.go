// Package tsmtest plays configfs-tsm in memory, with the habits of the real one that matter: errors of a write show at the read,
// and the generation counts writes. It is for tests alone.
package tsmtest

import (
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Kernel is the folder of reports. Its zero value has no provider, and makes no entry.
type Kernel struct {
	Provider string
	// Answer is what the provider and the host behind it make of report data: outblob, auxblob or an errno.
	Answer func(reportData [64]byte) (out, aux []byte, err error)
	// Between, when set, runs before each read of a file, so that somebody else's act can come in between.
	Between func(k *Kernel, file string)

	mu      sync.Mutex
	entries map[string]*entry
	made    int
}

type entry struct {
	generation int
	in         []byte
	out, aux   []byte // of the generation, once asked for
	err        error
	asked      bool
}

// Entries returns the number of entries that there are, and that there ever were.
func (k *Kernel) Entries() (now, ever int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries), k.made
}

// Mkdir makes an entry.
func (k *Kernel) Mkdir(dir string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Provider == "" {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENXIO}
	}
	if k.entries[dir] != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.EEXIST}
	}
	if k.entries == nil {
		k.entries = map[string]*entry{}
	}
	k.entries[dir] = &entry{}
	k.made++
	return nil
}

// Rmdir removes an entry.
func (k *Kernel) Rmdir(dir string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.entries[dir] == nil {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: unix.ENOENT}
	}
	delete(k.entries, dir)
	return nil
}

// WriteFile writes inblob. Fewer bytes than report data has are taken without a word.
func (k *Kernel) WriteFile(file string, data []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[filepath.Dir(file)]
	if e == nil || filepath.Base(file) != "inblob" {
		return &fs.PathError{Op: "open", Path: file, Err: unix.ENOENT}
	}
	e.generation++
	e.asked = false
	if len(data) > 64 {
		e.in = nil
		return &fs.PathError{Op: "write", Path: file, Err: unix.EFBIG}
	}
	e.in = append([]byte{}, data...)
	return nil
}

// Write is what somebody else does to every entry that there is: write to it.
func (k *Kernel) Write(data [64]byte) {
	k.mu.Lock()
	dirs := []string{}
	for dir := range k.entries {
		dirs = append(dirs, dir)
	}
	k.mu.Unlock()
	for _, dir := range dirs {
		_ = k.WriteFile(filepath.Join(dir, "inblob"), data[:])
	}
}

// ReadFile reads a file of an entry, most bytes of it.
func (k *Kernel) ReadFile(file string, most int) ([]byte, error) {
	if k.Between != nil {
		k.Between(k, filepath.Base(file))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[filepath.Dir(file)]
	if e == nil {
		return nil, &fs.PathError{Op: "open", Path: file, Err: unix.ENOENT}
	}
	var b []byte
	switch filepath.Base(file) {
	case "provider":
		b = []byte(k.Provider + "\n")
	case "generation":
		b = []byte(strconv.Itoa(e.generation) + "\n")
	case "outblob", "auxblob":
		if len(e.in) != 64 {
			return nil, &fs.PathError{Op: "read", Path: file, Err: unix.EINVAL}
		}
		if !e.asked {
			e.out, e.aux, e.err = k.Answer([64]byte(e.in))
			e.asked = e.err == nil
		}
		if e.err != nil {
			return nil, &fs.PathError{Op: "read", Path: file, Err: e.err}
		}
		if b = e.out; filepath.Base(file) == "auxblob" {
			b = e.aux
		}
		if b == nil {
			return nil, &fs.PathError{Op: "open", Path: file, Err: unix.ENOENT}
		}
	default:
		return nil, &fs.PathError{Op: "open", Path: file, Err: unix.ENOENT}
	}
	return append([]byte{}, b[:min(len(b), most)]...), nil
}
