package check

import (
	"fmt"
	"strings"
	"time"
)

// Shortfall is one security version that is lower than the lowest good one: what its owner has to update, and to what.
type Shortfall struct {
	Part      string `json:"part"`      // of the machine, such as "platform" or "quoting enclave"
	Component string `json:"component"` // of the part
	Got       uint64 `json:"got"`
	Want      uint64 `json:"want"` // the lowest value that is good
	Status    string `json:"status,omitempty"`
	// GotDate and WantDate are the dates of the levels: all that was known up to then is mended. Zero where the maker publishes none.
	GotDate    time.Time `json:"got_date,omitzero"`
	WantDate   time.Time `json:"want_date,omitzero"`
	Advisories []string  `json:"advisories,omitempty"` // that the part's level is open to
	Update     string    `json:"update"`               // what to update
}

func (s Shortfall) String() string {
	text := fmt.Sprintf("%s: %s is %d, want at least %d", s.Part, s.Component, s.Got, s.Want)
	if !s.WantDate.IsZero() {
		text += " (of " + s.WantDate.UTC().Format(time.DateOnly) + ")"
	}
	if len(s.Advisories) > 0 {
		text += ", open to " + strings.Join(s.Advisories, ", ")
	}
	return text + "; update " + s.Update
}
