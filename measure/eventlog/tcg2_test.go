package eventlog

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-eventlog/testdata"
)

// recordedPCRs are the registers of the boot whose log lies in testdata/boots, read from /sys/class/tpm/tpm0/pcr-sha256
// in that boot: QEMU 10.0, OVMF 2025.02-8+deb13u1, swtpm, direct boot of the guest's kernel with the guest's devices.
var recordedPCRs = map[int]string{
	0:  "0101271704ccc2360ddbb08438d591c23fb8a0a9cb0cebc60cefea7868833f8e",
	1:  "9be682af1290a01e5a428411634b22179ea3b9ff5724b3775e2d7eeba002dc91",
	2:  "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
	3:  "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
	4:  "e4add43ba270b4578809018d98664c1c0c567bbce3757d35d2aaa5b0f944f450",
	5:  "a5ceb755d043f32431d63e39f5161464620a3437280494b5850dc1b47cc074e0",
	6:  "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
	7:  "b5710bf57d25623e4019027da116821fa99f5c81e9e38b87671cc574f9281439",
	8:  "0000000000000000000000000000000000000000000000000000000000000000",
	9:  "e940efef9d5ce36070df0609fdea1a1723e425c3073d419b56b44d3ab8e1e092",
	11: "0000000000000000000000000000000000000000000000000000000000000000",
	12: "0000000000000000000000000000000000000000000000000000000000000000",
	13: "0000000000000000000000000000000000000000000000000000000000000000",
	14: "0000000000000000000000000000000000000000000000000000000000000000",
	15: "0000000000000000000000000000000000000000000000000000000000000000",
}

const recorded = "qemu10-ovmf2025.02.tcg2"

func bootLog(t testing.TB) []byte {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("testdata", "boots", recorded))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestReplayBootAgainstTPM has the TPM's own registers as second opinion.
func TestReplayBootAgainstTPM(t *testing.T) {
	events, err := ParseBoot(bootLog(t))
	if err != nil {
		t.Fatal(err)
	}
	bank := ReplayBoot(events)
	for register, want := range recordedPCRs {
		if got := hex.EncodeToString(bank[register][:]); got != want {
			t.Errorf("PCR %d: got %s, want %s", register, got, want)
		}
	}
	proven := 0
	for i, e := range events {
		if e.Broken() {
			t.Errorf("event %d of type %#x: its data does not hash to its digest", i, e.Type)
		}
		if e.Matches() {
			proven++
		}
	}
	// Two boot variables are measured by their content alone.
	if got, want := proven, 17; got != want {
		t.Errorf("proven events: got %d, want %d", got, want)
	}
}

// TestEditedLogReplays shows why Matches exists: with other data and the same digests a log replays.
func TestEditedLogReplays(t *testing.T) {
	log := bootLog(t)
	at := bytes.Index(log, []byte("Calling EFI Application"))
	log[at] ^= 1
	events, err := ParseBoot(log)
	if err != nil {
		t.Fatal(err)
	}
	bank := ReplayBoot(events)
	if got := hex.EncodeToString(bank[4][:]); got != recordedPCRs[4] {
		t.Errorf("PCR 4: got %s, want %s", got, recordedPCRs[4])
	}
	broken := slices.IndexFunc(events, func(e BootEvent) bool { return e.Broken() })
	if broken < 0 || events[broken].Register != 4 {
		t.Errorf("broken event: got index %d, want the action of PCR 4", broken)
	}
}

// TestVariableName: EDK2 measures a boot variable's content. A log can give it another name, so it is not proven; another
// content breaks the event.
func TestVariableName(t *testing.T) {
	events, err := ParseBoot(bootLog(t))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(events, func(e BootEvent) bool { return e.Type == evEFIVariableBoot })
	if i < 0 {
		t.Fatal("the log has no boot variable")
	}
	for _, tt := range []struct {
		name   string
		at     int // byte of the data that is changed, from the end where negative
		broken bool
	}{{"as it was", 0, false}, {"name", 32, false}, {"content", -1, true}, {"length of the name", 16, true}} {
		e := events[i]
		e.Data = bytes.Clone(e.Data)
		if tt.at != 0 {
			e.Data[(tt.at+len(e.Data))%len(e.Data)] ^= 1
		}
		if e.Matches() || e.Broken() != tt.broken {
			t.Errorf("%s: matches %t and broken %t, want false and %t", tt.name, e.Matches(), e.Broken(), tt.broken)
		}
	}
}

// TestStartupLocality has go-eventlog's logs of real machines as second opinion: one of them started at locality 3.
func TestStartupLocality(t *testing.T) {
	started := 0
	for name, log := range map[string][]byte{
		"arch": testdata.ArchLinuxWorkstationEventLog, "rhel": testdata.Rhel8EventLog, "ubuntu on SEV-SNP": testdata.Ubuntu2404AmdSevSnpEventLog,
		"cos on SEV": testdata.Cos121AmdSevEventLog, "gdc": testdata.GdcHost, "glinux": testdata.GlinuxAlexEventLog,
	} {
		events, err := ParseBoot(log)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if slices.ContainsFunc(events, func(e BootEvent) bool {
			return bytes.HasPrefix(e.Data, []byte(localitySignature)) && e.Data[len(e.Data)-1] != 0
		}) {
			started++
		}
		var bank []register.MR
		for i, value := range ReplayBoot(events) {
			bank = append(bank, register.PCR{Index: i, Digest: bytes.Clone(value[:]), DigestAlg: crypto.SHA256})
		}
		if _, err := tcg.ParseAndReplay(log, bank, tcg.ParseOpts{}); err != nil {
			t.Errorf("%s: go-eventlog does not replay to these registers: %v", name, err)
		}
	}
	if started == 0 {
		t.Error("no log of a machine that started at another locality")
	}
}

func TestParseBootRefuses(t *testing.T) {
	good := bootLog(t)
	headerEnd := 32 + int(binary.LittleEndian.Uint32(good[28:]))
	edit := func(at int, value ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], value)
		return bad
	}
	for _, tt := range []struct {
		name string
		log  []byte
		want string
	}{
		{"empty", nil, "header: 0 bytes"},
		{"cut short", good[:len(good)-1], "want at most"},
		{"trailing padding", append(bytes.Clone(good), 0xff, 0xff), "2 bytes left"},
		{"too long", make([]byte, maxBootBytes+1), "want at most"},
		{"SHA-1 log", edit(32, []byte("Spec ID Event02")...), "no Spec ID Event03"},
		{"header in register 1", edit(0, 1), "want at most 0"},
		{"header with a digest", edit(8, 1), "zero digest"},
		{"version", edit(32+21, 1), "want 2.0"},
		{"no banks", edit(32+24, 0), "0 banks"},
		{"many banks", edit(32+24, 9), "9 banks"},
		{"unknown bank", edit(32+28, 0x99), "bank 0x99"},
		{"bank of another size", edit(32+30, 32), "digests of 32 bytes"},
		{"no SHA-256 bank", edit(32+32, 0x27), "0 SHA-256 banks"},
		{"vendor information", edit(headerEnd-1, 1), "vendor information"},
		{"register 24", edit(headerEnd, 24), "want at most 23"},
		{"a digest more", edit(headerEnd+8, 5), "5 digests"},
		{"banks in another order", edit(headerEnd+12, 0x0b), "want 0x4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseBoot(tt.log); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func FuzzParseBoot(f *testing.F) {
	f.Add(bootLog(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, log []byte) {
		events, err := ParseBoot(log)
		if err != nil {
			return
		}
		// The header's platform class, errata and UINTN size are not kept, so it is compared as it stands.
		again := bytes.Clone(log[:32+binary.LittleEndian.Uint32(log[28:])])
		banks, _, err := cutBootHeader(log, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			again = binary.LittleEndian.AppendUint32(again, uint32(e.Register))
			again = binary.LittleEndian.AppendUint32(again, e.Type)
			again = binary.LittleEndian.AppendUint32(again, uint32(len(banks)))
			again = append(again, e.digests...)
			again = binary.LittleEndian.AppendUint32(again, uint32(len(e.Data)))
			again = append(again, e.Data...)
		}
		if !bytes.Equal(again, log) {
			t.Errorf("parsed and written again: got %x, want %x", again, log)
		}
	})
}

// TestNoActionAnywhere: an event that extends nothing may name any register, and any other event none beyond a TPM's.
func TestNoActionAnywhere(t *testing.T) {
	good := bootLog(t)
	events, err := ParseBoot(good)
	if err != nil {
		t.Fatal(err)
	}
	want := ReplayBoot(events)
	event := func(register, typ uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, register)
		b = binary.LittleEndian.AppendUint32(b, typ)
		banks, _, err := cutBootHeader(good, 0)
		if err != nil {
			t.Fatal(err)
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(len(banks)))
		for _, alg := range banks {
			b = append(binary.LittleEndian.AppendUint16(b, alg), bytes.Repeat([]byte{7}, digestSizes[alg])...)
		}
		return append(binary.LittleEndian.AppendUint32(b, 4), "data"...)
	}
	for _, tt := range []struct {
		name          string
		register, typ uint32
		want          string // "": parsed, and nothing in PCR 0 to 15 changes
		is            uint8
	}{
		{"no action in no register", 0xffffffff, evNoAction, "", NoRegister},
		{"no action beyond a TPM's", 24, evNoAction, "", NoRegister},
		{"no action in PCR 23", 23, evNoAction, "", 23},
		{"an event in PCR 16", 16, evSeparator, "", 16},
		{"an event in PCR 23", 23, evSeparator, "", 23},
		{"an event beyond a TPM's", 24, evSeparator, "register is 24, want at most 23", 0},
		{"an event in no register", 0xffffffff, evSeparator, "register is 4294967295", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := ParseBoot(append(bytes.Clone(good), event(tt.register, tt.typ)...))
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if last := events[len(events)-1]; last.Register != tt.is {
				t.Errorf("register: got %d, want %d", last.Register, tt.is)
			}
			if got := ReplayBoot(events); got != want {
				t.Error("the replay differs")
			}
		})
	}
}
