package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"chrysalis/measure/volume"
)

// largeModel is a tree that is copied in several parts.
func largeModel() fstest.MapFS {
	return fstest.MapFS{"config.json": {Data: []byte("{}")}, "a.gguf": {Data: bytes.Repeat([]byte("model"), 10<<20)}}
}

// TestPackIsKept: packing that was interrupted keeps its part, the same command goes on there, and what came to nothing leaves nothing.
func TestPackIsKept(t *testing.T) {
	dir := t.TempDir()
	out, whole := filepath.Join(dir, "model.img"), filepath.Join(dir, "whole.img")
	var notes strings.Builder
	want, err := packInto(t.Context(), whole, largeModel(), nil, &notes, nil)
	if err != nil || notes.Len() != 0 {
		t.Fatalf("got error %v and notes %q", err, &notes)
	}
	ctx, cancel := context.WithCancel(t.Context())
	first := int64(-1)
	_, err = packInto(ctx, out, largeModel(), nil, &notes, func(stage volume.Stage, done, total int64) {
		if stage == volume.Writing && done > total/2 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(notes.String(), "the same command goes on there") {
		t.Fatalf("interrupted: got error %v and notes %q", err, &notes)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("interrupted: the volume is there")
	}
	notes.Reset()
	got, err := packInto(t.Context(), out, largeModel(), nil, &notes, func(stage volume.Stage, done, _ int64) {
		if stage == volume.Writing && first < 0 {
			first = done
		}
	})
	if err != nil || got != want || !strings.Contains(notes.String(), "is not copied again") {
		t.Errorf("again: got %v, error %v and notes %q, want %v", got, err, &notes, want)
	}
	a, errA := os.ReadFile(out)
	b, errB := os.ReadFile(whole)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Error("again: the volume is another")
	}
	notes.Reset()
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if _, err := packInto(cancelled, filepath.Join(dir, "none.img"), largeModel(), nil, &notes, nil); err == nil || notes.Len() != 0 {
		t.Errorf("ended before it began: got error %v and notes %q", err, &notes)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 2 {
		t.Errorf("left over: %q, want the two volumes", left)
	}
}

// TestPackIsAlone: two processes do not pack into one file.
func TestPackIsAlone(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model.img")
	p, err := openPart(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packInto(t.Context(), out, largeModel(), nil, os.Stderr, nil); err == nil || !strings.Contains(err.Error(),
		"by another process") {
		t.Errorf("got error %v, want a refusal", err)
	}
	var notes strings.Builder
	if err := p.end(&notes); err != nil {
		t.Fatal(err)
	}
	if _, err := packInto(t.Context(), out, largeModel(), nil, &notes, nil); err != nil || notes.Len() != 0 {
		t.Errorf("after it: got error %v and notes %q", err, &notes)
	}
}
