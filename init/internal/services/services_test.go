package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chrysalis/init/internal/sealing"
	"chrysalis/init/internal/supervise"
	"chrysalis/init/status"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// TestMain turns the test binary into a keeper, when it is started as one: what it says is in the journal's file, and what it
// was given goes behind it.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[2] == "keeper" {
		keeperMain()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == gpuHelper {
		helperMain()
		return
	}
	if len(os.Args) > 2 && os.Args[2] == "borrower" {
		borrowerMain()
		return
	}
	if len(os.Args) > 2 && os.Args[2] == "fetch" {
		fetchMain()
		return
	}
	if len(os.Args) > 2 && os.Args[2] == "custodian" {
		custodianMain()
		return
	}
	os.Exit(m.Run())
}

// fetchMain says back what it is told.
func fetchMain() {
	if _, err := role.Fetch.Parse(os.Args[3:]); err != nil {
		panic(err)
	}
	files, err := role.Fetch.Inherit()
	if err != nil {
		panic(err)
	}
	role.Say(files[role.Status], role.Ready)
	io.Copy(files[role.Chain], files[role.Chain])
}

func keeperMain() {
	if _, err := role.Keeper.Parse(os.Args[3:]); err != nil {
		panic(err)
	}
	files, err := role.Keeper.Inherit()
	if err != nil {
		panic(err)
	}
	s, boots, err := role.ReceiveSecret(files[role.SecretPipe])
	if err != nil {
		panic(err)
	}
	say, err := os.ReadFile(files[role.Journal].Name())
	if err != nil {
		say = make([]byte, 4096)
		n, _ := files[role.Journal].ReadAt(say, 0)
		say = say[:n]
	}
	id := s.Instance()
	fmt.Fprintf(files[role.Journal], "%x %d", id, boots)
	if bytes.HasPrefix(say, []byte("proof ")) { // on the proofs' pipe alone
		files[role.Proofs].Write(say)
		files[role.Status].Write([]byte("ready\n"))
		time.Sleep(time.Hour)
	}
	files[role.Status].Write(say)
	if strings.HasPrefix(string(say), "ready") {
		time.Sleep(time.Hour)
	}
}

// noChain is the stream of a keeper that settles nothing.
func noChain(t *testing.T) *os.File {
	t.Helper()
	f, err := NoChain()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestFetch: the keeper's stream leads to who asks liteservers, whose end is the guest's; without one it leads nowhere.
func TestFetch(t *testing.T) {
	s, g := start(t)
	chain, err := s.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var back [4]byte
	_, err = chain.Write([]byte("what"))
	if _, bad := io.ReadFull(chain, back[:]); err != nil || bad != nil || string(back[:]) != "what" {
		t.Errorf("said back is %q (%v, %v)", back, err, bad)
	}
	chain.Close()
	if code := <-g.ends; code != status.FetchExited {
		t.Errorf("the guest ends with %s, want %s", code, status.FetchExited)
	}
	if n, err := noChain(t).Read(back[:]); n != 0 || err != io.EOF {
		t.Errorf("a stream to nobody: read %d (%v), want its end", n, err)
	}
}

// TestTables: every role and every word has its place among the host's words, under the same name.
func TestTables(t *testing.T) {
	seen := map[status.Code]bool{}
	for _, r := range role.All() {
		if int(r) >= len(roles) || roles[r].exited.String() != r.String()+"-exited" || roles[r].failed.String() != r.String()+"-failed" {
			t.Fatalf("%s has no codes of its own name", r)
		}
		seen[roles[r].exited], seen[roles[r].failed] = true, true
		for _, w := range r.Words() {
			code, gaveUp := reasons[w]
			event, happened := events[w]
			switch {
			case w == role.Ready && !gaveUp && !happened:
			case w != role.Ready && happened && !gaveUp && event.String() == w.String():
			case w != role.Ready && gaveUp && !happened && "fail "+code.String() == w.String():
			default:
				t.Errorf("%s: %q is event %q and code %q of the host's, want one of that name", r, w, event, code)
			}
			seen[code] = true
		}
	}
	for _, c := range status.Codes() {
		if strings.HasPrefix(c.String(), "journal-") && !seen[c] {
			t.Errorf("no role gives the reason %s", c)
		}
	}
}

// children is the one owner of this process's children: two would reap each other's.
var children = sync.OnceValue(supervise.New)

// guest is what the services report to.
type guest struct {
	ctx     context.Context // until the first end
	ends    chan status.Code
	started supervise.Process
}

func start(t *testing.T) (*Services, *guest) {
	t.Helper()
	ctx, ended := context.WithCancel(t.Context())
	g := &guest{ctx: ctx, ends: make(chan status.Code, 8)}
	s := New(Settings{
		Start: func(p supervise.Process) (*supervise.Child, error) {
			g.started = p
			p.Argv, p.NoNetwork = append([]string{os.Args[0]}, p.Argv...), false
			return children().Start(p)
		},
		End: func(code status.Code, _ error) { g.ends <- code; ended() },
		Log: os.DevNull,
	})
	t.Cleanup(s.Kill)
	return s, g
}

// testSecret gives the services a secret to hold.
func testSecret(t *testing.T) *secret.Secret {
	t.Helper()
	s, err := secret.Random()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keeperFiles are a journal with text and a socket.
func keeperFiles(t *testing.T, text string) (journal, socket *os.File) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	journal, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if socket, err = l.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { journal.Close(); l.Close(); socket.Close() })
	return journal, socket
}

// TestKeeper starts a process as the keeper is started, and has it say things.
func TestKeeper(t *testing.T) {
	for _, tt := range []struct {
		name, says, fails string
		want              status.Code
	}{
		{"ready", "ready\n", "", 0},
		{"gives up", "fail journal-torn\n", "keeper", status.JournalTorn},
		{"gives up later", "ready\nfail journal-io\n", "", status.JournalIO},
		{"says what is no word", "hello\n", "keeper", status.Keeper.Failed()},
		{"says another role's word", "ready\nengine-up\n", "", status.Keeper.Failed()},
		{"says what may be the host's", "ready\nend init-broken\n", "", status.Keeper.Failed()},
		{"ends without a word", "", "keeper", status.KeeperExited},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, g := start(t)
			held := testSecret(t)
			id := held.Instance()
			s.Hold(sealing.Taken{Secret: held, Boots: 7})
			journal, socket := keeperFiles(t, tt.says)
			err := s.keeper(g.ctx, journal, noChain(t), socket, io.Discard)
			if (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("starting: got %v, want an error with %q", err, tt.fails)
			}
			var code status.Code
			if tt.want != 0 {
				code = <-g.ends
			}
			if code != tt.want {
				t.Errorf("the guest's end: got %s, want %s", code, tt.want)
			}
			if s.taken.Secret != nil || held.Instance() == id {
				t.Error("the secret is still held after the keeper has it")
			}
			got, err := os.ReadFile(journal.Name())
			if want := fmt.Sprintf("%s%x 7", tt.says, id); err != nil || string(got) != want {
				t.Errorf("the keeper got %q (%v), want %q", got, err, want)
			}
			argv := []string{"/usr/bin/runtime", "keeper", "-measured", measuredFile}
			p := g.started
			if p.Name != "keeper" || !p.NoNetwork || !slices.Equal(p.Argv, argv) || len(p.Files) != 6 || !slices.Equal(p.Env, environment) {
				t.Errorf("started %+v, want the keeper without a network, with six descriptors", p)
			}
		})
	}
}

// TestEnvironment: the runtime of every service overwrites what it frees, and writes no registers down, which the gateway rests on.
func TestEnvironment(t *testing.T) {
	for _, v := range environment {
		if settings, ok := strings.CutPrefix(v, "GODEBUG="); ok && slices.Contains(strings.Split(settings, ","), "clobberfree=1") &&
			slices.Contains(strings.Split(settings, ","), "asyncpreemptoff=1") {
			return
		}
	}
	t.Errorf("environment %q lacks clobberfree or asyncpreemptoff", environment)
}

// TestProofs: what the keeper hands out reaches the host as it is; anything else ends the guest; a host that is gone does not.
func TestProofs(t *testing.T) {
	for _, tt := range []struct {
		name, says, want string
		fails            error
		ends             bool
	}{
		{"proofs", "proof a b\nproof c d\n", "proof a b\nproof c d\n", nil, false},
		{"another word", "proof a b\nend init-broken\n", "proof a b\n", nil, true},
		{"a host that is gone", "proof a b\nproof c d\n", "", errors.New("the port is gone"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, g := start(t)
			s.Hold(sealing.Taken{Secret: testSecret(t), Boots: 0})
			journal, socket := keeperFiles(t, tt.says)
			to := &hostPort{fails: tt.fails, wrote: make(chan string, 8)}
			// A guest that ends may do so before it has heard that the keeper is ready.
			if err := s.keeper(g.ctx, journal, noChain(t), socket, to); err != nil && !(tt.ends && errors.Is(err, context.Canceled)) {
				t.Fatal(err)
			}
			var got string
			for len(got) < len(tt.want) {
				got += <-to.wrote
			}
			if got != tt.want {
				t.Errorf("the host got %q, want %q", got, tt.want)
			}
			if tt.fails != nil {
				<-to.wrote // it was tried, once
			}
			if tt.ends {
				if code := <-g.ends; code != status.KeeperExited {
					t.Errorf("the guest's end: got %s, want %s", code, status.KeeperExited)
				}
				return
			}
			select {
			case code := <-g.ends:
				t.Errorf("the guest ended with %s, want it to go on", code)
			case more := <-to.wrote:
				t.Errorf("the host got %q as well", more)
			case <-time.After(50 * time.Millisecond):
			}
		})
	}
}

// hostPort is the host's side of the proofs.
type hostPort struct {
	fails error
	wrote chan string
}

func (p *hostPort) Write(b []byte) (int, error) {
	p.wrote <- string(b)
	return len(b), p.fails
}

// TestKeeperWithoutSecret: nothing is given to the keeper when nothing was taken, or when the guest is ending.
func TestKeeperWithoutSecret(t *testing.T) {
	s, _ := start(t)
	journal, socket := keeperFiles(t, "ready\n")
	if err := s.keeper(t.Context(), journal, noChain(t), socket, io.Discard); err == nil || !strings.Contains(err.Error(), "no secret") {
		t.Errorf("before it was taken: got %v, want a refusal", err)
	}
	held := testSecret(t)
	id := held.Instance()
	s.Hold(sealing.Taken{Secret: held, Boots: 0})
	s.Kill()
	if held.Instance() == id {
		t.Error("a killed guest's secret is still there")
	}
	if err := s.keeper(t.Context(), journal, noChain(t), socket, io.Discard); err == nil || !strings.Contains(err.Error(), "no secret") {
		t.Errorf("after the end: got %v, want a refusal", err)
	}
}

// TestOrdered: a role is not started with a descriptor missing, or one too many.
func TestOrdered(t *testing.T) {
	f := os.Stdin
	for _, tt := range []struct {
		name  string
		files role.Files
		want  string
	}{
		{"whole", role.Files{role.SecretPipe: f, role.Journal: f, role.Socket: f, role.Proofs: f, role.Chain: f}, ""},
		{"one missing", role.Files{role.SecretPipe: f, role.Socket: f, role.Proofs: f}, "no descriptor for journal"},
		{"one closed", role.Files{role.SecretPipe: f, role.Journal: nil, role.Socket: f, role.Proofs: f}, "no descriptor for journal"},
		{"another role's", role.Files{role.SecretPipe: f, role.Journal: f, role.Socket: f, role.Proofs: f, role.Chain: f, role.Quotes: f}, "6 descriptors, want 5"},
	} {
		passed, err := ordered(role.Keeper, tt.files, f)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || err == nil && len(passed) != 6 {
			t.Errorf("%s: got %d descriptors and error %v, want one with %q", tt.name, len(passed), err, tt.want)
		}
	}
}

// TestNotReadyInTime: a role that runs and says nothing fails its step.
func TestNotReadyInTime(t *testing.T) {
	s, _ := start(t)
	s.Hold(sealing.Taken{Secret: testSecret(t), Boots: 0})
	journal, socket := keeperFiles(t, "ready")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.keeper(ctx, journal, noChain(t), socket, io.Discard); err == nil || !strings.Contains(err.Error(), "waiting for keeper") {
		t.Errorf("got %v, want the step's limit", err)
	}
}

// TestLastWordsComeFirst: a process that has gone ends the guest only when what it said has been heard.
func TestLastWordsComeFirst(t *testing.T) {
	s, g := start(t)
	hearing, heard := make(chan struct{}), make(chan struct{})
	err := s.start(supervise.Process{Name: "short", Argv: []string{"-test.run=^$"}}, status.KeeperExited, func() {
		close(hearing)
		<-heard
	})
	if err != nil {
		t.Fatal(err)
	}
	<-hearing // the process has gone
	select {
	case code := <-g.ends:
		t.Fatalf("the guest's end before its last words were heard: got %s, want none", code)
	case <-time.After(50 * time.Millisecond):
	}
	close(heard)
	if code := <-g.ends; code != status.KeeperExited {
		t.Errorf("the guest's end: got %s, want %s", code, status.KeeperExited)
	}
}
