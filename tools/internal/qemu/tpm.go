package qemu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"chrysalis/tools/internal/toolstree"
)

// TPMPID is the file with the process of a TPM that QEMU drives, in the folder of its state.
const TPMPID = "swtpm.pid"

// StartTPM starts swtpm over the state in dir, new if there is none, for a QEMU that drives it over the control socket: see
// Emulator. It ends with that QEMU, or the caller ends it.
func StartTPM(ctx context.Context, tree toolstree.Tree, dir, socket string) (*exec.Cmd, error) {
	return startTPM(ctx, tree, dir, socket, false)
}

// ServeTPM starts swtpm as a server of TPM commands, for this program.
func ServeTPM(ctx context.Context, tree toolstree.Tree, dir, socket string) (*exec.Cmd, error) {
	return startTPM(ctx, tree, dir, socket, true)
}

func startTPM(ctx context.Context, tree toolstree.Tree, dir, socket string, server bool) (*exec.Cmd, error) {
	if err := os.RemoveAll(socket); err != nil {
		return nil, err
	}
	args := []string{"socket", "--tpm2", "--tpmstate", "dir=" + dir}
	if server {
		args = append(args, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	} else {
		args = append(args, "--ctrl", "type=unixio,path="+socket, "--terminate", "--pid", "file="+filepath.Join(dir, TPMPID))
	}
	// A guest's TPM outlives this program, so ctx does not end it; it ends with QEMU.
	cmd := tree.Command(context.WithoutCancel(ctx), "swtpm", args...)
	log, err := os.Create(filepath.Join(dir, "swtpm.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = Unbound()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting swtpm: %w", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if listening(socket) {
			return cmd, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("starting swtpm: no socket at %s after 10 s; it said: %s", socket, said)
		}
	}
}

// listening reports whether a process listens at the socket. The file is there a moment before, and to connect would be
// to use it: swtpm ends with its first connection.
func listening(socket string) bool {
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(sockets)) {
		// Number, references, protocol, flags, type, state, inode, path; the flag is the kernel's __SO_ACCEPTCON.
		if field := strings.Fields(line); len(field) >= 8 && field[3] == "00010000" &&
			strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+socket) {
			return true
		}
	}
	return false
}
