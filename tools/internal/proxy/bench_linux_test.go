package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chrysalis/attest/ratls"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
)

// TestMain turns the test binary into the engine or the load of the benchmark when the environment says so: what the proxy uses is then this process's alone.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CHRYSALIS_BENCH_ENGINE"); socket != "" {
		serveBenchEngine(socket)
		return
	}
	if url := os.Getenv("CHRYSALIS_BENCH_LOAD"); url != "" {
		benchLoad(url, os.Getenv("CHRYSALIS_BENCH_PACED") != "")
		return
	}
	os.Exit(m.Run())
}

// The benchmark's answers.
const (
	benchStreams = 16
	benchTokens  = 128
	benchEvery   = 20 * time.Millisecond
	benchAlone   = 300 // answers one after the other
	benchRounds  = 5
)

// serveBenchEngine answers as llama-server does: paced when the temperature is 1, else at once.
func serveBenchEngine(socket string) {
	l, err := net.Listen("unix", socket)
	if err == nil {
		err = os.Chmod(socket, 0o777)
	}
	if err != nil {
		panic(err)
	}
	event := []byte(`data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" word"}}],"created":1795183126,"id":"chatcmpl-ZOX8d8i1q5RigJEOVALCO2B9kUeKF477","model":"/model/tiny.gguf","object":"chat.completion.chunk"}` + "\n\n")
	panic(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Connection", "close")
		for range benchTokens {
			if bytes.Contains(body, []byte(`"temperature":1`)) {
				time.Sleep(benchEvery)
			}
			w.Write(event)
			w.(http.Flusher).Flush()
		}
		fmt.Fprintf(w, `data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}`+"\n\n"+
			`data: {"choices":[],"usage":{"completion_tokens":%d,"prompt_tokens":14}}`+"\n\ndata: [DONE]\n\n", benchTokens)
	})))
}

// benchLoad asks, and prints how many tokens came and the median time to the first byte in microseconds: a stream of answers alone, or several paced at once.
func benchLoad(url string, paced bool) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: benchStreams}}
	temperature, streams, answers := 0, 1, benchAlone
	if paced {
		temperature, streams, answers = 1, benchStreams, 1
	}
	var mu sync.Mutex
	var firsts []time.Duration
	tokens := 0
	var running sync.WaitGroup
	for range streams {
		running.Go(func() {
			for range answers {
				request, err := http.NewRequest(http.MethodPost, url+api.ChatCompletions, strings.NewReader(fmt.Sprintf(
					`{"model":"tiny","messages":[{"role":"user","content":"What is the capital of Norway?"}],"stream":true,"temperature":%d}`, temperature)))
				if err != nil {
					panic(err)
				}
				request.Header.Set("Content-Type", "application/json")
				request.Header.Set(api.ClientHeader, payer.String())
				began := time.Now()
				response, err := client.Do(request)
				if err != nil {
					panic(err)
				}
				lines, first, n := bufio.NewReader(response.Body), time.Duration(0), 0
				for {
					line, err := lines.ReadSlice('\n')
					if first == 0 {
						first = time.Since(began)
					}
					if bytes.Contains(line, []byte(`"content":" word"`)) {
						n++
					}
					if err != nil {
						break
					}
				}
				response.Body.Close()
				mu.Lock()
				firsts, tokens = append(firsts, first), tokens+n
				mu.Unlock()
			}
		})
	}
	running.Wait()
	slices.Sort(firsts)
	fmt.Println(tokens, firsts[len(firsts)/2].Microseconds())
}

// TestBench prints what the proxy costs a client, beside the same gateway asked without it.
func TestBench(t *testing.T) {
	if os.Getenv("CHRYSALIS_BENCH") == "" {
		t.Skip("measures: runs in make bench")
	}
	s := startServiceOver(t, func(t testing.TB, socket string) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "CHRYSALIS_BENCH_ENGINE="+socket)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		for range 500 {
			if _, err := os.Stat(socket); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the engine does not listen")
	})
	load := func(url string, paced bool) (tokens, first float64, cpu time.Duration) {
		c := exec.CommandContext(t.Context(), os.Args[0])
		c.Env = append(os.Environ(), "CHRYSALIS_BENCH_LOAD="+url)
		if paced {
			c.Env = append(c.Env, "CHRYSALIS_BENCH_PACED=1")
		}
		before := ownTime(t)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if _, err := fmt.Sscan(string(out), &tokens, &first); err != nil || int(tokens)%benchTokens != 0 || tokens == 0 {
			t.Fatalf("the load said %q (%v)", out, err)
		}
		return tokens, first, ownTime(t) - before
	}
	// What is asked of the machine's root for evidence is not the client's.
	fetched := time.Now()
	direct := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := direct.Get(s.url + "/v1/evidence?detached=" + strings.Repeat("5a", 32))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	direct.CloseIdleConnections()
	network := time.Since(fetched)
	time.Sleep(time.Second) // a quote a second
	began := time.Now()
	p := startAt(t, Config{Guests: []string{s.url}, Attest: ratls.Config{Policy: s.Policy(), Roots: s.Roots()},
		Payer: func(config.Measured) (ton.Address, error) { return payer, nil }})
	verified := time.Since(began) - network

	var added, perToken, directly []float64
	for range benchRounds {
		_, without, _ := load(s.url, false)
		_, with, _ := load(p.url, false)
		tokens, _, used := load(p.url, true)
		added, directly = append(added, (with-without)/1000), append(directly, without/1000)
		perToken = append(perToken, float64(used.Microseconds())/tokens)
	}
	for _, row := range []struct {
		what     string
		got, bar float64
		beside   string
	}{
		{"proxy: added time to the first byte, ms", medianOf(added), 0.3, fmt.Sprintf("the gateway without it %.2f ms; medians of rounds by turns", medianOf(directly))},
		{"proxy: CPU a token, µs", medianOf(perToken), 40, fmt.Sprintf("no reference: a cost; %d streams with a token each %v", benchStreams, benchEvery)},
		{"proxy: verification at its start beyond the network, ms", float64(verified.Microseconds()) / 1000, 150, fmt.Sprintf("evidence fetched in %.1f ms", float64(network.Microseconds())/1000)},
	} {
		verdict := "missed"
		if row.got <= row.bar {
			verdict = "met"
		}
		fmt.Printf("%-58s %9.3f  ≤ %-7g %-7s %s\n", row.what, row.got, row.bar, verdict, row.beside)
	}
}

func medianOf(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// ownTime is the processor time that this process has used.
func ownTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
