package attesttest

import (
	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

// Answer returns what the devices sign over a nonce with all that belongs to them, as a guest shows it.
func (b *Board) Answer(nonce [32]byte) (shown evidence.GPUs) {
	for _, devices := range [][]*BoardDevice{b.GPUs, b.Switches} {
		for _, d := range devices {
			d.Report.Nonce = nonce
		}
	}
	e := b.Evidence()
	for _, d := range e.GPUs {
		shown.Devices = append(shown.Devices, evidence.Device{Kind: evidence.KindGPU, Report: d.Report, Chain: d.Chain})
	}
	for _, d := range e.Switches {
		shown.Devices = append(shown.Devices, evidence.Device{Kind: evidence.KindSwitch, Report: d.Report, Chain: d.Chain})
	}
	shown.RIMs, shown.OCSP, shown.Authorities = e.RIMs, e.OCSP, e.Authorities
	return shown
}

// Found is what a guest that verified the board logs of it.
func (b *Board) Found() eventlog.Found {
	var claims, switches nvidia.Claims
	var err error
	claims, err = b.GPUs[0].Report.Claims()
	check(err)
	o := b.Options()
	found := eventlog.Found{Driver: claims.Driver, VBIOS: []string{claims.VBIOS}, Rule: config.GPUs{Count: len(b.GPUs), Switches: len(b.Switches),
		Architecture: string(o.Architectures[0]), Mode: string(claims.Mode)}.Rule()}
	if len(b.Switches) > 0 {
		switches, err = b.Switches[0].Report.SwitchClaims()
		check(err)
		found.BIOS = []string{switches.VBIOS}
	}
	return found
}

// Rules accept exactly this board.
func (b *Board) Rules() attest.GPURules {
	o := b.Options()
	r := attest.GPURules{MinDriver: o.MinDriver, MinVBIOS: o.MinVBIOS, RIMs: o.RIMs, MaxOCSPAge: o.MaxOCSPAge.String()}
	for _, id := range o.Devices {
		r.Devices = append(r.Devices, id.String())
	}
	return r
}
