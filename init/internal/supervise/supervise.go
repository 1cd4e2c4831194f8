// Package supervise starts and reaps every process of the guest. One goroutine calls wait4, and it alone: a child is
// known before it can be reaped, and orphans that PID 1 inherits are reaped without a trace.
package supervise

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is what to start. Nothing is inherited that is not named here.
type Process struct {
	Name  string
	Argv  []string
	Env   []string
	Files []*os.File // descriptors from 3 on; 0 is /dev/null
	Log   *os.File   // descriptors 1 and 2; nil is /dev/null
	// NoNetwork starts the process in a network namespace of its own, with no way out.
	NoNetwork bool
	// Cgroup is the directory of the cgroup to start in.
	Cgroup string
}

// Child is a started process.
type Child struct {
	Name   string
	pid    int
	exited chan syscall.WaitStatus
	kill   func(pid int)
}

// Exited yields the wait status once and is then closed.
func (c *Child) Exited() <-chan syscall.WaitStatus { return c.exited }

// Kill sends SIGKILL. A child that is gone is left alone.
func (c *Child) Kill() { c.kill(c.pid) }

// Supervisor owns the children.
type Supervisor struct {
	starts chan startRequest
	kills  chan int
}

type startRequest struct {
	process Process
	reply   chan startReply
}

type startReply struct {
	child *Child
	err   error
}

// New starts the owner, which lives as long as the guest.
func New() *Supervisor {
	s := &Supervisor{starts: make(chan startRequest), kills: make(chan int)}
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, unix.SIGCHLD)
	go s.own(sigchld)
	return s
}

// Start starts a process.
func (s *Supervisor) Start(p Process) (*Child, error) {
	reply := make(chan startReply, 1)
	s.starts <- startRequest{p, reply}
	r := <-reply
	return r.child, r.err
}

func (s *Supervisor) own(sigchld <-chan os.Signal) {
	children := map[int]*Child{}
	for {
		select {
		case request := <-s.starts:
			child, err := s.fork(request.process)
			if err == nil {
				children[child.pid] = child
			}
			request.reply <- startReply{child, err}
		case pid := <-s.kills:
			if children[pid] != nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		case <-sigchld:
			reap(children)
		}
	}
}

// reap waits for every dead process: signals coalesce.
func reap(children map[int]*Child) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if child := children[pid]; child != nil {
			delete(children, pid)
			child.exited <- status
			close(child.exited)
		}
	}
}

func (s *Supervisor) fork(p Process) (*Child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %v", p.Name, err)
	}
	defer null.Close()
	log := p.Log
	if log == nil {
		log = null
	}
	files := []uintptr{null.Fd(), log.Fd(), log.Fd()}
	for _, f := range p.Files {
		files = append(files, f.Fd())
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: p.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if p.NoNetwork {
		attr.Sys.Cloneflags |= syscall.CLONE_NEWNET
	}
	if p.Cgroup != "" {
		if err := os.MkdirAll(p.Cgroup, 0o755); err != nil {
			return nil, fmt.Errorf("starting %s: %v", p.Name, err)
		}
		dir, err := os.Open(p.Cgroup)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %v", p.Name, err)
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd())
	}
	pid, err := syscall.ForkExec(p.Argv[0], p.Argv, attr)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %v", p.Name, err)
	}
	return &Child{Name: p.Name, pid: pid, exited: make(chan syscall.WaitStatus, 1), kill: func(pid int) { s.kills <- pid }}, nil
}
