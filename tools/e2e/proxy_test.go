package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	http.DefaultClient.CloseIdleConnections()
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err != nil || json.Unmarshal(text, &answer) != nil || len(answer.Choices) != 1 {
		t.Fatalf("through the proxy: got %d %s (%v)", response.StatusCode, text, err)
	}
	if response.Header.Get("Chrysalis-Guest") != c.url || len(response.Header.Get("Chrysalis-Config")) != 64 {
		t.Errorf("through the proxy: headers %v do not say who answered", response.Header)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("chrysalis proxy ended with %v", err)
	}
	if kept, err := filepath.Glob(filepath.Join(receipts, "*", "*.json")); err != nil || len(kept) != 1 {
		t.Errorf("through the proxy: %q (%v) was kept, want one proof", kept, err)
	}
	return answer.Choices[0].Message.Content
}
