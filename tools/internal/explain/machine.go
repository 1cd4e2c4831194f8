package explain

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/measure"
	"chrysalis/measure/pe"
	"chrysalis/measure/register"
)

// maxTries bounds how many machines are tried; each costs a start of QEMU where no answer is kept.
const maxTries = 400

// searchTime bounds how long machines are tried.
const searchTime = 3 * time.Minute

// maxVTPMMemoryMiB is where memory stops to show in the tables of a vtpm guest: what is more lies above 4 GiB.
const maxVTPMMemoryMiB = 4096

// The machines that are tried beside the expected one, the likeliest first.
var (
	triedCPUs      = []int{1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192}
	triedMemoryMiB = []int{512, 768, 1024, 1280, 1536, 1792, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536, 98304,
		131072, 196608, 262144, 524288}
	triedMachines = []string{"hpet=off", "smm=off", "pic=off", "vmport=off", "usb=off", "i8042=off", "smbus=off", "sata=off", "graphics=off",
		"kernel-irqchip=split"}
	triedVersions = []string{"pc-q35-11.1", "pc-q35-11.0", "pc-q35-10.2", "pc-q35-10.1", "pc-q35-10.0", "pc-q35-9.2", "pc-q35-9.1",
		"pc-q35-9.0", "pc-q35-8.2", "pc-q35-8.1", "pc-q35-7.2", "pc-q35-6.2"}
	triedDevices = []string{"virtio-rng-pci", "virtio-serial-pci", "pvpanic-pci", "virtio-scsi-pci", "virtio-net-pci,romfile="}
	triedCPUBits = []struct {
		vendor string
		bits   int
	}{{measure.VendorAMD, 40}, {measure.VendorIntel, 39}, {measure.VendorIntel, 46}, {measure.VendorAMD, 48}, {measure.VendorIntel,
		52}, {measure.VendorAMD, 52}}
)

// machineName is the register that the machine's events are in.
func (x *explanation) machineName() string {
	if x.Evidence.Platform == evidence.TDX {
		return register.RTMR(0)
	}
	return register.PCR(1)
}

// machineCause looks for a machine whose tables are the guest's.
func (x *explanation) machineCause(ctx context.Context, at pair) (Cause, error) {
	name := x.machineName()
	const do = "if that machine is what you want, compute its registers and policy anew: chrysalis measure and chrysalis policy with " +
		"--shape of it; else the provider must start the guest as your shape says"
	// Tables of the host's are recognised exactly, and at once.
	says, exact := x.extraTables(ctx)
	if exact {
		return x.cause("acpi-table", name, at, says,
			"do not accept this guest: bytecode in a table of the host's runs in its kernel. The provider must start it without (QEMU's -acpitable)"), nil
	}
	found, tried := x.search(ctx)
	if err := ctx.Err(); err != nil {
		return Cause{}, err
	}
	if found != nil {
		kinds, got, want := shapeDifferences(*x.Shape, *found)
		c := x.cause(strings.Join(kinds, "+"), name, at,
			fmt.Sprintf("the guest's tables are those of %s, expected %s (other machines may make the same tables)", got, want), do)
		return c, nil
	}
	return x.cause("machine", name, at, fmt.Sprintf("the machine is another than the shape says, and none of %d machines near it has the "+
		"guest's tables: another QEMU, other devices, or ACPI tables that the host has changed%s", tried, says),
		"ask the provider for the shape.json of the machine, and look at what is new in it before you compute registers of it"), nil
}

// search tries machines near the expected one: each that differs in one thing, and from the first that comes closer on, those
// near that one. Tables have parts (the number of CPUs moves other parts than the memory does), so closer is closer. Another
// QEMU moves all parts at once, so each is searched.
func (x *explanation) search(ctx context.Context) (found *measure.Shape, tried int) {
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	starts := []measure.Shape{*x.Shape}
	for _, version := range x.Machines.Versions() {
		if version != x.Shape.QEMU {
			other := *x.Shape
			other.QEMU = version
			starts = append(starts, other)
		}
	}
	var seen []string
	try := func(s measure.Shape) (whole bool, score int) {
		if key := fmt.Sprint(s); slices.Contains(seen, key) || tried == maxTries || ctx.Err() != nil {
			return false, -1
		} else {
			seen = append(seen, key)
		}
		if tried++; x.Progress != nil {
			x.Progress(tried, maxTries)
		}
		return x.score(ctx, s)
	}
	for _, base := range starts {
		whole, best := try(base)
		for closer := true; closer && !whole; {
			closer = false
			for _, s := range x.near(base) {
				var score int
				if whole, score = try(s); whole || score > best {
					base, best, closer = s, score, true
					break
				}
			}
		}
		if whole {
			return &base, tried
		}
	}
	return nil, tried
}

// near returns the shapes that differ from s in one thing.
func (x *explanation) near(s measure.Shape) (all []measure.Shape) {
	add := func(change func(*measure.Shape)) {
		n := s
		n.Devices = slices.Clone(s.Devices)
		change(&n)
		if n.Check() == nil && fmt.Sprint(n) != fmt.Sprint(s) {
			all = append(all, n)
		}
	}
	for _, version := range x.Machines.Versions() {
		add(func(n *measure.Shape) { n.QEMU = version })
	}
	for _, cpus := range triedCPUs {
		add(func(n *measure.Shape) { n.CPUs = cpus })
	}
	for _, memory := range triedMemoryMiB {
		if x.Evidence.Platform == evidence.VTPM && memory > maxVTPMMemoryMiB {
			break
		}
		add(func(n *measure.Shape) { n.MemoryMiB = memory })
	}
	for i := len(s.Devices) - 1; i >= 0; i-- {
		add(func(n *measure.Shape) { n.Devices = slices.Delete(n.Devices, i, i+1) })
	}
	for _, device := range triedDevices {
		add(func(n *measure.Shape) { n.Devices = append(n.Devices, device) })
	}
	for i, d := range s.Devices {
		add(func(n *measure.Shape) { n.Devices[i], _, _ = strings.Cut(d, ",bootindex=") })
		if i > 0 {
			add(func(n *measure.Shape) { n.Devices[i-1], n.Devices[i] = n.Devices[i], n.Devices[i-1] })
		}
	}
	add(func(n *measure.Shape) { n.StrictBoot = !n.StrictBoot })
	for _, c := range triedCPUBits {
		add(func(n *measure.Shape) { n.CPUVendor, n.PhysBits = c.vendor, c.bits })
	}
	kind, switches, _ := strings.Cut(s.Machine, ",")
	for _, option := range triedMachines {
		if !strings.Contains(s.Machine, option) {
			add(func(n *measure.Shape) { n.Machine += "," + option })
		}
	}
	for _, version := range triedVersions {
		if version != kind {
			add(func(n *measure.Shape) { n.Machine = strings.TrimSuffix(version+","+switches, ",") })
		}
	}
	return all
}

// score reports whether the shape's events are the guest's, and how many are. A machine that can't be made scores nothing.
func (x *explanation) score(ctx context.Context, s measure.Shape) (whole bool, score int) {
	events, err := x.machineEvents(ctx, s)
	if err != nil {
		return false, -1
	}
	got := x.guest.events[x.machineName()]
	if len(got) == 0 {
		actual := x.guest.values[x.machineName()]
		return replay(events, len(actual)/2) == actual, 0
	}
	whole = true
	for _, p := range align(events, got) {
		switch {
		case p.same() && p.want.input.OfMachine():
			score++
		case p.want == nil || !p.same() && p.want.input.OfMachine():
			whole = false
		}
	}
	return whole, score
}

// machineEvents returns the events of the register that the machine decides over.
func (x *explanation) machineEvents(ctx context.Context, s measure.Shape) ([]event, error) {
	into := map[string][]event{}
	if x.Evidence.Platform == evidence.TDX {
		boot := x.tdxBoot()
		boot.Kernel, boot.Initrd, s = nil, nil, s.TDX()
		var err error
		if boot.Tables, err = x.Machines.Tables(ctx, s); err != nil {
			return nil, err
		}
		boot.Shape = &s
		events, err := boot.Events()
		if err != nil {
			return nil, err
		}
		expected(into, events, register.RTMR[uint8])
		return into[register.RTMR(0)], nil
	}
	tables, err := x.Machines.Tables(ctx, s)
	if err != nil {
		return nil, err
	}
	events, err := tables.Events()
	if x.Disk != nil {
		events, err = tables.DiskEvents(s)
	}
	if err != nil {
		return nil, err
	}
	expected(into, events, register.PCR[uint8])
	return into[register.PCR(1)], nil
}

// shapeDifferences names what differs, for people.
func shapeDifferences(want, got measure.Shape) (kinds []string, gotText, wantText string) {
	var g, w []string
	differ := func(kind, got, want string) {
		if got != want {
			kinds, g, w = append(kinds, kind), append(g, got), append(w, want)
		}
	}
	differ("qemu", "QEMU "+got.QEMU, "QEMU "+want.QEMU)
	differ("cpus", number(got.CPUs, "CPU"), number(want.CPUs, "CPU"))
	differ("memory", fmt.Sprintf("%d MiB", got.MemoryMiB), fmt.Sprintf("%d MiB", want.MemoryMiB))
	differ("machine-options", "machine "+got.Machine, "machine "+want.Machine)
	differ("cpu", fmt.Sprintf("%s with %d address bits", got.CPUVendor, got.PhysBits),
		fmt.Sprintf("%s with %d address bits", want.CPUVendor, want.PhysBits))
	strict := map[bool]string{true: "a strict boot order, as libvirt has it", false: "a boot order that is not strict"}
	differ("boot-order", strict[got.StrictBoot], strict[want.StrictBoot])
	if !slices.Equal(want.Devices, got.Devices) {
		kinds, g, w = append(kinds, "devices"), append(g, deviceDifferences(want.Devices, got.Devices)), append(w, "the shape's devices")
	}
	return kinds, strings.Join(g, " and "), strings.Join(w, " and ")
}

// deviceDifferences says how a list of devices is another. Tables show kinds and places of devices, not what is behind them.
func deviceDifferences(want, got []string) string {
	missing := func(list, from []string) (names []string) {
		from = slices.Clone(from)
		for _, d := range list {
			if i := slices.Index(from, d); i >= 0 {
				from = slices.Delete(from, i, i+1)
				continue
			}
			names = append(names, d)
		}
		return names
	}
	less, more := missing(want, got), missing(got, want)
	switch {
	case len(less)+len(more) == 0:
		return "the same devices in another order"
	case len(more) == 0:
		return fmt.Sprintf("%s less, such as %q", number(len(less), "device"), less)
	case len(less) == 0:
		return fmt.Sprintf("%s more, such as %q", number(len(more), "device"), more)
	}
	return fmt.Sprintf("%q in the place of %q", more, less)
}

func number(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// oldKernel reports under how much memory a QEMU before 10 would have handed over the kernel that the guest measured.
func (x *explanation) oldKernel(register string) (memoryMiB int, ok bool) {
	if !x.Release.has(kernelFile, initrdFile) {
		return 0, false
	}
	sizes := slices.Clone(triedMemoryMiB)
	if x.Shape != nil {
		sizes = slices.Insert(sizes, 0, x.Shape.MemoryMiB)
	}
	var last []byte
	for _, memory := range sizes {
		patched, err := measure.PatchKernel(x.Release.Files[kernelFile], int64(len(x.Release.Files[initrdFile])), memory)
		if err != nil || bytes.Equal(patched, last) {
			continue // of much memory the kernel sees the same low part
		}
		last = patched
		pcr, rtmr, err := pe.Hashes(patched)
		if err == nil && (x.hits(register, measure.InputKernel, pcr[:]) || x.hits(register, measure.InputKernel, rtmr[:])) {
			return memory, true
		}
	}
	return 0, false
}
