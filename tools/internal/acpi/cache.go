package acpi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"chrysalis/measure"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// maxCacheBytes bounds a cached answer: JSON with the files in base 64.
const maxCacheBytes = 64 << 20

// Cached is Read, with the answers kept in dir by QEMU and shape. A file there that is not as it was written is made again.
func Cached(ctx context.Context, tree toolstree.Tree, shape measure.Shape, dir string) (measure.Tables, error) {
	canonical, err := measure.EncodeShape(shape)
	if err != nil {
		return measure.Tables{}, fmt.Errorf("asking QEMU for ACPI tables: %w", err)
	}
	if tree, err = qemu.OfVersion(ctx, tree, shape.QEMU); err != nil {
		return measure.Tables{}, fmt.Errorf("asking QEMU for ACPI tables: %w", err)
	}
	build, err := qemu.Stamp(tree)
	if err != nil {
		return measure.Tables{}, fmt.Errorf("asking QEMU for ACPI tables: %w", err)
	}
	name := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "2\n%s\n%s", build, canonical))))
	if tables, err := load(name); err == nil {
		return tables, nil
	}
	tables, err := Read(ctx, tree, shape)
	if err != nil {
		return tables, err
	}
	return tables, store(name, tables)
}

func load(name string) (tables measure.Tables, err error) {
	f, err := os.Open(name)
	if err != nil {
		return tables, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCacheBytes+1))
	if err != nil {
		return tables, err
	}
	if len(data) < sha256.Size || len(data) > maxCacheBytes {
		return tables, fmt.Errorf("cached tables have %d bytes, want %d to %d", len(data), sha256.Size, maxCacheBytes)
	}
	if sum := sha256.Sum256(data[sha256.Size:]); !bytes.Equal(sum[:], data[:sha256.Size]) {
		return tables, errors.New("cached tables are not as they were written")
	}
	err = json.Unmarshal(data[sha256.Size:], &tables, json.RejectUnknownMembers(true))
	return tables, err
}

// store writes the file beside its name first, so that it is there whole or not at all.
func store(name string, tables measure.Tables) error {
	data, err := json.Marshal(tables, json.Deterministic(true))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tables-*")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	_, err = f.Write(append(sum[:], data...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		if gone := os.Remove(f.Name()); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}
