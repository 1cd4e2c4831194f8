package main

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/init/disks"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/disk"
	"chrysalis/init/internal/gpu"
	"chrysalis/init/internal/modules"
	"chrysalis/init/internal/mount"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/init/internal/record"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/engines"
	"chrysalis/measure/eventlog"
)

// waitForEntropy returns once the kernel's generator is seeded; on a confidential VM it is by the processor, not the host.
func waitForEntropy(ctx context.Context) error {
	for {
		var b [1]byte
		_, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// openPlatform finds out what the guest runs on. Nothing has been recorded before.
func (g *guest) openPlatform(context.Context) error {
	var err error
	if g.platform, err = platform.Open(platformPaths); errors.Is(err, tsm.ErrEnded) {
		return boot.Coded{Code: status.PlatformLost, Err: err}
	} else if err != nil {
		return err
	}
	g.recorder, err = record.New(g.platform)
	return err
}

// measureConfig records the config before it is parsed. A config that the machine was not launched with, or that asks for a way of
// sealing which it does not have, is the host's mistake, and said to be.
func (g *guest) measureConfig(ctx context.Context) error {
	d, err := systemPaths.Find(ctx, disks.Config)
	if err != nil {
		return err
	}
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if g.measured, g.hostSays, err = config.ReadDisk(f); err != nil {
		return err
	}
	if err := g.recorder.Config(g.measured); errors.Is(err, platform.ErrNotPublic) {
		return boot.Coded{Code: status.IdentityUnfit, Err: err}
	} else if err != nil {
		return err
	}
	if err := g.platform.Launched(g.measured); err != nil {
		return boot.Coded{Code: status.ConfigForeign, Err: err}
	}
	if g.config, err = config.Decode(g.measured); err != nil {
		return err
	}
	if err := g.config.Service.Runs(); err != nil {
		return boot.Coded{Code: status.EngineUnfit, Err: err}
	}
	if err := g.recorder.Serves(eventlog.PairsOf(g.config.Service)); err != nil {
		return err
	}
	if err := platform.Fits(g.platform, g.sealing()); err != nil {
		return boot.Coded{Code: status.SealingUnfit, Err: err}
	}
	image, err := g.image.Encode()
	if err != nil {
		return err
	}
	return g.services.Leave(g.measured, image)
}

// volumes are the steps that open and record engine and model of each model that the config serves, in its order. How many there are is known when
// they run.
func (g *guest) volumes() (steps []boot.Step) {
	for at := range config.MaxModels {
		there := func() bool { return at < len(eventlog.PairsOf(g.config.Service)) }
		steps = append(steps,
			boot.Step{Name: status.EngineVolume, When: there, Run: func(ctx context.Context) error { return g.openEngine(ctx, at) }},
			boot.Step{Name: status.ModelVolume, When: there, Run: func(ctx context.Context) error { return g.openModel(ctx, at) }})
	}
	return steps
}

func (g *guest) openEngine(ctx context.Context, at int) error {
	if g.isCustodian() {
		return g.recorder.Engine(config.Volume{}) // none: zeros, which the log states
	}
	all := g.config.Service.Served()
	if err := g.openVolume(ctx, disks.Engine, engineVolume, at, all[at].Engine.Volume, true); err != nil {
		return err
	}
	return g.recorder.Engine(all[at].Engine.Volume)
}

func (g *guest) openModel(ctx context.Context, at int) error {
	if g.isCustodian() {
		return g.recorder.Model(config.Volume{})
	}
	all := g.config.Service.Served()
	if err := g.openVolume(ctx, disks.Model, modelVolume, at, all[at].Model.Volume, false); err != nil {
		return err
	}
	return g.recorder.Model(all[at].Model.Volume)
}

// openVolume opens and mounts the volume of a place in the config, from the disk of that place.
func (g *guest) openVolume(ctx context.Context, serial, name string, at int, v config.Volume, exec bool) error {
	n := len(g.config.Service.Served())
	serial, name = engines.Nth(serial, at, n), engines.Nth(name, at, n)
	d, err := systemPaths.Find(ctx, serial)
	if err != nil {
		return err
	}
	device, err := disk.OpenVerity(d, name, v.Root, v.Blocks)
	if err != nil {
		return err
	}
	err = mount.Volume(device, volumeDir+name, exec)
	if err == nil {
		return nil
	}
	intact, stateErr := disk.Intact(name)
	if stateErr == nil && !intact {
		return boot.Coded{Code: status.VolumeCorrupt, Err: err}
	}
	return errors.Join(err, stateErr)
}

// gpuLimit is how long GPUs may take to be brought up: eight attach one after the other.
const gpuLimit = 10 * time.Minute

// gpuModules holds the modules of the GPUs' driver, in an image that has it.
const gpuModules = "/usr/lib/chrysalis/gpu"

// bringUpGPUs holds the machine against the GPU rule, and has the GPUs work that it asks for once they are verified and logged.
func (g *guest) bringUpGPUs(ctx context.Context) error {
	m := gpu.Machine{
		Sys: "/sys", Rule: g.config.Service.GPU, Log: g.recorder.GPU, LoadDriver: func() error { return modules.Load(gpuModules) },
		StartHelper: g.services.GPUHelper, Verifier: gpu.Verifier{Roots: nvidia.NVIDIARoots(), Now: time.Now, Facts: new(check.Facts)},
	}
	if m.Rule != config.GPUNone {
		// The reference values are needed before anything else of the host document is.
		host, err := config.DecodeHost(g.hostSays)
		if err != nil {
			return err
		}
		given := host.Endorsements
		m.Verifier.Stapled = evidence.GPUs{RIMs: given.RIMs, OCSP: given.OCSP, Authorities: given.Authorities}
	}
	gpus, err := gpu.BringUp(ctx, m)
	if err != nil || gpus == nil {
		return err
	}
	g.recorder.SetGPUs(gpus.Evidence)
	go func() {
		why := gpus.Watch()
		if err := g.recorder.GPULost(); err != nil {
			boot.Log("recording that a GPU is lost: %v", err)
		}
		g.ender.End(status.GPULost, why)
	}()
	return nil
}
