package gateway

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/api"
)

var treatments = map[treatment]string{taken: "read", passed: "passed", ignored: "ignored", refused: "refused"}

// TestAPIDocument holds the tables of API.md to those that the parser goes by.
func TestAPIDocument(t *testing.T) {
	document, err := os.ReadFile("API.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, fields := range [][]field{chatFields, messageFields, responsesFields, itemFields} {
		var table strings.Builder
		for _, row := range fields {
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", row.name, treatments[row.does], strings.ReplaceAll(row.says, "|", "\\|"))
		}
		if !strings.Contains(string(document), table.String()) {
			t.Errorf("API.md does not have this table:\n%s", table.String())
		}
	}
}

// TestFieldTables asks with each row of the tables: what is ignored or refused never reaches the engine, and what is passed does.
func TestFieldTables(t *testing.T) {
	good := map[string]string{"temperature": "1", "top_p": "1", "top_k": "1", "min_p": "0", "seed": "1", "stop": `"x"`, "frequency_penalty": "1",
		"presence_penalty": "-1", "logit_bias": `{"1":1}`, "logprobs": "true", "top_logprobs": "1", "response_format": `{"type":"json_object"}`,
		"tools": "[]", "tool_choice": `"none"`, "parallel_tool_calls": "true"}
	with := map[string]string{"top_logprobs": `,"logprobs":true`, "tool_choice": `,"tools":[]`, "parallel_tool_calls": `,"tools":[]`}
	for _, row := range chatFields {
		seen := false
		for _, value := range []string{`"canary"`, "7", "true", `{"a":"canary"}`, `["canary"]`, good[row.name]} {
			if value == "" || row.does == taken {
				continue
			}
			r, err := parseRequest(dialects[api.ChatCompletions], []byte(ask(with[row.name]+`,"`+row.name+`":`+value)), requestLimits{model: "tiny", answerTokens: 9})
			switch {
			case row.does == passed && err == nil:
				seen = seen || strings.Contains(string(r.ask), `"`+row.name+`":`+value)
			case row.does == passed && value == good[row.name]:
				t.Errorf("%s: %s: got %v, want it passed", row.name, value, err)
			case row.does == passed:
				if _, ok := err.(*refusal); !ok || !strings.HasPrefix(err.Error(), row.name) {
					t.Errorf("%s: %s: got %v, want a refusal that begins with the name", row.name, value, err)
				}
			case row.does == ignored && (err != nil || len(r.ignored) != 1 || r.ignored[0] != row.name || strings.Contains(string(r.ask), `"`+row.name+`":`)):
				t.Errorf("%s: %s: got %v, want it ignored and told", row.name, value, err)
			case row.does == refused && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("%s: %s: got %v, want it refused for %q", row.name, value, err, row.says)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: the refusal repeats the client's text: %v", row.name, err)
			}
		}
		if row.does == passed && !seen {
			t.Errorf("%s: no value of it reached the engine", row.name)
		}
		if _, err := parseRequest(dialects[api.ChatCompletions], []byte(ask(`,"`+row.name+`":null`)), requestLimits{model: "tiny", answerTokens: 9}); row.does != taken && err != nil {
			t.Errorf("%s: null: got %v, want it as if it were not there", row.name, err)
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
