// Command probe tries what a confined process must not be able to do, and prints what it could.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/role"
)

func main() {
	// The processes that a server serves with are there before it is confined.
	opened, err := os.Open("/proc/self/status")
	if err != nil {
		panic(err)
	}
	if len(os.Args) > 1 {
		o := confine.Options{User: role.GatewayUser, Calls: confine.Network, UnixSockets: true}
		if os.Args[1] == "fetch" {
			o = confine.Options{User: role.FetchUser, Calls: confine.Network, Connects: true}
		}
		if os.Args[1] == "keeper" {
			o = confine.Options{User: role.KeeperUser, Calls: append(confine.Disk, confine.Network...)}
		}
		if err := confine.Process(o); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	var could []string
	try := func(name string, err error) {
		if err == nil {
			could = append(could, name)
		}
	}
	_, err = os.Open("/proc/self/status")
	try("open", err)
	_, err = os.ReadDir("/")
	try("list", err)
	try("run", exec.Command("/bin/true").Run())
	_, err = net.Listen("tcp", "127.0.0.1:0")
	try("tcp", err)
	if _, err := net.ListenPacket("udp", "127.0.0.1:0"); err == nil {
		could = append(could, "udp")
	}
	_, err = net.Dial("tcp", "127.0.0.1:1")
	if !strings.Contains(err.Error(), "not permitted") {
		could = append(could, "connect")
	}
	_, err = net.Dial("udp", "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "not permitted") {
		could = append(could, "send")
	}
	_, err = net.Dial("unix", "/nowhere")
	if !strings.Contains(err.Error(), "not permitted") {
		could = append(could, "unix")
	}
	// No process has the number 0, so where ptrace is allowed the kernel looks for one and finds none. PTRACE_TRACEME would
	// have this program traced by its parent, and stopped for good by the first signal that reaches it.
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, syscall.PTRACE_PEEKDATA, 0, 0, 0, 0, 0)
	if errno == syscall.ESRCH {
		errno = 0
	}
	try("ptrace", asError(errno))
	_, _, errno = syscall.RawSyscall(syscall.SYS_UNSHARE, syscall.CLONE_NEWUTS, 0, 0)
	try("unshare", asError(errno))
	_, _, errno = syscall.RawSyscall(unix.SYS_MEMFD_CREATE, 0, 0, 0)
	if errno != syscall.EPERM {
		could = append(could, "memfd")
	}
	try("setuid", syscall.Setuid(0))
	// Another thread must be under the same filter.
	done := make(chan error)
	go func() {
		_, err := os.Open("/proc/self/status")
		done <- err
	}()
	try("open in another thread", <-done)
	var b [1]byte
	if _, err := opened.Read(b[:]); err != nil {
		fmt.Println("what was open can't be read:", err)
	}
	fmt.Println("could:", strings.Join(could, ", "))
}

func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
