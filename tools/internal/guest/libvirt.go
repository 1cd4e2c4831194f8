package guest

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/tools/internal/qemu"
)

// Libvirt returns the guest as a domain of libvirt 12.9 or newer, the first that knows TDX: name is the domain's, emulator QEMU's
// path on the machine that runs it. The shape is the one that Libvirt makes of a machine: see StrictShape. Every PCI device has the
// address that QEMU would give it, because libvirt would put a bridge before each that has none, and nothing is left for it to add.
func (g Guest) Libvirt(spec Spec, name, emulator string) ([]byte, error) {
	f, err := g.files(spec)
	if err != nil {
		return nil, err
	}
	domain, err := libvirt(spec.Shape, f, name, emulator)
	if err != nil {
		return nil, fmt.Errorf("describing the guest for libvirt: %w", err)
	}
	return domain, nil
}

// StrictShape is the shape of the machine as libvirt starts it.
func StrictShape(s measure.Shape) measure.Shape {
	s.StrictBoot = true
	return s
}

// element is one of XML: its name and attributes as they are written, then text or others.
type element struct {
	head string
	text string
	in   []element
}

// e is an element with attributes in pairs of name and value.
func e(name string, attributes ...string) element {
	var head strings.Builder
	head.WriteString(name)
	for i := 0; i < len(attributes); i += 2 {
		head.WriteString(" " + attributes[i] + "='" + escape(attributes[i+1]) + "'")
	}
	return element{head: head.String()}
}

func (x element) with(in ...element) element { x.in = append(slices.Clone(x.in), in...); return x }
func (x element) says(text string) element   { x.text = text; return x }

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}

func (x element) write(b *bytes.Buffer, indent string) {
	name, _, _ := strings.Cut(x.head, " ")
	switch {
	case x.text != "":
		fmt.Fprintf(b, "%s<%s>%s</%s>\n", indent, x.head, escape(x.text), name)
	case len(x.in) == 0:
		fmt.Fprintf(b, "%s<%s/>\n", indent, x.head)
	default:
		fmt.Fprintf(b, "%s<%s>\n", indent, x.head)
		for _, in := range x.in {
			in.write(b, indent+"  ")
		}
		fmt.Fprintf(b, "%s</%s>\n", indent, name)
	}
}

// domainTypes are libvirt's words for accelerators.
var domainTypes = map[measure.Accelerator]string{measure.KVM: "kvm", measure.TCG: "qemu"}

// switches are what a shape's machine may ask for, as libvirt says it. QEMU's TDX has no PIC anyway, and libvirt never a USB
// controller that nobody asked for.
var switches = map[string]struct{ feature, timer *element }{
	"smm=off":              {feature: ptr(e("smm", "state", "off"))},
	"kernel-irqchip=split": {feature: ptr(e("ioapic", "driver", "qemu"))},
	"vmport=off":           {feature: ptr(e("vmport", "state", "off"))},
	"hpet=off":             {timer: ptr(e("timer", "name", "hpet", "present", "no"))},
	"pic=off":              {},
	"usb=off":              {},
}

func ptr(x element) *element { return &x }

// libvirt is the domain of a shape over files.
func libvirt(s measure.Shape, f files, name, emulator string) ([]byte, error) {
	switch {
	case !s.StrictBoot:
		return nil, errors.New("shape has no strict_boot, and libvirt starts every guest so")
	case Simulated(s):
		return nil, fmt.Errorf("shape is of a %s that a program plays, want hardware or a vtpm", s.Platform)
	case f.disk != "":
		return nil, fmt.Errorf("guest boots the disk %s, want the release's kernel directly", f.disk)
	case len(s.GPUs) > 0:
		return nil, fmt.Errorf("shape has %d GPUs, want none: where libvirt puts them is in no shape", len(s.GPUs))
	}
	machine, words, _ := strings.Cut(s.Machine, ",")
	features, clock := e("features").with(e("acpi"), e("apic")), e("clock", "offset", "utc")
	for word := range strings.SplitSeq(words, ",") {
		says, known := switches[word]
		switch {
		case word == "":
		case !known || word == "pic=off" && s.Platform != measure.TDX:
			return nil, fmt.Errorf("machine has %s, for which libvirt has no word", word)
		case says.feature != nil:
			features = features.with(*says.feature)
		case says.timer != nil:
			clock = clock.with(*says.timer)
		}
	}
	boot := e("os").with(e("type", "arch", "x86_64", "machine", machine).says("hvm"))
	if s.Platform == "" {
		boot = boot.with(e("loader", "readonly", "yes", "secure", "no", "type", "pflash", "format", "raw").says(f.firmware),
			e("nvram", "format", "raw").says(f.variables))
	} else {
		boot = boot.with(e("loader", "type", "rom").says(f.firmware))
		if s.Platform == measure.TDX && !strings.Contains(words, "kernel-irqchip=") {
			features = features.with(*switches["kernel-irqchip=split"].feature)
		}
	}
	cpu, err := domainCPU(s)
	if err != nil {
		return nil, err
	}
	devices, err := domainDevices(s, f)
	if err != nil {
		return nil, err
	}
	domain := e("domain", "type", domainTypes[s.Accelerator]).with(
		e("name").says(name), e("memory", "unit", "MiB").says(strconv.Itoa(s.MemoryMiB)), e("vcpu").says(strconv.Itoa(s.CPUs)),
		boot.with(e("kernel").says(f.kernel), e("initrd").says(f.initrd), e("cmdline").says(f.cmdline)),
		features, cpu, clock,
		e("on_poweroff").says("destroy"), e("on_reboot").says("destroy"), e("on_crash").says("destroy"),
		e("devices").with(e("emulator").says(emulator),
			e("controller", "type", "pci", "index", "0", "model", "pcie-root"), e("controller", "type", "usb", "index", "0", "model", "none")).
			with(devices...).with(e("memballoon", "model", "none")))
	launch, err := launchSecurity(s.Platform, f.hardware, f.measured)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	domain.with(launch...).write(&b, "")
	return b.Bytes(), nil
}

// domainCPU is the shape's processor. All are one socket's cores, as QEMU has them where nothing is said.
func domainCPU(s measure.Shape) (element, error) {
	topology := e("topology", "sockets", "1", "dies", "1", "cores", strconv.Itoa(s.CPUs), "threads", "1")
	if s.CPU == qemu.AcceleratedCPU {
		return e("cpu", "mode", "host-passthrough", "check", "none", "migratable", "off").with(topology, e("maxphysaddr", "mode", "passthrough")), nil
	}
	model, switches, switched := strings.Cut(s.CPU, ",")
	parts := []element{topology}
	if switched {
		for feature := range strings.SplitSeq(switches, ",") {
			name, off := strings.CutSuffix(feature, "=off")
			if !off {
				return element{}, fmt.Errorf("cpu is %q, want a model with no switch but FEATURE=off", s.CPU)
			}
			parts = append(parts, e("feature", "policy", "disable", "name", name))
		}
	}
	if model == "max" {
		return e("cpu", "mode", "maximum", "check", "none").with(parts...), nil
	}
	return e("cpu", "mode", "custom", "match", "exact", "check", "none").with(e("model", "fallback", "forbid").says(model)).with(parts...), nil
}

// launchSecurity is what the hardware is told. Kernel, initrd and command line of an SEV-SNP guest are in its launch digest by their
// hashes alone, so there is no domain without.
func launchSecurity(p measure.Platform, h Hardware, measured []byte) ([]element, error) {
	switch p {
	case measure.TDX:
		id := config.MRConfigID(measured)
		launch := e("launchSecurity", "type", "tdx").with(e("policy").says("0x10000000"), // SEPT_VE_DISABLE; Intel TDX Module ABI, TD attributes
			e("mrConfigId").says(base64.StdEncoding.EncodeToString(id[:])))
		switch kind, path, _ := strings.Cut(h.QuoteSocket, ":"); {
		case h.QuoteSocket == "":
		case kind == "unix":
			launch = launch.with(e("quoteGenerationService", "path", path))
		default:
			return nil, fmt.Errorf("quoting service is at %s, and libvirt reaches one at unix:/PATH alone (%s by default)", h.QuoteSocket, UnixQuoteSocket)
		}
		return []element{launch}, nil
	case measure.SEVSNP:
		data := config.SHA256(measured)
		return []element{e("launchSecurity", "type", "sev-snp", "kernelHashes", "yes").with(
			e("cbitpos").says(strconv.Itoa(cBitPosition)), e("reducedPhysBits").says(strconv.Itoa(reducedPhysBits)),
			e("policy").says(fmt.Sprintf("%#x", h.SNPPolicy)), e("hostData").says(base64.StdEncoding.EncodeToString(data[:])))}, nil
	}
	return nil, nil
}

// domainDevices are the shape's devices in their order. Those on the PCI bus get its places one after the other, as QEMU gives them.
func domainDevices(s measure.Shape, f files) (all []element, err error) {
	ports := map[string]element{"status": e("source", "path", f.status), "proofs": e("source", "path", f.proofs, "append", "on"),
		"numbers": e("source", "path", f.numbers, "append", "on")}
	slot, disks := 0, 0
	for _, d := range s.Devices {
		kind, words, _ := strings.Cut(d, ",")
		options := map[string]string{}
		for word := range strings.SplitSeq(words, ",") {
			if name, value, ok := strings.Cut(word, "="); ok {
				options[name] = value
			}
		}
		take := func(name string) string { defer delete(options, name); return options[name] }
		model, iommu := "virtio", []string(nil)
		if take("disable-legacy") == "on" {
			model = "virtio-non-transitional"
		}
		if take("iommu_platform") == "on" {
			iommu = []string{"iommu", "on"}
		}
		var x element
		switch kind {
		case "tpm-crb":
			take("tpmdev")
			x = e("tpm", "model", kind).with(e("backend", "type", "emulator", "version", "2.0", "persistent_state", "yes").with(
				e("source", "type", "dir", "path", f.tpm)))
		case "virtio-blk-pci":
			drive, serial, index := take("drive"), take("serial"), take("bootindex")
			at := slices.IndexFunc(f.disks(), func(d diskFile) bool { return d.id == drive })
			if at < 0 || serial == "" || index != "" && index != "1" {
				return nil, fmt.Errorf("device is %q, want a disk of a guest's with its serial number, and bootindex 1 or none", d)
			}
			x = e("disk", "type", "file", "device", "disk", "model", model).with(e("driver", append([]string{"name", "qemu", "type", "raw"}, iommu...)...),
				e("source", "file", f.disks()[at].file), e("target", "dev", fmt.Sprintf("vd%c", 'a'+disks), "bus", "virtio"))
			if f.disks()[at].readOnly {
				x = x.with(e("readonly"))
			}
			if x = x.with(e("serial").says(serial)); index != "" {
				x = x.with(e("boot", "order", index))
			}
			iommu = nil
			disks++
		case "virtio-net-pci":
			take("netdev")
			x = e("interface", "type", "user").with(e("backend", "type", "passt"), e("portForward", "proto", "tcp", "address", f.listen).with(
				e("range", "start", strconv.Itoa(f.hostPort), "to", strconv.Itoa(f.guestPort))), e("model", "type", model))
			if rom, set := options["romfile"]; set && rom == "" {
				take("romfile")
				x = x.with(e("rom", "enabled", "no"))
			}
		case "virtio-serial-pci":
			x = e("controller", "type", "virtio-serial", "index", "0", "model", model)
		case "virtserialport":
			source, known := ports[take("chardev")]
			if !known {
				return nil, fmt.Errorf("device is %q, want the port of status, of proofs or of numbers", d)
			}
			x = e("channel", "type", "file").with(source, e("target", "type", "virtio", "name", take("name")))
		case vsock:
			x = e("vsock", "model", model).with(e("cid", "auto", "no", "address", take("guest-cid")))
		case "virtio-rng-pci":
			x = e("rng", "model", model).with(e("backend", "model", "random").says("/dev/urandom"))
		default:
			return nil, fmt.Errorf("device is %q, want one that has a place in a domain", d)
		}
		if len(options) > 0 {
			return nil, fmt.Errorf("device is %q, and libvirt is told nothing of its %s", d, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if iommu != nil {
			x = x.with(e("driver", iommu...))
		}
		if kind != "tpm-crb" && kind != "virtserialport" {
			slot++
			x = x.with(e("address", "type", "pci", "domain", "0x0000", "bus", "0x00", "slot", fmt.Sprintf("0x%02x", slot), "function", "0x0"))
		}
		all = append(all, x)
	}
	return all, nil
}
