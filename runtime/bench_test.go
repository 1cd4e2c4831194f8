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
)

// TestMain turns the test binary into the backend of the benchmark when the environment says so: the load, the backend
// and what stands between them are processes of their own, so that each one's CPU time is known.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CHRYSALIS_BENCH_BACKEND"); socket != "" {
		serveBackend(socket)
		return
	}
	os.Exit(m.Run())
}

// The benchmark's answers.
const (
	benchStreams = 64
	benchTokens  = 32
	pacedEvery   = 20 * time.Millisecond
	benchRounds  = 5
	benchFor     = 1500 * time.Millisecond
)

// serveBackend answers as llama-server does, with events of its size: paced when the temperature is 1, else at once.
func serveBackend(socket string) {
	event := []byte(`data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],"created":1795183126,"id":"chatcmpl-ZOX8d8i1q5RigJEOVALCO2B9kUeKF477","model":"/model/tiny.gguf","object":"chat.completion.chunk"}` + "\n\n")
	end := []byte(`data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}` + "\n\n" +
		`data: {"choices":[],"usage":{"completion_tokens":32,"prompt_tokens":14}}` + "\n\ndata: [DONE]\n\n")
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
		for range benchTokens {
			if paced {
				time.Sleep(pacedEvery)
			}
			w.Write(event)
			w.(http.Flusher).Flush()
		}
		w.Write(end)
	})))
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write("cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
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

// load asks over streams connections for a time.
func load(b *testing.B, url string, streams int, paced bool, pids ...int) result {
	b.Helper()
	temperature := 0
	if paced {
		temperature = 1
	}
	body := fmt.Sprintf(`{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}],"stream":true,"temperature":%d}`, temperature)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: streams}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var r result
	one := func() {
		request, err := http.NewRequest(http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Chrysalis-Client", clientAddress)
		began := time.Now()
		response, err := client.Do(request)
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			r.failed++
			return
		}
		defer response.Body.Close()
		lines := bufio.NewReader(response.Body)
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
		if !whole || tokens != benchTokens {
			r.failed++
		}
		r.requests, r.tokens, r.first = r.requests+1, r.tokens+tokens, append(r.first, first)
	}
	for range 2 { // connections are opened before the clock starts
		var warm sync.WaitGroup
		for range streams {
			warm.Go(one)
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
				one()
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

// BenchmarkGateway compares keeper and gateway, as init starts them, with nginx in front of the same backend. Run it with
// -benchtime 1x: each part runs for a fixed time, and what counts are the ratios.
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
	k, line := m.startKeeper(0)
	if line != "ready" {
		b.Fatalf("keeper said %q, want ready", line)
	}
	g := m.startGateway()
	for _, paced := range []bool{true, false} {
		b.Run(map[bool]string{true: "paced-64-streams", false: "unpaced-64-streams"}[paced], func(b *testing.B) {
			var cost, rate, token, request, keeper, perSecond []float64
			for range benchRounds { // by turns, so that what else runs on the machine meets both
				reference := load(b, nginx, benchStreams, paced, workers...)
				kept := cpu(b, k.Process.Pid)
				ours := load(b, m.url, benchStreams, paced, g.Process.Pid, k.Process.Pid)
				keeper = append(keeper, float64(cpu(b, k.Process.Pid)-kept)/float64(ours.cpu))
				cost = append(cost, float64(ours.perToken())/float64(reference.perToken()))
				rate = append(rate, ours.perSecond()/reference.perSecond())
				token = append(token, float64(ours.perToken())/1000)
				request = append(request, float64(ours.cpu)/1000/float64(ours.requests))
				perSecond = append(perSecond, ours.perSecond())
			}
			b.ReportMetric(median(cost), "cpu/nginx")
			b.ReportMetric(median(token), "us-cpu/token")
			b.ReportMetric(median(keeper), "keeper/cpu")
			if !paced {
				b.ReportMetric(median(rate), "rate/nginx")
				b.ReportMetric(median(request), "us-cpu/request")
				b.ReportMetric(median(perSecond), "requests/s")
				b.ReportMetric(fsyncs, "fsyncs/s")
			}
		})
	}
	b.Run("first-byte", func(b *testing.B) {
		direct := directFirstByte(b, socket)
		ours := load(b, m.url, 1, false)
		b.ReportMetric(float64((median(ours.first) - direct).Microseconds()), "us-added")
		b.ReportMetric(float64(direct.Microseconds()), "us-direct")
	})
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
