// Package confine gives up, for good, what a process of the service does not need: root directory, user, capabilities,
// new privileges, core dumps, and every system call that is not on a list.
//
// It must be called once, before the process reads anything from outside, in a binary without cgo: only then does the Go
// runtime carry a change over to all threads. Landlock is not used: a gateway in an empty root and a keeper without a way
// to open files have nothing left for it to guard.
package confine

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// Options say what stays.
type Options struct {
	User  int      // user and group id
	Root  string   // new root directory; empty keeps the old one
	Calls []string // system calls beyond those that the Go runtime needs
	// UnixSockets allows to make sockets, of the Unix family alone.
	UnixSockets bool
	// Connects allows to make TCP sockets over IPv4, and to connect them. Not beside UnixSockets.
	Connects bool
}

// Network are the calls of a server on sockets that it was given.
var Network = []string{"accept4", "recvfrom", "sendto", "recvmsg", "sendmsg",
	"shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt", "writev", "readv"}

// Disk are the calls of a process that owns one open disk.
var Disk = []string{"pread64", "pwrite64", "fdatasync", "lseek"}

// runtimeCalls are what the Go runtime and package os use on descriptors that are open already.
var runtimeCalls = []string{
	"brk", "clock_gettime", "clock_nanosleep", "clone", "clone3", "close", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
	"epoll_wait", "eventfd2", "exit", "exit_group", "fcntl", "fstat", "futex", "getpid", "getrandom", "gettid", "gettimeofday", "madvise",
	"membarrier", "mincore", "mmap", "mprotect", "munmap", "nanosleep", "pipe2", "ppoll", "read", "restart_syscall", "rseq",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "sigaltstack", "tgkill",
	"timer_create", "timer_delete", "timer_settime", "uname", "write",
}

// Process confines the calling process, all threads of it. After an error the process must end.
func Process(o Options) error {
	if o.User <= 0 {
		return fmt.Errorf("confining: user is %d, want one that is not root", o.User)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("confining: core dumps: %v", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("confining: dumpable: %v", err)
	}
	if o.Root != "" {
		if err := unix.Chroot(o.Root); err != nil {
			return fmt.Errorf("confining: chroot: %v", err)
		}
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("confining: %v", err)
	}
	if err := dropCapabilities(o.User); err != nil {
		return fmt.Errorf("confining: %v", err)
	}
	if err := filter(o); err != nil {
		return fmt.Errorf("confining: %v", err)
	}
	return nil
}

// dropCapabilities empties every capability set and becomes the user.
func dropCapabilities(user int) error {
	for capability := uintptr(0); capability <= 63; capability++ {
		// A kernel that does not know the capability answers EINVAL: then there is nothing to drop from here on.
		_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0)
		if errno == unix.EINVAL && capability > unix.CAP_LAST_CAP-8 {
			break
		}
		if errno != 0 {
			return fmt.Errorf("dropping capability %d from the bounding set: %v", capability, errno)
		}
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("clearing ambient capabilities: %v", errno)
	}
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("setting groups: %v", err)
	}
	if err := syscall.Setresgid(user, user, user); err != nil {
		return fmt.Errorf("setting group: %v", err)
	}
	if err := syscall.Setresuid(user, user, user); err != nil {
		return fmt.Errorf("setting user: %v", err)
	}
	// Changing the user has cleared permitted and effective; this clears inheritable, too, and says so if not.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0)
	if errno != 0 {
		return fmt.Errorf("dropping capabilities: %v", errno)
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("setting no_new_privs: %v", errno)
	}
	return nil
}

// filter refuses every call that is not listed with EPERM, in all threads.
func filter(o Options) error {
	policy := seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionAllow, Names: append(append([]string(nil), runtimeCalls...), o.Calls...)}},
	}
	if o.UnixSockets || o.Connects {
		of := seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: unix.AF_UNIX}}
		if o.Connects {
			of = seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: unix.AF_INET},
				{Argument: 1, Operation: seccomp.Equal, Value: unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}}
		}
		policy.Syscalls[0].Names = append(policy.Syscalls[0].Names, "connect")
		policy.Syscalls[0].NamesWithCondtions = []seccomp.NameWithConditions{{
			Name:       "socket",
			Conditions: of,
		}}
	}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		return fmt.Errorf("loading filter: %v", err)
	}
	return nil
}
