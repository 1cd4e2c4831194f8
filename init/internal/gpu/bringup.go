package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chrysalis/init/gpuhelper"
	"chrysalis/init/internal/boot"
	"chrysalis/init/status"
	"chrysalis/measure/config"
)

// Machine is what bringing GPUs up needs of the guest around it.
type Machine struct {
	Sys  string // the sysfs mount
	Rule config.GPURule
	// Verifier judges their evidence.
	Verifier Verifier
	// LoadDriver loads the driver's modules, StartHelper starts the helper and returns the ends of its two sockets: of requests and of beats.
	LoadDriver  func() error
	StartHelper func() (requests, beats net.Conn, err error)
	// Log records what was found, and closes the measured sequence.
	Log func(found string) error
}

// bringUp is one run of BringUp.
type bringUp struct {
	Machine
	asks  config.GPUs
	found []string // addresses of the GPUs, ascending
	gpus  *GPUs    // once there is a helper
	text  string   // what the log says
}

// step is one of the bring-up's, with the guest's end where it fails.
type step struct {
	name string
	code status.Code
	run  func(*bringUp, context.Context) error
}

// The steps of a machine without GPUs, which those of others begin with and have in them.
var (
	presence = step{"presence", status.GPUCount, (*bringUp).presence}
	logged   = step{"log", status.GPU.Failed(), func(b *bringUp, _ context.Context) error { return b.Log(b.text) }}
)

// steps is the bring-up, in order: GPU.md says what holds after each.
var steps = []step{
	presence,
	{"reset", status.GPUReset, (*bringUp).reset},
	{"driver", status.GPUDriver, (*bringUp).driver},
	{"state", status.GPUState, (*bringUp).state},
	{"evidence", status.GPUUnverified, (*bringUp).evidence},
	logged,
	{"ready", status.GPUReady, (*bringUp).ready},
}

// BringUp holds the machine against its GPU rule, and has its GPUs work once they are verified and logged. Nil GPUs are those of a rule that
// asks for none, where there are none: that is logged, too. Errors have codes.
func BringUp(ctx context.Context, m Machine) (*GPUs, error) {
	b := &bringUp{Machine: m}
	var err error
	if b.asks, err = m.Rule.GPUs(); err != nil {
		return nil, err
	}
	all := steps
	if b.asks.Count == 0 {
		all, b.text = []step{presence, logged}, string(config.GPUNone)
	}
	for _, s := range all {
		if err := s.run(b, ctx); err != nil {
			if b.gpus != nil {
				_ = b.gpus.helper.SetReady(false) // nobody told them to, and they shall not
			}
			if !errors.As(err, new(boot.Coded)) {
				err = boot.Coded{Code: s.code, Err: err}
			}
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return b.gpus, nil
}

// presence compares the bus with the rule.
func (b *bringUp) presence(context.Context) error {
	var err error
	if b.found, err = Find(b.Sys); err != nil {
		return boot.Coded{Code: status.GPU.Failed(), Err: err}
	}
	slices.Sort(b.found)
	if len(b.found) == b.asks.Count {
		return nil
	}
	code := status.GPUCount
	switch {
	case b.asks.Count == 0:
		code = status.GPUUnasked
	case len(b.found) == 0:
		code = status.GPUNone
	}
	return boot.Coded{Code: code, Err: fmt.Errorf("rule is %q, found %d GPUs: %q", b.Rule, len(b.found), b.found)}
}

func (b *bringUp) device(address, file string) string {
	return filepath.Join(b.Sys, "bus/pci/devices", address, file)
}

// reset has each GPU begin anew, by its own function-level reset: the host may have used it before. No driver may have it yet, for one would
// already have talked to what the host left there.
func (b *bringUp) reset(context.Context) error {
	const flr = "flr"
	for _, address := range b.found {
		if driver, err := os.Readlink(b.device(address, "driver")); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s has the driver %q (%v), want none before its reset", address, filepath.Base(driver), err)
		}
		ways, err := os.ReadFile(b.device(address, "reset_method"))
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(string(ways)), flr) {
			return fmt.Errorf("%s can be reset by %q, want %s among it", address, strings.TrimSpace(string(ways)), flr)
		}
		for _, write := range []struct{ file, text string }{{"reset_method", flr}, {"reset", "1"}} {
			if err := os.WriteFile(b.device(address, write.file), []byte(write.text), 0); err != nil {
				return err
			}
		}
		// The configuration space is read from the device, and all ones where it is gone.
		space, err := os.ReadFile(b.device(address, "config"))
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(space, []byte{0xde, 0x10}) {
			return fmt.Errorf("%s answers %x after its reset, want NVIDIA's number", address, space[:min(2, len(space))])
		}
	}
	return nil
}

// Waits of the bring-up.
const (
	attachLimit = time.Minute // of one GPU
	attachPause = 50 * time.Millisecond
)

// driver loads the driver, waits until it has every GPU, and starts the helper.
func (b *bringUp) driver(ctx context.Context) error {
	if err := b.LoadDriver(); err != nil {
		return err
	}
	for _, address := range b.found {
		if err := b.attached(ctx, address); err != nil {
			return err
		}
	}
	requests, beats, err := b.StartHelper()
	if err != nil {
		return err
	}
	b.gpus = &GPUs{helper: gpuhelper.New(requests), beats: beats, verifier: b.Verifier, rule: b.Rule}
	return nil
}

func (b *bringUp) attached(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, attachLimit)
	defer cancel()
	for {
		driver, err := os.Readlink(b.device(address, "driver"))
		if err == nil && filepath.Base(driver) != driverName {
			return fmt.Errorf("%s has the driver %q, want %s", address, filepath.Base(driver), driverName)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the driver of %s: %w", address, ctx.Err())
		case <-time.After(attachPause):
		}
	}
}

// state wants the driver to have the devices that the bus has, in confidential mode, and none of them at work.
func (b *bringUp) state(context.Context) error {
	s, err := b.gpus.helper.State()
	if err != nil {
		return err
	}
	if err := b.same(s); err != nil {
		return err
	}
	if !s.Confidential || s.Development || s.Ready {
		return fmt.Errorf("confidential mode: %t, development mode: %t, at work: %t, want the first alone", s.Confidential, s.Development, s.Ready)
	}
	return nil
}

// same compares the driver's devices with those of the bus and of the rule.
func (b *bringUp) same(s gpuhelper.State) error {
	var gpus []string
	switches := 0
	for _, d := range s.Devices {
		if d.Kind == kindGPU {
			gpus = append(gpus, d.Address)
		} else {
			switches++
		}
	}
	if !slices.Equal(gpus, b.found) || switches != b.asks.Switches {
		return fmt.Errorf("the driver has the GPUs %q and %d switches, want %q and %d", gpus, switches, b.found, b.asks.Switches)
	}
	return nil
}

// evidence verifies the devices over a nonce of its own. What it finds is what every later evidence must find.
func (b *bringUp) evidence(context.Context) (err error) {
	b.text, err = b.gpus.verified(fresh())
	b.gpus.logged = b.text
	return err
}

// ready has the GPUs work, and looks whether they do.
func (b *bringUp) ready(context.Context) error {
	if err := b.gpus.helper.SetReady(true); err != nil {
		return err
	}
	s, err := b.gpus.helper.State()
	if err != nil {
		return err
	}
	if !s.Ready || !s.Confidential || s.Development {
		return fmt.Errorf("confidential mode: %t, development mode: %t, at work: %t, want the first and the last", s.Confidential, s.Development, s.Ready)
	}
	return b.same(s)
}
