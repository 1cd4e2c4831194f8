package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
	"chrysalis/measure"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/pe/petest"
	"chrysalis/measure/register"
)

// writeMeasured writes the images that the measure scripts read.
func writeMeasured(dir string) error {
	stub := func(version string, names ...string) []byte {
		image := petest.Image(append([]string{".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux"}, names...)...)
		petest.Put(image, 0, []byte("#### LoaderInfo: systemd-stub "+version+" ####"))
		return image
	}
	amdsev, err := os.ReadFile("../../measure/snp/testdata/ovmf_AmdSev_suffix.bin")
	if err != nil {
		return err
	}
	vars, err := unpacked("../../measure/varstore/testdata/snakeoil.fd.gz")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"shim.bin": smallShim(), "vars.fd": vars, "amdsev.bin": amdsev, "guest.igvm": smallIGVM(nil), "promise.igvm": smallIGVM(make([]byte, 48)),
		"uki257.efi": stub("257.13-1~deb13u1", ".splash", ".profile", ".profile", ".ucode"), "uki262.efi": stub("262.1-1", ".hwids", ".efifw"),
		"uki259.efi": stub("259", ".ucode"), "uki300.efi": stub("300"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// smallIGVM is a file with one page and a guest for SEV-SNP and TDX each, and with promised an ID block.
func smallIGVM(promised []byte) []byte {
	le := binary.LittleEndian
	var headers []byte
	add := func(typ uint32, body []byte) {
		headers = le.AppendUint32(le.AppendUint32(headers, typ), uint32(len(body)))
		headers = append(headers, body...)
	}
	for _, platform := range []byte{2, 3} {
		add(1, append([]byte{platform, 0, 0, 0, 0, platform, 1, 0}, make([]byte, 8)...)) // the mask is the platform's number
	}
	headers[8], headers[32] = 1, 2
	add(0x101, []byte{0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	add(0x302, []byte{0, 0, 0x10, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	if promised != nil {
		add(0x30b, append(append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, promised...), make([]byte, 624)...))
	}
	file := []byte("IGVM")
	for _, v := range []int{1, 24, len(headers), 24 + len(headers), 0} {
		file = le.AppendUint32(file, uint32(v))
	}
	file = append(file, headers...)
	le.PutUint32(file[20:], crc32.ChecksumIEEE(file))
	return file
}

// smallShim is firmware in td-shim's own form with one measured page.
func smallShim() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x3000)
	b[0] = 1
	copy(b[0x1ff0:], "\xf3\xf9\xea\xe9\x8e\x16\xd5\x44\xa8\xeb\x7f\x4d\x87\x38\xf6\xae")
	meta := []byte("TDVF")
	for _, v := range []uint32{48, 1, 1, 0, 0x1000, 0xfffff000, 0, 0x1000, 0, 0, 1} {
		meta = le.AppendUint32(meta, v)
	}
	copy(b[0x2000:], meta)
	le.PutUint32(b[len(b)-0x20:], 0x2000)
	return b
}

// TestServedRegisters: what a TD's flags add to the registers of its boot is what a verified guest of that config shows, and with all of them
// there is a hash of the image.
func TestServedRegisters(t *testing.T) {
	const file = "../../measure/config/testdata/vectors/measured.bin"
	measured, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	td := attesttest.NewTDXGuest(measured, time.Now())
	quote, err := tdx.Parse(td.Attest([32]byte{}, [32]byte{}).Quote)
	if err != nil {
		t.Fatal(err)
	}
	body := quote.Body
	boot := measure.TDXRegisters{MRTD: body.MRTD, RTMR0: (*register.Digest384)(&body.RTMR[0]), RTMR1: (*register.Digest384)(&body.RTMR[1])}
	of := func(f servedFlags) tdRegisters {
		t.Helper()
		r, err := f.of(boot)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := of(servedFlags{config: file}); r.ImageHash != nil || *r.MRConfigID != register.Digest384(config.SHA384(measured)) {
		t.Errorf("without RTMR2: got MRCONFIGID %s and image hash %v", r.MRConfigID, r.ImageHash)
	}
	boot.RTMR2 = (*register.Digest384)(&body.RTMR[2])
	r := of(servedFlags{config: file})
	want := cocoon.TD{MRTD: body.MRTD, MRConfigID: body.MRCONFIGID, RTMR: body.RTMR}.ImageHash()
	if r.ImageHash == nil || *r.ImageHash != want {
		t.Errorf("image hash is %v, want %s", r.ImageHash, want)
	}
	// A config of COCOON's public identity leads to what such a guest shows, and to one hash for all.
	for _, price := range []uint64{20, 30} {
		m, err := config.Decode(measured)
		if err != nil {
			t.Fatal(err)
		}
		m.Identity.Cocoon, m.Identity.Sealing, m.Identity.Stranding, m.Service.Price.NanotonPerToken = true, config.SealNothing, config.StrandingAccepted, price
		raw, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		public := filepath.Join(t.TempDir(), "public")
		if err := os.WriteFile(public, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if quote, err = tdx.Parse(attesttest.NewTDXGuest(raw, time.Now()).Attest([32]byte{}, [32]byte{}).Quote); err != nil {
			t.Fatal(err)
		}
		r, tree := of(servedFlags{config: public}), of(servedFlags{tree: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"})
		if *r.RTMR3 != register.Digest384(quote.Body.RTMR[3]) || *r.MRConfigID != (register.Digest384{}) || *r.ImageHash != *tree.ImageHash || *r.ImageHash == want {
			t.Errorf("of COCOON's public identity: got %+v, want the guest's RTMR3 and the hash of the reference's without files", r)
		}
	}
	tree := of(servedFlags{tree: strings.Repeat("ab", 32)})
	if *tree.ImageHash == want || *tree.MRConfigID != (register.Digest384{}) || *tree.RTMR3 != register.Digest384(cocoon.RTMR3([32]byte(bytes.Repeat([]byte{0xab}, 32)))) {
		t.Errorf("of the reference: %+v", tree)
	}
	if of(servedFlags{}).ImageHash != nil {
		t.Error("an image hash without RTMR3")
	}
}
