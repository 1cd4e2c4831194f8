package attest

import (
	"crypto/sha256"
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
	GPU       []config.GPURule  `json:"gpu"`
	Limits    LimitRules        `json:"limits"`
	Price     PriceRules        `json:"price"`
	// Chain is what is accepted. Where it is left out of the document, that is a config whose charges are not settled on chain.
	Chain ChainRules    `json:"chain,omitzero"`
	Wipe  []config.Wipe `json:"wipe"`
}

// EngineRules judges the engine: one of the volumes, started in exactly this way.
type EngineRules struct {
	Volumes []config.Volume `json:"volumes"`
	// Dialect is the row by which the engine is started and asked (measure/engines). It is left out of the document where the config names none.
	Dialect     string   `json:"dialect,omitzero"`
	Argv        []string `json:"argv"`
	Env         []string `json:"env"`
	MemoryBytes Range    `json:"memory_bytes"`
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
	return ConfigRules{
		Cocoon: id.Cocoon, Network: id.Network, RootContract: id.RootContract, PayoutOwner: id.PayoutOwner.String(),
		Sealing: []config.Sealing{id.Sealing}, Stranding: said(id.Stranding), Handover: said(id.Handover),
		Custody: id.Custody, Custodian: sv.Custodian, Instance: []config.Instance{id.Instance},
		Engine: EngineRules{Volumes: []config.Volume{sv.Engine.Volume}, Dialect: sv.Engine.Dialect, Argv: slices.Clone(sv.Engine.Argv), Env: slices.Clone(sv.Engine.Env),
			MemoryBytes: exact(sv.Engine.MemoryBytes)},
		Model: ModelRules{Name: sv.Model.Name, Volumes: []config.Volume{sv.Model.Volume}},
		GPU:   []config.GPURule{sv.GPU},
		Limits: LimitRules{RequestBytes: exact(uint64(sv.Limits.RequestBytes)), AnswerTokens: exact(uint64(sv.Limits.AnswerTokens)),
			Concurrent: exact(uint64(sv.Limits.Concurrent)), ContextTokens: exact(uint64(sv.Limits.ContextTokens))},
		Price: PriceRules{Payment: []config.Payment{sv.Price.Payment}, NanotonPerToken: exact(sv.Price.NanotonPerToken),
			PromptWeight: exact(uint64(sv.Price.PromptWeight)), CachedWeight: exact(uint64(sv.Price.CachedWeight)),
			CompletionWeight: exact(uint64(sv.Price.CompletionWeight)), ReasoningWeight: exact(uint64(sv.Price.ReasoningWeight))},
		Chain: exactChain(sv.Chain),
		Wipe:  []config.Wipe{sv.Wipe},
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
	field("service.engine.volume", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneVolume(m.Service.Engine.Volume, r.Engine.Volumes)
	}),
	field("service.engine.dialect", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Service.Engine.Dialect, r.Engine.Dialect)
	}),
	field("service.engine.argv", func(m *config.Measured, r *ConfigRules) check.Finding {
		return words(m.Service.Engine.Argv, r.Engine.Argv)
	}),
	field("service.engine.env", func(m *config.Measured, r *ConfigRules) check.Finding {
		return words(m.Service.Engine.Env, r.Engine.Env)
	}),
	field("service.engine.memory_bytes", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(m.Service.Engine.MemoryBytes, r.Engine.MemoryBytes)
	}),
	field("service.model.name", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Service.Model.Name, r.Model.Name)
	}),
	field("service.model.volume", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneVolume(m.Service.Model.Volume, r.Model.Volumes)
	}),
	field("service.gpu", func(m *config.Measured, r *ConfigRules) check.Finding {
		return oneOf(m.Service.GPU, r.GPU...)
	}),
	field("service.limits.request_bytes", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Limits.RequestBytes), r.Limits.RequestBytes)
	}),
	field("service.limits.answer_tokens", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Limits.AnswerTokens), r.Limits.AnswerTokens)
	}),
	field("service.limits.concurrent", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Limits.Concurrent), r.Limits.Concurrent)
	}),
	field("service.limits.context_tokens", func(m *config.Measured, r *ConfigRules) check.Finding {
		return within(uint64(m.Service.Limits.ContextTokens), r.Limits.ContextTokens)
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
		return oneOf(m.Service.Wipe, r.Wipe...)
	}),
}

func field(name string, judge func(*config.Measured, *ConfigRules) check.Finding) step {
	return step{Name: "config." + name, Judge: func(a *appraisal) check.Finding { return judge(&a.config, &a.rules.Config) }}
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
