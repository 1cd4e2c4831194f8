package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/verity"
)

// largeVolume is the size of the data of the volume whose opening is compared with the demo's model.
const largeVolume = 4 << 30

// openLarge boots a guest whose model is the demo's in a volume of largeVolume bytes, and compares the step that opens it
// with small, the milliseconds of the same step over the demo's own.
func openLarge(t *testing.T, small float64, smallBytes int64) row {
	t.Helper()
	spec := demoSpec(t)
	spec.Model, spec.Config.Service.Model.Volume = enlarged(t, spec.Model)
	g := newGuest(t)
	if err := g.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	last, large := 0.0, 0.0
	err := g.Wait(ctx, func(line status.Line) {
		m := stepLine.FindStringSubmatch(line.String())
		if m == nil {
			return
		}
		ms, _ := strconv.ParseFloat(m[3], 64)
		if m[1] == "model-volume" {
			large = ms - last
			cancel() // what comes later has been measured already
		}
		last = ms
	})
	if large == 0 {
		t.Fatalf("the guest did not open its model: %v", err)
	}
	ratio := large / max(small, 1)
	return row{fmt.Sprintf("open a volume: %d GiB, times %.1f MB", largeVolume>>30, float64(smallBytes)/1e6), ratio, "≈ 1", ratio < 3,
		fmt.Sprintf("%.0f ms and %.0f ms in two boots; the step's clock ticks in ms", large, small)}
}

// enlarged returns a volume of largeVolume data bytes that starts with the data of file and is empty otherwise, and its
// name. The file has holes: only its tree takes space.
func enlarged(t *testing.T, file string) (string, config.Volume) {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	_, blocks, err := verity.Name(in, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "large.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.CopyN(out, in, int64(blocks)*verity.BlockSize); err != nil {
		t.Fatal(err)
	}
	if err := out.Truncate(largeVolume); err != nil {
		t.Fatal(err)
	}
	const largeBlocks = largeVolume / verity.BlockSize
	root, err := verity.Append(t.Context(), out, largeBlocks, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out.Name(), config.Volume{Root: root, Blocks: largeBlocks}
}

// verityMemory builds the tree over a part of the file and over all of it, and compares what was allocated. All that a build
// allocates bounds what it ever holds.
func verityMemory(t *testing.T, f *os.File, part, whole uint64) row {
	t.Helper()
	allocated := func(size uint64) float64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		if _, err := verity.Append(t.Context(), f, size/verity.BlockSize, nil); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc - before.TotalAlloc)
	}
	large, small := allocated(whole), allocated(part) // the smaller one's tree overwrites data
	return row{fmt.Sprintf("verity tree: memory for %d MiB, times that for %d MiB", whole>>20, part>>20), large / small, "≤ 2",
		large/small <= 2,
		fmt.Sprintf("%.1f MB and %.1f MB allocated in all, for %d times the data", large/1e6, small/1e6, whole/part)}
}
