package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"time"

	"chrysalis/tools/internal/toolstree"
)

// Process is a QEMU that does not outlive this program.
type Process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
	done chan error // holds how it ended, once it has
}

// Start starts the tree's QEMU in a folder.
func Start(ctx context.Context, tree toolstree.Tree, dir string, args ...string) (*Process, error) {
	p := &Process{cmd: Command(ctx, tree, args...), done: make(chan error, 1)}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.said, &p.said
	p.cmd.SysProcAttr = bound()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p, nil
}

// Stop ends QEMU and waits for its end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Kill()
	p.done <- <-p.done
}

// Explain adds QEMU's own words to an error, where QEMU has ended over it.
func (p *Process) Explain(err error) error {
	select {
	case ended := <-p.done:
		p.done <- ended
		return errors.Join(err, fmt.Errorf("QEMU ended (%v): %.1000s", ended, strings.TrimSpace(p.said.String())))
	case <-time.After(100 * time.Millisecond):
		return err
	}
}

// Dial connects to the socket of Tested, as soon as QEMU has made it, until the context's deadline.
func (p *Process) Dial(ctx context.Context, socket string) (*Port, error) {
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			deadline, _ := ctx.Deadline()
			return NewPort(conn), conn.SetDeadline(deadline)
		}
		select {
		case err := <-p.done:
			p.done <- err
			return nil, p.Explain(err)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}
