package proxy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/client/clienttest"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
	"chrysalis/tools/internal/toolstree"
)

// service is keeper and gateway as init starts them, over a software guest's evidence and a fake engine.
type service struct {
	*attesttest.Guest
	url  string
	gone chan struct{} // gets a value when the engine sees that a client has left
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// startService builds the guest's program and starts its two roles over an engine of the test's.
func startService(t testing.TB, change ...func(*config.Measured)) *service {
	gone := make(chan struct{}, 16)
	s := startServiceOver(t, func(t testing.TB, socket string) { startEngine(t, socket, gone) }, change...)
	s.gone = gone
	return s
}

// startServiceOver does so over an engine that is started at a socket.
func startServiceOver(t testing.TB, startEngine func(t testing.TB, socket string), change ...func(*config.Measured)) *service {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can start processes that give up being root")
	}
	dir := t.TempDir()
	for p := dir; p != "/" && p != os.TempDir(); p = filepath.Dir(p) { // the gateway's user must get through
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "runtime")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../..", "-o", program, "./runtime")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	raw := clienttest.Measured(t, append(change, func(m *config.Measured) {
		m.Service.Limits = config.Limits{RequestBytes: 1 << 16, AnswerTokens: 4096, Concurrent: 16, ContextTokens: 8192}
	})...)
	measured := must(config.Decode(raw))(t)
	for _, sub := range []string{"root/keeper", "root/engine"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "measured"), raw, 0o400); err != nil {
		t.Fatal(err)
	}
	sealed := must(secret.New(bytes.Repeat([]byte{7}, secret.Size)))(t)
	scope := must(secret.ScopeOf(measured.Identity, sealed.Instance()))(t)
	s := &service{Guest: attesttest.New(raw, time.Now())}
	s.Statement.ReceiptKey = pubkey.Of(secret.DeriveSigner(sealed, secret.RoleReceipt, scope))
	s.Statement.ClaimKey = pubkey.Of(secret.DeriveSigner(sealed, secret.RoleClaim, scope))
	s.Statement.SecretHash = sealed.Digest()

	startEngine(t, filepath.Join(dir, "root/engine/e.sock"))
	spawn := func(r role.Role, settings role.Settings, files ...*os.File) {
		t.Helper()
		settings[role.Measured] = filepath.Join(dir, "measured")
		argv := must(r.Argv(settings))(t)
		out, in := pipe(t)
		c := exec.Command(program, argv[1:]...)
		c.ExtraFiles, c.Stderr, c.Env = append(files, in), os.Stderr, []string{"GOTRACEBACK=none"}
		if !r.Network() {
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		if line, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(line) != "ready" {
			t.Fatalf("%s said %q (%v), want ready", r, line, err)
		}
	}
	secretOut, secretIn := pipe(t)
	if _, err := secretIn.Write(binary.LittleEndian.AppendUint64(bytes.Repeat([]byte{7}, secret.Size), 0)); err != nil {
		t.Fatal(err)
	}
	secretIn.Close()
	journal := must(os.Create(filepath.Join(dir, "journal")))(t)
	t.Cleanup(func() { journal.Close() })
	if err := journal.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	keeperSocket := filepath.Join(dir, "root/keeper/keeper.sock")
	kl := must(net.ListenUnix("unix", &net.UnixAddr{Name: keeperSocket, Net: "unix"}))(t)
	kl.SetUnlinkOnClose(false)
	if err := os.Chown(keeperSocket, role.GatewayUser, role.GatewayUser); err != nil {
		t.Fatal(err)
	}
	proofsOut, proofsIn := pipe(t)
	go io.Copy(io.Discard, proofsOut)
	chain := must(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))(t)
	asked, nobody := os.NewFile(uintptr(chain[0]), "chain"), os.NewFile(uintptr(chain[1]), "nobody") // nothing is settled on chain
	nobody.Close()
	spawn(role.Keeper, role.Settings{}, secretOut, journal, must(kl.File())(t), proofsIn, asked)
	kl.Close()

	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	s.url = "https://" + l.Addr().String()
	pair := must(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))(t)
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	go func() {
		defer ours.Close()
		_ = role.ServeQuotes(ours, func(r evidence.Request) (*evidence.Evidence, error) {
			st := &s.Statement
			st.Epoch, st.NotAfter, st.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
			return s.Attest(r.NonceRoot, r.TLSKey), nil
		}, nil)
	}()
	asks := must(syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0))(t)
	engineHost, wipes := os.NewFile(uintptr(asks[0]), "engine-host"), os.NewFile(uintptr(asks[1]), "wipes") // nothing is wiped by a restart
	t.Cleanup(func() { engineHost.Close() })
	numbersOut, numbersIn := pipe(t)
	go io.Copy(io.Discard, numbersOut)
	spawn(role.Gateway, role.Settings{role.KeeperSocket: "/keeper/keeper.sock", role.EngineSocket: "/engine/e.sock", role.Chroot: filepath.Join(dir, "root")},
		must(l.(*net.TCPListener).File())(t), theirs, wipes, numbersIn)
	l.Close()
	theirs.Close()
	wipes.Close()
	return s
}

// startEngine answers as llama-server does, and where it is asked for what is said in audio as whisper-server. gone gets a value when a client has left.
func startEngine(t testing.TB, socket string, gone chan<- struct{}) {
	t.Helper()
	l := must(net.Listen("unix", socket))(t)
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/embeddings" {
			vector := "[0.25,-1]"
			if bytes.Contains(body, []byte("base64")) {
				vector = `"AACAPgAAgL8="`
			}
			fmt.Fprintf(w, `{"data":[{"embedding":%s,"index":0,"object":"embedding"}],"usage":{"prompt_tokens":2,"total_tokens":2}}`, vector)
			return
		}
		if r.URL.Path == "/inference" {
			fmt.Fprint(w, `{"task":"transcribe","language":"norwegian","duration":2.5,"text":" Oslo it is","segments":[{"id":0,"text":" Oslo it is","start":0.0,"end":2.5,"tokens":[1,2,3],`+
				`"temperature":0.0,"avg_logprob":-0.1,"no_speech_prob":0.0,"words":[{"word":" Oslo","start":0.0,"end":1.0},{"word":" it","start":1.0,"end":1.5},{"word":" is","start":1.5,"end":2.5}]}]}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Connection", "close")
		say := func(event string) {
			fmt.Fprintf(w, "data: %s\n\n", event)
			_ = http.NewResponseController(w).Flush()
		}
		text := func(s string) {
			if r.URL.Path == "/v1/completions" {
				say(fmt.Sprintf(`{"choices":[{"index":0,"text":%q,"logprobs":null,"finish_reason":null}]}`, s))
				return
			}
			say(fmt.Sprintf(`{"choices":[{"index":0,"finish_reason":null,"delta":{"content":%q}}]}`, s))
		}
		reason := "stop"
		switch {
		case bytes.Contains(body, []byte("endless")):
			for {
				select {
				case <-r.Context().Done():
					gone <- struct{}{}
					return
				case <-time.After(10 * time.Millisecond):
					text(" word")
				}
			}
		case bytes.Contains(body, []byte("json_schema")):
			text(`{"city":"Oslo"}`)
		case bytes.Contains(body, []byte(`"tools"`)):
			reason = "tool_calls"
			say(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"look","arguments":"{"}}]}}]}`)
			say(`{"choices":[{"index":0,"finish_reason":null,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\":1}"}}]}}]}`)
		default:
			for _, word := range []string{"Oslo", " it", " is"} {
				text(word)
				time.Sleep(6 * time.Millisecond) // or several would travel together
			}
		}
		say(fmt.Sprintf(`{"choices":[{"index":0,"delta":{},"finish_reason":%q}]}`, reason))
		say(`{"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":4}}`)
		say("[DONE]")
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

// balancer is a program that ends TLS in front of the service: nginx or HAProxy, with settings of its own.
type balancer struct{ name, program, settings string }

// arguments are the program's, and conf its settings: it listens at the address and has certificate and key in dir.
func (b balancer) arguments(dir, address, service string) (args []string, conf string) {
	if b.program == "nginx" {
		return []string{"-p", dir, "-e", filepath.Join(dir, "log"), "-c", filepath.Join(dir, "conf")}, fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/log;
events { worker_connections 256; }
http {
  access_log off; client_max_body_size 8m;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen %[2]s ssl; http2 on; ssl_certificate %[1]s/pem; ssl_certificate_key %[1]s/pem;
    location / { proxy_pass %[3]s; proxy_ssl_protocols TLSv1.3; %[4]s }
  }
}`, dir, address, service, b.settings)
	}
	return []string{"-db", "-f", filepath.Join(dir, "conf")}, fmt.Sprintf(`global
  maxconn 256
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind %[2]s ssl crt %[1]s/pem alpn h2,http/1.1
  default_backend guests
backend guests
  %[4]s
  server guest %[3]s ssl verify none ssl-min-ver TLSv1.3
`, dir, address, strings.TrimPrefix(service, "https://"), b.settings)
}

// behind starts a balancer in front of the service and returns its URL.
func (s *service) behind(t testing.TB, b balancer) string {
	t.Helper()
	dir := t.TempDir()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	private := must(x509.MarshalPKCS8PrivateKey(key))(t)
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	address := l.Addr().String()
	l.Close()
	args, conf := b.arguments(dir, address, s.url)
	pair := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	for name, text := range map[string][]byte{"pem": pair, "conf": []byte(conf)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A guest takes post-quantum key exchange alone, so the machine's own programs may be too old.
	tree, err := toolstree.Open("../../../build/tools-tree")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no tools tree here: make image builds it, with a %s that knows X25519MLKEM768", b.program)
	} else if err != nil {
		t.Fatal(err)
	}
	c := tree.Command(t.Context(), b.program, args...)
	said := &strings.Builder{}
	c.Stderr = said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return "https://" + address
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			c.Process.Kill()
			c.Wait()
			t.Fatalf("%s does not listen: %s%s", b.program, log, said)
		}
	}
}

// local runs a proxy to a URL, behind which the service stands.
func (s *service) local(t *testing.T, url string) *running {
	t.Helper()
	return startAt(t, Config{Guests: []string{url}, Attest: ratls.Config{Policy: s.Policy(), Roots: s.Roots()},
		Payer: func(config.Measured) (ton.Address, error) { return payer, nil }})
}

// TestThroughBalancer: a real gateway behind somebody who ends TLS and speaks as he is set to.
func TestThroughBalancer(t *testing.T) {
	s := startService(t)
	for _, b := range []balancer{
		{"nginx as it comes", "nginx", ""}, // HTTP/1.0, gathers both ways
		{"nginx gathers", "nginx", `proxy_http_version 1.1; proxy_set_header Connection "";`},
		{"nginx gathers nothing", "nginx", `proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;`},
		{"nginx gathers whatever it is told", "nginx", `proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ignore_headers X-Accel-Buffering;`},
		{"HAProxy as it comes", "haproxy", ""},
		{"HAProxy gathers requests", "haproxy", "option http-buffer-request"},
		{"HAProxy with a connection for each request", "haproxy", "option httpclose"},
	} {
		t.Run(b.name, func(t *testing.T) {
			r := s.local(t, s.behind(t, b))
			for _, body := range []string{streamed, inOne, streamed} {
				response, text := r.post(t, body)
				if response.StatusCode != 200 || !strings.Contains(text, "Oslo") || strings.Contains(text, "[DONE]") != (body == streamed) {
					t.Errorf("%s: got %d %s", body, response.StatusCode, text)
				}
			}
			if response, text := r.post(t, strings.Replace(inOne, "tiny", "other", 1)); response.StatusCode != 404 || !strings.Contains(text, "model_not_found") {
				t.Errorf("a refusal: got %d %s", response.StatusCode, text)
			}
			nonce := strings.Repeat("5a", 32)
			response, text := do(t, r.request(t, http.MethodGet, api.Report+"?model=tiny&nonce="+nonce, ""))
			if response.StatusCode != 200 || !strings.Contains(text, `"request_nonce":"`+nonce+`"`) || response.Header.Get("Chrysalis-Guest") == "" {
				t.Errorf("a report: got %d %.200s", response.StatusCode, text)
			}
			if response, text := do(t, r.request(t, http.MethodPost, "/v1/chat/completions?a=b", inOne)); response.StatusCode != 400 || !strings.Contains(text, "takes no query") {
				t.Errorf("a query where there is none: got %d %s", response.StatusCode, text)
			}
			if st := r.guests[0].status(); st.answered != 3 || st.unproven != 0 {
				t.Errorf("%d proven answers and %d that were not, want 3", st.answered, st.unproven)
			}
		})
	}
	t.Run("carried for a page", func(t *testing.T) {
		r := s.local(t, s.url)
		c := newCarried(t, r, r.config.Attest)
		for _, body := range []string{streamed, inOne} {
			if status, passed, err := c.ask(body, c.guest.KeyID(), nil); err != nil || !strings.Contains(passed, "Oslo") {
				t.Errorf("got %d %q, %v", status, passed, err)
			}
		}
	})
	for _, b := range []balancer{{"", "nginx", `proxy_http_version 1.1; proxy_set_header Connection "";`}, {"", "haproxy", ""}} {
		t.Run("a client leaves "+b.program, func(t *testing.T) {
			r := s.local(t, s.behind(t, b))
			response, err := http.DefaultClient.Do(r.request(t, http.MethodPost, "/v1/chat/completions", strings.Replace(streamed, "canary", "endless", 1)))
			if err != nil {
				t.Fatal(err)
			}
			// Events come while the answer goes on: nginx was told not to gather them.
			if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || !strings.Contains(line, "data: ") {
				t.Errorf("first event: %q, %v", line, err)
			}
			response.Body.Close()
			select {
			case <-s.gone:
			case <-time.After(20 * time.Second):
				t.Error("the engine goes on")
			}
		})
	}
}

// TestClients has unchanged clients of others ask through the proxy, at the versions of their lock file.
func TestClients(t *testing.T) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed here", program)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/clients")); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("the clients can't be installed here: %v\n%s", err, out)
	}
	r := startService(t)
	p := r.local(t, r.url)
	hearing := startService(t, func(m *config.Measured) {
		e := &m.Service.Engine
		e.Dialect, e.Argv = "whisper-server", []string{"/usr/bin/whisper-server", "-m", "/model/x.bin", "--host", "127.0.0.1", "--port", "8080", "-nlp"}
	})
	heard := hearing.local(t, hearing.url)
	ask := func(t *testing.T, name string, p *running) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "node", name+".mjs")
		c.Dir = dir
		c.Env = append(os.Environ(), "OPENAI_BASE_URL="+p.url+"/v1", "OPENAI_API_KEY=anything")
		if out, err := c.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "passed\n") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	for name, p := range map[string]*running{"openai": p, "anthropic": p, "langchain": p, "ai": p, "llamaindex": p, "audio": heard} {
		t.Run(name, func(t *testing.T) { ask(t, name, p) })
	}
	t.Run("behind nginx", func(t *testing.T) {
		behind := r.local(t, r.behind(t, balancer{"", "nginx", `proxy_http_version 1.1; proxy_set_header Connection "";`}))
		for _, name := range []string{"openai", "langchain", "ai", "llamaindex"} {
			ask(t, name, behind)
		}
		if s := behind.guests[0].status(); s.unproven != 0 || s.answered < 8 {
			t.Errorf("%d proven answers and %d that were not", s.answered, s.unproven)
		}
	})
	if s := p.guests[0].status(); s.unproven != 0 || s.answered < 8 {
		t.Errorf("%d proven answers and %d that were not", s.answered, s.unproven)
	}
}
