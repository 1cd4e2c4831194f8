// Package guest makes, starts and stops guests on this machine: their TPM and its maker's certificate, their disks, QEMU.
//
// Everything here is the host's side, which a guest does not trust.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/init/status"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/verity"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// journalBytes is the size of a new journal disk. It is sparse.
const journalBytes = 64 << 20

// guestPort is the service's port inside the guest.
const guestPort = 8443

// Spec is what a guest is made of.
type Spec struct {
	Release string `json:"release"` // release folder
	Engine  string `json:"engine"`  // engine volume
	Model   string `json:"model"`   // model volume
	// Models are the volumes of several models, in the config's order, in the place of Engine and Model.
	Models []Volumes       `json:"models,omitempty"`
	Disk   string          `json:"disk,omitempty"` // boot disk; empty boots the release's kernel directly
	Config config.Measured `json:"config"`
	Shape  measure.Shape   `json:"shape"`
	Listen string          `json:"listen,omitempty"` // IPv4 address of this machine; empty is its loopback interface
	Port   int             `json:"port"`             // port on it
	// Hardware is what QEMU is told about a confidential machine under KVM.
	Hardware Hardware `json:"hardware,omitzero"`
	// Handover asks the guest to hand its secret to another image, and to end. It is for one start.
	Handover config.HostHandover `json:"-"`
	// Custodian is where a guest that borrows its secret reaches its custodian, or a custodian the one whose secret it takes over, as an
	// address and port that the guest can dial; List is a file with the signed release list that goes with it, where the two are not of one release.
	Custodian string `json:"custodian,omitempty"`
	// Chain is how a guest whose charges are settled on chain reaches it, and is wanted of no other.
	Chain config.HostChain `json:"chain,omitzero"`
	List  string           `json:"list,omitempty"`
	// SoftwareRoot is the file with the root that software machines of the shape's platform have in common; empty: each has its own.
	SoftwareRoot string `json:"software_root,omitempty"`
	// Double are further arguments of the double that plays a TD's hardware: tests pass what an attacker's would do.
	Double []string `json:"double,omitzero"`
}

// Volumes are the files of an engine and of the model that it computes with.
type Volumes struct {
	Engine string `json:"engine"`
	Model  string `json:"model"`
}

// Volumes returns the files of each model, in the config's order.
func (s Spec) Volumes() []Volumes {
	if len(s.Models) > 0 {
		return s.Models
	}
	return []Volumes{{s.Engine, s.Model}}
}

// WithVolumes returns the spec with these volumes.
func (s Spec) WithVolumes(all []Volumes) Spec {
	s.Engine, s.Model, s.Models = "", "", nil
	if len(all) == 1 {
		s.Engine, s.Model = all[0].Engine, all[0].Model
	} else {
		s.Models = all
	}
	return s
}

// Guest is a guest's folder on this machine.
type Guest struct {
	Dir  string
	Tree toolstree.Tree
	// Double is the folder with the program and the plugin that play the hardware of an emulated TD. Other guests need none.
	Double string
}

// The files of a guest's folder.
const (
	specFile    = "guest.json"
	RootsFile   = "tpm-maker.pem" // certificate of the TPM's maker
	ShapeFile   = "shape.json"    // what QEMU makes of it
	ConfigFile  = "config.json"   // the config, as up and policy take it
	StatusFile  = "status.log"    // lines of the guest's status port
	NumbersFile = "numbers.log"   // lines of its numbers' port
	journal     = "journal.disk"
	tpmSocket   = "tpm.sock"
	monitorFile = "qmp.sock" // QEMU listens there
)

// Roots returns the file with the root that a client of this guest has to trust: of the TPM's maker, or of the software
// that plays a confidential machine.
func (g Guest) Roots(s measure.Shape) string {
	if d, ok := doubles[s.Platform]; ok {
		return g.Path(d.root)
	}
	return g.Path(RootsFile)
}

// Path returns the path of a file in the guest's folder.
func (g Guest) Path(name string) string { return filepath.Join(g.Dir, name) }

// Spec returns what the guest was last started with.
func (g Guest) Spec() (Spec, error) {
	data, err := os.ReadFile(g.Path(specFile))
	if err != nil {
		return Spec{}, err
	}
	var s Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return Spec{}, fmt.Errorf("reading %s: %v", g.Path(specFile), err)
	}
	return s, nil
}

// VolumeRef returns the name of a volume file as the measured config states it.
func VolumeRef(file string) (config.Volume, error) {
	f, err := os.Open(file)
	if err != nil {
		return config.Volume{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return config.Volume{}, err
	}
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); info.IsDir() || err == nil && string(magic) == "GGUF" {
		return config.Volume{}, fmt.Errorf("%[1]s is a model, and no volume of one: pack it first (chrysalis volume pack model %[1]s -o model.img)", file)
	}
	root, blocks, err := verity.Name(f, info.Size())
	if err != nil {
		return config.Volume{}, fmt.Errorf("%s: %w", file, err)
	}
	return config.Volume{Root: root, Blocks: blocks}, nil
}

// Start starts the guest and returns once QEMU runs. The TPM and the journal disk are made when the folder has none, and
// kept otherwise; a guest that seals nothing gets a new journal each time. Extra are arguments for QEMU that no guest needs: tests pass what an attacker would.
func (g Guest) Start(ctx context.Context, spec Spec, extra ...string) error {
	if pid := g.running(); pid != 0 {
		return fmt.Errorf("starting guest: %s runs already, as process %d (chrysalis status shows it, chrysalis down ends it)", g.Dir, pid)
	}
	if err := spec.portIsFree(); err != nil {
		return fmt.Errorf("starting guest: %w", err)
	}
	err := g.start(ctx, spec, extra...)
	if err != nil {
		g.Cut()
	}
	return err
}

func (g Guest) start(ctx context.Context, spec Spec, extra ...string) error {
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		return err
	}
	if err := Offers(spec.Shape); err != nil {
		return fmt.Errorf("starting guest: %w", err)
	}
	tree, err := qemu.OfVersion(ctx, g.Tree, spec.Shape.QEMU)
	if err == nil {
		err = hasFirmware(spec.Shape, filepath.Join(spec.Release, spec.Shape.Firmware.Name))
	}
	if err != nil {
		return fmt.Errorf("starting guest: %w", err)
	}
	if err := g.prepare(ctx, spec); err != nil {
		return err
	}
	g.endHardware() // a guest that ended by itself may have left some that still writes
	vouched := spec.Hardware.Endorsements
	if Simulated(spec.Shape) {
		plugin, err := g.startDouble(ctx, spec)
		if err != nil {
			return err
		}
		extra = append(plugin, extra...)
		if vouched.Collateral, err = os.ReadFile(g.Path(doubles[spec.Shape.Platform].collateral)); err != nil {
			return err
		}
	} else if spec.Shape.Platform == "" {
		if _, err := qemu.StartTPM(ctx, g.Tree, g.Path("tpm"), g.Path(tpmSocket)); err != nil {
			return err
		}
	}
	if err := g.writeConfig(spec, vouched); err != nil {
		return err
	}
	args, err := g.Arguments(spec, extra...)
	if err != nil {
		return fmt.Errorf("starting guest: %w", err)
	}
	log, err := os.Create(g.Path("qemu.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// The guest outlives this program, so ctx does not end it.
	cmd := qemu.Command(context.WithoutCancel(ctx), tree, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = qemu.Unbound()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting QEMU: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for g.running() == 0 {
		select {
		case err := <-exited:
			return fmt.Errorf("starting QEMU: it ended at once: %v: %s", err, g.LastWords())
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			return fmt.Errorf("starting QEMU: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// LastWords returns the last lines of what QEMU has said of itself, or of the program that plays the guest's hardware.
func (g Guest) LastWords() string {
	const most = 10
	var lines []string
	for _, name := range []string{doubleLog, "qemu.log"} {
		said, _ := os.ReadFile(g.Path(name))
		for line := range strings.Lines(string(said)) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// Arguments returns QEMU's command line for the guest. The disks that it names are written by Start.
func (g Guest) Arguments(spec Spec, extra ...string) ([]string, error) {
	f, err := g.files(spec)
	if err != nil {
		return nil, err
	}
	f.extra = extra
	return arguments(spec.Shape, f)
}

// files are what the guest is made of on this machine.
func (g Guest) files(spec Spec) (files, error) {
	if err := errors.Join(spec.Hardware.check(spec.Shape.Platform), spec.Hardware.checkGPUs(spec.Shape)); err != nil {
		return files{}, err
	}
	if spec.Disk != "" && spec.Shape.Platform == measure.SEVSNP {
		return files{}, fmt.Errorf("guest boots the disk %s, want the release's kernel directly: on %s what a disk boots is in no digest", spec.Disk, measure.SEVSNP)
	}
	cmdline, err := os.ReadFile(filepath.Join(spec.Release, "cmdline"))
	if err != nil {
		return files{}, err
	}
	measured, err := spec.Config.Encode()
	if err != nil {
		return files{}, err
	}
	return files{
		firmware: filepath.Join(spec.Release, spec.Shape.Firmware.Name), variables: g.Path("variables.fd"),
		kernel: filepath.Join(spec.Release, "vmlinuz"), initrd: filepath.Join(spec.Release, "initrd"), cmdline: string(cmdline),
		root: filepath.Join(spec.Release, "root.img"), disk: spec.Disk, config: g.Path("config.disk"), journal: g.Path(journal),
		volumes: spec.Volumes(), tpm: g.Path("tpm"),
		tpmSocket: g.Path(tpmSocket), status: g.Path(StatusFile), proofs: g.Path(ProofsFile), numbers: g.Path(NumbersFile), qmp: g.Path(monitorFile), pid: g.Path("qemu.pid"),
		listen: spec.listen(), hostPort: spec.Port, guestPort: guestPort, hardware: spec.Hardware, measured: measured,
		reachesOut: spec.Custodian != "" || spec.Chain.Given(),
	}, nil
}

// configDisk is the config disk, with what is vouched for about the machine.
func configDisk(spec Spec, vouched config.Endorsements) ([]byte, error) {
	measured, err := spec.Config.Encode()
	if err != nil {
		return nil, fmt.Errorf("preparing guest: %w", err)
	}
	way, err := spec.way()
	if err != nil {
		return nil, fmt.Errorf("preparing guest: %w", err)
	}
	if given, settles := spec.Chain.Given(), spec.Config.Service.Settles(); given != settles {
		return nil, fmt.Errorf("preparing guest: a way to the chain is given: %t, and charges are settled on it: %t", given, settles)
	}
	host, err := config.Host{Network: config.HostNetwork{Mode: config.ModeDHCP4}, Port: guestPort, QuotingPort: spec.Hardware.QuotingPort,
		Endorsements: vouched, Handover: spec.Handover, Custodian: way, Chain: spec.Chain}.Encode()
	if err != nil {
		return nil, err
	}
	return config.EncodeDisk(measured, host)
}

func (g Guest) writeConfig(spec Spec, vouched config.Endorsements) error {
	disk, err := configDisk(spec, vouched)
	if err != nil {
		return err
	}
	return os.WriteFile(g.Path("config.disk"), disk, 0o644)
}

// Prepare writes the guest's folder for others to start the guest from: its disks, its TPM if it has one, its shape. It is not for a
// guest whose hardware a program plays.
func (g Guest) Prepare(ctx context.Context, spec Spec) error {
	if pid := g.running(); pid != 0 {
		return fmt.Errorf("preparing guest: %s runs, as process %d (chrysalis down ends it)", g.Dir, pid)
	}
	if err := hasFirmware(spec.Shape, filepath.Join(spec.Release, spec.Shape.Firmware.Name)); err != nil {
		return fmt.Errorf("preparing guest: %w", err)
	}
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		return err
	}
	if err := g.prepare(ctx, spec); err != nil {
		return err
	}
	return g.writeConfig(spec, spec.Hardware.Endorsements)
}

// prepare writes the other disks of one start.
func (g Guest) prepare(ctx context.Context, spec Spec) error {
	variables, err := os.ReadFile(filepath.Join(spec.Release, "OVMF_VARS.fd"))
	if err != nil {
		return err
	}
	shape, err := measure.EncodeShape(spec.Shape)
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(g.Path("variables.fd"), variables, 0o644),
		os.WriteFile(g.Path(StatusFile), nil, 0o644),
		os.WriteFile(g.Path(NumbersFile), nil, 0o644),
		os.WriteFile(g.Path(ShapeFile), shape, 0o644),
		writeJSON(g.Path(specFile), spec),
		writeJSON(g.Path(ConfigFile), map[string]any{"identity": spec.Config.Identity, "service": spec.Config.Service}),
		g.tidyProofs())
	if err != nil {
		return err
	}
	if _, err := os.Stat(g.Path("tpm")); errors.Is(err, os.ErrNotExist) && spec.Shape.Platform == "" {
		if err := g.makeTPM(ctx, spec.SoftwareRoot); err != nil {
			return errors.Join(err, os.RemoveAll(g.Path("tpm")))
		}
	}
	if spec.Shape.Platform == "" && spec.SoftwareRoot != "" {
		if err := g.underRoot(spec.SoftwareRoot); err != nil {
			return err
		}
	}
	if spec.keepsNothing() {
		// Each boot is another guest, whose key opens no record of an earlier one: what they were good for left by the proofs' port.
		if err := os.RemoveAll(g.Path(journal)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(g.Path(journal)); errors.Is(err, os.ErrNotExist) {
		f, err := os.Create(g.Path(journal))
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(journalBytes), f.Close())
	}
	return nil
}

// EndedError says that the guest powered off, and with which code. An empty code means that it stopped without a word.
type EndedError struct{ Code status.Code }

func (e EndedError) Error() string {
	if e.Code == 0 {
		return "guest stopped without saying why"
	}
	return "guest ended: " + e.Code.String()
}

// Wait follows the status port until the guest serves. Each line goes to seen, which may be nil. A guest that ends before
// is an EndedError.
func (g Guest) Wait(ctx context.Context, seen func(status.Line)) error {
	return g.follow(ctx, seen, func(line status.Line) bool { return line.Serving })
}

// WaitEnd follows the status port until the guest ends, and returns its code.
func (g Guest) WaitEnd(ctx context.Context) (status.Code, error) {
	err := g.follow(ctx, nil, func(status.Line) bool { return false })
	var ended EndedError
	if errors.As(err, &ended) {
		return ended.Code, nil
	}
	return 0, err
}

// lines returns what the guest has written to its status port. A line outside the vocabulary is an error: the guest is of
// another release than this program, or something else writes there.
func (g Guest) lines() ([]status.Line, error) {
	data, err := os.ReadFile(g.Path(StatusFile))
	if err != nil {
		return nil, err
	}
	lines, err := status.ParseAll(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", g.Path(StatusFile), err)
	}
	return lines, nil
}

func (g Guest) follow(ctx context.Context, seen func(status.Line), done func(status.Line) bool) error {
	read := 0
	for {
		running := g.running() != 0
		lines, err := g.lines()
		if err != nil {
			return fmt.Errorf("following guest: %w", err)
		}
		var code status.Code
		for i, line := range lines {
			if i >= read && seen != nil {
				seen(line)
			}
			if line.Code != 0 {
				code = line.Code
			}
			if done(line) {
				return nil
			}
		}
		read = len(lines)
		if !running {
			return EndedError{code}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("following guest: %w; its last words: %q; %s", ctx.Err(), lines[max(0, len(lines)-3):], qemu.Where(g.Path(monitorFile)))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Drain closes the guest's port on this machine to new connections and waits until those that there are have ended: answers come to
// their end. It returns how many were left when it had waited long enough.
func (g Guest) Drain(ctx context.Context, spec Spec, enough time.Duration) (left int, err error) {
	if err := qemu.Unforward(g.Path(monitorFile), spec.listen(), spec.Port); err != nil {
		return 0, fmt.Errorf("draining guest: %w", err)
	}
	for began := time.Now(); ; {
		if left, err = qemu.Connections(g.Path(monitorFile), guestPort); err != nil {
			return 0, fmt.Errorf("draining guest: %w", err)
		}
		if left == 0 || time.Since(began) > enough {
			return left, nil
		}
		select {
		case <-ctx.Done():
			return left, fmt.Errorf("draining guest: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop powers the guest off: what is promised is durable before it is said, so there is nothing to wait for inside.
func (g Guest) Stop(ctx context.Context) error {
	const patience = 10 * time.Second
	began := time.Now()
	for pid := g.running(); pid != 0; pid = g.running() {
		how := syscall.SIGTERM
		if time.Since(began) > patience || ctx.Err() != nil {
			how = syscall.SIGKILL
		}
		if err := signal(pid, how); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stopping guest: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	g.endHardware()
	return nil
}

// Cut takes the power away, as a failing machine does.
func (g Guest) Cut() {
	for pid := g.running(); pid != 0; pid = g.running() {
		_ = signal(pid, syscall.SIGKILL)
		time.Sleep(5 * time.Millisecond)
	}
	g.endHardware()
}

// endHardware waits until the TPM has written its state and is gone, or the double: both end when QEMU does, and would otherwise
// be in the way of the next start.
func (g Guest) endHardware() {
	began := time.Now()
	for _, name := range []string{filepath.Join("tpm", qemu.TPMPID), doublePID} {
		for pid := g.process(name); pid != 0; pid = g.process(name) {
			if time.Since(began) > 5*time.Second {
				_ = signal(pid, syscall.SIGKILL)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// signal sends a process a signal.
func signal(pid int, how syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer p.Release()
	return p.Signal(how)
}

// Running reports whether the guest's QEMU runs.
func (g Guest) Running() bool { return g.running() != 0 }

// running returns the process of the guest's QEMU, or 0.
func (g Guest) running() int { return g.process("qemu.pid") }

// process returns the process that the named file of the guest's folder speaks of, or 0 when it is gone. A number that was
// given to somebody else is told by the command line, which holds the file's path.
func (g Guest) process(name string) int {
	data, err := os.ReadFile(g.Path(name))
	if err != nil {
		return 0
	}
	var pid int
	if _, err := fmt.Sscan(string(data), &pid); err != nil || pid <= 1 {
		return 0
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(cmdline), g.Path(name)) && !(len(cmdline) == 0 && dying("/proc", pid)) {
		return 0
	}
	return pid
}

// dying reports whether a process has begun to end and has not yet: it has lost its memory, and so its command line, and may have its
// sockets and files still, which the last of its threads closes. proc_pid_stat(5), proc_pid_task(5); PF_EXITING of linux/sched.h.
func dying(proc string, pid int) bool {
	const exiting = 4
	stat, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	// The name, in parentheses, may hold anything; behind it are state, five numbers, and flags.
	field := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(field) < 7 {
		return false
	}
	if field[0] == "Z" || field[0] == "X" { // the first thread has ended
		threads, _ := os.ReadDir(filepath.Join(proc, strconv.Itoa(pid), "task"))
		return len(threads) > 1
	}
	flags, err := strconv.ParseUint(field[6], 10, 32)
	return err == nil && flags&exiting != 0
}
