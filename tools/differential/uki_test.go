package differential

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chrysalis/measure/pe/petest"
	"chrysalis/measure/register"
	"chrysalis/measure/uki"
	"chrysalis/tools/internal/toolstree"
)

// TestUKIAgainstUkify has the tools tree's ukify build images with several profiles and tell what it expects in PCR 11 of each, and
// compares with what is read out of the image alone.
func TestUKIAgainstUkify(t *testing.T) {
	tree, err := toolstree.Open("../../build/tools-tree")
	if err != nil {
		t.Skipf("no tools tree here: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("ukify starts other programs, so the tools tree is entered, which needs root")
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"linux": string(petest.Image()), "initrd": "initrd", "cmdline": "console=ttyS0", "cmdline1": "quiet", "osrel": "ID=test\n", "ucode": "microcode",
		"splash": "BM", "dtb": "\xd0\x0d\xfe\xed", "profile0": "ID=main\n", "profile1": "ID=other\n", "profile2": "ID=third\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ukify := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := tree.Enter(t.Context(), toolstree.Entry{Binds: map[string]string{"uki": dir}, Dir: "/mnt/uki"}, append([]string{"ukify", "build"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ukify build %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	common := []string{"--linux=linux", "--initrd=initrd", "--os-release=@osrel", "--uname=7.2", "--microcode=ucode", "--splash=splash", "--devicetree=dtb",
		"--cmdline=@cmdline", "--measure", "--pcr-banks=sha256"}
	ukify(t, "--profile=@profile1", "--cmdline=@cmdline1", "--output=p1.efi")
	ukify(t, "--profile=@profile2", "--output=p2.efi")
	for _, tt := range []struct {
		name string
		args []string
		want int // profiles
		// ukify leaves out the stub's .sbat, which a booted guest's PCR 11 has (DIFFERENCES.md).
		withoutSBAT bool
	}{{"plain", nil, 1, false}, {"one profile", []string{"--profile=@profile0"}, 1, true},
		{"three profiles", []string{"--profile=@profile0", "--join-profile=p1.efi", "--join-profile=p2.efi"}, 3, false}} {
		t.Run(tt.name, func(t *testing.T) {
			said := ukify(t, append(append([]string{"--output=image.efi"}, common...), tt.args...)...)
			expected := regexp.MustCompile(`Phase <enter-initrd>\n11:sha256=([0-9a-f]{64})`).FindAllStringSubmatch(said, -1)
			if len(expected) != tt.want {
				t.Fatalf("ukify tells %d values, want %d:\n%s", len(expected), tt.want, said)
			}
			file, err := os.ReadFile(filepath.Join(dir, "image.efi"))
			if err != nil {
				t.Fatal(err)
			}
			for profile := range tt.want {
				image, err := uki.Read(file, profile)
				if err != nil {
					t.Fatal(err)
				}
				if image.Profiles != tt.want || image.Stub.Major != 257 {
					t.Errorf("got %d profiles by %v, want %d by 257", image.Profiles, image.Stub, tt.want)
				}
				var got register.Digest
				for _, s := range image.Measured() {
					if tt.withoutSBAT && strings.HasSuffix(s.Name, ".sbat") {
						continue
					}
					sum := sha256.Sum256(s.Data)
					got = sha256.Sum256(append(got[:], sum[:]...))
				}
				phase := sha256.Sum256([]byte("enter-initrd")) // which userspace extends, and ukify counts
				got = sha256.Sum256(append(got[:], phase[:]...))
				if got.String() != expected[profile][1] {
					t.Errorf("profile %d: got %s, want %s", profile, got, expected[profile][1])
				}
			}
		})
	}
}
