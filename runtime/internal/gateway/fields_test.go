package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/api"
	"chrysalis/runtime/receipt"
)

var treatments = map[treatment]string{taken: "read", passed: "passed", ignored: "ignored", refused: "refused"}

// elementFields are the tables of what lists of a request hold.
var elementFields = [][]field{chatMessageFields, itemFields, turnFields, blockFields}

// tables are all tables of fields.
func tables() [][]field {
	all := elementFields
	for _, d := range dialects {
		all = append(all, d.fields)
	}
	return all
}

// TestAPIDocument holds the tables of API.md to those that the parser goes by.
func TestAPIDocument(t *testing.T) {
	document, err := os.ReadFile("API.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, fields := range tables() {
		var table strings.Builder
		for _, row := range fields {
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", row.name, treatments[row.does], strings.ReplaceAll(row.says, "|", "\\|"))
		}
		if !strings.Contains(string(document), "|---|---|---|\n"+table.String()+"\n") {
			t.Errorf("API.md does not have this table:\n%s", table.String())
		}
	}
}

// TestAPIDocumentNumbers holds the numbers of API.md's prose to those of the code.
func TestAPIDocumentNumbers(t *testing.T) {
	document, err := os.ReadFile("API.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, says := range []string{
		fmt.Sprintf("There are %d,%03d connections at a time", maxConnections/1000, maxConnections%1000),
		fmt.Sprintf("%d MiB together", maxBodyBytes>>20),
		fmt.Sprintf("whole after %.0f s, its header after 10", defaultWaits.request.Seconds()),
		fmt.Sprintf("newest %d answers", rememberedAnswers),
		fmt.Sprintf("nests %d levels at most", maxDepth),
		fmt.Sprintf("base64, %d bytes", receipt.Size),
	} {
		if !strings.Contains(string(document), says) {
			t.Errorf("API.md does not say %q", says)
		}
	}
}

// TestRowsSayWhatTheyWant: what a row judges or refuses, it can tell a client.
func TestRowsSayWhatTheyWant(t *testing.T) {
	for _, fields := range tables() {
		for i, row := range fields {
			if row.does == unknown || row.says == "" && row.does != ignored || row.judge != nil && row.does != taken && row.does != passed ||
				row.judge == nil && row.does == passed || find(fields, row.name) != i {
				t.Errorf("row %q: it is %s, judges %t and says %q", row.name, treatments[row.does], row.judge != nil, row.says)
			}
		}
	}
}

// requests are the shortest of each dialect, without their end.
var requests = map[string]string{
	api.ChatCompletions: `{"model":"tiny","messages":[{"role":"user","content":"x"}]`,
	api.Completions:     `{"model":"tiny","prompt":"x"`,
	api.Embeddings:      `{"model":"tiny","input":["x","y"]`,
	api.Responses:       `{"model":"tiny","input":"x"`,
	api.Messages:        `{"model":"tiny","max_tokens":64,"messages":[{"role":"user","content":"x"}]`,
}

// TestFieldTables asks with each row of the tables: what is ignored or refused never reaches the engine, what is passed does, and what is
// read is refused in its row's words.
func TestFieldTables(t *testing.T) {
	good := map[string]string{"temperature": "1", "top_p": "1", "top_k": "1", "min_p": "0", "seed": "1", "stop": `"x"`, "frequency_penalty": "1",
		"presence_penalty": "-1", "logit_bias": `{"1":1}`, "logprobs": "true", "top_logprobs": "1", "response_format": `{"type":"json_object"}`,
		"tools": "[]", "tool_choice": `"none"`, "parallel_tool_calls": "true"}
	with := map[string]string{"top_logprobs": `,"logprobs":true`, "tool_choice": `,"tools":[]`, "parallel_tool_calls": `,"tools":[]`}
	for path, d := range dialects {
		if d.form {
			continue // TestTranscriptions, TestTranscriptionsRefuses
		}
		request := requests[path]
		for _, row := range d.fields {
			seen, told := false, row.judge == nil
			for _, value := range []string{`"canary"`, "7", "true", `{"a":"canary"}`, `["canary"]`, good[row.name]} {
				if value == "" || strings.Contains(request, `"`+row.name+`":`) {
					continue
				}
				beside := ""
				if row.does == passed {
					beside = with[row.name]
				}
				r, err := parseRequest(d, []byte(request+beside+`,"`+row.name+`":`+value+"}"), tiny(9))
				_, isRefusal := err.(*refusal)
				switch {
				case row.does == taken:
					told = told || isRefusal && err.Error() == row.name+": want "+row.says
				case row.does == passed && err == nil:
					seen = seen || strings.Contains(string(r.ask), `"`+row.name+`":`+value)
				case row.does == passed && value == good[row.name]:
					t.Errorf("%s %s: %s: got %v, want it passed", path, row.name, value, err)
				case row.does == passed:
					if !isRefusal || err.Error() != row.name+": want "+row.says && !strings.Contains(err.Error(), "without") {
						t.Errorf("%s %s: %s: got %v, want a refusal in the row's words", path, row.name, value, err)
					}
				case row.does == ignored && (err != nil || len(r.ignored) != 1 || r.ignored[0] != row.name || strings.Contains(string(r.ask), `"`+row.name+`":`+value)):
					t.Errorf("%s %s: %s: got %v, want it ignored and told", path, row.name, value, err)
				case row.does == refused && (err == nil || !strings.Contains(err.Error(), row.says)):
					t.Errorf("%s %s: %s: got %v, want it refused for %q", path, row.name, value, err, row.says)
				}
				if err != nil && strings.Contains(err.Error(), "canary") {
					t.Errorf("%s %s: the refusal repeats the client's text: %v", path, row.name, err)
				}
			}
			if row.does == passed && !seen || row.does == taken && !told && !strings.Contains(request, `"`+row.name+`":`) {
				t.Errorf("%s %s: no value of it reached the engine, or was refused in the row's words", path, row.name)
			}
			if strings.Contains(request, `"`+row.name+`":`) {
				continue
			}
			if _, err := parseRequest(d, []byte(request+`,"`+row.name+`":null}`), tiny(9)); err != nil {
				t.Errorf("%s %s: null: got %v, want it as if it were not there", path, row.name, err)
			}
		}
	}
}

// TestJudges gives each judge what it takes and what it must not take.
func TestJudges(t *testing.T) {
	function := function(may("parameters", anObject))
	for _, tt := range []struct {
		name     string
		judge    judge
		yes, not []string
	}{
		{"text", text(3), []string{`""`, `"abc"`}, []string{`"abcd"`, "1", "null", ""}},
		{"boolean", boolean, []string{"true", "false"}, []string{`"true"`, "0", "null", ""}},
		{"isFalse", isFalse, []string{"false"}, []string{"true", "null"}},
		{"number", number(-1, 2), []string{"-1", "2", "0.5", "1e-3", "0"}, []string{"-1.1", "2.01", `"1"`, "1e999", "1." + strings.Repeat("0", 40), ""}},
		{"aboveZero", aboveZero(number(0, 1)), []string{"1", "0.1"}, []string{"0", "0.0", "-1", "1.5", `"1"`}},
		{"whole", whole(1, 5), []string{"1", "5"}, []string{"0", "6", "1.0", "-1", `"1"`, "1e0", ""}},
		{"oneOf", oneOf("a", "b"), []string{`"a"`, `"\u0062"`}, []string{`"c"`, `""`, "1", "null", `"` + strings.Repeat("a", 500) + `"`}},
		{"oneOf of nothing", oneOf("", "b"), []string{`""`, `"b"`}, []string{"1", "{}", ""}},
		{"listed", listed(2, anyText), []string{"[]", `["a","b"]`}, []string{`["a",1]`, `["a","b","c"]`, `"a"`, `{"a":"b"}`, ""}},
		{"keyed", keyed(2, isTokenID, boolean), []string{"{}", `{"1":true}`}, []string{`{"x":true}`, `{"1":1}`, `{"1":true,"2":true,"3":true}`, "[]", ""}},
		{"short", short(4, anObject), []string{"{}"}, []string{`{"a":1}`, "[]"}},
		{"either", either(anyText, boolean), []string{`"a"`, "true"}, []string{"1"}},
		{"orNull", orNull(boolean), []string{"true", "null"}, []string{"1", ""}},
		{"shaped", shaped(must("a", boolean), may("b", boolean)), []string{`{"a":true}`, `{"b":true,"a":false}`},
			[]string{"{}", `{"b":true}`, `{"a":1}`, `{"a":true,"c":1}`, `{"a":true,"b":1}`, "[]", "true", "null", ""}},
		{"function", function, []string{`{"name":"f"}`, `{"name":"f-._9Z","description":null,"strict":true,"parameters":{}}`},
			[]string{`{}`, `{"name":""}`, `{"name":"a b"}`, `{"name":"` + strings.Repeat("f", 65) + `"}`, `{"name":"f","schema":{}}`, `{"name":"f","parameters":null}`}},
	} {
		for _, v := range tt.yes {
			if !tt.judge(jsontext.Value(v)) {
				t.Errorf("%s refuses %s", tt.name, v)
			}
		}
		for _, v := range tt.not {
			if tt.judge(jsontext.Value(v)) {
				t.Errorf("%s takes %s", tt.name, v)
			}
		}
	}
}

func TestDepth(t *testing.T) {
	for in, want := range map[string]int{``: 0, `1`: 0, `{}`: 1, `[[]]`: 2, `{"a":[{}],"b":1}`: 3, `"[["`: 0, `["\\",[]]`: 2, `["\"[[["]`: 1} {
		if got := depth([]byte(in)); got != want {
			t.Errorf("%s: got %d, want %d", in, got, want)
		}
	}
}

// TestObjectValuesPointIntoTheBody: a copy of a value would not be wiped.
func TestObjectValuesPointIntoTheBody(t *testing.T) {
	body := jsontext.Value(` { "a" : [ 1 , "x" ] , "b":"y"} `)
	got := ""
	object(body, func(name string, v jsontext.Value) {
		array(v, func(v jsontext.Value) { got += string(v) + ";" })
		got += name + "=" + string(v) + ";"
		clear(v)
	})
	if want := `1;"x";a=[ 1 , "x" ];b="y";`; got != want || strings.ContainsAny(string(body), "xy") {
		t.Errorf("got %s and left %q, want %s and nothing of it", got, body, want)
	}
}
