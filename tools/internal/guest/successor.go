package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cavaliergopher/cpio"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// Successor is a release that shall take over a guest's secret, as the guest's own rule judges it.
type Successor struct {
	// Same says that it is the image that the guest has.
	Same bool
	// Ask is what the guest's host document asks for.
	Ask config.HostHandover
}

// SuccessorOf judges whether the guest's release hands its secret to the one in a folder, which a signed list names. The guest judges it
// again, and by its own registers.
func SuccessorOf(spec Spec, folder string, list []byte) (Successor, error) {
	if spec.Shape.Platform != "" {
		return Successor{}, fmt.Errorf("the guest's platform is %s, want vtpm: nobody else can seal to an image that does not run", spec.Shape.Platform)
	}
	if spec.Disk != "" {
		return Successor{}, fmt.Errorf("the guest boots from %s, want one that boots a release directly: what a disk measures is not computed here", spec.Disk)
	}
	own, err := naming(spec.Release)
	if err != nil {
		return Successor{}, err
	}
	next, err := naming(folder)
	if err != nil {
		return Successor{}, err
	}
	image, err := imageOf(spec.Release)
	if err != nil {
		return Successor{}, err
	}
	measured, err := spec.Config.Encode()
	if err != nil {
		return Successor{}, err
	}
	identity, _, err := config.Split(measured)
	if err != nil {
		return Successor{}, err
	}
	party := func(pcrs register.PCRs) handover.Party {
		p := handover.Party{Platform: evidence.VTPM, Registers: map[string][]byte{}, Identity: config.IdentityDigest(identity)}
		for index, value := range pcrs {
			p.Registers[register.PCR(index)] = value[:]
		}
		return p
	}
	h := handover.Handover{Giver: party(own), Taker: party(next), Image: image, Narrowed: spec.Config.Identity.Handover, List: list}
	adds, err := h.Adds()
	if err != nil {
		return Successor{}, err
	}
	s := Successor{Same: adds == register.Digest{}, Ask: config.HostHandover{PCRs: next, List: list}}
	return s, errors.Join(h.Judge(), s.Ask.Check())
}

// naming returns the PCRs that name a release's image.
func naming(folder string) (register.PCRs, error) {
	var failed error
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(folder, name))
		failed = errors.Join(failed, err)
		return data
	}
	boot := measure.DirectBoot{Firmware: read("OVMF_CODE.fd"), Kernel: read("vmlinuz"), Cmdline: string(read("cmdline"))}
	if failed != nil {
		return nil, failed
	}
	initrd, err := os.Open(filepath.Join(folder, "initrd"))
	if err != nil {
		return nil, err
	}
	defer initrd.Close()
	boot.Initrd = initrd
	all, err := boot.PCRs()
	if err != nil {
		return nil, fmt.Errorf("measuring %s: %w", folder, err)
	}
	return register.PCRs{0: all[0], 4: all[4], 9: all[9]}, nil
}

// imageOf returns what a release's image says of itself.
func imageOf(folder string) (handover.Image, error) {
	file := filepath.Join(folder, "initrd")
	f, err := os.Open(file)
	if err != nil {
		return handover.Image{}, err
	}
	defer f.Close()
	for r := cpio.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return handover.Image{}, fmt.Errorf("%s: it has no image.json", file)
		}
		if err != nil {
			return handover.Image{}, fmt.Errorf("%s: %w", file, err)
		}
		if h.Name != "image.json" {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(r, 64<<10))
		if err != nil {
			return handover.Image{}, fmt.Errorf("%s: %w", file, err)
		}
		return handover.ParseImage(data)
	}
}
