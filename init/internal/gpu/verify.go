package gpu

import (
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
	"chrysalis/init/gpuhelper"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
)

const kindGPU = evidence.KindGPU

// Verifier judges the evidence of GPUs as far as a guest can.
type Verifier struct {
	Roots nvidia.Roots
	Now   func() time.Time
	// Stapled is what the host has given of reference values and answers. None of it is believed.
	Stapled evidence.GPUs
	// Facts remembers what was proven of it between one evidence and the next.
	Facts *check.Facts
}

// GPUs are those of a guest, verified and at work. It is safe for concurrent use: their helper is asked by one at a time.
type GPUs struct {
	mu       sync.Mutex
	helper   *gpuhelper.Helper
	beats    net.Conn
	verifier Verifier
	rule     config.GPURule
	logged   string      // what was found when they were brought up
	devices  []nvidia.ID // that it was found of
}

// Evidence has every device sign the nonce, and verifies anew: a device that is another by now, or that runs something else than what the log
// says, gets no evidence.
func (g *GPUs) Evidence(nonce [32]byte) (evidence.GPUs, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shown := g.verifier.Stapled
	var err error
	if shown.Devices, err = g.helper.Evidence(nonce); err != nil {
		return evidence.GPUs{}, err
	}
	found, err := g.judge(shown, nonce)
	if err != nil {
		return evidence.GPUs{}, err
	}
	if found != g.logged {
		return evidence.GPUs{}, fmt.Errorf("the GPUs are %q, and the log says %q", found, g.logged)
	}
	return shown, nil
}

// verified has every device sign the nonce, and returns what the log says of them.
func (g *GPUs) verified(nonce [32]byte) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shown := g.verifier.Stapled
	var err error
	if shown.Devices, err = g.helper.Evidence(nonce); err != nil {
		return "", err
	}
	return g.judge(shown, nonce)
}

// judge verifies what is shown, and returns what the log says of it. Of the first evidence it remembers the devices, which never change after.
// The caller holds mu.
func (g *GPUs) judge(shown evidence.GPUs, nonce [32]byte) (string, error) {
	asks, err := g.rule.GPUs()
	if err != nil {
		return "", err
	}
	// Which versions are good enough, which devices, and what responders say now is for clients: the guest's clock is its host's.
	options := nvidia.Options{
		Facts: g.verifier.Facts, GPUs: asks.Count, Switches: asks.Switches, Nonce: nonce,
		Architectures: []nvidia.Architecture{nvidia.Architecture(asks.Architecture)}, Modes: []nvidia.Mode{nvidia.Mode(asks.Mode)},
		AnyDevice: true, InsecureSkipMinimum: true, AnyRIM: true, InsecureSkipRevocation: true,
	}
	e := nvidia.Evidence{RIMs: shown.RIMs, Authorities: shown.Authorities}
	for _, d := range shown.Devices {
		to := &e.GPUs
		if d.Kind == evidence.KindSwitch {
			to = &e.Switches
		}
		*to = append(*to, nvidia.Device{Report: d.Report, Chain: d.Chain})
	}
	result, err := nvidia.Verify(e, options, g.verifier.Now(), g.verifier.Roots)
	if err != nil {
		return "", err
	}
	var ids []nvidia.ID
	for _, d := range result.Devices() {
		ids = append(ids, d.ID)
	}
	if g.devices == nil {
		g.devices = ids
	}
	if !slices.Equal(ids, g.devices) {
		return "", fmt.Errorf("the devices are %v, and were %v", ids, g.devices)
	}
	found := eventlog.Found{Rule: g.rule}
	found.Driver, found.VBIOS, found.BIOS = result.Versions()
	return found.Text()
}

// Watch waits until a GPU is lost, and says why. It is called once.
func (g *GPUs) Watch() error { return gpuhelper.Watch(g.beats) }

func fresh() (nonce [32]byte) {
	rand.Read(nonce[:])
	return nonce
}
