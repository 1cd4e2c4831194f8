package main

import (
	"context"
	"slices"

	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/hardening"
	"chrysalis/init/status"
)

// steps is the boot, in order.
func (g *guest) steps() []boot.Step {
	return slices.Concat([]boot.Step{
		{Name: status.Hardening, Run: func(context.Context) error { return hardening.Apply(kernelPaths) }},
		{Name: status.Entropy, Run: waitForEntropy},
		{Name: status.CorruptionWatch, Run: g.watchCorruption},
		{Name: status.Platform, Run: g.openPlatform},
		{Name: status.Config, Run: g.measureConfig},
	}, g.volumes(), []boot.Step{
		{Name: status.GPU, Run: g.bringUpGPUs, Limit: gpuLimit},
		{Name: status.ModuleLock, Run: func(context.Context) error { return hardening.LockModules(kernelPaths) }},
		{Name: status.Handover, Run: g.handOver},
		{Name: status.Network, Run: g.bringUpNetwork},
		{Name: status.Borrower, Run: g.borrow, When: g.asks, Limit: borrowLimit},
		{Name: status.Secret, Run: g.takeSecret},
		{Name: status.Custodian, Run: g.startCustodian, When: g.isCustodian},
		{Name: status.Settle, Run: g.settle, When: func() bool { return g.told.Number != 0 }, Limit: settleLimit},
		{Name: status.Lender, Run: g.startLender, When: g.isCustodian},
		{Name: status.Containerd, Run: g.services.Containerd, When: g.serves},
		{Name: status.Fetch, Run: g.startFetch, When: g.settles},
		{Name: status.Keeper, Run: g.startKeeper, When: g.serves},
		{Name: status.Engine, Run: g.startEngine, When: g.serves, Limit: engineLimit},
		{Name: status.Gateway, Run: g.startGateway, When: g.serves},
	})
}
