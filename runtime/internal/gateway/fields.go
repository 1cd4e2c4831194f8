package gateway

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// treatment is what becomes of a field.
type treatment uint8

const (
	unknown treatment = iota // the zero value: refused like every name that is in no table
	taken                    // read here, and written anew
	passed                   // to the engine as the client wrote it, once it is judged
	ignored                  // does nothing to the answer, and is told in the header Chrysalis-Ignored
	refused                  // known, and not to be had here
)

// field is one name that an object of a request may have. The tables of fields are what the parser goes by; API.md lists them, held by a
// test. null for a known field is the same as no field: several SDKs write it for what was not set.
type field struct {
	name string
	does treatment
	// judge is nil for what is not judged by itself: the fields that do nothing, and those whose reader refuses.
	judge judge
	// says is what the field may be, which a refusal says too, or why it is not to be had.
	says string
}

// Bounds of a body beside the measured limit of its bytes.
const (
	maxMessages    = 1024
	maxDepth       = 64
	maxStops       = 32
	maxStopBytes   = 256
	maxSchemaBytes = 64 << 10
	maxTools       = 128
	maxBias        = 300
	maxTextBytes   = 16 << 20
	maxIDBytes     = 128
)

// find returns where a table has a name, less than 0 where it has not.
func find(fields []field, name string) int {
	return slices.IndexFunc(fields, func(f field) bool { return f.name == name })
}

// sorted is an object by its table: each value in the place of its row. The values point into the body.
type sorted struct {
	fields []field
	values []jsontext.Value
}

// of returns a field's value, nil when it was not set.
func (s sorted) of(name string) jsontext.Value {
	i := find(s.fields, name)
	if i < 0 {
		panic("gateway: no field " + name)
	}
	return s.values[i]
}

// members are those that an object of one type has, all of them, and those that it may have.
type members struct{ must, may []string }

// are reports whether an object has these members, and beside them and its type no other that is read.
func (m members) are(s sorted) bool {
	for i, row := range s.fields {
		there := s.values[i] != nil
		if row.does == taken && row.name != "type" && there != slices.Contains(m.must, row.name) && !slices.Contains(m.may, row.name) {
			return false
		}
	}
	return true
}
