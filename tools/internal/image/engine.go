package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"chrysalis/measure/config"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/toolstree"
)

// Paths inside the engine volume. They are Debian's, because the server's run path and its search for backends are.
const (
	engineProgram  = "usr/bin/llama-server"
	speechProgram  = "usr/bin/whisper-server"
	engineLoader   = "lib64/ld-linux-x86-64.so.2"
	engineLibs     = "usr/lib/x86_64-linux-gnu"
	engineOwnLibs  = "usr/lib/x86_64-linux-gnu/llama"
	engineBackends = "usr/lib/x86_64-linux-gnu/ggml/backends0"
)

// EngineDirs are the mount points of the engine's root, which is read-only when the engine starts.
var EngineDirs = []string{"model", "run/engine", "tmp", "proc", "sys", "dev"}

// The last steps of a build.
const (
	packEngine = "pack engine volume"
	packModel  = "pack model volume"
)

// buildEngine packs the engine volume: llama-server of the engine lock with its own C library and nothing it does not load.
func (b *Builder) buildEngine(ctx context.Context, tree toolstree.Tree, l lock.Lock, path string) (config.Volume, error) {
	step := b.Progress.Step(packEngine, 0)
	ref, err := b.packProgram(ctx, tree, l, engineProgram, path)
	if err != nil {
		return config.Volume{}, err
	}
	step.Done(size(path))
	return ref, nil
}

// SpeechDir is the folder, beside a tools tree, of the engine volume that hears, engine.img, of which tests alone make a guest. It is whisper.cpp's server.
const SpeechDir = "speech"

// buildSpeech packs that volume.
func (b *Builder) buildSpeech(ctx context.Context, tree toolstree.Tree) error {
	l, err := b.packages(ctx, "speech")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.Work, SpeechDir)
	return b.cachedStep("pack engine that hears", dir, fmt.Sprintf("1 %x", l.Digest()), func() (string, error) {
		path := filepath.Join(dir, "engine.img")
		if _, err := b.packProgram(ctx, tree, l, speechProgram, path); err != nil {
			return "", err
		}
		return size(path), nil
	})
}

// packProgram packs a program of a lock with its own C library and nothing it does not load.
func (b *Builder) packProgram(ctx context.Context, tree toolstree.Tree, l lock.Lock, program, path string) (config.Volume, error) {
	unpacked := filepath.Join(b.Work, "engine")
	staged := filepath.Join(b.Work, "engine-root")
	if err := errors.Join(os.RemoveAll(unpacked), os.RemoveAll(staged), os.MkdirAll(unpacked, 0o755)); err != nil {
		return config.Volume{}, err
	}
	if err := b.unpackAll(ctx, tree, l, unpacked); err != nil {
		return config.Volume{}, err
	}
	if err := stageEngine(unpacked, program, staged); err != nil {
		return config.Volume{}, fmt.Errorf("staging engine: %w", err)
	}
	ref, err := packVolume(ctx, os.DirFS(staged), path, EngineDirs)
	if err != nil {
		return config.Volume{}, err
	}
	return ref, errors.Join(os.RemoveAll(unpacked), os.RemoveAll(staged))
}

// stageEngine copies from the unpacked packages a server, its CPU backends, which it opens by name, the loader, and every
// library that these need, each under the name by which it is needed.
func stageEngine(unpacked, program, staged string) error {
	backends, err := filepath.Glob(filepath.Join(unpacked, engineBackends, "libggml-cpu-*.so"))
	if err != nil {
		return err
	}
	if len(backends) == 0 {
		return fmt.Errorf("no CPU backends in %s", engineBackends)
	}
	queue := []string{program}
	for _, file := range backends {
		queue = append(queue, engineBackends+"/"+filepath.Base(file))
	}
	for i := 0; i < len(queue); i++ {
		needed, err := neededLibraries(filepath.Join(unpacked, queue[i]))
		if err != nil {
			return fmt.Errorf("%s: %w", queue[i], err)
		}
		for _, name := range needed {
			file, err := findLibrary(unpacked, name)
			if err != nil {
				return fmt.Errorf("%s needs %s: %w", queue[i], name, err)
			}
			if !slices.Contains(queue, file) {
				queue = append(queue, file)
			}
		}
	}
	for _, file := range queue {
		if file == engineLibs+"/"+filepath.Base(engineLoader) {
			continue // the kernel starts the loader by its own path; its name is known to it once loaded
		}
		if err := copyResolved(unpacked, file, filepath.Join(staged, file)); err != nil {
			return err
		}
	}
	return copyResolved(unpacked, engineLibs+"/"+filepath.Base(engineLoader), filepath.Join(staged, engineLoader))
}

func neededLibraries(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ImportedLibraries()
}

func findLibrary(root, name string) (string, error) {
	for _, dir := range []string{engineOwnLibs, engineLibs} {
		file := dir + "/" + name
		if _, err := os.Stat(filepath.Join(root, file)); err == nil {
			return file, nil
		}
	}
	return "", fs.ErrNotExist
}

// copyResolved copies a file of the packages. Library names are relative links to versioned files beside them.
func copyResolved(root, file, to string) error {
	from := filepath.Join(root, file)
	target, err := os.Readlink(from)
	if err == nil {
		if filepath.Base(target) != target {
			return fmt.Errorf("%s links to %s, want a file beside it", file, target)
		}
		from = filepath.Join(filepath.Dir(from), target)
	}
	return copyFile(from, to)
}

// buildModel packs the model volume of the demo.
func (b *Builder) buildModel(ctx context.Context, path string) (config.Volume, error) {
	step := b.Progress.Step(packModel, 0)
	staged := filepath.Join(b.Work, "model-root")
	if err := os.RemoveAll(staged); err != nil {
		return config.Volume{}, err
	}
	if err := copyFile(filepath.Join(b.Source, "image", "model", "tiny.gguf"), filepath.Join(staged, "tiny.gguf")); err != nil {
		return config.Volume{}, err
	}
	ref, err := packVolume(ctx, os.DirFS(staged), path, nil)
	if err != nil {
		return config.Volume{}, err
	}
	step.Done(size(path))
	return ref, os.RemoveAll(staged)
}
