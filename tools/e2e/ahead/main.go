// Command ahead runs a command whose clock stands ahead of the machine's: ahead SECONDS COMMAND [ARGUMENT …]. It traces the
// command and everything that it starts, static programs and programs behind another root too: they lose the vDSO, so that they ask
// the kernel for the time by a system call, and it answers these calls in the kernel's place.
//
// What it does not change: the times that the kernel gives new files, clocks that count from the boot, and the clock of the Go
// compiler, which asks a million times in a small build, around each pass over each function, only to count. A library that is
// preloaded would reach neither Go programs nor what runs behind chroot, and a time namespace has no wall clock of its own.
//
// It is for tests, on linux/amd64.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// child is the first argument of the stage that installs the filter and becomes the command.
const child = "--child"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "now" { // for the test of this program
		fmt.Println(time.Now().Year())
		return
	}
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: ahead SECONDS COMMAND [ARGUMENT …]")
		os.Exit(2)
	}
	// Tracing and filters belong to threads.
	runtime.LockOSThread()
	if os.Args[1] == child {
		fail("becoming the command", become(os.Args[2:]))
	}
	seconds, err := strconv.ParseInt(os.Args[1], 10, 64)
	fail("reading the seconds", err)
	status, err := trace(seconds, os.Args[2:])
	fail("tracing", err)
	os.Exit(status)
}

func fail(doing string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "ahead: %s: %v\n", doing, err)
		os.Exit(125)
	}
}

// become installs the filter and replaces this process.
func become(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	if err := filterClocks(); err != nil {
		return fmt.Errorf("installing the filter: %w", err)
	}
	return syscall.Exec(path, argv, os.Environ())
}

// filterClocks has the kernel stop this thread and its descendants where they ask for the wall clock.
func filterClocks() error {
	const (
		load, equal, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
		number, argument    = 0, 16 // offsets in struct seccomp_data
	)
	program := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_GETTIMEOFDAY, Jt: 6},
		{Code: equal, K: unix.SYS_TIME, Jt: 5},
		{Code: equal, K: unix.SYS_CLOCK_GETTIME, Jf: 3},
		{Code: load, K: argument},
		{Code: equal, K: unix.CLOCK_REALTIME, Jt: 2},
		{Code: equal, K: unix.CLOCK_REALTIME_COARSE, Jt: 1},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
		{Code: answer, K: unix.SECCOMP_RET_TRACE},
	}
	if os.Geteuid() != 0 { // root may filter without it, and keeps what set-user-ID programs can do
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&f))); errno != 0 {
		return errno
	}
	return nil
}

// trace runs the command and returns its exit status. Whatever it leaves behind ends with it.
func trace(seconds int64, argv []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, append([]string{child}, argv...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	first := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(first, &status, 0, nil); err != nil {
		return 0, err
	}
	const options = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(first, options); err != nil {
		return 0, err
	}
	known := map[int]bool{first: true}
	pid, deliver := first, 0
	for {
		// ESRCH: it was killed while it stood, and its end is still to be waited for.
		if err := unix.PtraceCont(pid, deliver); err != nil && err != unix.ESRCH {
			return 0, err
		}
		for {
			pid, err = unix.Wait4(-1, &status, unix.WALL, nil)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return 0, err
			}
			if status.Stopped() {
				break
			}
			delete(known, pid)
			switch {
			case pid == first && status.Exited():
				return status.ExitStatus(), nil
			case pid == first && status.Signaled():
				return 128 + int(status.Signal()), nil
			}
		}
		if deliver, err = stopped(pid, status, known, seconds); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
}

// stopped does what a stop asks for, and returns the signal to deliver.
func stopped(pid int, status unix.WaitStatus, known map[int]bool, seconds int64) (int, error) {
	switch status.TrapCause() {
	case unix.PTRACE_EVENT_SECCOMP:
		return 0, answerClock(pid, seconds)
	case unix.PTRACE_EVENT_EXEC:
		return 0, hideVDSO(pid)
	case unix.PTRACE_EVENT_FORK, unix.PTRACE_EVENT_VFORK, unix.PTRACE_EVENT_CLONE:
		return 0, nil
	}
	if !known[pid] { // a new thread or process begins with a stop
		known[pid] = true
		if status.StopSignal() == unix.SIGSTOP {
			return 0, nil
		}
	}
	if status.StopSignal() == unix.SIGTRAP {
		return 0, nil
	}
	return int(status.StopSignal()), nil
}

// answerClock answers a call for the wall clock and has the kernel skip it.
func answerClock(pid int, seconds int64) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return err
	}
	now.Sec += seconds
	at, parts, result := uint64(0), [2]int64{now.Sec, now.Nsec}, uint64(0)
	switch regs.Orig_rax {
	case unix.SYS_CLOCK_GETTIME:
		at = regs.Rsi
	case unix.SYS_GETTIMEOFDAY:
		at, parts[1] = regs.Rdi, now.Nsec/1000
	case unix.SYS_TIME:
		at, result = regs.Rdi, uint64(now.Sec)
	}
	if at != 0 {
		data := unsafe.Slice((*byte)(unsafe.Pointer(&parts)), 16)
		if regs.Orig_rax == unix.SYS_TIME {
			data = data[:8]
		}
		if _, err := unix.PtracePokeData(pid, uintptr(at), data); err != nil {
			fault := unix.EFAULT
			result = -uint64(fault)
		}
	}
	regs.Orig_rax, regs.Rax = ^uint64(0), result
	return unix.PtraceSetRegs(pid, &regs)
}

// goCompiler is the one program that keeps the machine's clock.
const goCompiler = "compile"

// hideVDSO takes the vDSO's address out of the auxiliary vector of a program that has just been loaded: behind argc, the
// arguments and the environment, each ended by a zero, stand pairs of key and value.
func hideVDSO(pid int) error {
	const (
		atNull, atIgnore, atSysinfoEHDR = 0, 1, 33
		word                            = 8
	)
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || filepath.Base(program) == goCompiler {
		return err
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	peek := func(at uint64) (v uint64, err error) {
		_, err = unix.PtracePeekData(pid, uintptr(at), unsafe.Slice((*byte)(unsafe.Pointer(&v)), word))
		return v, err
	}
	at := regs.Rsp + word
	for range 2 {
		for {
			v, err := peek(at)
			if err != nil {
				return err
			}
			at += word
			if v == 0 {
				break
			}
		}
	}
	for ; ; at += 2 * word {
		key, err := peek(at)
		switch {
		case err != nil:
			return err
		case key == atNull:
			return nil
		case key == atSysinfoEHDR:
			ignore := uint64(atIgnore)
			_, err := unix.PtracePokeData(pid, uintptr(at), unsafe.Slice((*byte)(unsafe.Pointer(&ignore)), word))
			return err
		}
	}
}
