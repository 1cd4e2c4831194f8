package fault

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestJSON(t *testing.T) {
	type inner struct {
		Count uint8 `json:"count"`
	}
	for _, tt := range []struct{ document, want string }{
		{`{"name":7}`, `member "/name" can't be a number`},
		{`{"list":[{"count":1},{"count":"x"}]}`, `member "/list/1/count" can't be a string`},
		{`{"list":[{"count":300}]}`, `member "/list/0/count": value out of range`},
		{`[]`, `the document can't be an array`},
		{`{"other":1}`, `unknown object member "/other"`},
		{`{"name":"a","name":"b"}`, `duplicate object member "/name"`},
		{`{"name":`, `no JSON`},
		{``, `no JSON`},
		{`{} x`, `no JSON at byte 3`},
	} {
		var into struct {
			Name string  `json:"name"`
			List []inner `json:"list"`
		}
		err := json.Unmarshal([]byte(tt.document), &into, json.RejectUnknownMembers(true))
		if err == nil {
			t.Fatalf("%s: decoded", tt.document)
		}
		got := JSON(err).Error()
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want it to say %q", tt.document, got, tt.want)
		}
		for _, typ := range []string{"uint8", "inner", "struct", "Go "} {
			if strings.Contains(got, typ) {
				t.Errorf("%s: %q names a type of the program", tt.document, got)
			}
		}
	}
	if other := errors.New("other"); JSON(other) != other || JSON(nil) != nil {
		t.Errorf("an error of somebody else: got %v, and of none %v", JSON(other), JSON(nil))
	}
}
