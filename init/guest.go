package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"golang.org/x/sys/unix"

	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/disk"
	"chrysalis/init/internal/gpu"
	"chrysalis/init/internal/hardening"
	"chrysalis/init/internal/mount"
	"chrysalis/init/internal/network"
	"chrysalis/init/internal/port"
	"chrysalis/init/internal/quote"
	"chrysalis/init/internal/supervise"
	"chrysalis/init/internal/tpm"
	"chrysalis/init/status"
	"chrysalis/measure/config"
)

const (
	tpmDevice = "/dev/tpmrm0"
	engineDir = "/run/vol/engine"
	// Names of the mapped volumes.
	engineVolume = "engine"
	modelVolume  = "model"
	modelDir     = "/run/vol/model"

	// engineLimit is how long an engine may take to read its model: hundreds of gigabytes from a slow disk.
	engineLimit = 45 * time.Minute
)

// guest is the state of a boot. The steps fill it in their order; after the last one nothing changes it.
type guest struct {
	host     *port.Port // what the host may read
	ender    *boot.Ender
	children *supervise.Supervisor
	recorder *quote.Recorder

	measured []byte // the measured config, as its bytes lie on the disk
	config   config.Measured
	hostSays []byte // the host document, not yet parsed
	services services

	configured quote.Configured
	engined    quote.Engined
	modelled   quote.Modelled
	complete   quote.Complete
}

// guestMain is PID 1 on the verified root.
func guestMain() {
	g := &guest{}
	g.ender = boot.NewEnder(nil, nil)
	if err := mount.Late(); err != nil {
		g.ender.End(status.Mounts.Failed(), err)
	}
	host, err := port.Open(statusPaths)
	if err != nil {
		g.ender.End(status.Status.Failed(), err)
	}
	g.host, g.ender = host, boot.NewEnder(host, g.last)
	g.children = supervise.New()
	host.Begun(status.PID1)
	if code, err := boot.Run(context.Background(), host, g.steps()); err != nil {
		g.ender.End(code, err)
	}
	host.Serving()
	select {} // somebody else decides the end
}

// steps is the boot, in order.
func (g *guest) steps() []boot.Step {
	return []boot.Step{
		{Name: status.Hardening, Run: func(context.Context) error { return hardening.Apply(hardening.Paths{Proc: "/proc", Sys: "/sys"}) }},
		{Name: status.Entropy, Run: waitForEntropy},
		{Name: status.CorruptionWatch, Run: g.watchCorruption},
		{Name: status.TPM, Run: g.openTPM},
		{Name: status.Config, Run: g.measureConfig},
		{Name: status.EngineVolume, Run: g.openEngine},
		{Name: status.ModelVolume, Run: g.openModel},
		{Name: status.GPU, Run: g.checkGPU},
		{Name: status.Secret, Run: g.takeSecret},
		{Name: status.Network, Run: g.bringUpNetwork},
		{Name: status.Containerd, Run: g.startContainerd},
		{Name: status.Keeper, Run: g.startKeeper},
		{Name: status.Engine, Run: g.startEngineHost, Limit: engineLimit},
		{Name: status.Gateway, Run: g.startGateway},
	}
}

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

func (g *guest) openTPM(context.Context) error {
	t, err := linuxtpm.Open(tpmDevice)
	if err != nil {
		return fmt.Errorf("opening %s: %v", tpmDevice, err)
	}
	g.recorder = quote.NewRecorder(tpm.New(t))
	log, err := readBootLog()
	if err != nil {
		return err
	}
	g.recorder.SetBootLog(log)
	return nil
}

// measureConfig records the config before it is parsed.
func (g *guest) measureConfig(ctx context.Context) error {
	d, err := systemPaths.Find(ctx, disk.Config)
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
	identity, _, err := config.Split(g.measured)
	if err != nil {
		return err
	}
	if g.configured, err = g.recorder.Begin().Config(g.measured, identity); err != nil {
		return err
	}
	g.config, err = config.Decode(g.measured)
	return err
}

func (g *guest) openEngine(ctx context.Context) error {
	volume := g.config.Service.Engine.Volume
	if err := g.openVolume(ctx, disk.Engine, engineVolume, volume, engineDir, true); err != nil {
		return err
	}
	var err error
	g.engined, err = g.configured.Engine(volume)
	return err
}

func (g *guest) openModel(ctx context.Context) error {
	volume := g.config.Service.Model.Volume
	if err := g.openVolume(ctx, disk.Model, modelVolume, volume, modelDir, false); err != nil {
		return err
	}
	var err error
	g.modelled, err = g.engined.Model(volume)
	return err
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
	g.complete, err = g.modelled.GPU(string(config.GPUNone))
	return err
}

func (g *guest) bringUpNetwork(ctx context.Context) error {
	host, err := config.DecodeHost(g.hostSays)
	if err != nil {
		return err
	}
	if err := network.Up(ctx, host.Network); err != nil {
		return err
	}
	g.services.listener, err = listen(host.Port)
	return err
}

// last is what happens before the power goes, whatever the reason. The processes with keys go first; the TPM, which may
// never answer, comes after them.
func (g *guest) last() {
	g.services.kill()
	if g.recorder != nil {
		if err := g.recorder.Terminated(); err != nil {
			boot.Log("terminating: %v", err)
		}
	}
}
