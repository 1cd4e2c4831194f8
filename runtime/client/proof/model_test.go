package proof

import "testing"

// TestAskedModel: the name is that which the guest reads, and nothing where it would refuse.
func TestAskedModel(t *testing.T) {
	form := func(parts ...string) (b string) {
		for i := 0; i < len(parts); i += 2 {
			b += "--x\r\nContent-Disposition: form-data; name=\"" + parts[i] + "\"\r\n\r\n" + parts[i+1] + "\r\n"
		}
		return b + "--x--\r\n"
	}
	for name, tt := range map[string]struct {
		request, want string
		ok            bool
	}{
		"an object":             {`{"messages":[{"model":"no"}],"model":"tiny"}`, "tiny", true},
		"escapes":               {`{"model":"t\u0069ny"}`, "tiny", true},
		"no name":               {`{"messages":[]}`, "", false},
		"null":                  {`{"model":null}`, "", false},
		"a number":              {`{"model":1}`, "", false},
		"twice":                 {`{"model":"a","model":"b"}`, "", false},
		"no object":             {`"model"`, "", false},
		"nothing":               {"", "", false},
		"a form":                {form("file", "RIFF", "model", "ear"), "ear", true},
		"a form without a name": {form("file", "model"), "", false},
		"a form with two":       {form("model", "a", "model", "b"), "", false},
		"no form":               {"--", "", false},
	} {
		if got, ok := askedModel([]byte(tt.request)); got != tt.want || ok != tt.ok {
			t.Errorf("%s: got %q, %t; want %q, %t", name, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzAskedModel: whatever comes, there is one answer, twice the same.
func FuzzAskedModel(f *testing.F) {
	f.Add([]byte(`{"model":"tiny"}`))
	f.Add([]byte("--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\near\r\n--x--\r\n"))
	f.Fuzz(func(t *testing.T, request []byte) {
		name, ok := askedModel(request)
		if again, okAgain := askedModel(request); name != again || ok != okAgain || !ok && name != "" {
			t.Errorf("%q: got %q, %t and then %q, %t", request, name, ok, again, okAgain)
		}
	})
}
