package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// Types of the events in PCR 0: TCG PC Client Platform Firmware Profile 1.06, section 10.4.1.
const (
	evSCRTMVersion = 0x00000008
	evFirmwareBlob = 0x80000008
)

// LearnFirmware finds in a boot log what a firmware build does to itself: its version, and the words that it writes into its PEI volume.
// The log proves nothing: what is found are values by which the file's own bytes hash to the log's digests, and a log of another
// firmware has none. It must be of a boot on QEMU's q35, whose ACPI timer is the one word that is looked for.
func LearnFirmware(name string, code, log []byte) (FirmwareBuild, error) {
	build, err := learnFirmware(name, code, log)
	if err != nil {
		return FirmwareBuild{}, fmt.Errorf("learning firmware: %w", err)
	}
	return build, nil
}

func learnFirmware(name string, code, log []byte) (b FirmwareBuild, err error) {
	if sum := sha256.Sum256(code); machineBuilds[register.Digest(sum).String()] != "" {
		_, err := KnownFirmware(code, nil)
		return b, err
	}
	volumes, err := firmwareVolumes(code)
	if err != nil {
		return b, err
	}
	if len(volumes) != 2 {
		return b, fmt.Errorf("%d firmware volumes, want 2", len(volumes))
	}
	l, err := eventlog.ParseBootLog(log)
	if err != nil {
		return b, err
	}
	if _, err := l.Replay(eventlog.SHA256); err != nil {
		return b, err
	}
	b = FirmwareBuild{Name: name, SHA256: sha256.Sum256(code), PEISize: len(volumes[0]), DXESize: len(volumes[1]), Patches: []FirmwarePatch{}}
	// The event of the variable SecureBoot in a build that does not know it, and where its size stands, by which others differ.
	unknown := secureBootVariables(nil)[0].data
	const sizeAt = 24
	var version []byte
	var blobs [][]byte
	for _, e := range l.Events {
		switch {
		case e.Register == 0 && e.Type == evSCRTMVersion && l.Hashed(e, eventlog.SHA256) == eventlog.HashedData:
			version = e.Data
		case e.Register == 0 && e.Type == evFirmwareBlob:
			blobs = append(blobs, l.Digest(e, eventlog.SHA256))
		case e.Register == 7 && l.Hashed(e, eventlog.SHA256) == eventlog.HashedData && bytes.HasPrefix(e.Data, unknown[:sizeAt]):
			b.SecureBoot = len(e.Data) > len(unknown)
		}
	}
	if version == nil || len(blobs) != 2 {
		return b, fmt.Errorf("PCR 0 of the log has %d firmware volumes, and its version is proven: %t; want 2 and a version", len(blobs), version != nil)
	}
	if b.Version, err = utf16String(version); err != nil {
		return b, err
	}
	if dxe := sha256.Sum256(volumes[1]); !bytes.Equal(dxe[:], blobs[1]) {
		return b, fmt.Errorf("the file's DXE volume has SHA-256 %x, the log's %x: it is of another firmware", dxe, blobs[1])
	}
	if pei := sha256.Sum256(volumes[0]); bytes.Equal(pei[:], blobs[0]) {
		return b, nil
	}
	at, ok := findPatch(volumes[0], acpiTimer, [32]byte(blobs[0]))
	if !ok {
		return b, errors.New("no word of the file's PEI volume, changed to q35's ACPI timer, gives the log's digest: this build writes more there before it measures itself, " +
			"and PCR 0 may follow from the machine")
	}
	b.Patches = append(b.Patches, FirmwarePatch{at, acpiTimer})
	return b, nil
}

// findPatch finds the word of zeros that, with the value, makes the volume hash to want.
func findPatch(volume []byte, value uint32, want [32]byte) (offset int, ok bool) {
	prefix := sha256.New()
	done := 0
	for at := 0; at+4 <= len(volume); at += 4 {
		if binary.LittleEndian.Uint32(volume[at:]) != 0 {
			continue
		}
		prefix.Write(volume[done:at])
		done = at
		state, err := prefix.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return 0, false
		}
		trial := sha256.New()
		if err := trial.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
			return 0, false
		}
		trial.Write(binary.LittleEndian.AppendUint32(nil, value))
		trial.Write(volume[at+4:])
		if register.Digest(trial.Sum(nil)) == want {
			return at, true
		}
	}
	return 0, false
}

// utf16String is the text of UTF-16 that ends with a NUL.
func utf16String(b []byte) (string, error) {
	if len(b) < 2 || len(b)%2 != 0 || len(b) > 512 || b[len(b)-1] != 0 || b[len(b)-2] != 0 {
		return "", fmt.Errorf("version is %.100x, want UTF-16 with a NUL", b)
	}
	var units []uint16
	for i := 0; i < len(b)-2; i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	return string(utf16.Decode(units)), nil
}
