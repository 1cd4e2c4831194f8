// Package services starts the guest's processes, gives each what its contract (runtime/role) says and nothing else, and turns
// what they say into the words of the host's port. The end of any of them is the end of the guest.
package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"chrysalis/init/internal/port"
	"chrysalis/init/internal/sealing"
	"chrysalis/init/internal/supervise"
	"chrysalis/init/status"
	"chrysalis/runtime/role"
)

// Where the services find each other. Each sees only what is bound or passed to it.
const (
	measuredFile    = "/run/chrysalis/measured"
	imageFile       = "/run/chrysalis/image"
	listFile        = "/run/chrysalis/list"
	hostFile        = "/run/chrysalis/host"
	emptyRoot       = "/run/custody" // of lender, borrower and fetch
	keeperDir       = "/run/keeper"
	engineSocketDir = "/run/engine"
	gatewayRoot     = "/run/gateway"
	keeperMount     = "/keeper" // in the gateway's root
	engineMount     = "/engine"
)

// environment is the whole environment of every service: nothing is inherited, from the kernel's command line least of all.
//
// schedtrace is here for what comes with it: Go's monitor thread then sleeps on by itself, while else it is woken by the
// first system call after each pause and looks around every 20 microseconds, which costs a sixth of the gateway's time when
// tokens come one by one. The trace itself, one line of counts, is printed after 24 days and then every 24 days.
//
// clobberfree has the runtime overwrite what it frees: prompts and keys do not stay in memory as garbage. asyncpreemptoff has it interrupt no
// thread: the kernel and the runtime would write the registers down, in which a cipher had them.
var environment = []string{"PATH=/usr/bin", "HOME=/", "GOTRACEBACK=none", "GODEBUG=schedtrace=2147483647,clobberfree=1,asyncpreemptoff=1"}

// ends are the codes of a guest that ends because of a role.
type ends struct {
	exited status.Code // the process is gone
	failed status.Code // it said what is no word of its
}

// roles is what the host reads of each role's end.
var roles = []ends{
	role.Keeper:     {status.KeeperExited, status.Keeper.Failed()},
	role.EngineHost: {status.EngineHostExited, status.EngineHostFailed},
	role.Gateway:    {status.GatewayExited, status.Gateway.Failed()},
	role.Custodian:  {status.CustodianExited, status.Custodian.Failed()},
	role.Lender:     {status.LenderExited, status.Lender.Failed()},
	role.Borrower:   {status.BorrowerExited, status.Borrower.Failed()},
	role.Fetch:      {status.FetchExited, status.Fetch.Failed()},
}

// events are the words that the host reads as they come, and reasons those with which a role gives up.
var (
	events  = map[role.Word]status.Event{role.EngineUp: status.EngineUp, role.EngineDown: status.EngineDown, role.Moved: status.SecretMoved}
	reasons = map[role.Word]status.Code{
		role.JournalTorn: status.JournalTorn, role.JournalForeign: status.JournalForeign, role.JournalOld: status.JournalOld, role.JournalRolledBack: status.JournalRolledBack,
		role.JournalIO: status.JournalIO, role.JournalFull: status.JournalFull, role.JournalCorrupt: status.JournalCorrupt,
		role.JournalShort: status.JournalShort, role.JournalRefused: status.JournalRefused,
		role.ParamsRefused: status.ParamsRefused, role.ProxyOpen: status.ProxyOpen,
		role.LoanRefused: status.LoanRefused, role.LoanHeld: status.LoanHeld, role.LoanLost: status.LoanLost,
	}
)

// Settings are what the services need of init.
type Settings struct {
	// Start starts a process.
	Start func(supervise.Process) (*supervise.Child, error)
	// End ends the guest.
	End func(status.Code, error)
	// Host is the port that events go to; nil drops them.
	Host *port.Port
	// Cgroups is the directory below which each process has its cgroup; empty leaves them where init is.
	Cgroups string
	// Log is the file that the processes write their own logs to.
	Log string
}

// Services are the children, and what is kept for them.
type Services struct {
	Settings

	mu       sync.Mutex
	children []running
	taken    sealing.Taken // its secret until the keeper has it, or the custodian
	loan     *Loan         // of a guest whose secret is borrowed
}

// running is a process. gone is closed once it is.
type running struct {
	*supervise.Child
	gone chan struct{}
}

// New returns services of which none runs.
func New(s Settings) *Services { return &Services{Settings: s} }

// Leave leaves the measured config, and what the image says of itself, where the roles read them.
func (s *Services) Leave(measured, image []byte) error {
	if err := os.MkdirAll(filepath.Dir(measuredFile), 0o700); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(measuredFile, measured, 0o400), os.WriteFile(imageFile, image, 0o400))
}

// Hold keeps the secret, and what came with it, until the keeper or the custodian starts. It is wiped then, or when the guest ends.
func (s *Services) Hold(taken sealing.Taken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	s.taken = taken
}

// forget wipes the secret, which may not have been taken yet. The caller holds mu.
func (s *Services) forget() {
	if s.taken.Secret != nil {
		s.taken.Secret.Wipe()
	}
	s.taken = sealing.Taken{}
}

// Kill ends every service. The last to start dies first. A borrowed secret is given back once nobody in the guest has it any more: the
// borrower was the first to start.
func (s *Services) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	loan := s.loan
	s.loan = nil
	for i := len(s.children) - 1; i >= 0; i-- {
		if i == 0 && loan != nil && ended(s.children[1:]) {
			loan.back()
		}
		s.children[i].Kill()
	}
}

// endWait bounds how long the end waits for a process that was killed.
const endWait = time.Second

// ended waits until the processes are gone, and reports whether they are.
func ended(children []running) bool {
	late := time.After(endWait)
	for _, c := range children {
		select {
		case <-c.gone:
		case <-late:
			return false
		}
	}
	return true
}

// start starts a process whose end is the guest's end, with code, once heard, which may be nil, has returned: what a process said
// before it went tells more than that it went.
func (s *Services) start(p supervise.Process, exited status.Code, heard func()) error {
	p.Env = environment
	if s.Cgroups != "" {
		p.Cgroup = s.Cgroups + "/" + p.Name
	}
	log, err := os.OpenFile(s.Log, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	p.Log = log
	child, err := s.Start(p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	gone := make(chan struct{})
	s.children = append(s.children, running{child, gone})
	s.mu.Unlock()
	go func() {
		exit := <-child.Exited()
		close(gone)
		if heard != nil {
			heard()
		}
		s.End(exited, fmt.Errorf("%s ended with %s", p.Name, describe(exit)))
	}()
	return nil
}

func describe(exit syscall.WaitStatus) string {
	if exit.Signaled() {
		return fmt.Sprintf("signal %d", exit.Signal())
	}
	return fmt.Sprintf("exit status %d", exit.ExitStatus())
}

// run starts a role with its settings and its files, in the contract's order and with a status pipe as the last, calls begun
// when it runs, and waits until it says that it is ready.
func (s *Services) run(ctx context.Context, r role.Role, settings role.Settings, files role.Files, begun func() error) error {
	settings[role.Measured] = measuredFile // the flags that more than one role has
	argv, err := r.Argv(settings)
	if err != nil {
		return err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	passed, err := ordered(r, files, in)
	if err != nil {
		out.Close()
		return err
	}
	p := supervise.Process{Name: r.String(), Argv: argv, NoNetwork: !r.Network(), Files: passed}
	listened := make(chan struct{})
	err = s.start(p, roles[r].exited, func() {
		in.Close() // nobody writes any more: what is in the pipe is all
		select {
		case <-listened:
		case <-time.After(lastWords):
		}
	})
	if err != nil {
		out.Close()
		return err
	}
	ready := make(chan error, 1)
	go func() {
		defer close(listened)
		s.listen(r, out, ready)
	}()
	if begun != nil {
		if err := begun(); err != nil {
			return err
		}
	}
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ready: // it was, and what ended the wait came after
		return err
	default:
		return fmt.Errorf("waiting for %s: %w", r, ctx.Err())
	}
}

// ordered returns the files of a role in the order of its contract. One that is missing, or left over, is an error.
func ordered(r role.Role, files role.Files, pipe *os.File) (passed []*os.File, err error) {
	for _, name := range r.Files() {
		file := files[name]
		if name == role.Status {
			file = pipe
		}
		if file == nil {
			return nil, fmt.Errorf("starting %s: there is no descriptor for %s", r, name)
		}
		passed = append(passed, file)
	}
	if len(files) != len(passed)-1 {
		return nil, fmt.Errorf("starting %s: %d descriptors, want %d", r, len(files), len(passed)-1)
	}
	return passed, nil
}

// lastWords bounds how long a role that has gone is listened to: its pipe is at its end, unless somebody else holds it.
const lastWords = time.Second

// listen hears a role until its status pipe ends, which is when its process does. ready gets nil once it is.
func (s *Services) listen(r role.Role, out *os.File, ready chan<- error) {
	defer out.Close()
	err := r.Listen(out, func(w role.Word) bool {
		code, gaveUp := reasons[w]
		switch {
		case w == role.Ready:
			select {
			case ready <- nil:
			default: // once is enough
			}
		case gaveUp:
			s.End(code, fmt.Errorf("%s gave up: %q", r, w))
			return false
		default:
			s.Host.Event(events[w])
		}
		return true
	})
	if err != nil {
		s.End(roles[r].failed, err)
	}
}
