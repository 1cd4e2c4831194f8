package main

import (
	"context"

	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/hardening"
	"chrysalis/init/status"
)

// steps is the boot, in order.
func (g *guest) steps() []boot.Step {
	return []boot.Step{
		{Name: status.Hardening, Run: func(context.Context) error { return hardening.Apply(kernelPaths) }},
		{Name: status.Entropy, Run: waitForEntropy},
		{Name: status.CorruptionWatch, Run: g.watchCorruption},
		{Name: status.Platform, Run: g.openPlatform},
		{Name: status.Config, Run: g.measureConfig},
		{Name: status.EngineVolume, Run: g.openEngine},
		{Name: status.ModelVolume, Run: g.openModel},
		{Name: status.GPU, Run: g.checkGPU},
		{Name: status.ModuleLock, Run: func(context.Context) error { return hardening.LockModules(kernelPaths) }},
		{Name: status.Handover, Run: g.handOver},
		{Name: status.Secret, Run: g.takeSecret},
		{Name: status.Network, Run: g.bringUpNetwork},
		{Name: status.Containerd, Run: func(ctx context.Context) error { return g.services.Containerd(ctx, g.measured) }},
		{Name: status.Keeper, Run: g.startKeeper},
		{Name: status.Engine, Run: g.startEngine, Limit: engineLimit},
		{Name: status.Gateway, Run: g.startGateway},
	}
}
