package guest

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/qemu"
)

// The files of the folder Guest.Double: a program that plays the hardware of an emulated TD, and its other half, which is a plugin
// of QEMU. make image makes both.
const doubleProgram = "double"

// What the double leaves in a guest's folder.
const (
	TDXRootFile       = "tdx-root.pem"    // certificate of the root that vouches for the quotes of this start
	TDXCollateralFile = "collateral.json" // what Intel's service would say of the machine
	SNPRootFile       = "snp-root.pem"    // certificate of the root that vouches for reports
	SNPCollateralFile = "snp.crl"         // its revocation list
	SNPChipFile       = "snp-chip.key"    // what derived keys follow from, kept from start to start as a processor's fuses are
	QuotesFile        = "quotes"          // says how its quoting service behaves; no file is a good one
	doublePID         = "double.pid"
	doubleSocket      = "double.sock"
	vsockSocket       = "vsock.sock"
	doubleLog         = "double.log"
)

// doubles are what plays the hardware of each platform: the plugin, and the files of the root and of what is vouched for.
var doubles = map[measure.Platform]struct{ plugin, root, collateral string }{
	measure.TDX:    {"tdx.so", TDXRootFile, TDXCollateralFile},
	measure.SEVSNP: {"snp.so", SNPRootFile, SNPCollateralFile},
}

// startDouble starts the double and returns QEMU's arguments for it once it listens. It ends with QEMU.
func (g Guest) startDouble(ctx context.Context, spec Spec) (args []string, err error) {
	if spec.Shape.Accelerator != measure.TCG {
		return nil, fmt.Errorf("starting double: accelerator is %q, want %q, which it is a plugin of", spec.Shape.Accelerator, measure.TCG)
	}
	double, ok := doubles[spec.Shape.Platform]
	if !ok {
		return nil, fmt.Errorf("starting double: there is no double of platform %q", spec.Shape.Platform)
	}
	program, plugin := filepath.Join(g.Double, doubleProgram), filepath.Join(g.Double, double.plugin)
	for _, file := range []string{program, plugin} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("starting double: %w (make image makes it)", err)
		}
	}
	measured, err := spec.Config.Encode()
	if err != nil {
		return nil, fmt.Errorf("starting double: %w", err)
	}
	id, data := config.MRConfigID(measured), config.SHA256(measured)
	log, err := os.Create(g.Path(doubleLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if err := os.Remove(g.Path(doublePID)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// It outlives this program, as the guest does.
	vsockFlags, vsockArgs := g.playedVsock(spec.Shape, spec.Hardware.QuotingPort)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, slices.Concat([]string{"serve", "-socket", g.Path(doubleSocket), "-pid", g.Path(doublePID),
		"-out", g.Dir, "-tools-tree", g.Tree.Path("."), "-firmware", filepath.Join(spec.Release, spec.Shape.Firmware.Name),
		"-shape", g.Path(ShapeFile), "-boot", spec.Release, "-config-id", hex.EncodeToString(id[:]), "-host-data", hex.EncodeToString(data[:]),
		"-policy", fmt.Sprint(spec.Hardware.SNPPolicy), "-quotes", g.Path(QuotesFile), "-root", spec.SoftwareRoot}, vsockFlags, spec.Double)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = qemu.Unbound()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting double: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for g.process(doublePID) == 0 {
		select {
		case err := <-exited:
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("starting double: it ended at once: %v: %.2000s", err, said)
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("starting double: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return append([]string{"-plugin", qemu.Escape(plugin) + ",socket=" + qemu.Escape(g.Path(doubleSocket))}, vsockArgs...), nil
}

// playedVsock returns what has the double play the host's end of the guest's vsock, and what QEMU is told: the guest's memory is then a file
// that both have.
func (g Guest) playedVsock(s measure.Shape, port uint32) (flags, args []string) {
	if !HasVsock(s) {
		return nil, nil
	}
	socket := g.Path(vsockSocket)
	return []string{"-vsock", socket, "-cid", vsockCID(s), "-port", fmt.Sprint(cmp.Or(port, DefaultQuotingPort))},
		[]string{"-chardev", "socket,id=vsock,path=" + qemu.Escape(socket),
			"-object", fmt.Sprintf("memory-backend-memfd,id=ram,size=%dM,share=on", s.MemoryMiB), "-machine", "memory-backend=ram"}
}
