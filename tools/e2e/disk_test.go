package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cavaliergopher/cpio"

	"chrysalis/measure"
	"chrysalis/measure/bootdisk"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/toolstree"
)

// evilWord is what attackers here add to the command line. The kernel does not know it; that it arrives is enough.
const evilWord = "evil=1"

// makeDisk makes the boot disk of a release and returns its file.
func makeDisk(t *testing.T, release, format string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk."+format)
	chrysalis(t, 0, "image", "disk", "--release", release, "--out", file, "--format", format, "--tools-tree",
		filepath.Join(built, "tools-tree"))
	return file
}

// elsewhereDisk makes the disk as somebody with other habits does.
func elsewhereDisk(t *testing.T, release, format string) string {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(built, "bin/chrysalis"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `umask 077 && exec "$0" image disk "$@"`, program, "--release", release,
		"--out", "disk", "--format", format,
		"--tools-tree", tree(t).Path(""))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LANG=de_DE.UTF-8", "HOME="+cmd.Dir, "SOURCE_DATE_EPOCH=1", "MTOOLS_LOWER_CASE=1",
		"MTOOLS_NO_VFAT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("image disk: %v: %s", err, out)
	}
	return filepath.Join(cmd.Dir, "disk")
}

// onDisk returns the spec of a guest that boots from the disk.
func onDisk(spec guest.Spec, disk string) guest.Spec {
	spec.Disk, spec.Shape = disk, guest.OnDisk(spec.Shape)
	return spec
}

// diskPolicy computes the disk's registers from the file and makes the strict policy of them.
func diskPolicy(t *testing.T, spec guest.Spec, disk string) string {
	t.Helper()
	shape, err := measure.EncodeShape(spec.Shape)
	if err != nil {
		t.Fatal(err)
	}
	shapeFile := filepath.Join(t.TempDir(), "shape.json")
	if err := os.WriteFile(shapeFile, shape, 0o644); err != nil {
		t.Fatal(err)
	}
	registers, _ := chrysalis(t, 0, "measure", "vtpm", "--firmware", filepath.Join(spec.Release, "OVMF_CODE.fd"), "--disk", disk,
		"--shape", shapeFile, "--tools-tree", filepath.Join(built, "tools-tree"), "--json")
	file := filepath.Join(t.TempDir(), "registers.json")
	if err := os.WriteFile(file, []byte(registers), 0o644); err != nil {
		t.Fatal(err)
	}
	return makePolicyOf(t, spec, "--pcrs", file)
}

// denied returns the checks of registers that did not hold.
func (v verdict) denied() (names []string) {
	for _, c := range v.Checks {
		if c.Verdict == "rejected" && strings.HasPrefix(c.Name, "pcr-") {
			names = append(names, c.Name)
		}
	}
	return names
}

// TestDiskBoot boots a release from a disk of its own: the same bytes each time, registers as computed from the file, and
// nothing but the root hash decides what the root is.
func TestDiskBoot(t *testing.T) {
	needsGuests(t)
	spec := demoSpec(t)
	disk := makeDisk(t, spec.Release, "raw")
	qcow2 := makeDisk(t, spec.Release, "qcow2")
	for format, first := range map[string]string{"raw": disk, "qcow2": qcow2} {
		a, errA := os.ReadFile(first)
		b, errB := os.ReadFile(elsewhereDisk(t, spec.Release, format))
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s made twice: the bytes differ, first at %d", format, firstDifference(a, b))
		}
	}
	secondOpinions(t, disk)

	// One disk is raw, the other qcow2: what is in them is the same, and so are the registers.
	g, spec := newGuest(t), onDisk(spec, qcow2)
	start(t, g, spec)
	c := newClient(t, g, spec).with(diskPolicy(t, spec, disk))
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Errorf("a guest that booted from its disk: got %+v, want it accepted", v)
	}
	first := c.ask(question)
	if first.text != oslo {
		t.Errorf("answer: got %q, want %q", first.text, oslo)
	}
	// Under the policy of a direct boot the same guest is refused, and the other way round.
	if got, want := newClient(t, g, spec).verify(1).denied(), []string{"pcr-1", "pcr-4", "pcr-5", "pcr-9",
		"pcr-11"}; !slices.Equal(got, want) {
		t.Errorf("policy of a direct boot: got refused by %q, want by %q", got, want)
	}
	evidence := newClient(t, g, spec).saved(1)
	wantCauses(t, "a direct boot", explained(t, evidence, demoSpec(t)), "boot-from-disk")
	wantCauses(t, "a boot from the disk", explained(t, evidence, spec, "--disk", disk))
	// The secret opens again under the same registers, and the count goes on.
	g.Cut()
	spec.Config.Service.Wipe = config.WipeIdle(5 * time.Second)
	start(t, g, spec)
	if second := c.ask(question); second.key != first.key || second.tokens != first.tokens+tokensOfOslo {
		t.Errorf("after a power cut: got %+v, want key %s and %d tokens", second, first.key, first.tokens+tokensOfOslo)
	}
	forgetsIdle(t, g, spec)
	g.Cut()

	// A block of the root that is changed stops the kernel, also where the root is a partition.
	root := filepath.Join(spec.Release, "root.img")
	const rootStart = 65 << 20
	spec = onDisk(demoSpec(t), tampered(t, disk, rootStart+runtimeBlock(t, root)))
	if got := ending(t, newGuest(t), spec); got != "" {
		t.Errorf("a changed block of the root: the guest's last word: got %q, want none, from a kernel that stopped", got)
	}
}

// secondOpinions asks others what they see in the disk.
func secondOpinions(t *testing.T, disk string) {
	t.Helper()
	dir := t.TempDir()
	esp := filepath.Join(dir, "esp.img")
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, 64<<20)
	if _, err := f.ReadAt(data, 1<<20); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	read, err := bootdisk.Read(f, info.Size())
	if err := errors.Join(err, os.WriteFile(esp, data, 0o644), os.WriteFile(filepath.Join(dir, "uki.efi"), read.UKI, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, check := range [][]string{{"fsck.fat", "-n", esp}, {"sfdisk", "--verify", disk}} {
		if out, err := tree(t).Command(t.Context(), check[0], check[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", check, err, out)
		}
	}
	extracted, err := mtools(t, "mcopy", "-i", esp, "::EFI/BOOT/BOOTX64.EFI", "-").Output()
	if err != nil || !bytes.Equal(extracted, read.UKI) {
		t.Errorf("mtools reads %d bytes of the image (%v), want the %d that this program reads", len(extracted), err, len(read.UKI))
	}
	if os.Geteuid() != 0 {
		return
	}
	out, err := tree(t).Enter(t.Context(), toolstree.Entry{Binds: map[string]string{"disk": dir}}, "ukify", "--json=short", "inspect",
		"/mnt/disk/uki.efi").CombinedOutput()
	if err != nil {
		t.Fatalf("ukify inspect: %v\n%s", err, out)
	}
	initrd, err := os.ReadFile(filepath.Join(built, "release/initrd"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(initrd)
	if want := register.Digest(sum).String(); !strings.Contains(string(out), want) {
		t.Errorf("ukify sees %s, want an initrd with SHA-256 %s", out, want)
	}
}

// relaxed returns a copy of the spec's release whose initrd takes another command line for its own. Such a guest does what
// the release's own refuses to: it serves, and leaves the judgement to the client.
func relaxed(t *testing.T, spec guest.Spec, cmdline string) guest.Spec {
	t.Helper()
	return repacked(t, spec, "cmdline", cmdline)
}

// repacked returns a copy of the spec's release with other content for a file of the initrd, and a manifest that says so.
func repacked(t *testing.T, spec guest.Spec, name, content string) guest.Spec {
	t.Helper()
	in, err := os.Open(filepath.Join(spec.Release, "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out bytes.Buffer
	w := cpio.NewWriter(&out)
	for r := cpio.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if h.Name == name {
			data, h.Size = []byte(content), int64(len(content))
		}
		if err == nil {
			err = w.WriteHeader(h)
		}
		if _, writeErr := w.Write(data); err != nil || writeErr != nil {
			t.Fatal(err, writeErr)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(spec.Release, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Files {
		if m.Files[i].Name == "initrd" {
			m.Files[i].Size, m.Files[i].SHA256 = int64(out.Len()), sha256.Sum256(out.Bytes())
		}
	}
	if data, err = measure.EncodeManifest(m); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initrd, manifest := filepath.Join(dir, "initrd"), filepath.Join(dir, "manifest.json")
	if err := errors.Join(os.WriteFile(initrd, out.Bytes(), 0o644), os.WriteFile(manifest, data, 0o644)); err != nil {
		t.Fatal(err)
	}
	return withRelease(t, withRelease(t, spec, "initrd", initrd), "manifest.json", manifest)
}
