package gateway

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"chrysalis/runtime/api"
)

var update = flag.Bool("update", false, "write the recorded answers anew")

// accidental is what differs from answer to answer.
var accidental = regexp.MustCompile(`[0-9a-f]{32}|"created(_at)?":[0-9]+|"(receipt|charge)":"[^"]+"`)

// TestAnswersAreAsRecorded compares the answers of each dialect, byte for byte, with those from which clients learn to read them
// (runtime/client/proof/testdata/answers).
func TestAnswersAreAsRecorded(t *testing.T) {
	for _, path := range api.Answers() {
		for name, end := range map[string]string{"streamed": `,"stream":true}`, "whole": "}"} {
			if (path == api.Embeddings || path == api.Transcriptions) && name == "streamed" {
				continue
			}
			var engine func(*Config)
			if path == api.Transcriptions {
				engine = inDialect(t, "whisper-server")
			}
			b := startBench(t, engine)
			b.engine.set(spokenEngine)
			switch path {
			case api.Completions:
				b.engine.set(completingEngine)
			case api.Embeddings:
				b.engine.set(embeddingEngine)
			}
			status, text := 0, ""
			if path == api.Transcriptions {
				b.engine.set(hearingEngine)
				status, text = postForm(t, b, form(t, part{"file", audioTest}, part{"model", "tiny"}, part{"response_format", "verbose_json"}, part{"timestamp_granularities[]", "word"}))
			} else {
				status, text = postTo(t, b, path, requests[path]+end)
			}
			if status != 200 {
				t.Fatalf("%s: status %d: %s", path, status, text)
			}
			got := accidental.ReplaceAllStringFunc(text, func(s string) string {
				if name, _, ok := strings.Cut(s, ":"); ok && strings.HasPrefix(name, `"created`) {
					return name + ":1"
				} else if ok {
					return name + `:"AAAA"`
				}
				return strings.Repeat("0", 32)
			})
			file := filepath.Join("..", "..", "client", "proof", "testdata", "answers", strings.ReplaceAll(strings.TrimPrefix(path, "/v1/"), "/", "-")+"-"+name)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s, %s: got\n%s\nwant\n%s", path, name, got, want)
			}
		}
	}
}

// TestEveryDialectIsAnAnswer: clients and proxies go by the list of paths.
func TestEveryDialectIsAnAnswer(t *testing.T) {
	if len(dialects) != len(api.Answers()) {
		t.Errorf("%d dialects, and %d paths of answers", len(dialects), len(api.Answers()))
	}
	for _, path := range api.Answers() {
		if dialects[path] == nil {
			t.Errorf("no dialect answers at %s", path)
		}
	}
}
