package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/erofs/go-erofs"

	"chrysalis/measure"
	"chrysalis/measure/verity"
)

// listVolume returns every name in a volume but its root. Whatever is neither a folder 0755 nor a file 0644 or 0755 of root
// fails the test: no links, devices, or set-user-ID programs.
func listVolume(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = fs.WalkDir(img, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch mode := info.Mode() & (fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); mode {
		case fs.ModeDir | 0o755, 0o644, 0o755:
		default:
			t.Errorf("%s: %s has mode %v", filepath.Base(file), name, mode)
		}
		if st := info.Sys().(*erofs.Stat); st.UID != 0 || st.GID != 0 {
			t.Errorf("%s: %s belongs to %d:%d, want root", filepath.Base(file), name, st.UID, st.GID)
		}
		if name != "." {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestRootHoldsOnlyItsList reads the built root: no shell, no systemd, no package manager, no interpreter, nothing unexpected.
func TestRootHoldsOnlyItsList(t *testing.T) {
	needsGuests(t)
	got := listVolume(t, filepath.Join(built, "release", "root.img"))
	want := []string{"dev", "etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "proc", "run", "sys", "tmp", "usr", "usr/bin",
		"usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/init", "usr/bin/runc", "usr/bin/runtime", "var"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("root: got %q, want %q", got, want)
	}
}

// TestRootProgramsAreStatic: the root has no loader, so a program that wants one could not start.
func TestRootProgramsAreStatic(t *testing.T) {
	needsGuests(t)
	for _, name := range []string{"init", "runtime", "containerd", "containerd-shim-runc-v2", "runc"} {
		out, err := exec.CommandContext(t.Context(), "go", "version", "-m", filepath.Join(built, "programs", name)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "-trimpath=true") {
			t.Errorf("%s: got build information %s (%v), want a trimmed Go program", name, out, err)
		}
		segments := tree(t).Command(t.Context(), "readelf", "--program-headers", filepath.Join(built, "programs", name))
		if out, err := segments.Output(); err != nil || strings.Contains(string(out), "INTERP") {
			t.Errorf("%s wants a loader (%v), want a static program", name, err)
		}
	}
}

func TestEngineHoldsOnlyItsParts(t *testing.T) {
	needsGuests(t)
	allowed := regexp.MustCompile(`^(dev|lib64|model|proc|run|run/engine|sys|tmp|usr|usr/bin|usr/lib|usr/lib/x86_64-linux-gnu(/llama|/ggml|/ggml/backends0)?` +
		`|lib64/ld-linux-x86-64\.so\.2|usr/bin/llama-server` +
		`|usr/lib/x86_64-linux-gnu/lib(c|m|crypto|ssl|gcc_s|ggml|ggml-base|gomp|llama|llama-common|mtmd|stdc\+\+|z|zstd)\.so\.\d+` +
		`|usr/lib/x86_64-linux-gnu/llama/libllama-server-impl\.so|usr/lib/x86_64-linux-gnu/ggml/backends0/libggml-cpu-[a-z0-9]+\.so)$`)
	backends := 0
	for _, name := range listVolume(t, filepath.Join(built, "volumes", "engine.img")) {
		if !allowed.MatchString(name) {
			t.Errorf("engine: holds %s", name)
		}
		if strings.HasPrefix(path.Base(name), "libggml-cpu-") {
			backends++
		}
	}
	if backends != 14 {
		t.Errorf("engine: %d CPU backends, want 14", backends)
	}
}

func TestInitrdHoldsOnlyItsList(t *testing.T) {
	needsGuests(t)
	f, err := os.Open(filepath.Join(built, "release", "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []string{"cmdline", "dev", "init", "modules"}
	for i, name := range []string{"virtio_blk", "dm-mod", "dm-bufio", "reed_solomon", "dm-verity", "erofs", "failover", "net_failover", "virtio_net", "overlay",
		"configfs", "tsm_report", "tdx-guest", "sev-guest"} {
		want = append(want, fmt.Sprintf("modules/%02d-%s.ko.xz", i, name))
	}
	want = append(want, "newroot", "proc", "root.json", "run", "sys")
	var got []string
	for r := cpio.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("initrd: got %q, want %q", got, want)
	}
}

// TestVeritysetupAgreesOnTheRoot is the second opinion on the root hash.
func TestVeritysetupAgreesOnTheRoot(t *testing.T) {
	needsGuests(t)
	data, err := os.ReadFile(filepath.Join(built, "release", "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(built, "release", "root.img")
	salt := verity.Salt()
	args := []string{"verify", "--no-superblock", "--format=1", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096",
		fmt.Sprintf("--data-blocks=%d", m.Root.Blocks), fmt.Sprintf("--hash-offset=%d", m.Root.Blocks*verity.BlockSize), fmt.Sprintf("--salt=%x", salt), root, root}
	if out, err := tree(t).Command(t.Context(), "veritysetup", append(args, m.Root.Root.String())...).CombinedOutput(); err != nil {
		t.Errorf("veritysetup refuses the root: %v: %s", err, out)
	}
	wrong := m.Root.Root
	wrong[0] ^= 1
	if err := tree(t).Command(t.Context(), "veritysetup", append(args, wrong.String())...).Run(); err == nil {
		t.Error("veritysetup accepts another root hash, so it did not check")
	}
}
