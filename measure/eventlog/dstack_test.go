package eventlog

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// dstackAnswer is the log, and the RTMRs of the quote beside it: Intel TDX DCAP quote, version 4, body after 48 bytes, RTMR0 at 328.
func dstackAnswer(t testing.TB, name string) (log []byte, rtmr [4][48]byte) {
	t.Helper()
	quote := someLog(t, name+"-quote.bin")
	if version := binary.LittleEndian.Uint16(quote); version != 4 {
		t.Fatalf("quote has version %d", version)
	}
	for i := range rtmr {
		rtmr[i] = [48]byte(quote[48+328+48*i:])
	}
	return someLog(t, name+".json"), rtmr
}

// TestReplayDstack compares with what Intel's quoting enclave signed for two guests of dstack.
func TestReplayDstack(t *testing.T) {
	for name, want := range map[string]struct{ proven, lies, runtime int }{
		"dstack": {18, 0, 8},
		// Firmware's events have no data there, so that of them nothing is proven.
		"dstack-lite": {9, 0, 9},
	} {
		log, rtmr := dstackAnswer(t, name)
		events, err := ParseDstack(log)
		if err != nil {
			t.Fatal(err)
		}
		if got := ReplayDstack(events); got != rtmr {
			t.Errorf("%s: got %x, want %x", name, got, rtmr)
		}
		var proven, lies, runtime int
		for _, e := range events {
			if e.Hashed() == HashedData {
				proven++
			}
			if e.Lie() {
				lies++
			}
			if e.runtime() {
				runtime++
			}
		}
		if proven != want.proven || lies != want.lies || runtime != want.runtime {
			t.Errorf("%s: got %d proven, %d lies, %d runtime events, want %+v", name, proven, lies, runtime, want)
		}
		// The array alone, too.
		var answer struct {
			Log string `json:"event_log"`
		}
		if err := json.Unmarshal(log, &answer); err != nil {
			t.Fatal(err)
		}
		if again, err := ParseDstack([]byte(answer.Log)); err != nil || ReplayDstack(again) != rtmr {
			t.Errorf("%s, the array alone: got %v", name, err)
		}
		if again, err := ParseDstack(fmt.Appendf(nil, `{"event_log":%s}`, answer.Log)); err != nil || ReplayDstack(again) != rtmr {
			t.Errorf("%s, the array in an answer: got %v", name, err)
		}
	}
}

// TestDstackVersion2 has the preimage of dstack's own test, and a digest of it.
func TestDstackVersion2(t *testing.T) {
	preimage := `{"name":"event\"with\\special\nchars","payload":"ff","type":134217729}`
	log := fmt.Sprintf(`[{"imr":3,"event_type":134217729,"digest":"%x","event":"event\"with\\special\nchars","event_payload":"ff","version":2}]`,
		sha512.Sum384([]byte(preimage)))
	events, err := ParseDstack([]byte(log))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(events[0].preimage()); got != preimage || events[0].Hashed() != HashedData {
		t.Errorf("got %s and %q, want %s, proven", got, events[0].Hashed(), preimage)
	}
	events[0].version = 1
	if events[0].Hashed() != HashedOther || !events[0].Lie() {
		t.Error("as version 1 it is proven too")
	}
}

// TestDstackColon: version 1 puts colons between name and payload, so a name with one can be another name and payload.
func TestDstackColon(t *testing.T) {
	at := func(name, payload string) DstackEvent {
		digest := sha512.Sum384([]byte("\x01\x00\x00\x08:app:id:x"))
		events, err := ParseDstack(fmt.Appendf(nil, `[{"imr":3,"event_type":134217729,"digest":"%x","event":%q,"event_payload":"%x"}]`, digest, name, payload))
		if err != nil {
			t.Fatal(err)
		}
		return events[0]
	}
	if e := at("app", "id:x"); e.Hashed() != HashedData {
		t.Errorf("a name without colon: got %q, want it proven", e.Hashed())
	}
	if e := at("app:id", "x"); e.Hashed() != HashedOpen || e.Lie() {
		t.Errorf("a name with one: got %q and a lie %t, want %q and none", e.Hashed(), e.Lie(), HashedOpen)
	}
}

func TestParseDstackRefuses(t *testing.T) {
	event := func(edit string) string {
		return `[{"imr":3,"event_type":134217729,"digest":"` + strings.Repeat("0", 96) + `","event":"a","event_payload":""` + edit + `}]`
	}
	for _, tt := range []struct{ name, log, want string }{
		{"empty", "", "no JSON array"},
		{"not JSON", "binary", "no JSON array"},
		{"an object without a log", `{"quote":"00"}`, "no JSON array"},
		{"no event", `[]`, "0 events"},
		{"a member twice", event(`,"imr":0`), "duplicate"},
		{"another kind", strings.Replace(event(""), `"imr":3`, `"imr":"3"`, 1), `member "/0/imr"`},
		{"no register", strings.Replace(event(""), `"imr":3,`, ``, 1), "missing"},
		{"RTMR4", strings.Replace(event(""), `"imr":3`, `"imr":4`, 1), "want 0 to 3"},
		{"a digest of another size", strings.Replace(event(""), "00", "", 1), "96 hexadecimal digits"},
		{"no digest of firmware's", `[{"imr":0,"event_type":4,"digest":"","event":"","event_payload":""}]`, "96 hexadecimal digits"},
		{"payload", strings.Replace(event(""), `payload":"`, `payload":"zz`, 1), "event_payload"},
		{"version 3", event(`,"version":3`), "version is 3"},
		{"too many", "[" + strings.Repeat("{},", maxBootEvents) + "{}]", "1025 events"},
		{"too long", strings.Repeat(" ", maxBootBytes+1), "want at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseDstack([]byte(tt.log))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "dstackEvent") {
				t.Errorf("error %v names a type of this program", err)
			}
		})
	}
}

// TestDstackMutations: no changed byte of the log leaves registers and proven events as they were, but where it says nothing.
func TestDstackMutations(t *testing.T) {
	log, rtmr := dstackAnswer(t, "dstack")
	var answer struct {
		Log string `json:"event_log"`
	}
	if err := json.Unmarshal(log, &answer); err != nil {
		t.Fatal(err)
	}
	whole := []byte(answer.Log)
	for at := 0; at < len(whole); at += 3 {
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		events, err := ParseDstack(bad)
		if err != nil || ReplayDstack(events) != rtmr {
			continue
		}
		for _, e := range events {
			if e.runtime() && e.Hashed() == HashedData && sha512.Sum384(e.preimage()) != e.Digest {
				t.Fatalf("byte %d: a proven event has other data", at)
			}
		}
	}
}

func FuzzParseDstack(f *testing.F) {
	log, _ := dstackAnswer(f, "dstack")
	f.Add(log)
	f.Add([]byte(`[{"imr":3,"event_type":134217729,"event":"a","event_payload":""}]`))
	f.Add([]byte(`[{"imr":3,"event_type":134217729,"event":"a","event_payload":"00","version":2}]`))
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := ParseDstack(log)
		if err != nil {
			return
		}
		ReplayDstack(events)
		for _, e := range events {
			if e.RTMR > 3 {
				t.Errorf("register %d", e.RTMR)
			}
			if e.Hashed() == HashedData && e.Lie() {
				t.Errorf("event %s is proven and a lie", hex.EncodeToString(e.Digest[:]))
			}
		}
	})
}
