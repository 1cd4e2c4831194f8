// Command probe tries, inside a guest, what a program that was taken over would try, and reports how the kernel answered:
// one line an attempt, "NAME ERRNO", or "NAME ok". It is built and packed by the tests alone.
//
// As the engine (with its arguments) it runs in the engine's container and answers every prompt with its report. In the place of
// containerd it runs as root beside init, writes the report to a virtio port that the test has added, and ends.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"chrysalis/measure/engines"
)

// unprivileged is the argument under which the probe tries again as nobody, outside every container.
const unprivileged = "unprivileged"

// nothing is the argument under which it does nothing.
const nothing = "nothing"

// portName is the virtio port for the report.
const portName = "org.chrysalis.probe"

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == nothing: // that it started is the attempt
	case len(os.Args) == 2 && os.Args[1] == unprivileged:
		report(os.Stdout, "nobody", asNobody)
	case slices.Contains(os.Args, engines.Socket): // as an engine
		serve(engines.Socket)
	default:
		if err := asRootOfGuest(); err != nil {
			log.Fatal(err)
		}
	}
}

// asRootOfGuest reports to the port what root may do, and what a user without any right may.
func asRootOfGuest() error {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return err
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err != nil || strings.TrimSpace(string(text)) != portName {
			continue
		}
		port, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer port.Close()
		report(port, "root", append(asRoot, escapes...))
		// The program is open already where it lies, so nobody needs no right to a path.
		cmd := exec.Command("/proc/self/exe", unprivileged)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		cmd.Stdout = port
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(port, "nobody starts %v\n", err)
		}
		_, err = port.WriteString("end\n")
		return err
	}
	return fmt.Errorf("no virtio port %s among %d", portName, len(names))
}

// serve is an engine whose every answer is the report.
func serve(socket string) {
	var text strings.Builder
	report(&text, "engine", append(append([]attempt{}, asNobody...), inContainer...))
	if err := os.RemoveAll(socket); err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"status":"ok"}`) })
	http.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
		w.Header().Set("Content-Type", "text/event-stream")
		content, _ := json.Marshal(text.String())
		const head = `{"id":"x","object":"chat.completion.chunk","created":1,"model":"probe"`
		for _, rest := range []string{
			`,"choices":[{"index":0,"delta":{"content":` + string(content) + `},"finish_reason":null}]}`,
			`,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
			`,"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}`,
		} {
			fmt.Fprintf(w, "data: %s%s\n\n", head, rest)
		}
		io.WriteString(w, "data: [DONE]\n\n")
		w.(http.Flusher).Flush()
	})
	log.Fatal(http.Serve(l, nil))
}
