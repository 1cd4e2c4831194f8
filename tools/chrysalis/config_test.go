package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/engines"
	"chrysalis/tools/internal/guest"
)

// fitting is a config, volumes and a machine that fit together.
func fitting(t *testing.T) together {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root", "usr", "bin")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "llama-server"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	engine, model := filepath.Join(dir, "engine.img"), filepath.Join(dir, "model.img")
	for _, args := range [][]string{{"volume", "pack", "engine", filepath.Join(dir, "root"), "-o", engine}, {"volume", "pack", "model", "../../image/model/tiny.gguf", "-o", model}} {
		cmd := newRoot()
		cmd.SetArgs(args)
		cmd.SetOut(new(strings.Builder))
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
	}
	m, err := guest.ReadConfig("", "", engine, model)
	if err != nil {
		t.Fatal(err)
	}
	return together{config: m, files: []guest.Volumes{{Engine: engine, Model: model}}, shape: measure.Shape{CPUs: 2, MemoryMiB: 640}}
}

// vllmLine gives the engine a line of vLLM's that fits but for one argument, which is left out where its value is empty.
func vllmLine(name, value string) func(*together) {
	return func(t *together) {
		e := &t.config.Service.Engine
		e.Dialect, e.Argv = vllm, []string{e.Argv[0], "serve", "/model", "--uds", engines.Socket, "--no-enable-prefix-caching"}
		for _, a := range [][2]string{{"--max-num-seqs", "2"}, {"--max-model-len", "1024"}} {
			if a[0] == name {
				a[1] = value
			}
			if a[1] != "" {
				e.Argv = append(e.Argv, a[0], a[1])
			}
		}
	}
}

// TestCrossCheck: each thing that does not fit is found by its check, and by no other.
func TestCrossCheck(t *testing.T) {
	argv := func(name, value string) func(*together) {
		return func(t *together) {
			words := t.config.Service.Engine.Argv
			words[slices.Index(words, name)+1] = value
		}
	}
	without := func(name string) func(*together) {
		return func(t *together) {
			e := &t.config.Service.Engine
			at := slices.Index(e.Argv, name)
			e.Argv = slices.Delete(e.Argv, at, at+2)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*together)
		check  string // "" finds nothing
		state  severity
		says   string
	}{
		{"all fits", func(*together) {}, "", fine, ""},
		{"ephemeral anywhere", func(t *together) { t.config.Identity.Sealing = config.SealNothing }, "", fine, ""},
		{"lent anywhere", func(t *together) { t.config = guest.Borrowing(t.config, "", nil) }, "", fine, ""},
		{"COCOON's identity without a TD", func(t *together) {
			t.config.Identity.Cocoon, t.config.Identity.Sealing, t.config.Identity.Stranding = true, config.SealNothing, config.StrandingAccepted
		}, "sealing", wrong, "leave identity.cocoon out"},
		{"COCOON's identity in a TD", func(t *together) {
			t.shape.Platform = measure.TDX
			t.config.Identity.Cocoon, t.config.Identity.Sealing, t.config.Identity.Stranding = true, config.SealNothing, config.StrandingAccepted
		}, "", fine, ""},
		{"a TPM's sealing in a TD", func(t *together) { t.shape.Platform = measure.TDX }, "sealing", wrong, "want ephemeral on tdx"},
		{"another engine's volume", func(t *together) { t.config.Service.Engine.Volume.Root[0]++ }, "engine-volume", wrong, "is not the volume that the config names"},
		{"another model's volume", func(t *together) { t.config.Service.Model.Volume.Root[0]++ }, "model-volume", wrong, "--model"},
		{"a program that is not there", func(t *together) { t.config.Service.Engine.Argv[0] = "/bin/llama-server" }, "engine-program", wrong, "engine.img has "},
		{"weights that are not there", argv("-m", "/model/other.gguf"), "model-file", wrong, "told to read /model/other.gguf"},
		{"a GPU that the machine has not", func(t *together) { t.config.Service.GPU = "1 hopper spt" }, "gpu", wrong, "want 1, as service.gpu asks for 1 hopper spt"},
		{"a GPU that nobody asked for", func(t *together) { t.shape.GPUs = []string{"vfio-pci,host=01:00.0"} }, "gpu", wrong, "want 0, as service.gpu asks for none"},
		{"a board", func(t *together) {
			t.config.Service.GPU = "8 hopper ppcie 4 switches"
			t.shape.GPUs = make([]string, 12)
		}, "", fine, ""},
		{"another socket", argv("--host", "127.0.0.1"), "engine-line", wrong, "want /run/engine/e.sock"},
		{"no socket", without("--host"), "engine-line", wrong, "lacks --host"},
		{"more slots", func(t *together) { argv("-np", "4")(t); argv("-c", "4096")(t) }, "slots", doubt, "no work"},
		{"fewer slots", argv("-np", "1"), "slots", wrong, "want 2, as limits.concurrent says"},
		{"no context", without("-c"), "context", doubt, "the model's own context"},
		{"little context", argv("-c", "2046"), "context", wrong, "set -c to 2048 or more"},
		{"little context for all", func(t *together) {
			e := &t.config.Service.Engine
			e.Argv[slices.Index(e.Argv, "--no-kv-unified")] = "--kv-unified"
			argv("-c", "2047")(t)
		}, "context", wrong, "want 2048, which is limits.context_tokens for each of limits.concurrent"},
		{"vLLM's slots", vllmLine("--max-num-seqs", "1"), "slots", wrong, "set --max-num-seqs"},
		{"vLLM's context", vllmLine("--max-model-len", "1023"), "context", wrong, "set --max-model-len to 1024 or more"},
		{"vLLM's own context", vllmLine("--max-model-len", ""), "context", doubt, "the model's own context"},
		{"vLLM that fits", vllmLine("--max-num-seqs", "2"), "", fine, ""},
		{"no room for a prompt", func(t *together) { t.config.Service.Limits.AnswerTokens = 1024 }, "answer", wrong, "a prompt must fit"},
		{"small requests", func(t *together) { t.config.Service.Limits.RequestBytes = 1023 }, "request", doubt, "a token has a byte at least"},
		{"more threads than CPUs", argv("-t", "3"), "threads", doubt, "the machine's CPUs"},
		{"a model larger than its engine's memory", func(t *together) {
			t.config.Service.Engine.MemoryBytes = t.config.Service.Model.Volume.Blocks * 4096
		}, "engine-memory", wrong, "raise service.engine.memory_bytes"},
		{"little memory beside", func(t *together) { t.shape.MemoryMiB = 639 }, "machine-memory", doubt, "leave 512"},
		{"no memory beside", func(t *together) { t.shape.MemoryMiB = 128 }, "machine-memory", wrong, "--memory"},
		{"no memory for a second engine", func(t *together) { t.config.Service.Wipe = config.WipeClient; t.shape.MemoryMiB = 256 }, "machine-memory", wrong, "may have 256"},
		{"memory for a second engine", func(t *together) { t.config.Service.Wipe = config.WipeClient; t.shape.MemoryMiB = 768 }, "", fine, ""},
		{"charges of nothing", func(t *together) { t.config.Service.Price.NanotonPerToken = 0 }, "price", doubt, "payment to none"},
		{"nothing charged", func(t *together) {
			t.config.Service.Price.Payment, t.config.Service.Price.NanotonPerToken = config.PayNothing, 0
		}, "", fine, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := fitting(t)
			c.config.Service.Engine.Argv = slices.Clone(c.config.Service.Engine.Argv)
			tt.change(&c)
			found := crossCheck(c)
			want := len(crossChecks)
			if c.config.Service.Engine.Dialect == vllm {
				want-- // its threads are its own
			}
			if len(found) != want {
				t.Errorf("%d things are looked at, want %d", len(found), want)
			}
			for _, f := range found {
				want := fine
				if f.Name == tt.check {
					want = tt.state
				}
				var b strings.Builder
				printFindings(&b, []finding{f})
				if f.State != want || f.Name == tt.check && !strings.Contains(b.String(), tt.says) || f.State == fine && f.Mend != "" {
					t.Errorf("got %q, want %s with %q", b.String(), want, tt.says)
				}
			}
			if err := wrongOnes(found); (err != nil) != (tt.state == wrong) {
				t.Errorf("the verdict is %v, want a refusal: %t", err, tt.state == wrong)
			}
		})
	}
}

// TestExampleComments: every member of a config that people write has a comment, and every comment a member; the weights share one.
func TestExampleComments(t *testing.T) {
	one, two := example{name: "x", file: "x.gguf"}, example{name: "y", file: "y.gguf"}
	seen := map[string]bool{}
	for _, tt := range []struct {
		platform measure.Platform
		models   []example
	}{{"", []example{one}}, {measure.TDX, []example{one}}, {"", []example{one, two}}} {
		e := examples{price: 1, slots: 1, context: 2, all: tt.models}
		text, err := e.write(tt.platform)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			if len(line) > 160 {
				t.Errorf("%q is too long to read", line)
			}
			key, _, member := strings.Cut(strings.TrimSpace(line), `": `)
			key = strings.TrimPrefix(key, `"`)
			if !member || strings.HasPrefix(strings.TrimSpace(line), "//") {
				continue
			}
			seen[key] = true
			shared := key == "payment" || key == "name" || strings.HasSuffix(key, "_weight") && key != "prompt_weight"
			if commented := strings.HasPrefix(strings.TrimSpace(lines[i-1]), "// "); commented == shared {
				t.Errorf("%s has a comment: %t", key, commented)
			}
		}
	}
	for key := range comments {
		if !seen[key] {
			t.Errorf("a comment is for %q, which no config has", key)
		}
	}
}

// TestCrossCheckOfSeveral: what is said of each model is looked at for each, under its name, and their memory together.
func TestCrossCheckOfSeveral(t *testing.T) {
	two := func(t *testing.T) together {
		c := fitting(t)
		s := &c.config.Service
		other := config.Served{Engine: s.Engine, Model: s.Model, Limits: s.Limits}
		other.Engine.Argv = slices.Clone(other.Engine.Argv)
		other.Model.Name = "other"
		s.Models = []config.Served{{Engine: s.Engine, Model: s.Model, Limits: s.Limits}, other}
		s.Engine, s.Model, s.Limits = config.Engine{}, config.Model{}, config.Limits{}
		c.files = append(c.files, c.files[0])
		c.shape.MemoryMiB = 768
		return c
	}
	for _, tt := range []struct {
		name, check string
		change      func(*together)
		state       severity
		says        string
	}{
		{"everything fits", "", func(*together) {}, fine, ""},
		{"another volume of the second", "model-volume of other", func(t *together) { t.config.Service.Models[1].Model.Volume.Root[0]++ }, wrong, "--model"},
		{"fewer places of the second", "slots of other", func(t *together) { t.config.Service.Models[1].Limits.Concurrent = 1 }, doubt, "no work"},
		{"memory for one", "machine-memory", func(t *together) { t.shape.MemoryMiB = 640 }, doubt, "may have 256"},
	} {
		c := two(t)
		tt.change(&c)
		found := crossCheck(c)
		if want := len(crossChecks) + 11; len(found) != want {
			t.Errorf("%s: %d things are looked at, want %d", tt.name, len(found), want)
		}
		for _, f := range found {
			want := fine
			if f.Name == tt.check {
				want = tt.state
			}
			var b strings.Builder
			printFindings(&b, []finding{f})
			if f.State != want || f.Name == tt.check && !strings.Contains(b.String(), tt.says) {
				t.Errorf("%s: got %q, want %s with %q", tt.name, b.String(), want, tt.says)
			}
		}
	}
}

// TestVolumeFlags: one engine is for all models, or there is one for each.
func TestVolumeFlags(t *testing.T) {
	for _, tt := range []struct{ engines, models, want string }{
		{"e", "a", "e+a"}, {"e", "a b", "e+a e+b"}, {"e f", "a b", "e+a f+b"}, {"e f", "a", ""}, {"e f", "a b c", ""},
	} {
		all, err := (&volumeFlags{strings.Fields(tt.engines), strings.Fields(tt.models)}).pairs()
		var got []string
		for _, v := range all {
			got = append(got, v.Engine+"+"+v.Model)
		}
		if strings.Join(got, " ") != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s and %s: got %q (%v), want %q", tt.engines, tt.models, got, err, tt.want)
		}
	}
}

// TestFindingsAreJSON: what machines read has the same words.
func TestFindingsAreJSON(t *testing.T) {
	text, err := json.Marshal(crossCheck(fitting(t)))
	if err != nil || !strings.Contains(string(text), `{"name":"sealing","state":"ok","found":"tpm-pcr"`) {
		t.Errorf("got %s and error %v", text, err)
	}
}

// TestCrossCheckOfCustodian: a custodian has neither engine nor model that could misfit.
func TestCrossCheckOfCustodian(t *testing.T) {
	c := fitting(t)
	c.config = guest.AsCustodian(guest.Borrowing(c.config, "", nil))
	if found := crossCheck(c); len(found) != 1 || found[0].State != fine || found[0].Found != string(config.SealCustodian) {
		t.Errorf("got %+v, want its sealing alone, which is fine", found)
	}
}
