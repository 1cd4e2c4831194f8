package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain/chaintest"
	"chrysalis/runtime/chain/fetch/fetchtest"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
	"chrysalis/runtime/settle"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// settled is a chain with the contracts of a machine's guest, and liteservers in front of it.
type settled struct {
	*machine
	chain   *chaintest.Chain
	terms   settle.Terms
	proxy   ton.Address
	servers []*fetchtest.Liteserver
	claims  ed25519.PrivateKey
}

const coin = 1_000_000_000

var (
	carrier = ton.Address{Account: [32]byte{0xca}}
	alice   = ton.Address{Account: [32]byte{0xa1}}
)

// newSettled lays a config, a host document and contracts for a machine whose charges are settled on chain.
func newSettled(t *testing.T) *settled {
	s := &settled{machine: newMachine(t)}
	s.chain = must(chaintest.New(chaintest.Options{Time: uint32(time.Now().Unix()) - 600}))
	for seed := range byte(2) {
		l := must(fetchtest.Listen(s.chain, seed+1))
		t.Cleanup(func() { l.Close() })
		s.servers = append(s.servers, l)
	}
	m, _ := measuredConfig(t)
	params := claim.Params{StructVersion: 3, Version: 1, UniqueID: 17, Price: m.Service.Price.Price, WorkerFee: 14, ProxyDelay: 200, ClientDelay: 100,
		MinProxyStake: coin, MinClientStake: coin, ProxyCode: chaintest.Code("proxy"), WorkerCode: chaintest.Code("worker"), ClientCode: chaintest.Code("client")}
	root := must(params.Cell())
	anchor := s.chain.Network.Anchor.Key
	m.Service.Chain = config.Chain{Params: root.Hash(), MaxAgeSeconds: 3600, Anchor: config.Anchor{GlobalID: chaintest.GlobalID, Seqno: anchor.Seqno,
		RootHash: anchor.RootHash, FileHash: anchor.FileHash}}
	host := config.Host{Network: config.HostNetwork{Mode: config.ModeDHCP4}, Port: 1, Chain: config.HostChain{Params: must(cell.Encode(root))}}
	for _, l := range s.servers {
		host.Chain.Liteservers = append(host.Chain.Liteservers, config.Liteserver{Address: l.Server.Address, Key: register.Digest(l.Server.Key)})
	}
	s.write("measured", must(m.Encode()))
	s.write("host", must(host.Encode()))
	sealed := must(secret.New(s.secret))
	scope := must(secret.ScopeOf(m.Identity, sealed.Instance()))
	s.claims = secret.DeriveSigner(sealed, secret.RoleClaim, scope)
	s.terms = settle.Terms{Root: m.Identity.RootContract, Key: [32]byte(s.claims.Public().(ed25519.PublicKey)), Owner: m.Identity.PayoutOwner, Params: params}
	s.proxy = must(s.terms.Proxy())
	guard := must(s.terms.Guard())
	s.send(chaintest.Message{From: carrier, To: guard, Value: coin / 10, Init: must(claim.StateInit(claim.GuardCode(), claim.Guard{Owner: s.terms.Owner}))})
	s.send(chaintest.Message{From: carrier, To: s.proxy, Value: coin / 2, Init: must(claim.StateInit(params.ProxyCode, params.NewProxy(guard, s.terms.Key, s.terms.Root)))})
	s.send(chaintest.Message{From: carrier, To: s.proxy, Value: 10*coin + coin/2,
		Body: must(new(cell.Builder).Uint(0x9713f187, 32).Uint(1, 64).Coins(10 * coin).Address(carrier).Cell())})
	program := s.path("fetch")
	build := exec.Command("go", "build", "-o", program, "./fetch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	s.fetch = func(stream *os.File) {
		c, line := s.start(program, "fetch", true, []string{"-host", s.path("host"), "-chroot", s.path("root/engine")}, stream)
		if line != "ready" {
			t.Fatalf("fetch said %q, want ready", line)
		}
		confined(t, c.Process.Pid, role.FetchUser)
	}
	return s
}

func (s *settled) write(name string, b []byte) {
	s.t.Helper()
	os.Remove(s.path(name))
	if err := os.WriteFile(s.path(name), b, 0o400); err != nil {
		s.t.Fatal(err)
	}
}

func (s *settled) send(m chaintest.Message) {
	s.t.Helper()
	if _, err := s.chain.Step(m); err != nil {
		s.t.Fatal(err)
	}
}

// opens has an owner open its contract with coins, and returns its key.
func (s *settled) opens(of ton.Address, coins uint64) api.Key {
	s.t.Helper()
	contract := must(s.terms.Client(of))
	key := api.Key{Contract: contract.Account, Secret: [32]byte{7, of.Account[0]}}
	hash := key.SecretHash()
	s.send(chaintest.Message{From: of, To: contract, Value: coins + coin/2, Bounce: true,
		Init: must(claim.StateInit(s.terms.Params.ClientCode, s.terms.Params.NewClient(of, s.proxy, s.terms.Key))),
		Body: must(new(cell.Builder).Uint(0x8473b408, 32).Uint(1, 64).Coins(coins).Bytes(hash[:]).Address(of).Cell())})
	return key
}

// asks asks once, with a header, and returns the status and the body.
func (s *settled) asks(header, value string) (int, []byte) {
	s.t.Helper()
	r := must(http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.url+"/v1/chat/completions",
		strings.NewReader(`{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}]}`)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(header, value)
	response := must(s.http.Do(r))
	defer response.Body.Close()
	return response.StatusCode, must(io.ReadAll(response.Body))
}

// until asks until the answer has a status.
func (s *settled) until(status int, header, value string) []byte {
	s.t.Helper()
	var got int
	var body []byte
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if got, body = s.asks(header, value); got == status {
			return body
		}
	}
	s.t.Fatalf("status %d, want %d: %s", got, status, body)
	return nil
}

// handed reads what the host is handed until a message of a kind comes, and returns it.
func (s *settled) handed(op claim.Op) *claim.Message {
	s.t.Helper()
	lines := make(chan *claim.Message, 1)
	go func(r *bufio.Reader) {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			var body []byte
			if p, err := receipt.ParseLine(strings.TrimSuffix(line, "\n")); err == nil {
				body = p.Charge[:]
			} else if body, err = claim.ParseLine(strings.TrimSuffix(line, "\n")); err != nil {
				s.t.Errorf("the host is handed %q: %v", line, err)
				return
			}
			m, err := claim.Verify(body, claim.Policy{Key: pubkey.Of(s.claims), AnyContract: true})
			if err != nil {
				s.t.Error(err)
				return
			}
			if m.Op == op {
				lines <- m
				return
			}
		}
	}(s.proofs)
	select {
	case m := <-lines:
		return m
	case <-time.After(40 * time.Second):
		s.t.Fatalf("no %s comes", op)
		return nil
	}
}

// TestSettles runs keeper, fetch and gateway as init starts them, before a chain behind two liteservers: who shows a key of a contract with coins
// is served, the charge is carried, and the payout comes.
func TestSettles(t *testing.T) {
	s := newSettled(t)
	key := s.opens(alice, 2*coin)
	s.startEngine()
	k, line := s.startKeeper(0)
	if line != "ready" {
		t.Fatalf("keeper said %q, want ready", line)
	}
	g := s.startGateway()
	body := s.until(http.StatusOK, "Authorization", "Bearer "+key.String())
	var answer struct {
		Chrysalis struct{ Receipt, Charge []byte }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	r := must(receipt.Parse(answer.Chrysalis.Receipt))
	contract := ton.Address{Account: key.Contract}
	if last := s.chain.Last(); r.Block.Seqno != last.Seqno || r.Block.RootHash != last.RootHash || r.Block.Time != s.chain.Now() || r.Coefficient != ton.WeightOne || r.Client != contract {
		t.Errorf("receipt: block %d of client %s, want block %d of %s", r.Block.Seqno, r.Client, last.Seqno, contract)
	}
	if got, _ := s.asks("X-Api-Key", key.String()); got != http.StatusOK {
		t.Errorf("with the header of another SDK: status %d, want 200", got)
	}
	stranger := key
	stranger.Secret[0]++
	for name, tt := range map[string][2]string{
		"another secret":     {"Authorization", "Bearer " + stranger.String()},
		"the contract alone": {"Chrysalis-Client", contract.String()},
		"no key":             {"Authorization", "Bearer sk-1234"},
	} {
		if got, body := s.asks(tt[0], tt[1]); got != http.StatusUnauthorized || !bytes.Contains(body, []byte("invalid_api_key")) {
			t.Errorf("%s: status %d, %s", name, got, body)
		}
	}
	ci := key.Derive("ci")
	if got, _ := s.asks("X-Api-Key", ci.String()); got != http.StatusUnauthorized {
		t.Errorf("a key before it is made: status %d, want 401", got)
	}
	for _, tt := range []struct {
		shown        api.Key
		cap          string
		status, asks int
	}{{ci, "5000", 401, 401}, {key, "5000", 200, 200}, {key, "19", 200, 402}, {key, "0", 200, 401}} {
		r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+api.Keys, strings.NewReader(`{"name":"ci","cap":`+tt.cap+`}`)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+tt.shown.String())
		response := must(s.http.Do(r))
		response.Body.Close()
		if got, body := s.asks("X-Api-Key", ci.String()); response.StatusCode != tt.status || got != tt.asks {
			t.Errorf("a key with a cap of %s: status %d, and then %d, %s; want %d and %d", tt.cap, response.StatusCode, got, body, tt.status, tt.asks)
		}
	}
	charge := s.handed(claim.ClientCharge)
	signed := must(claim.Sign(s.claims, *charge))
	s.send(chaintest.Message{From: carrier, To: contract, Value: coin / 2, Bounce: true, Body: must(cell.ParseOne(signed[:]))})
	if payout := s.handed(claim.WorkerPayout); payout.Tokens != charge.Tokens || payout.Contract != must(s.terms.Worker()) {
		t.Errorf("payout of %d to %s, want the %d that were charged to the worker", payout.Tokens, payout.Contract, charge.Tokens)
	}
	stop(t, g)
	stop(t, k)
}

// TestKeeperRefusesParams: a keeper is not ready by params that the config does not name, and not without any.
func TestKeeperRefusesParams(t *testing.T) {
	s := newSettled(t)
	m := must(config.Decode(must(os.ReadFile(s.path("measured")))))
	honest := m
	m.Service.Chain.Params[3] ^= 1
	s.write("measured", must(m.Encode()))
	if _, line := s.startKeeper(0); line != "fail params-refused" {
		t.Errorf("other params: keeper said %q", line)
	}
	m = honest
	m.Service.Price.CachedWeight++
	s.write("measured", must(m.Encode()))
	if _, line := s.startKeeper(0); line != "fail params-refused" {
		t.Errorf("another weight than the contracts': keeper said %q", line)
	}
	s.write("measured", must(honest.Encode()))
	s.fetch = nil
	if _, line := s.startKeeper(0); line != "fail params-refused" {
		t.Errorf("nobody to ask: keeper said %q", line)
	}
}
