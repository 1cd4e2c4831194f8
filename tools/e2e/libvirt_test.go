package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chrysalis/init/status"
	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
	"chrysalis/tools/internal/toolstree"
)

// TestLibvirt gives libvirt the domains of all three platforms. It validates each, and turns it into QEMU's line, which must be the
// machine of our own line. Its daemon then starts the vtpm guest, under the newer QEMU, which is accepted by the policy that was computed
// for its shape, and refused by that for the demo's.
func TestLibvirt(t *testing.T) {
	needsGuests(t)
	g, spec := newGuest(t), demoMachine(t)
	demo := spec
	newer, err := tree(t).WithNewerQEMU()
	if err != nil {
		t.Fatal(err)
	}
	if spec.Shape.QEMU, err = qemu.Version(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	spec.Shape = guest.StrictShape(spec.Shape)
	if err := g.Prepare(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	specs := map[string]guest.Spec{"vtpm": spec}
	for p, h := range map[measure.Platform]guest.Hardware{measure.TDX: {QuoteSocket: guest.UnixQuoteSocket, QuotingPort: 4050}, measure.SEVSNP: {SNPPolicy: guest.DefaultSNPPolicy}} {
		s := spec
		firmware := filepath.Join(s.Release, map[measure.Platform]string{measure.TDX: "OVMF.inteltdx.fd", measure.SEVSNP: "OVMF.amdsev.fd"}[p])
		if s.Shape, err = guest.HardwareShape(spec.Shape.QEMU, p, qemu.CPU{Vendor: measure.VendorIntel, PhysBits: 46}, firmware); err != nil {
			t.Fatal(err)
		}
		if p == measure.TDX {
			s.Shape = guest.WithVsock(s.Shape, 3)
		}
		s.Shape, s.Hardware, s.Config = guest.StrictShape(s.Shape), h, guest.DemoConfigOn(p)
		s.Config.Service = spec.Config.Service
		specs[string(p)] = s
	}
	v := startLibvirt(t, g, specs)
	for name, s := range specs {
		ours, err := g.Arguments(s)
		if err != nil {
			t.Fatal(err)
		}
		want, got := machineOf(t, ours), machineOf(t, v.line(name))
		if name != "vtpm" {
			// Where libvirt starts nothing it takes the network card's place away, and puts bridges before it. startLibvirt has put
			// emulation in KVM's place.
			for _, m := range []map[string]string{got, want} {
				maps.DeleteFunc(m, func(what, is string) bool {
					return what == "device virtio-net-pci" || strings.HasPrefix(what, "device pcie-root-port") || what == "-accel" ||
						what == "-cpu" && (is == "max" || is == qemu.AcceleratedCPU)
				})
			}
		}
		for what := range maps.Keys(merge(got, want)) {
			if got[what] != want[what] {
				t.Errorf("%s: %s is %q by libvirt, want %q", name, what, got[what], want[what])
			}
		}
	}
	for end := time.Now().Add(bootLimit); ; time.Sleep(200 * time.Millisecond) {
		_, lines, err := g.State()
		if err != nil || time.Now().After(end) {
			t.Fatalf("guest does not serve: %v, error %v", lines, err)
		}
		if slices.ContainsFunc(lines, func(line status.Line) bool { return line.Serving }) {
			break
		}
	}
	c := newClient(t, g, spec)
	if v := c.verify(0); v.Verdict != "accepted" {
		t.Errorf("got %+v, want it accepted", v)
	}
	other := c.with(makePolicy(t, demo))
	if v := other.verify(1); v.Check != "pcr-1" {
		t.Errorf("under the policy for another shape: got refused by %q (%s), want by pcr-1", v.Check, v.Reason)
	}
	evidence := other.saved(1)
	wantCauses(t, "the shape itself", explained(t, evidence, spec))
	wantCauses(t, "the demo's shape", explained(t, evidence, demo), "qemu")
}

func merge(a, b map[string]string) map[string]string {
	a = maps.Clone(a)
	maps.Copy(a, b)
	return a
}

// libvirtDaemon is libvirt's daemon in a tree of its own, with a guest's folder as /mnt/guest.
type libvirtDaemon struct {
	t    *testing.T
	g    guest.Guest
	back *strings.Replacer // what a path there is here
}

// startLibvirt starts the daemon, has it read the domains of the specs, and start the one called vtpm.
func startLibvirt(t *testing.T, g guest.Guest, specs map[string]guest.Spec) libvirtDaemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("running as user %d, want root: libvirt's daemon runs inside a tree (use sudo)", os.Geteuid())
	}
	tree, err := tree(t).WithLibvirt()
	if err != nil {
		t.Fatal(err)
	}
	binds := map[string]string{"guest": g.Dir, "release": specs["vtpm"].Release, "volumes": filepath.Dir(specs["vtpm"].Engine)}
	var there, here []string
	for name, dir := range binds {
		there, here = append(there, dir+"/", "/mnt/"+name+"/"), append(here, "/mnt/"+name+"/", dir+"/")
	}
	for name, s := range specs {
		domain, err := g.Libvirt(s, name, "/usr/bin/"+qemu.Program)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer(there...).Replace(string(domain))
		// No KVM here: emulation in its place, with a CPU that it has. The rest is the domain.
		text = strings.NewReplacer("<domain type='kvm'>", "<domain type='qemu'>", "'host-passthrough' check='none' migratable='off'", "'maximum' check='none'",
			"    <maxphysaddr mode='passthrough'/>\n", "").Replace(text)
		if err := os.WriteFile(g.Path(name+".xml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(g.Path("libvirt.log"))
	if err != nil {
		t.Fatal(err)
	}
	// It ends its guest when its input ends, and not with the test's context, which is cancelled before.
	cmd := tree.Enter(context.WithoutCancel(t.Context()), toolstree.Entry{Binds: binds, Dir: "/mnt/guest"}, "sh", "-euc", libvirtScript)
	cmd.Stdout, cmd.Stderr = log, log
	stop, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		io.WriteString(stop, "stop\n")
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
		}
		log.Close()
	})
	said := func() string { text, _ := os.ReadFile(g.Path("libvirt.log")); return string(text) }
	for end := time.Now().Add(bootLimit); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat(g.Path("started")); err == nil {
			return libvirtDaemon{t, g, strings.NewReplacer(here...)}
		}
		select {
		case err := <-ended:
			t.Fatalf("libvirt ended: %v: %s", err, said())
		default:
			if time.Now().After(end) {
				t.Fatalf("libvirt starts no guest: %s", said())
			}
		}
	}
}

// libvirtScript runs inside the tree, whose places to write are memory. The daemon asks QEMU what it can do first, and keeps that in
// a cache; TDX and SEV-SNP are then added there, which is what it would find on a host of either.
const libvirtScript = `
for d in /etc/libvirt /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs $d; done
for f in passwd group; do (cat /etc/$f; echo libvirt-qemu:x:64055:64055::/:/bin/false) >/tmp/$f; mount --bind /tmp/$f /etc/$f; done
cat >/etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
swtpm_user = "root"
swtpm_group = "root"
security_driver = "none"
stdio_handler = "file"
remember_owner = 0
dynamic_ownership = 0
namespaces = []
cgroup_controllers = []
END
printf '%s\n' 'auth_unix_rw = "none"' 'unix_sock_group = "root"' 'log_outputs = "3:file:/mnt/guest/libvirtd.log"' >/tmp/libvirtd.conf
export LIBVIRT_DEFAULT_URI=qemu:///system
daemon() {
	libvirtd -f /tmp/libvirtd.conf -p /run/libvirtd.pid &
	pid=$!
	n=0
	until virsh version >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 300 ]; sleep 0.2; done
}
daemon
virsh domcapabilities --virttype qemu --machine q35 >/dev/null
kill $pid; wait $pid || :
cache=$(grep -l "<emulator>/usr/bin/qemu-system-x86_64\|q35" /var/cache/libvirt/qemu/capabilities/*.xml)
sed -i "0,/^  <flag name=/s//  <flag name='tdx-guest'\/>\n  <flag name='sev-snp-guest'\/>\n&/" $cache
daemon
for n in vtpm tdx sev-snp; do
	xmllint --noout --relaxng /usr/share/libvirt/schemas/domain.rng $n.xml
	eval "printf '%s\n' $(virsh domxml-to-native qemu-argv $n.xml)" >$n.line
done
virsh define vtpm.xml
virsh start vtpm
trap 'virsh destroy vtpm || :; kill $pid; wait $pid || :' EXIT
eval "printf '%s\n' $(sed -n '/^LC_ALL/,/^-msg/p' /var/log/libvirt/qemu/vtpm.log)" >vtpm.line
: >started
read stop || :
`

// line is QEMU's line as libvirt has it, with the paths of this machine.
func (v libvirtDaemon) line(name string) []string {
	v.t.Helper()
	text, err := os.ReadFile(v.g.Path(name + ".line"))
	if err != nil {
		v.t.Fatal(err)
	}
	var words []string
	for word := range strings.Lines(v.back.Replace(string(text))) {
		words = append(words, strings.TrimSuffix(word, "\n"))
	}
	return words
}

// machineOf says what machine a line of QEMU makes, in words that do not depend on how the line is written: ours has QEMU's short
// form, libvirt's JSON, names of its own for what is behind a device, and an address on each.
func machineOf(t *testing.T, args []string) map[string]string {
	t.Helper()
	// options returns a value's parts in either form. QEMU's own first word has no name.
	options := func(value, first string) map[string]string {
		o := map[string]string{}
		if strings.HasPrefix(value, "{") {
			var all map[string]any
			if err := json.Unmarshal([]byte(value), &all); err != nil {
				t.Fatalf("%s: %v", value, err)
			}
			for name, v := range all {
				o[strings.ReplaceAll(name, "_", "-")] = fmt.Sprint(v)
			}
			return o
		}
		for i, part := range strings.Split(value, ",") {
			name, v, named := strings.Cut(part, "=")
			if i == 0 && !named {
				name, v = first, part
			}
			o[strings.ReplaceAll(name, "_", "-")] = v
		}
		return o
	}
	on := map[string]string{"true": "on", "false": "off"}
	m, files, slot := map[string]string{}, map[string]string{}, 0
	var flash []string
	for i := 0; i+1 < len(args); i++ {
		value := args[i+1]
		switch args[i] {
		case "-kernel", "-initrd", "-append", "-bios", "-cpu", "-boot":
			m[args[i]] = value
		case "-accel":
			m["-accel"], _, _ = strings.Cut(value, ",")
		case "-m":
			var kib int
			if _, err := fmt.Sscanf(value, "size=%dk", &kib); err == nil {
				value = fmt.Sprint(kib >> 10)
			}
			m["-m"] = value
		case "-smp":
			m["-smp"], _, _ = strings.Cut(value, ",")
		case "-machine":
			o := options(value, "type")
			for name, v := range o {
				switch name {
				case "smm", "hpet", "kernel-irqchip":
					m["machine "+name] = v
				case "confidential-guest-support":
					m["machine "+name] = "given"
				}
			}
		case "-object":
			o := options(value, "qom-type")
			if o["sept-ve-disable"] == "true" {
				o["attributes"] = fmt.Sprint(float64(1 << 28)) // the same bit; Intel TDX Module ABI, TD attributes
			}
			for _, name := range []string{"mrconfigid", "quote-generation-socket", "attributes", "host-data", "policy", "kernel-hashes", "cbitpos", "reduced-phys-bits"} {
				v, given := o[name]
				if !given || o["qom-type"] != "tdx-guest" && o["qom-type"] != "sev-snp-guest" {
					continue
				}
				var number int64
				if _, err := fmt.Sscanf(v, "0x%x", &number); err == nil {
					v = fmt.Sprint(number)
				}
				if on[v] != "" {
					v = on[v]
				}
				m["hardware "+name] = v
			}
		case "-drive", "-blockdev":
			o := options(value, "")
			file := o["file"]
			if args[i] == "-blockdev" {
				file, o["id"], o["readonly"] = o["filename"], o["node-name"], on[o["read-only"]]
			}
			if o["if"] == "pflash" || strings.HasPrefix(o["id"], "libvirt-pflash") && strings.HasSuffix(o["id"], "-storage") {
				flash = append(flash, file)
			}
			if o["id"] != "" {
				files[o["id"]] = file + " read-only=" + o["readonly"]
			}
		case "-device":
			o := options(value, "driver")
			kind, modern := strings.CutSuffix(o["driver"], "-non-transitional")
			if modern {
				o["disable-legacy"] = "on"
			}
			if on[o["iommu-platform"]] != "" {
				o["iommu-platform"] = on[o["iommu-platform"]]
			}
			if kind != "tpm-crb" && kind != "virtserialport" {
				slot++
				if o["addr"] == "" {
					o["addr"] = fmt.Sprintf("0x%x", slot)
				}
			}
			what := "device " + kind
			if id := o["serial"] + o["name"]; id != "" {
				what += " " + id
			} else if kind == "pcie-root-port" {
				what += " " + o["addr"]
			}
			_, rom := o["romfile"]
			m[what] = fmt.Sprintf("at %s, boot %s, legacy-off %s, iommu %s, cid %s, rom file %t, %s", o["addr"], o["bootindex"], o["disable-legacy"],
				o["iommu-platform"], o["guest-cid"], rom && o["romfile"] == "", files[o["drive"]])
		}
	}
	m["flash"] = strings.Join(flash, " ")
	return m
}
