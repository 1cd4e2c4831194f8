package main

import (
	"context"
	"os"
	"strings"
	"time"

	"chrysalis/attest/handover"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/hardening"
	"chrysalis/init/internal/mount"
	"chrysalis/init/internal/platform"
	"chrysalis/init/internal/port"
	"chrysalis/init/internal/record"
	"chrysalis/init/internal/sealing"
	"chrysalis/init/internal/services"
	"chrysalis/init/internal/supervise"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/runtime/role"
)

const (
	// Names of the mapped volumes, of several engines.Nth of them. Each is mounted in the folder of its name.
	engineVolume = "engine"
	modelVolume  = "model"
	volumeDir    = "/run/vol/"
	// journalVolume maps what of the journal's disk is the journal's, where a sealed record lies before it.
	journalVolume = "journal"

	// engineLimit is how long an engine may take to read its model: hundreds of gigabytes from a slow disk.
	engineLimit = 45 * time.Minute

	cgroups = "/sys/fs/cgroup"
	// kernelLog is where services write: the guest's own log, which a release image shows to nobody.
	kernelLog = "/dev/kmsg"
)

var (
	kernelPaths   = hardening.Paths{Proc: "/proc", Sys: "/sys"}
	platformPaths = platform.Paths{Dev: "/dev", Sys: "/sys", Proc: "/proc"}
)

// guest is the state of a boot. The steps fill it in their order; after the last one nothing changes it.
type guest struct {
	ender    *boot.Ender
	host     *port.Port
	platform platform.Platform
	vault    sealing.Vault
	recorder *record.Recorder
	services *services.Services

	image    handover.Image // what the image says of itself
	measured []byte         // the measured config, as its bytes lie on the disk
	config   config.Measured
	hostSays []byte      // the host document, not yet parsed
	hostDoc  config.Host // the same, parsed
	chain    *os.File    // the keeper's stream to who asks liteservers, where charges are settled on chain
	listener *os.File    // the port that the gateway accepts on, or the lender
	wipes    *os.File    // the gateway's stream to engine-host
	loans    *os.File    // the lender's stream to its custodian

	// Of a custodian that takes its secret over from another.
	blank bool          // nothing is sealed yet
	giver sealing.Vault // the stream to that one
	told  role.LoanCall // what it is still to be told; of number zero: nothing
}

// guestMain is PID 1 on the verified root. Its one argument is the initrd's: the kernel starts no program there.
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
	g.services = services.New(services.Settings{
		Start: supervise.New().Start, End: g.ender.End, Host: host, Cgroups: cgroups, Log: kernelLog,
	})
	host.Begun(status.PID1)
	if g.image, err = handover.ParseImage([]byte(strings.Join(os.Args[1:], " "))); err != nil {
		g.ender.End(status.Broken, err)
	}
	if code, err := boot.Run(context.Background(), host, g.steps()); err != nil {
		g.ender.End(code, err)
	}
	host.Serving()
	select {} // somebody else decides the end
}

// last is what happens before the power goes, whatever the reason. The processes with keys go first; the platform, which may
// never answer, comes after them.
func (g *guest) last() {
	g.services.Kill()
	if g.recorder != nil {
		if err := g.recorder.Terminated(); err != nil {
			boot.Log("terminating: %v", err)
		}
	}
}
