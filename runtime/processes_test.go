package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/numbers"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

const clientAddress = "0:a72edb85294a01228bd5c169b9c2cb19a3322095d5df4c0f040c95c8e132c9d4"

// measuredConfig is a config that charges.
func measuredConfig(t testing.TB) (config.Measured, []byte) {
	t.Helper()
	m := config.Measured{
		Identity: config.Identity{Network: config.Local, RootContract: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xa1}, 32))},
			PayoutOwner: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xb2}, 32))}, Sealing: config.SealTPM, Instance: config.InstanceSealed},
		Service: config.Service{
			Engine: config.Engine{Volume: config.Volume{Root: register.Digest{1}, Blocks: 1}, Argv: []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf", "--host", "/run/engine/e.sock", "--cache-ram", "0", "--no-slots", "--no-cache-prompt"},
				Env: []string{"GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"}, MemoryBytes: 1 << 30},
			Model: config.Model{Name: "tiny", Volume: config.Volume{Root: register.Digest{2}, Blocks: 1}}, GPU: config.GPUNone,
			Limits: config.Limits{RequestBytes: 1 << 16, AnswerTokens: 128, Concurrent: 128, ContextTokens: 512},
			Price: config.Terms{Payment: config.PayCharge, Price: ton.Price{NanotonPerToken: 20, PromptWeight: ton.WeightOne, CachedWeight: 1000,
				CompletionWeight: 2 * ton.WeightOne, ReasoningWeight: ton.WeightOne}},
			Wipe: config.WipeFreed,
		},
	}
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return m, raw
}

// machine is what init gives to the two processes.
type machine struct {
	t       testing.TB
	dir     string
	program string
	journal *os.File
	secret  []byte
	url     string
	http    *http.Client
	claims  []uint64
	numbers *bufio.Reader // lines of the gateway's numbers
	proofs  *bufio.Reader // of the keeper that was started last
	last    *receipt.Signed
	fetch   func(stream *os.File)                     // starts who asks liteservers; nil: nobody
	quote   func(evidence.Request) *evidence.Evidence // nil: evidence that proves nothing
}

// newMachine builds the program as the image has it: without cgo.
func newMachine(t testing.TB) *machine {
	if os.Getuid() != 0 {
		t.Skip("only root can start processes that give up being root")
	}
	m := &machine{t: t, dir: t.TempDir(), secret: bytes.Repeat([]byte{7}, secret.Size)}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for p := filepath.Dir(m.dir); p != "/" && p != os.TempDir(); p = filepath.Dir(p) { // the gateway's user must get through
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.program = filepath.Join(m.dir, "runtime")
	build := exec.Command("go", "build", "-o", m.program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	_, raw := measuredConfig(t)
	if err := os.WriteFile(m.path("measured"), raw, 0o400); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"root/keeper", "root/engine"} {
		if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if m.journal, err = os.Create(m.path("journal")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.journal.Close() })
	if err := m.journal.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) pipe() (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	return r, w
}

// spawn starts a role with its descriptors and a status pipe, and returns what it says first.
func (m *machine) spawn(role string, net bool, flags []string, files ...*os.File) (*exec.Cmd, string) {
	m.t.Helper()
	return m.start(m.program, role, net, flags, files...)
}

func (m *machine) start(program, role string, net bool, flags []string, files ...*os.File) (*exec.Cmd, string) {
	m.t.Helper()
	statusOut, statusIn := m.pipe()
	c := exec.Command(program, append([]string{role, "-measured", m.path("measured")}, flags...)...)
	c.ExtraFiles = append(files, statusIn)
	c.Stderr = os.Stderr
	c.Env = []string{"GOTRACEBACK=none", "GODEBUG=schedtrace=2147483647,clobberfree=1,asyncpreemptoff=1"} // as init starts it
	if !net {
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	if err := c.Start(); err != nil {
		m.t.Fatal(err)
	}
	statusIn.Close()
	m.t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	line, err := bufio.NewReader(statusOut).ReadString('\n')
	if err != nil && line == "" {
		m.t.Fatalf("%s said nothing: %v", role, err)
	}
	return c, strings.TrimSpace(line)
}

func (m *machine) startKeeper(boots uint64) (*exec.Cmd, string) {
	m.t.Helper()
	secretOut, secretIn := m.pipe()
	defer secretOut.Close()
	if _, err := secretIn.Write(binary.LittleEndian.AppendUint64(bytes.Clone(m.secret), boots)); err != nil {
		m.t.Fatal(err)
	}
	secretIn.Close()
	os.Remove(m.path("root/keeper/keeper.sock"))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.path("root/keeper/keeper.sock"), Net: "unix"})
	if err != nil {
		m.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chown(m.path("root/keeper/keeper.sock"), role.GatewayUser, role.GatewayUser); err != nil {
		m.t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	proofsOut, proofsIn := m.pipe()
	m.t.Cleanup(func() { proofsOut.Close() })
	defer proofsIn.Close()
	m.proofs = bufio.NewReader(proofsOut)
	ours, theirs := m.pair()
	defer theirs.Close()
	if m.fetch != nil {
		m.fetch(ours)
	}
	ours.Close()
	return m.spawn("keeper", false, nil, secretOut, m.journal, f, proofsIn, theirs)
}

// pair returns two sockets that are each other's end.
func (m *machine) pair() (ours, theirs *os.File) {
	m.t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	return os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
}

func (m *machine) startGateway() *exec.Cmd {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close()
	m.url = "https://" + l.Addr().String()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	ours, theirs := m.pair()
	defer theirs.Close()
	go func() {
		defer ours.Close()
		role.ServeQuotes(ours, func(r evidence.Request) (*evidence.Evidence, error) {
			if m.quote != nil {
				return m.quote(r), nil
			}
			return &evidence.Evidence{Platform: evidence.VTPM, Statement: evidence.Statement{NonceRoot: r.NonceRoot, TLSKey: r.TLSKey}}, nil
		}, nil)
	}()
	wipes, asks := m.pair()
	m.t.Cleanup(func() { wipes.Close() })
	defer asks.Close()
	numbersOut, numbersIn := m.pipe()
	m.t.Cleanup(func() { numbersOut.Close() })
	defer numbersIn.Close()
	m.numbers = bufio.NewReader(numbersOut)
	c, line := m.spawn("gateway", true, []string{"-keeper", "/keeper/keeper.sock", "-engine", "/engine/e.sock", "-chroot", m.path("root")}, f, theirs, asks, numbersIn)
	if line != "ready" {
		m.t.Fatalf("gateway said %q, want ready", line)
	}
	m.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	return c
}

// startEngine answers like llama-server, with 14 prompt and 3 completion tokens.
func (m *machine) startEngine() {
	l, err := net.Listen("unix", m.path("root/engine/e.sock"))
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(m.path("root/engine/e.sock"), 0o777); err != nil {
		m.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, data := range []string{`{"choices":[{"index":0,"delta":{"content":"Os"}}]}`, `{"choices":[{"index":0,"delta":{"content":"lo"}}]}`,
			`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, `{"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":3}}`, "[DONE]"} {
			fmt.Fprintf(w, "data: %s\n\n", data)
			w.(http.Flusher).Flush()
		}
	})}
	go server.Serve(l)
	m.t.Cleanup(func() { server.Close() })
}

// chat asks once and checks the whole proof.
func (m *machine) chat() {
	m.t.Helper()
	const body = `{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}]}`
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Chrysalis-Client", clientAddress)
	response, err := m.http.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		m.t.Fatalf("status %d, %v: %s", response.StatusCode, err, text)
	}
	var answer struct {
		ID        string
		Choices   []struct{ Message struct{ Content string } }
		Chrysalis struct{ Receipt, Charge []byte }
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		m.t.Fatal(err)
	}
	if answer.Choices[0].Message.Content != "Oslo" {
		m.t.Errorf("answer: %s", text)
	}
	sealed, err := secret.New(m.secret)
	if err != nil {
		m.t.Fatal(err)
	}
	measured, _ := measuredConfig(m.t)
	scope, err := secret.ScopeOf(measured.Identity, sealed.Instance())
	if err != nil {
		m.t.Fatal(err)
	}
	got, err := receipt.Verify(answer.Chrysalis.Receipt, pubkey.Of(secret.DeriveSigner(sealed, secret.RoleReceipt, scope)))
	if err != nil {
		m.t.Fatal(err)
	}
	hash := receipt.NewResponseHash()
	hash.Content([]byte("Oslo"))
	if got.Request != sha256.Sum256([]byte(body)) || got.Response != hash.Sum() || got.Model != [32]byte{2} ||
		got.Engine != [32]byte{1} || got.Weighted != 14+2*3 {
		m.t.Errorf("receipt: %+v", got)
	}
	m.vouched(answer.ID, pubkey.Of(secret.DeriveSigner(sealed, secret.RoleReceipt, scope)), body, text)
	if m.last != nil {
		if err := got.Follows(m.last); err != nil {
			m.t.Error(err)
		}
	}
	signed := receipt.Signed(answer.Chrysalis.Receipt)
	m.last = &signed
	contract, err := ton.Parse(clientAddress)
	if err != nil {
		m.t.Fatal(err)
	}
	policy := claim.Policy{Key: pubkey.Of(secret.DeriveSigner(sealed, secret.RoleClaim, scope)), Contract: contract}
	charge, err := claim.Verify(answer.Chrysalis.Charge, policy)
	if err != nil {
		m.t.Fatal(err)
	}
	m.claims = append(m.claims, charge.Tokens)
	if want := uint64(20 * len(m.claims)); charge.Tokens != want {
		m.t.Errorf("charge %d counts to %d, want %d", len(m.claims), charge.Tokens, want)
	}
}

// vouched asks for the signature of an answer, which the keeper makes.
func (m *machine) vouched(id string, key pubkey.Ed25519, request string, answer []byte) {
	m.t.Helper()
	response, err := m.http.Get(m.url + "/v1/signature/" + id)
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	var signed struct{ Text, Signature string }
	if err := json.Unmarshal(text, &signed); err != nil {
		m.t.Fatalf("signature: status %d: %v", response.StatusCode, err)
	}
	signature, err := hex.DecodeString(signed.Signature)
	if err != nil || len(signature) != ed25519.SignatureSize {
		m.t.Fatalf("signature: %s", text)
	}
	if err := receipt.VerifyText(sha256.Sum256([]byte(request)), sha256.Sum256(answer), receipt.TextSignature(signature), key); err != nil {
		m.t.Errorf("signature %s: %v", text, err)
	}
}

// exported reads what the keeper hands to the host next: the proof of the last answer.
func (m *machine) exported() {
	m.t.Helper()
	line, err := m.proofs.ReadString('\n')
	if err != nil {
		m.t.Fatal(err)
	}
	p, err := receipt.ParseLine(strings.TrimSuffix(line, "\n"))
	if err != nil {
		m.t.Fatal(err)
	}
	charge, err := claim.Parse(p.Charge[:])
	if err != nil || *p.Receipt != *m.last || charge.Message.Tokens != m.claims[len(m.claims)-1] {
		m.t.Errorf("exported: got a charge of %v and error %v, want the last answer's proof", charge, err)
	}
}

// confined checks each thread of a process.
func confined(t *testing.T, pid, user int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads found, %v; want several", len(tasks), err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for _, want := range []string{
			fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", user, user, user, user), fmt.Sprintf("Gid:\t%d\t%d\t%d\t%d\n", user, user, user, user),
			"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
			"NoNewPrivs:\t1", "Seccomp:\t2",
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", task, want)
			}
		}
	}
}

// resident returns the resident set of a process in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

func stop(t *testing.T, c *exec.Cmd) {
	t.Helper()
	c.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s ended with %v, want nothing to complain of", c.Args[1], err)
		}
	case <-time.After(15 * time.Second):
		t.Errorf("%s did not end", c.Args[1])
	}
}

// TestProcesses runs keeper and gateway as init starts them, with a fake engine, over two boots.
func TestProcesses(t *testing.T) {
	m := newMachine(t)
	m.startEngine()
	for boot := range uint64(2) {
		k, line := m.startKeeper(boot)
		if line != "ready" {
			t.Fatalf("keeper said %q, want ready", line)
		}
		g := m.startGateway()
		confined(t, k.Process.Pid, role.KeeperUser)
		confined(t, g.Process.Pid, role.GatewayUser)
		counted, err := m.numbers.ReadString('\n')
		if v, bad := numbers.Parse(strings.TrimSuffix(counted, "\n")); err != nil || bad != nil || v[numbers.Receipts] != 3*boot || v[numbers.JournalBytes] != 1<<20 ||
			v[numbers.Places] == 0 || v[numbers.KeyEnds] == 0 {
			t.Errorf("numbers: got %q (%v, %v), want %d receipts, the journal's size, places and keys", counted, err, bad, 3*boot)
		}
		if boot > 0 {
			m.exported() // the newest of the boot before
		}
		for range 3 {
			m.chat()
			m.exported()
		}
		response, err := m.http.Get(m.url + "/v1/evidence?nonce=" + strings.Repeat("5a", 32))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if _, bad := evidence.Decode(body); err != nil || bad != nil {
			t.Errorf("evidence: %v, %v", err, bad)
		}
		// Both and init together have 150 MB in the guest.
		if k, g := resident(t, k.Process.Pid), resident(t, g.Process.Pid); k+g > 110<<20 {
			t.Errorf("keeper and gateway are %d and %d MiB resident, want at most 110 together", k>>20, g>>20)
		} else {
			t.Logf("keeper and gateway are %d and %d MiB resident", k>>20, g>>20)
		}
		if boot == 0 {
			g.Process.Kill() // power fails
			k.Process.Kill()
			k.Wait()
			g.Wait()
			continue
		}
		stop(t, g)
		stop(t, k)
	}
}

func TestKeeperRefuses(t *testing.T) {
	m := newMachine(t)
	k, line := m.startKeeper(0)
	if line != "ready" {
		t.Fatalf("keeper said %q, want ready", line)
	}
	stop(t, k)
	if _, line := m.startKeeper(5); line != "fail journal-rolled-back" {
		t.Errorf("older disk: keeper said %q", line)
	}
	m.secret[0]++
	if _, line := m.startKeeper(1); line != "fail journal-foreign" {
		t.Errorf("another secret: keeper said %q", line)
	}
	m.secret[0]--
	if err := m.journal.Truncate(1<<20 - 4096); err != nil {
		t.Fatal(err)
	}
	if _, line := m.startKeeper(1); line != "fail journal-short" {
		t.Errorf("disk cut short: keeper said %q", line)
	}
}

// TestDescriptors: a role that was given a descriptor too few, or one twice, ends before it does anything.
func TestDescriptors(t *testing.T) {
	m := newMachine(t)
	out, in := m.pipe()
	defer out.Close()
	defer in.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.path("s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	proofsOut, proofs := m.pipe()
	defer proofsOut.Close()
	defer proofs.Close()
	chain, other := m.pair()
	defer chain.Close()
	defer other.Close()
	for _, tt := range []struct {
		name, role, want string
		flags            []string
		files            []*os.File
	}{
		{"keeper without status", "keeper", "descriptor 8, status: ", nil, []*os.File{out, m.journal, socket, proofs, chain}},
		{"keeper without journal", "keeper", "descriptor 4, journal: ", nil, []*os.File{out, socket, proofs, in}},
		{"keeper whose secret is its status", "keeper", "descriptor 8, status, is the same file as secret", nil, []*os.File{out, m.journal, socket, proofs, chain, in}},
		{"gateway whose listener gives quotes", "gateway", "descriptor 4, quotes, is the same file as listener",
			[]string{"-keeper", "/k", "-engine", "/e", "-chroot", m.path("root")}, []*os.File{socket, socket, proofs, in}},
	} {
		c := exec.CommandContext(t.Context(), m.program, append([]string{tt.role, "-measured", m.path("measured")}, tt.flags...)...)
		c.ExtraFiles = tt.files
		if said, err := c.CombinedOutput(); err == nil || !strings.Contains(string(said), tt.want) {
			t.Errorf("%s: got %q (%v), want a refusal with %q", tt.name, said, err, tt.want)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"shell"}, {"keeper", "-x"}, {"keeper", "extra"}, {"gateway", "-measured", "/nowhere"}} {
		if code := role.Main(args, roles); code == 0 {
			t.Errorf("%q: exit code 0, want another", args)
		}
	}
}
