package handover_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/release"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// key is the private key whose seed is 32 times b.
func key(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }

// signers are the public keys of seeds, sorted.
func signers(seeds ...byte) (keys []pubkey.Ed25519) {
	for _, b := range seeds {
		keys = append(keys, pubkey.Of(key(b)))
	}
	slices.SortFunc(keys, func(a, b pubkey.Ed25519) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// signed is a list of releases by the keys of seeds.
func signed(t testing.TB, releases []release.Release, seeds ...byte) []byte {
	t.Helper()
	d := release.NewDocument(time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), time.Hour)
	for i, r := range releases {
		d.Releases = append(d.Releases, release.Listed{Manifest: register.Digest{byte(i + 1)}, Values: r, Rebuilds: []release.Envelope{}})
	}
	list, err := release.EncodeList(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range seeds {
		if list, err = release.SignList(list, key(b)); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// machine is what an image shows on a platform, and a release of it.
func machine(p evidence.Platform, image byte) (map[string][]byte, release.Release) {
	r := release.Release{Name: string([]byte{'a' + image}), SecurityVersion: uint32(image)}
	switch p {
	case evidence.VTPM:
		r.VTPM = []register.PCRs{{0: {1}, 4: {image}, 9: {image}, 1: {7}}}
	case evidence.TDX:
		r.TDX = []release.TDXValues{{MRTD: register.Digest384{1}, RTMR0: register.Digest384{2}, RTMR1: register.Digest384{image}, RTMR2: register.Digest384{image}}}
	case evidence.SEVSNP:
		r.SEVSNP = []register.Digest384{{image}}
	}
	return r.Entries(p)[0].Values, r
}

// ask is a handover on a platform from image 2 to image 3, of the releases that a list by the seeds names.
func ask(t testing.TB, p evidence.Platform, seeds ...byte) handover.Handover {
	own, _ := machine(p, 2)
	other, successor := machine(p, 3)
	id := register.Digest{0xaa}
	return handover.Handover{
		Giver: handover.Party{Platform: p, Registers: own, Identity: id}, Taker: handover.Party{Platform: p, Registers: other, Identity: id},
		Image: handover.Image{SecurityVersion: 2, Signers: signers(1, 2, 3), Threshold: 2},
		List:  signed(t, []release.Release{successor}, seeds...),
	}
}

// judged holds a verdict against the refusal that is wanted; "" is none.
func judged(t testing.TB, p evidence.Platform, name string, err error, want string) {
	t.Helper()
	if want == "" && err != nil {
		t.Errorf("%s, %s: got %v, want it to pass", p, name, err)
	}
	if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s, %s: got error %v, want one with %q", p, name, err, want)
	}
}

// TestJudge is the rule as a table, on each platform. What is not in it is refused.
func TestJudge(t *testing.T) {
	same := func(h *handover.Handover) { h.Taker.Registers = h.Giver.Registers }
	for _, tt := range []struct {
		name   string
		change func(testing.TB, evidence.Platform, *handover.Handover)
		want   string // of the refusal; "" lets it pass
	}{
		{"a successor that two of three stand for", nil, ""},
		{"three of three", func(t testing.TB, p evidence.Platform, h *handover.Handover) { h.List = ask(t, p, 1, 2, 3).List }, ""},
		{"the owner signs his own image", func(t testing.TB, p evidence.Platform, h *handover.Handover) { h.List = ask(t, p, 9).List }, "0 of its 1 signatures"},
		{"the owner and one of three", func(t testing.TB, p evidence.Platform, h *handover.Handover) { h.List = ask(t, p, 1, 9).List }, "1 of its 2 signatures"},
		{"nobody signed", func(t testing.TB, p evidence.Platform, h *handover.Handover) { h.List = ask(t, p).List }, "0 of its 0 signatures"},
		{"a list with a byte changed", func(t testing.TB, p evidence.Platform, h *handover.Handover) {
			h.List = bytes.Replace(h.List, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
		}, "reading release list"},
		{"no list", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.List = nil }, "no release list"},
		{"no keys in the image", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			h.Image.Signers, h.Image.Threshold = nil, 0
		}, "names no key"},
		{"keys without a threshold", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Image.Threshold = 0 }, "threshold is 0"},
		{"the same version", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Image.SecurityVersion = 3 }, "version 3, want more than the giver's, 3"},
		{"down", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Image.SecurityVersion = 4 }, "version 3, want more than the giver's, 4"},
		{"an image that the list does not name", func(_ testing.TB, p evidence.Platform, h *handover.Handover) {
			h.Taker.Registers, _ = machine(p, 5)
		}, "none of the 1 releases"},
		{"a list of others", func(t testing.TB, p evidence.Platform, h *handover.Handover) {
			_, a := machine(p, 4)
			_, b := machine(p, 5)
			h.List = signed(t, []release.Release{a, b}, 1, 2)
		}, "none of the 2 releases"},
		{"one image listed at two versions, the lower of which is the giver's", func(t testing.TB, p evidence.Platform, h *handover.Handover) {
			_, a := machine(p, 3)
			b := a
			b.Name, b.SecurityVersion = "z", 2
			h.List = signed(t, []release.Release{a, b}, 1, 2)
		}, "version 2, want more"},
		{"listed on another platform alone", func(t testing.TB, p evidence.Platform, h *handover.Handover) {
			_, r := machine(1+p%3, 3)
			h.List = signed(t, []release.Release{r}, 1, 2)
		}, "none of the 1 releases"},
		{"another identity", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Taker.Identity[0]++ }, "identity is ab"},
		{"no identity on either side", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			h.Taker.Identity, h.Giver.Identity = register.Digest{}, register.Digest{}
		}, "identity is 00"},
		{"another platform", func(_ testing.TB, p evidence.Platform, h *handover.Handover) { h.Taker.Platform = 1 + p%3 }, "platform is"},
		{"equal registers, no list and no keys", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			same(h)
			h.List, h.Image = nil, handover.Image{SecurityVersion: 2}
		}, ""},
		{"equal registers, another identity", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { same(h); h.Taker.Identity[0]++ }, "identity is ab"},
		{"narrowed to equal registers, a successor", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Narrowed = config.HandoverSame }, `handover is "same-registers"`},
		{"narrowed to equal registers, and they are", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			same(h)
			h.Narrowed = config.HandoverSame
		}, ""},
		{"narrowed to none, a successor", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Narrowed = config.HandoverNone }, `handover is "none"`},
		{"narrowed to none, equal registers", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			same(h)
			h.Narrowed = config.HandoverNone
		}, `handover is "none"`},
		{"narrowed in a word that nobody knows", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { same(h); h.Narrowed = "wide" }, `handover is "wide"`},
		{"the giver has no registers", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) { h.Giver.Registers = nil }, "the giver's measurement"},
		{"neither has registers", func(_ testing.TB, _ evidence.Platform, h *handover.Handover) {
			h.Giver.Registers, h.Taker.Registers = nil, nil
		}, "the giver's measurement"},
		{"a register of the taker's is missing", func(_ testing.TB, p evidence.Platform, h *handover.Handover) {
			h.Taker.Registers = maps.Clone(h.Taker.Registers)
			delete(h.Taker.Registers, map[evidence.Platform]string{evidence.VTPM: "pcr-9", evidence.TDX: "rtmr-2", evidence.SEVSNP: "launch-digest"}[p])
		}, "the taker's measurement"},
	} {
		for _, p := range evidence.Platforms() {
			h := ask(t, p, 1, 2)
			if tt.change != nil {
				tt.change(t, p, &h)
			}
			judged(t, p, tt.name, h.Judge(), tt.want)
		}
	}
}

// TestOpenEntry: a release that leaves a register open does not name whoever has any value in it.
func TestOpenEntry(t *testing.T) {
	h := ask(t, evidence.VTPM)
	_, r := machine(evidence.VTPM, 3)
	delete(r.VTPM[0], 9)
	h.List = signed(t, []release.Release{r}, 1, 2)
	if err := h.Judge(); err == nil || !strings.Contains(err.Error(), "none of the 1 releases") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// TestMeasurement: each register that names an image moves its measurement, and no other does. The vector keeps it.
func TestMeasurement(t *testing.T) {
	got := map[string]register.Digest{}
	for _, p := range evidence.Platforms() {
		values, _ := machine(p, 3)
		base, err := handover.Measurement(p, values)
		if err != nil {
			t.Fatal(err)
		}
		got[p.String()] = base
		seen := map[register.Digest]string{base: "none"}
		for name := range values {
			other := maps.Clone(values)
			other[name] = append(bytes.Clone(other[name][:len(other[name])-1]), 1)
			m, err := handover.Measurement(p, other)
			if err != nil {
				t.Fatal(err)
			}
			if moves := name != "pcr-1"; (m != base) != moves {
				t.Errorf("%s: %s moves the measurement: %t, want %t", p, name, m != base, moves)
			}
			if before, twice := seen[m]; twice && m != base {
				t.Errorf("%s: changing %s gives what changing %s does", p, name, before)
			}
			seen[m] = name
		}
	}
	if m, err := handover.Measurement(9, map[string][]byte{"pcr-0": {1}}); err == nil {
		t.Errorf("on no platform: got %s, want an error", m)
	}
	text, err := json.MarshalIndent(got, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "vectors", "measurements.json")
	if *update {
		if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != string(text)+"\n" {
		t.Errorf("got %s, want the vector, %s (%v)", text, want, err)
	}
}

func TestParseImage(t *testing.T) {
	good, err := handover.Image{SecurityVersion: 7, Signers: signers(1, 2), Threshold: 2}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := handover.ParseImage(good); err != nil || got.SecurityVersion != 7 || got.Threshold != 2 || !slices.Equal(got.Signers, signers(1, 2)) {
		t.Errorf("got %+v and error %v", got, err)
	}
	none, err := handover.Image{SecurityVersion: 1}.Encode()
	if want := `{"security_version":1,"signers":[],"threshold":0}`; err != nil || string(none) != want {
		t.Errorf("an image that nothing follows: got %s and error %v, want %s", none, err, want)
	}
	if got, err := handover.ParseImage(none); err != nil || len(got.Signers) != 0 {
		t.Errorf("an image that nothing follows: got %+v and error %v", got, err)
	}
	a, b := signers(1, 2)[0].String(), signers(1, 2)[1].String()
	for name, text := range map[string]string{
		"nothing": "", "white space": " " + string(good), "more": string(good) + "\n", "an unknown member": strings.Replace(string(good), "{", `{"debug":true,`, 1),
		"a missing member": `{"security_version":1,"signers":[]}`, "no version": strings.Replace(string(good), ":7", ":0", 1),
		"a threshold of none": strings.Replace(string(good), `:2}`, `:0}`, 1), "a threshold above the signers": strings.Replace(string(good), `:2}`, `:3}`, 1),
		"a threshold below zero": strings.Replace(string(good), `:2}`, `:-1}`, 1), "a threshold without signers": strings.Replace(string(none), `:0}`, `:1}`, 1),
		"unsorted": `{"security_version":1,"signers":["` + b + `","` + a + `"],"threshold":1}`, "twice": `{"security_version":1,"signers":["` + a + `","` + a + `"],"threshold":2}`,
		"too long": string(good) + strings.Repeat(" ", 8<<10),
	} {
		if got, err := handover.ParseImage([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	for _, i := range []handover.Image{{SecurityVersion: 1}, {SecurityVersion: 7, Signers: signers(1, 2), Threshold: 2}} {
		data, err := i.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := handover.ParseImage(data)
		if err != nil {
			return
		}
		if again, err := i.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("parsed and written: got %s and error %v, want %s", again, err, data)
		}
	})
}
