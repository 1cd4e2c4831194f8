package lending

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/sevsnp"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/internal/custodian"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

const lease = 20 * time.Second

// hardware is a software platform with one root, on which both sides run: what a test changes in it is changed before anybody is asked.
type hardware struct {
	platform evidence.Platform
	mu       sync.Mutex
	contents *attesttest.Contents
	attest   func(nonceRoot, tlsKey [32]byte) *evidence.Evidence
	root     []byte
	td       *attesttest.TDXGuest
	tpm      *attesttest.Guest
	snp      *attesttest.SNPGuest
}

// newHardware makes a platform. A config to begin with is needed by the software platform alone.
func newHardware(p evidence.Platform) *hardware {
	some, err := example(config.Custody{}, false).Encode()
	if err != nil {
		panic(err)
	}
	h := &hardware{platform: p}
	switch p {
	case evidence.VTPM:
		h.tpm = attesttest.New(some, time.Now())
		h.contents, h.attest, h.root = &h.tpm.Contents, h.tpm.Attest, h.tpm.Root.Raw
	case evidence.TDX:
		h.td = attesttest.NewTDXGuest(some, time.Now())
		h.contents, h.attest, h.root = &h.td.Contents, h.td.Attest, h.td.Roots().TDX.Raw
	case evidence.SEVSNP:
		h.snp = attesttest.NewSNPGuest(some, sevsnp.Genoa, time.Now())
		h.contents, h.attest, h.root = &h.snp.Contents, h.snp.Attest, h.snp.Processor.Root().Raw
	}
	return h
}

// custody is what an identity says whose guests run on this hardware.
func (h *hardware) custody() config.Custody {
	c := config.Custody{LeaseSeconds: uint32(lease / time.Second), CollateralHours: 9000, Roots: [][]byte{h.root}}
	if h.snp != nil {
		tcb, err := h.snp.Processor.Report.ReportedTCB.Parts(h.snp.Product)
		if err != nil {
			panic(err)
		}
		c.MinTCB = []config.PatchLevels{{Product: string(h.snp.Product), FMC: tcb.FMC, Bootloader: tcb.Bootloader, TEE: tcb.TEE, SNP: tcb.SNP, Microcode: tcb.Microcode}}
	}
	return c
}

// example is a config: of a guest that serves, or of its custodian; without custody of one that seals by itself.
func example(c config.Custody, custodian bool) config.Measured {
	m := config.Measured{
		Identity: config.Identity{Network: config.Local, RootContract: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xa1}, 32))},
			PayoutOwner: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xb2}, 32))}, Sealing: config.SealTPM, Instance: config.InstanceSealed},
		Service: config.Service{
			Engine: config.Engine{Volume: config.Volume{Root: register.Digest{1}, Blocks: 1}, Argv: []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf", "--host", "/run/engine/e.sock", "--cache-ram", "0", "--no-slots", "--no-cache-prompt"},
				Env: []string{"GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"}, MemoryBytes: 1 << 30},
			Model: config.Model{Name: "tiny", Volume: config.Volume{Root: register.Digest{2}, Blocks: 1}}, GPU: config.GPUNone,
			Limits: config.Limits{RequestBytes: 1 << 16, AnswerTokens: 128, Concurrent: 128, ContextTokens: 512},
			Price:  config.Terms{Payment: config.PayNothing}, Wipe: config.WipeFreed,
		},
	}
	if c.LeaseSeconds > 0 {
		m.Identity.Sealing, m.Identity.Custody = config.SealCustodian, c
	}
	if custodian {
		m.Service = config.Service{Custodian: true, GPU: config.GPUNone}
	}
	return m
}

// party is a guest on some hardware. A test changes fields of it to make one thing wrong.
type party struct {
	on       *hardware
	config   config.Measured
	image    handover.Image
	list     []byte
	released bool                                            // it has its secret
	build    byte                                            // another build has other registers
	name     func(*evidence.Statement)                       // what a liar has the statement say
	edit     func(*evidence.Evidence)                        // and the evidence, after it was signed
	quote    func(evidence.Request, *party) evidence.Request // and what it has quoted
}

func (p *party) measured() []byte {
	b, err := p.config.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

// evidence has the hardware quote a request, as init does.
func (p *party) evidence(r evidence.Request) (*evidence.Evidence, error) {
	p.on.mu.Lock()
	defer p.on.mu.Unlock()
	if p.quote != nil {
		r = p.quote(r, p)
	}
	c, measured := p.on.contents, p.measured()
	sequence, err := eventlog.SequenceOf(measured)
	if err != nil {
		return nil, err
	}
	if p.released && !p.config.Service.Custodian {
		sequence.Loan = eventlog.Loan{Number: 1, Lender: register.Digest{1}}
	}
	in := eventlog.InRTMR
	if p.on.platform == evidence.VTPM {
		in = eventlog.InPCRs
	}
	key := pubkey.Of(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)))
	c.Measured, c.Records = measured, sequence.Records(in)
	c.Statement = evidence.Statement{ReceiptKey: key, ClaimKey: key, SecretHash: [32]byte{5}}
	if !p.released {
		c.Ask()
	}
	c.Statement.HPKEKey, c.Statement.Epoch, c.Statement.NotAfter = r.HPKEKey, r.Epoch, r.NotAfter
	if p.name != nil {
		p.name(&c.Statement)
	}
	defer p.rebuilt()()
	e := p.on.attest(r.NonceRoot, r.TLSKey)
	if p.edit != nil {
		p.edit(e)
	}
	return e, nil
}

// rebuilt changes the register that names a build, and returns what changes it back.
func (p *party) rebuilt() func() {
	h := p.on
	switch {
	case h.tpm != nil:
		boot := h.tpm.Boot
		h.tpm.Boot = append(slices.Clone(boot), attesttest.BootEvent{Register: 9, Type: 6, Data: []byte("LOADED_IMAGE::Initrd"), Hashed: []byte{p.build}})
		return func() { h.tpm.Boot = boot }
	case h.td != nil:
		before := h.td.Machine.Body.RTMR[2]
		h.td.Machine.Body.RTMR[2][47] ^= p.build
		return func() { h.td.Machine.Body.RTMR[2] = before }
	}
	before := h.snp.Processor.Report.Measurement
	h.snp.Processor.Report.Measurement[47] ^= p.build
	return func() { h.snp.Processor.Report.Measurement = before }
}

func (p *party) side(t testing.TB) *Side {
	t.Helper()
	own, err := (&party{on: p.on, config: p.config, released: p.released, build: p.build}).evidence(evidence.Request{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSide(own, p.measured(), p.image, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// custodianOn and borrowerOn are the two sides as they should be.
func custodianOn(h *hardware) *party {
	return &party{on: h, config: example(h.custody(), true), image: handover.Image{SecurityVersion: 2}, released: true}
}

func borrowerOn(h *hardware) *party {
	return &party{on: h, config: example(h.custody(), false), image: handover.Image{SecurityVersion: 2}}
}

// successorOn is a custodian that takes the secret over, as it should be.
func successorOn(h *hardware) *party {
	return &party{on: h, config: example(h.custody(), true), image: handover.Image{SecurityVersion: 2}}
}

// disk is a disk in memory.
type disk []byte

func (d disk) ReadAt(p []byte, off int64) (int, error)  { return copy(p, d[off:]), nil }
func (d disk) WriteAt(p []byte, off int64) (int, error) { return copy(d[off:], p), nil }
func (d disk) Sync() error                              { return nil }
func (d disk) Size() (int64, error)                     { return int64(len(d)), nil }

// pipes is a network of one listener, in memory, so that a test's clock is its own.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
	case <-p.done:
		ours.Close()
	}
	return ours
}

// lender is a custodian's guest that runs.
type lender struct {
	*pipes
	disk   disk
	boots  uint64
	server interface{ Close() error }

	mu    sync.Mutex
	calls []role.Call // that reached the custodian
	// silent has the custodian answer nothing, hangs has it never answer.
	silent bool
	hangs  chan struct{}
	// lies has another answer than the custodian's leave. May be nil.
	lies func(role.LoanCall, role.Answer, role.Loan) (role.Answer, role.Loan)
}

func theSecret() *secret.Secret {
	s, err := secret.New(bytes.Repeat([]byte{7}, secret.Size))
	if err != nil {
		panic(err)
	}
	return s
}

// start starts the guest of p, or starts it again over its disk.
func (l *lender) start(t testing.TB, p *party) {
	t.Helper()
	c, err := custodian.Open(l.disk, [32]byte{3}, role.Kept{Secret: theSecret(), Boots: l.boots}, lease, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.boots++
	attested, err := guest.NewServer(p.evidence, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := NewLender(p.side(t), attested, func(call role.LoanCall) (role.Answer, role.Loan, error) {
		l.mu.Lock()
		hangs := l.hangs
		l.mu.Unlock()
		if hangs != nil {
			<-hangs // a channel: who waits for a mutex holds up the test's clock
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.silent {
			return 0, role.Loan{}, errors.New("no answer")
		}
		l.calls = append(l.calls, call.Call)
		a, loan, err := c.Answer(call)
		if l.lies != nil {
			a, loan = l.lies(call, a, loan)
		}
		return a, loan, err
	})
	server := served.Server()
	server.ErrorLog = log.New(io.Discard, "", 0)
	l.pipes, l.server = newPipes(), server
	done := make(chan struct{})
	pipes := l.pipes
	go func() { defer close(done); _ = server.Serve(tls.NewListener(Limit(pipes), served.TLSConfig())) }()
	t.Cleanup(func() { _ = server.Close(); _ = pipes.Close(); <-done })
}

func newLender(t testing.TB, p *party) *lender {
	t.Helper()
	l := &lender{disk: make(disk, 1<<20)}
	l.start(t, p)
	return l
}

// borrow has p ask, over a connection of its own.
func borrow(t testing.TB, l *lender, p *party) (*Loan, error) {
	t.Helper()
	loan, err := Borrow(t.Context(), l.dial(), p.side(t), p.list, p.evidence)
	if loan != nil {
		t.Cleanup(loan.asker.client.CloseIdleConnections)
	}
	return loan, err
}

// reach has p judge a custodian, over a connection of its own.
func reach(t testing.TB, l *lender, p *party) (*Giver, error) {
	t.Helper()
	g, err := Reach(t.Context(), l.dial(), p.side(t), p.list, p.evidence)
	if g != nil {
		t.Cleanup(g.client.CloseIdleConnections)
	}
	return g, err
}

// takeOver has p take the secret over.
func takeOver(t testing.TB, l *lender, p *party) (*Giver, role.Loan, error) {
	t.Helper()
	g, err := reach(t, l, p)
	if err != nil {
		return nil, role.Loan{}, err
	}
	loan, err := g.Move(t.Context())
	return g, loan, err
}

// ways are those in which a secret is taken: who takes it, and how. What is taken is its number.
var ways = map[string]struct {
	taker func(*hardware) *party
	take  func(t testing.TB, l *lender, side, p *party) (uint64, []register.Digest, error)
}{
	"borrows": {borrowerOn, func(t testing.TB, l *lender, side, p *party) (uint64, []register.Digest, error) {
		loan, err := Borrow(t.Context(), l.dial(), side.side(t), p.list, p.evidence)
		if err != nil {
			return 0, nil, err
		}
		t.Cleanup(loan.asker.client.CloseIdleConnections)
		return loan.Number, loan.Held, nil
	}},
	"takes over": {successorOn, func(t testing.TB, l *lender, side, p *party) (uint64, []register.Digest, error) {
		g, err := Reach(t.Context(), l.dial(), side.side(t), p.list, p.evidence)
		if err != nil {
			return 0, nil, err
		}
		t.Cleanup(g.client.CloseIdleConnections)
		loan, err := g.Move(t.Context())
		return loan.Number, loan.Held, err
	}},
}

// lapse waits until whatever may be lent is nobody's.
func lapse() { time.Sleep(lease + lease/8 + time.Second) }

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// checkOf returns the name of the check that refused, or the whole text.
func checkOf(err error) string {
	var refused *attest.Refused
	if errors.As(err, &refused) {
		return refused.Failed.Name
	}
	return err.Error()
}

// keep renews a loan until the test or stop ends it.
func keep(t testing.TB, loan *Loan) (stop func(), kept <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loan.Keep(ctx) }()
	return cancel, done
}
