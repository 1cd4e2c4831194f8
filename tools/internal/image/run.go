package image

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
)

// maxTail is how much of a failed program's output its error carries.
const maxTail = 4 << 10

// tail keeps the last bytes written to it.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*maxTail {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-maxTail:]...)
	}
	return len(p), nil
}

// withUmask makes cmd run under umask 022, whatever the caller's: modes end up in what programs write.
func withUmask(cmd *exec.Cmd) *exec.Cmd {
	if cmd.Err == nil {
		cmd.Args = append([]string{"/bin/sh", "-c", `umask 022 && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	}
	return cmd
}

// runQuiet runs the command; its output shows only in the error.
func runQuiet(cmd *exec.Cmd) error {
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out.buf))
	}
	return nil
}
