package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestServiceFiles: what the units and the container start is a command line that the verb takes.
func TestServiceFiles(t *testing.T) {
	for file, line := range map[string]func(string) (string, bool){
		"service/chrysalis-proxy.service": func(l string) (string, bool) {
			argv, ok := strings.CutPrefix(l, "ExecStart=/usr/local/bin/")
			return strings.Replace(argv, "$GUESTS", "https://a.example", 1), ok
		},
		"service/Containerfile": func(l string) (string, bool) {
			list, ok := strings.CutPrefix(l, "ENTRYPOINT ")
			var argv []string
			if ok && json.Unmarshal([]byte(list), &argv) != nil {
				t.Errorf("%s is no list", l)
			}
			return strings.TrimPrefix(strings.Join(argv, " "), "/") + " https://a.example", ok
		},
		"service/chrysalis-exporter.service": func(l string) (string, bool) { return strings.CutPrefix(l, "ExecStart=/usr/local/bin/") },
	} {
		name := "proxy"
		if strings.Contains(file, "exporter") {
			name = "exporter"
		}
		verb, _, err := newRoot().Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		started := 0
		for l := range strings.Lines(string(text)) {
			if argv, ok := line(strings.TrimSpace(l)); ok {
				started++
				if !tryExample(t, verb, argv) {
					t.Errorf("%s starts %q, want chrysalis %s", file, argv, name)
				}
			}
		}
		if started != 1 {
			t.Errorf("%s starts %d programs, want one", file, started)
		}
	}
}
