package explain

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"chrysalis/attest/evidence"
	"chrysalis/attest/tdx"
	"chrysalis/attest/vtpm"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// registerConfigID is the field of a TD that holds its config's hash.
const registerConfigID = "mr-config-id"

// registerLog stands for the runtime log where no register has it: under COCOON's public identity.
const registerLog = "runtime-log"

// shown is what a guest's evidence shows, read but not believed.
type shown struct {
	names   []string // of the registers, in order
	values  map[string]string
	events  map[string][]event
	records []eventlog.Record
	doubts  []Cause // why the log is not believed
}

// Places of causes that no event of the boot log is behind, among the numbers of its events.
const (
	placeMRTD    = -1      // before them all
	placeRuntime = 1 << 20 // of the runtime log's first event, after every boot event
	placePolicy  = 1 << 30
)

func read(e *evidence.Evidence) (s *shown, err error) {
	s = &shown{values: map[string]string{}, events: map[string][]event{}}
	switch e.Platform {
	case evidence.VTPM:
		err = s.readVTPM(e)
	case evidence.TDX:
		err = s.readTDX(e)
	default:
		err = fmt.Errorf("%s has one launch digest and no log behind it: only recomputing it (chrysalis measure %s) shows whether it is another", e.Platform, e.Platform)
	}
	if err != nil {
		return nil, err
	}
	s.readConfig(e)
	return s, nil
}

func (s *shown) doubt(kind, says, do string) {
	s.doubts = append(s.doubts, Cause{Kind: kind, Says: says, Do: do})
}

const askAgain = "ask the guest again (chrysalis verify --save-evidence); a log that keeps differing from its quote was changed on " +
	"the way, or the guest lies"

func (s *shown) readVTPM(e *evidence.Evidence) error {
	quote, err := vtpm.ParseQuote(e.Quote)
	if err != nil {
		return err
	}
	boot, err := eventlog.ParseBoot(e.BootLog)
	if err != nil {
		return err
	}
	if s.records, err = eventlog.ParseRuntime(e.RuntimeLog); err != nil {
		return err
	}
	bank := eventlog.ReplayBoot(boot)
	bank[13], bank[14] = eventlog.Replay256(s.records, eventlog.PCR13), eventlog.Replay256(s.records, eventlog.PCR14)
	var values [][32]byte
	for _, index := range register.Quoted() {
		name := register.PCR(index)
		s.names = append(s.names, name)
		values = append(values, bank[index])
		s.values[name] = hex.EncodeToString(bank[index][:])
	}
	for i, b := range boot {
		if b.Type != typeNoAction {
			s.addBoot(register.PCR(b.Register), event{number: i, digest: hex.EncodeToString(b.Digest[:]), typ: b.Type, data: b.Data,
				proven: b.Matches()}, b.Broken())
		}
	}
	for i, r := range s.records {
		digest := r.SHA256()
		name := register.PCR(r.Register)
		s.events[name] = append(s.events[name], runtimeEvent(i, r, digest[:]))
	}
	if !quote.Selects(register.Quoted()) {
		s.doubt("log", "the quote is over other registers than a guest's: nothing stands behind the log, and what follows is only what it says", askAgain)
	} else if digest := vtpm.Digest(values); !bytes.Equal(digest[:], quote.Digest) {
		s.doubt("log", "the log does not replay to its quote: nothing stands behind it, and what follows is only what it says", askAgain)
	}
	if want := evidence.ReportData(e.Statement); !bytes.Equal(quote.Extra, want[:]) {
		s.doubt("statement", "the quote is over another statement than the evidence carries", askAgain)
	}
	return nil
}

func (s *shown) readTDX(e *evidence.Evidence) error {
	quote, err := tdx.Parse(e.Quote)
	if err != nil {
		return err
	}
	if s.records, err = eventlog.ParseRuntime(e.RuntimeLog); err != nil {
		return err
	}
	body := quote.Body
	s.names = []string{register.MRTD, register.RTMR(0), register.RTMR(1), register.RTMR(2), register.RTMR(3), registerConfigID}
	s.values[register.MRTD], s.values[registerConfigID] = hex.EncodeToString(body.MRTD[:]), hex.EncodeToString(body.MRCONFIGID[:])
	var replayed [4][48]byte
	if len(e.BootLog) > 0 {
		log, err := eventlog.ParseCCEL(e.BootLog)
		if err != nil {
			return err
		}
		replayed = eventlog.ReplayCCEL(log)
		for i, b := range log {
			if b.Type != typeNoAction && b.Register > 0 {
				s.addBoot(register.RTMR(b.Register-1), event{number: i, digest: hex.EncodeToString(b.Digest[:]), typ: b.Type, data: b.Data,
					proven: b.Matches()}, b.Broken())
			}
		}
	}
	logged := register.RTMR(3)
	replayed[3] = eventlog.Replay384(s.records, eventlog.RTMR3)
	public := config.IsCocoon(e.Config)
	if public {
		// No register has the log: its head in the statement has.
		logged = registerLog
		s.names = append(s.names, registerLog)
		s.values[registerLog] = hex.EncodeToString(replayed[3][:])
		replayed[3] = cocoon.RTMR3(cocoon.NoTree())
		if eventlog.Head(e.RuntimeLog) != e.Statement.LogHead {
			s.doubt("log", "the statement has the head of another log: nothing stands behind it, and what follows is only what it says", askAgain)
		}
	}
	for i, r := range s.records {
		digest := r.SHA384()
		s.events[logged] = append(s.events[logged], runtimeEvent(i, r, digest[:]))
	}
	for i, value := range body.RTMR {
		s.values[register.RTMR(uint8(i))] = hex.EncodeToString(value[:])
		if i == 3 && value == [48]byte{} && !public {
			s.doubt("rtmr-3", "the guest has never extended RTMR3, so nothing but its statement stands behind its own log",
				"boot a kernel that extends it (6.16 or newer), or waive rtmr-3 by name in the policy")
		} else if value != replayed[i] && (i == 3 && !public || i < 3 && len(e.BootLog) > 0) {
			s.doubt("log", fmt.Sprintf("the log does not replay to RTMR%d of its quote: nothing stands behind its events of that register, and "+
				"what follows of them is only what it says", i), askAgain)
		}
	}
	if body.ReportData != e.ReportData() || public && !e.Binding.Binds(e.Statement) {
		s.doubt("statement", "the quote is over another statement than the evidence carries", askAgain)
	}
	return nil
}

func (s *shown) addBoot(register string, e event, broken bool) {
	s.events[register] = append(s.events[register], e)
	if broken {
		s.doubt("log-data", fmt.Sprintf("event %s (%s) has other data than was measured: its data says nothing", e.place(), register), askAgain)
	}
}

// readConfig doubts a config that is not the one that the guest measured.
func (s *shown) readConfig(e *evidence.Evidence) {
	want := config.SHA256(e.Config)
	i := slices.IndexFunc(s.records, func(r eventlog.Record) bool { return r.Kind == eventlog.KindConfig })
	if i >= 0 && !bytes.Equal(s.records[i].Data, want[:]) {
		s.doubt("config-not-measured", "the config in the evidence is not the one that the guest measured", askAgain)
	}
}

// errNoConfig is why an expected runtime log can't be computed.
var errNoConfig = errors.New("the evidence carries no config that can be decoded")
