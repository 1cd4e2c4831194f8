package explain

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"

	"chrysalis/measure"
	"chrysalis/measure/eventlog"
)

// Types of boot events: TCG PC Client Platform Firmware Profile 1.06, section 10.4.1.
const (
	typeNoAction      = 0x03
	typeVersion       = 0x08
	typeSecureBoot    = 0x80000001
	typeBootVariable  = 0x80000002
	typeApplication   = 0x80000003
	typeDriver        = 0x80000004
	typePartitions    = 0x80000006
	typeAction        = 0x80000007
	typeHandoff       = 0x80000009
	typeAuthority     = 0x800000e0
	maxShownDataBytes = 64
)

// event is one of an expected list or of a guest's log. Digests are hexadecimal: what is compared has one length.
type event struct {
	number  int // in the guest's log
	runtime bool
	digest  string

	input measure.Input // what an expected one follows from
	kind  eventlog.Kind // of the runtime log
	name  string

	typ    uint32 // of a guest's boot event
	data   []byte // of a guest's: what it says, unless proven
	proven bool
}

func runtimeEvent(number int, r eventlog.Record, digest []byte) event {
	return event{number: number, runtime: true, digest: hex.EncodeToString(digest), kind: r.Kind, data: r.Data, proven: true}
}

// expected makes events of a computed list, for those registers that name keeps.
func expected[D [32]byte | [48]byte](into map[string][]event, events []measure.Event[D], name func(uint8) string) {
	for _, e := range events {
		digest := make([]byte, 0, 48)
		for i := range len(e.Digest) {
			digest = append(digest, e.Digest[i])
		}
		into[name(e.Register)] = append(into[name(e.Register)], event{digest: hex.EncodeToString(digest), input: e.Input, name: e.Name})
	}
}

// replay extends a register of size bytes from zero.
func replay(events []event, size int) string {
	value := make([]byte, size)
	for _, e := range events {
		digest, err := hex.DecodeString(e.digest)
		if err != nil {
			panic("explain: a digest of ours is no hexadecimal")
		}
		if size == sha256.Size {
			sum := sha256.Sum256(append(value, digest...))
			value = sum[:]
		} else {
			sum := sha512.Sum384(append(value, digest...))
			value = sum[:]
		}
	}
	return hex.EncodeToString(value)
}

// place names the event in its log.
func (e event) place() string {
	if e.runtime {
		return fmt.Sprintf("runtime %d", e.number)
	}
	return fmt.Sprintf("boot %d", e.number)
}

func (e event) order() int {
	if e.runtime {
		return placeRuntime + e.number
	}
	return e.number
}

var inputMeanings = map[measure.Input]string{
	measure.InputFirmware: "firmware's %s", measure.InputSecureBoot: "Secure Boot variable %s",
	measure.InputVariableStore: "firmware's variable store",
	measure.InputBootVariables: "boot variable %s", measure.InputMemory: "list of the machine's memory",
	measure.InputSetting: "machine setting %s",
	measure.InputSMBIOS:  "SMBIOS",
	measure.InputACPI:    "ACPI tables, %s", measure.InputKernel: "kernel", measure.InputInitrd: "initrd",
	measure.InputCmdline: "command line",
	measure.InputUKI:     "boot image", measure.InputSection: "boot image's section: %s", measure.InputPartitions: "partition table",
	measure.InputStep:      "%s",
	measure.InputSeparator: "separator",
}

var typeMeanings = map[uint32]string{
	0x04: "separator", 0x06: "tagged event", typeVersion: "firmware's version", 0x0a: "platform configuration",
	0x0d:           "boot loader's own event",
	typeSecureBoot: "Secure Boot variable", typeBootVariable: "boot variable", typeApplication: "boot image",
	typeDriver:     "driver or option ROM",
	typePartitions: "partition table", typeAction: "action", 0x80000008: "firmware volume", 0x8000000a: "firmware volume",
	typeHandoff: "table handed over", 0x8000000b: "table handed over",
	typeAuthority: "key that has vouched for an image",
}

// meaning says what the event is. Of a guest's boot event only proven data says more than its type, and the type is the log's
// own word.
func (e event) meaning() string {
	if e.kind != 0 {
		text := e.kind.String() + " event of the guest"
		if e.kind == eventlog.KindGPU && len(e.data) > 0 {
			text += fmt.Sprintf(": %q", e.data)
		}
		return text
	}
	if text, ok := inputMeanings[e.input]; ok {
		if strings.Contains(text, "%s") {
			return fmt.Sprintf(text, e.name)
		}
		return text
	}
	text, ok := typeMeanings[e.typ]
	if !ok {
		text = fmt.Sprintf("event of type %#x", e.typ)
	}
	if name, _, ok := e.variable(); ok {
		return text + " " + name
	}
	if said, ok := e.says(); ok {
		return text + ": " + said
	}
	return text
}

// says returns proven data that is text.
func (e event) says() (string, bool) {
	if !e.proven || len(e.data) == 0 || len(e.data) > maxShownDataBytes {
		return "", false
	}
	text := strings.TrimRight(string(e.data), "\x00")
	if e.typ == typeVersion {
		text = utf16Text(e.data)
	}
	for _, c := range text {
		if c < ' ' || c > '~' {
			return "", false
		}
	}
	return text, text != ""
}

// variable returns name and contents of the UEFI variable in proven data. The data of a boot variable may be the structure
// around what was hashed: then its name is not proven, and is said none the less.
func (e event) variable() (name string, content []byte, ok bool) {
	if !e.proven || e.typ != typeSecureBoot && e.typ != typeBootVariable && e.typ != typeAuthority || len(e.data) < 32 {
		return "", nil, false
	}
	count := int(e.data[16])
	if len(e.data) < 32+2*count {
		return "", nil, false
	}
	return utf16Text(e.data[32 : 32+2*count]), e.data[32+2*count:], true
}

func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, uint16(b[0])|uint16(b[1])<<8)
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}

// pair is an expected event beside the guest's.
type pair struct{ want, got *event }

func (p pair) same() bool { return p.want != nil && p.got != nil && p.want.digest == p.got.digest }

// align keeps as many equal events beside each other as their order allows, and puts the others side by side in between.
func align(want, got []event) (pairs []pair) {
	// common[i][j] is the most events that want[i:] and got[j:] have in common.
	common := make([][]int, len(want)+1)
	for i := range common {
		common[i] = make([]int, len(got)+1)
	}
	for i := len(want) - 1; i >= 0; i-- {
		for j := len(got) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if want[i].digest == got[j].digest {
				common[i][j] = 1 + common[i+1][j+1]
			}
		}
	}
	i, j := 0, 0
	for i < len(want) || j < len(got) {
		var p pair
		switch {
		case i == len(want):
			p.got = &got[j]
		case j == len(got):
			p.want = &want[i]
		case want[i].digest == got[j].digest || common[i+1][j+1] == common[i][j]:
			p = pair{&want[i], &got[j]}
		case common[i+1][j] == common[i][j]:
			p.want = &want[i]
		default:
			p.got = &got[j]
		}
		if p.want != nil {
			i++
		}
		if p.got != nil {
			j++
		}
		pairs = append(pairs, p)
	}
	return pairs
}
