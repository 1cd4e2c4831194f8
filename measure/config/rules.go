package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"chrysalis/measure/engines"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

// Network is the chain of payments. Its zerostate is compiled in, so that a key of one network is none of another's.
type Network string

// The networks.
const (
	Mainnet Network = "mainnet"
	Testnet Network = "testnet"
	Local   Network = "local" // a chain of one's own: tests and demonstrations
)

// zerostates holds root_hash of each network's zero_state, from its global configuration file
// (ton.org/global.config.json and ton.org/testnet-global.config.json). The local network has none; its value only has to differ.
var zerostates = map[Network]string{
	Mainnet: "F6OpKZKqvqeFp6CQmFomXNMfMj2EnaUSOXN+Mh+wVWk=",
	Testnet: "gj+B8wb/AmlPk1z1AhVI484rhrUpgSr2oSFIh56VoSg=",
	Local:   "rQb2ti78cm2CjRlnH+jQPoyv5glizdnJsgcpI9/mKYk=", // SHA-256 of "chrysalis local network"
}

// Zerostate returns the root hash of the network's zero state, and reports whether the network is known.
func (n Network) Zerostate() (register.Digest, bool) {
	text, ok := zerostates[n]
	if !ok {
		return register.Digest{}, false
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != len(register.Digest{}) {
		panic("config: zerostate of " + string(n) + " is malformed")
	}
	return register.Digest(raw), true
}

// Sealing says what the sealed secret is bound to.
type Sealing string

// The ways of sealing.
const (
	// SealTPM binds the secret to PCR 0, 4, 9 and 14 of a TPM.
	SealTPM Sealing = "tpm-pcr"
	// SealSNP wraps the secret with a key that the processor's firmware derives from the launch digest, the guest policy and its
	// own patch level.
	SealSNP Sealing = "snp-derived"
	// SealNothing seals nothing: every boot makes a secret of its own, and what earlier keys could still sign is gone with them.
	SealNothing Sealing = "ephemeral"
	// SealCustodian has a guest without engine keep the secret, and lend it to one guest of the identity at a time.
	SealCustodian Sealing = "custodian"
)

// Sealings returns all of them.
func Sealings() []Sealing { return []Sealing{SealTPM, SealSNP, SealNothing, SealCustodian} }

// Stranding says whether the owner takes into account that claims which are not carried on chain may be lost with their key.
type Stranding string

// StrandingAccepted is the one value beside none. A guest that charges under keys which end with the boot needs it.
const StrandingAccepted Stranding = "accepted"

// Handover narrows to whom the secret may pass. What the image does not allow no value of it does.
type Handover string

// The values of Handover.
const (
	// HandoverReleases lets it pass to a release that follows the giver's, or to the giver's own registers.
	HandoverReleases Handover = ""
	// HandoverSame lets it pass to the giver's own registers alone.
	HandoverSame Handover = "same-registers"
	// HandoverNone keeps it where it is.
	HandoverNone Handover = "none"
)

// Instance says how the instance id comes about.
type Instance string

// InstanceSealed derives the id from the sealed secret, which is random and made inside.
const InstanceSealed Instance = "sealed"

// Payment says what an answer is paid with.
type Payment string

// The ways of payment.
const (
	PayNothing Payment = "none"   // receipts alone
	PayCharge  Payment = "charge" // a cumulative COCOON client charge for each answer
)

const (
	maxIdentityBytes = 16 << 10
	maxServiceBytes  = 64 << 10
	maxHostBytes     = 512 << 10 // collateral, in base64, is most of it

	maxArguments     = 128
	maxArgumentBytes = 1024
	maxNameBytes     = 128
	maxBlocks        = 1 << 40 / 4096 * 4 // 4 TiB
	maxWeight        = 1_000 * ton.WeightOne
	maxRequestBytes  = 16 << 20
	maxTokens        = 1 << 22
	maxConcurrent    = 4096
)

func (m Measured) validate() error {
	if err := m.Identity.validate(); err != nil {
		return fmt.Errorf("identity: %v", err)
	}
	if err := m.Service.validate(); err != nil {
		return fmt.Errorf("service: %v", err)
	}
	if m.Service.Custodian && m.Identity.Sealing != SealCustodian {
		return fmt.Errorf("service: custodian with sealing %q, want %q", m.Identity.Sealing, SealCustodian)
	}
	if err := m.validateChain(); err != nil {
		return fmt.Errorf("service: chain: %v", err)
	}
	if m.Identity.Sealing == SealNothing && m.Service.Price.Payment == PayCharge && m.Identity.Stranding != StrandingAccepted {
		return fmt.Errorf("sealing is %q and payment %q: a charge that is not carried on chain before the guest ends may be lost, "+
			"want stranding %q to say so", SealNothing, PayCharge, StrandingAccepted)
	}
	return nil
}

func (i Identity) validate() error {
	if _, ok := i.Network.Zerostate(); !ok {
		return fmt.Errorf("network is %.40q, want one of mainnet, testnet, local", i.Network)
	}
	if err := i.RootContract.Check(); err != nil {
		return fmt.Errorf("root_contract: %v", err)
	}
	if err := i.PayoutOwner.Check(); err != nil {
		return fmt.Errorf("payout_owner: %v", err)
	}
	if !slices.Contains(Sealings(), i.Sealing) {
		return fmt.Errorf("sealing is %.40q, want one of %q", i.Sealing, Sealings())
	}
	if i.Cocoon && i.Sealing != SealNothing && i.Sealing != SealCustodian {
		return fmt.Errorf("cocoon with sealing %q, want %q or %q: the identity is a TD's", i.Sealing, SealNothing, SealCustodian)
	}
	if i.Stranding != "" && (i.Stranding != StrandingAccepted || i.Sealing != SealNothing) {
		return fmt.Errorf("stranding is %.40q with sealing %q, want %q with sealing %q, or none", i.Stranding, i.Sealing, StrandingAccepted,
			SealNothing)
	}
	if !slices.Contains([]Handover{HandoverReleases, HandoverSame, HandoverNone}, i.Handover) {
		return fmt.Errorf("handover is %.40q, want %q or %q, or none given", i.Handover, HandoverSame, HandoverNone)
	}
	if err := i.validateCustody(); err != nil {
		return fmt.Errorf("custody: %v", err)
	}
	if i.Instance != InstanceSealed {
		return fmt.Errorf("instance is %.40q, want %q", i.Instance, InstanceSealed)
	}
	return nil
}

func (s Service) validate() error {
	if s.Custodian {
		return s.validateCustodian()
	}
	if err := s.validateServed(); err != nil {
		return err
	}
	if _, err := s.GPU.GPUs(); err != nil {
		return err
	}
	if err := s.Price.validate(); err != nil {
		return fmt.Errorf("price: %v", err)
	}
	return s.validateWipe()
}

// validateServed wants one model in Engine, Model and Limits, or several in Models and nothing there. A receipt names what answered by the roots
// of its volumes and a request by its name, so neither a name nor a model's root is there twice.
func (s Service) validateServed() error {
	if s.Models != nil {
		if n := len(s.Models); n < 2 || n > MaxModels {
			return fmt.Errorf("%d models, want 2 to %d, and engine, model and limits in their place where there is one", n, MaxModels)
		}
		if !reflect.DeepEqual(s.Engine, Engine{}) || s.Model != (Model{}) || s.Limits != (Limits{}) {
			return errors.New("models beside engine, model or limits: each of the models has its own")
		}
	}
	all := s.Served()
	for at, m := range all {
		if err := m.validate(); err != nil {
			return fmt.Errorf("%s%v", s.of(at), err)
		}
		for before, other := range all[:at] {
			switch {
			case other.Model.Name == m.Model.Name:
				return fmt.Errorf("%sname %.40q is also that of models[%d]", s.of(at), m.Model.Name, before)
			case other.Model.Volume.Root == m.Model.Volume.Root:
				return fmt.Errorf("%svolume %s is also that of models[%d]: receipts tell models apart by it", s.of(at), m.Model.Volume, before)
			}
		}
	}
	return nil
}

// of begins what is said of one of several models.
func (s Service) of(at int) string {
	if s.Models == nil {
		return ""
	}
	return fmt.Sprintf("models[%d]: ", at)
}

func (m Served) validate() error {
	if err := m.Engine.validate(); err != nil {
		return fmt.Errorf("engine: %v", err)
	}
	if err := m.Model.Volume.validate(); err != nil {
		return fmt.Errorf("model: %v", err)
	}
	if n := m.Model.Name; n == "" || len(n) > maxNameBytes || !printable(n) {
		return fmt.Errorf("model: name %.40q: want 1 to %d printable ASCII characters without spaces", n, maxNameBytes)
	}
	if err := m.Limits.validate(); err != nil {
		return fmt.Errorf("limits: %v", err)
	}
	return nil
}

func (v Volume) validate() error {
	if v.Root == (register.Digest{}) {
		return fmt.Errorf("volume root is zero")
	}
	if v.Blocks == 0 || v.Blocks > maxBlocks {
		return fmt.Errorf("volume has %d blocks, want 1 to %d", v.Blocks, uint64(maxBlocks))
	}
	return nil
}

func (e Engine) validate() error {
	if err := e.Volume.validate(); err != nil {
		return err
	}
	if len(e.Argv) == 0 || len(e.Argv) > maxArguments || len(e.Env) > maxArguments {
		return fmt.Errorf("%d arguments and %d variables, want 1 to %d and at most %d", len(e.Argv), len(e.Env), maxArguments, maxArguments)
	}
	for _, s := range slices.Concat(e.Argv, e.Env) {
		if len(s) > maxArgumentBytes || strings.ContainsRune(s, 0) {
			return fmt.Errorf("argument or variable %.40q: want at most %d bytes and no NUL", s, maxArgumentBytes)
		}
	}
	if !path.IsAbs(e.Argv[0]) || path.Clean(e.Argv[0]) != e.Argv[0] {
		return fmt.Errorf("argv[0] is %.80q, want a clean absolute path", e.Argv[0])
	}
	seen := map[string]bool{}
	for _, s := range e.Env {
		name, _, ok := strings.Cut(s, "=")
		if !ok || name == "" || seen[name] {
			return fmt.Errorf("variable %.80q: want NAME=value, each name once", s)
		}
		seen[name] = true
	}
	if _, err := e.dialect(); err != nil {
		return err
	}
	if e.MemoryBytes < 64<<20 || e.MemoryBytes > 1<<50 {
		return fmt.Errorf("memory_bytes is %d, want 64 MiB to 1 PiB", e.MemoryBytes)
	}
	return e.validateShares()
}

// validateShares wants what is given to be more than what an engine has anyway: there is one way to say each.
func (e Engine) validateShares() error {
	const mib, mostFiles, mostTasks = 1 << 20, 1 << 20, 1 << 15
	switch n := e.SharedMemoryBytes; {
	case n != 0 && (n <= defaultSharedMemoryBytes || n%mib != 0 || n > e.MemoryBytes):
		return fmt.Errorf("shared_memory_bytes is %d, want whole MiB above %d and at most memory_bytes, or the member left out", n, defaultSharedMemoryBytes)
	case e.OpenFiles != 0 && (e.OpenFiles <= defaultOpenFiles || e.OpenFiles > mostFiles):
		return fmt.Errorf("open_files is %d, want %d to %d, or the member left out", e.OpenFiles, defaultOpenFiles+1, mostFiles)
	case e.Tasks != 0 && (e.Tasks <= defaultTasks || e.Tasks > mostTasks):
		return fmt.Errorf("tasks is %d, want %d to %d, or the member left out", e.Tasks, defaultTasks+1, mostTasks)
	}
	return nil
}

// Runs is Engine.Runs of the first of the engines that no guest starts.
func (s Service) Runs() error {
	for at, m := range s.Served() {
		if err := m.Engine.Runs(); err != nil {
			return fmt.Errorf("%s%w", s.of(at), err)
		}
	}
	return nil
}

// Runs reports why no guest starts the engine, though the config is well formed: its line has what its dialect does not take, or lacks what it
// must have. init asks before anything is opened, so a client who believes the image need not; a policy names the line word by word.
func (e Engine) Runs() error {
	d, err := e.dialect()
	if err != nil {
		return err
	}
	return d.Check(e.Argv, e.Env)
}

// dialect returns the row of the engine's program.
func (e Engine) dialect() (engines.Dialect, error) {
	d, known := engines.Find(e.Dialect)
	if !known || e.Dialect == engines.Default {
		return d, fmt.Errorf("dialect is %.40q, want one of %q, and none given where it is %s", e.Dialect, engines.Names(), engines.Default)
	}
	return d, nil
}

func (l Limits) validate() error {
	for _, f := range []struct {
		name     string
		got, max uint32
	}{
		{"request_bytes", l.RequestBytes, maxRequestBytes},
		{"answer_tokens", l.AnswerTokens, maxTokens},
		{"concurrent", l.Concurrent, maxConcurrent},
		{"context_tokens", l.ContextTokens, maxTokens},
	} {
		if f.got == 0 || f.got > f.max {
			return fmt.Errorf("%s is %d, want 1 to %d", f.name, f.got, f.max)
		}
	}
	if l.AnswerTokens > l.ContextTokens {
		return fmt.Errorf("answer_tokens is %d, want at most context_tokens, %d", l.AnswerTokens, l.ContextTokens)
	}
	return nil
}

func (p Terms) validate() error {
	if p.Payment != PayNothing && p.Payment != PayCharge {
		return fmt.Errorf("payment is %.40q, want %q or %q", p.Payment, PayNothing, PayCharge)
	}
	if p.Payment == PayNothing && p.NanotonPerToken != 0 {
		return fmt.Errorf("payment is %q, but nanoton_per_token is %d", p.Payment, p.NanotonPerToken)
	}
	for _, w := range []uint32{p.PromptWeight, p.CachedWeight, p.CompletionWeight, p.ReasoningWeight} {
		if w > maxWeight {
			return fmt.Errorf("weight %d, want at most %d", w, uint32(maxWeight))
		}
	}
	return nil
}

// printable reports whether s holds visible ASCII characters alone.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
