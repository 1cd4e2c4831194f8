package attest_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/asn1"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// unavailable reports whether the vector leaves something that could not be checked.
func (v vector) unavailable() bool {
	return v.check == "release-list" || v.check == "tdx.collateral" || v.check == "sev-snp.crl"
}

// tdxVectors spoil what is particular to a TD. What is inside the quote and its collateral is spoilt in package tdx; here
// stands one vector for each rule that a policy gives it.
func tdxVectors() []vector {
	body := func(change func(*tdx.Body)) func(*scene) { return func(s *scene) { s.td.Body = change } }
	return []vector{
		{"signature-absent", "a signature", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Signature = []byte{1} } }},
		{"certificates-absent", "a certificate", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Certificates = [][]byte{{1}} } }},
		{"tdx.quote-format", "no quote", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Quote = nil } }},
		{"tdx", "collateral that is no JSON", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Collateral = []byte("{") } }},
		{"tdx.collateral", "no collateral", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Collateral = nil } }},
		{"tdx.pck-chain", "no root", func(s *scene) { s.roots = &attest.Roots{} }},
		{"tdx.pck-chain", "Intel's root", func(s *scene) { s.roots = &attest.Roots{TDX: tdx.IntelRoot()} }},
		{"tdx.td-debug", "a TD under debug", body(func(b *tdx.Body) { b.TDAttributes[0] |= 1 })},
		{"tdx.tcb-status", "a status that the policy does not name",
			func(s *scene) { s.td.Machine.TCBInfo.Levels[0].Status = tdx.SWHardeningNeeded }},
		{"tdx.tcb-status", "a module that is out of date now", body(func(b *tdx.Body) { b.TEETCBSVN2[0] = 4 })},
		{"tdx.tcb-info-age", "collateral older than the policy believes", func(s *scene) {
			s.rules.TDX.MaxCollateralAge = "1h"
			s.td.Machine.TCBInfo.IssueDate = now.Add(-time.Hour - time.Second)
		}},
		{"tdx.tcb-date", "a level older than the policy's date", func(s *scene) {
			s.rules.TDX.MinTCBDate = time.Date(2026, 8, 13, 0, 0, 0, 0, time.UTC)
		}},
		{"tdx.tcb-info-evaluation", "an evaluation below the floor", func(s *scene) {
			s.rules.TDX.MinTCBEvaluation, s.td.Machine.TCBInfo.Evaluation = 17, 16
		}},
		{"tdx.mr-seam", "a TDX module that the policy does not name", func(s *scene) { s.rules.TDX.MRSEAM = []register.Digest384{{1}} }},
		{"tdx.mr-service-td", "a service TD", body(func(b *tdx.Body) { b.MRSERVICETD[0] = 1 })},
		{"report-data", "another statement", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Statement.Epoch++ } }},
		{"mr-config-id", "another config", body(func(b *tdx.Body) { b.MRCONFIGID[0]++ })},
		{"mr-config-id", "none", body(func(b *tdx.Body) { b.MRCONFIGID = [48]byte{} })},
		{"mr-config-id", "another config under the waiver of none", func(s *scene) {
			s.rules.Waive = []string{"mr-config-id"}
			s.td.Body = func(b *tdx.Body) { b.MRCONFIGID[0]++ }
		}},
		{"mr-owner", "an owner", body(func(b *tdx.Body) { b.MROWNER[47] = 1 })},
		{"mr-owner-config", "an owner's config", body(func(b *tdx.Body) { b.MROWNERCONFIG[0] = 1 })},
		{"machine", "a machine that is not listed", func(s *scene) { s.rules.Platforms = attest.Platforms{TDX: []attest.PPID{{9}}} }},
		{"rtmr-3", "another log", body(func(b *tdx.Body) { b.RTMR[3][0]++ })},
		{"rtmr-3", "not extended", body(func(b *tdx.Body) { b.RTMR[3] = [48]byte{} })},
		{"rtmr-3", "another log under the waiver of none", func(s *scene) {
			s.rules.Waive = []string{"rtmr-3"}
			s.td.Body = func(b *tdx.Body) { b.RTMR[3][0]++ }
		}},
		{"binding", "a key that no config asks for", func(s *scene) { s.td.Unlike = true }},
		public("binding", "no key", func(s *scene) { s.td.Unlike = true }),
		public("binding", "another statement", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Statement.Epoch++ } }),
		public("binding", "a signature of another mode", func(s *scene) {
			s.edit = func(e *evidence.Evidence) {
				epoch := e.Statement
				epoch.NonceRoot = [32]byte{}
				e.Binding = evidence.Bind(s.td.Key, epoch)
			}
		}),
		public("binding", "a signature without the label", func(s *scene) {
			s.edit = func(e *evidence.Evidence) {
				data := evidence.ReportData(e.Statement)
				e.Binding.Signature = [64]byte(ed25519.Sign(s.td.Key, data[:]))
			}
		}),
		public("report-data", "the host's own key", func(s *scene) {
			s.edit = func(e *evidence.Evidence) { e.Binding = evidence.Bind(listKey(9), e.Statement) }
		}),
		public("report-data", "the statement's hash in the place of the key's", func(s *scene) {
			s.td.Body = func(b *tdx.Body) { b.ReportData = evidence.ReportData(s.contents.Statement) }
		}),
		public("mr-config-id", "the config's hash all the same", func(s *scene) {
			s.td.Body = func(b *tdx.Body) { b.MRCONFIGID = config.SHA384(s.td.Measured) }
		}),
		public("rtmr-3", "the log in the register", func(s *scene) {
			s.td.Body = func(b *tdx.Body) { b.RTMR[3] = eventlog.Replay384(s.td.Records, eventlog.RTMR3) }
		}),
		public("rtmr-3", "not extended, under the waiver of that", func(s *scene) {
			s.rules.Waive = []string{"rtmr-3"}
			s.td.Body = func(b *tdx.Body) { b.RTMR[3] = [48]byte{} }
		}),
		public("statement-config", "a config that the key did not sign", func(s *scene) { s.fills(func(st *evidence.Statement) { st.ConfigHash[0]++ }) }),
		public("statement-log-head", "a log that the key did not sign", func(s *scene) { s.fills(func(st *evidence.Statement) { st.LogHead[0]++ }) }),
		public("event-config", "a log of another config", func(s *scene) { record(s, eventlog.KindConfig).Data = make([]byte, 32) }),
		public("config.identity.cocoon", "and the policy does not say so", func(s *scene) { s.rules.Config.Cocoon = false }),
		{"rtmr-3", "of a guest with COCOON's public identity, whose config says nothing of it", body(func(b *tdx.Body) { b.RTMR[3] = cocoon.RTMR3(cocoon.NoTree()) })},
		{"boot-log", "a log of other registers", func(s *scene) { s.td.BootLog = emptyCCEL() }},
		{"boot-log", "no log at all", func(s *scene) { s.td.BootLog = []byte("log") }},
		{"mrtd", "another firmware", func(s *scene) { s.rules.Releases[0].TDX[0].MRTD[0]++ }},
		{"rtmr-0", "another machine", func(s *scene) { s.rules.Releases[0].TDX[0].RTMR0[0]++ }},
		{"rtmr-1", "another kernel", func(s *scene) { s.rules.Releases[0].TDX[0].RTMR1[0]++ }},
		{"rtmr-2", "another command line", func(s *scene) { s.rules.Releases[0].TDX[0].RTMR2[0]++ }},
		{"event-separator", "another separator", func(s *scene) { record(s, 5).Data = []byte{0, 0, 0, 1} }},
		{"event-keys-released", "with data", func(s *scene) { record(s, 6).Data = []byte{1} }},
	}
}

// public spoils a TD with COCOON's public identity.
func public(check, name string, spoil func(*scene)) vector {
	return vector{check, "public identity: " + name, func(s *scene) {
		s.public()
		spoil(s)
	}}
}

// emptyCCEL is a well-formed log without events.
func emptyCCEL() []byte {
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0)
	log := append([]byte{1, 0, 0, 0, 3, 0, 0, 0}, make([]byte, 20)...)
	return append(append(log, byte(len(spec)), 0, 0, 0), spec...)
}

// sevsnpVectors spoil what is particular to SEV-SNP, in the same way.
func sevsnpVectors() []vector {
	report := func(change func(*sevsnp.Report)) func(*scene) { return func(s *scene) { s.snp.Report = change } }
	return []vector{
		{"signature-absent", "a signature", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Signature = []byte{1} } }},
		{"binding", "a key between quote and statement", func(s *scene) {
			s.edit = func(e *evidence.Evidence) { e.Binding = evidence.Bind(listKey(9), e.Statement) }
		}},
		{"binding", "COCOON's public identity", (*scene).public},
		{"boot-log-absent", "a boot log", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.BootLog = []byte{1} } }},
		{"sev-snp.report-format", "no report", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Quote = nil } }},
		{"sev-snp.certificate-format", "no certificates", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Certificates = nil } }},
		{"sev-snp.root", "no root", func(s *scene) { s.roots = &attest.Roots{} }},
		{"sev-snp.root", "AMD's roots", func(s *scene) { s.roots = &attest.Roots{SEVSNP: sevsnp.AMDRoots()} }},
		{"sev-snp.crl", "no revocation list", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Collateral = nil } }},
		{"sev-snp.chip-list", "a chip that is not listed", func(s *scene) { s.rules.Platforms = attest.Platforms{SEVSNP: []attest.ChipID{{9}}} }},
		{"sev-snp.tcb-minimum", "another line of processors", func(s *scene) {
			s.rules.SEVSNP.MinTCB = map[sevsnp.Product]sevsnp.TCB{sevsnp.Milan: {SNP: 1}}
		}},
		{"sev-snp.firmware-minimum", "old firmware", func(s *scene) { s.rules.SEVSNP.MinFirmware.Major = 200 }},
		{"sev-snp.launch-mitigations", "without a mitigation", func(s *scene) { s.rules.SEVSNP.LaunchMitigations = 1 << 40 }},
		{"sev-snp.current-mitigations", "without a mitigation", func(s *scene) { s.rules.SEVSNP.CurrentMitigations = 1 << 40 }},
		{"sev-snp.debug", "a guest under debug", report(func(r *sevsnp.Report) { r.Policy |= sevsnp.PolicyDebug })},
		{"sev-snp.smt", "sibling threads", report(func(r *sevsnp.Report) { r.Policy |= sevsnp.PolicySMT })},
		{"sev-snp.vmpl", "a lower privilege level", report(func(r *sevsnp.Report) { r.VMPL = 1 })},
		{"sev-snp.measurement", "another launch", func(s *scene) { s.rules.Releases[0].SEVSNP[0][0]++ }},
		{"sev-snp.report-data", "another statement", func(s *scene) { s.edit = func(e *evidence.Evidence) { e.Statement.Epoch++ } }},
		{"sev-snp.host-data", "another config", report(func(r *sevsnp.Report) { r.HostData[0]++ })},
		{"host-data", "none", report(func(r *sevsnp.Report) { r.HostData = [32]byte{} })},
		{"sev-snp.host-data", "another config under the waiver of none", func(s *scene) {
			s.rules.Waive = append(s.rules.Waive, "host-data")
			s.snp.Report = func(r *sevsnp.Report) { r.HostData[0]++ }
		}},
		{"sev-snp.id-block", "an id block", report(func(r *sevsnp.Report) { r.ImageID[0] = 1 })},
		{"sev-snp.id-block", "an id block of another key than the policy's", func(s *scene) {
			s.rules.SEVSNP.IDBlocks = []attest.IDBlockRule{{IDKeyDigest: register.Digest384{1}}}
			s.snp.Report = func(r *sevsnp.Report) { r.IDKeyDigest[0] = 2 }
		}},
		{"sev-snp.guest-svn", "an id block of a lower security version", func(s *scene) { s.rules.SEVSNP.MinGuestSVN = 8 }},
		{"sev-snp.chip-masked", "a chip that is masked", report(func(r *sevsnp.Report) { r.ChipID = [64]byte{} })},
		{"sev-snp.crl-age", "a revocation list older than the policy believes", func(s *scene) { s.rules.SEVSNP.MaxCRLAge = "59m" }},
		{"acpi", "not waived", func(s *scene) { s.rules.Waive = []string{} }},
		{"event-separator", "another separator", func(s *scene) { record(s, 5).Data = []byte{0, 0, 0, 1} }},
		{"event-keys-released", "with data", func(s *scene) { record(s, 6).Data = []byte{1} }},
	}
}

// TestWaivers has each waiver of the confidential platforms accept what it names, and say so.
func TestWaivers(t *testing.T) {
	for _, tt := range []struct {
		waive string
		on    evidence.Platform
		spoil func(*scene)
		says  string
	}{
		{"mr-config-id", evidence.TDX, func(s *scene) { s.td.Body = func(b *tdx.Body) { b.MRCONFIGID = [48]byte{} } }, "mr-config-id is zeros"},
		{"rtmr-3", evidence.TDX, func(s *scene) { s.td.Body = func(b *tdx.Body) { b.RTMR[3] = [48]byte{} } }, "weaker than a register"},
		{"rtmr-0", evidence.TDX, func(s *scene) { s.rules.Releases[0].TDX[0].RTMR0 = register.Digest384{} }, "rtmr-0 was not judged"},
		{"sept-ve-disable", evidence.TDX, func(s *scene) { s.td.Body = func(b *tdx.Body) { b.TDAttributes[3] &^= 0x10 } },
			"td-sept-ve-disable was waived"},
		{"xfam-known", evidence.TDX, func(s *scene) { s.td.Body = func(b *tdx.Body) { b.XFAM[7] = 1 } }, "xfam-known was waived"},
		{"pck-extension-known", evidence.TDX, func(s *scene) {
			s.td.Machine.Extension = func(e []attesttest.SGXEntry) []attesttest.SGXEntry {
				return append(e, attesttest.SGXEntry{Name: asn1.ObjectIdentifier{1, 2, 3}, Value: asn1.RawValue{FullBytes: asn1.NullBytes}})
			}
		}, "pck-extension-known was waived"},
		{"acpi", evidence.SEVSNP, func(*scene) {}, "acpi: not measured"},
		{"host-data", evidence.SEVSNP, func(s *scene) { s.snp.Report = func(r *sevsnp.Report) { r.HostData = [32]byte{} } },
			"host-data is zeros"},
		{"smt", evidence.SEVSNP, func(s *scene) { s.snp.Report = func(r *sevsnp.Report) { r.Policy |= sevsnp.PolicySMT } }, "sev-snp.smt"},
		{"ciphertext-hiding", evidence.SEVSNP, func(s *scene) {
			s.snp.Report = func(r *sevsnp.Report) { r.Policy &^= sevsnp.PolicyCiphertextHidden }
		}, "sev-snp.ciphertext-hiding"},
		{"chip-masked", evidence.SEVSNP, func(s *scene) { s.snp.Report = func(r *sevsnp.Report) { r.ChipID = [64]byte{} } },
			"sev-snp.chip-masked was not judged"},
		{"provisional-firmware", evidence.SEVSNP, func(s *scene) { s.snp.Report = func(r *sevsnp.Report) { r.Current.Build++ } },
			"sev-snp.provisional-firmware"},
	} {
		t.Run(tt.on.String()+"/"+tt.waive, func(t *testing.T) {
			s := newSceneOn(t, tt.on)
			if tt.waive != "acpi" {
				s.rules.Waive = append(s.rules.Waive, tt.waive)
			}
			tt.spoil(s)
			r, err := s.play(t, attest.Verify)
			if err != nil {
				t.Fatal(err)
			}
			if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, tt.says) {
				t.Errorf("weaknesses: got %q, want %q among them", w, tt.says)
			}
		})
	}
}

// TestPublicIdentity: a TD with COCOON's public identity is accepted whole under a policy that says so, in each way of asking; two configs
// of one release have one image hash; and the Result says what is weaker.
func TestPublicIdentity(t *testing.T) {
	s := newSceneOn(t, evidence.TDX)
	s.public()
	r, err := s.play(t, attest.Verify)
	if err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, "config and runtime log are bound by a key") || !r.Config().Identity.Cocoon {
		t.Errorf("weaknesses: got %q, want what binds config and log", w)
	}
	b := s.td.Machine.Body
	want := cocoon.TD{MRTD: b.MRTD, RTMR: [4][48]byte{b.RTMR[0], b.RTMR[1], b.RTMR[2], cocoon.RTMR3(cocoon.NoTree())}}.ImageHash()
	if hash, ok := r.ImageHash(); !ok || hash != want {
		t.Errorf("image hash: got %s, want %s", hash, want)
	}
	s.serves(func(m *config.Measured) { m.Service.Price.NanotonPerToken++ })
	if other, err := s.play(t, attest.Verify); err != nil {
		t.Error(err)
	} else if hash, _ := other.ImageHash(); hash != want {
		t.Errorf("image hash under another price: got %s, want %s", hash, want)
	}
	if _, err := s.play(t, func(_ *evidence.Evidence, c attest.Challenge, p attest.Policy, now time.Time, roots attest.Roots) (*attest.Result, error) {
		_, err := attest.VerifyEpoch(s.td.Attest([32]byte{}, c.TLSKey), c.TLSKey, p, now, roots)
		return nil, err
	}); err != nil {
		t.Errorf("epoch evidence: %v", err)
	}
	s.contents.Ask()
	if _, err := s.play(t, func(e *evidence.Evidence, c attest.Challenge, p attest.Policy, now time.Time, roots attest.Roots) (*attest.Result, error) {
		_, err := attest.VerifyAsking(e, c, p, now, roots)
		return nil, err
	}); err != nil {
		t.Errorf("asking evidence: %v", err)
	}
}

// TestSoftwareRoot: who trusts another root than Intel's is told what that is worth, whatever the policy waives.
func TestSoftwareRoot(t *testing.T) {
	for platform, says := range map[evidence.Platform]string{evidence.TDX: "not Intel's but software's", evidence.SEVSNP: "not AMD's but software's"} {
		r, err := newSceneOn(t, platform).play(t, attest.Verify)
		if err != nil {
			t.Fatal(err)
		}
		if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, says+": it proves measurement and protocol, not confidentiality") {
			t.Errorf("%s: weaknesses: got %q, want that the root is software's", platform, w)
		}
	}
	for _, root := range sevsnp.AMDRoots() {
		if !sevsnp.IsAMDRoot(root) {
			t.Errorf("%s is none of AMD's", root.Subject)
		}
	}
	if sevsnp.IsAMDRoot(nil) || sevsnp.IsAMDRoot(tdx.IntelRoot()) {
		t.Error("what is no root of AMD's is one")
	}
}

// TestChoices: what a policy lists beyond the strictest is accepted, and the Result says so.
func TestChoices(t *testing.T) {
	for _, tt := range []struct {
		name   string
		on     evidence.Platform
		choose func(*scene)
		says   string
	}{
		{"a service TD", evidence.TDX, func(s *scene) {
			s.rules.TDX.ServiceTDs = []register.Digest384{{7}}
			s.td.Body = func(b *tdx.Body) { b.MRSERVICETD[0] = 7 }
		}, "the service TD 07"},
		{"a TDX module", evidence.TDX, func(s *scene) {
			s.rules.TDX.MRSEAM = []register.Digest384{{1}, s.td.Machine.Body.MRSEAM}
		}, ""},
		{"a date, an age and an evaluation", evidence.TDX, func(s *scene) {
			s.rules.TDX.MinTCBDate, s.rules.TDX.MaxCollateralAge = time.Date(2026, 8, 12, 0, 0, 0, 0, time.UTC), "1h"
			s.rules.TDX.MinTCBEvaluation = 17
		}, ""},
		{"an id block", evidence.SEVSNP, func(s *scene) {
			s.rules.SEVSNP.IDBlocks = []attest.IDBlockRule{{register.Digest384{2}, register.Digest384{3}}}
			s.rules.SEVSNP.MinGuestSVN = 7
			s.snp.Report = func(r *sevsnp.Report) {
				r.IDKeyDigest[0], r.AuthorKeyDigest[0], r.AuthorKeyEnabled, r.FamilyID[0] = 2, 3, true, 9
			}
		}, "id blocks of the key 02"},
		{"a masked chip that is listed, which its certificate names", evidence.SEVSNP, func(s *scene) {
			s.rules.Platforms = attest.Platforms{SEVSNP: []attest.ChipID{s.snp.Processor.Report.ChipID}}
			s.rules.Waive = append(s.rules.Waive, "chip-masked")
			s.snp.Report = func(r *sevsnp.Report) { r.ChipID = [64]byte{} }
		}, "sev-snp.chip-masked was not judged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSceneOn(t, tt.on)
			plain, err := newSceneOn(t, tt.on).play(t, attest.Verify)
			if err != nil {
				t.Fatal(err)
			}
			tt.choose(s)
			r, err := s.play(t, attest.Verify)
			if err != nil {
				t.Fatal(err)
			}
			w := strings.Join(r.Weaknesses(), "; ")
			if !strings.Contains(w, tt.says) || tt.says != "" && strings.Contains(strings.Join(plain.Weaknesses(), "; "), tt.says) {
				t.Errorf("weaknesses: got %q, want %q among them, and not without the choice", w, tt.says)
			}
			if len(r.Machine()) == 0 || slices.Max(r.Machine()) == 0 {
				t.Errorf("machine: got %x, want it to be named", r.Machine())
			}
		})
	}
}

// TestConfidentialPolicy refuses rules of the platforms that would leave something unjudged.
func TestConfidentialPolicy(t *testing.T) {
	for _, tt := range []struct {
		on    evidence.Platform
		spoil func(*attest.Rules)
		want  string
	}{
		{evidence.TDX, func(r *attest.Rules) { r.TDX.MaxCollateralAge = "" }, `max_collateral_age is ""`},
		{evidence.TDX, func(r *attest.Rules) { r.TDX.MaxCollateralAge = "-1h" }, `max_collateral_age is "-1h"`},
		{evidence.TDX, func(r *attest.Rules) { r.TDX.MaxCollateralAge = "a week" }, `max_collateral_age is "a week"`},
		{evidence.TDX, func(r *attest.Rules) { r.TDX.AcceptStatus = nil }, "accept_status is empty"},
		{evidence.SEVSNP, func(r *attest.Rules) { r.SEVSNP.MaxCRLAge = "" }, `max_crl_age is ""`},
		{evidence.SEVSNP, func(r *attest.Rules) { r.SEVSNP.IDBlocks = []attest.IDBlockRule{{}} }, "id_key_digest of zeros"},
		{evidence.SEVSNP, func(r *attest.Rules) { r.SEVSNP.MinTCB = nil }, "min_tcb is empty"},
	} {
		rules := newSceneOn(t, tt.on).rules
		tt.spoil(&rules)
		if _, err := rules.Policy(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.on, err, tt.want)
		}
	}
}

// TestConfidentialResult shows what a Result says of the hardware.
func TestConfidentialResult(t *testing.T) {
	for _, tt := range []struct {
		on        evidence.Platform
		machine   int
		tcb, says string
	}{
		{evidence.TDX, 16, "UpToDate", "any machine"},
		{evidence.SEVSNP, 64, "snp 22", "weaker than a register"},
	} {
		s := newSceneOn(t, tt.on)
		r, err := s.play(t, attest.Verify)
		if err != nil {
			t.Fatal(err)
		}
		if r.Platform() != tt.on || len(r.Machine()) != tt.machine || !strings.Contains(r.TCB(), tt.tcb) || r.Release() != "software" {
			t.Errorf("%s: got platform %s, machine %x, TCB %q, release %q", tt.on, r.Platform(), r.Machine(), r.TCB(), r.Release())
		}
		if w := strings.Join(r.Weaknesses(), "; "); !strings.Contains(w, tt.says) || strings.Contains(w, "host runs the TPM") {
			t.Errorf("%s: weaknesses: got %q, want %q among them", tt.on, w, tt.says)
		}
	}
}

// TestImageHash: the hash for COCOON's root contract is made of the very bytes of quote and report, in one piece, with the report's data zeroed.
func TestImageHash(t *testing.T) {
	for platform, at := range map[evidence.Platform][2]int{
		evidence.TDX:    {48 + 6 + 136, 8 * 48}, // header of a quote of version 5, type and size of the body, fields before MRTD
		evidence.SEVSNP: {0x90, 48},
	} {
		s := newSceneOn(t, platform)
		var quote []byte
		s.edit = func(e *evidence.Evidence) { quote = e.Quote }
		r, err := s.play(t, attest.Verify)
		if err != nil {
			t.Fatal(err)
		}
		want := register.Digest(sha256.Sum256(append(slices.Clone(quote[at[0]:at[0]+at[1]]), make([]byte, 64)...)))
		if got, ok := r.ImageHash(); !ok || got != want || attest.ReportOf(r, nil).ImageHash != want {
			t.Errorf("%s: got %s, %t, want %s", platform, got, ok, want)
		}
	}
	s := newScene(t)
	r, err := s.play(t, attest.Verify)
	if err != nil {
		t.Fatal(err)
	}
	if hash, ok := r.ImageHash(); ok {
		t.Errorf("a vtpm has the image hash %s", hash)
	}
}

// TestNamedMachines accepts machines that the policy names.
func TestNamedMachines(t *testing.T) {
	td := newSceneOn(t, evidence.TDX)
	td.rules.Platforms = attest.Platforms{TDX: []attest.PPID{td.td.Machine.Platform.PPID}}
	snp := newSceneOn(t, evidence.SEVSNP)
	snp.rules.Platforms = attest.Platforms{SEVSNP: []attest.ChipID{snp.snp.Processor.Report.ChipID}}
	for _, s := range []*scene{td, snp} {
		r, err := s.play(t, attest.Verify)
		if err != nil {
			t.Fatal(err)
		}
		if w := strings.Join(r.Weaknesses(), "; "); strings.Contains(w, "any machine") {
			t.Errorf("weaknesses: got %q", w)
		}
	}
}

// TestMixedPolicy has one policy judge guests of all platforms, each against its own reference values.
func TestMixedPolicy(t *testing.T) {
	scenes := []*scene{newSceneOn(t, evidence.VTPM), newSceneOn(t, evidence.TDX), newSceneOn(t, evidence.SEVSNP)}
	rules := scenes[1].rules
	rules.Releases[0].VTPM, rules.Releases[0].SEVSNP = scenes[0].rules.Releases[0].VTPM, scenes[2].rules.Releases[0].SEVSNP
	rules.SEVSNP = scenes[2].rules.SEVSNP
	rules.Waive = []string{"confidentiality", "pcr-1", "acpi"}
	for _, s := range scenes {
		s.rules = rules
		if _, err := s.play(t, attest.Verify); err != nil {
			t.Error(err)
		}
	}
}

// TestEpochEvidence judges evidence that answers nobody: what changes on the way, or is bound to a client, is refused.
func TestEpochEvidence(t *testing.T) {
	for _, platform := range platforms {
		s := newSceneOn(t, platform)
		policy, err := s.rules.Policy()
		if err != nil {
			t.Fatal(err)
		}
		key := [32]byte{3}
		e := s.source.Attest([32]byte{}, key)
		lines, err := attest.VerifyEpoch(e, key, policy, now, s.source.Roots())
		if err != nil || len(lines) < 40 {
			t.Fatalf("%s: got %d checks, %v", platform, len(lines), err)
		}
		other := *e
		other.Statement.ClaimKey[0]++
		bound := s.source.Evidence(attest.Challenge{Nonce: [32]byte{1}, Exporter: [32]byte{2}, TLSKey: key})
		for _, tt := range []struct {
			name, want string
			evidence   *evidence.Evidence
			key        [32]byte
			at         time.Time
		}{
			{"another key", "tls-key", e, [32]byte{4}, now},
			{"an hour and a second later", "not-after", e, key, now.Add(time.Hour + time.Second)},
			{"another statement", "report-data", &other, key, now},
			{"an answer to a challenge", "epoch", bound, key, now},
		} {
			if _, err := attest.VerifyEpoch(tt.evidence, tt.key, policy, tt.at, s.source.Roots()); err == nil ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %s: got %v, want %s to refuse", platform, tt.name, err, tt.want)
			}
		}
		if _, err := attest.VerifyEpoch(e, key, attest.Policy{}, now, s.source.Roots()); err == nil {
			t.Errorf("%s: the zero policy: got no error", platform)
		}
		// Epoch evidence is no answer to a client, who would have to send zeros as nonce and exporter.
		if _, err := attest.Verify(e, attest.Challenge{TLSKey: key}, policy, now, s.source.Roots()); err == nil {
			t.Errorf("%s: epoch evidence as an answer: got no error", platform)
		}
	}
}
