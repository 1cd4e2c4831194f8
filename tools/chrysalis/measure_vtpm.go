package main

import (
	"os"
	"strings"

	"chrysalis/measure"
	"chrysalis/measure/register"
)

// vtpmInputs are the files of measure vtpm: kernel, initrd and command line, or a disk, or what lies in one.
type vtpmInputs struct {
	firmware, kernel, initrd, cmdline, disk, uki, config string
	build                                                string
	profile                                              int
}

// pcrs returns the registers of a boot of the files, and with a config also those that follow from it.
func (in vtpmInputs) pcrs() (register.PCRs, error) {
	firmware, err := readInput(in.firmware)
	if err != nil {
		return nil, err
	}
	var pcrs register.PCRs
	if in.kernel != "" {
		pcrs, err = in.direct(firmware)
	} else {
		pcrs, err = in.fromDisk(firmware)
	}
	if err != nil || in.config == "" {
		return pcrs, err
	}
	measured, err := readMeasured(in.config)
	if err != nil {
		return nil, err
	}
	own, err := measure.ConfigPCRs(measured)
	if err != nil {
		return nil, err
	}
	return pcrs.With(own), nil
}

// pcr1 returns PCR 1 of the boot on a machine of the shape.
func (in vtpmInputs) pcr1(s measure.Shape, tables measure.Tables) (register.Digest, error) {
	if in.kernel == "" {
		return tables.DiskPCR1(s)
	}
	return tables.PCR1()
}

func (in vtpmInputs) direct(firmware []byte) (register.PCRs, error) {
	b := measure.DirectBoot{Firmware: firmware, Cmdline: in.cmdline}
	var err error
	if in.build != "" {
		if b.Build, err = readBuild(in.build); err != nil {
			return nil, err
		}
	}
	if b.Kernel, err = readInput(in.kernel); err != nil {
		return nil, err
	}
	if strings.HasPrefix(in.cmdline, "@") {
		text, err := readInput(in.cmdline[1:])
		if err != nil {
			return nil, err
		}
		b.Cmdline = string(text)
	}
	f, err := os.Open(in.initrd)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b.Initrd = f
	return b.PCRs()
}

func (in vtpmInputs) fromDisk(firmware []byte) (register.PCRs, error) {
	b, err := in.diskBoot()
	if err != nil {
		return nil, err
	}
	b.Firmware = firmware
	if in.build != "" {
		if b.Build, err = readBuild(in.build); err != nil {
			return nil, err
		}
	}
	return b.PCRs()
}

// diskBoot reads the disk, or the image that lies in one.
func (in vtpmInputs) diskBoot() (b measure.DiskBoot, err error) {
	b.Profile = in.profile
	if in.disk == "" {
		b.UKI, err = readInput(in.uki)
		return b, err
	}
	disk, err := readDisk(in.disk)
	if err != nil {
		return b, err
	}
	b.UKI, b.Partitions = disk.UKI, disk.Partitions
	return b, nil
}
