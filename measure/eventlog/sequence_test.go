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
	if got, want := Places(InPCRs), []Place{{PCR13, KindConfig}, {PCR14, KindIdentity}, {PCR13, KindEngine}, {PCR13, KindModel},
		{PCR13, KindGPU},
		{PCR13, KindSeparator}, {PCR14, KindSeparator}, {PCR13, KindKeysReleased}, {PCR14, KindKeysReleased}}; !slices.Equal(got, want) {
		t.Errorf("in PCRs: got %v, want %v", got, want)
	}
	if got, want := Places(InRTMR), []Place{{RTMR3, KindConfig}, {RTMR3, KindIdentity}, {RTMR3, KindEngine}, {RTMR3, KindModel},
		{RTMR3, KindGPU},
		{RTMR3, KindSeparator}, {RTMR3, KindKeysReleased}}; !slices.Equal(got, want) {
		t.Errorf("in an RTMR: got %v, want %v", got, want)
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

func TestSequence(t *testing.T) {
	measured, err := os.ReadFile(filepath.Join("..", "config", "testdata", "vectors", "measured.bin"))
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
	want := Sequence{Config: config.SHA256(measured), Identity: config.IdentityDigest(identity), Engine: m.Service.Engine.Volume,
		Model: m.Service.Model.Volume, GPU: "none"}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, want %+v", s, want)
	}
	for _, in := range []Registers{InPCRs, InRTMR} {
		var log []byte
		for _, r := range s.Records(in) {
			log = r.Append(log)
		}
		records, err := ParseRuntime(log)
		if err != nil || len(records) != len(Places(in)) {
			t.Fatalf("the log of the records: %d records (%v), want %d", len(records), err, len(Places(in)))
		}
		for _, r := range records {
			if !bytes.Equal(r.Data, s.Data(r.Kind)) {
				t.Errorf("%s says %x, want %x", r.Kind, r.Data, s.Data(r.Kind))
			}
		}
	}
	for name, bytes := range map[string][]byte{"nothing": nil, "cut short": measured[:len(measured)-1],
		"no config": append(slices.Clone(measured[:len(measured)-2]), "]}"...)} {
		if got, err := SequenceOf(bytes); err == nil || !reflect.DeepEqual(got, Sequence{}) {
			t.Errorf("%s: got %+v (%v), want a refusal", name, got, err)
		}
	}
}

// TestHeld: what a keys-released event says of who held the secret has one encoding, and is bounded.
func TestHeld(t *testing.T) {
	all := make([]register.Digest, MaxHeld)
	for i := range all {
		all[i] = register.Digest{1, byte(i)}
	}
	for _, held := range [][]register.Digest{nil, all[:1], all[:2], all} {
		record := Record{Register: RTMR3, Kind: KindKeysReleased, Data: Sequence{Held: held}.Data(KindKeysReleased)}
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
	follows := func(in Registers, so []Kind) (kinds []Kind) {
		for k := range Kind(12) {
			if places, err := Next(in, so, k); err == nil {
				if len(places) == 0 {
					t.Errorf("%s after %v: got no place", k, so)
				}
				kinds = append(kinds, k)
			}
		}
		return kinds
	}
	for _, in := range []Registers{InPCRs, InRTMR} {
		var so []Kind
		var log []Place
		for _, k := range []Kind{KindConfig, KindIdentity, KindEngine, KindModel, KindGPU, KindSeparator, KindKeysReleased} {
			want := []Kind{k, KindTerminated}
			slices.Sort(want)
			if got := follows(in, so); !slices.Equal(got, want) {
				t.Errorf("after %v: got %v, want %v", so, got, want)
			}
			places, err := Next(in, so, k)
			if err != nil {
				t.Fatal(err)
			}
			so, log = append(so, k), append(log, places...)
		}
		if want := Places(in); !slices.Equal(log, want) {
			t.Errorf("one after the other: got %v, want %v", log, want)
		}
		for _, tt := range []struct{ more, want []Kind }{
			{nil, []Kind{KindGPULost, KindTerminated}},
			{[]Kind{KindGPULost}, []Kind{KindTerminated}},
			{[]Kind{KindTerminated}, nil},
			{[]Kind{KindGPULost, KindTerminated}, nil},
		} {
			if got := follows(in, slices.Concat(so, tt.more)); !slices.Equal(got, tt.want) {
				t.Errorf("after keys-released and %v: got %v, want %v", tt.more, got, tt.want)
			}
		}
	}
	for _, tt := range []struct {
		name string
		so   []Kind
		kind Kind
		want string
	}{
		{"config twice", []Kind{KindConfig, KindIdentity}, KindConfig, "config comes twice"},
		{"the model before the engine", []Kind{KindConfig, KindIdentity}, KindModel, "model is event 2, want engine"},
		{"a GPU after the separator", []Kind{KindConfig, KindIdentity, KindEngine, KindModel, KindGPU, KindSeparator}, KindGPU,
			"gpu comes twice"},
		{"keys before the separator", []Kind{KindConfig}, KindKeysReleased, "want identity"},
		{"a GPU lost before the keys", []Kind{KindConfig}, KindGPULost, "want identity"},
		{"after the end", []Kind{KindConfig, KindTerminated}, KindIdentity, "follows terminated"},
	} {
		if got, err := Next(InPCRs, tt.so, tt.kind); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and error %v, want one with %q", tt.name, got, err, tt.want)
		}
	}
}

// TestLoan: the loan behind a secret stands behind those that held it before, and has one form.
func TestLoan(t *testing.T) {
	loan := Loan{Number: 7, Lender: register.Digest{9}}
	for _, held := range [][]register.Digest{nil, {{1}}, {{1}, {2}}} {
		data := Sequence{Held: held, Loan: loan}.Data(KindKeysReleased)
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
