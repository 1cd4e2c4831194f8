package role

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"chrysalis/attest/evidence"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/runtime/secret"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// settings are values for every flag of a role.
func settings(r Role) Settings {
	s := Settings{}
	for _, f := range r.contract().flags {
		s[f] = "/run/" + string(f)
	}
	return s
}

// TestContracts: every role is whole, and no two that confine themselves share a user.
func TestContracts(t *testing.T) {
	if len(contracts) != int(endOfRoles) || len(All()) != len(contracts)-1 || len(words) != int(endOfWords) {
		t.Error("a table has another length than its constants")
	}
	users, names := map[int]Role{0: 0, EngineUser: 0}, map[string]bool{}
	for _, r := range All() {
		c := r.contract()
		if r.String() == "" || names[r.String()] || len(c.argv) == 0 || !slices.Contains(c.flags, Measured) || !slices.Contains(c.words, Ready) {
			t.Errorf("%d: %+v is not whole", r, c)
		}
		names[r.String()] = true
		if c.files[len(c.files)-1] != Status {
			t.Errorf("%s: its last descriptor is %s, want %s", r, c.files[len(c.files)-1], Status)
		}
		if other, taken := users[c.user]; taken && c.user != 0 {
			t.Errorf("%s and %s have the user %d", r, other, c.user)
		}
		users[c.user] = r
		if Named(r.String()) != r {
			t.Errorf("Named(%q) is %v", r, Named(r.String()))
		}
	}
	if Named("") != 0 || Named("shell") != 0 || Role(0).String() != "" || Role(9).String() != "" || Word(0).String() != "" || Word(99).String() != "" {
		t.Error("what is no role or word has a name, or the other way round")
	}
	if Keeper.Network() {
		t.Error("the keeper has a network, want none")
	}
	seen := map[Word]bool{}
	for _, r := range All() {
		for _, w := range r.Words() {
			seen[w] = true
		}
	}
	for w := range Word(endOfWords) {
		if w != 0 && (!seen[w] || w.String() == "" || len(w.String()) > maxWordBytes) {
			t.Errorf("word %d (%q) is nobody's, empty or too long", w, w)
		}
	}
}

// TestArgv: what init builds is what the role parses, and what it would refuse is not built.
func TestArgv(t *testing.T) {
	for _, r := range All() {
		argv, err := r.Argv(settings(r))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Parse(argv[len(r.contract().argv):])
		if err != nil || fmt.Sprint(got) != fmt.Sprint(settings(r)) {
			t.Errorf("%s: %q: got %v (%v), want %v", r, argv, got, err, settings(r))
		}
		for name, change := range map[string]func(Settings){
			"a flag of nobody": func(s Settings) { s["shell"] = "/bin/sh" },
			"a flag missing":   func(s Settings) { delete(s, Measured) },
			"an empty value":   func(s Settings) { s[Measured] = "" },
			"a zero byte":      func(s Settings) { s[Measured] = "/run\x00/x" },
			"a long value":     func(s Settings) { s[Measured] = strings.Repeat("x", maxValueBytes+1) },
		} {
			s := settings(r)
			change(s)
			if argv, err := r.Argv(s); err == nil {
				t.Errorf("%s: %s: got %q, want a refusal", r, name, argv)
			}
		}
	}
	if argv, err := Role(0).Argv(nil); err == nil {
		t.Errorf("no role: got %q, want a refusal", argv)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"nothing", nil, "-measured is missing"},
		{"no value", []string{"-measured"}, "no value"},
		{"an empty value", []string{"-measured", ""}, "no value"},
		{"twice", []string{"-measured", "a", "-measured", "b"}, "stands twice"},
		{"another role's flag", []string{"-measured", "a", "-chroot", "/"}, `"-chroot" is none`},
		{"two dashes", []string{"--measured", "a"}, `"--measured" is none`},
		{"an equals sign", []string{"-measured=a"}, `"-measured=a" is none`},
		{"an argument behind", []string{"-measured", "a", "extra"}, `"extra" is none`},
		{"help", []string{"-h"}, `"-h" is none`},
	} {
		if got, err := Keeper.Parse(tt.args); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, r := range All() {
		for w := range Word(endOfWords) {
			got, err := r.ParseWord(w.String())
			if own := slices.Contains(r.Words(), w); own != (err == nil) || own && got != w {
				t.Errorf("%s: %q: got %v (%v), its own: %v", r, w, got, err, own)
			}
		}
	}
	for _, line := range []string{"", "fail ", "fail", "ready ", " ready", "Ready", "fail because", "journal-torn", "ready\x00", strings.Repeat("x", 1000)} {
		if got, err := Keeper.ParseWord(line); err == nil || len(err.Error()) > 300 {
			t.Errorf("%q: got %v and error %v, want a short refusal", line, got, err)
		}
	}
}

func TestListen(t *testing.T) {
	var pipe bytes.Buffer
	for _, w := range []Word{Ready, EngineUp, EngineDown} {
		Say(&pipe, w)
	}
	said := pipe.String()
	for _, tt := range []struct {
		name, text string
		want       []Word
		fails      string
	}{
		{"three words", said, []Word{Ready, EngineUp, EngineDown}, ""},
		{"a last line without its end", "ready\nengine-up", []Word{Ready, EngineUp}, ""},
		{"another role's word", "ready\nfail journal-torn\nengine-up\n", []Word{Ready}, "no word"},
		{"a line without an end", strings.Repeat("x", 1<<16), nil, "too long"},
	} {
		var got []Word
		err := EngineHost.Listen(strings.NewReader(tt.text), func(w Word) bool { got = append(got, w); return true })
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: heard %v (%v), want %v and an error with %q", tt.name, got, err, tt.want, tt.fails)
		}
	}
	heard := 0
	if err := EngineHost.Listen(strings.NewReader(said), func(Word) bool { heard++; return false }); err != nil || heard != 1 {
		t.Errorf("a listener that has enough: heard %d words (%v), want 1", heard, err)
	}
}

func testSecret(t testing.TB) *secret.Secret {
	t.Helper()
	s, err := secret.New(bytes.Repeat([]byte{7}, secret.Size))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecretMessage(t *testing.T) {
	var pipe bytes.Buffer
	if err := SendSecret(&pipe, testSecret(t), 0x0102030405060708); err != nil {
		t.Fatal(err)
	}
	message := bytes.Clone(pipe.Bytes())
	got, boots, err := ReceiveSecret(iotest.OneByteReader(&pipe))
	if err != nil || !got.Equal(testSecret(t)) || boots != 0x0102030405060708 {
		t.Errorf("got boots %#x (%v), want those that were sent, and the secret", boots, err)
	}
	for _, tt := range []struct {
		name string
		pipe io.Reader
		want string
	}{
		{"nothing", bytes.NewReader(nil), "0 bytes, want 40"},
		{"the secret alone", bytes.NewReader(message[:secret.Size]), "32 bytes, want 40"},
		{"a byte less", bytes.NewReader(message[:len(message)-1]), "39 bytes, want 40"},
		{"a byte more", bytes.NewReader(append(bytes.Clone(message), 0)), "more than 40"},
		{"two messages", bytes.NewReader(append(bytes.Clone(message), message...)), "more than 40"},
		{"zeros", bytes.NewReader(make([]byte, messageBytes)), "every byte is zero"},
		{"a pipe that breaks", io.MultiReader(bytes.NewReader(message), iotest.ErrReader(errors.New("broken"))), "broken"},
	} {
		if got, _, err := ReceiveSecret(tt.pipe); got != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

// TestSpecification holds the tables of ROLES.md against those of the package.
func TestSpecification(t *testing.T) {
	text, err := os.ReadFile("ROLES.md")
	if err != nil {
		t.Fatal(err)
	}
	document := string(text)
	if problems := specified(document); len(problems) > 0 {
		t.Error(strings.Join(problems, "\n"))
	}
	for _, tt := range []struct{ name, old, new string }{
		{"another user", "65530", "65529"}, {"another order", "`secret`, `journal`", "`journal`, `secret`"},
		{"a flag less", "`-keeper` ", ""}, {"a word less", "| `fail journal-short` |", "| fail journal-short |"},
	} {
		if changed := strings.Replace(document, tt.old, tt.new, 1); changed == document || len(specified(changed)) == 0 {
			t.Errorf("%s: got no problem, want one", tt.name)
		}
	}
}

func specified(document string) (problems []string) {
	quote := func(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }
	for _, r := range All() {
		c := r.contract()
		var files, flags []string
		for _, f := range c.files {
			files = append(files, string(f))
		}
		for _, f := range c.flags {
			flags = append(flags, "-"+string(f))
		}
		user, network := "root", "the guest's"
		if c.user != 0 {
			user = fmt.Sprint(c.user)
		}
		if !c.network {
			network = "none"
		}
		row := fmt.Sprintf("| `%s` | `%s` | %s | %s | %s | %s |", c.name, strings.Join(c.argv, " "), strings.ReplaceAll(quote(flags), ",", ""), user, network, quote(files))
		if !strings.Contains(document, row+"\n") {
			problems = append(problems, "ROLES.md lacks the row "+row)
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| [^|]+ \\|$").FindAllStringSubmatch(document, -1)
	listed := map[string]string{}
	for _, row := range rows {
		listed[row[1]] = row[2]
	}
	for w := Word(1); w < endOfWords; w++ {
		var who []string
		for _, r := range All() {
			if slices.Contains(r.Words(), w) {
				who = append(who, r.String())
			}
		}
		if got, want := listed[w.String()], strings.Join(who, ", "); got != want {
			problems = append(problems, fmt.Sprintf("ROLES.md: %q is said by %q, want %q", w, got, want))
		}
		delete(listed, w.String())
	}
	for line := range listed {
		problems = append(problems, fmt.Sprintf("ROLES.md: %q is no word", line))
	}
	return problems
}

// vectors are the bytes of the contract, by name: what init writes, and the other side must read.
func vectors(t *testing.T) map[string]string {
	all := map[string]string{}
	for _, r := range All() {
		argv, err := r.Argv(settings(r))
		if err != nil {
			t.Fatal(err)
		}
		all["argv "+r.String()] = strings.Join(argv, " ")
	}
	for w := Word(1); w < endOfWords; w++ {
		all["word "+w.String()] = w.String() + "\n"
	}
	var pipe bytes.Buffer
	if err := SendSecret(&pipe, testSecret(t), 3); err != nil {
		t.Fatal(err)
	}
	all["secret of sevens, 3 boots"] = hex.EncodeToString(pipe.Bytes())
	loan := Loan{Secret: testSecret(t), Boots: 3, Held: []register.Digest{{1}, {2}}, Loan: eventlog.Loan{Number: 4, Lender: register.Digest{5}}}
	all["loan 4 of sevens, 3 boots, lent by 5, held by 1 and 2"] = hex.EncodeToString(EncodeLoan(loan))
	lend, _ := asked(t, LoanCall{Call: CallLend, Giver: register.Digest{1}, Taker: register.Digest{2}}, AnswerHeld, Loan{})
	var kept bytes.Buffer
	if err := SendKept(&kept, testKept(t)); err != nil {
		t.Fatal(err)
	}
	all["a custodian's secret of sevens, 3 boots, that came under number 4 after 5, held by 1 and 2"] = hex.EncodeToString(kept.Bytes())
	moved, _ := asked(t, LoanCall{Call: CallMoved, Number: 4, Proof: [32]byte{1}}, AnswerDone, Loan{})
	_, came := asked(t, LoanCall{Call: CallCame}, AnswerHeld, Loan{Loan: eventlog.Loan{Number: 4}, Proof: [32]byte{1}})
	all["moved 4 with proof 1"], all["came under number 4 with proof 1"] = hex.EncodeToString(moved), hex.EncodeToString(came)
	renew, done := asked(t, LoanCall{Call: CallRenew, Number: 4}, AnswerDone, Loan{})
	all["call lend from 1 to 2"], all["call renew 4"], all["answer done"] = hex.EncodeToString(lend), hex.EncodeToString(renew), hex.EncodeToString(done)
	all["wipe 5 of engine 2"] = hex.EncodeToString(wipe{2, 5}.encode())
	all["quote request"] = hex.EncodeToString(encodeRequest(example()))
	quoted := func(r evidence.Request) (*evidence.Evidence, error) {
		return &evidence.Evidence{Platform: evidence.VTPM, Quote: []byte("q"), Statement: evidence.Statement{NonceRoot: r.NonceRoot}}, nil
	}
	all["quote answer"] = hex.EncodeToString(answer(example(), quoted, nil))
	refuse := func(evidence.Request) (*evidence.Evidence, error) { return nil, ErrRefused }
	all["quote refused"] = hex.EncodeToString(answer(example(), refuse, nil))
	return all
}

func TestVectors(t *testing.T) {
	got := vectors(t)
	file := filepath.Join("testdata", "vectors", "roles.json")
	if *update {
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetIndent("", "\t")
		if err := encoder.Encode(got); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]string
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(got) {
		t.Errorf("%s has %d entries, want %d", file, len(want), len(got))
	}
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range All() {
		argv, err := r.Argv(settings(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(r), strings.Join(argv[len(r.contract().argv):], "\n"))
	}
	f.Fuzz(func(t *testing.T, number uint8, text string) {
		r := Role(number)
		s, err := r.Parse(strings.Split(text, "\n"))
		if err != nil || r == 0 || r >= endOfRoles {
			return
		}
		argv, err := r.Argv(s)
		if err != nil {
			t.Fatalf("%q was parsed and can't be built: %v", text, err)
		}
		if again, err := r.Parse(argv[len(r.contract().argv):]); err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
			t.Errorf("%q: got %v (%v), want %v", text, again, err, s)
		}
	})
}

// TestEngineSocketOf: of several engines each has a folder for its socket, and the only one has the folder itself.
func TestEngineSocketOf(t *testing.T) {
	for _, tt := range []struct {
		at, of int
		want   string
	}{{0, 1, "/engine/e.sock"}, {0, 2, "/engine-0/e.sock"}, {1, 2, "/engine-1/e.sock"}} {
		if got := EngineSocketOf("/engine/e.sock", tt.at, tt.of); got != tt.want {
			t.Errorf("%d of %d: got %s, want %s", tt.at, tt.of, got, tt.want)
		}
	}
}
