package eventlog

import "bytes"

// Hashed is what of an event's data its digest covers.
type Hashed string

// What writers of logs hash. Of all but the first a part of what the log says is not proven.
const (
	HashedData    Hashed = "data"             // all of it
	HashedContent Hashed = "variable content" // EDK2, of boot variables, and firmware with a TPM 1.2 of any: not the name
	HashedButLast Hashed = "all but the last byte"
	HashedText    Hashed = "text after the first word"                  // GRUB, of its commands: without what GRUB says that it is
	HashedOpen    Hashed = "name and payload, of which the end is open" // dstack, of a name with a colon
	HashedOther   Hashed = ""                                           // what was hashed is not in the log: a file, a range of memory
)

// grubPrefixes open the data of GRUB's events; what follows was hashed, by GRUB 2.04 and newer without its NUL.
var grubPrefixes = []string{"grub_cmd: ", "kernel_cmdline: ", "module_cmdline: ", "grub_cmd ", "grub_kernel_cmdline "}

// Hashed returns what of the event's data was hashed in a bank of the log. An EV_NO_ACTION event extends nothing, so nothing was.
func (l *BootLog) Hashed(e BankedEvent, bank Algorithm) Hashed {
	digest := l.Digest(e, bank)
	return hashedPart(e.Type, e.Data, func(data []byte) bool { return bytes.Equal(bank.Sum(data), digest) })
}

// Hashed returns what of the event's data was hashed.
func (e CCEvent) Hashed() Hashed { return hashedPart(e.Type, e.Data, e.is) }

// Lie reports whether the event says something else than was measured: the profile ties this type's digest to its data, and
// they disagree in each way that is known of a writer.
func (l *BootLog) Lie(e BankedEvent, bank Algorithm) bool {
	return hashedType(e.Type) && l.Hashed(e, bank) == HashedOther
}

// Lie reports whether the event says something else than was measured.
func (e CCEvent) Lie() bool { return hashedType(e.Type) && e.Hashed() == HashedOther }

func hashedPart(typ uint32, data []byte, is func([]byte) bool) Hashed {
	if typ == evNoAction {
		return HashedOther
	}
	if is(data) {
		return HashedData
	}
	switch typ {
	case evEFIVariableBoot, evEFIVariableConfig:
		if content, ok := variableContent(data); ok && is(content) {
			return HashedContent
		}
	case evEFIVariableAuthority:
		// Shim before 15.3 counts one byte too few of the structure that it hashes.
		if len(data) > 0 && is(data[:len(data)-1]) {
			return HashedButLast
		}
	case evIPL:
		for _, prefix := range grubPrefixes {
			if text, ok := bytes.CutPrefix(data, []byte(prefix)); ok && (is(text) || is(bytes.TrimSuffix(text, []byte{0}))) {
				return HashedText
			}
		}
	}
	return HashedOther
}
