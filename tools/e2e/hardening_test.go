package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
)

// buildProbe builds the probe to the file.
func buildProbe(t *testing.T, file string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", file, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v: %s", err, out)
	}
}

// answers holds the lines of a report against what is wanted; every attempt must be in both.
func answers(t *testing.T, report string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(report) {
		if at := strings.LastIndexByte(strings.TrimSpace(line), ' '); at > 0 {
			got[line[:at]] = strings.TrimSpace(line[at+1:])
		}
	}
	for attempt, answer := range want {
		if got[attempt] != answer {
			t.Errorf("%s: got %q, want %q", attempt, got[attempt], answer)
		}
	}
	for attempt, answer := range got {
		if _, known := want[attempt]; !known {
			t.Errorf("%s: got %q, want no such attempt", attempt, answer)
		}
	}
}

// TestRootCannotUndo boots a release whose containerd is a probe: root beside init, with every capability, and then a user
// with none, try what the hardening closes. It shows that the switches work, not that they are set.
func TestRootCannotUndo(t *testing.T) {
	needsGuests(t)
	for name, spec := range map[string]guest.Spec{"vtpm": demoSpec(t), "tdx": tdSpec(t)} {
		t.Run(name, func(t *testing.T) {
			beside(t)
			rootCannotUndo(t, spec)
		})
	}
}

func rootCannotUndo(t *testing.T, spec guest.Spec) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	buildProbe(t, filepath.Join(root, "usr/bin/containerd"))
	for _, name := range []string{"dev", "proc", "run", "sys", "tmp", "var"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"init", "runtime"} {
		copyTo(t, filepath.Join(built, "programs", name), filepath.Join(root, "usr/bin", name))
	}
	packed := filepath.Join(dir, "root.img")
	chrysalis(t, 0, "volume", "pack", "engine", root, "-o", packed)
	ref, err := guest.VolumeRef(packed)
	if err != nil {
		t.Fatal(err)
	}
	name, err := json.Marshal(ref)
	if err != nil {
		t.Fatal(err)
	}
	spec = withRelease(t, repacked(t, spec, "root.json", string(name)), "root.img", packed)
	g := newGuest(t)
	file := filepath.Join(dir, "report")
	if got, want := ending(t, g, spec, "-chardev", "file,id=probe,path="+file, "-device",
		"virtserialport,chardev=probe,name=org.chrysalis.probe"), "containerd-exited"; got != want {
		t.Errorf("the guest's last word: got %q, want %q", got, want)
	}
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, whole := strings.CutSuffix(string(report), "end\n")
	if !whole {
		t.Fatalf("the report is %q, want one that ends", report)
	}
	t.Logf("what the probe saw:\n%s", text)
	hardware := map[string]string{"nobody read the TPM": "EACCES", "nobody open the TD": "ENOENT", "nobody extend RTMR3": "ENOENT",
		"nobody ask for a quote": "EACCES"}
	if spec.Shape.Platform == measure.TDX {
		hardware = map[string]string{"nobody read the TPM": "ENOENT", "nobody open the TD": "EACCES", "nobody extend RTMR3": "EACCES",
			"nobody ask for a quote": "EACCES"}
	}
	answers(t, text, joined(hardware, map[string]string{
		"root load a module": "EPERM", "root load a kernel": "EPERM", "root allow modules again": "EINVAL", "root allow kexec again": "EINVAL",
		"root allow ptrace again": "EINVAL", "root allow unprivileged bpf again": "EPERM", "root weaken lockdown": "EROFS",
		"root io_uring": "EPERM", "root a user namespace": "ENOSPC", "root trace init": "EPERM", "root read init's memory": "EACCES",
		"root read kernel memory": "EPERM", "root read physical memory": "EPERM", "root read ports": "ENOENT", "root use ports": "EPERM",
		"root read an MSR": "ENOENT", "root mount debugfs": "ENODEV", "root read fw_cfg": "ENOENT", "root see a vsyscall page": "none",
		"root write an EFI variable": "ENOENT",
		"root write to the root":     "EROFS", "root run from /run": "EACCES", "root run from /tmp": "EACCES", "root run from /var": "EACCES",
		"root run from /dev/shm": "EACCES", "root run from /dev": "EACCES", "root a shell": "ENOENT",
		"nobody load a module": "EPERM", "nobody load a kernel": "EPERM", "nobody io_uring": "EPERM", "nobody bpf": "EPERM",
		"nobody a user namespace": "ENOSPC", "nobody count kernel cycles": "EACCES", "nobody mount tmpfs": "EPERM", "nobody become root": "EPERM",
		"nobody read the kernel's log": "EPERM", "nobody read kernel memory": "EACCES", "nobody read physical memory": "EACCES",
		"nobody trace init": "EPERM",
	}))
}

// joined returns the entries of all maps.
func joined(all ...map[string]string) map[string]string {
	together := map[string]string{}
	for _, m := range all {
		maps.Copy(together, m)
	}
	return together
}

// TestWeakKernel boots kernels that were asked for less, with an initrd that does not mind: init does.
func TestWeakKernel(t *testing.T) {
	needsGuests(t)
	spec := demoSpec(t)
	line, err := os.ReadFile(filepath.Join(spec.Release, "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	for asked, weaker := range map[string]string{"lockdown=confidentiality": "lockdown=integrity", "debugfs=off": "debugfs=on",
		"oops=panic": "oops=go"} {
		t.Run(weaker, func(t *testing.T) {
			beside(t)
			spec := onOwnPort(t, spec)
			weak := strings.Replace(string(line), asked, weaker, 1)
			if weak == string(line) {
				t.Fatalf("the command line does not ask for %s", asked)
			}
			file := filepath.Join(t.TempDir(), "cmdline")
			if err := os.WriteFile(file, []byte(weak), 0o644); err != nil {
				t.Fatal(err)
			}
			if got, want := ending(t, newGuest(t), withRelease(t, relaxed(t, spec, weak), "cmdline", file)), "hardening-failed"; got != want {
				t.Errorf("the guest's last word: got %q, want %q", got, want)
			}
		})
	}
}

// TestEngineCannotReach runs the probe as the engine; TestQuotesOverVsock does in a TD.
func TestEngineCannotReach(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), probing(t, demoSpec(t))
	start(t, g, spec)
	engineCannotReach(t, newClient(t, g, spec), "ENOENT")
}

// probing returns the spec with the probe as its engine.
func probing(t *testing.T, spec guest.Spec) guest.Spec {
	t.Helper()
	dir := t.TempDir()
	buildProbe(t, filepath.Join(dir, "root/usr/bin/probe"))
	spec.Engine = filepath.Join(dir, "engine.img")
	chrysalis(t, 0, "volume", "pack", "engine", filepath.Join(dir, "root"), "-o", spec.Engine)
	ref, err := guest.VolumeRef(spec.Engine)
	if err != nil {
		t.Fatal(err)
	}
	spec.Config.Service.Engine.Volume = ref
	startedAs(&spec, "/usr/bin/probe")
	return spec
}

// engineCannotReach has a client ask the probe what it saw. Where there is an RTMR3 it is a file, which nobody may write.
func engineCannotReach(t *testing.T, c client, rtmr3 string) {
	t.Helper()
	text := c.ask("report").text + "\n"
	t.Logf("what the engine saw:\n%s", text)
	answers(t, text, map[string]string{
		"engine load a module": "EPERM", "engine load a kernel": "EPERM", "engine io_uring": "EPERM", "engine bpf": "EPERM",
		"engine a user namespace": "EPERM", "engine count kernel cycles": "EPERM", "engine mount tmpfs": "EPERM", "engine become root": "EPERM",
		"engine read the kernel's log": "EPERM", "engine read kernel memory": "EOF", "engine read physical memory": "ENOENT",
		"engine read the TPM": "ENOENT", "engine open the TD": "ENOENT", "engine extend RTMR3": rtmr3, "engine ask for a quote": "ENOENT",
		"engine trace init": "EPERM", "engine write to its root": "EROFS", "engine write to the model": "EROFS",
		"engine run from /tmp": "EACCES", "engine run from /run/engine": "EACCES", "engine a vsock": "EPERM", "engine a packet socket": "EPERM",
		"engine reach out": "ENETUNREACH", "engine see an interface but lo": "none", "engine see the keeper": "ENOENT",
		"engine see a disk": "ENOENT", "engine see a process but its own": "none", "engine find a set-user-id program": "none",
	})
}

func copyTo(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}
