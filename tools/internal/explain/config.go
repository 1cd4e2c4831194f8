package explain

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// configCauses names the fields in which the guest's config differs from the expected one. The register's events can't: they
// hold digests of the whole.
func (x *explanation) configCauses(at pair, register string) []Cause {
	if x.Config == nil || x.doubted("config-not-measured") {
		return nil
	}
	want, errWant := config.Decode(x.Config)
	got, errGot := config.Decode(x.Evidence.Config)
	if errWant != nil || errGot != nil {
		return nil
	}
	const do = "if the guest's config is what you want, make a policy of it (chrysalis policy --config); else the provider must start " +
		"the guest with yours"
	var causes []Cause
	for _, d := range differences(want, got) {
		c := x.cause(configKind(d.field), register, at, fmt.Sprintf("the guest's config has %s %s, expected %s", d.field, d.got, d.want), do)
		c.Expected, c.Actual = d.want, d.got
		causes = append(causes, c)
	}
	return causes
}

// configKind is the kind of cause that a field is.
func configKind(field string) string {
	switch {
	case strings.HasPrefix(field, "service.engine.volume"), strings.HasPrefix(field, "service.models[") && strings.HasSuffix(field, ".engine.volume"):
		return "engine"
	case strings.HasPrefix(field, "service.model."), strings.HasPrefix(field, "service.models[") && strings.HasSuffix(field, ".model.volume"):
		return "model"
	}
	return "config"
}

func (x *explanation) doubted(kind string) bool {
	return slices.ContainsFunc(x.guest.doubts, func(c Cause) bool { return c.Kind == kind })
}

// difference is a field of the config that is another.
type difference struct{ field, want, got string }

// differences compares two configs field by field, in the order of the document. A volume is one field.
func differences(want, got config.Measured) []difference {
	all := compareFields("identity", reflect.ValueOf(want.Identity), reflect.ValueOf(got.Identity))
	w, g := want.Service, got.Service
	if len(w.Models)+len(g.Models) > 0 {
		all = append(all, compareModels(w, g)...)
		for _, s := range []*config.Service{&w, &g} {
			s.Engine, s.Model, s.Limits, s.Models = config.Engine{}, config.Model{}, config.Limits{}, nil
		}
	}
	return append(all, compareFields("service", reflect.ValueOf(w), reflect.ValueOf(g))...)
}

// compareModels compares what two services serve, where one at least has several models: which there are, in which order, and each that both have under
// its name.
func compareModels(want, got config.Service) (all []difference) {
	if w, g := want.Names(), got.Names(); !slices.Equal(w, g) {
		all = append(all, difference{"service.models", strings.Join(w, ", "), strings.Join(g, ", ")})
	}
	for _, w := range want.Served() {
		if g, _, ok := got.Named(w.Model.Name); ok {
			all = append(all, compareFields(fmt.Sprintf("service.models[%s]", w.Model.Name), reflect.ValueOf(w), reflect.ValueOf(g))...)
		}
	}
	return all
}

func compareFields(at string, want, got reflect.Value) (all []difference) {
	if v, volume := want.Interface().(config.Volume); volume {
		if g := got.Interface().(config.Volume); g != v {
			all = append(all, difference{at, v.String(), g.String()})
		}
		return all
	}
	if _, text := want.Interface().(encoding.TextMarshaler); text || want.Kind() != reflect.Struct {
		if !reflect.DeepEqual(want.Interface(), got.Interface()) {
			all = append(all, difference{at, written(want), written(got)})
		}
		return all
	}
	for i := range want.NumField() {
		field, name := want.Type().Field(i), at
		if !field.Anonymous { // what is embedded stands among the fields of its document
			word, _, _ := strings.Cut(field.Tag.Get("json"), ",") // without what says when it is left out
			name += "." + word
		}
		all = append(all, compareFields(name, want.Field(i), got.Field(i))...)
	}
	return all
}

func written(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		return fmt.Sprintf("%q", v.Interface())
	}
	return fmt.Sprint(v.Interface())
}

// policyCauses names what the policy refuses in a guest that is otherwise what was expected.
func (x *explanation) policyCauses() (causes []Cause) {
	if x.Policy == nil {
		return nil
	}
	add := func(kind, register, want, got, says, do string) {
		causes = append(causes, Cause{Kind: kind, Register: register, Meaning: "policy", Expected: want, Actual: got, Says: says, Do: do,
			place: placePolicy})
	}
	if m, err := config.Decode(x.Evidence.Config); err == nil && (x.Config == nil || bytes.Equal(x.Config, x.Evidence.Config)) &&
		!x.doubted("config-not-measured") {
		for _, line := range x.Policy.Config.Judge(m) {
			if line.Verdict == attest.Denied {
				field := strings.TrimPrefix(line.Name, "config.")
				add(configKind(field), "", line.Want, line.Got,
					fmt.Sprintf("the guest's config has %s %s, the policy wants %s", field, line.Got, line.Want),
					"if the guest's config is what you want, edit the policy; else the provider must start the guest with yours")
			}
		}
	}
	if len(x.Policy.Releases) == 0 {
		x.note("the policy takes its releases from a signed list, which was not looked at")
		return causes
	}
	entry := x.nearest()
	if entry == nil {
		add("policy", "", "a release on "+x.report.Platform, "none", "the policy accepts no release on "+x.report.Platform,
			"make a policy of the manifest: chrysalis policy --manifest FILE --shape FILE")
	}
	for _, name := range x.guest.names {
		pinned, is := entry[name]
		r := x.register(name)
		if !is || pinned == r.Actual || r.State == Different {
			continue // where the release differs, too, that is the cause
		}
		says := fmt.Sprintf("the guest's %s is the release's, and the policy pins another value", name)
		if r.State == NotCompared {
			says = fmt.Sprintf("the policy pins another value of %s than the guest's; the shape that it was computed for (--shape) would tell why", name)
		}
		add("policy", name, pinned, r.Actual, says, "recompute the policy: chrysalis policy --manifest FILE --shape FILE")
	}
	return causes
}

// nearest returns the pinned registers of the policy's entry that fits the guest best.
func (x *explanation) nearest() (best map[string]string) {
	most := -1
	for _, entry := range x.entries() {
		fit := 0
		for name, value := range entry.values {
			if x.guest.values[name] == value {
				fit++
			}
		}
		if fit > most {
			best, most = entry.values, fit
		}
	}
	return best
}

// pinned is an entry of a policy.
type pinned struct {
	release string
	values  map[string]string
}

func (x *explanation) entries() (all []pinned) {
	if x.Policy == nil {
		return nil
	}
	for _, r := range x.Policy.Releases {
		if x.Evidence.Platform == evidence.VTPM {
			for _, pcrs := range r.VTPM {
				p := pinned{r.Name, map[string]string{}}
				for index, value := range pcrs {
					p.values[register.PCR(index)] = value.String()
				}
				all = append(all, p)
			}
			continue
		}
		for _, v := range r.TDX {
			p := pinned{r.Name, map[string]string{}}
			for name, value := range map[string][48]byte{register.MRTD: v.MRTD, register.RTMR(0): v.RTMR0, register.RTMR(1): v.RTMR1,
				register.RTMR(2): v.RTMR2} {
				if value != [48]byte{} {
					p.values[name] = fmt.Sprintf("%x", value)
				}
			}
			all = append(all, p)
		}
	}
	return all
}
