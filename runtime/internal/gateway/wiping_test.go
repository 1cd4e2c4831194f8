package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/ratls"
	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
)

// TestMain is a gateway in a process of its own when the environment says so: what it holds in memory is then its own alone.
func TestMain(m *testing.M) {
	engine := os.Getenv("CHRYSALIS_TEST_ENGINE")
	if engine == "" {
		os.Exit(m.Run())
	}
	software := attesttest.New(measuredVector(), time.Now())
	both := llama
	both.Speech = "/inference" // no engine hears and reads, and a text that passes is a text that passes
	g, err := New(Config{
		Models: []Model{{Engine: both, Name: "tiny", RequestBytes: 64 << 10, AnswerTokens: 100, ContextTokens: 128, Concurrent: 8,
			DialEngine: func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", engine) }}},
		Keeper: &fakeKeeper{recorded: make(chan struct{}, 1000)}, Quote: quoteOf(software), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			fmt.Printf("%s %x\n", l.Addr(), software.Root.Raw)
			err = g.Serve(context.Background(), l)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// keyOfProcess verifies a gateway in another process, which says whose root vouches for it.
func keyOfProcess(t *testing.T, address, root string) *envelope.Key {
	t.Helper()
	der, err := hex.DecodeString(root)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := attest.Roots{VTPM: x509.NewCertPool()}
	roots.VTPM.AddCert(certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	result, err := ratls.Detached(t.Context(), transport, "https://"+address,
		ratls.Config{Policy: attesttest.New(measuredVector(), time.Now()).Policy(), Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	key, err := envelope.KeyOf(result)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// memoryOf counts a marker in all of a process's memory.
func memoryOf(t *testing.T, pid int, marker []byte) (n int) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, os.ErrPermission) {
		t.Skipf("this user may not read the memory of a process of its own: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		from, to, _ := strings.Cut(strings.Fields(line)[0], "-")
		start, _ := strconv.ParseInt(from, 16, 64)
		end, err := strconv.ParseInt(to, 16, 64)
		if err != nil || !strings.Contains(line, " rw") {
			continue
		}
		const window = 1 << 20
		buf := make([]byte, window+len(marker))
		for at := start; at < end; at += window {
			k, _ := memory.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			n += bytes.Count(buf[:k], marker)
		}
	}
	return n
}

// TestNoTextStays asks in every way, in the clear and in envelopes, keeps the connections open, and looks for what was said in the gateway's memory. In a process
// without the runtime's overwriting it is found there, so that the search is known to find.
func TestNoTextStays(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a process's memory for a second or two")
	}
	marker := strings.Repeat("canary", 2)
	engine := startEngine(t)
	engine.set(func(w *engineWriter) {
		if strings.HasPrefix(engine.lastBody(), "--chrysalis-") {
			io.WriteString(w.w, strings.ReplaceAll(whisperSays, "capital", marker))
			return
		}
		w.begin(14)
		for range 20 {
			w.text("an answer's " + marker + " text, ")
		}
		w.end(14, 20)
	})
	left := func(debug string) int {
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{"CHRYSALIS_TEST_ENGINE=" + engine.path, "GODEBUG=" + debug}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer cmd.Process.Kill()
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		address, root, _ := strings.Cut(strings.TrimSpace(line), " ")
		key := keyOfProcess(t, address, root)
		// ask sends a body under a header, keeps the connection open, and returns what was answered.
		ask := func(path, header string, body []byte) *http.Response {
			c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			go fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", path, header, len(body), body)
			response, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			return response
		}
		prompt := func(extra string) string {
			return `{"model":"tiny","messages":[{"role":"user","content":"` + strings.Repeat("a prompt's "+marker+" text ", 30) + `"}]` + extra + `}`
		}
		audio := form(t, part{"file", strings.Repeat(marker+" sound ", 200)}, part{"prompt", marker}, part{"model", "tiny"}, part{"response_format", "verbose_json"})
		for _, tt := range []struct {
			body   string
			status int
		}{
			{audio, 200}, {audio[:len(audio)-30], 400}, {strings.Replace(audio, `"prompt"`, `"`+marker+`"`, 1), 400},
			{prompt(""), 200}, {prompt(`,"stream":true`), 200}, {prompt(`,"unknown":"` + marker + `"`), 400}, {`{"model":"` + marker, 400},
			{prompt(`,"stop":"` + strings.Repeat(marker, 6000) + `"`), 413},
		} {
			path, kind := "/v1/chat/completions", "application/json"
			if tt.body[0] == '-' {
				path, kind = api.Transcriptions, "multipart/form-data; boundary="+testBoundary
			}
			for _, closes := range []string{"", "Connection: close\r\n"} {
				plain := ask(path, "Content-Type: "+kind+"\r\nAuthorization: Bearer "+marker+"\r\n"+closes, []byte(tt.body))
				io.Copy(io.Discard, plain.Body)
				if plain.StatusCode != tt.status {
					t.Fatalf("status %d, want %d", plain.StatusCode, tt.status)
				}
				sealed, answer, err := key.Seal(envelope.Request{Method: "POST", Path: path, Body: []byte(tt.body), Header: []envelope.Field{
					{Name: "authorization", Value: "Bearer " + marker}, {Name: "content-type", Value: kind}}}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				around := ask(path, "Content-Type: "+envelope.RequestType+"\r\n"+envelope.KeyHeader+": "+key.ID()+"\r\n"+closes, sealed)
				if around.StatusCode != 200 {
					io.Copy(io.Discard, around.Body)
					if around.StatusCode != tt.status {
						t.Fatalf("around an envelope: status %d, want %d", around.StatusCode, tt.status)
					}
					continue
				}
				opened, err := answer.Open(around.Body)
				if err != nil || opened.Status != tt.status {
					t.Fatalf("in an envelope: %v, want status %d", err, tt.status)
				}
				if text, err := io.ReadAll(opened); err != nil || tt.status == 200 && !bytes.Contains(text, []byte(marker)) {
					t.Fatalf("in an envelope: %v, %s", err, text)
				}
			}
		}
		n := memoryOf(t, cmd.Process.Pid, []byte(marker))
		for deadline := time.Now().Add(15 * time.Second); n > 0 && debug != "" && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
			n = memoryOf(t, cmd.Process.Pid, []byte(marker))
		}
		return n
	}
	if n := left(""); n == 0 {
		t.Error("a process that overwrites nothing holds no text: the search finds nothing")
	}
	if n := left("clobberfree=1,asyncpreemptoff=1"); n != 0 {
		t.Errorf("%d pieces of text are still in memory", n)
	}
}

// TestInputIsGivenBack: what a connection has read, its handshake included, is overwritten and its memory given back once all of it was taken, and
// not before.
func TestInputIsGivenBack(t *testing.T) {
	c := &tls.Conn{}
	for _, place := range inputs {
		b := input(c, place)
		b.WriteString("canary")
		if wipeInput(c); b.String() != "canary" {
			t.Errorf("input at %d that was not read yet: got %q", place, b.String())
		}
		kept := b.Bytes()
		b.Next(b.Len())
		if wipeInput(c); b.Cap() != 0 || bytes.Contains(kept, []byte("can")) {
			t.Errorf("input at %d that was read: it keeps %d bytes, and its memory says %q", place, b.Cap(), kept)
		}
	}
}

// TestReadBeside: the byte that net/http reads beside a handler is no wait for the next request, however late it is asked for: an answer may
// still have to be written, and overwritten.
func TestReadBeside(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if err := near.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	c := &connection{Conn: tls.Server(near, &tls.Config{}), listener: &listener{}, shaken: true}
	c.framing.begun, c.framing.header = 1, 1
	c.answered.Store(1)
	c.texts.Store(true)
	if _, err := c.Read(make([]byte, 1)); err == nil || !c.texts.Load() {
		t.Errorf("beside a handler: got error %v, and what is written is no text any more", err)
	}
	if _, err := c.Read(make([]byte, 4096)); err == nil || c.texts.Load() {
		t.Errorf("waiting for a request: got error %v, and what is written is a text still", err)
	}
}
