package hostgpu

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// board is a host with two GPUs and a switch behind bridges, in the form of sysfs as Linux documents it (Documentation/ABI/testing/sysfs-bus-pci):
// there was none to record. The third column of a resource's lines are flags.
func board() fstest.MapFS {
	const gpuResource = "0x000020affe000000 0x000020affeffffff 0x000000000014220c\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n" +
		"0x0000200000000000 0x0000203fffffffff 0x000000000014220c\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n" +
		"0x0000204000000000 0x0000204001ffffff 0x000000000014220c\n0x0000000000000000 0x0000000000000000 0x0000000000000000\n" +
		"0x00000000fb000000 0x00000000fb07ffff 0x0000000000046200\n"
	root := fstest.MapFS{}
	add := func(address, vendor, class, device, group, driver, resource string) {
		dir := "sys/bus/pci/devices/" + address + "/"
		for name, text := range map[string]string{"vendor": vendor, "class": class, "device": device, "resource": resource, "config": "\xde\x10\x35\x23\x06\x00\x10\x00"} {
			root[dir+name] = &fstest.MapFile{Data: []byte(text)}
		}
		link(root, dir+"iommu_group", "../../../../kernel/iommu_groups/"+group)
		if driver != "" {
			link(root, dir+"driver", "../../../../bus/pci/drivers/"+driver)
		}
		link(root, "sys/kernel/iommu_groups/"+group+"/devices/"+address, "../../../../devices/"+address)
	}
	add("0000:40:01.0", "0x8086\n", "0x060400\n", "0x352a\n", "21", "pcieport", "")
	add("0000:41:00.0", "0x10de\n", "0x030200\n", "0x2335\n", "21", "vfio-pci", gpuResource)
	add("0000:c1:00.0", "0x10de\n", "0x030200\n", "0x2335\n", "22", "vfio-pci", gpuResource)
	add("0000:05:00.0", "0x10de\n", "0x068000\n", "0x22a3\n", "23", "vfio-pci", "0x00000000a0000000 0x00000000a1ffffff 0x0000000000040200\n")
	add("0000:02:00.0", "0x1a03\n", "0x030000\n", "0x2000\n", "5", "ast", "")
	return root
}

func link(root fstest.MapFS, name, to string) {
	root[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
}

// at is a host of the files, whose GPUs say a word of their mode.
func at(root fstest.MapFS, words map[string]uint32) Host {
	return Host{Files: root, Opens: func(path string) error {
		if _, err := root.Open("dev/none"); path == "/dev/iommu" && root["dev/iommu"] != nil {
			return nil
		} else {
			return err
		}
	}, Read: func(_ fs.FS, name string, offset int64) (uint32, error) {
		for address, word := range words {
			if strings.Contains(name, address) && strings.HasSuffix(name, "/resource0") && (offset == hopperMode || offset == blackwellMode) {
				return word, nil
			}
		}
		return 0, fs.ErrPermission
	}}
}

func TestFind(t *testing.T) {
	all, err := at(board(), nil).Find()
	if err != nil || len(all) != 3 {
		t.Fatalf("got %+v (error %v), want two GPUs and a switch", all, err)
	}
	if d := all[0]; d.Address != "0000:05:00.0" || !d.Switch || d.Bytes() != 32<<20 {
		t.Errorf("the switch: got %+v", d)
	}
	// 16 MiB, 256 GiB and 32 MiB; the option ROM is none of them.
	if d := all[1]; d.Address != "0000:41:00.0" || d.Switch || d.Bytes() != 256<<30+48<<20 || len(d.BARs) != 3 || d.Group != "21" || d.Driver != "vfio-pci" || len(d.Beside) != 0 ||
		!d.Memory || d.Architecture() != "hopper" {
		t.Errorf("the first GPU: got %+v, want 256 GiB and 48 MiB, alone in group 21 but for a bridge", d)
	}
	if all, err := at(fstest.MapFS{}, nil).Find(); err != nil || len(all) != 0 {
		t.Errorf("no PCI: got %+v (error %v), want none", all, err)
	}
}

func TestMode(t *testing.T) {
	d := Device{Address: "0000:41:00.0", Number: 0x2335, Memory: true}
	b200 := d
	b200.Number = 0x2901
	for _, tt := range []struct {
		name   string
		device Device
		word   uint32
		want   Mode // "" is an error
	}{
		{"off", d, 0x40, Off}, {"on", d, 0x41, On}, {"devtools", d, 3, Devtools}, {"devtools alone", d, 2, ""}, {"protected PCIe", d, 0x20, Protected},
		{"the same bit of Blackwell", b200, 0x21, On}, {"all ones", d, ^uint32(0), ""},
		{"a line without a mode", Device{Address: d.Address, Number: 0x20b0, Memory: true}, 1, ""},
		{"a switch", Device{Address: d.Address, Number: 0x2335, Memory: true, Switch: true}, 1, ""},
		{"asleep", Device{Address: d.Address, Number: 0x2335}, 1, ""},
	} {
		got, err := at(nil, map[string]uint32{d.Address: tt.word}).ModeOf(tt.device)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: got %q and error %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestLook(t *testing.T) {
	on := map[string]uint32{"0000:41:00.0": 1, "0000:c1:00.0": 1}
	const iommu = "dev/iommu"
	for _, tt := range []struct {
		name   string
		change func(fstest.MapFS)
		words  map[string]uint32
		named  []string
		open   bool   // the guest is not confidential
		want   string // what is not well: NAME WEIGHT, and a word of what mends it
	}{
		{"well", nil, on, nil, false, ""},
		{"one of them", nil, on, []string{"0000:c1:00.0"}, false, ""},
		{"one that is not there", nil, on, []string{"0000:c2:00.0"}, false, "gpu missing lspci"},
		{"a switch alone", nil, on, []string{"0000:05:00.0"}, false, "gpu missing lspci"},
		{"none", func(r fstest.MapFS) {
			for name := range r {
				if strings.HasSuffix(name, "vendor") {
					r[name] = &fstest.MapFile{Data: []byte("0x8086\n")}
				}
			}
		}, on, nil, false, "gpu missing lspci"},
		{"the host's driver", func(r fstest.MapFS) {
			link(r, "sys/bus/pci/devices/0000:41:00.0/driver", "../../../../bus/pci/drivers/nvidia")
		}, on, nil, false,
			"gpu-driver missing driverctl set-override 0000:41:00.0 vfio-pci"},
		{"the host's driver, of one that is not named", func(r fstest.MapFS) { delete(r, "sys/bus/pci/devices/0000:41:00.0/driver") }, on, []string{"0000:c1:00.0"}, false, ""},
		{"no IOMMU", func(r fstest.MapFS) { delete(r, "sys/bus/pci/devices/0000:c1:00.0/iommu_group") }, on, nil, false, "gpu-iommu missing intel_iommu=on"},
		{"a group with the host's network", func(r fstest.MapFS) {
			r["sys/bus/pci/devices/0000:42:00.0/class"] = &fstest.MapFile{Data: []byte("0x020000\n")}
			link(r, "sys/kernel/iommu_groups/21/devices/0000:42:00.0", "../../../../devices/0000:42:00.0")
		}, on, nil, false, "gpu-iommu missing give 0000:42:00.0 to vfio-pci"},
		{"a group with another GPU that is given too", func(r fstest.MapFS) {
			link(r, "sys/kernel/iommu_groups/21/devices/0000:c1:00.0", "../../../../devices/0000:c1:00.0")
		}, on, nil, false, ""},
		{"no iommufd", func(r fstest.MapFS) { delete(r, iommu) }, on, nil, false, "iommufd missing modprobe iommufd"},
		{"no windows", func(r fstest.MapFS) { r["sys/bus/pci/devices/0000:41:00.0/resource"] = &fstest.MapFile{} }, on, nil, false, "gpu-windows missing Above 4G"},
		{"off", nil, map[string]uint32{"0000:41:00.0": 1, "0000:c1:00.0": 0}, nil, false, "gpu-mode missing --gpu-bdf 0000:c1:00.0 --set-cc-mode=on"},
		{"devtools in all", nil, map[string]uint32{"0000:41:00.0": 3, "0000:c1:00.0": 3}, nil, false, "gpu-mode missing --set-cc-mode=on"},
		{"protected PCIe in one", nil, map[string]uint32{"0000:41:00.0": 0x20, "0000:c1:00.0": 1}, nil, false, "gpu-mode missing --set-cc-mode=on"},
		{"protected PCIe", nil, map[string]uint32{"0000:41:00.0": 0x20, "0000:c1:00.0": 0x20}, nil, false, ""},
		{"a register that nobody reads", nil, nil, nil, false, "gpu-mode slow look as root"},
		{"off, for a guest that proves nothing", nil, map[string]uint32{"0000:41:00.0": 0, "0000:c1:00.0": 0}, nil, true, ""},
		{"asleep", func(r fstest.MapFS) {
			r["sys/bus/pci/devices/0000:41:00.0/config"] = &fstest.MapFile{Data: []byte("\xde\x10\x35\x23\x00\x00\x10\x00")}
		}, on, nil, false, "gpu-mode slow power/control"},
	} {
		root := board()
		root[iommu] = &fstest.MapFile{}
		if tt.change != nil {
			tt.change(root)
		}
		var got []string
		for _, f := range Look(at(root, tt.words), tt.named, !tt.open) {
			if f.Found == "" || f.Need == "" || (f.Mend == "") != (f.Weight == Fine) {
				t.Errorf("%s: got %+v, want what was found and needed, and what mends it where it is not well", tt.name, f)
			}
			if f.Weight == Fine {
				continue
			}
			got = append(got, f.Name+" "+string(f.Weight)+" "+f.Mend)
		}
		name, mend, _ := strings.Cut(tt.want, " ")
		weight, mend, _ := strings.Cut(mend, " ")
		if tt.want == "" && got != nil || tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], name+" "+weight+" ") || !strings.Contains(got[0], mend)) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestVBIOS reads what NVIDIA's driver says of a GPU of its.
func TestVBIOS(t *testing.T) {
	root := board()
	root["proc/driver/nvidia/gpus/0000:41:00.0/information"] = &fstest.MapFile{Data: []byte(
		"Model: \t\t NVIDIA H200\nIRQ:   \t\t 259\nGPU UUID: \t GPU-00000000-0000-0000-0000-000000000000\nVideo BIOS: \t 96.00.BC.00.01\nBus Type: \t PCIe\n")}
	findings := Look(at(root, nil), []string{"0000:41:00.0"}, false)
	if f := findings[len(findings)-1]; f.Name != "gpu-vbios" || f.Found != "0000:41:00.0 has 96.00.BC.00.01" {
		t.Errorf("got %+v, want the VBIOS", f)
	}
}
