package eventlog

import (
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/fault"
)

// dstackRuntime is the type of the events that dstack's guest extends into RTMR3 itself.
const dstackRuntime = 0x08000001

// DstackEvent is one event of dstack's log of a TDX guest. What it says is untrusted unless Matches.
type DstackEvent struct {
	RTMR    uint8 // 0 to 3
	Type    uint32
	Digest  [48]byte // that of a runtime event without one is computed
	Name    string
	Payload []byte
	version int
}

// dstackEvent is its JSON, of dstack's cc-eventlog crate. Members that no register follows from are passed over.
type dstackEvent struct {
	IMR     *uint32 `json:"imr"`
	Type    *uint32 `json:"event_type"`
	Digest  string  `json:"digest"`
	Name    string  `json:"event"`
	Payload string  `json:"event_payload"`
	Version int     `json:"version"`
}

// ParseDstack parses the JSON log of a dstack guest: an array of the events of all four RTMRs, or the answer of its quote
// service that has this array as event_log, as JSON or as its text.
func ParseDstack(log []byte) ([]DstackEvent, error) {
	events, err := parseDstack(log)
	if err != nil {
		return nil, fmt.Errorf("parsing dstack log: %v", err)
	}
	return events, nil
}

func parseDstack(log []byte) ([]DstackEvent, error) {
	if len(log) > maxBootBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(log), maxBootBytes)
	}
	list := jsontext.Value(log)
	if list.Kind() == '{' {
		var answer struct {
			Log jsontext.Value `json:"event_log"`
		}
		if err := json.Unmarshal(list, &answer); err != nil {
			return nil, fmt.Errorf("no JSON object: %w", fault.JSON(err))
		}
		if list = answer.Log; list.Kind() == '"' {
			var text string
			if err := json.Unmarshal(list, &text); err != nil {
				return nil, fmt.Errorf("event_log: %w", fault.JSON(err))
			}
			list = jsontext.Value(text)
		}
	}
	if list.Kind() != '[' {
		return nil, fmt.Errorf("no JSON array of events")
	}
	var raw []dstackEvent
	if err := json.Unmarshal(list, &raw); err != nil {
		return nil, fmt.Errorf("no JSON array of events: %w", fault.JSON(err))
	}
	if len(raw) == 0 || len(raw) > maxBootEvents {
		return nil, fmt.Errorf("%d events, want 1 to %d", len(raw), maxBootEvents)
	}
	events := make([]DstackEvent, len(raw))
	for i, r := range raw {
		var err error
		if events[i], err = r.event(); err != nil {
			return nil, fmt.Errorf("event %d: %v", i, err)
		}
	}
	return events, nil
}

func (r dstackEvent) event() (DstackEvent, error) {
	if r.IMR == nil || r.Type == nil {
		return DstackEvent{}, fmt.Errorf("imr or event_type is missing")
	}
	if *r.IMR > 3 {
		return DstackEvent{}, fmt.Errorf("imr is %d, want 0 to 3", *r.IMR)
	}
	if r.Version < 0 || r.Version > 2 {
		return DstackEvent{}, fmt.Errorf("version is %d, want 1 or 2", r.Version)
	}
	e := DstackEvent{RTMR: uint8(*r.IMR), Type: *r.Type, Name: r.Name, version: r.Version}
	var err error
	if e.Payload, err = hex.DecodeString(r.Payload); err != nil {
		return e, fmt.Errorf("event_payload: %v", err)
	}
	if r.Digest == "" && e.runtime() {
		e.Digest = sha512.Sum384(e.preimage())
		return e, nil
	}
	digest, err := hex.DecodeString(r.Digest)
	if err != nil || len(digest) != len(e.Digest) {
		return e, fmt.Errorf("digest is %.100q, want %d hexadecimal digits", r.Digest, 2*len(e.Digest))
	}
	e.Digest = [48]byte(digest)
	return e, nil
}

func (e DstackEvent) runtime() bool { return e.Type == dstackRuntime }

// preimage is what dstack hashes of a runtime event: type, name and payload between colons, or in version 2 the canonical JSON of
// RFC 8785 of the three.
func (e DstackEvent) preimage() []byte {
	if e.version < 2 {
		b := binary.LittleEndian.AppendUint32(nil, e.Type)
		b = append(append(append(b, ':'), e.Name...), ':')
		return append(b, e.Payload...)
	}
	quoted, err := jsontext.AppendQuote(nil, e.Name)
	if err != nil {
		panic(fmt.Sprintf("eventlog: a name out of JSON is no text: %v", err))
	}
	return fmt.Appendf(nil, `{"name":%s,"payload":"%x","type":%d}`, quoted, e.Payload, e.Type)
}

// Hashed returns what of the event was hashed. Firmware's events carry the data of the CCEL, whose habits they have; where the log
// leaves their data out nothing is proven.
func (e DstackEvent) Hashed() Hashed {
	if e.runtime() {
		switch {
		case sha512.Sum384(e.preimage()) != e.Digest:
			return HashedOther
		case e.version < 2 && strings.Contains(e.Name, ":"):
			return HashedOpen // the colon may be the one that ends another name
		}
		return HashedData
	}
	return CCEvent{Type: e.Type, Digest: e.Digest, Data: e.Payload}.Hashed()
}

// Lie reports whether the event says something else than was measured.
func (e DstackEvent) Lie() bool {
	return (e.runtime() || hashedType(e.Type) && len(e.Payload) > 0) && e.Hashed() == HashedOther
}

// ReplayDstack returns RTMR0 to RTMR3 as the events leave them.
func ReplayDstack(events []DstackEvent) (rtmr [4][48]byte) {
	for _, e := range events {
		if e.Type != evNoAction {
			rtmr[e.RTMR] = Extend384(rtmr[e.RTMR], e.Digest)
		}
	}
	return rtmr
}
