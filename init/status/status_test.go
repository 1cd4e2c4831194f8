package status

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// listed is the vocabulary as the table has it: each word with its hint, by the heading under which STATUS.md lists it.
func listed() map[string]map[string]string {
	all := map[string]map[string]string{"Stages": {}, "Steps": {}, "Events": {}, "Codes": {}}
	for _, name := range stages[1:] {
		all["Stages"][name] = ""
	}
	for _, s := range steps[1:] {
		all["Steps"][s.name] = s.hint
	}
	for _, name := range events[1:] {
		all["Events"][name] = ""
	}
	for _, c := range codes[1:] {
		all["Codes"][c.name] = c.hint
	}
	return all
}

var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+(?: \\| ([^|]+))? \\|$")

// specified is the vocabulary as a specification has it.
func specified(text string) map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, section := range strings.Split(text, "\n## ")[1:] {
		heading, rows, _ := strings.Cut(section, "\n")
		for _, m := range row.FindAllStringSubmatch(rows, -1) {
			if all[heading] == nil {
				all[heading] = map[string]string{}
			}
			all[heading][m[1]] = m[2]
		}
	}
	return all
}

// differ returns what stands in one of two vocabularies alone, and every step and code without a hint.
func differ(table, document map[string]map[string]string) (found []string) {
	for heading, words := range table {
		for name, hint := range words {
			if got, ok := document[heading][name]; !ok || got != hint {
				found = append(found, fmt.Sprintf("%s: %s: the table says %q, the document %q (%v)", heading, name, hint, got, ok))
			}
			if hint == "" && (heading == "Steps" || heading == "Codes") {
				found = append(found, fmt.Sprintf("%s: %s has no hint", heading, name))
			}
		}
	}
	for heading, words := range document {
		for name := range words {
			if _, ok := table[heading][name]; !ok {
				found = append(found, fmt.Sprintf("%s: %s stands in the document alone", heading, name))
			}
		}
	}
	return found
}

// TestSpecification holds STATUS.md against the table, and shows that the comparison can refuse.
func TestSpecification(t *testing.T) {
	text, err := os.ReadFile("STATUS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range differ(listed(), specified(string(text))) {
		t.Error(difference)
	}
	for _, tt := range []struct {
		name, want string
		change     func(table, document map[string]map[string]string)
	}{
		{"a code without a hint", "volume-corrupt has no hint", func(a, b map[string]map[string]string) {
			a["Codes"]["volume-corrupt"], b["Codes"]["volume-corrupt"] = "", ""
		}},
		{"a step without a hint", "platform has no hint", func(a, b map[string]map[string]string) { a["Steps"]["platform"], b["Steps"]["platform"] = "", "" }},
		{"a hint for no code", "no-code stands in the document alone", func(_, b map[string]map[string]string) {
			b["Codes"]["no-code"] = "do something"
		}},
		{"another hint", "the table says", func(_, b map[string]map[string]string) { b["Codes"]["journal-full"] += " up" }},
		{"an event that is not specified", "engine-up", func(_, b map[string]map[string]string) { delete(b["Events"], "engine-up") }},
	} {
		table, document := listed(), specified(string(text))
		tt.change(table, document)
		if got := strings.Join(differ(table, document), "\n"); !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want one with %q", tt.name, got, tt.want)
		}
	}
}

// TestVocabulary: every constant has a word of its own, and the numbers of codes and failed steps do not meet.
func TestVocabulary(t *testing.T) {
	if int(endOfSteps) != len(steps) || int(endOfEvents) != len(events) || int(endOfCodes) != len(codes) || int(endOfStages) != len(stages) {
		t.Error("a table has another length than its constants")
	}
	if int(firstFailed) < len(codes) || int(firstFailed)+len(steps) > 256 {
		t.Errorf("%d codes and %d steps do not fit around %d", len(codes), len(steps), firstFailed)
	}
	seen := map[string]bool{}
	for _, line := range everyLine() {
		text := line.String()
		if seen[text] || strings.HasSuffix(text, " ") || len(text) > maxLineBytes {
			t.Errorf("%q: stands twice, has no word or is too long", text)
		}
		seen[text] = true
	}
	if want := len(stages) + len(steps) + len(events) + len(codes) + len(steps) - 5 + 1; len(seen) != want {
		t.Errorf("got %d lines, want %d", len(seen), want)
	}
	for _, none := range []string{
		Step(0).String(), Step(200).String(), Event(200).String(), Stage(9).String(),
		Code(0).String(), Code(100).String(), Code(100).Hint(), Code(0).Hint(),
	} {
		if none != "" {
			t.Errorf("a number without a word: got %q, want nothing", none)
		}
	}
}

// everyLine is each line that there is, with one uptime.
func everyLine() (all []Line) {
	const at = 1234 * time.Millisecond
	for i := range stages[1:] {
		all = append(all, Line{Stage: Stage(i + 1), Uptime: at})
	}
	for i := range steps[1:] {
		all = append(all, Line{Step: Step(i + 1), Uptime: at}, Line{Code: Step(i + 1).Failed()})
	}
	for i := range events[1:] {
		all = append(all, Line{Event: Event(i + 1)})
	}
	for i := range codes[1:] {
		all = append(all, Line{Code: Code(i + 1)})
	}
	return append(all, Line{Serving: true, Uptime: at})
}

func TestParse(t *testing.T) {
	for _, want := range everyLine() {
		got, err := Parse(want.String())
		if want.Step == Mounts || want.Step == Status {
			if err == nil {
				t.Errorf("%q comes before there is a port: got %+v, want an error", want, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %+v (%v), want %+v", want, got, err, want)
		}
		if want.Code != 0 && want.Code.Hint() == "" {
			t.Errorf("%s has no hint", want.Code)
		}
	}
	for _, c := range Codes() {
		if c.Hint() == "" || ParseCode(c.String()) != c {
			t.Errorf("code %d: named %q, which means %d, with hint %q", c, c, ParseCode(c.String()), c.Hint())
		}
	}
	if got, want := len(Codes()), len(codes)+len(steps)-2; got != want {
		t.Errorf("got %d codes, want %d", got, want)
	}
	for text, want := range map[string]Line{
		"step initrd 812":         {Stage: Initrd, Uptime: 812 * time.Millisecond},
		"step engine-volume 0":    {Step: EngineVolume},
		"serving 7000":            {Serving: true, Uptime: 7 * time.Second},
		"event kernel-up":         {Event: KernelUp},
		"end platform-failed":     {Code: Platform.Failed()},
		"end journal-rolled-back": {Code: JournalRolledBack},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: got %+v (%v), want %+v", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"nothing", "", "1 words"},
		{"another line", "hello world", `no line "hello"`},
		{"another step", "step shell 12", `no step "shell"`},
		{"another event", "event gpu-up", `no event "gpu-up"`},
		{"another code", "end because", `no code "because"`},
		{"the code of no step", "end shell-failed", `no code "shell-failed"`},
		{"the code of a stage", "end pid1-failed", `no code "pid1-failed"`},
		{"a step as a code", "end platform", `no code "platform"`},
		{"an empty code", "end ", `no code ""`},
		{"a failure of nothing", "end -failed", `no code "-failed"`},
		{"a step before the port", "step mounts 12", `no step "mounts"`},
		{"no uptime", "step platform", "2 words, want 3"},
		{"a word more", "end platform-failed now", "3 words, want 2"},
		{"two spaces", "step  tpm 12", "4 words"},
		{"a space behind", "serving 12 ", "3 words"},
		{"another case", "end TPM-failed", "no code"},
		{"a sign", "serving +12", "uptime"},
		{"below zero", "serving -1", "uptime"},
		{"a zero before", "step platform 012", "uptime"},
		{"a fraction", "serving 1.5", "uptime"},
		{"more than a duration holds", "serving 9223372036855", "uptime"},
		{"a carriage return", "end platform-failed\r", "no code"},
		{"an escape", "end \x1b[2J", "no code"},
		{"too long", "end " + strings.Repeat("x", maxLineBytes), "at most 64"},
	} {
		if got, err := Parse(tt.line); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

func TestParseAll(t *testing.T) {
	got, err := ParseAll([]byte("event kernel-up\nstep initrd 812\nend root-fai"))
	if want := []Line{{Event: KernelUp}, {Stage: Initrd, Uptime: 812 * time.Millisecond}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v (%v), want %v: the last line is still being written", got, err, want)
	}
	if got, err := ParseAll(nil); len(got) != 0 || err != nil {
		t.Errorf("nothing: got %v (%v), want nothing", got, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"a line of somebody else", "event kernel-up\nhello world\n", "line 2"},
		{"an empty line", "event kernel-up\n\n", "line 2"},
		{"too much", strings.Repeat("event engine-up\n", maxBytes/16+1), "at most"},
	} {
		if got, err := ParseAll([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d lines and error %v, want one with %q", tt.name, len(got), err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range everyLine() {
		f.Add(line.String())
	}
	f.Fuzz(func(t *testing.T, text string) {
		if line, err := Parse(text); err == nil && line.String() != text {
			t.Errorf("parsed and written: got %q, want %q", line, text)
		}
	})
}
