package attest

import (
	"fmt"

	"chrysalis/attest/evidence"
	"chrysalis/attest/sevsnp"
	"chrysalis/attest/tdx"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// Claimed returns the registers that evidence claims for its image, by their names. Nothing of it is proved: whoever decides by them
// has Verify or VerifyAsking judge the same evidence against them afterwards. Of a guest's own evidence, fresh from its own hardware, they
// are the guest's.
func Claimed(e *evidence.Evidence) (map[string][]byte, error) {
	registers := map[string][]byte{}
	switch e.Platform {
	case evidence.VTPM:
		boot, err := eventlog.ParseBoot(e.BootLog)
		if err != nil {
			return nil, fmt.Errorf("reading registers: %w", err)
		}
		bank := eventlog.ReplayBoot(boot)
		for _, index := range register.Quoted() {
			if value := bank[index]; index != 13 && index != 14 {
				registers[register.PCR(index)] = value[:]
			}
		}
	case evidence.TDX:
		quote, err := tdx.Parse(e.Quote)
		if err != nil {
			return nil, fmt.Errorf("reading registers: %w", err)
		}
		registers[register.MRTD] = quote.Body.MRTD[:]
		for i, value := range quote.Body.RTMR[:3] {
			registers[register.RTMR(uint8(i))] = value[:]
		}
	case evidence.SEVSNP:
		report, err := sevsnp.Parse(e.Quote)
		if err != nil {
			return nil, fmt.Errorf("reading registers: %w", err)
		}
		registers[register.Launch] = report.Measurement[:]
	default:
		return nil, fmt.Errorf("reading registers: platform is %d, want one of %v", e.Platform, evidence.Platforms())
	}
	return registers, nil
}
