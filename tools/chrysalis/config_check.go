package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/erofs/go-erofs"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/guest"
)

// Severities of a config, beside fine.
const (
	wrong severity = "wrong" // a guest of it does not serve, or does not serve what it promises
	doubt severity = "note"  // it serves, and perhaps not as meant
)

// together is what a boot brings together: a config, the files that it names, and a machine.
type together struct {
	config config.Measured
	files  []guest.Volumes // of each model
	shape  measure.Shape
}

// crossChecks are all that is looked at before a boot, in the order of a config. What is said of each model is looked at once for each, as if it were
// the guest's only one.
var crossChecks = []struct {
	name string
	each bool
	look func(together) finding
}{
	{"sealing", false, checkSealing},
	{"engine-volume", true, func(t together) finding {
		return checkVolume(t.files[0].Engine, t.config.Service.Engine.Volume, "engine")
	}},
	{"engine-program", true, checkProgram},
	{"engine-line", true, checkLine},
	{"model-volume", true, func(t together) finding { return checkVolume(t.files[0].Model, t.config.Service.Model.Volume, "model") }},
	{"model-file", true, checkModelFile},
	{"gpu", false, checkGPUs},
	{"slots", true, checkSlots},
	{"context", true, checkContext},
	{"answer", true, checkAnswer},
	{"request", true, checkRequest},
	{"threads", true, checkThreads},
	{"engine-memory", true, checkEngineMemory},
	{"machine-memory", false, checkMachineMemory},
	{"price", false, checkPrice},
}

// crossCheck returns what is found, in that order. What can't be said of this engine is left out. There are files for each model.
func crossCheck(t together) (all []finding) {
	add := func(name string, f finding) {
		if f.State == "" {
			return
		}
		f.Name = name
		if f.State == fine {
			f.Mend = ""
		}
		all = append(all, f)
	}
	served := t.config.Service.Served()
	for i, c := range crossChecks {
		if t.config.Service.Custodian && i > 0 {
			break // it computes nothing
		}
		if !c.each || len(served) == 1 {
			add(c.name, c.look(t))
			continue
		}
		for at, m := range served {
			alone := t
			alone.files = t.files[at : at+1]
			s := &alone.config.Service
			s.Engine, s.Model, s.Limits, s.Models = m.Engine, m.Model, m.Limits, nil
			add(c.name+" of "+m.Model.Name, c.look(alone))
		}
	}
	return all
}

func judged(good bool, bad severity) severity {
	if good {
		return fine
	}
	return bad
}

// checkSealing wants what the platform has to seal with, and a TD for COCOON's identity.
func checkSealing(t together) finding {
	if p := t.shape.Platform; t.config.Identity.Cocoon && p != measure.TDX {
		return finding{State: wrong, Found: "cocoon on " + cmp.Or(string(p), platformVTPM), Need: "cocoon on tdx",
			Mend: "leave identity.cocoon out, or choose --platform tdx"}
	}
	want := map[measure.Platform]config.Sealing{"": config.SealTPM, measure.TDX: config.SealNothing, measure.SEVSNP: config.SealSNP}[t.shape.Platform]
	got := t.config.Identity.Sealing
	good := got == want || got == config.SealNothing || got == config.SealCustodian
	return finding{State: judged(good, wrong), Found: string(got), Need: fmt.Sprintf("%s on %s, or %s or %s", want,
		cmp.Or(string(t.shape.Platform), platformVTPM), config.SealNothing, config.SealCustodian),
		Mend: "set identity.sealing, or choose another --platform"}
}

// checkVolume compares the file with what the config names.
func checkVolume(file string, named config.Volume, flag string) finding {
	got, err := guest.VolumeRef(file)
	if err != nil {
		return finding{State: wrong, Found: err.Error(), Need: named.String(), Mend: "name the volume's file with --" + flag}
	}
	return finding{State: judged(got == named, wrong), Found: got.String(), Need: named.String(),
		Mend: fmt.Sprintf("%s is not the volume that the config names: name that one with --%s, or leave service.%s.volume out of the config", file, flag, flag)}
}

// inVolume reports whether a volume has the file of that path, and what its root has.
func inVolume(file, name string) (has bool, root string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return false, "", err
	}
	defer f.Close()
	tree, err := erofs.Open(f)
	if err != nil {
		return false, "", err
	}
	entries, _ := fs.ReadDir(tree, ".")
	var names []string
	for _, e := range entries[:min(len(entries), 8)] {
		names = append(names, e.Name())
	}
	_, err = fs.Stat(tree, strings.TrimPrefix(name, "/"))
	return err == nil, strings.Join(names, ", "), nil
}

func checkProgram(t together) finding {
	program := t.config.Service.Engine.Argv[0]
	has, root, err := inVolume(t.files[0].Engine, program)
	f := finding{State: judged(has, wrong), Found: program, Need: program + " in the engine's volume", Mend: "set service.engine.argv[0] to a program of that volume"}
	if err != nil {
		f.Found = err.Error()
	} else if !has {
		f.Found = t.files[0].Engine + " has " + root
	}
	return f
}

func checkModelFile(t together) finding {
	if err := guest.CheckModel(t.config.Service.Engine, t.files[0].Model); err != nil {
		return finding{State: wrong, Found: err.Error(), Need: "the files that the engine is told to read", Mend: "pack the model that the config means, or name this one in service.engine.argv"}
	}
	return finding{State: fine, Found: "what the engine is told to read is there"}
}

// checkGPUs wants as many devices passed through as the config asks for: init ends a guest that has others.
func checkGPUs(t together) finding {
	asks, err := t.config.Service.GPU.GPUs()
	if err != nil {
		return finding{State: wrong, Found: err.Error(), Need: "a GPU rule", Mend: "set service.gpu"}
	}
	want := asks.Count + asks.Switches
	return finding{State: judged(len(t.shape.GPUs) == want, wrong), Found: fmt.Sprintf("%d devices passed through", len(t.shape.GPUs)),
		Need: fmt.Sprintf("%d, as service.gpu asks for %s", want, t.config.Service.GPU), Mend: "name the machine's devices with --gpu, or in gpus of its shape, or set service.gpu"}
}

// checkLine holds the engine's line against its dialect, as init does.
func checkLine(t together) finding {
	e := t.config.Service.Engine
	if err := e.Runs(); err != nil {
		return finding{State: wrong, Found: err.Error(), Need: "a line as ENGINES.md has it", Mend: "set service.engine.argv and env: no guest starts an engine with others"}
	}
	return finding{State: fine, Found: fmt.Sprintf("%d arguments, as its dialect takes them", len(e.Argv)-1)}
}

// vllm is the dialect whose context is each sequence's; of the default one it is that of all slots together.
const vllm = "vllm"

// argument returns the value of an argument by any of its names.
func (t together) argument(names ...string) (value string, given bool) {
	argv := t.config.Service.Engine.Argv
	for i, word := range argv {
		if i > 0 && slices.Contains(names, word) && i+1 < len(argv) {
			value, given = argv[i+1], true
		}
	}
	return value, given
}

// number is argument of a number above zero, or 0.
func (t together) number(names ...string) uint64 {
	value, _ := t.argument(names...)
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0
	}
	return n
}

func (t together) has(word string) bool { return slices.Contains(t.config.Service.Engine.Argv, word) }

func checkSlots(t together) finding {
	name := "-np"
	if t.config.Service.Engine.Dialect == vllm {
		name = "--max-num-seqs"
	}
	got, want := t.number(name, "--parallel"), uint64(t.config.Service.Limits.Concurrent)
	f := finding{State: judged(got == want, wrong), Found: fmt.Sprintf("%d slots", got), Need: fmt.Sprintf("%d, as limits.concurrent says", want),
		Mend: "set " + name + " in service.engine.argv: with fewer, requests that have a place wait in the engine"}
	switch {
	case got == 0:
		f.Found = "the engine's own number of slots"
	case got > want:
		f.State, f.Mend = doubt, "the gateway computes no more than limits.concurrent at a time: the other slots have memory and no work"
	}
	return f
}

func checkContext(t together) finding {
	if t.config.Service.Engine.Dialect == vllm {
		return checkEachContext(t)
	}
	limit, concurrent := uint64(t.config.Service.Limits.ContextTokens), uint64(t.config.Service.Limits.Concurrent)
	context, slots := t.number("-c", "--ctx-size"), max(t.number("-np", "--parallel"), 1)
	f := finding{Found: fmt.Sprintf("%d tokens for %d slots, %d each", context, slots, context/slots), Need: fmt.Sprintf("%d each, as limits.context_tokens says", limit),
		State: judged(context/slots >= limit, wrong), Mend: fmt.Sprintf("set -c to %d or more: prompts that the gateway takes would not fit", limit*slots)}
	switch {
	case context == 0:
		f.State, f.Found, f.Mend = doubt, "the model's own context", "set -c, so that memory and context are known"
	case t.has("--kv-unified") || t.has("-kvu"):
		f.Found, f.Need = fmt.Sprintf("%d tokens for all slots together", context), fmt.Sprintf("%d, which is limits.context_tokens for each of limits.concurrent", limit*concurrent)
		f.State = judged(context >= limit*concurrent, wrong)
		f.Mend = fmt.Sprintf("set -c to %d or more", limit*concurrent)
	}
	return f
}

func checkEachContext(t together) finding {
	context, limit := t.number("--max-model-len"), uint64(t.config.Service.Limits.ContextTokens)
	f := finding{Found: fmt.Sprintf("%d tokens each", context), Need: fmt.Sprintf("%d each, as limits.context_tokens says", limit), State: judged(context >= limit, wrong),
		Mend: fmt.Sprintf("set --max-model-len to %d or more: prompts that the gateway takes would not fit", limit)}
	if context == 0 {
		f.State, f.Found, f.Mend = doubt, "the model's own context", "set --max-model-len, so that memory and context are known"
	}
	return f
}

func checkAnswer(t together) finding {
	l := t.config.Service.Limits
	return finding{State: judged(l.AnswerTokens < l.ContextTokens, wrong), Found: fmt.Sprintf("%d tokens", l.AnswerTokens),
		Need: fmt.Sprintf("fewer than limits.context_tokens, %d: a prompt must fit beside an answer", l.ContextTokens), Mend: "lower limits.answer_tokens"}
}

func checkRequest(t together) finding {
	l := t.config.Service.Limits
	return finding{State: judged(l.RequestBytes >= l.ContextTokens, doubt), Found: fmt.Sprintf("%d bytes", l.RequestBytes),
		Need: fmt.Sprintf("%d or more: a token has a byte at least", l.ContextTokens), Mend: "raise limits.request_bytes, or nobody can use the context"}
}

func checkThreads(t together) finding {
	threads := t.number("-t", "--threads")
	if threads == 0 {
		return finding{}
	}
	return finding{State: judged(threads <= uint64(t.shape.CPUs), doubt), Found: fmt.Sprintf("%d threads", threads), Need: fmt.Sprintf("at most %d, the machine's CPUs", t.shape.CPUs),
		Mend: "lower -t, or give the machine more CPUs: threads that take turns are slower than fewer"}
}

func checkEngineMemory(t together) finding {
	model := t.config.Service.Model.Volume.Blocks * 4096
	limit := t.config.Service.Engine.MemoryBytes
	return finding{State: judged(limit > model, wrong), Found: fmt.Sprintf("%d MiB", limit>>20), Need: fmt.Sprintf("more than the model's %d MiB, which count towards it", model>>20),
		Mend: "raise service.engine.memory_bytes: the model, and the context of each slot"}
}

// left is what the demonstration leaves to all but the engine: that a guest serves with less was not shown.
const left = 512 << 20

func checkMachineMemory(t together) finding {
	limit, machine := uint64(0), uint64(t.shape.MemoryMiB)<<20
	for _, m := range t.config.Service.Served() {
		limit += m.Engine.MemoryBytes
	}
	if t.config.Service.Wipe.Restarts() {
		limit *= 2 // one computes, and one waits
	}
	f := finding{State: fine, Found: fmt.Sprintf("%d MiB, of which the engine may have %d", machine>>20, limit>>20),
		Need: fmt.Sprintf("%d MiB, which leave %d to kernel, containerd, gateway and keeper", (limit+left)>>20, left>>20), Mend: "give the machine more (--memory)"}
	switch {
	case limit >= machine:
		f.State = wrong
	case machine-limit < left:
		f.State = doubt
	}
	return f
}

func checkPrice(t together) finding {
	p := t.config.Service.Price
	if p.Payment != config.PayCharge {
		return finding{State: fine, Found: "answers cost nothing"}
	}
	free := p.NanotonPerToken == 0 || p.PromptWeight == 0 && p.CompletionWeight == 0
	return finding{State: judged(!free, doubt), Found: fmt.Sprintf("%d nanoton a token", p.NanotonPerToken), Need: "a price, where payment is charge",
		Mend: "set price.nanoton_per_token and the weights, or payment to none"}
}
