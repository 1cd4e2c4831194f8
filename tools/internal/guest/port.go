package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// portIsFree says who has the port of this machine's loopback interface, where somebody has.
func portIsFree(port int) error {
	l, err := net.Listen("tcp4", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err == nil {
		return l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	who := "another program"
	if pid := listener("/proc", port); pid != 0 {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		who = fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(name)), pid)
	}
	return fmt.Errorf("port %d is taken by %s: choose another with --port, or leave it out", port, who)
}

// listener returns the process that listens on a TCP port of IPv4, or 0 where nobody does whom this user may see.
func listener(proc string, port int) int {
	sockets, err := os.ReadFile(filepath.Join(proc, "net/tcp"))
	if err != nil {
		return 0
	}
	inode := ""
	for line := range strings.Lines(string(sockets)) {
		// Number, local address, remote one, state, …, inode: Linux, Documentation/networking/proc_net_tcp.rst. 0A listens.
		field := strings.Fields(line)
		if len(field) >= 10 && field[3] == "0A" && strings.HasSuffix(field[1], fmt.Sprintf(":%04X", port)) {
			inode = field[9]
		}
	}
	if inode == "" {
		return 0
	}
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*")) // the pattern is a good one
	for _, file := range files {
		if target, err := os.Readlink(file); err == nil && target == "socket:["+inode+"]" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(file))))
			return pid
		}
	}
	return 0
}
