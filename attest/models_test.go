package attest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// inSeveral has the scene's guest serve its model and others, and the rules accept them.
func (s *scene) inSeveral(more ...string) {
	s.serves(func(m *config.Measured) {
		sv := &m.Service
		one := config.Served{Engine: sv.Engine, Model: sv.Model, Limits: sv.Limits}
		sv.Models = []config.Served{one}
		for i, name := range more {
			other := one
			other.Model = config.Model{Name: name, Volume: config.Volume{Root: register.Digest{8, byte(i)}, Blocks: 5}}
			sv.Models = append(sv.Models, other)
		}
		sv.Engine, sv.Model, sv.Limits = config.Engine{}, config.Model{}, config.Limits{}
	})
}

// nth returns the n'th record of a kind, counted from 0.
func nth(s *scene, kind eventlog.Kind, n int) *eventlog.Record {
	for i := range s.contents.Records {
		if s.contents.Records[i].Kind == kind {
			if n--; n < 0 {
				return &s.contents.Records[i]
			}
		}
	}
	panic("no such record")
}

// TestModels: of several models each is judged by its name, the log has a pair for each in the config's order, and a verdict says which differs.
func TestModels(t *testing.T) {
	models := func(s *scene) []attest.ServedRules { return s.rules.Config.Models }
	for _, tt := range []struct {
		name  string
		spoil func(*scene)
		check string   // "" is accepted
		says  []string // in what it got and wanted
	}{
		{"as it is", func(*scene) {}, "", nil},
		{"rules in another order", func(s *scene) { slices.Reverse(models(s)) }, "", nil},
		{"one that need not be there, and is", func(s *scene) { models(s)[1].Optional = true }, "", nil},
		{"one that need not be there, and is not", func(s *scene) {
			more := models(s)[1]
			more.Model.Name, more.Optional = "third", true
			s.rules.Config.Models = append(models(s), more)
		}, "", nil},
		{"one more than the policy names", func(s *scene) { s.rules.Config.Models = models(s)[:1] }, "config.service.engine.volume", []string{"other: served", "other: no such model"}},
		{"one that must be there, and is not", func(s *scene) {
			more := models(s)[1]
			more.Model.Name = "third"
			s.rules.Config.Models = append(models(s), more)
		}, "config.service.model.name", []string{"tiny, other", "tiny, other, third"}},
		{"a policy of one model", func(s *scene) {
			one := models(s)[0]
			s.rules.Config.Models, s.rules.Config.Engine, s.rules.Config.Model, s.rules.Config.Limits = nil, one.Engine, one.Model, one.Limits
		}, "config.service.engine.volume", []string{"other: no such model"}},
		{"another engine of the second", func(s *scene) { models(s)[1].Engine.Volumes[0].Root[0]++ }, "config.service.engine.volume", []string{"tiny: ", "other: "}},
		{"another dialect of the second", func(s *scene) { models(s)[1].Engine.Dialect = "vllm" }, "config.service.engine.dialect", []string{"other: vllm"}},
		{"another line of the second", func(s *scene) { models(s)[1].Engine.Argv = []string{"/bin/sh"} }, "config.service.engine.argv", []string{`other: ["/bin/sh"]`}},
		{"another environment of the second", func(s *scene) { models(s)[1].Engine.Env = []string{"A=b"} }, "config.service.engine.env", []string{`other: ["A=b"]`}},
		{"less shared memory of the second", func(s *scene) {
			models(s)[1].Engine.SharedMemoryBytes.Max, models(s)[1].Engine.SharedMemoryBytes.Min = 1, 1
		},
			"config.service.engine.shared_memory_bytes", []string{"other: "}},
		{"less memory of the second", func(s *scene) { models(s)[1].Engine.MemoryBytes.Max-- }, "config.service.engine.memory_bytes", []string{"other: "}},
		{"another volume of the second", func(s *scene) { models(s)[1].Model.Volumes[0].Root[0]++ }, "config.service.model.volume", []string{"other: 08"}},
		{"smaller requests of the second", func(s *scene) { models(s)[1].Limits.RequestBytes.Min++; models(s)[1].Limits.RequestBytes.Max++ }, "config.service.limits.request_bytes", nil},
		{"shorter answers of the second", func(s *scene) { models(s)[1].Limits.AnswerTokens.Max-- }, "config.service.limits.answer_tokens", nil},
		{"fewer places of the second", func(s *scene) { models(s)[1].Limits.Concurrent.Max-- }, "config.service.limits.concurrent", nil},
		{"a shorter context of the second", func(s *scene) { models(s)[1].Limits.ContextTokens.Max-- }, "config.service.limits.context_tokens", nil},
		{"the names changed about", func(s *scene) {
			models(s)[0].Model.Name, models(s)[1].Model.Name = models(s)[1].Model.Name, models(s)[0].Model.Name
		}, "config.service.model.volume", nil},

		{"a log with the models changed about", func(s *scene) {
			a, b := nth(s, eventlog.KindModel, 0), nth(s, eventlog.KindModel, 1)
			a.Data, b.Data = b.Data, a.Data
		}, "event-model", []string{"tiny: 08", "other: 08"}},
		{"a log with another second model", func(s *scene) { nth(s, eventlog.KindModel, 1).Data = make([]byte, 40) }, "event-model",
			[]string{"other: " + strings.Repeat("0", 80), "other: 08"}},
		{"a log with another second engine", func(s *scene) { nth(s, eventlog.KindEngine, 1).Data = make([]byte, 40) }, "event-engine", []string{"other: " + strings.Repeat("0", 80)}},
		{"a log of the first pair alone", func(s *scene) {
			at := slices.IndexFunc(s.contents.Records, func(r eventlog.Record) bool { return r.Kind == eventlog.KindModel })
			s.contents.Records = slices.Delete(s.contents.Records, at+1, at+3)
		}, "runtime-log-order", nil},
		{"a log of one pair more", func(s *scene) {
			at := slices.IndexFunc(s.contents.Records, func(r eventlog.Record) bool { return r.Kind == eventlog.KindModel })
			s.contents.Records = slices.Insert(s.contents.Records, at+1, *nth(s, eventlog.KindEngine, 1), *nth(s, eventlog.KindModel, 1))
		}, "runtime-log-order", nil},
		{"a log of engines, then models", func(s *scene) {
			at := slices.IndexFunc(s.contents.Records, func(r eventlog.Record) bool { return r.Kind == eventlog.KindModel })
			s.contents.Records[at], s.contents.Records[at+1] = s.contents.Records[at+1], s.contents.Records[at]
		}, "runtime-log-order", nil},
		{"a second engine at the end", func(s *scene) { s.adds(eventlog.KindEngine) }, "runtime-log-end", nil},
	} {
		for _, platform := range platforms {
			t.Run(fmt.Sprintf("%s/%s", tt.name, platform), func(t *testing.T) {
				s := newSceneOn(t, platform)
				s.inSeveral("other")
				tt.spoil(s)
				r, err := s.play(t, attest.Verify)
				var refused *attest.Refused
				switch {
				case tt.check == "":
					if err != nil {
						t.Fatal(err)
					}
					if got, want := r.Config().Service.Names(), []string{"tiny", "other"}; !slices.Equal(got, want) {
						t.Errorf("models of the result: got %q, want %q", got, want)
					}
					r.Config().Service.Models[1].Engine.Argv[0] = "x"
					if got := r.Config().Service.Models[1].Engine.Argv[0]; got == "x" {
						t.Error("whoever changes a result's config changes the result")
					}
				case !errors.As(err, &refused) || refused.Failed.Name != tt.check:
					t.Errorf("got %v, want %s to refuse", err, tt.check)
				default:
					for _, says := range tt.says {
						if !strings.Contains(refused.Failed.Got+"\n"+refused.Failed.Want, says) {
							t.Errorf("got %q, want %q: neither says %q", refused.Failed.Got, refused.Failed.Want, says)
						}
					}
				}
			})
		}
	}
}

// TestOneOfSeveral: a guest of one model answers a policy that lists what it may be.
func TestOneOfSeveral(t *testing.T) {
	s := newSceneOn(t, evidence.VTPM)
	r := &s.rules.Config
	one := attest.ServedRules{Engine: r.Engine, Model: r.Model, Limits: r.Limits}
	other := one
	other.Model.Name = "other"
	r.Engine, r.Model, r.Limits, r.Models = attest.EngineRules{}, attest.ModelRules{}, attest.LimitRules{}, []attest.ServedRules{one, other}
	var refused *attest.Refused
	if _, err := s.play(t, attest.Verify); !errors.As(err, &refused) || refused.Failed.Name != "config.service.model.name" {
		t.Errorf("a model that must be there and is not: got %v, want config.service.model.name to refuse", err)
	}
	r.Models[1].Optional = true
	if _, err := s.play(t, attest.Verify); err != nil {
		t.Errorf("the other model is optional: got %v", err)
	}
	r.Models = r.Models[:1]
	if _, err := s.play(t, attest.Verify); err != nil {
		t.Errorf("a list of one: got %v", err)
	}
	r.Models[0].Model.Name = "other"
	if _, err := s.play(t, attest.Verify); !errors.As(err, &refused) || refused.Failed.Name != "config.service.model.name" {
		t.Errorf("a list of another: got %v, want config.service.model.name to refuse", err)
	}
}

// TestRulesOfModels: a policy of several models names each once, and nothing beside them that would judge one.
func TestRulesOfModels(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*attest.ConfigRules)
		want   string
	}{
		{"as it is", func(*attest.ConfigRules) {}, ""},
		{"an empty list", func(r *attest.ConfigRules) { r.Models = []attest.ServedRules{} }, "models is empty"},
		{"the same name twice", func(r *attest.ConfigRules) { r.Models[1].Model.Name = "tiny" }, `models[1] has the name "tiny"`},
		{"no name", func(r *attest.ConfigRules) { r.Models[0].Model.Name = "" }, `models[0] has the name ""`},
		{"an engine beside them", func(r *attest.ConfigRules) { r.Engine = r.Models[0].Engine }, "want those empty"},
		{"a model beside them", func(r *attest.ConfigRules) { r.Model = r.Models[0].Model }, "want those empty"},
		{"limits beside them", func(r *attest.ConfigRules) { r.Limits = r.Models[0].Limits }, "want those empty"},
		{"a custodian", func(r *attest.ConfigRules) { r.Custodian = true }, "want those empty"},
	} {
		s := newSceneOn(t, evidence.VTPM)
		s.inSeveral("other")
		tt.change(&s.rules.Config)
		_, err := s.rules.Policy()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
