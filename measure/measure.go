// Package measure computes the values that a guest's measurement registers must have, from the files of a release and the
// measured config alone. Nothing here is copied from a boot.
//
//	pcrs, err := measure.DirectBoot{Firmware: fw, Kernel: kernel, Initrd: initrd, Cmdline: cmdline}.PCRs()
//	config, err := measure.ConfigPCRs(measured)
//
// Other people's machines have rooms of their own: uki for what systemd's stub makes of an image, igvm, snp and tdvf for what hardware
// measures, varstore for the keys of Secure Boot, eventlog for logs.
//
// PCR 1 holds the ACPI tables, which QEMU makes for one shape of machine: whoever has asked QEMU for them computes it by
// Tables.PCR1.
package measure

import (
	"errors"
	"fmt"

	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
)

// ConfigPCRs returns PCR 13 and 14 of a guest that serves with these measured bytes. Of one with GPUs PCR 13 follows from their driver and
// firmware, too, and it is refused.
func ConfigPCRs(measured []byte) (register.PCRs, error) {
	sequence, err := eventlog.SequenceOf(measured)
	if err != nil {
		return nil, fmt.Errorf("measuring config: %v", err)
	}
	if sequence.GPU == "" {
		return nil, errors.New("measuring config: it asks for GPUs, and PCR 13 follows from their driver and firmware as well")
	}
	records := sequence.Records(eventlog.InPCRs)
	return register.PCRs{
		13: eventlog.Replay256(records, eventlog.PCR13),
		14: eventlog.Replay256(records, eventlog.PCR14),
	}, nil
}
