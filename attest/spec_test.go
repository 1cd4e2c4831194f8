package attest_test

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"chrysalis/attest"
)

// TestSpecification has APPRAISAL.md name every check.
func TestSpecification(t *testing.T) {
	b, err := os.ReadFile("APPRAISAL.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := string(b)
	var all []string
	for _, platform := range platforms {
		names, _ := attest.CheckNames(platform)
		all = append(all, names...)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "config.") || strings.HasPrefix(name, "event-") || strings.HasPrefix(name, "statement-") ||
			strings.HasPrefix(name, "pcr-") {
			continue // named together
		}
		if !strings.Contains(spec, name) {
			t.Errorf("APPRAISAL.md does not name the check %s", name)
		}
	}
}

// TestPolicySpecification has POLICY.md name every member of a policy outside config, which CONFIG.md describes, and every
// waiver.
func TestPolicySpecification(t *testing.T) {
	b, err := os.ReadFile("POLICY.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := string(b)
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[attest.ConfigRules]() || typ == reflect.TypeFor[time.Time]() {
			return
		}
		for f := range typ.Fields() {
			name, optional, _ := strings.Cut(f.Tag.Get("json"), ",")
			if marked := strings.Contains(spec, "`"+name+"` (o)"); marked != (optional != "") {
				t.Errorf("POLICY.md marks %s as one that may be left out: got %t, want %t", name, marked, optional != "")
			}
			if name == "major" { // of a firmware's version
				return
			}
			if !strings.Contains(spec, "`"+name+"`") {
				t.Errorf("POLICY.md does not name %s", name)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[attest.Rules]())
	for _, name := range attest.Waivable() {
		if !strings.Contains(spec, "`"+name+"`") && name != "pcr-1" && name != "pcr-2" && name != "pcr-3" && name != "pcr-4" && name != "pcr-8" {
			t.Errorf("POLICY.md does not name the waiver %s", name)
		}
	}
}
