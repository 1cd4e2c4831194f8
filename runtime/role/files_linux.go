package role

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Files are the descriptors that a role was started with.
type Files map[File]*os.File

// Inherit takes the role's descriptors, once, before the process opens anything of its own. It refuses one that is not open,
// one of another kind than the role wants, and two that are the same file: a secret read from the journal's disk, or a status
// line written into the stream of quotes, would be init's mistake and the host's gain.
func (r Role) Inherit() (Files, error) { return r.inherit(firstFile) }

func (r Role) inherit(first int) (Files, error) {
	files := Files{}
	type identity struct{ device, inode uint64 }
	seen := map[identity]File{}
	for i, name := range r.contract().files {
		fd := first + i
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			return nil, fmt.Errorf("%s: descriptor %d, %s: %w", r, fd, name, err)
		}
		if kind := stat.Mode & unix.S_IFMT; !name.takes(kind) {
			return nil, fmt.Errorf("%s: descriptor %d, %s: its kind is %#o, want %s", r, fd, name, kind, name.kinds())
		}
		id := identity{stat.Dev, stat.Ino}
		if other, twice := seen[id]; twice {
			return nil, fmt.Errorf("%s: descriptor %d, %s, is the same file as %s", r, fd, name, other)
		}
		seen[id] = name
		unix.CloseOnExec(fd)
		files[name] = os.NewFile(uintptr(fd), string(name))
	}
	return files, nil
}

// takes reports whether a descriptor for this may be a file of the kind.
func (f File) takes(kind uint32) bool {
	switch f {
	case SecretPipe, Proofs, Numbers, Status:
		return kind == unix.S_IFIFO
	case Journal:
		return kind == unix.S_IFBLK || kind == unix.S_IFREG // a file, where a test has no disk
	}
	return kind == unix.S_IFSOCK
}

func (f File) kinds() string {
	switch f {
	case SecretPipe, Proofs, Numbers, Status:
		return "a pipe"
	case Journal:
		return "a disk"
	}
	return "a socket"
}

// Close closes all of them.
func (f Files) Close() {
	for _, file := range f {
		file.Close()
	}
}
