package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempt is something that the guest's kernel or its container must refuse.
type attempt struct {
	name string
	try  func() error
}

// report tries all and says how each ended, before the next: one that takes the guest down is then known. Who tries stands
// before each line.
func report(out io.Writer, who string, attempts []attempt) {
	for _, a := range attempts {
		answer := "ok"
		if err := a.try(); err != nil {
			answer = err.Error()
			var errno syscall.Errno
			if errors.As(err, &errno) {
				answer = unix.ErrnoName(errno)
			}
		}
		fmt.Fprintf(out, "%s %s %s\n", who, a.name, answer)
	}
}

func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func read(file string) func() error {
	return func() error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(make([]byte, 64))
		return err
	}
}

func set(name, value string) func() error {
	return func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) }
}

func mount(kind string) func() error {
	return func() error {
		dir, err := os.MkdirTemp("/tmp", "mount-")
		if err != nil {
			return err
		}
		defer os.Remove(dir)
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return err
		}
		return unix.Unmount(dir, 0)
	}
}

// run makes a copy of this program in dir and starts it.
func run(dir string) func() error {
	return func() error {
		data, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		file := filepath.Join(dir, "program")
		defer os.Remove(file)
		if err := os.WriteFile(file, data, 0o755); err != nil {
			return err
		}
		return exec.Command(file, nothing).Run()
	}
}

// perf opens a counter of the kernel's own cycles.
func perf() error {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// bpf loads the smallest program: r0 = 0; exit.
func bpf() error {
	code := []uint64{0xb7, 0x95}
	license := []byte("GPL\x00")
	attr := struct {
		kind, count              uint32
		code, license            uint64
		logLevel, logSize        uint32
		log                      uint64
		version, flags           uint32
		name                     [16]byte
		ifindex, expected, btfFD uint32
	}{kind: 1, count: 2, code: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	return call(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

func ioUring() error {
	var params [120]byte // struct io_uring_params
	return call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)))
}

func loadModule() error {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

func kexec() error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) }

func userNamespace() error {
	cmd := exec.Command("/proc/self/exe", nothing)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return cmd.Run()
}

// asRoot is what not even root may do here. Mounting tracefs is not tried: under lockdown and debugfs=off it takes the kernel down.
var asRoot = []attempt{
	{"load a module", loadModule},
	{"load a kernel", kexec},
	{"allow modules again", set("kernel/modules_disabled", "0")},
	{"allow kexec again", set("kernel/kexec_load_disabled", "0")},
	{"allow ptrace again", set("kernel/yama/ptrace_scope", "0")},
	{"allow unprivileged bpf again", set("kernel/unprivileged_bpf_disabled", "0")},
	{"weaken lockdown", func() error { return os.WriteFile("/sys/kernel/security/lockdown", []byte("integrity"), 0) }},
	{"io_uring", ioUring},
	{"a user namespace", userNamespace},
	{"trace init", func() error { return unix.PtraceAttach(1) }},
	{"read init's memory", read("/proc/1/mem")},
	{"read kernel memory", read("/proc/kcore")},
	{"read physical memory", read("/dev/mem")},
	{"read ports", read("/dev/port")},
	{"use ports", func() error { return call(unix.SYS_IOPL, 3) }},
	{"read an MSR", read("/dev/cpu/0/msr")},
	{"mount debugfs", mount("debugfs")},
	{"see a vsyscall page", func() error {
		maps, err := os.ReadFile("/proc/self/maps")
		if err == nil && !bytes.Contains(maps, []byte("[vsyscall]")) {
			return errors.New("none")
		}
		return err
	}},
	{"read fw_cfg", read("/sys/firmware/qemu_fw_cfg/rev")},
	{"write an EFI variable", func() error {
		return os.WriteFile("/sys/firmware/efi/efivars/x-c4a7c5f2-8b53-4d0e-9d1e-636872797301", []byte{7, 0, 0, 0, 1}, 0o644)
	}},
}

// escapes are ways to run what the root does not hold.
var escapes = []attempt{
	{"write to the root", func() error { return os.WriteFile("/usr/bin/more", nil, 0o755) }},
	{"run from /run", run("/run")},
	{"run from /tmp", run("/tmp")},
	{"run from /var", run("/var")},
	{"run from /dev/shm", run("/dev/shm")},
	{"run from /dev", run("/dev")},
	{"a shell", func() error { return exec.Command("/bin/sh", "-c", "true").Run() }},
}

// asNobody is what a user without any right may not do.
var asNobody = []attempt{
	{"load a module", loadModule},
	{"load a kernel", kexec},
	{"io_uring", ioUring},
	{"bpf", bpf},
	{"a user namespace", userNamespace},
	{"count kernel cycles", perf},
	{"mount tmpfs", mount("tmpfs")},
	{"become root", func() error { return syscall.Setuid(0) }},
	{"read the kernel's log", klog},
	{"read kernel memory", read("/proc/kcore")},
	{"read physical memory", read("/dev/mem")},
	{"read the TPM", read("/dev/tpmrm0")},
	{"open the TD", read("/dev/tdx_guest")},
	{"extend RTMR3", func() error {
		f, err := os.OpenFile("/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(make([]byte, 48))
		return errors.Join(err, f.Close())
	}},
	{"ask for a quote", func() error { return os.Mkdir("/sys/kernel/config/tsm/report/probe", 0o755) }},
	{"trace init", func() error { return unix.PtraceAttach(1) }},
}

func klog() error {
	_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 64))
	return err
}

// inContainer is what the engine's container keeps from it, beyond what its user may not.
var inContainer = []attempt{
	{"write to its root", func() error { return os.WriteFile("/more", nil, 0o755) }},
	{"write to the model", func() error { return os.WriteFile("/model/more", nil, 0o644) }},
	{"run from /tmp", run("/tmp")},
	{"run from /run/engine", run("/run/engine")},
	{"a vsock", socket(unix.AF_VSOCK)},
	{"a packet socket", socket(unix.AF_PACKET)},
	{"reach out", func() error {
		conn, err := net.Dial("tcp4", "10.0.2.2:80") // the gateway of QEMU's network
		if err == nil {
			conn.Close()
		}
		return err
	}},
	{"see an interface but lo", func() error {
		list, err := net.Interfaces()
		if err == nil && len(list) == 1 && list[0].Name == "lo" {
			return errors.New("none")
		}
		return err
	}},
	{"see the keeper", read("/run/keeper/keeper.sock")},
	{"see a disk", read("/dev/vda")},
	{"see a process but its own", func() error {
		list, err := filepath.Glob("/proc/[0-9]*")
		if err == nil && len(list) == 1 {
			return errors.New("none")
		}
		return fmt.Errorf("%d of them (%v)", len(list), err)
	}},
	{"find a set-user-id program", func() error {
		found := errors.New("none")
		err := filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
			if path == "/proc" || path == "/sys" || err != nil {
				return fs.SkipDir
			}
			if info, err := d.Info(); err == nil && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				found = nil
			}
			return nil
		})
		return errors.Join(found, err)
	}},
}

func socket(family int) func() error {
	return func() error {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}
