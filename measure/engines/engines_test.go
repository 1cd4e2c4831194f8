package engines

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
)

// good is a command line that each dialect takes.
var good = map[string][]string{
	"llama-server": {"/usr/bin/llama-server", "-m", "/model/tiny.gguf", "--host", Socket, "--cache-ram", "0", "--no-slots", "--no-cache-prompt", "-np", "2", "-c", "2048", "-fa", "on",
		"--temp", "-0.5", "--chat-template-file", "/model/chat.jinja", "--kv-unified"},
	"vllm": {"/usr/bin/vllm", "serve", "/model", "--uds", Socket, "--no-enable-prefix-caching", "--max-model-len", "4096", "-tp", "8", "--dtype", "bfloat16", "--enable-auto-tool-choice"},
	"sglang": {"/usr/bin/python3", "-m", "sglang.launch_server", "--model-path", "/model", "--host", "127.0.0.1", "--port", "30000", "--disable-radix-cache", "--context-length", "4096", "--tp", "8",
		"--reasoning-parser", "qwen3"},
	"whisper-server": {"/usr/bin/whisper-server", "-m", "/model/ggml-base.bin", "--host", "127.0.0.1", "--port", "8080", "-nlp", "-t", "2", "-l", "auto", "-ng"},
}

func TestCheck(t *testing.T) {
	replaced := func(name, old string, with ...string) []string {
		at := slices.Index(good[name], old)
		if at < 0 {
			t.Fatalf("%s is not given to %s", old, name)
		}
		return slices.Replace(slices.Clone(good[name]), at, at+1, with...)
	}
	more := func(name string, words ...string) []string { return slices.Concat(good[name], words) }
	for _, tt := range []struct {
		name, dialect string
		argv, env     []string
		want          string // "" is accepted
	}{
		{"llama-server", "llama-server", good["llama-server"], []string{"PATH=/usr/bin"}, ""},
		{"vllm", "vllm", good["vllm"], []string{"VLLM_LOGGING_LEVEL=ERROR"}, ""},
		{"another name of an argument", "llama-server", replaced("llama-server", "-m", "--model"), nil, ""},

		{"a lora", "llama-server", more("llama-server", "--lora", "/model/l.gguf"), nil, `is "--lora", want one of the arguments that llama-server may have`},
		{"slots on disk", "llama-server", more("llama-server", "--slot-save-path", "/tmp"), nil, "slot-save-path"},
		{"prompts into a log", "llama-server", more("llama-server", "--log-prompts-dir", "/tmp"), nil, "log-prompts-dir"},
		{"a value behind an equals sign", "llama-server", more("llama-server", "--temp=1"), nil, "--temp=1"},
		{"a word of no argument", "llama-server", more("llama-server", "serve"), nil, `"serve"`},
		{"a network", "llama-server", replaced("llama-server", Socket, "0.0.0.0"), nil, "--host is \"0.0.0.0\", want " + Socket},
		{"a cache", "llama-server", replaced("llama-server", "0", "8192"), nil, `--cache-ram is "8192", want 0`},
		{"no word of the cache", "llama-server", slices.DeleteFunc(slices.Clone(good["llama-server"]), func(s string) bool { return s == "--cache-ram" || s == "0" }), nil, "lacks --cache-ram 0"},
		{"prompts kept", "llama-server", slices.DeleteFunc(slices.Clone(good["llama-server"]), func(s string) bool { return s == "--no-cache-prompt" }), nil, "lacks --no-cache-prompt"},
		{"a model from elsewhere", "llama-server", replaced("llama-server", "/model/tiny.gguf", "/tmp/x.gguf"), nil, "want a path in /model"},
		{"a model out of its folder", "llama-server", replaced("llama-server", "/model/tiny.gguf", "/model/../tmp/x"), nil, "want a path in /model"},
		{"a folder that begins like it", "llama-server", replaced("llama-server", "/model/tiny.gguf", "/models/x"), nil, "want a path in /model"},
		{"no number", "llama-server", replaced("llama-server", "2048", "many"), nil, `-c is "many", want a number`},
		{"a sign and no digit", "llama-server", replaced("llama-server", "2048", "-"), nil, "want a number"},
		{"an argument for a value", "llama-server", replaced("llama-server", "on", "--lora"), nil, "want a word"},
		{"a path for a word", "llama-server", replaced("llama-server", "on", "/tmp/x"), nil, "want a word"},
		{"no value", "llama-server", more("llama-server", "-t"), nil, `-t is "", want a number`},
		{"twice", "llama-server", more("llama-server", "-c", "4096"), nil, "-c is given twice"},
		{"twice, by another name", "llama-server", more("llama-server", "--ctx-size", "4096"), nil, "-c is given twice"},
		{"a setting by the environment", "llama-server", good["llama-server"], []string{"LLAMA_ARG_CACHE_RAM=8192"}, "begins with LLAMA_"},
		{"nothing", "llama-server", nil, nil, "want"},
		{"a program alone", "llama-server", []string{"/usr/bin/llama-server"}, nil, "lacks -m"},

		{"another verb", "vllm", replaced("vllm", "serve", "run-batch"), nil, `want ["serve" "/model"]`},
		{"a model by name", "vllm", replaced("vllm", "/model", "org/model"), nil, `want ["serve" "/model"]`},
		{"shared prefixes", "vllm", replaced("vllm", "--no-enable-prefix-caching", "--enable-prefix-caching"), nil, "enable-prefix-caching"},
		{"code out of the model", "vllm", more("vllm", "--trust-remote-code"), nil, "trust-remote-code"},
		{"middleware", "vllm", more("vllm", "--middleware", "x.y"), nil, "middleware"},
		{"a network beside the socket", "vllm", more("vllm", "--host", "0.0.0.0"), nil, "--host"},
		{"JSON", "vllm", more("vllm", "--generation-config", `{"a":1}`), nil, "want a word"},
		{"a developer's server", "vllm", good["vllm"], []string{"VLLM_SERVER_DEV_MODE=1"}, "VLLM_SERVER_DEV_MODE"},
		{"sglang", "sglang", good["sglang"], nil, ""},
		{"prefixes in a tree", "sglang", slices.DeleteFunc(slices.Clone(good["sglang"]), func(s string) bool { return s == "--disable-radix-cache" }), nil, "lacks --disable-radix-cache"},
		{"another module", "sglang", replaced("sglang", "sglang.launch_server", "http.server"), nil, `want ["-m" "sglang.launch_server"]`},
		{"every network", "sglang", replaced("sglang", "127.0.0.1", "0.0.0.0"), nil, `--host is "0.0.0.0", want 127.0.0.1`},
		{"another port", "sglang", replaced("sglang", "30000", "30001"), nil, `--port is "30001", want 30000`},
		{"requests into a log", "sglang", more("sglang", "--log-requests"), nil, "log-requests"},
		{"code out of the model, too", "sglang", more("sglang", "--trust-remote-code"), nil, "trust-remote-code"},
		{"a setting of SGLang's by the environment", "sglang", good["sglang"], []string{"SGLANG_ENABLE_X=1"}, "begins with SGLANG_"},

		{"whisper-server", "whisper-server", good["whisper-server"], nil, ""},
		{"languages guessed for everybody", "whisper-server", slices.DeleteFunc(slices.Clone(good["whisper-server"]), func(s string) bool { return s == "-nlp" }), nil, "lacks -nlp"},
		{"files for ffmpeg", "whisper-server", more("whisper-server", "--convert"), nil, "--convert"},
		{"a folder for everybody", "whisper-server", more("whisper-server", "--public", "/model"), nil, "--public"},
		{"another path", "whisper-server", more("whisper-server", "--inference-path", "/load"), nil, "--inference-path"},

		{"llama-server's line", "vllm", good["llama-server"], nil, "want"},
		{"vLLM's line", "llama-server", good["vllm"], nil, `is "serve"`},
	} {
		d, known := Find(tt.dialect)
		if !known {
			t.Fatalf("no dialect %q", tt.dialect)
		}
		err := d.Check(tt.argv, tt.env)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestNth(t *testing.T) {
	for _, tt := range []struct {
		at, of int
		want   string
	}{{0, 1, "engine"}, {0, 2, "engine-0"}, {1, 2, "engine-1"}, {7, 8, "engine-7"}} {
		if got := Nth("engine", tt.at, tt.of); got != tt.want {
			t.Errorf("%d of %d: got %q, want %q", tt.at, tt.of, got, tt.want)
		}
	}
}

// TestRows: each row has what each part of the guest needs of it, and says each argument once.
func TestRows(t *testing.T) {
	for _, d := range All() {
		if found, known := Find(d.Name); !known || found.Name != d.Name || good[d.Name] == nil || d.Help == "" || d.Health == "" || len(d.Wipes) == 0 || (d.Stream == "") != (d.Speech != "") ||
			d.Stream != "" && (!strings.HasPrefix(d.Stream, `"stream":true,`) || !strings.Contains(d.Stream, `"include_usage":true`) || len(d.Long) == 0) {
			t.Errorf("%s: the row lacks something: %+v", d.Name, d)
		}
		seen := map[string]bool{}
		for _, a := range d.Arguments {
			for _, n := range a.Names {
				if !strings.HasPrefix(n, "-") || seen[n] {
					t.Errorf("%s: argument %q is none, or is there twice", d.Name, n)
				}
				seen[n] = true
			}
			if len(a.Names) == 0 || (a.Kind == Value) != (a.Only != "") {
				t.Errorf("%s: argument %+v", d.Name, a)
			}
		}
	}
	if d, known := Find(""); !known || d.Name != Default {
		t.Errorf("no name: got %q, want %s", d.Name, Default)
	}
	if _, known := Find("ollama"); known {
		t.Error("a program that nobody here knows has a row")
	}
}

// TestSpecification: the tables in ENGINES.md are the rows here.
func TestSpecification(t *testing.T) {
	text, err := os.ReadFile("ENGINES.md")
	if err != nil {
		t.Fatal(err)
	}
	code := func(all ...string) string {
		for i, s := range all {
			all[i] = "`" + s + "`"
		}
		return strings.Join(all, ", ")
	}
	for _, d := range All() {
		want := fmt.Sprintf("## `%s`: %s\n\n| argument | value | |\n|---|---|---|\n", d.Name, d.Help)
		for _, a := range d.Arguments {
			value, must := string(a.Kind), ""
			if a.Only != "" {
				value = "`" + a.Only + "`"
			}
			if a.Needed {
				must = "must be there"
			}
			want += fmt.Sprintf("| %s | %s | %s |\n", code(slices.Clone(a.Names)...), value, must)
		}
		want += fmt.Sprintf("\nVariables that begin with %s are refused; %s must be there. Health: `%s`.", code(slices.Clone(d.Unset)...), code(slices.Clone(d.Wipes)...), d.Health)
		if d.Address != "" {
			want += fmt.Sprintf(" It listens at `%s` of its container.", d.Address)
		}
		if d.Stream != "" {
			want += fmt.Sprintf(" Each request for text ends with `%s`.", d.Stream)
		}
		if d.Speech != "" {
			want += fmt.Sprintf(" Audio is asked for at `%s`.", d.Speech)
		}
		want += "\n"
		// Whoever has no socket listens in its container alone, where engine-host asks.
		if address := net.JoinHostPort(value(good[d.Name], "--host"), value(good[d.Name], "--port")); d.Address != "" && d.Address != address {
			t.Errorf("%s is asked at %s and told to listen at %s", d.Name, d.Address, address)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("ENGINES.md lacks:\n%s", want)
		}
	}
}

func value(argv []string, name string) string { return argv[slices.Index(argv, name)+1] }

// FuzzCheck: what is accepted is accepted again by the words that it is made of, and names nothing outside of the model's folder and the socket.
func FuzzCheck(f *testing.F) {
	for _, name := range Names() {
		d, _ := Find(name)
		if err := d.Check(good[name], nil); err != nil {
			f.Fatal(err)
		}
		f.Add(name, strings.Join(good[name], "\x00"))
	}
	f.Fuzz(func(t *testing.T, name, line string) {
		d, known := Find(name)
		argv := strings.Split(line, "\x00")
		if !known || d.Check(argv, nil) != nil {
			return
		}
		for _, word := range argv[1:] {
			if strings.Contains(word, "/") && word != Socket && word != Model && !strings.HasPrefix(word, Model+"/") {
				t.Errorf("%q is accepted with %q", line, word)
			}
		}
		for _, a := range d.Arguments {
			if n := count(argv, a.Names); n > 1 || a.Needed && n != 1 {
				t.Errorf("%q is accepted, with %s %d times", line, a.Names[0], n)
			}
		}
	})
}

func count(argv, names []string) (n int) {
	for _, word := range argv {
		if slices.Contains(names, word) {
			n++
		}
	}
	return n
}
