package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"chrysalis/measure/config"
	"chrysalis/measure/volume"
)

// part is a volume that is being packed: beside the output under another name, so that a volume is there whole or not at all. Of a large
// one, a record lies beside it, and the next run goes on where this one ended.
type part struct {
	out          string
	file, record *os.File
}

func openPart(out string) (p *part, err error) {
	p = &part{out: out}
	if p.record, err = os.OpenFile(p.recordName(), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	if err := takeFile(p.record); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is being packed by another process: %w", out, err), p.record.Close())
	}
	if p.file, err = os.OpenFile(p.name(), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, errors.Join(err, p.record.Close(), os.Remove(p.recordName()))
	}
	return p, nil
}

func (p *part) name() string       { return p.out + ".part" }
func (p *part) recordName() string { return p.out + ".part.record" }

// end closes the part. What came to nothing leaves nothing behind.
func (p *part) end(w io.Writer) error {
	keep := volume.Recorded(p.record)
	err := errors.Join(p.file.Close(), p.record.Close())
	if keep {
		fmt.Fprintf(w, "chrysalis: hint: %s keeps what is packed: the same command goes on there\n", p.name())
		return err
	}
	return errors.Join(err, os.Remove(p.name()), os.Remove(p.recordName()))
}

// finish puts the volume in its place.
func (p *part) finish() error {
	err := errors.Join(p.file.Chmod(0o644), p.file.Sync(), p.file.Close())
	if err == nil {
		err = os.Rename(p.name(), p.out)
	}
	return errors.Join(err, p.record.Close(), os.Remove(p.recordName()))
}

// packInto packs a tree as the volume out. notes gets a line where it goes on, and one where it could.
func packInto(ctx context.Context, out string, tree fs.FS, dirs []string, notes io.Writer, progress func(volume.Stage, int64,
	int64)) (ref config.Volume, err error) {
	p, err := openPart(out)
	if err != nil {
		return ref, err
	}
	if volume.Recorded(p.record) {
		fmt.Fprintf(notes, "chrysalis: note: %s is there: what it holds of these files is not copied again\n", p.name())
	}
	if ref, err = volume.Pack(ctx, tree, p.file, volume.Options{Dirs: dirs, Progress: progress, Record: p.record}); err != nil {
		return config.Volume{}, errors.Join(err, p.end(notes))
	}
	return ref, p.finish()
}
