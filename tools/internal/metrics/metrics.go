// Package metrics is what a host knows of its guests as numbers, in one table: what each guest says on its numbers' port, and what the host
// sees itself. Prometheus' text, a board of Grafana's and METRICS.md beside this file are all made of that table.
//
//	text := metrics.Text(guests)
//	board := metrics.Board()
//
// It is the host's view. What a guest has earned is counted out of proofs whose signatures were checked; the rest proves nothing.
package metrics

import (
	"strings"
	"time"

	"chrysalis/init/status"
	"chrysalis/runtime/numbers"
)

// Guest is what is known of a guest at one moment.
type Guest struct {
	Name, State, Model string
	Serving            bool
	Lines              []status.Line // of its status port
	Numbers            numbers.Values
	Age                time.Duration // of the numbers
	Counted            bool          // there are numbers, of a guest that runs
	Earned             *Earned       // nil where it could not be found out
}

// Earned is what the guests of a folder have handed out.
type Earned struct {
	Claims, Unproved int    // newest claim of each contract and guest
	Tokens, Nanoton  uint64 // of those that are proved
}

// Metric is a row of the table.
type Metric struct {
	Name string // as Prometheus has it
	Kind string // counter or gauge
	Help string
	Unit string // as Grafana names it
	// Port is the number that the guest says; false of a metric that the host sees itself.
	Port bool
	// Per is the counter by which this one makes a mean, "" where it says something alone.
	Per   string
	value func(Guest) (float64, bool)
}

// prefix begins every name.
const prefix = "chrysalis_"

// Kinds and units.
const (
	gauge   = "gauge"
	counter = "counter"

	short   = "short"
	bytes   = "bytes"
	seconds = "s"
	moments = "dateTimeAsIso"
)

// host are the metrics that the host sees itself.
var host = []Metric{
	{prefix + "up", gauge, "1 where the guest serves and answered a greeting, 0 where it does not", short, false, "",
		func(g Guest) (float64, bool) { return truth(g.Serving), true }},
	{prefix + "engine_up", gauge, "1 where the guest said last that its engine answers", short, false, "", engine},
	{prefix + "boot_seconds", gauge, "how long the last boot took until the guest served", seconds, false, "", boot},
	{prefix + "engine_down_total", counter, "how often the engine went down since the boot", short, false, "",
		func(g Guest) (float64, bool) { return float64(events(g, status.EngineDown)), len(g.Lines) > 0 }},
	{prefix + "quotes_failed_total", counter, "how often evidence did not come about since the boot", short, false, "", func(g Guest) (float64, bool) {
		return float64(events(g, status.QuoteLate) + events(g, status.QuoteBusy) + events(g, status.QuoteRefused) + events(g, status.QuoteForeign) +
			events(g, status.QuoteFailed)), len(g.Lines) > 0
	}},
	{prefix + "numbers_age_seconds", gauge, "how old the guest's numbers are; a guest says them every 15 seconds", seconds, false, "",
		func(g Guest) (float64, bool) { return g.Age.Seconds(), g.Counted }},
	{prefix + "claims", gauge, "claims that guests of this folder have handed out, the newest of each contract", short, false, "",
		func(g Guest) (float64, bool) { return earned(g, func(e *Earned) float64 { return float64(e.Claims) }) }},
	{prefix + "claims_unproved", gauge, "claims of these that are signed by no guest that this folder knows", short, false, "",
		func(g Guest) (float64, bool) {
			return earned(g, func(e *Earned) float64 { return float64(e.Unproved) })
		}},
	{prefix + "earned_tokens", gauge, "tokens of proved claims since their contracts began, settled on chain or not", short, false, "",
		func(g Guest) (float64, bool) { return earned(g, func(e *Earned) float64 { return float64(e.Tokens) }) }},
	{prefix + "earned_nanoton", gauge, "what they cost at the price of the newest receipt, settled on chain or not", short, false, "",
		func(g Guest) (float64, bool) { return earned(g, func(e *Earned) float64 { return float64(e.Nanoton) }) }},
}

// All returns the table: what the host sees, then what guests say in the order of their line.
func All() []Metric {
	all := append([]Metric(nil), host...)
	for _, n := range numbers.All() {
		all = append(all, said(n))
	}
	return all
}

// said is the metric of a number that guests say.
func said(n numbers.Number) Metric {
	row := n.Row()
	m := Metric{Name: prefix + row.Name, Kind: gauge, Help: row.Help, Unit: short, Port: true, value: func(g Guest) (float64, bool) {
		return float64(g.Numbers[n]), g.Counted && (row.Kind != numbers.Instant || g.Numbers[n] != 0)
	}}
	switch {
	case row.Unit == "milliseconds": // Prometheus has seconds
		m.Kind, m.Unit, m.Name, m.Per = counter, seconds, m.Name+"_seconds_total", prefix+numbers.Begun.Row().Name+"_total"
		m.value = func(g Guest) (float64, bool) { return float64(g.Numbers[n]) / 1000, g.Counted }
	case row.Kind == numbers.Counter:
		m.Kind, m.Name = counter, m.Name+"_total"
	case row.Kind == numbers.Instant:
		m.Unit, m.Name = moments, m.Name+"_timestamp_seconds"
	case row.Unit == "bytes":
		m.Unit, m.Name = bytes, strings.TrimSuffix(m.Name, "_bytes")+"_bytes"
	}
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func earned(g Guest, of func(*Earned) float64) (float64, bool) {
	if g.Earned == nil {
		return 0, false
	}
	return of(g.Earned), true
}

// engine is known once the guest has said a word of it.
func engine(g Guest) (v float64, known bool) {
	for _, line := range g.Lines {
		switch {
		case line.Event == status.EngineUp:
			v, known = 1, true
		case line.Event == status.EngineDown, line.Code != 0:
			v, known = 0, true
		}
	}
	return v, known
}

func boot(g Guest) (float64, bool) {
	for _, line := range g.Lines {
		if line.Serving {
			return line.Uptime.Seconds(), true
		}
	}
	return 0, false
}

func events(g Guest, which status.Event) (n int) {
	for _, line := range g.Lines {
		if line.Event == which {
			n++
		}
	}
	return n
}
