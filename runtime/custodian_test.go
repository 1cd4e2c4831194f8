package main

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// startCustodian starts the custodian as init does, and returns the lender's end of its stream.
func (m *machine) startCustodian(boots uint64) (c *exec.Cmd, line string, loans net.Conn) {
	m.t.Helper()
	out, in := m.pipe()
	defer out.Close()
	s, err := secret.New(m.secret)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := role.SendKept(in, role.Kept{Secret: s, Boots: boots}); err != nil {
		m.t.Fatal(err)
	}
	in.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	if loans, err = net.FileConn(ours); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { loans.Close() })
	c, line = m.spawn("custodian", false, nil, out, m.journal, theirs)
	return c, line, loans
}

// TestCustodianProcess runs the custodian as init starts it, over two boots: confined, it answers its lender, lends nothing in the first
// lease, and says why it gives up.
func TestCustodianProcess(t *testing.T) {
	m := newMachine(t)
	measured, _ := measuredConfig(t)
	measured.Identity.Sealing, measured.Identity.Custody = config.SealCustodian, config.Custody{LeaseSeconds: 3600, CollateralHours: 1}
	measured.Service = config.Service{Custodian: true, GPU: config.GPUNone}
	raw, err := measured.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path("measured"), raw, 0o400); err != nil {
		t.Fatal(err)
	}
	for boot := range uint64(2) {
		c, line, loans := m.startCustodian(boot)
		if line != "ready" {
			t.Fatalf("the custodian said %q, want ready", line)
		}
		confined(t, c.Process.Pid, role.CustodianUser)
		for call, want := range map[role.LoanCall]role.Answer{
			{Call: role.CallLend, Giver: register.Digest{1}, Taker: register.Digest{1}}: role.AnswerHeld,
			{Call: role.CallRenew, Number: 1}:                                           role.AnswerNotHeld,
		} {
			if got, l, err := role.AskLoan(loans, call); err != nil || got != want || l.Secret != nil {
				t.Errorf("call %d: got %v, a secret: %t, error %v, want %v", call.Call, got, l.Secret != nil, err, want)
			}
		}
		stop(t, c)
	}
	// The secret goes to another custodian, which lends nothing before it has heard that it is gone here.
	c, line, loans := m.startCustodian(2)
	if line != "ready" {
		t.Fatalf("the custodian said %q, want ready", line)
	}
	if got, _, err := role.AskLoan(loans, role.LoanCall{Call: role.CallCame}); err != nil || got != role.AnswerDone {
		t.Errorf("a secret that came from nobody: got %v, error %v, want nothing to settle", got, err)
	}
	stop(t, c)
	if _, line, _ := m.startCustodian(9); line != role.JournalRolledBack.String() {
		t.Errorf("over a disk that is older than its last boot: it said %q, want %q", line, role.JournalRolledBack)
	}
	m.secret[0]++
	if _, line, _ := m.startCustodian(2); line != role.JournalForeign.String() {
		t.Errorf("over another custodian's disk: it said %q, want %q", line, role.JournalForeign)
	}
}
