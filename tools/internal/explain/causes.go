package explain

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"chrysalis/attest/evidence"
	"chrysalis/measure"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pe"
	"chrysalis/measure/register"
	"chrysalis/measure/tdvf"
)

// What to do about the parts of a release.
const (
	doRelease = "if the guest runs another release that you want, take that release's manifest (and make a policy of it); else the " +
		"provider must boot the files of yours"
	doSettings = "the provider must start the guest over the release's empty variable store (OVMF_VARS.fd)"
	doBoot     = "compare with the disk (--disk FILE), and make the policy of its registers: chrysalis measure vtpm --disk, chrysalis " +
		"policy --pcrs; or have the guest booted directly"
	doConfig = "have the guest restarted; if it was changed on purpose, compare with its config (--config)"
)

// cause makes a cause of the first event that differs.
func (x *explanation) cause(kind, register string, at pair, says, do string) Cause {
	r := x.register(register)
	c := Cause{Kind: kind, Register: register, Expected: r.Expected, Actual: r.Actual, Says: says, Do: do}
	if at.want != nil {
		c.Meaning, c.Expected = at.want.meaning(), at.want.digest
		if c.Actual = ""; at.got == nil {
			c.place = x.after(register, at)
		}
	}
	if at.got != nil {
		if c.Actual = at.got.digest; at.want == nil {
			c.Meaning, c.Expected = at.got.meaning(), ""
		}
		c.Event, c.place = at.got.place(), at.got.order()
	}
	return c
}

// after is the place of the guest's event before an expected one that is not there.
func (x *explanation) after(register string, at pair) (place int) {
	for _, p := range x.pairs[register] {
		if p.want == at.want {
			return place
		}
		if p.got != nil {
			place = p.got.order()
		}
	}
	return place
}

// causes explains each register that differs.
func (x *explanation) causes(ctx context.Context) (all []Cause, err error) {
	covered := map[string]bool{}
	if c, registers, ok := x.otherBoot(); ok {
		all = append(all, c)
		for _, name := range registers {
			covered[name] = true
		}
	}
	for _, r := range x.report.Registers {
		if r.State != Different || covered[r.Name] {
			continue
		}
		groups := x.groups(r.Name)
		if len(groups) == 0 && len(x.want[r.Name]) > 0 {
			continue // the log is as expected and does not replay to the register, which has been said
		}
		if len(groups) == 0 {
			all = append(all, x.wholeCause(r))
			continue
		}
		for _, g := range groups {
			causes, err := x.groupCauses(ctx, r.Name, g)
			if err != nil {
				return nil, err
			}
			all = append(all, causes...)
		}
	}
	return x.released(merged(all)), nil
}

// group is the events of a register that differ for one reason.
type group struct {
	input measure.Input
	kind  eventlog.Kind
	first pair
}

// groups returns the differences of a register by what they follow from. Without events of the guest there is one for each
// input that the register holds and that can be guessed.
func (x *explanation) groups(name string) (groups []group) {
	for _, p := range x.pairs[name] {
		if p.same() || x.want[name] == nil {
			continue
		}
		g := group{first: p}
		if p.want != nil {
			g.input, g.kind = p.want.input, p.want.kind
		} else {
			g.input, g.kind = inputOf(name, *p.got), p.got.kind
		}
		if g.input.OfMachine() {
			g.input = measure.InputACPI
		}
		if !slices.ContainsFunc(groups, func(o group) bool { return o.input == g.input && o.kind == g.kind }) {
			groups = append(groups, g)
		}
	}
	if len(x.guest.events[name]) == 0 && len(groups) > 1 {
		return groups[:1] // all of the register, of which no part is known
	}
	return groups
}

// inputOf guesses what an event follows from that nobody expected, by its place and by what the log calls it.
func inputOf(named string, e event) measure.Input {
	switch e.typ {
	case typeSecureBoot, typeAuthority:
		return measure.InputSecureBoot
	case typeBootVariable:
		return measure.InputBootVariables
	case typePartitions:
		return measure.InputPartitions
	case typeApplication, typeDriver:
		return measure.InputUKI
	case 0x0a, typeHandoff:
		return measure.InputACPI
	}
	if named == register.PCR(9) || named == register.PCR(12) {
		return measure.InputCmdline
	}
	return ""
}

func (x *explanation) groupCauses(ctx context.Context, name string, g group) ([]Cause, error) {
	if g.kind != 0 {
		return x.runtimeCauses(name, g), nil
	}
	one := func(kind, says, do string) ([]Cause, error) {
		return []Cause{x.cause(kind, name, g.first, says, do)}, nil
	}
	switch g.input {
	case measure.InputACPI, measure.InputMemory, measure.InputSetting, measure.InputSMBIOS:
		c, err := x.machineCause(ctx, g.first)
		return []Cause{c}, err
	case measure.InputFirmware:
		says := "the firmware is another build than the release's"
		if p := g.first; p.got != nil && p.got.typ == typeVersion {
			if version, ok := p.got.says(); ok {
				says += fmt.Sprintf(": it calls itself %q", version)
			}
		}
		return one("firmware", says, doRelease)
	case measure.InputSecureBoot:
		says := "the Secure Boot variables are others than an empty variable store gives"
		if g.first.got != nil {
			if variable, content, ok := g.first.got.variable(); ok {
				says += fmt.Sprintf(": %s holds %s", variable, number(len(content), "byte"))
			}
		}
		return one("secure-boot", says, doSettings)
	case measure.InputVariableStore:
		return one("variable-store", "the firmware's variable store is not the empty one: it may hold boot entries or keys", doSettings)
	case measure.InputBootVariables:
		return one("boot-variables", "the firmware would boot something else: its boot variables are others than those of a direct boot "+
			"over an empty variable store", doSettings)
	case measure.InputKernel:
		if memory, ok := x.oldKernel(name); ok {
			return one("kernel-header", fmt.Sprintf("the kernel is the release's, with the setup header as a QEMU before 10.0 writes it on a "+
				"machine of %d MiB", memory), "have the guest started by QEMU 10.0 or newer, or compute the registers with that version in shape.json")
		}
		return one("kernel", "the kernel is another than the release's", doRelease)
	case measure.InputCmdline:
		differs := x.cmdline(name)
		if differs == "" && len(x.guest.events[name]) == 0 {
			return one("release", "the initrd or the command line is another than the release's", doRelease)
		}
		return one("command-line", "the command line is another than the release's"+differs,
			"the provider must boot the release's command line, byte for byte; if the guest runs another release, take that release's manifest")
	case measure.InputInitrd:
		return one("initrd", "the initrd is another than the release's", doRelease)
	case measure.InputUKI:
		if name == register.PCR(2) || name == register.RTMR(0) {
			return one("option-rom", "a device brought a driver of its own (an option ROM), which ran in the firmware",
				"have the guest started without it: romfile= on the device")
		}
		return one("boot-image", "the firmware started another image than expected", doRelease)
	case measure.InputSection, measure.InputPartitions:
		return one("disk", "the guest booted from another disk than expected", doBoot)
	}
	return one("unknown", "the guest's boot took another course: "+g.first.label(),
		"compare the events beside each other; what is behind this one is not known here")
}

func (p pair) label() string {
	if p.got != nil {
		return p.got.meaning()
	}
	return p.want.meaning() + " is missing"
}

// runtimeCauses explains the guest's own log.
func (x *explanation) runtimeCauses(name string, g group) []Cause {
	if g.first.want == nil {
		switch g.kind {
		case eventlog.KindGPULost:
			return []Cause{x.cause("gpu-lost", name, g.first, "the guest has lost its GPU, and serves no longer",
				"have the guest restarted, and its GPU looked at")}
		case eventlog.KindTerminated:
			return []Cause{x.cause("terminated", name, g.first, "the guest has ended", "have the guest restarted, and ask it again")}
		}
		return []Cause{x.cause("runtime-log", name, g.first,
			fmt.Sprintf("the guest's log has a %s event that nobody expected", g.kind), doConfig)}
	}
	if g.first.got == nil {
		return []Cause{x.cause("not-ready", name, g.first,
			fmt.Sprintf("the guest had not come as far as its %s event when it answered",
				g.kind), "ask again once the guest serves (chrysalis status)")}
	}
	if causes := x.configCauses(g.first, name); len(causes) > 0 {
		return causes
	}
	return []Cause{x.cause("runtime-log", name, g.first, fmt.Sprintf("the guest measured another %s than its config says", g.kind), doConfig)}
}

// wholeCause explains a register of which no events are known.
func (x *explanation) wholeCause(r Register) Cause {
	says, kind, do := "the register is another, and no events are known that would say why", "unknown", "compare with the release's files beside its manifest, which give the events"
	switch r.Name {
	case register.MRTD:
		kind, says, do = "firmware", "the firmware is another build than the release's "+tdxFirmware, doRelease
		if other, err := tdvf.MRTD(x.Release.Files[tdxFirmware], tdvf.TwoPass); err == nil && hex.EncodeToString(other[:]) == r.Actual {
			kind, says, do = "page-order", "the firmware is the release's, and the hypervisor measured its pages in the other order, as QEMU "+
				"8.2 of Ubuntu 24.04 does", "compute the registers with --page-order two-pass"
		}
	case register.RTMR(3), registerConfigID:
		kind, says, do = "config", "the hypervisor started the guest with the digest of another config, or none", doConfig
		if r.Name == register.RTMR(3) {
			says = "the guest has COCOON's public identity and was not to, or the reverse"
		}
		if causes := x.configCauses(pair{}, r.Name); len(causes) > 0 {
			return causes[0]
		}
	case register.PCR(0):
		kind, says, do = "firmware", "the firmware is another build than the release's", doRelease
	case register.PCR(4):
		kind, says, do = "kernel", "the kernel is another than the release's", doRelease
	case register.PCR(9):
		kind, says, do = "release", "the initrd or the command line is another than the release's", doRelease
	case register.PCR(7):
		kind, says, do = "secure-boot", "the Secure Boot variables are others than an empty variable store gives", doSettings
	}
	c := Cause{Kind: kind, Register: r.Name, Meaning: "whole register", Expected: r.Expected, Actual: r.Actual, Says: says, Do: do}
	if r.Name == register.MRTD {
		c.place = placeMRTD
	}
	return c
}

// otherBoot recognises a guest that booted from a disk where a direct boot was expected, by the first section that the
// image's stub measures, and the other way round. The cause covers every register that such a boot moves.
func (x *explanation) otherBoot() (c Cause, covered []string, ok bool) {
	linux, linux384 := sha256.Sum256([]byte(".linux\x00")), sha512.Sum384([]byte(".linux\x00"))
	stub, registers := register.PCR(11), []string{register.PCR(1), register.PCR(4), register.PCR(5), register.PCR(9), register.PCR(11),
		register.PCR(12)}
	if x.Evidence.Platform == evidence.TDX {
		stub, registers = register.RTMR(2), []string{register.RTMR(1), register.RTMR(2)}
	}
	has := func(events []event) bool {
		return slices.ContainsFunc(events, func(e event) bool {
			return e.digest == hex.EncodeToString(linux[:]) || e.digest == hex.EncodeToString(linux384[:])
		})
	}
	fromDisk, wanted := has(x.guest.events[stub]), has(x.want[stub])
	if fromDisk == wanted || x.want[stub] == nil && x.values[stub] == "" {
		return c, nil, false
	}
	says := "the guest booted a kernel directly, expected a boot from a disk"
	kind, do := "direct-boot", "leave --disk away, and make the policy of the release's manifest; or have the guest booted from its disk"
	if fromDisk {
		kind, do = "boot-from-disk", doBoot
		says = "the guest booted a unified kernel image from a disk, expected a direct boot"
		if !slices.ContainsFunc(x.guest.events[register.PCR(5)], func(e event) bool { return e.typ == typePartitions && e.proven }) &&
			stub == register.PCR(11) {
			says = "the guest booted a unified kernel image, expected a direct boot of the kernel"
		}
		if pcr, rtmr, err := pe.Hashes(x.Release.Files[kernelFile]); err == nil && (x.logged(pcr[:]) || x.logged(rtmr[:])) {
			says += "; the kernel in the image is the release's"
		}
	}
	for _, name := range registers {
		if x.register(name).State == Different {
			covered = append(covered, name)
		}
	}
	var first pair
	register := stub
	for _, name := range covered {
		for _, p := range x.pairs[name] {
			if !p.same() && p.got != nil && (first.got == nil || p.got.order() < first.got.order()) {
				first, register = p, name
			}
		}
	}
	return x.cause(kind, register, first, says, do), covered, true
}

// logged reports whether some event of the guest has the digest.
func (x *explanation) logged(digest []byte) bool {
	for _, events := range x.guest.events {
		if slices.ContainsFunc(events, func(e event) bool { return e.digest == hex.EncodeToString(digest) }) {
			return true
		}
	}
	return false
}

// hits reports whether the guest measured the digest in place of the input's: its log says so, or without one its register.
func (x *explanation) hits(register string, input measure.Input, digest []byte) bool {
	text := hex.EncodeToString(digest)
	if events := x.guest.events[register]; len(events) > 0 {
		return slices.ContainsFunc(events, func(e event) bool { return e.digest == text })
	}
	actual := x.guest.values[register]
	changed := slices.Clone(x.want[register])
	for i := range changed {
		if changed[i].input == input {
			if len(changed[i].digest) != len(text) {
				return false
			}
			changed[i].digest = text
		}
	}
	return replay(changed, len(actual)/2) == actual
}

// triedWords are what people add to a kernel's command line.
var triedWords = []string{"console=ttyS0", "console=hvc0", "console=tty0", "console=ttyS0,115200", "earlyprintk=serial", "earlycon",
	"debug", "quiet", "loglevel=7", "loglevel=8",
	"ignore_loglevel", "nokaslr", "nosmp", "single", "rw", "ro", "init=/bin/sh", "rdinit=/bin/sh", "panic=1", "panic=-1", "lockdown=none",
	"mitigations=off", "nomodeset",
	"systemd.debug-shell", "rd.break", "console=ttyS0 debug"}

// cmdline says how the command line differs, where it is a word more or less.
func (x *explanation) cmdline(register string) string {
	if !x.Release.has(cmdlineFile) {
		return ""
	}
	own := string(x.Release.Files[cmdlineFile])
	try := func(text string) bool {
		for _, loaded := range []func(string) ([]byte, error){measure.LoadOptions, measure.LoadOptionsFirst} {
			options, err := loaded(text)
			if err != nil {
				return false
			}
			s256, s384 := sha256.Sum256(options), sha512.Sum384(options)
			if x.hits(register, measure.InputCmdline, s256[:]) || x.hits(register, measure.InputCmdline, s384[:]) {
				return true
			}
		}
		return false
	}
	for _, word := range triedWords {
		if try(own + " " + word) {
			return fmt.Sprintf(": %q stands after it", word)
		}
		if try(word + " " + own) {
			return fmt.Sprintf(": %q stands before it", word)
		}
	}
	words := strings.Split(own, " ")
	for i, word := range words {
		if try(strings.Join(slices.Delete(slices.Clone(words), i, i+1), " ")) {
			return fmt.Sprintf(": %q is missing", word)
		}
	}
	return ""
}

// merged drops causes that say what an earlier one has said: a config moves several registers.
func merged(all []Cause) (causes []Cause) {
	for _, c := range all {
		if !slices.ContainsFunc(causes, func(o Cause) bool { return o.Kind == c.Kind && o.Says == c.Says }) {
			causes = append(causes, c)
		}
	}
	return causes
}

// released names the release that the guest runs, where the policy knows it.
func (x *explanation) released(causes []Cause) []Cause {
	files := []string{"firmware", "kernel", "initrd", "command-line", "release"}
	registers := []string{register.PCR(0), register.PCR(4), register.PCR(9)}
	if x.Evidence.Platform == evidence.TDX {
		registers = []string{register.MRTD, register.RTMR(1), register.RTMR(2)}
	}
	for _, entry := range x.entries() {
		fits := true
		for _, name := range registers {
			fits = fits && entry.values[name] == x.guest.values[name]
		}
		if !fits {
			continue
		}
		for i, c := range causes {
			if slices.Contains(files, c.Kind) {
				causes[i].Says = fmt.Sprintf("%s: the guest runs release %q, which the policy accepts", c.Says, entry.release)
				causes[i].Do = fmt.Sprintf("take the manifest of release %q", entry.release)
			}
		}
		break
	}
	return causes
}
