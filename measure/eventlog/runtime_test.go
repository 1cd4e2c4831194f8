package eventlog

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// boot returns the log of a complete boot on a vTPM.
func boot() []byte {
	var log []byte
	for i, r := range []Record{
		{Register: PCR13, Kind: KindConfig, Data: bytes.Repeat([]byte{1}, 32)},
		{Register: PCR14, Kind: KindIdentity, Data: bytes.Repeat([]byte{2}, 32)},
		{Register: PCR13, Kind: KindEngine, Data: VolumeData([32]byte{3}, 100)},
		{Register: PCR13, Kind: KindModel, Data: VolumeData([32]byte{4}, 310)},
		{Register: PCR13, Kind: KindGPU, Data: []byte("none")},
		{Register: PCR13, Kind: KindSeparator, Data: SeparatorData()},
		{Register: PCR14, Kind: KindSeparator, Data: SeparatorData()},
		{Register: PCR13, Kind: KindKeysReleased},
		{Register: PCR14, Kind: KindKeysReleased},
	} {
		r.Number = uint64(i)
		log = r.Append(log)
	}
	return log
}

func TestRuntimeVector(t *testing.T) {
	file := filepath.Join("testdata", "vectors", "runtime.cel")
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := boot(); !bytes.Equal(got, want) {
		t.Errorf("log: got %x, want the bytes of %s", got, file)
	}
	records, err := ParseRuntime(want)
	if err != nil {
		t.Fatal(err)
	}
	for register, want := range map[Register]string{
		PCR13: "ac4087a6842d4d78174db5544ccb7d4ddd83f51eace366bcf632280bf70c61b8",
		PCR14: "aaa4329942933d05a5fa2def20e55e0550d20e76467adf851aeb8c0ca4ccf982",
	} {
		got := Replay256(records, register)
		if hex.EncodeToString(got[:]) != want {
			t.Errorf("register %d: got %x, want %s", register, got, want)
		}
	}
}

func TestParseRuntimeRefuses(t *testing.T) {
	good := boot()
	records, err := ParseRuntime(good)
	if err != nil {
		t.Fatal(err)
	}
	join := func(records ...Record) (log []byte) {
		for _, r := range records {
			log = r.Append(log)
		}
		return log
	}
	for _, tt := range []struct {
		name string
		log  []byte
		want string
	}{
		{"record dropped", join(records[1:]...), "record 0 is numbered 1"},
		{"record repeated", join(records[0], records[0]), "record 1 is numbered 0"},
		{"foreign register", join(Record{Register: 9, Kind: KindConfig}), "none of the runtime log's"},
		{"unknown kind", join(Record{Register: PCR13, Kind: 200}), "unknown kind 200"},
		{"long data", join(Record{Register: PCR13, Kind: KindGPU, Data: make([]byte, 257)}), "want at most 256"},
		{"cut short", good[:len(good)-1], "bytes are left"},
		{"trailing zeros", append(slices.Clone(good), 0, 0), "want a type and a length"},
		{"too long", make([]byte, maxRuntimeBytes+1), "want at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseRuntime(tt.log); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// TestEveryBitOfLog flips each bit: the log must be refused, or replay to other registers.
func TestEveryBitOfLog(t *testing.T) {
	good := boot()
	records, err := ParseRuntime(good)
	if err != nil {
		t.Fatal(err)
	}
	pcr13, pcr14 := Replay256(records, PCR13), Replay256(records, PCR14)
	for i := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if records, err := ParseRuntime(bad); err == nil && Replay256(records, PCR13) == pcr13 && Replay256(records, PCR14) == pcr14 {
			t.Fatalf("bit %d of byte %d: accepted with the same registers", i%8, i/8)
		}
		if Head(bad) == Head(good) {
			t.Fatalf("bit %d of byte %d: the head did not change", i%8, i/8)
		}
	}
}

func FuzzParseRuntime(f *testing.F) {
	f.Add(boot())
	f.Add(Record{Register: RTMR3, Kind: KindTerminated}.Append(nil))
	f.Fuzz(func(t *testing.T, log []byte) {
		records, err := ParseRuntime(log)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range records {
			again = r.Append(again)
		}
		if !bytes.Equal(again, log) {
			t.Errorf("parsed and written again: got %x, want %x", again, log)
		}
	})
}
