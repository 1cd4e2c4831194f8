package tdx_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"chrysalis/attest/tdx"
)

// TestComponents: what is read token by token is what encoding/json reads, and what is none is refused.
func TestComponents(t *testing.T) {
	good := make([]string, 16)
	for i := range good {
		good[i] = fmt.Sprintf(`{"svn":%d}`, i*17)
	}
	with := func(i int, one string) string {
		all := append([]string{}, good...)
		all[i] = one
		return "[" + strings.Join(all, ",") + "]"
	}
	for _, tt := range []struct{ name, document, want string }{
		{"plain", with(0, good[0]), ""},
		{"with its names", with(3, `{"svn":255,"category":"BIOS","type":"Early Microcode Update"}`), ""},
		{"one name", with(3, `{"type":"TDX \u004dodule","svn":1}`), ""},
		{"a name in escapes", with(3, `{"s\u0076n":9}`), ""},
		{"unknown members", with(3, ` { "svn" : 9 , "other" : {"svn":[8]}, "a name that is longer than the others are": null } `), ""},
		{"names of null", with(3, `{"svn":9,"category":null}`), ""},
		{"no array", `{}`, "can't be an object"},
		{"null", `null`, "0 components, want 16"},
		{"none", `[]`, "0 components, want 16"},
		{"fifteen", "[" + strings.Join(good[:15], ",") + "]", "15 components, want 16"},
		{"seventeen", "[" + strings.Join(append(good, good...)[:17], ",") + "]", "17 components, want 16"},
		{"no object", with(3, `7`), "can't be a number"},
		{"an object of null", with(3, `null`), "component 3 has no svn"},
		{"no svn", with(15, `{"category":"x"}`), "component 15 has no svn"},
		{"two without svn", with(4, `{}`), "component 4 has no svn"},
		{"an svn of null", with(0, `{"svn":null}`), "component 0 has no svn"},
		{"a name in other case", with(0, `{"SVN":7}`), "component 0 has no svn"},
		{"an svn of 256", with(0, `{"svn":256}`), "svn is 256, want a whole number of at most 255"},
		{"an svn of -1", with(0, `{"svn":-1}`), "svn is -1, want"},
		{"an svn of a fraction", with(0, `{"svn":1.0}`), "svn is 1.0, want"},
		{"an svn of text", with(0, `{"svn":"1"}`), "can't be a string"},
		{"a name of a number", with(0, `{"svn":1,"type":7}`), "can't be a number"},
		{"an svn twice", with(0, `{"svn":1,"svn":2}`), "duplicate object member"},
		{"an svn twice, once in escapes", with(0, `{"svn":1,"s\u0076n":2}`), "duplicate object member"},
		{"an end missing", strings.TrimSuffix(with(0, good[0]), "]"), "no JSON"},
		{"an object's end missing", `[{"svn":1`, "no JSON"},
		{"no colon", `[{"svn" 1}]`, "no JSON"},
		{"a byte after it", with(0, good[0]) + "x", "no JSON"},
	} {
		svn, names, err := tdx.ParseComponents([]byte(tt.document))
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
			}
			continue
		}
		var want []struct {
			SVN            byte
			Category, Type string
		}
		if wrong := json.Unmarshal([]byte(tt.document), &want); wrong != nil || err != nil || len(want) != 16 {
			t.Errorf("%s: got %v, and encoding/json says %v", tt.name, err, wrong)
			continue
		}
		for i, w := range want {
			if svn[i] != w.SVN || names[i] != strings.TrimSpace(w.Category+" "+w.Type) {
				t.Errorf("%s: component %d is %d, %q, want %+v", tt.name, i, svn[i], names[i], w)
			}
		}
	}
}
