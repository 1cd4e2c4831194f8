package attest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/measure/fault"
	"chrysalis/measure/register"
)

// Policy is what a client accepts. It never changes after it is made, and the zero Policy accepts nothing.
type Policy struct {
	rules   *Rules                                // nil: nothing is accepted
	entries map[evidence.Platform][]release.Entry // of the rules
	images  map[register.Digest]string            // measurements of those that are new enough, with the release's name

	list    *release.List    // that the releases are of; nil: they are the policy's own
	rebuilt map[string]error // by release; nil error: rebuilt by enough
}

// Rules is a policy's document. Every member must be there: what is absent is refused and never means unchecked. Not
// checking something has a name, in Waive or as the value "any".
type Rules struct {
	Version int `json:"version"` // 1
	// Releases are the releases that may run. A guest must show every value of one of them.
	Releases []release.Release `json:"releases"`
	// ReleaseList lets a signed, expiring list say so instead.
	ReleaseList ListRules `json:"release_list"`
	// MinSecurityVersion refuses releases below it, also those listed.
	MinSecurityVersion uint32 `json:"min_security_version"`
	// Waive names what the client does without: "confidentiality" (a vtpm has none), "acpi", "pcr-1" and so on.
	Waive []string `json:"waive"`
	// HeldBy are measurements of images that may have held a guest's secret before its own, beside those of the releases that are
	// accepted here. It may be left out of the document.
	HeldBy []register.Digest `json:"held_by,omitzero"`
	// Platforms says which machines may run it.
	Platforms Platforms `json:"platforms"`
	// TDX and SEVSNP judge the machines of those platforms.
	TDX    TDXRules    `json:"tdx"`
	SEVSNP SEVSNPRules `json:"sev_snp"`
	// GPU judges the GPUs of guests whose config asks for some. It may be left out of the document where no such config is accepted.
	GPU GPURules `json:"gpu,omitzero"`
	// Config judges the measured config, field by field.
	Config ConfigRules `json:"config"`
}

// maxPolicyBytes bounds a policy document.
const maxPolicyBytes = 1 << 20

// ParsePolicy parses a policy document. Unknown, repeated and missing members are refused, and so is a document that
// would accept nothing or leave a register unjudged.
func ParsePolicy(document []byte) (Policy, error) {
	if len(document) > maxPolicyBytes {
		return Policy{}, fmt.Errorf("parsing policy: %d bytes, want at most %d", len(document), maxPolicyBytes)
	}
	var rules Rules
	if err := json.Unmarshal(document, &rules, json.RejectUnknownMembers(true)); err != nil {
		return Policy{}, fmt.Errorf("parsing policy: %w", fault.JSON(err))
	}
	if err := sameMembers(document, &rules); err != nil {
		return Policy{}, fmt.Errorf("parsing policy: %w", err)
	}
	if err := rules.validate(); err != nil {
		return Policy{}, fmt.Errorf("parsing policy: %w", err)
	}
	return policyOf(&rules), nil
}

func policyOf(rules *Rules) Policy {
	p := Policy{rules: rules, entries: map[evidence.Platform][]release.Entry{}, images: map[register.Digest]string{}}
	for _, platform := range evidence.Platforms() {
		p.entries[platform] = rules.references(platform)
		for _, e := range p.entries[platform] {
			// An entry of which a register is waived names no image.
			if m, err := handover.Measurement(platform, e.Values); err == nil && e.Release.SecurityVersion >= rules.MinSecurityVersion {
				p.images[m] = e.Release.Name
			}
		}
	}
	return p
}

// Policy makes a policy of the rules, which it copies.
func (r Rules) Policy() (Policy, error) {
	document, err := json.Marshal(r, json.Deterministic(true))
	if err != nil {
		return Policy{}, fmt.Errorf("making policy: %w", err)
	}
	return ParsePolicy(document)
}

// sameMembers refuses a document that lacks a member of rules: rules, which came out of it, is encoded again and the two
// are compared as trees.
func sameMembers(document []byte, rules *Rules) error {
	encoded, err := json.Marshal(rules, json.Deterministic(true))
	if err != nil {
		return err
	}
	var got, want any
	if err := errors.Join(json.Unmarshal(document, &got), json.Unmarshal(encoded, &want)); err != nil {
		return err
	}
	return compareMembers("policy", got, want)
}

func compareMembers(at string, got, want any) error {
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: got %.40v, want an object", at, got)
		}
		for name, value := range want {
			member, ok := object[name]
			if !ok {
				return fmt.Errorf("%s: member %q is missing", at, name)
			}
			if err := compareMembers(at+"."+name, member, value); err != nil {
				return err
			}
		}
		if len(object) != len(want) {
			return fmt.Errorf("%s: %d members, want %d", at, len(object), len(want))
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Errorf("%s: got %.40v, want a list", at, got)
		}
		for i := range want {
			if err := compareMembers(fmt.Sprintf("%s[%d]", at, i), list[i], want[i]); err != nil {
				return err
			}
		}
	default:
		if got != want {
			return fmt.Errorf("%s: got %.40v, want %.40v", at, got, want)
		}
	}
	return nil
}

func (r *Rules) validate() error {
	if r.Version != 1 {
		return fmt.Errorf("version is %d, want 1", r.Version)
	}
	if n := len(r.Releases); n == 0 && !r.ReleaseList.used() || n > release.MaxListed {
		return fmt.Errorf("%d releases, want 1 to %d, or signers of a release list", n, release.MaxListed)
	}
	if err := r.ReleaseList.validate(len(r.Releases)); err != nil {
		return fmt.Errorf("release_list: %w", err)
	}
	known := waivable()
	for i, name := range r.Waive {
		if !slices.Contains(known, name) || slices.Contains(r.Waive[:i], name) {
			return fmt.Errorf("waive names %q, want each of %s at most once", name, strings.Join(known, ", "))
		}
	}
	if n := len(r.HeldBy); n > release.MaxListed {
		return fmt.Errorf("held_by names %d images, want at most %d", n, release.MaxListed)
	}
	for _, listed := range r.Releases {
		if err := listed.Validate(r.Waive); err != nil {
			return fmt.Errorf("release %q: %w", listed.Name, err)
		}
	}
	if err := r.Platforms.validate(); err != nil {
		return fmt.Errorf("platforms: %w", err)
	}
	if err := r.Config.validateModels(); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if err := r.validateGPU(); err != nil {
		return err
	}
	return r.validatePlatforms()
}

// validatePlatforms judges the rules of the platforms that some release runs on. The others judge nothing.
func (r *Rules) validatePlatforms() error {
	if len(r.references(evidence.TDX)) > 0 {
		if err := r.TDX.validate(); err != nil {
			return fmt.Errorf("tdx: %w", err)
		}
	}
	if len(r.references(evidence.SEVSNP)) > 0 {
		if err := r.SEVSNP.validate(); err != nil {
			return fmt.Errorf("sev_snp: %w", err)
		}
	}
	return nil
}

func (p Policy) waives(name string) bool {
	return p.rules != nil && slices.Contains(p.rules.Waive, name)
}
