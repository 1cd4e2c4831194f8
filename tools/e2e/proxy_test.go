package e2e

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// throughProxy asks the guest through `chrysalis proxy`, as a program that knows nothing of it would, and returns the answer's text.
func (c client) throughProxy(prompt string) string {
	t := c.t
	t.Helper()
	receipts := filepath.Join(t.TempDir(), "receipts")
	cmd := exec.CommandContext(t.Context(), filepath.Join(built, "bin/chrysalis"), c.remote("proxy", "--listen", "127.0.0.1:0", "--receipts", receipts)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	base, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("chrysalis proxy said %q (%v), ended with %v", line, err, cmd.Wait())
	}
	body, err := json.Marshal(map[string]any{"model": "tiny", "messages": []map[string]string{{"role": "user", "content": prompt}}})
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post(base+"/chat/completions", "application/json", strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	var answer struct {
		ID      string
		Choices []struct{ Message struct{ Content string } }
	}
	if err != nil || json.Unmarshal(text, &answer) != nil || len(answer.Choices) != 1 {
		t.Fatalf("through the proxy: got %d %s (%v)", response.StatusCode, text, err)
	}
	if response.Header.Get("Chrysalis-Guest") != c.url || len(response.Header.Get("Chrysalis-Config")) != 64 {
		t.Errorf("through the proxy: headers %v do not say who answered", response.Header)
	}
	// The other paths of the same engine, and what it has no means for.
	for _, other := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/completions", `{"model":"tiny","prompt":"The capital of Norway is","max_tokens":6,"temperature":0,"stream":true}`, 200, "[DONE]"},
		{"/messages", `{"model":"tiny","max_tokens":6,"messages":[{"role":"user","content":"What is the capital of Norway?"}],"stream":true}`, 200, "message_stop"},
		{"/responses", `{"model":"tiny","input":"What is the capital of Norway?","stream":true}`, 200, "response.completed"},
		{"/embeddings", `{"model":"tiny","input":"Oslo"}`, 404, "no_embeddings"},
		{"/completions", `{"model":"tiny","prompt":"` + strings.Repeat("Norway ", 1000) + `"}`, 400, "tokens, want at most 1023"},
	} {
		response, err := http.Post(base+other.path, "application/json", strings.NewReader(other.body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != other.status || !strings.Contains(string(text), other.says) {
			t.Errorf("%s through the proxy: got %d %s (%v), want %d and %q", other.path, response.StatusCode, text, err, other.status, other.says)
		}
	}
	signed, err := http.Get(base + "/signature/" + answer.ID)
	if err != nil {
		t.Fatal(err)
	}
	vouched, err := io.ReadAll(signed.Body)
	signed.Body.Close()
	if want := fmt.Sprintf("%x:%x", sha256.Sum256(body), sha256.Sum256(text)); err != nil || signed.StatusCode != 200 || !strings.Contains(string(vouched), want) {
		t.Errorf("signature: got %d %s (%v), want it over %s", signed.StatusCode, vouched, err, want)
	}
	c.throughJavaScript(strings.TrimSuffix(base, "/v1"), prompt, answer.Choices[0].Message.Content)
	http.DefaultClient.CloseIdleConnections()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("chrysalis proxy ended with %v", err)
	}
	if kept, err := filepath.Glob(filepath.Join(receipts, "*", "*.json")); err != nil || len(kept) != 4 {
		t.Errorf("through the proxy: %q (%v) was kept, want four proofs", kept, err)
	}
	verify := exec.CommandContext(t.Context(), filepath.Join(built, "bin/chrysalis"),
		slices.Concat([]string{"receipt", "verify", receipts, "--policy", c.policy}, c.trust())...)
	if out, err := verify.CombinedOutput(); err != nil || !strings.Contains(string(out), "4 receipts") {
		t.Errorf("receipt verify: %v\n%s", err, out)
	}
	return answer.Choices[0].Message.Content
}
