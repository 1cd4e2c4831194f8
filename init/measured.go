package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/init/disks"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/disk"
	"chrysalis/init/internal/gpu"
	"chrysalis/init/internal/mount"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/platform/tsm"
	"chrysalis/init/internal/record"
	"chrysalis/init/status"
	"chrysalis/measure/config"
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
	if err := g.recorder.Config(g.measured); err != nil {
		return err
	}
	if err := g.platform.Launched(g.measured); err != nil {
		return boot.Coded{Code: status.ConfigForeign, Err: err}
	}
	if g.config, err = config.Decode(g.measured); err != nil {
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

func (g *guest) openEngine(ctx context.Context) error {
	volume := g.config.Service.Engine.Volume
	if g.isCustodian() {
		return g.recorder.Engine(volume) // none: zeros, which the log states
	}
	if err := g.openVolume(ctx, disks.Engine, engineVolume, volume, engineDir, true); err != nil {
		return err
	}
	return g.recorder.Engine(volume)
}

func (g *guest) openModel(ctx context.Context) error {
	volume := g.config.Service.Model.Volume
	if g.isCustodian() {
		return g.recorder.Model(volume)
	}
	if err := g.openVolume(ctx, disks.Model, modelVolume, volume, modelDir, false); err != nil {
		return err
	}
	return g.recorder.Model(volume)
}

func (g *guest) openVolume(ctx context.Context, serial, name string, v config.Volume, dir string, exec bool) error {
	d, err := systemPaths.Find(ctx, serial)
	if err != nil {
		return err
	}
	device, err := disk.OpenVerity(d, name, v.Root, v.Blocks)
	if err != nil {
		return err
	}
	err = mount.Volume(device, dir, exec)
	if err == nil {
		return nil
	}
	intact, stateErr := disk.Intact(name)
	if stateErr == nil && !intact {
		return boot.Coded{Code: status.VolumeCorrupt, Err: err}
	}
	return errors.Join(err, stateErr)
}

// checkGPU holds the machine against the GPU rule. None asked for and none found is its own result.
func (g *guest) checkGPU(context.Context) error {
	found, err := gpu.Find("/sys")
	if err != nil {
		return err
	}
	if rule := g.config.Service.GPU; rule != config.GPUNone || len(found) != 0 {
		return fmt.Errorf("rule is %q, found %d GPUs: %q", rule, len(found), found)
	}
	return g.recorder.GPU(string(config.GPUNone))
}
