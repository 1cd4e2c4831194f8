package eventlog

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/testdata"
)

// someLog unpacks a log of testdata/logs; the README there says whose it is.
func someLog(t testing.TB, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile("testdata/logs/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// machines are logs of real machines, which go-eventlog has.
func machines() map[string][]byte {
	return map[string][]byte{
		"arch": testdata.ArchLinuxWorkstationEventLog, "debian 10, SHA-1": testdata.Debian10EventLog, "glinux": testdata.GlinuxAlexEventLog,
		"rhel 8": testdata.Rhel8EventLog, "ubuntu 18.04": testdata.Ubuntu1804AmdSevEventLog, "ubuntu 21.04": testdata.Ubuntu2104NoDbxEventLog,
		"ubuntu 24.04 on SEV-SNP": testdata.Ubuntu2404AmdSevSnpEventLog, "cos 85": testdata.Cos85AmdSevEventLog, "cos 93": testdata.Cos93AmdSevEventLog,
		"cos 101": testdata.Cos101AmdSevEventLog, "cos 121": testdata.Cos121AmdSevEventLog, "gdc": testdata.GdcHost,
		"ubuntu 24.04 on TDX": testdata.Ubuntu2404IntelTdxA4HighGpu8GEventLog, "cos 125 on TDX": testdata.Cos125IntelTdxSecureBootA4HighGpu8GEventLog,
	}
}

// TestReplayAgainstGoEventlog has another implementation replay each bank of each machine to the registers found here.
func TestReplayAgainstGoEventlog(t *testing.T) {
	hashes := map[Algorithm]crypto.Hash{SHA1: crypto.SHA1, SHA256: crypto.SHA256, SHA384: crypto.SHA384}
	banks := map[Algorithm]int{}
	for name, log := range machines() {
		l, err := ParseBootLog(log)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, bank := range l.Banks {
			banks[bank]++
			registers, err := l.Replay(bank)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var theirs []register.MR
			for pcr, value := range registers {
				theirs = append(theirs, register.PCR{Index: int(pcr), Digest: value, DigestAlg: hashes[bank]})
			}
			if _, err := tcg.ParseAndReplay(log, theirs, tcg.ParseOpts{}); err != nil {
				t.Errorf("%s, %v: go-eventlog does not replay to these registers: %v", name, bank, err)
			}
		}
		again, err := ParseBootLog(append(bytes.Clone(log), make([]byte, 5000)...))
		if err != nil || len(again.Events) != len(l.Events) {
			t.Errorf("%s: zeros after it: got %v", name, err)
		}
	}
	if banks[SHA1] < 3 || banks[SHA256] < 3 || banks[SHA384] < 3 {
		t.Errorf("logs by bank: got %v, want at least three of each", banks)
	}
}

// TestReplayAgainstTPM compares with what the machines' own TPMs said.
func TestReplayAgainstTPM(t *testing.T) {
	for _, name := range []string{"tpm12-linux", "sha1-windows"} {
		l, err := ParseBootLog(someLog(t, name+".bin"))
		if err != nil {
			t.Fatal(err)
		}
		if l.Form != FormTCG12 || !slices.Equal(l.Banks, []Algorithm{SHA1}) {
			t.Errorf("%s: got form %s with %v, want TPM 1.2's", name, l.Form, l.Banks)
		}
		var want map[string]string
		if err := json.Unmarshal(someLog(t, name+"-registers.json"), &want); err != nil {
			t.Fatal(err)
		}
		got, err := l.Replay(SHA1)
		if err != nil {
			t.Fatal(err)
		}
		for pcr := range uint8(16) {
			value := got[pcr]
			if value == nil {
				value = make([]byte, SHA1.Size())
			}
			if register := fmt.Sprintf("pcr%d", pcr); want[register] != "" && hex.EncodeToString(value) != want[register] {
				t.Errorf("%s: %s: got %x, want %s", name, register, value, want[register])
			}
		}
		if _, err := l.Replay(SHA256); err == nil || !strings.Contains(err.Error(), "no sha256 bank") {
			t.Errorf("%s: replay in SHA-256: got %v, want a refusal", name, err)
		}
	}
}

// TestHabits: what shim and GRUB hash of what they log, each in logs of real machines.
func TestHabits(t *testing.T) {
	all := machines()
	for _, tt := range []struct {
		log      string
		bank     Algorithm
		event    int
		register uint8
		want     Hashed
	}{
		{"debian 10, SHA-1", SHA1, 23, 7, HashedButLast}, // shim 15
		{"cos 85", SHA256, 23, 7, HashedButLast},
		{"cos 93", SHA256, 23, 7, HashedButLast},
		{"cos 121", SHA256, 46, 8, HashedText},
		{"rhel 8", SHA256, 74, 8, HashedText}, // GRUB 2.02
		{"cos 121", SHA256, 32, 9, HashedOther},
		{"cos 121", SHA256, 8, 1, HashedOther}, // ACPI tables, whose data is a word
	} {
		l, err := ParseBootLog(all[tt.log])
		if err != nil {
			t.Fatal(err)
		}
		e := l.Events[tt.event]
		if got := l.Hashed(e, tt.bank); e.Register != tt.register || got != tt.want || l.Lie(e, tt.bank) {
			t.Errorf("%s, event %d of PCR %d: got %q and a lie %t, want %q of PCR %d and none", tt.log, tt.event, e.Register, got,
				l.Lie(e, tt.bank), tt.want, tt.register)
		}
		if tt.want == HashedOther {
			continue
		}
		e.Data = bytes.Clone(e.Data)
		e.Data[len(e.Data)-3] ^= 1
		if got := l.Hashed(e, tt.bank); got != HashedOther || l.Lie(e, tt.bank) != (tt.want == HashedButLast) {
			t.Errorf("%s, event %d with other data: got %q and a lie %t", tt.log, tt.event, got, l.Lie(e, tt.bank))
		}
	}
}

// TestLies: of all these machines one tells other data than it measured, a firmware's version.
func TestLies(t *testing.T) {
	var lies []string
	for name, log := range machines() {
		l, err := ParseBootLog(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Events {
			if l.Lie(e, l.Banks[len(l.Banks)-1]) {
				lies = append(lies, name+" "+string(bytes.ReplaceAll(e.Data, []byte{0}, nil)))
			}
		}
	}
	if got, want := strings.Join(lies, "; "), "gdc 2.3.5"; got != want {
		t.Errorf("lies: got %s, want %s", got, want)
	}
}

// event12 is one of TPM 1.2's form.
func event12(register, typ uint32, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, register)
	b = binary.LittleEndian.AppendUint32(b, typ)
	b = append(b, SHA1.Sum(data)...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

func TestParseBootLogRefuses(t *testing.T) {
	good := bootLog(t)
	twice := bytes.Clone(good)
	copy(twice[32+28+4:], twice[32+28:32+32])
	small := event12(0, evSeparator, make([]byte, 4))
	large := event12(4, evIPL, make([]byte, maxBootEventData))
	for _, tt := range []struct {
		name string
		log  []byte
		want string // "": parsed
	}{
		{"empty", nil, "no event"},
		{"padding alone", make([]byte, 100), "no event"},
		{"too long", make([]byte, maxBootBytes+1), "want at most"},
		{"cut", good[:len(good)-1], "want at most"},
		{"a bank twice", twice, "twice"},
		{"zeros after it", append(bytes.Clone(good), make([]byte, 3)...), ""},
		{"0xff after it", append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 3)...), ""},
		{"zeros that another byte ends", append(append(bytes.Clone(good), make([]byte, 40)...), 1), "0 digests"},
		{"TPM 1.2", small, ""},
		{"TPM 1.2, zeros after it", append(bytes.Clone(small), make([]byte, 77)...), ""},
		{"TPM 1.2, cut", small[:len(small)-1], "want at most"},
		{"TPM 1.2, another byte after it", append(bytes.Clone(small), 7), "1 bytes left"},
		{"TPM 1.2, PCR 24", event12(24, evSeparator, nil), "register is 24"},
		{"TPM 1.2, no action anywhere", event12(0xffffffff, evNoAction, nil), ""},
		{"an event of the bound", large, ""},
		{"an event above the bound", event12(4, evIPL, make([]byte, maxBootEventData+1)), "want at most 1048576"},
		{"too many events", bytes.Repeat(small, maxBootEvents+1), "more than 1024 events"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := ParseBootLog(tt.log)
			if tt.want == "" && (err != nil || len(l.Events) == 0) {
				t.Errorf("got %v, want a log", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
	if _, err := (&BootLog{Form: FormTCG2, Banks: []Algorithm{0x12}}).Replay(0x12); err == nil || !strings.Contains(err.Error(), "0x12") {
		t.Errorf("replay in SM3: got %v, want a refusal", err)
	}
}

// TestBootLogMutations: whatever byte of a log is changed, the log is refused, or what its registers are of has changed with it.
func TestBootLogMutations(t *testing.T) {
	for name, log := range map[string][]byte{"tcg2": bootLog(t), "tpm 1.2": someLog(t, "tpm12-linux.bin"), "debian 10": testdata.Debian10EventLog} {
		whole, err := ParseBootLog(log)
		if err != nil {
			t.Fatal(err)
		}
		bank := whole.Banks[len(whole.Banks)-1]
		proven := func(l *BootLog) string {
			registers, err := l.Replay(bank)
			if err != nil {
				return err.Error()
			}
			var b strings.Builder
			for pcr := range uint8(24) {
				b.WriteString(hex.EncodeToString(registers[pcr]) + " ")
			}
			for _, e := range l.Events {
				if l.Hashed(e, bank) == HashedData {
					b.WriteString(hex.EncodeToString(e.Data) + " ")
				}
			}
			return b.String()
		}
		want := proven(whole)
		step := max(1, len(log)/2000)
		same := 0
		for at := 0; at < len(log); at += step {
			bad := bytes.Clone(log)
			bad[at] ^= 0x11
			l, err := ParseBootLog(bad)
			if err == nil && proven(l) == want {
				same++
			}
			for _, e := range eventsOf(l) {
				if l.Hashed(e, bank) == HashedData && !bytes.Equal(bank.Sum(e.Data), l.Digest(e, bank)) {
					t.Fatalf("%s, byte %d: proven data that does not hash to the digest", name, at)
				}
			}
		}
		// What is left alone: other banks' digests, types, and data that no digest covers.
		if same == 0 || same > len(log)/step*9/10 {
			t.Errorf("%s: %d of %d changes left registers and proven data as they were", name, same, len(log)/step)
		}
	}
}

func eventsOf(l *BootLog) []BankedEvent {
	if l == nil {
		return nil
	}
	return l.Events
}

func FuzzParseBootLog(f *testing.F) {
	f.Add(bootLog(f))
	f.Add(someLog(f, "tpm12-linux.bin"))
	f.Add(event12(0, evSeparator, make([]byte, 4)))
	f.Add(append(event12(7, evEFIVariableAuthority, []byte("shim")), make([]byte, 9)...))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := ParseBootLog(log)
		if err != nil {
			return
		}
		// Written again, an event after the other, they are a prefix of the log, and one kind of filling follows.
		var again []byte
		if l.Form == FormTCG2 {
			again = bytes.Clone(log[:32+binary.LittleEndian.Uint32(log[28:])])
		}
		for _, e := range l.Events {
			register := uint32(e.Register)
			if e.Register == NoRegister {
				register = binary.LittleEndian.Uint32(log[len(again):])
			}
			again = binary.LittleEndian.AppendUint32(again, register)
			again = binary.LittleEndian.AppendUint32(again, e.Type)
			if l.Form == FormTCG2 {
				again = binary.LittleEndian.AppendUint32(again, uint32(len(l.Banks)))
			}
			again = append(again, e.digests...)
			again = append(binary.LittleEndian.AppendUint32(again, uint32(len(e.Data))), e.Data...)
		}
		if !bytes.HasPrefix(log, again) || !padding(log[len(again):]) {
			t.Errorf("parsed and written again: got %x, want what begins %x", again, log)
		}
		for _, bank := range l.Banks {
			if _, err := l.Replay(bank); err != nil {
				continue
			}
			for _, e := range l.Events {
				l.Hashed(e, bank)
			}
		}
	})
}
