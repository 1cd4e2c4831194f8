package eventlog

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
)

// ccelHeader opens a CCEL as firmware writes it: a SHA-384 bank alone.
func ccelHeader(headerRegister uint32, alg uint16, size uint16) []byte {
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = binary.LittleEndian.AppendUint32(spec, 1)
	spec = binary.LittleEndian.AppendUint16(spec, alg)
	spec = append(binary.LittleEndian.AppendUint16(spec, size), 0)
	b := binary.LittleEndian.AppendUint32(nil, headerRegister)
	b = binary.LittleEndian.AppendUint32(b, evNoAction)
	b = append(b, make([]byte, 20)...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(spec))), spec...)
}

// ccelEvent is an event whose digest is that of hashed.
func ccelEvent(register, typ uint32, data, hashed []byte) []byte {
	digest := sha512.Sum384(hashed)
	b := binary.LittleEndian.AppendUint32(nil, register)
	b = binary.LittleEndian.AppendUint32(b, typ)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = append(binary.LittleEndian.AppendUint16(b, algSHA384), digest[:]...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// exampleCCEL has each kind of event that matters, and the padding of a firmware's log area.
func exampleCCEL() []byte {
	variable := make([]byte, 32)
	binary.LittleEndian.PutUint64(variable[16:], 1)
	binary.LittleEndian.PutUint64(variable[24:], 3)
	variable = append(variable, 'B', 0, 1, 2, 3)
	log := bytes.Join([][]byte{
		ccelHeader(1, algSHA384, 48),
		ccelEvent(1, evNoAction, []byte("nothing"), []byte("nothing")),
		ccelEvent(1, 0x8000000b, []byte("TD HOB"), []byte("the hand-off block itself")),
		ccelEvent(1, evEFIVariableConfig, variable, variable),
		ccelEvent(1, evSeparator, make([]byte, 4), make([]byte, 4)),
		ccelEvent(1, evEFIVariableBoot, variable, []byte{1, 2, 3}),
		ccelEvent(2, evEFIAction, []byte("Calling EFI Application from Boot Option"), []byte("Calling EFI Application from Boot Option")),
		ccelEvent(3, 0xd, []byte("grub_cmd: boot\x00"), []byte("boot")),
	}, nil)
	return append(log, bytes.Repeat([]byte{0xff}, 500)...)
}

// TestReplayCCELAgainstGoEventlog has another implementation as second opinion.
func TestReplayCCELAgainstGoEventlog(t *testing.T) {
	log := exampleCCEL()
	events, err := ParseCCEL(log)
	if err != nil {
		t.Fatal(err)
	}
	rtmr := ReplayCCEL(events)
	var bank register.RTMRBank
	for i, value := range rtmr {
		bank.RTMRs = append(bank.RTMRs, register.RTMR{Index: i, Digest: bytes.Clone(value[:])})
	}
	if _, err := tcg.ParseAndReplay(log, bank.MRs(), tcg.ParseOpts{AllowPadding: true}); err != nil {
		t.Errorf("go-eventlog does not replay to these registers: %v", err)
	}
	if rtmr[0] == [48]byte{} || rtmr[1] == [48]byte{} || rtmr[2] == [48]byte{} || rtmr[3] != [48]byte{} {
		t.Errorf("got %x, want three registers that were extended and one that was not", rtmr)
	}
	var matched string
	for _, e := range events {
		matched += map[bool]string{true: "y", false: "n"}[e.Matches()]
		if e.Broken() {
			t.Errorf("event of type %#x has other data", e.Type)
		}
	}
	if want := "nnyynyn"; matched != want {
		t.Errorf("events whose data was measured: got %s, want %s", matched, want)
	}
}

func TestParseCCELRefuses(t *testing.T) {
	good := exampleCCEL()
	for _, tt := range []struct {
		name string
		log  []byte
		want string
	}{
		{"empty", nil, "header: 0 bytes"},
		{"too long", make([]byte, maxBootBytes+1), "want at most"},
		{"SHA-256 bank alone", ccelHeader(1, algSHA256, 32), "0 SHA-384 banks"},
		{"header in register 2", ccelHeader(2, algSHA384, 48), "register 2"},
		{"register 5", append(ccelHeader(0, algSHA384, 48), ccelEvent(5, evSeparator, nil, nil)...), "want at most 4"},
		{"MRTD", append(ccelHeader(0, algSHA384, 48), ccelEvent(0, evSeparator, nil, nil)...), "extends MRTD"},
		{"an event after padding", append(bytes.Clone(good), ccelEvent(1, evSeparator, nil, nil)...), "register is"},
		{"padding that another byte ends", append(bytes.Clone(good), 0xfe), "register is"},
		{"zeros that another byte ends", append(append(ccelHeader(0, algSHA384, 48), make([]byte, 64)...), 1), "0 digests"},
		{"cut", bytes.TrimRight(good, "\xff")[:300], "left"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseCCEL(tt.log); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestCCELArea reads a log at the beginning of an area of 1 MiB, as some firmware reserves.
func TestCCELArea(t *testing.T) {
	log := bytes.TrimRight(exampleCCEL(), "\xff")
	want, err := ParseCCEL(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, fill := range []byte{0, 0xff} {
		got, err := ParseCCEL(append(bytes.Clone(log), bytes.Repeat([]byte{fill}, 1<<20)...))
		if err != nil || len(got) != len(want) {
			t.Errorf("padding of %#x: got %d events (%v), want %d", fill, len(got), err, len(want))
		}
	}
}

func FuzzParseCCEL(f *testing.F) {
	f.Add(exampleCCEL())
	f.Add(bytes.TrimRight(exampleCCEL(), "\xff"))
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := ParseCCEL(log)
		if err != nil {
			return
		}
		ReplayCCEL(events)
		// What is parsed, with the header as it stands, is a prefix of the log; padding of one kind follows.
		at := 32 + int(binary.LittleEndian.Uint32(log[28:]))
		for _, e := range events {
			for _, part := range [][]byte{e.Digest[:], e.Data} {
				i := bytes.Index(log[at:], part)
				if i < 0 {
					t.Fatalf("%x is not in the log after byte %d", part, at)
				}
			}
		}
	})
}

// TestParseCEL reads a runtime log with the parser for any log, which also takes what ParseRuntime refuses and says so.
func TestParseCEL(t *testing.T) {
	var log []byte
	records := []Record{{Number: 0, Register: RTMR3, Kind: KindSeparator, Data: SeparatorData()},
		{Number: 1, Register: PCR13, Kind: KindKeysReleased}}
	for _, r := range records {
		log = r.Append(log)
	}
	events, err := ParseCEL(log)
	if err != nil {
		t.Fatal(err)
	}
	pcrs, rtmrs := ReplayCEL(events)
	if pcrs[13] != Replay256(records, PCR13) || rtmrs[3] != Replay384(records, RTMR3) || len(pcrs) != 1 || len(rtmrs) != 1 {
		t.Errorf("replayed: got %x and %x", pcrs, rtmrs)
	}
	for i, e := range events {
		if !e.Matches() {
			t.Errorf("record %d: its data does not hash to its digests", i)
		}
	}
	// Other data under the same digests still replays.
	edited := bytes.Clone(log)
	edited[bytes.Index(log, records[0].content())+5] ^= 1
	if events, err = ParseCEL(edited); err != nil || events[0].Matches() || !events[1].Matches() {
		t.Errorf("edited: got %v, want the first record alone to have other data", err)
	}
	if _, edited := ReplayCEL(events); edited[3] != rtmrs[3] {
		t.Error("edited: it does not replay")
	}
	if _, err := ParseRuntime(edited); err == nil {
		t.Error("edited: ParseRuntime takes it")
	}
	for _, tt := range []struct {
		name string
		log  []byte
		want string
	}{
		{"cut", log[:len(log)-1], "content"},
		{"trailing byte", append(bytes.Clone(log), 0), "record number"},
		{"a record twice", append(bytes.Clone(log), log...), "numbered 0"},
		{"register 5", bytes.Replace(log, []byte{tlvCCMR, 0, 0, 0, 1, 4}, []byte{tlvCCMR, 0, 0, 0, 1, 5}, 1), "no register 5"},
		{"another digest in the place of SHA-384", bytes.Replace(log, []byte{algSHA384, 0, 0, 0, 48}, []byte{0x28, 0, 0, 0, 48}, 1),
			"none for its register"},
		{"digest of another size", bytes.Replace(log, []byte{algSHA256, 0, 0, 0, 32}, []byte{algSHA384, 0, 0, 0, 32}, 1), "has 32 bytes"},
	} {
		if _, err := ParseCEL(tt.log); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParseCEL(f *testing.F) {
	f.Add(Record{Number: 0, Register: RTMR3, Kind: KindSeparator, Data: SeparatorData()}.Append(nil))
	f.Add(Record{Number: 0, Register: PCR14, Kind: KindKeysReleased}.Append(nil))
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := ParseCEL(log)
		if err != nil {
			return
		}
		ReplayCEL(events)
		for _, e := range events {
			e.Matches()
		}
	})
}
