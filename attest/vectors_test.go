package attest_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/release"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/ton"
)

// scene is everything that Verify is given, made so that it accepts. A vector spoils one thing.
type scene struct {
	source interface {
		Evidence(attest.Challenge) *evidence.Evidence
		Attest(nonceRoot, tlsKey [32]byte) *evidence.Evidence
		Roots() attest.Roots
	}
	contents *attesttest.Contents // of the source
	// The source by its type; one of them is set.
	guest *attesttest.Guest
	td    *attesttest.TDXGuest
	snp   *attesttest.SNPGuest

	challenge attest.Challenge
	asked     attest.Challenge // what the guest is asked; the same, unless a vector makes them differ
	rules     attest.Rules
	zero      bool          // verify under the zero policy
	roots     *attest.Roots // nil: the source's
	now       time.Time
	edit      func(*evidence.Evidence) // after it was made
	list      []byte                   // release list that the policy takes; nil: none
}

func newScene(t testing.TB) *scene { return newSceneOn(t, evidence.VTPM) }

func newSceneOn(t testing.TB, platform evidence.Platform) *scene {
	c := attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: [32]byte{3}}
	s := &scene{challenge: c, asked: c, now: now}
	switch platform {
	case evidence.VTPM:
		s.guest = attesttest.New(measured(t), now)
		s.source, s.contents, s.rules = s.guest, &s.guest.Contents, s.guest.Rules()
	case evidence.TDX:
		s.td = attesttest.NewTDXGuest(measured(t), now)
		s.source, s.contents, s.rules = s.td, &s.td.Contents, s.td.Rules()
	case evidence.SEVSNP:
		s.snp = attesttest.NewSNPGuest(measured(t), sevsnp.Genoa, now)
		s.source, s.contents, s.rules = s.snp, &s.snp.Contents, s.snp.Rules()
	}
	return s
}

// serves lets the guest have another config, and the rules accept that alone.
func (s *scene) serves(change func(*config.Measured)) {
	m, err := config.Decode(s.contents.Measured)
	if err != nil {
		panic(err)
	}
	change(&m)
	if s.contents.Measured, err = m.Encode(); err != nil {
		panic(err)
	}
	sequence, err := eventlog.SequenceOf(s.contents.Measured)
	if err != nil {
		panic(err)
	}
	in := eventlog.InRTMR
	if s.guest != nil {
		in = eventlog.InPCRs
	}
	s.contents.Records, s.rules.Config = sequence.Records(in), attest.ExactConfig(m)
}

func (s *scene) play(t testing.TB, verify func(*evidence.Evidence, attest.Challenge, attest.Policy, time.Time,
	attest.Roots) (*attest.Result, error)) (*attest.Result, error) {
	t.Helper()
	e := s.source.Evidence(s.asked)
	roots := s.source.Roots()
	if s.roots != nil {
		roots = *s.roots
	}
	if s.edit != nil {
		s.edit(e)
	}
	var policy attest.Policy
	if !s.zero {
		var err error
		if policy, err = s.rules.Policy(); err != nil {
			t.Fatal(err)
		}
		if s.list != nil {
			if policy, err = policy.WithReleases(s.list); err != nil {
				t.Fatal(err)
			}
		}
	}
	return verify(e, s.challenge, policy, s.now, roots)
}

// listed moves the policy's releases into a list that one signer signs, and that the policy believes for a day.
func (s *scene) listed(issued time.Time, lasts time.Duration) {
	d := release.NewDocument(issued, lasts)
	for _, r := range s.rules.Releases {
		d.Releases = append(d.Releases, release.Listed{Manifest: register.Digest{1}, Values: r, Rebuilds: []release.Envelope{}})
	}
	unsigned, err := release.EncodeList(d)
	if err != nil {
		panic(err)
	}
	if s.list, err = release.SignList(unsigned, listKey(1)); err != nil {
		panic(err)
	}
	s.rules.Releases = nil
	s.rules.ReleaseList = attest.ListRules{Signers: []pubkey.Ed25519{keyOf(1), keyOf(2)}, Threshold: 1, MaxAge: "24h"}
}

func keyOf(seed byte) pubkey.Ed25519 {
	return pubkey.Of(listKey(seed))
}

// vector spoils a scene in one way, which one check must refuse.
type vector struct {
	check, name string
	spoil       func(*scene)
}

// record returns the first record of a kind, or that of the register when one is named.
func record(s *scene, kind eventlog.Kind, register ...eventlog.Register) *eventlog.Record {
	i := slices.IndexFunc(s.contents.Records, func(r eventlog.Record) bool {
		return r.Kind == kind && (len(register) == 0 || r.Register == register[0])
	})
	return &s.contents.Records[i]
}

// vectorsOn returns the vectors of a platform.
func vectorsOn(platform evidence.Platform) []vector {
	var own []vector
	switch platform {
	case evidence.VTPM:
		own = vtpmVectors()
	case evidence.TDX:
		own = tdxVectors()
	case evidence.SEVSNP:
		own = sevsnpVectors()
	}
	return slices.Concat(commonVectors(), own, configVectors())
}

// commonVectors spoil what is the same on every platform.
func commonVectors() []vector {
	return []vector{
		{"policy", "the zero policy", func(s *scene) { s.zero = true }},
		{"platform", "another platform", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Platform = 1 + e.Platform%3 } }},
		{"platform", "no platform", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Platform = 9 } }},
		{"platform", "no evidence", func(s *scene) { s.edit = func(e *evidence.Evidence) { *e = evidence.Evidence{} } }},
		{"nonce", "no nonce", func(s *scene) { s.challenge.Nonce, s.asked.Nonce = [32]byte{}, [32]byte{} }},
		{"exporter", "no exporter", func(s *scene) { s.challenge.Exporter, s.asked.Exporter = [32]byte{}, [32]byte{} }},
		{"release-list", "no list for a policy that asks for one", func(s *scene) {
			s.listed(now.Add(-time.Hour), 30*24*time.Hour)
			// The policy knows the releases, so that the missing list is all that is wrong.
			s.list = nil
		}},
		{"release-list-fresh", "an expired list", func(s *scene) { s.listed(now.Add(-2*time.Hour), time.Hour) }},
		{"release-list-fresh", "a list of the future", func(s *scene) { s.listed(now.Add(time.Second), time.Hour) }},
		{"release-list-fresh", "a list older than the policy believes", func(s *scene) { s.listed(now.Add(-25*time.Hour), 30*24*time.Hour) }},
		{"release-rebuilt", "a release that nobody rebuilt", func(s *scene) {
			s.listed(now, time.Hour)
			s.rules.ReleaseList.Rebuilders, s.rules.ReleaseList.RebuildThreshold = []pubkey.Ed25519{keyOf(3)}, 1
		}},
		{"challenge", "an answer to an older nonce", func(s *scene) { s.challenge.Nonce[0]++ }},
		{"challenge", "an answer relayed from another connection", func(s *scene) { s.challenge.Exporter[0]++ }},
		{"challenge", "a path of another tree", func(s *scene) {
			s.edit = func(e *evidence.Evidence) { e.Path.Leaves, e.Path.Siblings = 2, [][32]byte{{}} }
		}},
		{"challenge", "no path", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Path = evidence.Path{} } }},
		{"tls-key", "another TLS key", func(s *scene) { s.challenge.TLSKey[0]++ }},
		{"hpke-key", "another HPKE key", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.HPKE = []byte("another") } }},
		{"not-after", "a second late", func(s *scene) { s.contents.Statement.NotAfter = uint64(now.Unix()) - 1 }},
		{"not-after", "far beyond time", func(s *scene) { s.contents.Statement.NotAfter = 1 << 63 }},
		{"runtime-log-format", "trailing byte",
			func(s *scene) { s.edit = func(e *evidence.Evidence) { e.RuntimeLog = append(e.RuntimeLog, 0) } }},
		{"config-format", "no config", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Config = nil } }},
		{"security-version", "an old release", func(s *scene) { s.rules.MinSecurityVersion = 2 }},
		{"runtime-log-order", "model before engine", func(s *scene) {
			s.contents.Records[2], s.contents.Records[3] = s.contents.Records[3], s.contents.Records[2]
		}},
		{"runtime-log-end", "the GPU was lost", func(s *scene) { s.adds(eventlog.KindGPULost) }},
		{"runtime-log-end", "it ended", func(s *scene) { s.adds(eventlog.KindTerminated) }},
		{"runtime-log-end", "a second engine", func(s *scene) { s.adds(eventlog.KindEngine) }},
		{"event-config", "another config", func(s *scene) { record(s, eventlog.KindConfig).Data = make([]byte, 32) }},
		{"event-identity", "another identity", func(s *scene) { record(s, eventlog.KindIdentity).Data = make([]byte, 32) }},
		{"event-engine", "another engine", func(s *scene) { record(s, eventlog.KindEngine).Data = make([]byte, 40) }},
		{"event-model", "another model", func(s *scene) { record(s, eventlog.KindModel).Data = make([]byte, 40) }},
		{"nvidia", "a GPU's evidence where none is asked for", func(s *scene) {
			s.contents.EditGPUs = func(g *evidence.GPUs) {
				g.Devices = []evidence.Device{{Kind: evidence.KindGPU, Report: []byte("report"), Chain: []byte("chain")}}
			}
		}},
		{"nvidia", "what is said of GPUs where none is asked for", func(s *scene) {
			s.edit = func(e *evidence.Evidence) { e.GPUs.OCSP = [][]byte{{1}} }
		}},
		{"event-gpu", "a GPU", func(s *scene) { record(s, eventlog.KindGPU).Data = []byte("one") }},
		{"held-by", "an image that the policy does not know", func(s *scene) { s.heldBefore(register.Digest{1}) }},
		{"held-by", "one that it knows, and one more", func(s *scene) {
			s.heldBefore(register.Digest{1}, register.Digest{2})
			s.rules.HeldBy = []register.Digest{{1}}
		}},
		{"statement-config", "another config", func(s *scene) { s.fills(func(st *evidence.Statement) { st.ConfigHash[0]++ }) }},
		{"statement-log-head", "another log", func(s *scene) { s.fills(func(st *evidence.Statement) { st.LogHead[0]++ }) }},
		{"statement-gpu", "a GPU's evidence", func(s *scene) { s.contents.Statement.GPUDigest[0]++ }},
		{"statement-receipt-key", "none", func(s *scene) { s.contents.Statement.ReceiptKey = [32]byte{} }},
		{"statement-claim-key", "none", func(s *scene) { s.contents.Statement.ClaimKey = [32]byte{} }},
		{"statement-secret", "none", func(s *scene) { s.contents.Statement.SecretHash = [32]byte{} }},
		{"not-after", "a key for longer than any is used", func(s *scene) {
			s.contents.Statement.NotAfter = uint64(now.Add(attest.MaxKeyLife + time.Second).Unix())
		}},
	}
}

func vtpmVectors() []vector {
	vs := []vector{
		{"confidentiality", "not waived", func(s *scene) { s.rules.Waive = []string{"pcr-1"} }},
		{"quote-format", "trailing byte", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Quote = append(e.Quote, 0) } }},
		{"signature-format", "trailing byte", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Signature = append(e.Signature, 0) } }},
		{"certificate-format", "no certificate", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Certificates = nil } }},
		{"certificate-format", "a P-384 key", func(s *scene) { s.guest.CertifiedKey = key(elliptic.P384()) }},
		{"boot-log-format", "no log", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.BootLog = nil } }},
		{"certificate", "no roots", func(s *scene) { s.roots = &attest.Roots{} }},
		{"certificate", "another root", func(s *scene) {
			other := attesttest.New(s.guest.Measured, now).Roots()
			s.roots = &other
		}},
		{"certificate", "expired", func(s *scene) { s.guest.Leaf.NotAfter = now.Add(-time.Second) }},
		{"certificate", "not yet valid", func(s *scene) { s.guest.Leaf.NotBefore = now.Add(time.Second) }},
		{"certificate", "a CA", func(s *scene) { s.guest.Leaf.IsCA = true }},
		{"certificate", "no basic constraints", func(s *scene) { s.guest.Leaf.BasicConstraintsValid = false }},
		{"certificate", "usage of another key", func(s *scene) { s.guest.Leaf.KeyUsage = x509.KeyUsageKeyAgreement }},
		{"certificate", "not for attestation", func(s *scene) { s.guest.Leaf.UnknownExtKeyUsage = nil }},
		{"quote-signature", "another key", func(s *scene) { s.guest.SigningKey = key(elliptic.P256()) }},
		{"report-data", "another statement", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Statement.Epoch++ } }},
		{"report-data", "a longer one", func(s *scene) {
			s.guest.Quote = func(q *vtpm.Quote) { q.Extra = q.Extra[:63] }
		}},
		{"pcr-selection", "one register fewer", func(s *scene) { s.selects(vtpm.SHA256Selection(register.Quoted()[1:])) }},
		{"pcr-selection", "one register more", func(s *scene) { s.selects(vtpm.SHA256Selection(append(register.Quoted(), 15))) }},
		{"pcr-selection", "the SHA-1 bank", func(s *scene) { s.selects(vtpm.Selection{Hash: 4, Registers: register.Quoted()}) }},
		{"pcr-selection", "nothing", func(s *scene) { s.selects() }},
		{"pcr-digest", "another digest", func(s *scene) { s.guest.Quote = func(q *vtpm.Quote) { q.Digest[0]++ } }},
		{"pcr-digest", "an event less in the log", func(s *scene) {
			s.edit = func(e *evidence.Evidence) {
				short := attesttest.New(s.guest.Measured, now)
				short.Boot = slices.Delete(short.Boot, 1, 2)
				e.BootLog = short.Evidence(s.asked).BootLog
			}
		}},
		{"boot-log-data", "an event with other data", func(s *scene) {
			s.guest.Boot[9].Hashed, s.guest.Boot[9].Data = s.guest.Boot[9].Data, []byte("edited")
		}},
		{"boot-log-data", "an event of a register that anybody can reset", func(s *scene) {
			s.guest.Boot = append(s.guest.Boot, attesttest.BootEvent{Register: 16, Type: 4, Data: eventlog.SeparatorData()})
		}},
		{"machine", "a machine that is not listed", func(s *scene) {
			s.rules.Platforms = attest.Platforms{VTPM: []register.Digest{{9}}}
		}},
		{"event-separator-13", "another separator", func(s *scene) { record(s, eventlog.KindSeparator, 13).Data = []byte{0, 0, 0, 1} }},
		{"event-separator-14", "another separator", func(s *scene) { record(s, eventlog.KindSeparator, 14).Data = nil }},
		{"event-keys-released-13", "with data", func(s *scene) { record(s, eventlog.KindKeysReleased, 13).Data = []byte{1} }},
		{"event-keys-released-14", "with data", func(s *scene) { record(s, eventlog.KindKeysReleased, 14).Data = []byte{1} }},
		{"event-keys-released-14", "another story than in PCR 13", func(s *scene) {
			s.heldBefore(register.Digest{1})
			s.rules.HeldBy = []register.Digest{{1}}
			record(s, eventlog.KindKeysReleased, 14).Data = nil
		}},
		{"event-keys-released-13", "the same image twice", func(s *scene) {
			record(s, eventlog.KindKeysReleased, 13).Data = eventlog.HeldData([]register.Digest{{1}, {1}})
			s.rules.HeldBy = []register.Digest{{1}}
		}},
		{"binding", "a key between quote and statement", func(s *scene) {
			s.edit = func(e *evidence.Evidence) { e.Binding = evidence.Bind(listKey(9), e.Statement) }
		}},
		{"binding", "COCOON's public identity", (*scene).public},
		{"collateral-absent", "collateral", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Collateral = []byte{1} } }},
	}
	for _, index := range register.Quoted() {
		if index == 1 || index == 13 || index == 14 {
			continue // 1 is waived in the scene, and in TestPinnedPCR1 it is not
		}
		vs = append(vs, vector{fmt.Sprintf("pcr-%d", index), "another value",
			func(s *scene) { s.rules.Releases[0].VTPM[0][uint8(index)] = register.Digest{1} }})
	}
	return vs
}

func configVectors() []vector {
	rule := func(name string, change func(*attest.ConfigRules)) vector {
		return vector{"config." + name, "another", func(s *scene) { change(&s.rules.Config) }}
	}
	return []vector{
		rule("identity.cocoon", func(r *attest.ConfigRules) { r.Cocoon = true }),
		rule("identity.network", func(r *attest.ConfigRules) { r.Network = config.Mainnet }),
		rule("identity.root_contract", func(r *attest.ConfigRules) { r.RootContract = ton.Address{} }),
		rule("identity.payout_owner", func(r *attest.ConfigRules) { r.PayoutOwner = "" }),
		rule("identity.sealing", func(r *attest.ConfigRules) { r.Sealing = nil }),
		{"config.identity.stranding", "accepted by the owner alone", func(s *scene) {
			s.serves(func(m *config.Measured) {
				m.Identity.Sealing, m.Identity.Stranding = config.SealNothing, config.StrandingAccepted
			})
			s.rules.Config.Stranding = nil
		}},
		{"config.identity.handover", "narrowed, and the policy does not say so", func(s *scene) {
			s.serves(func(m *config.Measured) { m.Identity.Handover = config.HandoverNone })
			s.rules.Config.Handover = nil
		}},
		{"config.identity.handover", "not narrowed", func(s *scene) { s.rules.Config.Handover = []config.Handover{config.HandoverNone} }},
		custodyRule("lease_seconds", func(c *config.Custody) { c.LeaseSeconds++ }),
		custodyRule("collateral_hours", func(c *config.Custody) { c.CollateralHours-- }),
		custodyRule("roots", func(c *config.Custody) { c.Roots = [][]byte{{1}} }),
		custodyRule("min_tcb_evaluation", func(c *config.Custody) { c.MinTCBEvaluation++ }),
		custodyRule("min_tcb", func(c *config.Custody) { c.MinTCB = []config.PatchLevels{{Product: "Milan"}} }),
		{"loan", "a guest that borrows and has no loan", func(s *scene) { s.borrows(eventlog.Loan{}) }},
		{"loan", "a guest that borrows from nobody and has one", func(s *scene) {
			s.released(eventlog.Sequence{Loan: eventlog.Loan{Number: 3, Lender: register.Digest{5}}})
		}},
		rule("service.custodian", func(r *attest.ConfigRules) { r.Custodian = true }),
		rule("identity.instance", func(r *attest.ConfigRules) { r.Instance = nil }),
		rule("service.engine.volume", func(r *attest.ConfigRules) { r.Engine.Volumes[0].Root[0]++ }),
		rule("service.engine.dialect", func(r *attest.ConfigRules) { r.Engine.Dialect = "vllm" }),
		rule("service.engine.argv", func(r *attest.ConfigRules) { r.Engine.Argv = append(r.Engine.Argv, "--slots") }),
		rule("service.engine.env", func(r *attest.ConfigRules) { r.Engine.Env = append(r.Engine.Env, "LD_PRELOAD=/x") }),
		rule("service.engine.memory_bytes", func(r *attest.ConfigRules) { r.Engine.MemoryBytes.Max-- }),
		rule("service.engine.shared_memory_bytes", func(r *attest.ConfigRules) { r.Engine.SharedMemoryBytes = attest.Range{Min: 1 << 30, Max: 1 << 30} }),
		rule("service.engine.open_files", func(r *attest.ConfigRules) { r.Engine.OpenFiles = attest.Range{Min: 1, Max: 4096} }),
		rule("service.engine.tasks", func(r *attest.ConfigRules) { r.Engine.Tasks = attest.Range{Min: 1, Max: 4096} }),
		rule("service.model.name", func(r *attest.ConfigRules) { r.Model.Name = "large" }),
		rule("service.model.volume", func(r *attest.ConfigRules) { r.Model.Volumes[0].Blocks++ }),
		rule("service.gpu", func(r *attest.ConfigRules) { r.GPU = nil }),
		rule("service.limits.request_bytes", func(r *attest.ConfigRules) { r.Limits.RequestBytes.Min++; r.Limits.RequestBytes.Max++ }),
		rule("service.limits.answer_tokens", func(r *attest.ConfigRules) { r.Limits.AnswerTokens.Max-- }),
		rule("service.limits.concurrent", func(r *attest.ConfigRules) { r.Limits.Concurrent.Max-- }),
		rule("service.limits.context_tokens", func(r *attest.ConfigRules) { r.Limits.ContextTokens.Max-- }),
		rule("service.price.payment", func(r *attest.ConfigRules) { r.Price.Payment = []config.Payment{config.PayNothing} }),
		rule("service.price.nanoton_per_token", func(r *attest.ConfigRules) { r.Price.NanotonPerToken.Max-- }),
		rule("service.price.prompt_weight", func(r *attest.ConfigRules) { r.Price.PromptWeight.Max-- }),
		rule("service.price.cached_weight", func(r *attest.ConfigRules) { r.Price.CachedWeight.Max-- }),
		rule("service.price.completion_weight", func(r *attest.ConfigRules) { r.Price.CompletionWeight.Max-- }),
		rule("service.price.reasoning_weight", func(r *attest.ConfigRules) { r.Price.ReasoningWeight.Max-- }),
		{"config.service.chain.params", "settled on chain, and the policy does not say so", func(s *scene) {
			s.settles()
			s.rules.Config.Chain.Params = nil
		}},
		chainRule("params", func(c *attest.ChainRules) { c.Params[0][0]++ }),
		chainRule("max_age_seconds", func(c *attest.ChainRules) { c.MaxAgeSeconds.Max-- }),
		chainRule("coefficient.min", func(c *attest.ChainRules) { c.Coefficient.Min++ }),
		chainRule("coefficient.max", func(c *attest.ChainRules) { c.Coefficient.Max-- }),
		chainRule("anchor.global_id", func(c *attest.ChainRules) { c.Anchor.GlobalID++ }),
		chainRule("anchor.seqno", func(c *attest.ChainRules) { c.Anchor.Seqno++ }),
		chainRule("anchor.root_hash", func(c *attest.ChainRules) { c.Anchor.RootHash[0]++ }),
		chainRule("anchor.file_hash", func(c *attest.ChainRules) { c.Anchor.FileHash[0]++ }),
		{"config.service.chain.params", "not settled on chain, and the policy wants it", func(s *scene) {
			s.rules.Config.Chain.Params = []register.Digest{{1}}
		}},
		rule("service.wipe", func(r *attest.ConfigRules) { r.Wipe = nil }),
		{"config.service.wipe", "wiped less than the policy asks for", func(s *scene) {
			s.rules.Config.Wipe = []config.Wipe{config.WipeRequest, config.WipeIdle(30 * time.Second)}
		}},
	}
}

func (s *scene) selects(selections ...vtpm.Selection) {
	s.guest.Quote = func(q *vtpm.Quote) { q.Selections = selections }
}

// heldBefore has the log say who held the secret before.
func (s *scene) heldBefore(images ...register.Digest) { s.released(eventlog.Sequence{Held: images}) }

// released has the log say what a sequence says of the secret.
func (s *scene) released(says eventlog.Sequence) {
	for i, r := range s.contents.Records {
		if r.Kind == eventlog.KindKeysReleased {
			s.contents.Records[i].Data = says.Data(r.Kind, 0)
		}
	}
}

// borrows has the guest serve with a borrowed secret.
func (s *scene) borrows(loan eventlog.Loan) {
	s.serves(func(m *config.Measured) {
		m.Identity.Sealing, m.Identity.Custody = config.SealCustodian, config.Custody{LeaseSeconds: 60, CollateralHours: 168}
	})
	s.released(eventlog.Sequence{Loan: loan})
}

// public has the guest take COCOON's public identity.
func (s *scene) public() {
	s.serves(func(m *config.Measured) {
		m.Identity.Cocoon, m.Identity.Sealing, m.Identity.Stranding = true, config.SealNothing, config.StrandingAccepted
	})
}

// settles has the guest settle its charges on chain.
func (s *scene) settles() {
	s.serves(func(m *config.Measured) {
		m.Service.Chain = config.Chain{Params: register.Digest{4}, MaxAgeSeconds: 60, Coefficient: config.Band{Min: 5000, Max: 20_000}, Anchor: config.Anchor{GlobalID: -217, Seqno: 3,
			RootHash: register.Digest{5}, FileHash: register.Digest{6}}}
	})
}

// chainRule has a guest that settles on chain answer a policy of another chain.
func chainRule(name string, change func(*attest.ChainRules)) vector {
	return vector{"config.service.chain." + name, "another", func(s *scene) {
		s.settles()
		change(&s.rules.Config.Chain)
	}}
}

// custodyRule has a guest that borrows answer a policy of other custody.
func custodyRule(name string, change func(*config.Custody)) vector {
	return vector{"config.identity.custody." + name, "another", func(s *scene) {
		s.borrows(eventlog.Loan{Number: 1, Lender: register.Digest{7}})
		change(&s.rules.Config.Custody)
	}}
}

func (s *scene) adds(kind eventlog.Kind) {
	s.contents.Records = append(s.contents.Records, eventlog.Record{Register: s.contents.Records[0].Register, Kind: kind})
}

// fills writes the statement's hashes as the guest would and then changes them.
func (s *scene) fills(change func(*evidence.Statement)) {
	st := s.source.Evidence(s.asked).Statement
	change(&st)
	s.contents.Statement, s.contents.Fill = st, false
}

// listKey returns the private key whose seed is 32 times b.
func listKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}
