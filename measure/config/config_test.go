package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

// example returns a valid config, as the tests' starting point.
func example() Measured {
	return Measured{
		Identity: Identity{
			Network:      Local,
			RootContract: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xa1}, 32))},
			PayoutOwner:  ton.Address{Workchain: -1, Account: [32]byte(bytes.Repeat([]byte{0xb2}, 32))},
			Sealing:      SealTPM,
			Instance:     InstanceSealed,
		},
		Service: Service{
			Engine: Engine{
				Volume:      Volume{Root: register.Digest{1}, Blocks: 100},
				Argv:        []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf"},
				Env:         []string{"GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0", "PATH=/usr/bin"},
				MemoryBytes: 512 << 20,
			},
			Model:  Model{Name: "tiny", Volume: Volume{Root: register.Digest{2}, Blocks: 310}},
			GPU:    GPUNone,
			Limits: Limits{RequestBytes: 1 << 20, AnswerTokens: 256, Concurrent: 4, ContextTokens: 512},
			Price: Terms{Payment: PayCharge, Price: ton.Price{NanotonPerToken: 20, PromptWeight: ton.WeightOne, CachedWeight: ton.WeightOne / 10,
				CompletionWeight: ton.WeightOne, ReasoningWeight: ton.WeightOne}},
			Wipe: WipeFreed,
		},
	}
}

func mustEncode(t testing.TB, m Measured) []byte {
	t.Helper()
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVector(t *testing.T) {
	for name, m := range map[string]Measured{"measured.bin": example(), "measured-models.bin": several()} {
		got := mustEncode(t, m)
		file := filepath.Join("testdata", "vectors", name)
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("encoded example: got %q, want the bytes of %s, %q", got, file, want)
		}
		m, err := Decode(want)
		if err != nil {
			t.Fatal(err)
		}
		if again := mustEncode(t, m); !bytes.Equal(again, want) {
			t.Errorf("decoded and encoded: got %q, want %q", again, want)
		}
	}
}

// goesRound encodes a document and wants it back when it is read, or the refusal; then it returns nothing.
func goesRound(t testing.TB, name string, m Measured, refused string) []byte {
	t.Helper()
	b, err := m.Encode()
	if refused != "" {
		if err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%q: got error %v, want one with %q", name, err, refused)
		}
		return nil
	}
	if err != nil {
		t.Errorf("%q: %v", name, err)
		return nil
	}
	if got, err := Decode(b); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%q: got %+v and error %v, want %+v", name, got, err, m)
	}
	return b
}

// TestSealing: each way of sealing has its encoding, and a charge under a key that ends with the boot needs the owner's word.
func TestSealing(t *testing.T) {
	for _, tt := range []struct {
		name, refused string
		change        func(*Measured)
	}{
		{"derived on SEV-SNP", "", func(m *Measured) { m.Identity.Sealing = SealSNP }},
		{"none, with charges", "may be lost", func(m *Measured) { m.Identity.Sealing = SealNothing }},
		{"none, without charges", "", func(m *Measured) {
			m.Identity.Sealing, m.Service.Price.Payment, m.Service.Price.NanotonPerToken = SealNothing, PayNothing, 0
		}},
		{"none, with charges and the owner's word", "", func(m *Measured) {
			m.Identity.Sealing, m.Identity.Stranding = SealNothing, StrandingAccepted
		}},
		{"the owner's word for a sealed key", "stranding", func(m *Measured) { m.Identity.Stranding = StrandingAccepted }},
		{"another word", "stranding", func(m *Measured) { m.Identity.Sealing, m.Identity.Stranding = SealNothing, "yes" }},
		{"no way", "sealing", func(m *Measured) { m.Identity.Sealing = "" }},
		{"an unknown way", "sealing", func(m *Measured) { m.Identity.Sealing = "rot13" }},
	} {
		m := example()
		tt.change(&m)
		b := goesRound(t, tt.name, m, tt.refused)
		if b == nil {
			continue
		}
		if has := strings.Contains(string(b), "stranding"); has != (m.Identity.Stranding != "") {
			t.Errorf("%s: the document names stranding: %v, want %v", tt.name, has, !has)
		}
	}
}

// TestCocoon: what init reads of raw bytes is what a parser reads of them, and MRCONFIGID is zeros then alone.
func TestCocoon(t *testing.T) {
	for _, tt := range []struct {
		name, refused string
		change        func(*Measured)
	}{
		{"not", "", func(*Measured) {}},
		{"a TD without a secret of its own", "", func(m *Measured) {
			m.Identity.Cocoon, m.Identity.Sealing, m.Identity.Stranding = true, SealNothing, StrandingAccepted
		}},
		{"sealed to a TPM", "the identity is a TD's", func(m *Measured) { m.Identity.Cocoon = true }},
		{"sealed on SEV-SNP", "the identity is a TD's", func(m *Measured) { m.Identity.Cocoon, m.Identity.Sealing = true, SealSNP }},
	} {
		m := example()
		tt.change(&m)
		b := goesRound(t, tt.name, m, tt.refused)
		if b == nil {
			continue
		}
		if got, zero := IsCocoon(b), MRConfigID(b) == ([48]byte{}); got != m.Identity.Cocoon || zero != m.Identity.Cocoon || !zero && MRConfigID(b) != SHA384(b) {
			t.Errorf("%s: raw bytes say %v and MRCONFIGID is zeros: %v, want %v", tt.name, got, zero, m.Identity.Cocoon)
		}
	}
	public := example()
	public.Identity.Cocoon, public.Identity.Sealing, public.Identity.Stranding = true, SealNothing, StrandingAccepted
	identity, service, err := Split(mustEncode(t, public))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"said not to be": func(s string) string { return strings.Replace(s, `"cocoon":true`, `"cocoon":false`, 1) },
		"said later": func(s string) string {
			return strings.Replace(strings.Replace(s, `"cocoon":true,`, "", 1), `,"root_contract"`, `,"cocoon":true,"root_contract"`, 1)
		},
		"behind white space": func(s string) string { return " " + s },
		"escaped":            func(s string) string { return strings.Replace(s, `"cocoon"`, `"c\u006fcoon"`, 1) },
		"said twice":         func(s string) string { return strings.Replace(s, `"cocoon":true,`, `"cocoon":true,"cocoon":true,`, 1) },
	} {
		changed := change(string(identity))
		if changed == string(identity) {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := Decode(appendPart(appendPart(nil, []byte(changed)), service)); err == nil {
			t.Errorf("%s: got no error, want one: raw bytes and parser could differ", name)
		}
	}
}

// TestHandover: each way to narrow a handover has its encoding, and not narrowing it has none.
func TestHandover(t *testing.T) {
	for word, good := range map[Handover]bool{HandoverReleases: true, HandoverSame: true, HandoverNone: true, "any": false, "None": false} {
		m := example()
		m.Identity.Handover = word
		refused := ""
		if !good {
			refused = "handover"
		}
		b := goesRound(t, string(word), m, refused)
		if b == nil {
			continue
		}
		if has := strings.Contains(string(b), "handover"); has != (word != "") {
			t.Errorf("%q: the document names handover: %v, want %v", word, has, !has)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := string(mustEncode(t, example()))
	identity, service, err := Split([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	join := func(identity, service string) string {
		return string(appendPart(appendPart(nil, []byte(identity)), []byte(service)))
	}
	swap := func(part []byte, old, new string) string {
		if strings.Count(string(part), old) == 0 {
			t.Fatalf("%q does not occur in %s", old, part)
		}
		return strings.Replace(string(part), old, new, 1)
	}
	id, sv := string(identity), string(service)
	for _, tt := range []struct{ name, measured, want string }{
		{"empty", "", "want a length of 4"},
		{"cut short", good[:len(good)-1], "bytes are left"},
		{"trailing byte", good + "x", "1 bytes after the service part"},
		{"huge length", "\xff\xff\xff\xff" + good, "want at most"},
		{"white space", join(" "+id, sv), "not in canonical form from byte 0"},
		{"unknown field", join(swap(identity, `{"network"`, `{"debug":true,"network"`), sv), "unknown object member"},
		{"repeated field", join(swap(identity, `{"network"`, `{"network":"mainnet","network"`), sv), "duplicate"},
		{"other letter case", join(swap(identity, `"network"`, `"Network"`), sv), "unknown object member"},
		{"missing field", join(swap(identity, `"sealing":"tpm-pcr",`, ``), sv), "not in canonical form"},
		{"fields reordered", join(id, swap(service, `{"root":`, `{"blocks":100,"root":`)), "duplicate"},
		{"network", join(swap(identity, `"local"`, `"lokal"`), sv), "want one of mainnet"},
		{"address in upper case", join(swap(identity, "a1a1", "A1a1"), sv), "not in lower case"},
		{"workchain", join(swap(identity, `"0:`, `"1:`), sv), "want 0: or -1:"},
		{"no root contract", join(swap(identity, strings.Repeat("a1", 32), strings.Repeat("00", 32)), sv), "root_contract: address is zero"},
		{"sealing", join(swap(identity, "tpm-pcr", "host-file"), sv), `sealing is "host-file"`},
		{"volume of zero blocks", join(id, swap(service, `"blocks":100`, `"blocks":0`)), "volume has 0 blocks"},
		{"number form", join(id, swap(service, `"blocks":100`, `"blocks":1e2`)), "blocks"},
		{"relative program", join(id, swap(service, `"/usr/bin/llama-server"`, `"llama-server"`)), "clean absolute path"},
		{"variable twice", join(id, swap(service, `"PATH=/usr/bin"`, `"PATH=/usr/bin","PATH=/x"`)), "each name once"},
		{"an engine that nobody knows", join(id, swap(service, `"argv":`, `"dialect":"ollama","argv":`)), `dialect is "ollama"`},
		{"the default engine, written", join(id, swap(service, `"argv":`, `"dialect":"llama-server","argv":`)), "none given where it is llama-server"},
		{"no wiping", join(id, swap(service, "tcache_count=0", "tcache_count=1")), "lacks"},
		{"answer past context", join(id, swap(service, `"answer_tokens":256`, `"answer_tokens":513`)), "at most context_tokens"},
		{"price without payment", join(id, swap(service, `"payment":"charge"`, `"payment":"none"`)), "nanoton_per_token is 20"},
		{"invalid UTF-8", join(id, swap(service, `"name":"tiny"`, "\"name\":\"tin\xff\"")), "UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.measured))
			if err == nil {
				t.Fatal("got no error, want a refusal")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %q, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestEncodeRefusesWhatDecodeRefuses(t *testing.T) {
	m := example()
	m.Service.Limits.Concurrent = 0
	if _, err := m.Encode(); err == nil {
		t.Error("a config with concurrent 0: got no error, want a refusal")
	}
}

// TestShares: what an engine has more than others is said in one way, in its place, and nothing is where it has no more.
func TestShares(t *testing.T) {
	m := example()
	e := &m.Service.Engine
	if shm, files, tasks := e.Shares(); shm != 64<<20 || files != 1024 || tasks != 512 {
		t.Errorf("nothing given: got %d, %d and %d, want 64 MiB, 1024 and 512", shm, files, tasks)
	}
	e.MemoryBytes, e.SharedMemoryBytes, e.OpenFiles, e.Tasks = 16<<30, 8<<30, 65536, 4096
	raw := mustEncode(t, m)
	if !bytes.Contains(raw, []byte(`"memory_bytes":17179869184,"shared_memory_bytes":8589934592,"open_files":65536,"tasks":4096}`)) {
		t.Errorf("got %s", raw)
	}
	got, err := Decode(raw)
	if shm, files, tasks := got.Service.Engine.Shares(); err != nil || shm != 8<<30 || files != 65536 || tasks != 4096 {
		t.Errorf("got %d, %d, %d and error %v, want what was given", shm, files, tasks, err)
	}
	for want, change := range map[string]func(*Engine){
		"shared_memory_bytes is 67108864": func(e *Engine) { e.SharedMemoryBytes = 64 << 20 },
		"shared_memory_bytes is 68157441": func(e *Engine) { e.SharedMemoryBytes = 65<<20 + 1 },
		"at most memory_bytes":            func(e *Engine) { e.SharedMemoryBytes = 17 << 30 },
		"open_files is 1024":              func(e *Engine) { e.OpenFiles = 1024 },
		"open_files is 1048577":           func(e *Engine) { e.OpenFiles = 1<<20 + 1 },
		"tasks is 512":                    func(e *Engine) { e.Tasks = 512 },
		"tasks is 32769":                  func(e *Engine) { e.Tasks = 1<<15 + 1 },
	} {
		m := m
		change(&m.Service.Engine)
		if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	if _, err := Decode(bytes.Replace(raw, []byte(`"tasks":4096`), []byte(`"tasks":0000`), 1)); err == nil {
		t.Error("a member that is zero and written: got no error")
	}
}

// TestDialect: an engine of another dialect is named, and goes in and out as it is.
func TestDialect(t *testing.T) {
	m := example()
	e := &m.Service.Engine
	e.Dialect, e.Argv = "vllm", []string{"/usr/bin/vllm", "serve", "/model", "--uds", "/run/engine/e.sock", "--no-enable-prefix-caching"}
	if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), "PYTHONMALLOC=malloc") {
		t.Errorf("a Python that keeps what it frees: got %v", err)
	}
	e.Env = append(e.Env, "PYTHONMALLOC=malloc")
	if got, err := Decode(mustEncode(t, m)); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("decoded as %+v (%v)", got.Service.Engine, err)
	}
}

// TestRuns: a well-formed config that no guest starts an engine by is one all the same.
func TestRuns(t *testing.T) {
	line := []string{"/usr/bin/llama-server", "-m", "/model/tiny.gguf", "--host", "/run/engine/e.sock", "--cache-ram", "0", "--no-slots", "--no-cache-prompt"}
	swap := func(old string, with ...string) []string {
		at := slices.Index(line, old)
		return slices.Replace(slices.Clone(line), at, at+1, with...)
	}
	for _, tt := range []struct {
		name, dialect string
		argv, env     []string
		want          string // "" runs
	}{
		{"llama-server", "", line, nil, ""},
		{"what it must have", "", line[:3], nil, "lacks --host"},
		{"another engine's line", "vllm", line, []string{"PYTHONMALLOC=malloc"}, `want ["serve" "/model"]`},
		{"an argument that no engine may have", "", swap("--no-slots", "--no-slots", "--lora", "/model/x"), nil, `"--lora", want one of the arguments`},
		{"a cache of prompts", "", swap("0", "1"), nil, "--cache-ram is"},
		{"a setting by the environment", "", line, []string{"LLAMA_ARG_LORA=x"}, "begins with LLAMA_"},
	} {
		m := example()
		e := &m.Service.Engine
		e.Dialect, e.Argv, e.Env = tt.dialect, tt.argv, append(e.Env, tt.env...)
		got, err := Decode(mustEncode(t, m))
		if err != nil {
			t.Errorf("%s: got %v, want a config that is well formed", tt.name, err)
			continue
		}
		if err := got.Service.Engine.Runs(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// several returns a config of two models.
func several() Measured {
	m := example()
	one := Served{m.Service.Engine, m.Service.Model, m.Service.Limits}
	other := one
	other.Model = Model{Name: "other", Volume: Volume{Root: register.Digest{3}, Blocks: 7}}
	other.Limits.ContextTokens = 1024
	other.Engine.MemoryBytes = 1 << 30
	m.Service.Engine, m.Service.Model, m.Service.Limits, m.Service.Models = Engine{}, Model{}, Limits{}, []Served{one, other}
	return m
}

// TestModels: several models have one encoding, in which nothing stands that is said of one alone, and each is one that could be alone.
func TestModels(t *testing.T) {
	for _, tt := range []struct {
		name, refused string
		change        func(*Service)
	}{
		{"two", "", func(*Service) {}},
		{"eight", "", func(s *Service) {
			for i := len(s.Models); i < MaxModels; i++ {
				m := s.Models[0]
				m.Model = Model{fmt.Sprint("model", i), Volume{register.Digest{9, byte(i)}, 1}}
				s.Models = append(s.Models, m)
			}
		}},
		{"two engines", "", func(s *Service) { s.Models[1].Engine.Volume.Root[0]++ }},
		{"nine", "9 models, want 2 to 8", func(s *Service) {
			for i := len(s.Models); i <= MaxModels; i++ {
				m := s.Models[0]
				m.Model = Model{fmt.Sprint("model", i), Volume{register.Digest{9, byte(i)}, 1}}
				s.Models = append(s.Models, m)
			}
		}},
		{"one", "1 models, want 2 to 8", func(s *Service) { s.Models = s.Models[:1] }},
		{"an empty list", "0 models, want 2 to 8", func(s *Service) { s.Models = []Served{} }},
		{"an engine beside them", "each of the models has its own", func(s *Service) { s.Engine = s.Models[0].Engine }},
		{"a part of an engine beside them", "each of the models has its own", func(s *Service) { s.Engine.Argv = []string{} }},
		{"a model beside them", "each of the models has its own", func(s *Service) { s.Model = s.Models[0].Model }},
		{"limits beside them", "each of the models has its own", func(s *Service) { s.Limits = s.Models[0].Limits }},
		{"the same name", `models[1]: name "tiny" is also that of models[0]`, func(s *Service) { s.Models[1].Model.Name = "tiny" }},
		{"the same model", "models[1]: volume", func(s *Service) { s.Models[1].Model.Volume = s.Models[0].Model.Volume }},
		{"the same root with other blocks", "is also that of models[0]", func(s *Service) { s.Models[1].Model.Volume.Root = s.Models[0].Model.Volume.Root }},
		{"no name", "models[0]: model: name", func(s *Service) { s.Models[0].Model.Name = "" }},
		{"no model", "models[1]: model: volume root is zero", func(s *Service) { s.Models[1].Model.Volume = Volume{} }},
		{"no engine", "models[1]: engine: volume root is zero", func(s *Service) { s.Models[1].Engine.Volume = Volume{} }},
		{"no memory", "models[1]: engine: memory_bytes is 0", func(s *Service) { s.Models[1].Engine.MemoryBytes = 0 }},
		{"no limits", "models[1]: limits: request_bytes is 0", func(s *Service) { s.Models[1].Limits = Limits{} }},
		{"a dialect that nobody knows", "models[1]: engine: dialect", func(s *Service) { s.Models[1].Engine.Dialect = "ollama" }},
		{"an engine that does not wipe", "models[1]: wipe is", func(s *Service) { s.Models[1].Engine.Env = nil }},
		{"a custodian of several", "custodian with more", func(s *Service) { *s = Service{Custodian: true, GPU: GPUNone, Models: s.Models} }},
	} {
		m := several()
		tt.change(&m.Service)
		if tt.name == "a custodian of several" {
			m.Identity.Sealing, m.Identity.Custody = SealCustodian, lent().Identity.Custody
		}
		if b := goesRound(t, tt.name, m, tt.refused); b != nil && (strings.Contains(string(b), `"service":{"engine"`) || !bytes.Contains(b, []byte(`"models":[{"engine":{`))) {
			t.Errorf("%s: encoded as %q", tt.name, b)
		}
	}
	for _, m := range []Measured{example(), settling()} {
		if b := mustEncode(t, m); bytes.Contains(b, []byte("models")) {
			t.Errorf("a config of one model has the word in it: %q", b)
		}
	}
	lists := []struct{ name, from, to string }{
		{"an empty list", `"models":[`, `"models":[],"x":[`},
		{"null", `"models":[`, `"models":null,"x":[`},
	}
	for _, tt := range lists {
		identity, service, err := Split(mustEncode(t, several()))
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Replace(service, []byte(tt.from), []byte(tt.to), 1)
		changed = append(changed[:bytes.Index(changed, []byte(`,"x":[`))], changed[bytes.Index(changed, []byte(`,"gpu":`)):]...)
		if got, err := Decode(appendPart(appendPart(nil, identity), changed)); err == nil {
			t.Errorf("%s: got %+v, want a refusal of %q", tt.name, got, changed)
		}
	}
}

// TestServed: what is served is said in one way, whether it is one model, several or none.
func TestServed(t *testing.T) {
	one, two := example().Service, several().Service
	if got := one.Served(); len(got) != 1 || !reflect.DeepEqual(got[0], Served{one.Engine, one.Model, one.Limits}) {
		t.Errorf("one model: got %+v", got)
	}
	if got := two.Served(); !reflect.DeepEqual(got, two.Models) {
		t.Errorf("two models: got %+v, want %+v", got, two.Models)
	}
	if got := (Service{Custodian: true, GPU: GPUNone}).Served(); got != nil {
		t.Errorf("a custodian: got %+v, want none", got)
	}
	if got, want := two.Names(), []string{"tiny", "other"}; !slices.Equal(got, want) {
		t.Errorf("names: got %q, want %q", got, want)
	}
	if m, at, ok := two.Named("other"); !ok || at != 1 || m.Limits.ContextTokens != 1024 {
		t.Errorf("other: got %+v at %d, %t", m, at, ok)
	}
	for _, name := range []string{"", "Other", "tiny "} {
		if m, at, ok := two.Named(name); ok {
			t.Errorf("%q: got %+v at %d, want none", name, m, at)
		}
	}
	two.Models[1].Engine.Argv = append(slices.Clone(two.Models[1].Engine.Argv), "--lora", "x")
	two.Models[0].Engine.Argv = append(slices.Clone(two.Models[0].Engine.Argv), "--host", "/run/engine/e.sock", "--cache-ram", "0", "--no-slots", "--no-cache-prompt")
	if err := two.Runs(); err == nil || !strings.Contains(err.Error(), "models[1]: argv[3]") {
		t.Errorf("an argument that no engine may have: got %v", err)
	}
}

// TestEveryByteCounts flips each byte of a valid config: each must change the digest, and nearly each must be refused or
// decode to another config; none may decode to the same one.
func TestEveryByteCounts(t *testing.T) {
	good := mustEncode(t, example())
	want, err := Decode(good)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes := mustEncode(t, want)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if SHA256(bad) == SHA256(good) || SHA384(bad) == SHA384(good) {
			t.Fatalf("byte %d: the digest did not change", i)
		}
		if m, err := Decode(bad); err == nil && bytes.Equal(mustEncode(t, m), wantBytes) {
			t.Errorf("byte %d: two encodings of one config", i)
		}
	}
}

// settling is the example with charges that are settled on chain.
func settling() Measured {
	m := example()
	m.Service.Chain = Chain{Params: register.Digest{1}, MaxAgeSeconds: 60, Anchor: Anchor{GlobalID: -217, Seqno: 5, RootHash: register.Digest{2}}}
	return m
}

// TestChain: charges are settled on chain where there are some, from a block on that is known, and not by an old one.
func TestChain(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*Measured)
	}{
		{"local", "", func(*Measured) {}},
		{"mainnet", "", func(m *Measured) { m.Identity.Network, m.Service.Chain.Anchor = Mainnet, Anchor{} }},
		{"not settled", "", func(m *Measured) { m.Service.Chain = Chain{} }},
		{"mainnet from a block of one's own", "anchor is block 5, want none", func(m *Measured) { m.Identity.Network = Mainnet }},
		{"testnet without a block", "want a key block of network testnet", func(m *Measured) { m.Identity.Network, m.Service.Chain.Anchor = Testnet, Anchor{} }},
		{"a block without a hash", "want a key block", func(m *Measured) { m.Service.Chain.Anchor.RootHash = register.Digest{} }},
		{"no charges", "want payment \"charge\"", func(m *Measured) { m.Service.Price.Payment, m.Service.Price.NanotonPerToken = PayNothing, 0 }},
		{"charges of nothing", "want payment \"charge\"", func(m *Measured) { m.Service.Price.NanotonPerToken = 0 }},
		{"no params", "params is zero", func(m *Measured) { m.Service.Chain.Params = register.Digest{} }},
		{"a block of any age", "max_age_seconds is 0", func(m *Measured) { m.Service.Chain.MaxAgeSeconds = 0 }},
		{"a fixed coefficient", "", func(m *Measured) { m.Service.Chain.Coefficient = Band{5000, 5000} }},
		{"a band", "", func(m *Measured) { m.Service.Chain.Coefficient = Band{10_000, 30_000} }},
		{"a band of one, written", "coefficient goes from 10000", func(m *Measured) { m.Service.Chain.Coefficient = Band{10_000, 10_000} }},
		{"a band downward", "coefficient goes from 3", func(m *Measured) { m.Service.Chain.Coefficient = Band{3, 2} }},
		{"a band from nothing", "coefficient goes from 0", func(m *Measured) { m.Service.Chain.Coefficient = Band{0, 2} }},
		{"a band without end", "coefficient goes from 1", func(m *Measured) { m.Service.Chain.Coefficient = Band{1, 1_000_001} }},
		{"an old block", "max_age_seconds is 3601", func(m *Measured) { m.Service.Chain.MaxAgeSeconds = 3601 }},
	} {
		m := settling()
		tt.change(&m)
		raw, err := m.Encode()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		} else if err == nil {
			if got, err := Decode(raw); err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%s: decoded as %+v (%v)", tt.name, got.Service.Chain, err)
			}
		}
	}
}

// TestBand: a coefficient follows the queue inside its band.
func TestBand(t *testing.T) {
	b := Band{10_000, 30_000}
	for _, tt := range []struct {
		waiting, places int
		want            uint32
	}{{0, 16, 10_000}, {8, 16, 20_000}, {16, 16, 30_000}, {99, 16, 30_000}, {-1, 16, 10_000}, {5, 0, 10_000}} {
		if got := b.At(tt.waiting, tt.places); got != tt.want {
			t.Errorf("%d of %d: got %d, want %d", tt.waiting, tt.places, got, tt.want)
		}
	}
	if got := (Chain{}).Coefficients(); got != (Band{10_000, 10_000}) {
		t.Errorf("none given: got %v, want one", got)
	}
}

// TestHostChain: a way to the chain has two liteservers at least, each once, and bytes of params.
func TestHostChain(t *testing.T) {
	good := func() HostChain {
		return HostChain{Liteservers: []Liteserver{{netip.MustParseAddrPort("1.2.3.4:5"), register.Digest{1}}, {netip.MustParseAddrPort("1.2.3.4:6"),
			register.Digest{2}}}, Params: []byte{1}}
	}
	for _, tt := range []struct {
		name, want string
		change     func(*HostChain)
	}{
		{"two", "", func(*HostChain) {}},
		{"asked to close", "", func(h *HostChain) { h.Close = true }},
		{"one", "1 liteservers", func(h *HostChain) { h.Liteservers = h.Liteservers[:1] }},
		{"seventeen", "17 liteservers", func(h *HostChain) {
			for n := range byte(15) {
				h.Liteservers = append(h.Liteservers, Liteserver{h.Liteservers[0].Address, register.Digest{10 + n}})
			}
		}},
		{"one twice", "named twice", func(h *HostChain) { h.Liteservers[1].Key = h.Liteservers[0].Key }},
		{"IPv6", "want an IPv4", func(h *HostChain) { h.Liteservers[0].Address = netip.MustParseAddrPort("[::1]:5") }},
		{"no port", "want an IPv4", func(h *HostChain) { h.Liteservers[0].Address = netip.MustParseAddrPort("1.2.3.4:0") }},
		{"no params", "params have 0", func(h *HostChain) { h.Params = nil }},
		{"large params", "want 1 to", func(h *HostChain) { h.Params = make([]byte, MaxParamsBytes+1) }},
	} {
		h := Host{Network: HostNetwork{Mode: ModeDHCP4}, Port: 1, Chain: good()}
		tt.change(&h.Chain)
		raw, err := h.Encode()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		} else if err == nil {
			if got, err := DecodeHost(raw); err != nil || !reflect.DeepEqual(got, h) {
				t.Errorf("%s: decoded as %+v (%v)", tt.name, got.Chain, err)
			}
		}
	}
}

func TestDisk(t *testing.T) {
	measured := mustEncode(t, example())
	hosts := map[string]Host{
		"dhcp4": {Network: HostNetwork{Mode: ModeDHCP4}, Port: 8443},
		"static": {Network: HostNetwork{Mode: ModeStatic, Address: netip.MustParsePrefix("10.0.2.15/24"),
			Gateway: netip.MustParseAddr("10.0.2.2")}, Port: 443},
		"confidential": {Network: HostNetwork{Mode: ModeDHCP4}, Port: 8443, QuotingPort: 4050,
			Endorsements: Endorsements{Certificates: [][]byte{{0x30, 1}, {0x30, 2}}, Collateral: []byte("{}")}},
		"handover": {Network: HostNetwork{Mode: ModeDHCP4}, Port: 8443,
			Handover: HostHandover{PCRs: register.PCRs{0: {1}, 4: {2}, 9: {3}}, List: []byte("{}")}},
		"handover without a list": {Network: HostNetwork{Mode: ModeDHCP4}, Port: 8443, Handover: HostHandover{PCRs: register.PCRs{9: {3}}}},
	}
	for name, want := range hosts {
		t.Run(name, func(t *testing.T) {
			host, err := want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			disk, err := EncodeDisk(measured, host)
			if err != nil {
				t.Fatal(err)
			}
			if len(disk)%sectorBytes != 0 {
				t.Errorf("disk has %d bytes, want whole sectors", len(disk))
			}
			gotMeasured, gotHost, err := ReadDisk(bytes.NewReader(disk))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(gotMeasured, measured) {
				t.Errorf("measured part: got %q, want %q", gotMeasured, measured)
			}
			got, err := DecodeHost(gotHost)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("host document: got %+v, want %+v", got, want)
			}
			for cut := range len(diskMagic) + len(measured) + 4 + len(host) {
				if _, _, err := ReadDisk(bytes.NewReader(disk[:cut])); err == nil {
					t.Fatalf("disk cut at byte %d: got no error, want a refusal", cut)
				}
			}
		})
	}
}

func TestHostRefuses(t *testing.T) {
	for _, tt := range []struct{ name, doc, want string }{
		{"mode", `{"network":{"mode":"vpn","address":"","gateway":""},"port":1}`, `mode is "vpn"`},
		{"port", `{"network":{"mode":"dhcp4","address":"","gateway":""},"port":0}`, "port is 0"},
		{"address with dhcp", `{"network":{"mode":"dhcp4","address":"10.0.0.1/8","gateway":""},"port":1}`, "an address or gateway is given"},
		{"gateway outside", `{"network":{"mode":"static","address":"10.0.0.1/8","gateway":"11.0.0.1"},"port":1}`, "is outside"},
		{"a handover to nobody", `{"network":{"mode":"dhcp4","address":"","gateway":""},"port":1,"handover":{"pcrs":{},"list":"AA=="}}`, "0 registers, want 1 to 24"},
		{"a handover by a list that is too long", `{"network":{"mode":"dhcp4","address":"","gateway":""},"port":1,"handover":{"pcrs":{"0":"` + strings.Repeat("01", 32) +
			`"},"list":"` + strings.Repeat("AAAA", 256<<10/3+1) + `"}}`, "want at most 262144"},
		{"a measured field", `{"network":{"mode":"dhcp4","address":"","gateway":""},"port":1,"model":"x"}`, "unknown object member"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := DecodeHost([]byte(tt.doc)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func TestZerostates(t *testing.T) {
	seen := map[register.Digest]Network{}
	for _, n := range []Network{Mainnet, Testnet, Local} {
		z, ok := n.Zerostate()
		if !ok {
			t.Fatalf("%s: no zerostate", n)
		}
		if other, dup := seen[z]; dup {
			t.Errorf("%s and %s share zerostate %s", n, other, z)
		}
		seen[z] = n
	}
	if _, ok := Network("").Zerostate(); ok {
		t.Error("the empty network: got a zerostate, want none")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(mustEncode(f, example()))
	f.Add(mustEncode(f, several()))
	f.Fuzz(func(t *testing.T, measured []byte) {
		m, err := Decode(measured)
		if err != nil {
			return
		}
		if got := mustEncode(t, m); !bytes.Equal(got, measured) {
			t.Errorf("decoded and encoded: got %q, want %q", got, measured)
		}
	})
}

func FuzzReadDisk(f *testing.F) {
	disk, err := EncodeDisk(mustEncode(f, example()), []byte("{}"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(disk)
	f.Fuzz(func(t *testing.T, disk []byte) {
		measured, host, err := ReadDisk(bytes.NewReader(disk))
		if err != nil {
			return
		}
		again, err := EncodeDisk(measured, host)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(diskMagic) + len(measured) + 4 + len(host); !bytes.Equal(again[:n], disk[:n]) {
			t.Errorf("read and laid out again: got %q, want %q", again[:n], disk[:n])
		}
	})
}
