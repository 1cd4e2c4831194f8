package nvidia

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"chrysalis/attest/check"
)

const maxRIMBytes = maxXMLBytes

// Form is how a RIM is written.
type Form string

// The forms.
const (
	FormSWID  Form = "swid"  // XML
	FormCoRIM Form = "corim" // CBOR in COSE
)

// RIM is a document of reference values, parsed. Whether its signer is trusted, and whether it is of a device, is not judged yet.
type RIM struct {
	Form       Form
	Tag        string // SWID: tagId; CoRIM: its id, which is the name under which NVIDIA's service has it
	Edition    string // SWID: GPU or SWITCH
	Product    string // SWID: chip
	Version    string // SWID: of the driver or of the VBIOS
	References []Reference

	notBefore, notAfter time.Time // CoRIM: where it says; zero otherwise
	chain               chain
	wrong               error // what is wrong with its signature
}

// Reference is what a report must have at an index of SPDM: one of the values. A mask, where there is one, says which bits of the value
// of the same place count.
type Reference struct {
	Index  uint8
	Values [][]byte
	Masks  [][]byte // nil where no value has one
}

// ParseRIM parses a document of either form. It proves nothing but that the document is one.
func ParseRIM(document []byte) (*RIM, error) { return parseRIM(nil, document, nil) }

func parseRIM(facts *check.Facts, document []byte, authorities [][]byte) (*RIM, error) {
	if len(document) > maxRIMBytes {
		return nil, fmt.Errorf("parsing RIM: %d bytes, want at most %d", len(document), maxRIMBytes)
	}
	if len(document) == 0 {
		return nil, errors.New("parsing RIM: no bytes")
	}
	read := func() (*RIM, error) { return parseSWID(facts, document) }
	if document[0] == tagCOSESign1 {
		read = func() (*RIM, error) { return parseCoRIM(facts, document, authorities) }
	}
	r, err := read()
	if err != nil {
		return nil, fmt.Errorf("parsing RIM: %w", err)
	}
	return r, nil
}

// String names the document.
func (r *RIM) String() string {
	if r.Form == FormCoRIM {
		return r.Tag
	}
	return fmt.Sprintf("%s %s of the %s %s", r.Edition, r.Version, r.Product, r.Form)
}

// matches reports whether a measured value is one of the reference's.
func (r Reference) matches(got []byte) bool {
	for i, want := range r.Values {
		if len(r.Masks) == 0 || r.Masks[i] == nil {
			if bytes.Equal(got, want) {
				return true
			}
			continue
		}
		if len(got) == len(want) && masked(got, want, r.Masks[i]) {
			return true
		}
	}
	return false
}

func masked(got, want, mask []byte) bool {
	for i := range got {
		if (got[i]^want[i])&mask[i] != 0 {
			return false
		}
	}
	return true
}
