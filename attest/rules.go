package attest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

// ConfigRules judges the measured config. It has a rule for each field of config.Measured; a config with a field that
// this verifier does not know is not decoded, so it is refused.
type ConfigRules struct {
	// Cocoon accepts a TD with COCOON's public identity, and no other guest: hardware names its config nowhere. It may be left out of the
	// document, which refuses one.
	Cocoon       bool             `json:"cocoon,omitzero"`
	Network      config.Network   `json:"network"`
	RootContract ton.Address      `json:"root_contract"`
	PayoutOwner  string           `json:"payout_owner"` // an address, or "any": a client need not care who is paid
	Sealing      []config.Sealing `json:"sealing"`
	// Stranding lists what is accepted beside a config that says none. It may be left out of the document.
	Stranding []config.Stranding `json:"stranding,omitzero"`
	// Handover lists what is accepted. Where it is left out of the document, that is a config which says nothing of it.
	Handover []config.Handover `json:"handover,omitzero"`
	// Custody is what is accepted. Where it is left out of the document, that is a config without a custodian.
	Custody config.Custody `json:"custody,omitzero"`
	// Custodian accepts the guest that keeps the secret for others, and no other.
	Custodian bool              `json:"custodian,omitzero"`
	Instance  []config.Instance `json:"instance"`
	Engine    EngineRules       `json:"engine"`
	Model     ModelRules        `json:"model"`
	// Models judge a guest's models by their names, one or several, and Engine, Model and Limits are empty then. They are left out of the document
	// where those three judge the one model that a guest may have.
	Models []ServedRules    `json:"models,omitzero"`
	GPU    []config.GPURule `json:"gpu"`
	Limits LimitRules       `json:"limits"`
	Price  PriceRules       `json:"price"`
	// Chain is what is accepted. Where it is left out of the document, that is a config whose charges are not settled on chain.
	Chain ChainRules `json:"chain,omitzero"`
	// Wipe lists what is the least: a config whose way meets one of them is accepted (config.Wipe.Meets).
	Wipe []config.Wipe `json:"wipe"`
}

// EngineRules judges the engine: one of the volumes, started in exactly this way.
type EngineRules struct {
	Volumes []config.Volume `json:"volumes"`
	// Dialect is the row by which the engine is started and asked (measure/engines). It is left out of the document where the config names none.
	Dialect     string   `json:"dialect,omitzero"`
	Argv        []string `json:"argv"`
	Env         []string `json:"env"`
	MemoryBytes Range    `json:"memory_bytes"`
	// What processes have of /dev/shm, of open files and of tasks, as the config gives them. Left out: a config must leave them out, too.
	SharedMemoryBytes Range `json:"shared_memory_bytes,omitzero"`
	OpenFiles         Range `json:"open_files,omitzero"`
	Tasks             Range `json:"tasks,omitzero"`
}

// ServedRules judges what answers to a name.
type ServedRules struct {
	// Optional accepts a guest without the model. It is left out of the document where the guest must have it.
	Optional bool        `json:"optional,omitzero"`
	Engine   EngineRules `json:"engine"`
	Model    ModelRules  `json:"model"`
	Limits   LimitRules  `json:"limits"`
}

// ModelRules judges the model.
type ModelRules struct {
	Name    string          `json:"name"`
	Volumes []config.Volume `json:"volumes"`
}

// LimitRules judges the limits.
type LimitRules struct {
	RequestBytes  Range `json:"request_bytes"`
	AnswerTokens  Range `json:"answer_tokens"`
	Concurrent    Range `json:"concurrent"`
	ContextTokens Range `json:"context_tokens"`
}

// PriceRules judges the price.
type PriceRules struct {
	Payment          []config.Payment `json:"payment"`
	NanotonPerToken  Range            `json:"nanoton_per_token"`
	PromptWeight     Range            `json:"prompt_weight"`
	CachedWeight     Range            `json:"cached_weight"`
	CompletionWeight Range            `json:"completion_weight"`
	ReasoningWeight  Range            `json:"reasoning_weight"`
}

// ChainRules judges how charges are settled on chain: under which contracts, by how fresh a view, from which block on.
type ChainRules struct {
	Params        []register.Digest `json:"params"`
	MaxAgeSeconds Range             `json:"max_age_seconds"`
	// Coefficient is what both ends of the band have to lie in. Where it is left out of the document, that is a config without a band.
	Coefficient Range         `json:"coefficient,omitzero"`
	Anchor      config.Anchor `json:"anchor,omitzero"`
}

// Range accepts numbers from Min to Max, both included. Its zero value accepts zero alone.
type Range struct {
	Min uint64 `json:"min"`
	Max uint64 `json:"max"`
}

func (r Range) String() string {
	if r.Min == r.Max {
		return fmt.Sprint(r.Min)
	}
	return fmt.Sprintf("%d to %d", r.Min, r.Max)
}

// AnyPayoutOwner accepts every account as the one that is paid.
const AnyPayoutOwner = "any"

// ExactConfig returns the rules that accept one config alone.
func ExactConfig(m config.Measured) ConfigRules {
	id, sv := m.Identity, m.Service
	exact := func(n uint64) Range { return Range{n, n} }
	var models []ServedRules
	one := exactServed(config.Served{Engine: sv.Engine, Model: sv.Model, Limits: sv.Limits})
	if len(sv.Models) > 0 {
		one = ServedRules{}
		for _, served := range sv.Models {
			models = append(models, exactServed(served))
		}
	}
	return ConfigRules{
		Cocoon: id.Cocoon, Network: id.Network, RootContract: id.RootContract, PayoutOwner: id.PayoutOwner.String(),
		Sealing: []config.Sealing{id.Sealing}, Stranding: said(id.Stranding), Handover: said(id.Handover),
		Custody: id.Custody, Custodian: sv.Custodian, Instance: []config.Instance{id.Instance},
		Engine: one.Engine, Model: one.Model, Models: models, Limits: one.Limits,
		GPU: []config.GPURule{sv.GPU},
		Price: PriceRules{Payment: []config.Payment{sv.Price.Payment}, NanotonPerToken: exact(sv.Price.NanotonPerToken),
			PromptWeight: exact(uint64(sv.Price.PromptWeight)), CachedWeight: exact(uint64(sv.Price.CachedWeight)),
			CompletionWeight: exact(uint64(sv.Price.CompletionWeight)), ReasoningWeight: exact(uint64(sv.Price.ReasoningWeight))},
		Chain: exactChain(sv.Chain),
		Wipe:  []config.Wipe{sv.Wipe},
	}
}

func exactServed(s config.Served) ServedRules {
	exact := func(n uint32) Range { return Range{uint64(n), uint64(n)} }
	e, l := s.Engine, s.Limits
	return ServedRules{
		Engine: EngineRules{Volumes: []config.Volume{e.Volume}, Dialect: e.Dialect, Argv: slices.Clone(e.Argv), Env: slices.Clone(e.Env),
			MemoryBytes: Range{e.MemoryBytes, e.MemoryBytes}, SharedMemoryBytes: Range{e.SharedMemoryBytes, e.SharedMemoryBytes}, OpenFiles: exact(e.OpenFiles),
			Tasks: exact(e.Tasks)},
		Model:  ModelRules{Name: s.Model.Name, Volumes: []config.Volume{s.Model.Volume}},
		Limits: LimitRules{exact(l.RequestBytes), exact(l.AnswerTokens), exact(l.Concurrent), exact(l.ContextTokens)},
	}
}

func exactChain(c config.Chain) ChainRules {
	if c == (config.Chain{}) {
		return ChainRules{}
	}
	age := uint64(c.MaxAgeSeconds)
	return ChainRules{Params: []register.Digest{c.Params}, MaxAgeSeconds: Range{age, age}, Anchor: c.Anchor,
		Coefficient: Range{uint64(c.Coefficient.Min), uint64(c.Coefficient.Max)}}
}

// said returns the rule that accepts a config's own word, where it says one.
func said[T ~string](word T) []T {
	if word == "" {
		return nil
	}
	return []T{word}
}

// validateModels wants the rules of several models to have a name each, and nothing beside them that would judge one.
func (r *ConfigRules) validateModels() error {
	if r.Models == nil {
		return nil
	}
	if len(r.Models) == 0 {
		return errors.New("models is empty, want a model, or the member left out")
	}
	if e, m := r.Engine, r.Model; r.Custodian || len(e.Volumes)+len(e.Argv)+len(e.Env)+len(m.Volumes) > 0 || e.Dialect != "" || e.MemoryBytes != (Range{}) || e.SharedMemoryBytes != (Range{}) || e.OpenFiles != (Range{}) ||
		e.Tasks != (Range{}) || m.Name != "" ||
		r.Limits != (LimitRules{}) {
		return errors.New("models beside rules of engine, model or limits, or of a custodian: want those empty")
	}
	for i, rule := range r.Models {
		if name := rule.Model.Name; name == "" || ruled(r.Models, name) != i {
			return fmt.Errorf("models[%d] has the name %.40q, want each model's once", i, name)
		}
	}
	return nil
}

// Judge judges a config by the rules alone, and returns a line for each field. It proves nothing of a guest: Verify does.
func (r ConfigRules) Judge(m config.Measured) (lines []Check) {
	a := &appraisal{config: m, rules: &Rules{Config: r}}
	for _, s := range configChecks {
		f := s.Judge(a)
		got, want := f.Words()
		line := Check{Name: s.Name, Got: got, Want: want, Verdict: Accepted}
		if !f.OK {
			line.Verdict = Denied
		}
		lines = append(lines, line)
	}
	return lines
}

// configChecks has one check for each field of config.Measured, named by the field's place in the document.
var configChecks = []step{
	field("identity.cocoon", func(m *config.Measured, r *ConfigRules) check.Finding {
		return check.Found(fmt.Sprint(m.Identity.Cocoon), fmt.Sprint(r.Cocoon), m.Identity.Cocoon == r.Cocoon)
	}),
	field("identity.network", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Identity.Network, r.Network)
	}),
	field("identity.root_contract", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Identity.RootContract.String(), r.RootContract.String())
	}),
	field("identity.payout_owner", func(m *config.Measured, r *ConfigRules) check.Finding {
		if r.PayoutOwner == AnyPayoutOwner {
			return check.Found(m.Identity.PayoutOwner.String(), AnyPayoutOwner, true)
		}
		return oneOf(m.Identity.PayoutOwner.String(), r.PayoutOwner)
	}),
	field("identity.sealing", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Identity.Sealing, r.Sealing...)
	}),
	field("identity.stranding", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Identity.Stranding, append([]config.Stranding{""}, r.Stranding...)...)
	}),
	field("identity.handover", func(m *config.Measured, r *ConfigRules) check.Finding {
		if len(r.Handover) == 0 {
			return oneOf(m.Identity.Handover, config.HandoverReleases)
		}
		return oneOf(m.Identity.Handover, r.Handover...)
	}),
	custody("lease_seconds", func(c config.Custody) any { return c.LeaseSeconds }),
	custody("collateral_hours", func(c config.Custody) any { return c.CollateralHours }),
	custody("roots", func(c config.Custody) any {
		named := []register.Digest{}
		for _, root := range c.Roots {
			named = append(named, sha256.Sum256(root))
		}
		return named
	}),
	custody("min_tcb_evaluation", func(c config.Custody) any { return c.MinTCBEvaluation }),
	custody("min_tcb", func(c config.Custody) any { return append([]config.PatchLevels{}, c.MinTCB...) }),
	field("identity.instance", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Identity.Instance, r.Instance...)
	}),
	field("service.custodian", func(m *config.Measured, r *ConfigRules) check.Finding {
		return check.Found(fmt.Sprint(m.Service.Custodian), fmt.Sprint(r.Custodian), m.Service.Custodian == r.Custodian)
	}),
	served("engine.volume", func(m config.Served, r ServedRules) check.Finding {
		return oneVolume(m.Engine.Volume, r.Engine.Volumes)
	}),
	served("engine.dialect", func(m config.Served, r ServedRules) check.Finding { return oneOf(m.Engine.Dialect, r.Engine.Dialect) }),
	served("engine.argv", func(m config.Served, r ServedRules) check.Finding { return words(m.Engine.Argv, r.Engine.Argv) }),
	served("engine.env", func(m config.Served, r ServedRules) check.Finding { return words(m.Engine.Env, r.Engine.Env) }),
	served("engine.memory_bytes", func(m config.Served, r ServedRules) check.Finding {
		return within(m.Engine.MemoryBytes, r.Engine.MemoryBytes)
	}),
	served("engine.shared_memory_bytes", func(m config.Served, r ServedRules) check.Finding {
		return within(m.Engine.SharedMemoryBytes, r.Engine.SharedMemoryBytes)
	}),
	served("engine.open_files", func(m config.Served, r ServedRules) check.Finding {
		return within(uint64(m.Engine.OpenFiles), r.Engine.OpenFiles)
	}),
	served("engine.tasks", func(m config.Served, r ServedRules) check.Finding {
		return within(uint64(m.Engine.Tasks), r.Engine.Tasks)
	}),
	field("service.model.name", modelNames),
	served("model.volume", func(m config.Served, r ServedRules) check.Finding { return oneVolume(m.Model.Volume, r.Model.Volumes) }),
	field("service.gpu", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Service.GPU, r.GPU...)
	}),
	served("limits.request_bytes", func(m config.Served, r ServedRules) check.Finding {
		return within(uint64(m.Limits.RequestBytes), r.Limits.RequestBytes)
	}),
	served("limits.answer_tokens", func(m config.Served, r ServedRules) check.Finding {
		return within(uint64(m.Limits.AnswerTokens), r.Limits.AnswerTokens)
	}),
	served("limits.concurrent", func(m config.Served, r ServedRules) check.Finding {
		return within(uint64(m.Limits.Concurrent), r.Limits.Concurrent)
	}),
	served("limits.context_tokens", func(m config.Served, r ServedRules) check.Finding {
		return within(uint64(m.Limits.ContextTokens), r.Limits.ContextTokens)
	}),
	field("service.price.payment", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Service.Price.Payment, r.Price.Payment...)
	}),
	field("service.price.nanoton_per_token", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(m.Service.Price.NanotonPerToken, r.Price.NanotonPerToken)
	}),
	field("service.price.prompt_weight", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Price.PromptWeight), r.Price.PromptWeight)
	}),
	field("service.price.cached_weight", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Price.CachedWeight), r.Price.CachedWeight)
	}),
	field("service.price.completion_weight", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Price.CompletionWeight), r.Price.CompletionWeight)
	}),
	field("service.price.reasoning_weight", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Price.ReasoningWeight), r.Price.ReasoningWeight)
	}),
	field("service.chain.params", func(m *config.Measured, r *ConfigRules) check.Finding {
		if got := m.Service.Chain.Params; m.Service.Settles() || len(r.Chain.Params) > 0 {
			var names []string
			for _, want := range r.Chain.Params {
				names = append(names, want.String())
			}
			return check.Found(got.String(), either(names), slices.Contains(r.Chain.Params, got))
		}
		return check.Found("not settled on chain", "not settled on chain", true)
	}),
	field("service.chain.max_age_seconds", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Chain.MaxAgeSeconds), r.Chain.MaxAgeSeconds)
	}),
	field("service.chain.coefficient.min", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Chain.Coefficient.Min), r.Chain.Coefficient)
	}),
	field("service.chain.coefficient.max", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Chain.Coefficient.Max), r.Chain.Coefficient)
	}),
	anchor("global_id", func(a config.Anchor) any { return a.GlobalID }),
	anchor("seqno", func(a config.Anchor) any { return a.Seqno }),
	anchor("root_hash", func(a config.Anchor) any { return a.RootHash }),
	anchor("file_hash", func(a config.Anchor) any { return a.FileHash }),
	field("service.wipe", func(m *config.Measured, r *ConfigRules) check.Finding {
		got := m.Service.Wipe
		return check.Saying(slices.ContainsFunc(r.Wipe, got.Meets), func() (string, string) {
			var names []string
			for _, w := range r.Wipe {
				names = append(names, string(w))
			}
			return string(got), either(names)
		})
	}),
}

func field(name string, judge func(*config.Measured, *ConfigRules) check.Finding) step {
	return step{Name: "config." + name, Judge: func(a *appraisal) check.Finding { return judge(&a.config, &a.rules.Config) }}
}

// served judges a part of each model that is served by the rules of its name. The one model of a guest and the one of a policy belong together
// whatever they are called: the name has a check of its own.
func served(name string, judge func(config.Served, ServedRules) check.Finding) step {
	return field("service."+name, func(m *config.Measured, r *ConfigRules) check.Finding {
		models, rules := servedBy(m.Service), r.served()
		if len(models) == 1 && len(rules) == 1 {
			return judge(models[0], rules[0])
		}
		all := true
		found := make([]check.Finding, len(models))
		for i, model := range models {
			at := ruled(rules, model.Model.Name)
			if at < 0 {
				all = false
				continue
			}
			found[i] = judge(model, rules[at])
			all = all && found[i].OK
		}
		return check.Saying(all, func() (string, string) {
			var got, want []string
			for i, model := range models {
				g, w := found[i].Words()
				if ruled(rules, model.Model.Name) < 0 {
					g, w = "served", "no such model"
				}
				got, want = append(got, model.Model.Name+": "+g), append(want, model.Model.Name+": "+w)
			}
			return strings.Join(got, "; "), strings.Join(want, "; ")
		})
	})
}

// modelNames wants every model to be one that the policy names, and those to be there that it does not call optional.
func modelNames(m *config.Measured, r *ConfigRules) check.Finding {
	models, rules := servedBy(m.Service), r.served()
	if len(models) == 1 && len(rules) == 1 {
		return oneOf(models[0].Model.Name, rules[0].Model.Name)
	}
	var got, want []string
	all := true
	for _, model := range models {
		got = append(got, model.Model.Name)
		all = all && ruled(rules, model.Model.Name) >= 0
	}
	for _, rule := range rules {
		name := rule.Model.Name
		if all = all && (rule.Optional || slices.Contains(got, name)); rule.Optional {
			name += " (optional)"
		}
		want = append(want, name)
	}
	return check.Saying(all, func() (string, string) { return strings.Join(got, ", "), strings.Join(want, ", ") })
}

// servedBy returns what a config serves; of a custodian one model of nothing, which its policy states too.
func servedBy(s config.Service) []config.Served {
	if s.Custodian {
		return []config.Served{{}}
	}
	return s.Served()
}

// served returns the rules of each model.
func (r *ConfigRules) served() []ServedRules {
	if r.Models != nil {
		return r.Models
	}
	return []ServedRules{{Engine: r.Engine, Model: r.Model, Limits: r.Limits}}
}

// ruled returns which of the rules are a name's, or less than 0.
func ruled(rules []ServedRules, name string) int {
	return slices.IndexFunc(rules, func(r ServedRules) bool { return r.Model.Name == name })
}

// custody wants a part of what custodian and borrower judge each other by to be the policy's own.
func custody(name string, part func(config.Custody) any) step {
	return field("identity.custody."+name, func(m *config.Measured, r *ConfigRules) check.Finding {
		got, want := part(m.Identity.Custody), part(r.Custody)
		return check.Saying(reflect.DeepEqual(got, want), func() (string, string) { return fmt.Sprint(got), fmt.Sprint(want) })
	})
}

// anchor wants a part of the block from which on a guest proves blocks to be the policy's own.
func anchor(name string, part func(config.Anchor) any) step {
	return field("service.chain.anchor."+name, func(m *config.Measured, r *ConfigRules) check.Finding {
		got, want := part(m.Service.Chain.Anchor), part(r.Chain.Anchor)
		return check.Found(fmt.Sprint(got), fmt.Sprint(want), got == want)
	})
}

func oneOf[T ~string](got T, want ...T) check.Finding {
	return check.Saying(slices.Contains(want, got), func() (string, string) {
		var names []string
		for _, w := range want {
			names = append(names, string(w))
		}
		return string(got), either(names)
	})
}

func oneVolume(got config.Volume, want []config.Volume) check.Finding {
	return check.Saying(slices.Contains(want, got), func() (string, string) {
		var names []string
		for _, v := range want {
			names = append(names, v.String())
		}
		return got.String(), either(names)
	})
}

// either joins the alternatives of a rule; a rule without any accepts nothing.
func either(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, " or ")
}

func words(got, want []string) check.Finding {
	return check.Saying(slices.Equal(got, want), func() (string, string) { return fmt.Sprintf("%q", got), fmt.Sprintf("%q", want) })
}

func within(got uint64, want Range) check.Finding {
	return check.Saying(want.Min <= got && got <= want.Max, func() (string, string) { return fmt.Sprint(got), want.String() })
}
