package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

// What a guest has in memory is looked at from its host, which a vtpm guest's owner can do, and a confidential one's can't: that is what makes the test
// possible.

// vocabulary is the tokenizer of the demo's model, as far as one word without digits or signs needs it.
type vocabulary struct {
	ids   map[string]int32
	ranks map[[2]string]int // of merges
}

// readVocabulary reads it out of the model's file. Source: ggml, docs/gguf.md.
func readVocabulary(t *testing.T) vocabulary {
	t.Helper()
	f, err := os.Open("../../image/model/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	number := func(bytes int) (n uint64) {
		var b [8]byte
		if _, err := io.ReadFull(r, b[:bytes]); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	text := func() string {
		b := make([]byte, number(8))
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const aString, anArray = 8, 9
	sizes := map[uint64]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
	number(8) // magic and version
	number(8) // tensors
	lists := map[string][]string{}
	for range number(8) {
		name, kind, count := text(), number(4), uint64(1)
		if kind == anArray {
			kind, count = number(4), number(8)
		}
		for range count {
			if kind == aString {
				lists[name] = append(lists[name], text())
			} else {
				number(sizes[kind])
			}
		}
	}
	v := vocabulary{map[string]int32{}, map[[2]string]int{}}
	for id, token := range lists["tokenizer.ggml.tokens"] {
		v.ids[token] = int32(id)
	}
	for rank, merge := range lists["tokenizer.ggml.merges"] {
		a, b, _ := strings.Cut(merge, " ")
		v.ranks[[2]string{a, b}] = rank
	}
	if len(v.ids) != 512 || len(v.ranks) == 0 {
		t.Fatalf("the model has %d tokens and %d merges", len(v.ids), len(v.ranks))
	}
	return v
}

// run returns the tokens of a word of letters, behind a space, as they lie in memory: 4 bytes each.
func (v vocabulary) run(t *testing.T, word string) []byte {
	t.Helper()
	pieces := append([]string{"\u0120"}, strings.Split(word, "")...) // as the vocabulary writes a space
	for {
		best, at := -1, -1
		for i := range len(pieces) - 1 {
			if rank, ok := v.ranks[[2]string{pieces[i], pieces[i+1]}]; ok && (best < 0 || rank < best) {
				best, at = rank, i
			}
		}
		if at < 0 {
			break
		}
		pieces = slices.Replace(pieces, at, at+2, pieces[at]+pieces[at+1])
	}
	var run []byte
	for _, p := range pieces {
		id, ok := v.ids[p]
		if !ok {
			t.Fatalf("the model has no token %q", p)
		}
		run = binary.LittleEndian.AppendUint32(run, uint32(id))
	}
	return run
}

// canary is a word that stands nowhere else.
func canary() string {
	b := make([]byte, 32)
	rand.Read(b)
	for i, c := range b {
		b[i] = "bcdfghjklmnpqrstvwxz"[c%20]
	}
	return string(b)
}

// canaries are what is not to stay, by what they are.
type canaries map[string][]byte

// Kinds of canaries, before the name of whose they are.
const (
	inPrompt  = "prompt of "
	asTokens  = "tokens of " // the prompt's
	inAnswer  = "answer of "
	inHeader  = "header of "
	inRefused = "refused body of "
)

// says has a client ask a guest, and be refused, over connections that stay open, and adds what was said to the canaries.
func (all canaries) says(t *testing.T, spec guest.Spec, name string, contract ton.Address) {
	t.Helper()
	key, prompt, refused := canary(), canary(), canary()
	post := func(body string, want int) []byte {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // it has no secrets
		t.Cleanup(transport.CloseIdleConnections)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("https://127.0.0.1:%d/v1/chat/completions", spec.Port), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set(api.ClientHeader, contract.String())
		response, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != want {
			t.Fatalf("status %d, want %d: %s (%v)", response.StatusCode, want, text, err)
		}
		return text
	}
	post(`{"model":"tiny","messages":[{"role":"user","content":"I am called `+prompt+`"}],"unknown":"`+refused+`"}`, http.StatusBadRequest)
	var answer struct {
		Choices []struct{ Message struct{ Content string } }
	}
	said := post(`{"model":"tiny","max_tokens":48,"temperature":1,"messages":[{"role":"user","content":"I am called `+prompt+` and would hear a story."}]}`, http.StatusOK)
	if err := json.Unmarshal(said, &answer); err != nil || len(answer.Choices) != 1 {
		t.Fatalf("%s (%v)", said, err)
	}
	all[inPrompt+name], all[asTokens+name] = []byte(prompt), readVocabulary(t).run(t, prompt)
	all[inHeader+name], all[inRefused+name] = []byte(key), []byte(refused)
	// The longest piece that is written the same way everywhere.
	for _, piece := range strings.FieldsFunc(answer.Choices[0].Message.Content, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r > '~' }) {
		if len(piece) >= 12 && len(piece) > len(all[inAnswer+name]) {
			all[inAnswer+name] = []byte(piece)
		}
	}
}

// found are canaries that were found, by what they are and where.
type found map[string]int

// of counts those whose kind and name begin so.
func (f found) of(begin string) (n int) {
	for what, k := range f {
		if strings.HasPrefix(what, begin) {
			n += k
		}
	}
	return n
}

// lookFor counts canaries in all of a guest's memory, and in what the guest and QEMU have written for their host.
func (all canaries) lookFor(t *testing.T, g guest.Guest, spec guest.Spec) found {
	t.Helper()
	memory := g.Path("memory")
	defer os.Remove(memory)
	if err := qemu.SaveMemory(g.Path("qmp.sock"), memory, uint64(spec.Shape.MemoryMiB)<<20); err != nil {
		t.Fatal(err)
	}
	f := found{}
	for _, file := range []string{memory, g.Path(guest.StatusFile), g.Path(guest.ProofsFile), g.Path(guest.NumbersFile), g.Path("qemu.log")} {
		for what, n := range countIn(t, file, all) {
			f[what+", in "+filepath.Base(file)] = n
		}
	}
	return f
}

// countIn counts canaries in a file, in which each is once or more often.
func countIn(t *testing.T, file string, all canaries) found {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const window, over = 4 << 20, 1 << 10 // no canary is longer
	n, buf := found{}, make([]byte, window+over)
	for at := int64(0); ; at += window {
		read, err := f.ReadAt(buf, at)
		for what, marker := range all {
			if k := bytes.Count(buf[:read], marker); k > 0 {
				n[what] += k
			}
		}
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// forgets looks until what may stay is all that is found, for as long as a busy machine may take.
func (all canaries) forgets(t *testing.T, g guest.Guest, spec guest.Spec, may func(what string) bool) {
	t.Helper()
	began := time.Now()
	for deadline := began.Add(time.Minute); ; time.Sleep(time.Second) {
		f := all.lookFor(t, g, spec)
		stays := maps.Clone(f)
		maps.DeleteFunc(stays, func(what string, _ int) bool { return may != nil && may(what) })
		if len(stays) == 0 {
			t.Logf("%s: forgotten when looked for %.1f s later, but for %v", spec.Config.Service.Wipe, time.Since(began).Seconds(), f)
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %s later the guest has still %v", spec.Config.Service.Wipe, time.Since(began), stays)
			return
		}
	}
}

// Clients of the tests of memory.
var (
	anna = ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xaa}, 32))}
	bert = ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xbe}, 32))}
)

// forgetsFreed: with freed-memory no header, refused body or answer stays. What does of a prompt, the engine has not freed: were it gone, the search would find
// nothing anywhere, or CONFIG.md promise too little.
func forgetsFreed(t *testing.T, g guest.Guest, spec guest.Spec) {
	t.Helper()
	all := canaries{}
	all.says(t, spec, "anna", anna)
	all.forgets(t, g, spec, func(what string) bool { return strings.HasPrefix(what, inPrompt) || strings.HasPrefix(what, asTokens) })
	if f := all.lookFor(t, g, spec); f.of(asTokens) == 0 {
		t.Errorf("the engine has no tokens of its last prompt: the search finds %v", f)
	}
}

// forgetsIdle: an engine that has computed nothing for as long as the config says has nothing of it any more.
func forgetsIdle(t *testing.T, g guest.Guest, spec guest.Spec) {
	t.Helper()
	all := canaries{}
	all.says(t, spec, "anna", anna)
	if f := all.lookFor(t, g, spec); f.of(asTokens) == 0 {
		t.Errorf("before the wipe the search finds %v, want tokens of the prompt", f)
	}
	all.forgets(t, g, spec, nil)
}

// forgetsClient: what one client said stays until another one's request, and not beyond.
func forgetsClient(t *testing.T, g guest.Guest, spec guest.Spec) {
	t.Helper()
	all := canaries{}
	all.says(t, spec, "anna", anna)
	if f := all.lookFor(t, g, spec); f.of(asTokens+"anna") == 0 {
		t.Errorf("before another client's request the search finds %v, want tokens of the prompt", f)
	}
	all.says(t, spec, "bert", bert)
	all.forgets(t, g, spec, func(what string) bool {
		return strings.HasPrefix(what, asTokens+"bert") || strings.HasPrefix(what, inPrompt+"bert")
	})
	if f := all.lookFor(t, g, spec); f.of(asTokens+"bert") == 0 {
		t.Errorf("after another client's request the search finds %v, want tokens of its prompt", f)
	}
}

// forgetsRequest: nothing of a request stays, whoever comes next.
func forgetsRequest(t *testing.T, g guest.Guest, spec guest.Spec) {
	t.Helper()
	all := canaries{}
	all.says(t, spec, "anna", anna)
	all.forgets(t, g, spec, nil)
	all.says(t, spec, "anna again", anna)
	all.forgets(t, g, spec, nil)
}

// TestCountIn: a canary is counted wherever it lies, also where two windows of the search meet.
func TestCountIn(t *testing.T) {
	word := canary()
	all := canaries{inPrompt: []byte(word)}
	for _, at := range []int{0, 4<<20 - 5, 4 << 20, 9<<20 - len(word)} {
		b := make([]byte, 9<<20)
		copy(b[at:], word)
		file := filepath.Join(t.TempDir(), "memory")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := countIn(t, file, all).of(inPrompt); n == 0 {
			t.Errorf("a word at %d was not found", at)
		}
	}
}
