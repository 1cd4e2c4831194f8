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
	"golang.org/x/sys/unix"

	"chrysalis/measure"
	"chrysalis/measure/verity"
)

// listVolume returns every name in a volume but its root, and fails the test over what has no place in one.
func listVolume(t *testing.T, file string) []string {
	t.Helper()
	names, strange := readVolume(t, file)
	for _, s := range strange {
		t.Errorf("%s: %s", filepath.Base(file), s)
	}
	return names
}

// readVolume returns every name in a volume but its root, and what is neither a folder 0755 nor a program or file 0755 or
// 0644 of root: links, devices, set-user-ID programs, what others may write, scripts, which want an interpreter.
func readVolume(t *testing.T, file string) (names, strange []string) {
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
	err = fs.WalkDir(img, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// The library's FileInfo has the bits beyond permissions in other places than Go's; its Stat is right.
		st := info.Sys().(*erofs.Stat)
		switch mode := st.Mode & (fs.ModeType | fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky); mode {
		case fs.ModeDir | 0o755, 0o644, 0o755:
		default:
			strange = append(strange, fmt.Sprintf("%s has mode %v", name, mode))
		}
		if st.UID != 0 || st.GID != 0 {
			strange = append(strange, fmt.Sprintf("%s belongs to %d:%d, want root", name, st.UID, st.GID))
		}
		if start := make([]byte, 2); info.Mode().IsRegular() {
			f, err := img.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.ReadFull(f, start); err == nil && string(start) == "#!" {
				strange = append(strange, name+" is a script")
			}
		}
		if name != "." {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, strange
}

// TestVolumeOfStrangeThings: the reader of volumes sees what it looks for, in an image that mkfs.erofs made.
func TestVolumeOfStrangeThings(t *testing.T) {
	needsBuild(t)
	dir := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{"su": 0o4755, "sgid": 0o2755, "open": 0o666, "script": 0o755, "other": 0o644, "plain": 0o755} {
		text := "text"
		if name == "script" {
			text = "#!/bin/sh"
		}
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644),
			unix.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]uint32{"drop": 0o1777, "folder": 0o755} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755), unix.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("plain", filepath.Join(dir, "link")), unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644),
		os.Lchown(filepath.Join(dir, "other"), 1000, 0)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "strange.img")
	if out, err := tree(t).Command(t.Context(), "mkfs.erofs", file, dir).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v: %s", err, out)
	}
	names, strange := readVolume(t, file)
	want := []string{"drop has mode dtrwxrwxrwx", "link has mode Lrwxrwxrwx", "open has mode -rw-rw-rw-", "other belongs to 1000:0, want root",
		"pipe has mode prw-r--r--", "script is a script", "sgid has mode grwxr-xr-x", "su has mode urwxr-xr-x"}
	if slices.Sort(strange); !slices.Equal(strange, want) || len(names) != 10 {
		t.Errorf("of %d names: got %q, want %q", len(names), strange, want)
	}
}

// TestRootHoldsOnlyItsList reads the built root: no shell, no systemd, no package manager, no interpreter, nothing unexpected.
func TestRootHoldsOnlyItsList(t *testing.T) {
	needsBuild(t)
	got := listVolume(t, filepath.Join(built, "release", "root.img"))
	want := []string{"dev", "etc", "etc/ssl", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "proc", "run", "sys", "tmp",
		"usr", "usr/bin",
		"usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/bin/custody", "usr/bin/engine-host", "usr/bin/fetch", "usr/bin/init", "usr/bin/runc", "usr/bin/runtime", "var"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("root: got %q, want %q", got, want)
	}
}

// TestRootProgramsAreStatic: the root has no loader, so a program that wants one could not start.
func TestRootProgramsAreStatic(t *testing.T) {
	needsBuild(t)
	for _, name := range []string{"init", "runtime", "custody", "engine-host", "containerd", "containerd-shim-runc-v2", "runc"} {
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
	needsBuild(t)
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
	needsBuild(t)
	f, err := os.Open(filepath.Join(built, "release", "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []string{"cmdline", "dev", "image.json", "init", "modules"}
	for i, name := range []string{"virtio_blk", "dm-mod", "dm-bufio", "reed_solomon", "dm-verity", "erofs", "failover", "net_failover",
		"virtio_net", "overlay",
		"configfs", "tsm_report", "tdx-guest", "sev-guest", "vsock", "vmw_vsock_virtio_transport_common",
		"vmw_vsock_virtio_transport"} {
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
	needsBuild(t)
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
		fmt.Sprintf("--data-blocks=%d", m.Root.Blocks), fmt.Sprintf("--hash-offset=%d",
			m.Root.Blocks*verity.BlockSize), fmt.Sprintf("--salt=%x", salt), root, root}
	if out, err := tree(t).Command(t.Context(), "veritysetup", append(args, m.Root.Root.String())...).CombinedOutput(); err != nil {
		t.Errorf("veritysetup refuses the root: %v: %s", err, out)
	}
	wrong := m.Root.Root
	wrong[0] ^= 1
	if err := tree(t).Command(t.Context(), "veritysetup", append(args, wrong.String())...).Run(); err == nil {
		t.Error("veritysetup accepts another root hash, so it did not check")
	}
}
