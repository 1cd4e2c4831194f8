package nvidia

import (
	"strings"
	"time"

	"chrysalis/attest/check/checktest"
)

// VerifyDropping is Verify with the check of the given name not judged, of the machine or of each device.
func VerifyDropping(e Evidence, o Options, at time.Time, roots Roots, name string) (*Result, error) {
	steps, each := machineChecks, deviceChecks
	if parts := strings.Split(name, "."); len(parts) == 3 {
		each = checktest.Dropping(each, parts[2])
	} else {
		steps = checktest.Dropping(steps, name)
	}
	return verify(steps, each, e, o, at, roots)
}

// CheckNames lists the checks of machines and of devices, and those that can't be dropped, because later checks read what they parse.
func CheckNames() (machine, device []string, parsers map[string]bool) {
	parsers = map[string]bool{"gpu": true, "switch": true}
	for _, c := range machineChecks {
		machine = append(machine, c.Name)
		parsers[c.Name] = parsers[c.Name] || strings.HasSuffix(c.Name, "-format")
	}
	for _, c := range deviceChecks {
		device = append(device, c.Name)
		parsers[c.Name] = strings.HasSuffix(c.Name, "-format")
	}
	return machine, device, parsers
}

// SignatureOf says what is wrong with a document's signature.
func SignatureOf(r *RIM) error { return r.wrong }

// Canonical returns a document in Canonical XML 1.1 without comments.
func Canonical(text []byte) ([]byte, error) {
	root, err := parseXML(text)
	if err != nil {
		return nil, err
	}
	return root.canonical(nil), nil
}

// AgainCBOR parses an item and writes it.
func AgainCBOR(b []byte) ([]byte, error) {
	item, err := parseCBOR(b)
	if err != nil {
		return nil, err
	}
	return item.append(nil), nil
}

// RootOfRIM returns the root of a document's chain.
func RootOfRIM(r *RIM) Root { return RootOf(r.chain.root()) }
