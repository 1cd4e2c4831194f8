package e2e

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/bootdisk"
	"chrysalis/tools/internal/toolstree"
)

// mtools returns a command on a FAT file system.
func mtools(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := tree(t).Command(t.Context(), "mtools", append([]string{"-c"}, args...)...)
	cmd.Env = append(cmd.Env, "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1")
	return cmd
}

// plant returns a copy of the disk with one more file on its ESP.
func plant(t *testing.T, disk, dir, name string, data []byte) string {
	t.Helper()
	temp := t.TempDir()
	copied, file := filepath.Join(temp, "disk.raw"), filepath.Join(temp, name)
	in, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	esp := copied + "@@1M"
	for _, args := range [][]string{{"mmd", "-i", esp, "::" + dir}, {"mcopy", "-i", esp, file, "::" + dir + "/" + name}} {
		if text, err := mtools(t, args...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, text)
		}
	}
	return copied
}

// addon makes an add-on image that extends the command line.
func addon(t *testing.T, cmdline string) []byte {
	t.Helper()
	dir := t.TempDir()
	cmd := tree(t).Enter(t.Context(), toolstree.Entry{Binds: map[string]string{"out": dir}}, "ukify", "build", "--cmdline="+cmdline,
		"--stub=/usr/lib/systemd/boot/efi/addonx64.efi.stub", "--output=/mnt/out/evil.addon.efi")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ukify build: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "evil.addon.efi"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestStubIsOpen uses each way in which systemd's stub, without Secure Boot, takes words of the host: the guest of the
// release ends over another command line; one whose initrd does not mind comes up, and no client accepts it.
func TestStubIsOpen(t *testing.T) {
	needsGuests(t)
	if os.Geteuid() != 0 {
		t.Skip("making an add-on enters the tools tree, which needs root")
	}
	spec := demoSpec(t)
	cmdline, err := os.ReadFile(filepath.Join(spec.Release, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	disk := makeDisk(t, spec.Release, "raw")
	lax := relaxed(t, spec, string(cmdline)+" "+evilWord)
	laxDisk := makeDisk(t, lax.Release, "raw")
	smbios := []string{"-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra=" + evilWord}

	t.Run("the release ends over another command line", func(t *testing.T) {
		beside(t)
		if got, want := ending(t, newGuest(t), onDisk(onOwnPort(t, spec), disk), smbios...), "cmdline-failed"; got != want {
			t.Errorf("the guest's last word: got %q, want %q", got, want)
		}
	})
	for _, tt := range []struct {
		name   string
		disk   string // what the policy is made of
		booted func(t *testing.T) (disk string, extra []string)
		want   []string // registers by which the client refuses
	}{
		{"text by SMBIOS", laxDisk, func(*testing.T) (string, []string) { return laxDisk, smbios }, []string{"pcr-9", "pcr-12"}},
		{"text by an add-on", laxDisk, func(t *testing.T) (string, []string) {
			return plant(t, laxDisk, "EFI/BOOT/BOOTX64.EFI.extra.d", "evil.addon.efi", addon(t, evilWord)), nil
		}, []string{"pcr-4", "pcr-9", "pcr-12"}},
		{"the image as a kernel, with another command line", laxDisk, func(t *testing.T) (string, []string) {
			return laxDisk, []string{"-kernel", extractUKI(t, laxDisk), "-append", string(cmdline) + " " + evilWord}
		}, []string{"pcr-1", "pcr-4", "pcr-5", "pcr-9", "pcr-12"}},
		{"a credential", disk, func(t *testing.T) (string, []string) {
			return plant(t, disk, "EFI/BOOT/BOOTX64.EFI.extra.d", "evil.cred", []byte("evil")), nil
		}, []string{"pcr-9", "pcr-12"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			beside(t)
			booted, extra := tt.booted(t)
			release := spec
			if tt.disk == laxDisk {
				release = lax
			}
			spec := onDisk(onOwnPort(t, release), booted)
			c, spec := shows(t, spec, spec, extra...)
			if got := c.with(diskPolicy(t, spec, tt.disk)).verify(1).denied(); !slices.Equal(got, tt.want) {
				t.Errorf("got refused by %q, want by %q", got, tt.want)
			}
			if booted == tt.disk {
				return
			}
			// Whoever looks at the disk sees it, too.
			if _, notes := chrysalis(t, 3, "measure", "vtpm", "--firmware", filepath.Join(spec.Release, "OVMF_CODE.fd"), "--disk",
				booted); !strings.Contains(notes, "reading ESP") {
				t.Errorf("measure vtpm of the changed disk says %q, want a refusal of its ESP", notes)
			}
		})
	}
}

// extractUKI writes the disk's image to a file of its own.
func extractUKI(t *testing.T, disk string) string {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	read, err := bootdisk.Read(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "uki.efi")
	if err := os.WriteFile(file, read.UKI, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
