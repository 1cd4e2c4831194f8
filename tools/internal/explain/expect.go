package explain

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"chrysalis/attest/evidence"
	"chrysalis/measure"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/register"
	"chrysalis/measure/tdvf"
)

// expect computes what can be computed, and notes what can't.
func (x *explanation) expect(ctx context.Context) error {
	boot := x.expectVTPM
	if x.Evidence.Platform == evidence.TDX {
		boot = x.expectTDX
	}
	if err := boot(ctx); err != nil {
		return err
	}
	return x.expectConfig()
}

func (x *explanation) expectVTPM(ctx context.Context) error {
	events, err := x.bootEvents()
	if err != nil {
		return err
	}
	if events == nil {
		x.note("the release's firmware, kernel, initrd and command line do not lie beside the manifest: registers are compared with its " +
			"own, without events")
		for index, value := range x.Release.Manifest.PCRs {
			x.values[register.PCR(index)] = value.String()
		}
	} else {
		expected(x.want, events, register.PCR[uint8])
		unknown := map[uint8]string{}
		if x.Disk != nil {
			if unknown, err = (measure.DiskBoot{UKI: x.Disk.UKI, Partitions: x.Disk.Partitions}).Unknown(); err != nil {
				return err
			}
		}
		for _, index := range []uint8{0, 2, 3, 4, 5, 7, 8, 9, 11, 12} {
			name := register.PCR(index)
			if reason := unknown[index]; reason != "" {
				x.note("%s was not compared: it follows from %s", name, reason)
				continue
			}
			x.want[name] = append([]event{}, x.want[name]...) // one without events stays at zero
			if want, pinned := x.Release.Manifest.PCRs[index]; pinned && x.Disk == nil && replay(x.want[name], len(want)) != want.String() {
				return fmt.Errorf("the release's files give %s %s, want the manifest's %s", name, replay(x.want[name], len(want)), want)
			}
		}
	}
	if x.Shape == nil {
		x.note("pcr-1 was not compared: it follows from the shape of the machine (--shape)")
		return nil
	}
	if err := x.isFirmware(plainFirmware); err != nil {
		return err
	}
	x.want[register.PCR(1)], err = x.machineEvents(ctx, *x.Shape)
	return err
}

// bootEvents returns the events of the files, or nil where they are not there.
func (x *explanation) bootEvents() ([]measure.PCREvent, error) {
	files := x.Release.Files
	if x.Disk != nil {
		if !x.Release.has(plainFirmware) {
			return nil, fmt.Errorf("%s does not lie beside the manifest", plainFirmware)
		}
		return measure.DiskBoot{Firmware: files[plainFirmware], UKI: x.Disk.UKI, Partitions: x.Disk.Partitions}.Events()
	}
	if !x.Release.has(plainFirmware, kernelFile, initrdFile, cmdlineFile) {
		return nil, nil
	}
	return measure.DirectBoot{Firmware: files[plainFirmware], Kernel: files[kernelFile], Initrd: bytes.NewReader(files[initrdFile]),
		Cmdline: string(files[cmdlineFile])}.Events()
}

func (x *explanation) isFirmware(name string) error {
	want, err := x.Release.Manifest.File(name)
	if err == nil && want != x.Shape.Firmware {
		err = fmt.Errorf("the shape's firmware is %s (SHA-256 %s), want the release's %s (SHA-256 %s)", x.Shape.Firmware.Name,
			x.Shape.Firmware.SHA256, want.Name, want.SHA256)
	}
	return err
}

func (x *explanation) expectTDX(ctx context.Context) error {
	if !x.Release.has(tdxFirmware, kernelFile, initrdFile, cmdlineFile) {
		return errors.New("the release's firmware, kernel, initrd and command line do not lie beside the manifest, which holds no registers of TDX guests")
	}
	boot := x.tdxBoot()
	mrtd, err := tdvf.MRTD(boot.Firmware, boot.Order)
	if err != nil {
		return err
	}
	x.values[register.MRTD] = hex.EncodeToString(mrtd[:])
	if x.Shape != nil {
		if err := x.isFirmware(tdxFirmware); err != nil {
			return err
		}
		shape := x.Shape.TDX()
		if boot.Tables, err = x.Machines.Tables(ctx, shape); err != nil {
			return err
		}
		boot.Shape = &shape
	} else {
		x.note("rtmr-0 was not compared: it follows from the shape of the machine (--shape)")
	}
	events, err := boot.Events()
	if err != nil {
		return err
	}
	expected(x.want, events, register.RTMR[uint8])
	if len(x.Evidence.BootLog) == 0 {
		x.note("the evidence carries no boot log: rtmr-0 to rtmr-2 were compared without the guest's events")
	}
	return nil
}

func (x *explanation) tdxBoot() measure.TDXBoot {
	files := x.Release.Files
	return measure.TDXBoot{Firmware: files[tdxFirmware], Order: tdvf.SinglePass, Kernel: files[kernelFile],
		Initrd: bytes.NewReader(files[initrdFile]), Cmdline: string(files[cmdlineFile])}
}

// expectConfig computes the runtime log of a guest that serves with the config.
func (x *explanation) expectConfig() error {
	measured := x.Config
	if measured == nil {
		measured = x.Evidence.Config
		if x.Policy == nil {
			x.note("the config was not compared with an expected one (--config or --policy): the guest's own log was compared with the config that it shows")
		}
	}
	sequence, err := eventlog.SequenceOf(measured)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoConfig, err)
	}
	// Who has held the secret before, and which versions the GPUs have, follows from no config.
	if log, err := eventlog.ParseRuntime(x.Evidence.RuntimeLog); err == nil {
		sequence = sequence.Released(log)
		if m, err := config.Decode(measured); err == nil {
			sequence = sequence.Found(m.Service.GPU, log)
		}
	}
	if x.Evidence.Platform == evidence.TDX {
		records := sequence.Records(eventlog.InRTMR)
		logged, whole := register.RTMR(3), eventlog.Replay384(records, eventlog.RTMR3)
		if config.IsCocoon(measured) {
			whole = cocoon.RTMR3(cocoon.NoTree())
		}
		public := config.IsCocoon(x.Evidence.Config)
		if public {
			logged = registerLog
		}
		if public || config.IsCocoon(measured) {
			x.values[register.RTMR(3)] = hex.EncodeToString(whole[:])
		}
		if public || !config.IsCocoon(measured) {
			for i, r := range records {
				digest := r.SHA384()
				x.want[logged] = append(x.want[logged], expectedRuntime(i, r, digest[:]))
			}
		}
		digest := config.MRConfigID(measured)
		x.values[registerConfigID] = hex.EncodeToString(digest[:])
		return nil
	}
	for i, r := range sequence.Records(eventlog.InPCRs) {
		digest := r.SHA256()
		name := register.PCR(r.Register)
		x.want[name] = append(x.want[name], expectedRuntime(i, r, digest[:]))
	}
	return nil
}

func expectedRuntime(number int, r eventlog.Record, digest []byte) event {
	return event{number: number, runtime: true, digest: hex.EncodeToString(digest), kind: r.Kind}
}
