package eventlog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// Sequence is what the runtime log of a guest states: the one list of events, registers and data that follows from a config.
// init records by it, expected registers are replays of it, and a verifier compares a guest's log with it.
type Sequence struct {
	Config   register.Digest // of the measured config
	Identity register.Digest // of its first part
	// Models are the volumes behind each model that is served, in the config's order: one, or several. A custodian has one of zeros.
	Models []Pair
	// GPU is what the GPU rule found: Found's text. Where the rule asks for GPUs it follows from no config, and is "" before it is known.
	GPU string
	// Held are the measurements of the images that have held the guest's secret before its own, the first at first. They follow from no
	// config: the guest says so, having got them with the secret.
	Held []register.Digest
	// Loan is what the custodian said that lent the secret; zero of a guest that borrowed none. It follows from no config either.
	Loan Loan
}

// Pair is what answers to one name: an engine and the model that it computes with.
type Pair struct{ Engine, Model config.Volume }

// PairsOf returns the pairs of a config's service part.
func PairsOf(service config.Service) (pairs []Pair) {
	for _, m := range service.Served() {
		pairs = append(pairs, Pair{m.Engine.Volume, m.Model.Volume})
	}
	if service.Custodian {
		pairs = []Pair{{}} // of nothing, which the log states
	}
	return pairs
}

// Loan is a secret that a custodian has lent.
type Loan struct {
	Number uint64          `json:"number"` // one more for each loan of a custodian's, from 1 on
	Lender register.Digest `json:"lender"` // SHA-256 of the id of the custodian's machine, as its evidence proved it to the borrower
}

// loanBytes are lender and number.
const loanBytes = 32 + 8

// MaxHeld is how many images can have held a secret before the one that has it.
const MaxHeld = 64

const heldBytes = MaxHeld * len(register.Digest{})

// HeldOf parses a list of measurements: digests, each once, none of them zeros.
func HeldOf(data []byte) (held []register.Digest, err error) {
	const size = len(register.Digest{})
	if len(data)%size != 0 || len(data) > heldBytes {
		return nil, fmt.Errorf("parsing measurements of those that held a secret: %d bytes, want a multiple of %d up to %d", len(data), size, heldBytes)
	}
	for at := 0; at < len(data); at += size {
		digest := register.Digest(data[at:])
		if digest == (register.Digest{}) || slices.Contains(held, digest) {
			return nil, fmt.Errorf("parsing measurements of those that held a secret: number %d is %s, want each once and none of zeros", at/size, digest)
		}
		held = append(held, digest)
	}
	return held, nil
}

// HeldData is what HeldOf parses.
func HeldData(held []register.Digest) (data []byte) {
	for _, digest := range held {
		data = append(data, digest[:]...)
	}
	return data
}

// ReleasedOf parses the data of a keys-released event: what HeldOf parses, and of a guest that borrowed the secret the loan behind it.
func ReleasedOf(data []byte) (held []register.Digest, loan Loan, err error) {
	if at := len(data) - loanBytes; at >= 0 && at%len(register.Digest{}) == 0 {
		loan = Loan{Lender: register.Digest(data[at:]), Number: binary.LittleEndian.Uint64(data[len(data)-8:])}
		if loan.Number == 0 || loan.Lender == (register.Digest{}) {
			return nil, Loan{}, fmt.Errorf("parsing keys-released: loan %d by %s, want a number and a lender that are not zero", loan.Number, loan.Lender)
		}
		data = data[:at]
	}
	if held, err = HeldOf(data); err != nil {
		return nil, Loan{}, err
	}
	return held, loan, nil
}

// Released returns the sequence with what a log's first keys-released event says. Where that is malformed it is nothing, which is then
// not what the event has.
func (s Sequence) Released(log []Record) Sequence {
	for _, r := range log {
		if r.Kind == KindKeysReleased {
			s.Held, s.Loan, _ = ReleasedOf(r.Data)
			break
		}
	}
	return s
}

// releasedData is the data of a keys-released event.
func (s Sequence) releasedData() []byte {
	data := HeldData(s.Held)
	if s.Loan != (Loan{}) {
		data = binary.LittleEndian.AppendUint64(append(data, s.Loan.Lender[:]...), s.Loan.Number)
	}
	return data
}

// SequenceOf returns the sequence of a guest that serves with these measured bytes, as far as it follows from them. It refuses bytes that
// are no config.
func SequenceOf(measured []byte) (Sequence, error) {
	s, err := Unparsed(measured)
	if err != nil {
		return Sequence{}, err
	}
	m, err := config.Decode(measured)
	if err != nil {
		return Sequence{}, err
	}
	return s.With(m.Service), nil
}

// Unparsed returns as much of the sequence as is known before anybody has parsed the measured bytes.
func Unparsed(measured []byte) (Sequence, error) {
	identity, _, err := config.Split(measured)
	if err != nil {
		return Sequence{}, err
	}
	return Sequence{Config: config.SHA256(measured), Identity: config.IdentityDigest(identity)}, nil
}

// With returns the sequence with what the service part of a config states.
func (s Sequence) With(service config.Service) Sequence {
	s.Models, s.GPU = PairsOf(service), ""
	if service.GPU == config.GPUNone {
		s.GPU = string(config.GPUNone)
	}
	return s
}

// Data is the data of the sequence's event of that kind; where a register takes several of the kind, of that number, counted from 0. It is nil
// of an event that there is not.
func (s Sequence) Data(k Kind, number int) []byte {
	if number < 0 || number >= s.times(k) {
		return nil
	}
	switch k {
	case KindConfig:
		return s.Config[:]
	case KindIdentity:
		return s.Identity[:]
	case KindEngine:
		return VolumeData(s.Models[number].Engine.Root, s.Models[number].Engine.Blocks)
	case KindModel:
		return VolumeData(s.Models[number].Model.Root, s.Models[number].Model.Blocks)
	case KindGPU:
		return []byte(s.GPU)
	case KindSeparator:
		return SeparatorData()
	case KindKeysReleased:
		return s.releasedData()
	}
	return nil
}

// Records returns the log of a guest that serves and has lost nothing.
func (s Sequence) Records(in Registers) []Record {
	var log []Record
	come := map[Place]int{}
	for i, p := range s.Places(in) {
		log = append(log, Record{Number: uint64(i), Register: p.Register, Kind: p.Kind, Data: s.Data(p.Kind, come[p])})
		come[p]++
	}
	return log
}

// Registers says where a platform keeps the log.
type Registers uint8

// The registers of the log.
const (
	// InPCRs is a TPM: PCR 13, and PCR 14 for what the secret is sealed to.
	InPCRs Registers = iota + 1
	// InRTMR is a machine without a TPM: every event once, in RTMR3. On SEV-SNP that register exists in the log alone.
	InRTMR
)

// Place is where an event of the log stands.
type Place struct {
	Register Register
	Kind     Kind
}

// order is the events up to those by which a guest serves, in their order, with the PCRs of each.
var order = []struct {
	kind Kind
	pcrs []Register
}{
	{KindConfig, []Register{PCR13}}, {KindIdentity, []Register{PCR14}},
	{KindEngine, []Register{PCR13}}, {KindModel, []Register{PCR13}}, {KindGPU, []Register{PCR13}},
	{KindSeparator, []Register{PCR13, PCR14}}, {KindKeysReleased, []Register{PCR13, PCR14}},
}

// times says how often a register takes an event of the kind.
func (s Sequence) times(k Kind) int {
	if k == KindEngine || k == KindModel {
		return len(s.Models)
	}
	return 1
}

// kinds are those of all events by which a guest serves, in order, whatever the registers: engine and model come together, once for each that is
// served.
func (s Sequence) kinds() (all []Kind) {
	for _, e := range order {
		switch e.kind {
		case KindEngine:
			for range s.Models {
				all = append(all, KindEngine, KindModel)
			}
		case KindModel: // with its engine
		default:
			all = append(all, e.kind)
		}
	}
	return all
}

// Places returns the places of all events of a guest that serves, in order.
func (s Sequence) Places(in Registers) (all []Place) {
	for _, k := range s.kinds() {
		for _, p := range in.of(k) {
			all = append(all, Place{p, k})
		}
	}
	return all
}

// of returns the registers that take an event of the kind.
func (in Registers) of(k Kind) []Register {
	if in == InRTMR {
		return []Register{RTMR3}
	}
	for _, e := range order {
		if e.kind == k {
			return e.pcrs
		}
	}
	return []Register{PCR13}
}

// Next returns the places of an event of the kind that follows those of the log's kinds so far, one for each register. Events come
// in their order; gpu-lost may come once keys are released; terminated may come at any time and ends the log. Of a sequence that does not say
// yet what is served, only config and identity follow.
func (s Sequence) Next(in Registers, so []Kind, k Kind) ([]Place, error) {
	var places []Place
	for _, at := range in.of(k) {
		places = append(places, Place{at, k})
	}
	all := s.kinds()
	come := 0
	for _, before := range so {
		if before == k {
			come++
		}
	}
	switch {
	case slices.Contains(so, KindTerminated):
		return nil, fmt.Errorf("%s follows terminated, want nothing", k)
	case come >= max(1, s.times(k)):
		return nil, fmt.Errorf("%s comes %s", k, times(come+1))
	case k == KindTerminated, k == KindGPULost && slices.Contains(so, KindKeysReleased):
		return places, nil
	case len(s.Models) == 0 && len(so) >= 2:
		return nil, fmt.Errorf("%s is event %d, want to know first what the config serves", k, len(so))
	case len(so) >= len(all):
		return nil, fmt.Errorf("%s follows %s, want gpu-lost or terminated", k, so[len(so)-1])
	case all[len(so)] != k:
		return nil, fmt.Errorf("%s is event %d, want %s", k, len(so), all[len(so)])
	}
	return places, nil
}

// times says a number above one in words.
func times(n int) string {
	if n == 2 {
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}
