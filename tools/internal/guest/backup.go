package guest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

const (
	backupFormat   = "chrysalis guest backup v1"
	backupIndex    = "backup.json" // comes first
	maxIndexBytes  = 64 << 10
	tpmState       = "tpm/tpm2-00.permall"
	maxSmallBytes  = 1 << 20
	maxProofsBytes = 1 << 30
)

// stateFile is a file of a guest's state, and the most that it may have.
type stateFile struct {
	name string
	max  int64
}

// stateFiles are what a guest is, in order. Everything else in its folder is made at each start.
var stateFiles = []stateFile{
	{specFile, maxSmallBytes}, {ShapeFile, maxSmallBytes}, {RootsFile, maxSmallBytes}, {tpmState, maxSmallBytes}, {journal, 64 << 30},
	{ProofsFile, maxProofsBytes}, {SignersFile, maxSmallBytes},
}

// Backup says what a backup holds.
type Backup struct {
	Format string       `json:"format"` // chrysalis guest backup v1
	Made   time.Time    `json:"made"`
	Files  []BackupFile `json:"files"` // in the order in which they follow
}

// BackupFile is a file of the guest's folder.
type BackupFile struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"`
	SHA256 register.Digest `json:"sha256"`
}

// Backup writes the state of a guest that does not run: a gzipped tar with an index and what it names. Whoever has it has the guest.
func (g Guest) Backup(w io.Writer, now time.Time) (Backup, error) {
	b, err := g.backup(w, now)
	if err != nil {
		return b, fmt.Errorf("backing guest up: %w", err)
	}
	return b, nil
}

func (g Guest) backup(w io.Writer, now time.Time) (Backup, error) {
	b := Backup{Format: backupFormat, Made: now.UTC().Truncate(time.Second), Files: []BackupFile{}}
	spec, err := g.Spec()
	if err != nil {
		return b, err
	}
	if g.Running() {
		return b, fmt.Errorf("%s runs: its state is whole when it is off (chrysalis down)", g.Dir)
	}
	if spec.Config.Identity.Sealing == config.SealNothing {
		return b, fmt.Errorf("its sealing is %q: nothing of it outlives a boot but its claims (chrysalis claim export)", spec.Config.Identity.Sealing)
	}
	if Simulated(spec.Shape) {
		return b, fmt.Errorf("its %s is software, which is made anew at each start", spec.Shape.Platform)
	}
	for _, f := range stateFiles {
		file, err := indexed(g.Path(f.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return b, err
		}
		if file.Size > f.max {
			return b, fmt.Errorf("%s has %d bytes, want at most %d", f.name, file.Size, f.max)
		}
		file.Name = f.name
		b.Files = append(b.Files, file)
	}
	index, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		return b, err
	}
	packed := gzip.NewWriter(w)
	out := tar.NewWriter(packed)
	if err := add(out, backupIndex, int64(len(index)), bytes.NewReader(index)); err != nil {
		return b, err
	}
	for _, f := range b.Files {
		from, err := os.Open(g.Path(f.Name))
		if err != nil {
			return b, err
		}
		if err := errors.Join(add(out, f.Name, f.Size, from), from.Close()); err != nil {
			return b, err
		}
	}
	return b, errors.Join(out.Close(), packed.Close())
}

func indexed(path string) (f BackupFile, err error) {
	from, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer from.Close()
	h := sha256.New()
	f.Size, err = io.Copy(h, from)
	f.SHA256 = register.Digest(h.Sum(nil))
	return f, err
}

func add(out *tar.Writer, name string, size int64, from io.Reader) error {
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(out, from)
	return err
}

// Restore makes a guest's folder, which must not be there, of a backup. It is there whole or not at all.
func (g Guest) Restore(r io.Reader) (Backup, error) {
	b, err := g.restore(r)
	if err != nil {
		return b, fmt.Errorf("restoring guest: %w", err)
	}
	return b, nil
}

func (g Guest) restore(r io.Reader) (b Backup, err error) {
	if _, err := os.Lstat(g.Dir); !errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("%s is there already (%v), want another folder", g.Dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(g.Dir), 0o755); err != nil {
		return b, err
	}
	partial, err := os.MkdirTemp(filepath.Dir(g.Dir), ".restore-*")
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(partial)) }()
	packed, err := gzip.NewReader(r)
	if err != nil {
		return b, err
	}
	in := tar.NewReader(packed)
	index, err := next(in, backupIndex, maxIndexBytes)
	if err != nil {
		return b, err
	}
	data, err := io.ReadAll(io.LimitReader(in, index+1))
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(data, &b, json.RejectUnknownMembers(true)); err != nil {
		return b, fmt.Errorf("%s: %v", backupIndex, err)
	}
	if b.Format != backupFormat {
		return b, fmt.Errorf("format is %.80q, want %q", b.Format, backupFormat)
	}
	at := 0 // each file once, in the table's order
	for _, f := range b.Files {
		i := slices.IndexFunc(stateFiles[at:], func(s stateFile) bool { return s.name == f.Name })
		if i < 0 {
			return b, fmt.Errorf("%.80q is no file of a guest, or out of order", f.Name)
		}
		at += i + 1
		size, err := next(in, f.Name, stateFiles[at-1].max)
		if err != nil {
			return b, err
		}
		if err := unpack(in, filepath.Join(partial, f.Name), size, f); err != nil {
			return b, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if extra, err := in.Next(); err != io.EOF {
		return b, fmt.Errorf("after the last file: got %v (%v), want the end", extra, err)
	}
	if _, err := (Guest{Dir: partial}).Spec(); err != nil {
		return b, err
	}
	return b, os.Rename(partial, g.Dir)
}

// next finds the file of that name as the archive's next.
func next(in *tar.Reader, name string, limit int64) (int64, error) {
	h, err := in.Next()
	if err != nil {
		return 0, fmt.Errorf("looking for %s: %w", name, err)
	}
	if h.Typeflag != tar.TypeReg || h.Name != name || h.Size > limit {
		return 0, fmt.Errorf("got %.80q of kind %q with %d bytes, want %s with at most %d", h.Name, h.Typeflag, h.Size, name, limit)
	}
	return h.Size, nil
}

// unpack writes a file, with holes where whole blocks are zeros: a journal is mostly that.
func unpack(from io.Reader, path string, size int64, want BackupFile) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	h := sha256.New()
	block, zeros := make([]byte, 1<<16), make([]byte, 1<<16)
	var at int64
	for at < size {
		n, err := io.ReadFull(from, block[:min(int64(len(block)), size-at)])
		if err != nil {
			return err
		}
		h.Write(block[:n])
		if !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := to.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
	}
	if got := register.Digest(h.Sum(nil)); got != want.SHA256 || size != want.Size {
		return fmt.Errorf("%d bytes with SHA-256 %s, want %d with %s", size, got, want.Size, want.SHA256)
	}
	return errors.Join(to.Truncate(size), to.Sync())
}
