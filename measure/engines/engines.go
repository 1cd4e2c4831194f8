// Package engines is what is known of the programs that compute answers, a row each: what their command line may be, and how they are asked.
//
//	d, known := engines.Find("vllm")
//	err := d.Check(argv, env)
//
// The measured config names the row and is held against it, engine-host asks by it whether the engine answers, and the gateway asks it for
// answers by it. ENGINES.md beside this file is the specification. An argument that is in no row reaches no engine: what it would open, or keep
// of a client, nobody here has looked at.
//
// What this package does not promise: that a program is what its row says. Which program runs is the engine volume's root hash.
package engines

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Where an engine finds its model and listens, in its container.
const (
	Model      = "/model"
	Run        = "/run/engine"
	SocketName = "e.sock" // llama-server wants the ending
	Socket     = Run + "/" + SocketName
)

// Nth returns the name of what belongs to one of a guest's engines or models: of the only one name itself, and of several name and its place in the
// config's order, counted from 0. Disks, mapped volumes, their folders, sockets' folders and containers are called so.
func Nth(name string, at, of int) string {
	if of == 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, at)
}

// Dialect is a row.
type Dialect struct {
	Name string // as the measured config has it
	Help string // which program
	// Words come between the program and its arguments.
	Words     []string
	Arguments []Argument
	// Unset begins names of environment variables that would do what no argument may.
	Unset []string
	// Wipes are the variables that have freed memory overwritten.
	Wipes []string

	// Address is where an engine listens that takes no socket, in the network of its container, which has nothing else in it: engine-host makes the socket
	// then, and carries what comes there to and fro. "" is an engine that takes one.
	Address string

	Health string // a GET of it is answered with 200 once the engine computes
	// Stream ends each request for text: it is answered in events, with usage. "" is an engine that answers none.
	Stream string
	// Speech is asked, with a form that has audio, what is said in it; "" is an engine that hears none.
	Speech string
	// CountChat is asked, with the request as it stands, how many tokens a chat has; "" is an engine that can't say. CountText the same of a text, which
	// stands alone behind TextBegin; without that, too, it is the request as it stands.
	CountChat, CountText, TextBegin string
	// LongType is what the type of an error has in it where a prompt is too long, and Long what its message has.
	LongType string
	Long     []string
	// NoEmbeddings is what the message of an error has in it where the engine makes none, beside 404 and 501.
	NoEmbeddings string
}

// Kind is what the value of an argument may be.
type Kind string

// The kinds.
const (
	Flag   Kind = "alone"   // there is none
	Number Kind = "number"  // digits, with a sign or a point
	Word   Kind = "word"    // letters, digits and . _ - : ,
	File   Kind = "file"    // below the model's folder, or the folder
	Value  Kind = "a value" // Only
)

// Argument is one that a command line may have, once.
type Argument struct {
	Names  []string // any of them; documents call it by the first
	Kind   Kind
	Only   string // the one value of kind Value
	Needed bool
}

func flags(names ...string) (all []Argument) { return of(Flag, names...) }

// of makes arguments of a kind. A name is a text with its others behind a space each.
func of(kind Kind, names ...string) (all []Argument) {
	for _, n := range names {
		all = append(all, Argument{Names: strings.Fields(n), Kind: kind})
	}
	return all
}

func needed(a ...Argument) []Argument {
	for i := range a {
		a[i].Needed = true
	}
	return a
}

func only(name, value string) Argument {
	return Argument{Names: []string{name}, Kind: Value, Only: value}
}

// wipes is the setting of glibc that overwrites freed memory and keeps no thread cache of it.
const wipes = "GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"

// Default is the row of a config that names none.
const Default = "llama-server"

var rows = []Dialect{
	{
		Name: Default, Help: "llama.cpp's server",
		Arguments: slices.Concat(
			needed(of(File, "-m --model")...),
			needed(only("--host", Socket), only("--cache-ram", "0")),
			needed(flags("--no-slots", "--no-cache-prompt")...),
			flags("--no-ui", "--offline", "--log-disable", "--no-warmup", "--no-kv-unified", "--kv-unified -kvu", "--embeddings --embedding", "--jinja", "--no-jinja", "--mlock",
				"--no-context-shift", "--no-repack", "--swa-full", "--no-op-offload"),
			of(Number, "-np --parallel", "-c --ctx-size", "-t --threads", "-tb --threads-batch", "-b --batch-size", "-ub --ubatch-size", "-ngl --gpu-layers --n-gpu-layers",
				"-mg --main-gpu", "--threads-http", "--reasoning-budget", "--temp", "--top-k", "--top-p", "--min-p", "--rope-scale", "--rope-freq-base", "--rope-freq-scale"),
			of(Word, "-fa --flash-attn", "-ctk --cache-type-k", "-ctv --cache-type-v", "-sm --split-mode", "-ts --tensor-split", "--pooling", "--reasoning-format", "--load-mode", "--numa",
				"--rope-scaling"),
			of(File, "--chat-template-file"),
		),
		Unset: []string{"LLAMA_", "HF_", "MODEL_ENDPOINT"},
		Wipes: []string{wipes},

		Health: "/health", Stream: `"stream":true,"stream_options":{"include_usage":true},"return_progress":true,"cache_prompt":false`,
		CountChat: "/v1/chat/completions/input_tokens", CountText: "/tokenize", TextBegin: `{"add_special":true,"parse_special":true,"content":`,
		LongType: "exceed_context_size", Long: []string{"is too large to process"},
	},
	{
		Name: "vllm", Help: "vLLM's server",
		Words: []string{"serve", Model},
		Arguments: slices.Concat(
			needed(only("--uds", Socket)),
			needed(flags("--no-enable-prefix-caching")...),
			flags("--disable-log-stats", "--no-enable-log-requests", "--disable-uvicorn-access-log", "--enforce-eager", "--enable-auto-tool-choice", "--enable-chunked-prefill",
				"--no-enable-chunked-prefill", "--disable-custom-all-reduce", "--enable-expert-parallel"),
			of(Number, "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--gpu-memory-utilization", "--tensor-parallel-size -tp", "--pipeline-parallel-size -pp",
				"--block-size", "--seed", "--max-logprobs"),
			of(Word, "--dtype", "--quantization -q", "--kv-cache-dtype", "--load-format", "--tool-call-parser", "--reasoning-parser", "--runner", "--tokenizer-mode", "--generation-config",
				"--distributed-executor-backend"),
			of(File, "--chat-template"),
		),
		Unset: []string{"VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_PLUGINS", "VLLM_API_KEY", "VLLM_TORCH_PROFILER_DIR"},
		// Python's own allocator keeps what it frees, and glibc's is not asked.
		Wipes: []string{wipes, "PYTHONMALLOC=malloc"},

		Health: "/health", Stream: `"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`,
		CountChat: "/tokenize", CountText: "/tokenize",
		Long:         []string{"maximum context length", "maximum model length"},
		NoEmbeddings: "does not support Embeddings",
	},
	{
		Name: "sglang", Help: "SGLang's server",
		Words: []string{"-m", "sglang.launch_server"},
		Arguments: slices.Concat(
			needed(only("--model-path", Model), only("--host", host), only("--port", "30000")),
			needed(flags("--disable-radix-cache")...),
			flags("--skip-server-warmup", "--disable-cuda-graph", "--disable-custom-all-reduce", "--enable-mixed-chunk", "--enable-torch-compile", "--is-embedding", "--enable-dp-attention"),
			of(Number, "--context-length", "--mem-fraction-static", "--max-running-requests", "--max-queued-requests", "--max-total-tokens", "--chunked-prefill-size", "--max-prefill-tokens",
				"--page-size", "--schedule-conservativeness", "--tp-size --tensor-parallel-size --tp", "--pp-size --pipeline-parallel-size", "--dp-size --data-parallel-size", "--random-seed",
				"--watchdog-timeout"),
			of(Word, "--dtype", "--quantization", "--kv-cache-dtype", "--load-format", "--tool-call-parser", "--reasoning-parser", "--attention-backend", "--sampling-backend", "--grammar-backend",
				"--schedule-policy"),
			of(File, "--chat-template"),
		),
		Unset: []string{"SGLANG_", "SGL_"},
		Wipes: []string{wipes, "PYTHONMALLOC=malloc"},

		Address: host + ":30000",
		Health:  "/health", Stream: `"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`,
		CountText: "/v1/tokenize", TextBegin: `{"prompt":`,
		Long:         []string{"maximum context length", "the model's context length"},
		NoEmbeddings: "does not appear to be an embedding model",
	},
	{
		Name: "whisper-server", Help: "whisper.cpp's server",
		Arguments: slices.Concat(
			needed(of(File, "-m --model")...),
			needed(only("--host", host), only("--port", "8080")),
			needed(flags("-nlp --no-language-probabilities")...),
			flags("-ng --no-gpu", "-fa --flash-attn", "-nfa --no-flash-attn", "-nf --no-fallback", "-sns --suppress-nst", "-sow --split-on-word", "--vad"),
			of(Number, "-t --threads", "-bo --best-of", "-bs --beam-size", "-ac --audio-ctx", "-mc --max-context", "-ml --max-len", "-et --entropy-thold", "-lpt --logprob-thold",
				"-nth --no-speech-thold", "-wt --word-thold", "-dev --device", "-vt --vad-threshold"),
			of(Word, "-l --language"),
			of(File, "-vm --vad-model"),
		),
		Unset: []string{"WHISPER_", "GGML_"},
		Wipes: []string{wipes},

		Address: host + ":8080",
		Health:  "/health", Speech: "/inference",
	},
}

// host is where an engine without a socket listens.
const host = "127.0.0.1"

// All returns the rows.
func All() []Dialect { return slices.Clone(rows) }

// Find returns the row of a name, "" being Default's, and reports whether there is one.
func Find(name string) (Dialect, bool) {
	if name == "" {
		name = Default
	}
	i := slices.IndexFunc(rows, func(d Dialect) bool { return d.Name == name })
	if i < 0 {
		return Dialect{}, false
	}
	return rows[i], true
}

// Names returns the names of the rows.
func Names() (names []string) {
	for _, d := range rows {
		names = append(names, d.Name)
	}
	return names
}

// Check holds a whole command line, with its program, and a whole environment against the row.
func (d Dialect) Check(argv, env []string) error {
	if len(argv) <= len(d.Words) || !slices.Equal(argv[1:1+len(d.Words)], d.Words) {
		return fmt.Errorf("argv: want %q behind the program, for %s", d.Words, d.Name)
	}
	given := map[string]bool{}
	for i := 1 + len(d.Words); i < len(argv); i++ {
		at := slices.IndexFunc(d.Arguments, func(a Argument) bool { return slices.Contains(a.Names, argv[i]) })
		if at < 0 {
			return fmt.Errorf("argv[%d] is %.40q, want one of the arguments that %s may have", i, argv[i], d.Name)
		}
		a := d.Arguments[at]
		if given[a.Names[0]] {
			return fmt.Errorf("argv[%d]: %s is given twice", i, a.Names[0])
		}
		given[a.Names[0]] = true
		if a.Kind == Flag {
			continue
		}
		i++
		if i == len(argv) || !a.takes(argv[i]) {
			return fmt.Errorf("argv: %s is %.80q, want %s", a.Names[0], strings.Join(argv[i:min(i+1, len(argv))], ""), a.want())
		}
	}
	for _, a := range d.Arguments {
		if a.Needed && !given[a.Names[0]] {
			return fmt.Errorf("argv lacks %s, which %s must have", strings.TrimSpace(a.Names[0]+" "+a.Only), d.Name)
		}
	}
	for _, v := range env {
		if i := slices.IndexFunc(d.Unset, func(begin string) bool { return strings.HasPrefix(v, begin) }); i >= 0 {
			return fmt.Errorf("env has %.40q, want no variable that begins with %s: it does what no argument may", v, d.Unset[i])
		}
	}
	return nil
}

func (a Argument) want() string {
	switch a.Kind {
	case Value:
		return a.Only
	case File:
		return "a path in " + Model
	}
	return "a " + string(a.Kind)
}

func (a Argument) takes(v string) bool {
	switch a.Kind {
	case Value:
		return v == a.Only
	case File:
		return path.Clean(v) == v && (v == Model || strings.HasPrefix(v, Model+"/"))
	case Number:
		return v != "" && strings.Trim(strings.TrimPrefix(v, "-"), "0123456789.") == "" && strings.ContainsAny(v, "0123456789")
	}
	return v != "" && v[0] != '-' && strings.IndexFunc(v, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-:,", r))
	}) < 0
}
