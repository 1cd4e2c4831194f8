package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
)

// TestMain turns the test binary into the backend of the benchmark when the environment says so: the load, the backend
// and what stands between them are processes of their own, so that each one's CPU time is known.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CHRYSALIS_BENCH_BACKEND"); socket != "" {
		serveBackend(socket)
		return
	}
	if kind := os.Getenv("CHRYSALIS_BENCH_REFERENCE"); kind != "" {
		serveReference(kind, os.Getenv("CHRYSALIS_BENCH_SOCKET"))
		return
	}
	os.Exit(m.Run())
}

// The benchmark's answers.
const (
	benchStreams = 64
	shortAnswer  = 32 // tokens
	longAnswer   = 256
	pacedEvery   = 20 * time.Millisecond
	benchRounds  = 9 // by turns, so that what else runs on the machine meets all
	longRounds   = 5
	benchFor     = time.Second // and the answers that were begun before it is over
)

// serveBackend answers as llama-server does, with events of its size, as many as there may be: paced when the temperature is 1, else at once.
func serveBackend(socket string) {
	event := []byte(`data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],"created":1795183126,"id":"chatcmpl-ZOX8d8i1q5RigJEOVALCO2B9kUeKF477","model":"/model/tiny.gguf","object":"chat.completion.chunk"}` + "\n\n")
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		panic(err)
	}
	panic(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Connection", "close")
		paced := bytes.Contains(body, []byte(`"temperature":1`))
		tokens := shortAnswer
		if bytes.Contains(body, fmt.Appendf(nil, `"max_tokens":%d`, longAnswer)) {
			tokens = longAnswer
		}
		for range tokens {
			if paced {
				time.Sleep(pacedEvery)
			}
			w.Write(event)
			w.(http.Flusher).Flush()
		}
		fmt.Fprintf(w, `data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}`+"\n\n"+
			`data: {"choices":[],"usage":{"completion_tokens":%d,"prompt_tokens":14}}`+"\n\ndata: [DONE]\n\n", tokens)
	})))
}

// serveReference serves TLS 1.3 on descriptor 3 and passes on what the backend at the socket says: by a handler that does nothing else ("handler"), or by
// net/http's own ("reverse proxy").
func serveReference(kind, socket string) {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	certificate, err := benchCertificate()
	if err != nil {
		panic(err)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	var handler http.Handler = &httputil.ReverseProxy{
		FlushInterval: -1, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "engine" },
	}
	if kind == "handler" {
		transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			ask, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://engine"+r.URL.Path, bytes.NewReader(body))
			if err != nil {
				panic(err)
			}
			answer, err := transport.RoundTrip(ask)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer answer.Body.Close()
			w.Header().Set("Content-Type", "text/event-stream")
			piece := make([]byte, 16<<10)
			for {
				n, err := answer.Body.Read(piece)
				w.Write(piece[:n])
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		})
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := &http.Server{Handler: handler, Protocols: &protocols, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}}}
	panic(server.ServeTLS(l, "", ""))
}

// startReference starts one, with the runtime's settings that services have, and returns its URL and process.
func startReference(b *testing.B, kind, socket string) (url string, pid int) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	c := exec.Command(os.Args[0])
	c.Env = []string{"CHRYSALIS_BENCH_REFERENCE=" + kind, "CHRYSALIS_BENCH_SOCKET=" + socket, "GODEBUG=schedtrace=2147483647"}
	c.ExtraFiles, c.Stderr = []*os.File{f}, io.Discard
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return "https://" + l.Addr().String(), c.Process.Pid
}

func benchCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// cpu returns the CPU time that all threads of processes have used, by the scheduler's own clock: the ticks that times(2)
// counts in are too long for a short run.
func cpu(t testing.TB, pids ...int) time.Duration {
	t.Helper()
	var sum time.Duration
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("process %d has no threads: %v", pid, err)
		}
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				t.Fatal(err)
			}
			ran, err := time.ParseDuration(strings.Fields(string(text))[0] + "ns")
			if err != nil {
				t.Fatal(err)
			}
			sum += ran
		}
	}
	return sum
}

// startNginx starts the reference: a TLS 1.3 proxy to the same socket. It returns its URL and its workers. CHRYSALIS_NGINX has the words that
// start it, a line each, where it is not the machine's own.
func startNginx(b *testing.B, socket string) (url string, pids []int) {
	program := []string{"nginx"}
	if words := os.Getenv("CHRYSALIS_NGINX"); words != "" {
		program = strings.Split(words, "\n")
	} else if _, err := exec.LookPath(program[0]); err != nil {
		b.Skip("nginx is not installed: there is no reference to compare with")
	}
	dir := b.TempDir()
	certificate, err := benchCertificate()
	if err != nil {
		b.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write("cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}))
	write("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	write("conf", []byte(fmt.Sprintf(`daemon off; master_process on; worker_processes %[4]d; user root; pid %[1]s/pid; error_log %[1]s/log;
events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 1000000;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen %[2]s ssl; ssl_certificate %[1]s/cert; ssl_certificate_key %[1]s/key; ssl_protocols TLSv1.3;
    location / { proxy_pass http://unix:%[3]s:; proxy_http_version 1.1; proxy_buffering off; }
  }
}`, dir, address, socket, runtime.NumCPU())))
	c := exec.Command(program[0], append(program[1:], "-p", dir, "-e", filepath.Join(dir, "log"), "-c", filepath.Join(dir, "conf"))...)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Process.Signal(os.Interrupt); c.Wait() })
	for range 200 { // the socket is open before the workers are there, and each of them counts
		time.Sleep(10 * time.Millisecond)
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.Process.Pid, c.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		if pids = nil; len(strings.Fields(string(children))) < runtime.NumCPU() {
			continue
		}
		for _, f := range strings.Fields(string(children)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			pids = append(pids, pid)
		}
		break
	}
	if len(pids) == 0 {
		b.Fatal("nginx has started no workers")
	}
	return "https://" + address, pids
}

// result is what one run of the load has seen.
type result struct {
	requests, tokens int
	took             time.Duration
	first            []time.Duration // time to the first byte of each answer
	failed           int
	cpu              time.Duration
}

func (r result) perToken() time.Duration { return r.cpu / time.Duration(max(1, r.tokens)) }
func (r result) perSecond() float64      { return float64(r.requests) / r.took.Seconds() }

func median[N cmp.Ordered](values []N) N {
	slices.Sort(values)
	return values[len(values)/2]
}

// question is what a load asks.
type question struct {
	tokens int // of each answer: shortAnswer or longAnswer
	paced  bool
	key    *envelope.Key // asks are sealed to it; nil: they are in the clear
}

// body is a request's. It says how long the answer is by how long it may be.
func (q question) body() string {
	temperature := 0
	if q.paced {
		temperature = 1
	}
	return fmt.Sprintf(`{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}],"stream":true,"max_tokens":%d,"temperature":%d}`, q.tokens, temperature)
}

// ask asks once, and returns what comes, in the clear.
func (q question) ask(client *http.Client, url string) (answer io.ReadCloser, err error) {
	if q.key == nil {
		request, err := http.NewRequest(http.MethodPost, url+api.ChatCompletions, strings.NewReader(q.body()))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Chrysalis-Client", clientAddress)
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		return response.Body, nil
	}
	sealed, opens, err := q.key.Seal(envelope.Request{Method: http.MethodPost, Path: api.ChatCompletions, Body: []byte(q.body()), Header: []envelope.Field{
		{Name: "chrysalis-client", Value: clientAddress}, {Name: "content-type", Value: "application/json"}}}, time.Now())
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodPost, url+api.ChatCompletions, bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", envelope.RequestType)
	request.Header.Set(envelope.KeyHeader, q.key.ID())
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	opened, err := opens.Open(response.Body)
	if err != nil {
		response.Body.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{opened, response.Body}, nil
}

// load asks over streams connections for a time.
func load(b *testing.B, url string, streams int, q question, pids ...int) result {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: streams}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var r result
	one := func(q question) {
		began := time.Now()
		answer, err := q.ask(client, url)
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			r.failed++
			return
		}
		defer answer.Close()
		lines := bufio.NewReader(answer)
		first, tokens, whole := time.Duration(0), 0, false
		for {
			line, err := lines.ReadSlice('\n')
			if first == 0 {
				first = time.Since(began)
			}
			if bytes.Contains(line, []byte(`"content":" word"`)) {
				tokens++
			}
			whole = whole || bytes.Contains(line, []byte("[DONE]"))
			if err != nil {
				break
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if !whole || tokens != q.tokens {
			r.failed++
		}
		r.requests, r.tokens, r.first = r.requests+1, r.tokens+tokens, append(r.first, first)
	}
	for range 2 { // connections are opened before the clock starts
		var warm sync.WaitGroup
		for range streams {
			warm.Go(func() { one(question{tokens: shortAnswer, key: q.key}) })
		}
		warm.Wait()
	}
	r = result{failed: r.failed}
	began, used := time.Now(), time.Duration(0)
	if len(pids) > 0 {
		used = cpu(b, pids...)
	}
	var running sync.WaitGroup
	for range streams {
		running.Go(func() {
			for time.Since(began) < benchFor {
				one(q)
			}
		})
	}
	running.Wait()
	r.took = time.Since(began)
	if len(pids) > 0 {
		r.cpu = cpu(b, pids...) - used
	}
	if r.failed > 0 || r.requests == 0 {
		b.Fatalf("%d of %d answers failed", r.failed, r.requests+r.failed)
	}
	return r
}

// fillJournal gives the journal's file its blocks, as a disk has them: a hole costs the file system more than a flush.
func fillJournal(b *testing.B, f *os.File) {
	b.Helper()
	zeros := make([]byte, 1<<20)
	for i := range int64(256) {
		if _, err := f.WriteAt(zeros, i<<20); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
}

// fsyncRate returns how many flushes a second the journal's disk makes.
func fsyncRate(b *testing.B, f *os.File) float64 {
	b.Helper()
	began, n := time.Now(), 0
	for ; time.Since(began) < 300*time.Millisecond; n++ {
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(began).Seconds()
}

// attested gives the machine room for the benchmark, has its evidence made by a software TPM, and returns what takes its key.
func (m *machine) attested() (key func() *envelope.Key) {
	m.t.Helper()
	measured, _ := measuredConfig(m.t)
	measured.Service.Limits = config.Limits{RequestBytes: 1 << 16, AnswerTokens: longAnswer, Concurrent: busyStreams, ContextTokens: 4 * longAnswer}
	raw, err := measured.Encode()
	if err == nil {
		err = os.WriteFile(m.path("measured"), raw, 0o400)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	software := attesttest.New(raw, time.Now())
	m.quote = func(r evidence.Request) *evidence.Evidence {
		st := &software.Statement
		st.Epoch, st.NotAfter, st.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
		return software.Attest(r.NonceRoot, r.TLSKey)
	}
	return func() *envelope.Key {
		m.t.Helper()
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		defer transport.CloseIdleConnections()
		result, err := ratls.Detached(m.t.Context(), transport, m.url, ratls.Config{Policy: software.Policy(), Roots: software.Roots()})
		if err != nil {
			m.t.Fatal(err)
		}
		k, err := envelope.KeyOf(result)
		if err != nil {
			m.t.Fatal(err)
		}
		return k
	}
}

// contender is what stands between the load and the backend.
type contender struct {
	name string
	url  string
	pids []int
	key  *envelope.Key
}

// BenchmarkGateway compares keeper and gateway, as init starts them, with nginx in front of the same backend, and with the least that Go's own
// packages do there. Run it with -benchtime 1x: each part runs for a fixed time, and what counts are the ratios.
func BenchmarkGateway(b *testing.B) {
	m := newMachine(b)
	fillJournal(b, m.journal)
	socket := m.path("root/engine/e.sock")
	backend := exec.Command(os.Args[0])
	backend.Env = append(os.Environ(), "CHRYSALIS_BENCH_BACKEND="+socket)
	if err := backend.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { backend.Process.Kill(); backend.Wait() })
	fsyncs := fsyncRate(b, m.journal)
	nginx, workers := startNginx(b, socket)
	key := m.attested()
	k, line := m.startKeeper(0)
	if line != "ready" {
		b.Fatalf("keeper said %q, want ready", line)
	}
	g := m.startGateway()
	handlerURL, handler := startReference(b, "handler", socket)
	reverseURL, reverse := startReference(b, "reverse proxy", socket)
	ours := []int{g.Process.Pid, k.Process.Pid}
	all := []contender{{name: "nginx", url: nginx, pids: workers}, {name: "ours", url: m.url, pids: ours}, {name: "sealed", url: m.url, pids: ours, key: key()},
		{name: "handler", url: handlerURL, pids: []int{handler}}, {name: "reverse-proxy", url: reverseURL, pids: []int{reverse}}}

	b.Run("paced-64-streams", func(b *testing.B) {
		turns(b, benchRounds, all, question{tokens: shortAnswer, paced: true}, k.Process.Pid)
	})
	b.Run("paced-64-streams-256-tokens", func(b *testing.B) {
		turns(b, longRounds, all[:3], question{tokens: longAnswer, paced: true}, k.Process.Pid)
	})
	b.Run("unpaced-64-streams", func(b *testing.B) {
		turns(b, benchRounds, all, question{tokens: shortAnswer}, k.Process.Pid)
		b.ReportMetric(fsyncs, "fsyncs/s")
	})
	b.Run("first-byte", func(b *testing.B) {
		direct := directFirstByte(b, socket)
		ours := load(b, m.url, 1, question{tokens: shortAnswer})
		b.ReportMetric(float64((median(ours.first) - direct).Microseconds()), "us-added")
		b.ReportMetric(float64(direct.Microseconds()), "us-direct")
	})
	b.Run("memory", func(b *testing.B) { memoryOfConnections(b, m, g.Process.Pid) })
}

// turns has each contender asked in each round, and reports its medians: CPU a token and requests a second, beside nginx's of the same round.
func turns(b *testing.B, rounds int, all []contender, q question, keeper int) {
	type medians struct{ cost, rate, token, request, perSecond []float64 }
	of := map[string]*medians{}
	var kept []float64
	for range rounds {
		var nginx result
		for _, c := range all {
			q.key = c.key
			before := cpu(b, keeper)
			r := load(b, c.url, benchStreams, q, c.pids...)
			if c.name == "nginx" {
				nginx = r
			}
			if c.name == "ours" {
				kept = append(kept, float64(cpu(b, keeper)-before)/float64(r.cpu))
			}
			m := of[c.name]
			if m == nil {
				m = &medians{}
				of[c.name] = m
			}
			m.cost, m.rate = append(m.cost, float64(r.perToken())/float64(nginx.perToken())), append(m.rate, r.perSecond()/nginx.perSecond())
			m.token, m.request = append(m.token, float64(r.perToken())/1000), append(m.request, float64(r.cpu)/1000/float64(r.requests))
			m.perSecond = append(m.perSecond, r.perSecond())
		}
	}
	for _, c := range all {
		m := of[c.name]
		b.ReportMetric(median(m.cost), c.name+"-cpu/nginx")
		b.ReportMetric(median(m.token), c.name+"-us-cpu/token")
		if !q.paced {
			b.ReportMetric(median(m.rate), c.name+"-rate/nginx")
			b.ReportMetric(median(m.request), c.name+"-us-cpu/request")
			b.ReportMetric(median(m.perSecond), c.name+"-requests/s")
		}
	}
	b.ReportMetric(median(kept), "keeper/cpu")
}

// The connections whose memory is measured: of one address there may be half of all.
const (
	idleConnections = 6000
	busyStreams     = 512
)

// memoryOfConnections has idle connections opened, and then streams that are answered, and reports what the gateway's process takes for each.
func memoryOfConnections(b *testing.B, m *machine, gateway int) {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 20000, Max: 20000}); err != nil {
		b.Skipf("this user may not open as many connections: %v", err)
	}
	resident := func() float64 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", gateway))
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
				kb, _ := strconv.ParseFloat(f[1], 64)
				return kb
			}
		}
		b.Fatal("a process without memory")
		return 0
	}
	before := resident()
	idle := make([]net.Conn, idleConnections)
	var opening sync.WaitGroup
	next := make(chan int)
	for range 16 {
		opening.Go(func() {
			for i := range next {
				c, err := tls.Dial("tcp", strings.TrimPrefix(m.url, "https://"), &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					b.Error(err)
					continue
				}
				idle[i] = c
			}
		})
	}
	for i := range idle {
		next <- i
	}
	close(next)
	opening.Wait()
	time.Sleep(3 * time.Second) // what handshakes leave is given back within one
	opened := resident()
	for _, c := range idle {
		if c != nil {
			c.Close()
		}
	}
	time.Sleep(3 * time.Second)
	empty := resident()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	streams := make([]io.ReadCloser, busyStreams)
	var asking sync.WaitGroup
	for i := range streams {
		asking.Go(func() {
			answer, err := question{tokens: longAnswer, paced: true}.ask(client, m.url)
			if err != nil {
				b.Error(err)
				return
			}
			io.ReadFull(answer, make([]byte, 64))
			streams[i] = answer
		})
	}
	asking.Wait()
	busy := resident()
	for _, s := range streams {
		if s != nil {
			s.Close()
		}
	}
	b.ReportMetric((opened-before)/idleConnections, "KiB/idle")
	b.ReportMetric(opened/1024, "MiB-6000-idle")
	b.ReportMetric(max(busy-empty, 0)/busyStreams, "KiB/stream")
}

// directFirstByte is the median time to the first byte of the backend's answer over its own socket.
func directFirstByte(b *testing.B, socket string) time.Duration {
	b.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	var r result
	for range 500 {
		began := time.Now()
		response, err := client.Post("http://x/", "application/json", strings.NewReader("{}"))
		if err != nil {
			b.Fatal(err)
		}
		var one [1]byte
		if _, err := io.ReadFull(response.Body, one[:]); err != nil {
			b.Fatal(err)
		}
		r.first = append(r.first, time.Since(began))
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	return median(r.first)
}
