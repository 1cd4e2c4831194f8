package eventlog

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// TestPlaces is the list itself: to move an event is to move it here, too.
func TestPlaces(t *testing.T) {
	one, two := Sequence{Models: make([]Pair, 1)}, Sequence{Models: make([]Pair, 2)}
	if got, want := one.Places(InPCRs), []Place{{PCR13, KindConfig}, {PCR14, KindIdentity}, {PCR13, KindEngine}, {PCR13, KindModel},
		{PCR13, KindGPU},
		{PCR13, KindSeparator}, {PCR14, KindSeparator}, {PCR13, KindKeysReleased}, {PCR14, KindKeysReleased}}; !slices.Equal(got, want) {
		t.Errorf("in PCRs: got %v, want %v", got, want)
	}
	if got, want := one.Places(InRTMR), []Place{{RTMR3, KindConfig}, {RTMR3, KindIdentity}, {RTMR3, KindEngine}, {RTMR3, KindModel},
		{RTMR3, KindGPU},
		{RTMR3, KindSeparator}, {RTMR3, KindKeysReleased}}; !slices.Equal(got, want) {
		t.Errorf("in an RTMR: got %v, want %v", got, want)
	}
	if got, want := two.Places(InPCRs), []Place{{PCR13, KindConfig}, {PCR14, KindIdentity}, {PCR13, KindEngine}, {PCR13, KindModel}, {PCR13, KindEngine}, {PCR13, KindModel},
		{PCR13, KindGPU},
		{PCR13, KindSeparator}, {PCR14, KindSeparator}, {PCR13, KindKeysReleased}, {PCR14, KindKeysReleased}}; !slices.Equal(got, want) {
		t.Errorf("two models in PCRs: got %v, want %v", got, want)
	}
}

// TestSpecifiedRegisters holds the table of RUNTIME.md against the registers of each kind.
func TestSpecifiedRegisters(t *testing.T) {
	text, err := os.ReadFile("RUNTIME.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\d) \| ([a-z-]+) \| [^|]+ \| (13|14|13 and 14) \|$`).FindAllStringSubmatch(string(text), -1)
	var order []string
	for _, row := range rows {
		kind := Kind(row[1][0] - '0')
		registers := map[string][]Register{"13": {PCR13}, "14": {PCR14}, "13 and 14": {PCR13, PCR14}}[row[3]]
		if got := InPCRs.of(kind); kind.String() != row[2] || !slices.Equal(got, registers) {
			t.Errorf("%s in %v: the specification says %q", kind, got, row[0])
		}
		order = append(order, row[2])
	}
	if got, want := strings.Join(order, " "), "config identity engine model gpu separator keys-released gpu-lost terminated"; got != want {
		t.Errorf("the specification's order: got %s, want %s", got, want)
	}
}

// TestSequence holds what follows from a config's bytes against the config, and the pairs of several models in their order.
func TestSequence(t *testing.T) {
	for file, models := range map[string]int{"measured.bin": 1, "measured-models.bin": 2} {
		measured, err := os.ReadFile(filepath.Join("..", "config", "testdata", "vectors", file))
		if err != nil {
			t.Fatal(err)
		}
		s, err := SequenceOf(measured)
		if err != nil {
			t.Fatal(err)
		}
		m, err := config.Decode(measured)
		if err != nil {
			t.Fatal(err)
		}
		identity, _, err := config.Split(measured)
		if err != nil {
			t.Fatal(err)
		}
		want := Sequence{Config: config.SHA256(measured), Identity: config.IdentityDigest(identity), GPU: "none"}
		for _, served := range m.Service.Served() {
			want.Models = append(want.Models, Pair{served.Engine.Volume, served.Model.Volume})
		}
		if !reflect.DeepEqual(s, want) || len(s.Models) != models {
			t.Errorf("%s: got %+v, want %+v", file, s, want)
		}
		for _, in := range []Registers{InPCRs, InRTMR} {
			var log []byte
			for _, r := range s.Records(in) {
				log = r.Append(log)
			}
			records, err := ParseRuntime(log)
			if err != nil || len(records) != len(s.Places(in)) {
				t.Fatalf("the log of the records: %d records (%v), want %d", len(records), err, len(s.Places(in)))
			}
			come := map[Place]int{}
			for _, r := range records {
				at := Place{r.Register, r.Kind}
				if !bytes.Equal(r.Data, s.Data(r.Kind, come[at])) {
					t.Errorf("%s number %d says %x, want %x", r.Kind, come[at], r.Data, s.Data(r.Kind, come[at]))
				}
				come[at]++
			}
			for at, n := range map[Kind]int{KindEngine: models, KindModel: models, KindGPU: 1} {
				if got := come[Place{in.of(at)[0], at}]; got != n {
					t.Errorf("%s: %s comes %d times, want %d", file, at, got, n)
				}
			}
		}
		other := s
		other.Models = slices.Clone(s.Models)
		slices.Reverse(other.Models)
		if same := Replay256(s.Records(InPCRs), PCR13) == Replay256(other.Records(InPCRs), PCR13); same != (models == 1) {
			t.Errorf("%s: in the other order PCR 13 is the same: %t", file, same)
		}
		for name, bytes := range map[string][]byte{"nothing": nil, "cut short": measured[:len(measured)-1],
			"no config": append(slices.Clone(measured[:len(measured)-2]), "]}"...)} {
			if got, err := SequenceOf(bytes); err == nil || !reflect.DeepEqual(got, Sequence{}) {
				t.Errorf("%s: got %+v (%v), want a refusal", name, got, err)
			}
		}
	}
	if got := PairsOf(config.Service{Custodian: true, GPU: config.GPUNone}); !slices.Equal(got, []Pair{{}}) {
		t.Errorf("a custodian's pairs: got %v, want one of zeros", got)
	}
	if got := (Sequence{Models: make([]Pair, 2)}).Data(KindModel, 2); got != nil {
		t.Errorf("a third of two models: got %x, want none", got)
	}
}

// TestHeld: what a keys-released event says of who held the secret has one encoding, and is bounded.
func TestHeld(t *testing.T) {
	all := make([]register.Digest, MaxHeld)
	for i := range all {
		all[i] = register.Digest{1, byte(i)}
	}
	for _, held := range [][]register.Digest{nil, all[:1], all[:2], all} {
		record := Record{Register: RTMR3, Kind: KindKeysReleased, Data: Sequence{Held: held}.Data(KindKeysReleased, 0)}
		log, err := ParseRuntime(record.Append(nil))
		if err != nil {
			t.Fatalf("%d images: %v", len(held), err)
		}
		if got := (Sequence{}).Released(log).Held; !slices.Equal(got, held) {
			t.Errorf("got %v, want %v", got, held)
		}
	}
	for name, data := range map[string][]byte{
		"one image too many": HeldData(append(all, register.Digest{2})), "cut short": HeldData(all[:2])[:63], "a byte more": append(HeldData(all[:1]), 0),
		"zeros": make([]byte, 32), "twice the same": HeldData([]register.Digest{{1}, {2}, {1}}),
	} {
		if got, err := HeldOf(data); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
		if got := (Sequence{}).Released([]Record{{Kind: KindKeysReleased, Data: data}}).Held; got != nil {
			t.Errorf("%s: got %v out of a log, want nobody", name, got)
		}
	}
}

// TestNext walks the log of a guest and asks, at each place, for every kind there is: those that may follow are listed.
func TestNext(t *testing.T) {
	follows := func(s Sequence, in Registers, so []Kind) (kinds []Kind) {
		for k := range Kind(12) {
			if places, err := s.Next(in, so, k); err == nil {
				if len(places) == 0 {
					t.Errorf("%s after %v: got no place", k, so)
				}
				kinds = append(kinds, k)
			}
		}
		return kinds
	}
	pair := []Kind{KindEngine, KindModel}
	for models := 1; models <= config.MaxModels; models++ {
		s := Sequence{Models: make([]Pair, models)}
		for _, in := range []Registers{InPCRs, InRTMR} {
			var so []Kind
			var log []Place
			for _, k := range slices.Concat([]Kind{KindConfig, KindIdentity}, slices.Repeat(pair, models), []Kind{KindGPU, KindSeparator, KindKeysReleased}) {
				want := []Kind{k, KindTerminated}
				slices.Sort(want)
				if got := follows(s, in, so); !slices.Equal(got, want) {
					t.Errorf("%d models, after %v: got %v, want %v", models, so, got, want)
				}
				places, err := s.Next(in, so, k)
				if err != nil {
					t.Fatal(err)
				}
				so, log = append(so, k), append(log, places...)
			}
			if want := s.Places(in); !slices.Equal(log, want) {
				t.Errorf("%d models, one after the other: got %v, want %v", models, log, want)
			}
			for _, tt := range []struct{ more, want []Kind }{
				{nil, []Kind{KindGPULost, KindTerminated}},
				{[]Kind{KindGPULost}, []Kind{KindTerminated}},
				{[]Kind{KindTerminated}, nil},
				{[]Kind{KindGPULost, KindTerminated}, nil},
			} {
				if got := follows(s, in, slices.Concat(so, tt.more)); !slices.Equal(got, tt.want) {
					t.Errorf("%d models, after keys-released and %v: got %v, want %v", models, tt.more, got, tt.want)
				}
			}
		}
	}
	begun := []Kind{KindConfig, KindIdentity}
	for _, tt := range []struct {
		name   string
		models int
		so     []Kind
		kind   Kind
		want   string
	}{
		{"config twice", 1, begun, KindConfig, "config comes twice"},
		{"the model before the engine", 1, begun, KindModel, "model is event 2, want engine"},
		{"a GPU after the separator", 1, slices.Concat(begun, pair, []Kind{KindGPU, KindSeparator}), KindGPU, "gpu comes twice"},
		{"keys before the separator", 1, []Kind{KindConfig}, KindKeysReleased, "want identity"},
		{"a GPU lost before the keys", 1, []Kind{KindConfig}, KindGPULost, "want identity"},
		{"after the end", 1, []Kind{KindConfig, KindTerminated}, KindIdentity, "follows terminated"},
		{"a second pair of one", 1, slices.Concat(begun, pair), KindEngine, "engine comes twice"},
		{"a third pair of two", 2, slices.Concat(begun, pair, pair), KindEngine, "engine comes 3 times"},
		{"two engines, then the models", 2, append(slices.Clone(begun), KindEngine), KindEngine, "engine is event 3, want model"},
		{"one model of two", 2, slices.Concat(begun, pair), KindGPU, "gpu is event 4, want engine"},
		{"an engine, and nobody has said how many", 0, begun, KindEngine, "want to know first what the config serves"},
		{"a GPU, and nobody has said what is served", 0, begun, KindGPU, "want to know first what the config serves"},
	} {
		if got, err := (Sequence{Models: make([]Pair, tt.models)}).Next(InPCRs, tt.so, tt.kind); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
	for k, want := range map[Kind]int{KindConfig: 0, KindIdentity: 1} {
		if _, err := (Sequence{}).Next(InPCRs, begun[:want], k); err != nil {
			t.Errorf("%s before anybody has parsed the config: %v", k, err)
		}
	}
}

// TestLoan: the loan behind a secret stands behind those that held it before, and has one form.
func TestLoan(t *testing.T) {
	loan := Loan{Number: 7, Lender: register.Digest{9}}
	for _, held := range [][]register.Digest{nil, {{1}}, {{1}, {2}}} {
		data := Sequence{Held: held, Loan: loan}.Data(KindKeysReleased, 0)
		log, err := ParseRuntime(Record{Register: RTMR3, Kind: KindKeysReleased, Data: data}.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if got := (Sequence{}).Released(log); !slices.Equal(got.Held, held) || got.Loan != loan {
			t.Errorf("got %v and %+v, want %v and %+v", got.Held, got.Loan, held, loan)
		}
		for name, spoiled := range map[string][]byte{
			"no number": append(slices.Clone(data[:len(data)-8]), make([]byte, 8)...),
			"no lender": append(slices.Clone(data[:len(data)-40]), append(make([]byte, 32), 1, 0, 0, 0, 0, 0, 0, 0)...),
			"cut short": data[:len(data)-1], "number alone": data[len(data)-8:],
		} {
			if held, loan, err := ReleasedOf(spoiled); err == nil {
				t.Errorf("%s: got %v and %+v, want an error", name, held, loan)
			}
		}
	}
}
