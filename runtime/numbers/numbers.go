// Package numbers is what a guest counts for whoever runs it: one line of a closed table, every 15 seconds, which the gateway writes, init
// checks and hands to a virtio serial port, and the tools read. NUMBERS.md beside this file is the specification.
//
//	line := numbers.Values{numbers.Asked: 12}.Line()
//	values, err := numbers.Parse(line)
//
// It holds no text of any request. The tokens of each answer are rounded by chance, so that they can't be read out of two lines. It is the
// guest's word to its host and proves nothing: what is owed stands in receipts and charges.
package numbers

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PortName is the name that the host gives to the port.
const PortName = "org.chrysalis.numbers"

const (
	// Interval is the time between two lines.
	Interval = 15 * time.Second
	// MinInterval is what init wants between two lines: one that comes earlier is dropped.
	MinInterval = 10 * time.Second
	// TokenStep is what the tokens of an answer are rounded to, by chance, so that sums come out right.
	TokenStep = 1000
	// MaxLineBytes bounds a line without its end.
	MaxLineBytes = 1024
)

// Number is one of the table.
type Number uint8

// The numbers, in the order of a line.
const (
	Asked Number = iota
	Answered
	Cut
	RefusedInvalid
	RefusedBusy
	RefusedFull
	RefusedEngine
	RefusedUnrecorded
	Challenges
	PromptTokens
	CompletionTokens
	Begun
	FirstToken
	Places
	Computing
	Waiting
	KeyEnds
	EvidenceMade
	JournalBytes
	Receipts
	Contracts
	ContractsLeft
	ProofsWaiting

	Count // how many there are
)

// Kind is how a number moves.
type Kind string

// The kinds.
const (
	Counter Kind = "counter" // rises, and begins anew with each boot
	Gauge   Kind = "gauge"   // goes up and down
	Instant Kind = "instant" // Unix seconds; 0 where it has not come
)

// Row is what is known of a number.
type Row struct {
	Name string
	Kind Kind
	Unit string // "" counts things
	Step uint64 // what it is a multiple of
	Help string
}

var rows = [Count]Row{
	Asked:             {"asked", Counter, "", 1, "requests for an answer, whatever became of them"},
	Answered:          {"answered", Counter, "", 1, "answers that are recorded whole"},
	Cut:               {"cut", Counter, "", 1, "answers that are recorded and ended early"},
	RefusedInvalid:    {"refused_invalid", Counter, "", 1, "requests that no guest takes, or that this config does not"},
	RefusedBusy:       {"refused_busy", Counter, "", 1, "requests for which there was no place, or no memory"},
	RefusedFull:       {"refused_full", Counter, "", 1, "requests of payment contracts for which the journal had no room"},
	RefusedEngine:     {"refused_engine", Counter, "", 1, "requests that the engine did not take, or did not end"},
	RefusedUnrecorded: {"refused_unrecorded", Counter, "", 1, "answers that the keeper did not record"},
	Challenges:        {"challenges", Counter, "", 1, "requests for evidence"},
	PromptTokens:      {"prompt_tokens", Counter, "tokens", TokenStep, "tokens of the prompts of recorded answers, each rounded by chance"},
	CompletionTokens:  {"completion_tokens", Counter, "tokens", TokenStep, "tokens of recorded answers, each rounded by chance"},
	Begun:             {"begun", Counter, "", 1, "streamed answers of which the first words were sent"},
	FirstToken:        {"first_token", Counter, "milliseconds", 1, "how long those took from their whole request to their first words, together"},
	Places:            {"places", Gauge, "", 1, "requests that can be computed at a time"},
	Computing:         {"computing", Gauge, "", 1, "requests that are computed now"},
	Waiting:           {"waiting", Gauge, "", 1, "requests that wait for a place now"},
	KeyEnds:           {"key_ends", Instant, "seconds", 1, "when the time of the newest key set is over"},
	EvidenceMade:      {"evidence_made", Instant, "seconds", 1, "when the hardware was last quoted"},
	JournalBytes:      {"journal_bytes", Gauge, "bytes", 1, "size of the journal's disk"},
	Receipts:          {"receipts", Gauge, "", 1, "receipts of the journal, since it began"},
	Contracts:         {"contracts", Gauge, "", 1, "payment contracts of the journal, since it began; guests that charge nothing count one"},
	ContractsLeft:     {"contracts_left", Gauge, "", 1, "payment contracts that the journal has room for beside those"},
	ProofsWaiting:     {"proofs_waiting", Gauge, "", 1, "payment contracts of which the host has not taken the newest proof"},
}

// Row returns what is known of the number.
func (n Number) Row() Row { return rows[n] }

// All returns the numbers in the order of a line.
func All() []Number {
	all := make([]Number, Count)
	for i := range all {
		all[i] = Number(i)
	}
	return all
}

// Values are all numbers of one moment.
type Values [Count]uint64

// prefix begins a line.
const prefix = "numbers"

// Line returns the values as a line without its end: each name with its value, in the table's order, rounded down to the table's steps.
func (v Values) Line() string {
	b := []byte(prefix)
	for n, row := range rows {
		b = append(append(append(b, ' '), row.Name...), '=')
		b = strconv.AppendUint(b, v[n]-v[n]%row.Step, 10)
	}
	return string(b)
}

// Parse parses a line without its end. A line has one form: every name once and in order, no other, and no value that is not rounded.
func Parse(line string) (v Values, err error) {
	if len(line) > MaxLineBytes {
		return v, fmt.Errorf("parsing numbers: a line of %d bytes, want at most %d", len(line), MaxLineBytes)
	}
	words := strings.Split(line, " ")
	if len(words) != int(Count)+1 || words[0] != prefix {
		return v, fmt.Errorf("parsing numbers: %d words of which the first is %.20q, want %d and %q", len(words), words[0], int(Count)+1, prefix)
	}
	for n, word := range words[1:] {
		row := rows[n]
		text, named := strings.CutPrefix(word, row.Name+"=")
		v[n], err = strconv.ParseUint(text, 10, 64)
		if !named || err != nil || strconv.FormatUint(v[n], 10) != text || v[n]%row.Step != 0 {
			return Values{}, fmt.Errorf("parsing numbers: word %d is %.60q, want %s=N in multiples of %d", n+1, word, row.Name, row.Step)
		}
	}
	return v, nil
}

// Last returns the values of the last whole line in what a port has written, and false where there is none. The first part of a line that
// was cut off before it, and a line that is still being written, are passed over; any other line is an error.
func Last(written []byte) (v Values, found bool, err error) {
	end := bytes.LastIndexByte(written, '\n')
	if end < 0 {
		return v, false, nil
	}
	begin := bytes.LastIndexByte(written[:end], '\n') + 1
	v, err = Parse(string(written[begin:end]))
	return v, err == nil, err
}
